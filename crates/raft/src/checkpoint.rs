//! When a group whose log entries are its data writes a checkpoint: after so many entries, and when its retention floor
//! has moved.
//!
//! A checkpoint never deletes anything by itself. Raft deletes entries below the floor once a checkpoint that is not
//! below it is durable.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::locked::Locked;
use openraft::ServerState;
use tokio::sync::Notify;

use crate::types::Raft;

/// How far one group is applied, and how far its checkpoint goes. Clones share it.
#[derive(Clone)]
pub(crate) struct Checkpoints(Arc<Inner>);

struct Inner {
    /// Entries after which a checkpoint is written.
    every: u64,
    reached: Locked<Reached>,
    due: Notify,
}

#[derive(Debug, Default)]
struct Reached {
    applied: Mark,
    stored: Mark,
}

/// How far a machine has come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mark {
    /// The first entry that it does not hold yet.
    pub(crate) next: u64,
    /// The first entry that it keeps.
    pub(crate) floor: u64,
}

impl Reached {
    fn is_due(&self, every: u64) -> bool {
        self.applied.floor > self.stored.floor || self.applied.next >= self.stored.next.saturating_add(every)
    }
}

impl Checkpoints {
    /// Of a machine that holds what is stored.
    pub(crate) fn of(every: u64, stored: Mark) -> Self {
        let reached = Locked::new(Reached { applied: stored, stored });
        Self(Arc::new(Inner { every, reached, due: Notify::new() }))
    }

    /// The machine has come this far.
    pub(crate) fn applied(&self, mark: Mark) {
        let due = {
            let mut reached = self.0.reached.lock();
            reached.applied = mark;
            reached.is_due(self.0.every)
        };
        if due {
            self.0.due.notify_one();
        }
    }

    /// A checkpoint of this is durable.
    pub(crate) fn stored(&self, mark: Mark) {
        self.0.reached.lock().stored = mark;
    }

    fn is_due(&self) -> bool {
        self.0.reached.lock().is_due(self.0.every)
    }

    /// Has checkpoints written until Raft stops, at most one in each `pause`.
    pub(crate) async fn keep(self, raft: Raft, pause: Duration) {
        let mut metrics = raft.metrics();
        // A crash may have come between a checkpoint and the deletion of the entries below its floor.
        let floor = self.0.reached.lock().stored.floor;
        if let Some(below) = floor.checked_sub(1) {
            drop(raft.trigger().purge_log(below).await);
        }
        loop {
            tokio::select! {
                () = self.0.due.notified() => {}
                _ = metrics.wait_for(|metrics| metrics.state == ServerState::Shutdown) => return,
            }
            while self.is_due() {
                if raft.trigger().snapshot().await.is_err() {
                    return;
                }
                // why: Raft ignores the request while it is still busy with the one before, and does not say so
                tokio::time::sleep(pause).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoint_is_due_after_so_many_entries_or_when_the_floor_has_moved() {
        let mark = |next, floor| Mark { next, floor };
        let checkpoints = Checkpoints::of(10, mark(5, 2));
        for (next, floor, due) in [(5, 2, false), (14, 2, false), (15, 2, true), (6, 3, true), (99, 99, true)] {
            checkpoints.applied(mark(next, floor));
            assert_eq!(checkpoints.is_due(), due, "{next} {floor}");
        }
        checkpoints.stored(mark(99, 99));
        assert!(!checkpoints.is_due());
        checkpoints.applied(mark(109, 99));
        assert!(checkpoints.is_due());
    }
}
