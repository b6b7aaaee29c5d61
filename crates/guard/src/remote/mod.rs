//! A guard outside the cluster: it decides by the same rules, as told by members, and denies when they fall silent.
//!
//! The watched member delegates a lease to it. It keeps the rules of a principal until it is told that something
//! changed, for a bounded time at most. An error is never an answer: it denies where it does not know.

mod cache;
mod feed;
mod follow;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use countersign_core::lease::LeaseClock;
use countersign_core::time::UnixMillis;
use countersign_core::trust::view::View;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::guard::Guard;
use crate::time::Time;
use feed::Feed;

/// A connection to a member, or why there is none.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = Result<Channel, ConnectError>> + Send + 'a>>;

/// No member was reached.
#[derive(Debug, thiserror::Error)]
#[error("no member was reached")]
pub struct ConnectError(#[source] pub Box<dyn core::error::Error + Send + Sync>);

/// How a remote guard reaches members, and what it does with their answers.
pub trait Controllers: Send + Sync + 'static {
    /// Connects to a member, over a connection that is authenticated in both directions: each time to the next one.
    fn connect(&self) -> Connecting<'_>;

    /// Puts a view in force wherever connections are judged. True once every connection that it refuses is closed; else
    /// it is not acknowledged, and no lease counts from there on.
    fn enforce(&self, view: &Arc<View>, time: UnixMillis) -> bool;
}

/// How often members said that this guard may not know the rules.
#[derive(Default)]
struct Denied {
    times: usize,
    last: String,
}

/// A guard outside the cluster, and what keeps it informed.
pub struct RemoteGuard {
    guard: Guard,
    denied: watch::Sender<Denied>,
    feed: Arc<Feed>,
    controllers: Arc<dyn Controllers>,
}

impl RemoteGuard {
    /// Knows nothing and allows nothing until [`RemoteGuard::run`] has reached a member.
    pub fn new(controllers: Arc<dyn Controllers>, time: Arc<dyn Time>) -> Self {
        let lease = Arc::new(LeaseClock::default());
        let feed = Arc::new(Feed::new(Arc::clone(&lease), Arc::clone(&time)));
        let guard = Guard::new(Arc::clone(&feed) as Arc<dyn crate::source::Source>, lease, time);
        Self { guard, denied: watch::Sender::default(), feed, controllers }
    }

    /// The guard. A session for a principal that it was not asked about before needs [`Guard::fetch`] first.
    pub const fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Follows the cluster, from one member to the next, until dropped.
    pub async fn run(&self) -> core::convert::Infallible {
        follow::follow(self).await
    }

    /// Ends once members have denied this guard the rules `times` in all, since it began; with what the last of them
    /// said.
    pub async fn denied(&self, times: usize) -> String {
        let mut denied = self.denied.subscribe();
        match denied.wait_for(|denied| denied.times >= times).await {
            Ok(denied) => denied.last.clone(),
            // The sender lives as long as this does.
            Err(_) => String::new(),
        }
    }

    /// Questions that were sent to members so far: one for each principal that was not known, however many waited for
    /// it.
    pub fn fetches(&self) -> u64 {
        self.feed.fetches()
    }
}
