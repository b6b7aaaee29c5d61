//! Where a guard's rules come from.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use countersign_core::authz::{Policy, Subject};
use countersign_core::id::Generation;
use countersign_core::peer::VerifiedPeer;
use countersign_core::time::{BootMillis, UnixMillis};

use crate::cells::Cells;
use crate::permit::Denial;

/// The knowledge of one peer at one generation.
pub(crate) struct Standing {
    pub(crate) generation: Generation,
    pub(crate) policy: Arc<Policy>,
    pub(crate) subject: Subject,
    /// Where the compiled rules are kept, if not by the groups of a policy that all principals share.
    pub(crate) compiled: Option<Compiled>,
    /// From then on it is to be fetched again.
    pub(crate) until: BootMillis,
}

/// Groups of rules, compiled once.
pub(crate) type Compiled = Arc<OnceLock<Vec<Arc<[Arc<Cells>]>>>>;

/// The knowledge of a peer, on its way.
pub(crate) type Fetching = Pin<Box<dyn Future<Output = Result<(), Denial>> + Send>>;

/// Rules, as of a generation that only grows.
pub(crate) trait Source: Send + Sync {
    /// The knowledge of `peer` now. All of it is of one generation, and that is in force.
    fn standing(&self, peer: &VerifiedPeer, now: UnixMillis) -> Result<Standing, Denial>;

    /// Sees to it that it is known.
    fn fetch(self: Arc<Self>, peer: &VerifiedPeer) -> Fetching;
}
