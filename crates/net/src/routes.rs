//! Where accepted connections go: one bounded queue per protocol, each of its own type.
//!
//! A place in the queue is taken before `Welcome` is said, so that no welcomed peer is then forgotten.

use arc_swap::ArcSwapOption;
use countersign_core::peer::Refusal;
use std::sync::Arc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{OwnedPermit, Receiver, Sender, channel};

use crate::stream::{EnrollStream, PeerStream};

/// The queue of one protocol; none while it is not served.
pub(crate) struct Route<T>(ArcSwapOption<Sender<T>>);

impl<T> Route<T> {
    pub(crate) fn new() -> Self {
        Self(ArcSwapOption::empty())
    }

    pub(crate) fn serve(&self, bound: usize) -> Receiver<T> {
        let (sender, receiver) = channel(bound.max(1));
        self.0.store(Some(Arc::new(sender)));
        receiver
    }

    /// A place for one connection.
    pub(crate) fn reserve(&self) -> Result<OwnedPermit<T>, Refusal> {
        let sender = self.0.load_full().ok_or(Refusal::NotReady)?;
        Sender::clone(&sender).try_reserve_owned().map_err(|error| match error {
            TrySendError::Full(_) => Refusal::Overloaded,
            TrySendError::Closed(_) => Refusal::NotReady,
        })
    }
}

/// The queues of one acceptor. A protocol without a queue, or with one that was dropped, is refused as not ready.
pub struct Routes {
    pub(crate) enroll: Route<EnrollStream>,
    pub(crate) peer: Route<PeerStream>,
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self { enroll: Route::new(), peer: Route::new() }
    }

    /// Serves enrollment from now on, with at most `bound` connections waiting.
    pub fn enrollments(&self, bound: usize) -> Receiver<EnrollStream> {
        self.enroll.serve(bound)
    }

    /// Serves members from now on, with at most `bound` connections waiting.
    pub fn peers(&self, bound: usize) -> Receiver<PeerStream> {
        self.peer.serve(bound)
    }
}
