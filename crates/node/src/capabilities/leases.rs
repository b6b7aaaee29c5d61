//! Leases: this member keeps its own, grants those of others as leader, and compares states with each. Without a lease
//! no client stays connected.

use std::sync::Arc;

use countersign_api::cluster::leases_server::LeasesServer;
use countersign_guard::Guard;

use super::{Capability, ClusterServices};
use crate::lease::LeaseKeeping;
use crate::node::Node;
use crate::service::close_when_lapsed;
use crate::service::endpoints::{Call, CallAccess};
use crate::service::peers::PeerService;
use crate::tasks::Tasks;

/// Its calls.
pub(super) const CALLS: &[Call] = &[
    ("countersign.v1.Leases", "Lease", CallAccess::Membership),
    ("countersign.v1.Leases", "Barrier", CallAccess::Membership),
];

/// The capability.
pub(super) struct Leases {
    service: PeerService,
    keeping: Arc<LeaseKeeping>,
    guard: Guard,
}

impl Leases {
    pub(super) fn of(node: &Node) -> Self {
        let keeping = LeaseKeeping {
            local: Arc::clone(&node.local),
            state: node.state.clone(),
            group: node.group.clone(),
            peers: node.peers.clone(),
            lease: Arc::clone(&node.lease),
            granting: Arc::clone(&node.granting),
            time: Arc::clone(&node.time),
            stores: Arc::clone(&node.stores),
            divergence: Arc::clone(&node.divergence),
        };
        Self { service: PeerService::of(node), keeping: Arc::new(keeping), guard: node.guard.clone() }
    }
}

impl Capability for Leases {
    fn serve(&self, services: &mut ClusterServices) {
        let service = LeasesServer::new(self.service.clone());
        services.members = core::mem::take(&mut services.members).add_service(service);
    }

    fn start(&self, tasks: &Tasks) {
        let LeaseKeeping { local, divergence, .. } = &*self.keeping;
        tasks.spawn(Arc::clone(&self.keeping).run());
        tasks.spawn(Arc::clone(divergence).run_comparing());
        tasks.spawn(Arc::clone(divergence).run_noting());
        tasks.spawn(Arc::clone(divergence).run_writing());
        tasks.spawn(close_when_lapsed(self.guard.clone(), local.endpoint.clone()));
    }
}
