//! What this member did about each revocation, kept until leaders have been told.

use std::collections::VecDeque;

use countersign_core::id::{BootId, ClusterId, Generation, NodeId};
use countersign_core::key::SecretKey;
use countersign_core::locked::{LockGuard, Locked};
use countersign_core::receipt::Receipt;
use countersign_core::time::UnixMillis;
use countersign_core::trust::command::Revoked;
use countersign_net::ClosedConnection;

use crate::trust::machine::Revocation;

/// Revocations remembered; whoever asks for a receipt asks at once.
const ENTRIES_MAX: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Entry {
    generation: Generation,
    closed: u64,
    at: UnixMillis,
}

/// The last revocations enforced here.
pub(crate) struct Book {
    /// Drawn at this start.
    boot: [u8; 16],
    entries: Locked<VecDeque<Entry>>,
}

impl Book {
    /// Drawn at this start.
    pub(crate) const fn boot(&self) -> BootId {
        BootId(self.boot)
    }

    pub(crate) const fn new(boot: [u8; 16]) -> Self {
        Self { boot, entries: Locked::new(VecDeque::new()) }
    }

    fn lock(&self) -> LockGuard<'_, VecDeque<Entry>> {
        self.entries.lock()
    }

    /// Enters revocations that are in force by now, with the connections that were closed for them.
    pub(crate) fn enter(&self, revocations: &[Revocation], closed: &[ClosedConnection], at: UnixMillis) {
        let mut entries = self.lock();
        for revocation in revocations {
            let of = |connection: &&ClosedConnection| match &revocation.whom {
                Revoked::Principal(role) => connection.principal.role == *role,
                Revoked::Key(key) => connection.key == *key,
            };
            let closed = closed.iter().filter(of).count() as u64;
            entries.push_back(Entry { generation: revocation.generation, closed, at });
        }
        let surplus = entries.len().saturating_sub(ENTRIES_MAX);
        entries.drain(..surplus);
    }

    /// The newest generation entered, up to one that is enforced.
    pub(crate) fn newest(&self, enforced: Generation) -> Generation {
        let entries = self.lock();
        let upto = entries.iter().rev().find(|entry| entry.generation <= enforced);
        upto.map_or(Generation(0), |entry| entry.generation)
    }

    /// Receipts for what was enforced after `told` up to `enforced`, the newest first to be left out if they are many.
    pub(crate) fn receipts(
        &self,
        told: Generation,
        enforced: Generation,
        cluster: ClusterId,
        member: NodeId,
        identity: &SecretKey,
        max: usize,
    ) -> Vec<Receipt> {
        let entries: Vec<Entry> =
            self.lock().iter().filter(|e| e.generation > told && e.generation <= enforced).copied().take(max).collect();
        let receipt = |entry: Entry| {
            let Entry { generation, closed, at } = entry;
            Receipt { cluster, generation, member, boot: self.boot, closed, at, signature: [0; 64] }.signed(identity)
        };
        entries.into_iter().map(receipt).collect()
    }
}
