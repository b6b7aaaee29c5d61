//! Whether the leader still speaks.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When the leader's last message was accepted. Raft's engine keeps naming a leader that has fallen silent.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Option<Instant>>);

impl Heard {
    pub(crate) fn set(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether that was less than `within` ago.
    pub(crate) fn lately(&self, within: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < within)
    }
}
