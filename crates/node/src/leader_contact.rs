//! Whether the leader still speaks.

use std::time::{Duration, Instant};

use countersign_core::locked::Locked;

/// When the leader's last message was accepted. Raft's engine keeps naming a leader that has fallen silent.
#[derive(Default)]
pub struct LeaderContact(Locked<Option<Instant>>);

impl LeaderContact {
    pub(crate) fn set(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Whether that was less than `within` ago.
    pub fn lately(&self, within: Duration) -> bool {
        self.0.lock().is_some_and(|at| at.elapsed() < within)
    }
}
