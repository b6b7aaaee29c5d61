//! What this member did about each revocation: entered where it was done, signed where a leader is told.

use std::sync::Arc;

use countersign_core::id::{BootId, ClusterId, NodeId};
use countersign_core::key::SecretKey;
use countersign_core::lease::{Enforcement, LeaseKeeper};
use countersign_core::locked::Locked;
use countersign_core::receipt::Receipt;
use countersign_core::time::UnixMillis;
use countersign_core::trust::command::Revoked;
use countersign_net::ClosedConnection;

use crate::trust::machine::Revocation;

/// Where revocations are entered that are in force here.
pub(crate) struct Enforced {
    /// Drawn at this start.
    boot: [u8; 16],
    keeper: Arc<Locked<LeaseKeeper>>,
}

impl Enforced {
    pub(super) const fn new(boot: [u8; 16], keeper: Arc<Locked<LeaseKeeper>>) -> Self {
        Self { boot, keeper }
    }

    /// Drawn at this start.
    pub(crate) const fn boot(&self) -> BootId {
        BootId(self.boot)
    }

    /// Enters revocations that are in force by now, with the connections that were closed for them.
    pub(crate) fn enter(&self, revocations: &[Revocation], closed: &[ClosedConnection], at: UnixMillis) {
        for revocation in revocations {
            let of = |connection: &&ClosedConnection| match &revocation.revoked {
                Revoked::Principal(role) => connection.principal.role == *role,
                Revoked::Key(key) => connection.key == *key,
            };
            let closed = closed.iter().filter(of).count() as u64;
            self.keeper.lock().handle_revoked(Enforcement { generation: revocation.generation, closed, at });
        }
    }

    /// The receipt for one of them.
    pub(super) fn receipt(
        &self,
        done: Enforcement,
        cluster: ClusterId,
        member: NodeId,
        identity: &SecretKey,
    ) -> Receipt {
        let Enforcement { generation, closed, at } = done;
        Receipt { cluster, generation, member, boot: self.boot, closed, at, signature: [0; 64] }.signed(identity)
    }
}
