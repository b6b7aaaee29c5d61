//! Enrollment: joiners and members that return are admitted, and members are looked for where they say that they are.

use std::sync::Arc;

use countersign_api::cluster::enrollment_server::EnrollmentServer;
use countersign_core::limits::PREAUTH_FRAME_LEN_MAX;

use super::{Capability, ClusterServices};
use crate::hosts::HostLookup;
use crate::node::Node;
use crate::service::endpoints::{Call, CallAccess};
use crate::service::enrollment::EnrollmentService;
use crate::tasks::Tasks;

/// Its calls.
pub(super) const CALLS: &[Call] = &[
    ("countersign.v1.Enrollment", "View", CallAccess::Proof("pin, or nothing: it shows what the voters signed")),
    ("countersign.v1.Enrollment", "Enroll", CallAccess::Proof("join token")),
    ("countersign.v1.Enrollment", "Return", CallAccess::Proof("identity key")),
];

/// The capability.
pub(super) struct Enrollment {
    service: EnrollmentService,
    lookup: HostLookup,
}

impl Enrollment {
    pub(super) fn of(node: &Node) -> Self {
        let lookup = HostLookup {
            local: Arc::clone(&node.local),
            group: node.group.clone(),
            proposer: Arc::clone(&node.proposer),
        };
        Self { service: EnrollmentService::of(node), lookup }
    }
}

impl Capability for Enrollment {
    fn serve(&self, services: &mut ClusterServices) {
        let service = EnrollmentServer::new(self.service.clone()).max_decoding_message_size(2 * PREAUTH_FRAME_LEN_MAX);
        services.unauthenticated = core::mem::take(&mut services.unauthenticated).add_service(service);
    }

    fn start(&self, tasks: &Tasks) {
        tasks.spawn(self.lookup.clone().run());
    }
}
