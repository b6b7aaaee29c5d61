//! Whether this member is still one. Once it knows that it was evicted it serves no caller any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use countersign_core::peer::Refusal;
use countersign_net::Endpoint;

use crate::lease::Leasehold;

/// What this member knows of its own membership.
pub struct OwnStatus {
    evicted: AtomicBool,
    lease: Arc<Leasehold>,
    endpoint: Endpoint,
}

impl OwnStatus {
    pub(crate) fn new(lease: Arc<Leasehold>, endpoint: Endpoint) -> Self {
        Self { evicted: AtomicBool::new(false), lease, endpoint }
    }

    /// Whether this member knows that it was evicted: by its own log, or by attestations that the voters signed.
    pub fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }

    /// This member was evicted: it serves no caller from now on, whatever a leader may grant it.
    pub(crate) fn evicted(&self) {
        self.evicted.store(true, Ordering::Release);
        self.lease.surrender();
        let closed = self.endpoint.registry().close_services(Refusal::NoLease).len();
        tracing::error!(connections = closed, "this node was evicted from its cluster; it serves no client any more");
    }
}
