//! The tasks of one member: each runs until it ends by itself or the member stops.
//!
//! A capability starts its own tasks, and [`Node::run`](crate::Node::run) those of the trust group. A task names the
//! parts that it is handed, and never gets the whole node. A task that belongs to one part stands beside that part.

pub(crate) mod membership;
pub(crate) mod own_record;
pub(crate) mod recognize;
pub(crate) mod renewal;
pub(crate) mod returning;
pub(crate) mod watchdog;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts tasks, and stops all of them together. Clones are the same set.
#[derive(Clone, Default)]
pub struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// Runs a task until it ends or the member stops. It is dropped at its next await then.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Runs a task that watches [`Tasks::stopping`] itself, so that it can finish what is under way.
    pub fn spawn_finishing(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Is cancelled when the member stops.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Has all tasks end.
    pub fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
    }

    /// Returns once all of them have ended, after [`Tasks::stop`].
    pub async fn ended(&self) {
        self.tracker.wait().await;
    }
}
