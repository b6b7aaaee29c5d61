//! Certificates: clients renew theirs here, this member renews its own, and returns where its peers do not take it.

use std::sync::Arc;

use countersign_api::cluster::certificates_server::CertificatesServer;
use countersign_core::limits::CSR_LEN_MAX;

use super::{Capability, ClusterServices};
use crate::identity::local::Local;
use crate::lease::Leasehold;
use crate::node::Node;
use crate::peers::Peers;
use crate::service::certificates::CertificatesService;
use crate::service::endpoints::{Call, CallAccess};
use crate::tasks::Tasks;
use crate::tasks::renewal::{Renewal, Renewals};
use crate::tasks::returning::Returning;
use crate::time::ClusterTime;
use crate::trust::machine::SharedState;
use crate::trust::own_status::OwnStatus;
use crate::trust::propose::Proposer;

/// Its calls.
pub(super) const CALLS: &[Call] = &[("countersign.v1.Certificates", "Renew", CallAccess::Own)];

/// The capability.
pub(super) struct Certificates {
    service: CertificatesService,
    local: Arc<Local>,
    state: SharedState,
    peers: Peers,
    proposer: Arc<Proposer>,
    time: Arc<ClusterTime>,
    renewals: Arc<Renewals>,
    lease: Arc<Leasehold>,
    own: Arc<OwnStatus>,
}

impl Certificates {
    pub(super) fn of(node: &Node) -> Self {
        Self {
            service: CertificatesService::new(Arc::clone(&node.local), node.state.clone(), Arc::clone(&node.proposer)),
            local: Arc::clone(&node.local),
            state: node.state.clone(),
            peers: node.peers.clone(),
            proposer: Arc::clone(&node.proposer),
            time: Arc::clone(&node.time),
            renewals: Arc::clone(&node.renewals),
            lease: Arc::clone(&node.lease),
            own: Arc::clone(&node.own),
        }
    }
}

impl Capability for Certificates {
    fn serve(&self, services: &mut ClusterServices) {
        let service = CertificatesServer::new(self.service.clone()).max_decoding_message_size(2 * CSR_LEN_MAX);
        services.principals = core::mem::take(&mut services.principals).add_service(service);
    }

    fn start(&self, tasks: &Tasks) {
        tasks.spawn(
            Renewal {
                local: Arc::clone(&self.local),
                state: self.state.clone(),
                peers: self.peers.clone(),
                proposer: Arc::clone(&self.proposer),
                time: Arc::clone(&self.time),
                renewals: Arc::clone(&self.renewals),
            }
            .run(),
        );
        tasks.spawn(
            Returning {
                local: Arc::clone(&self.local),
                state: self.state.clone(),
                peers: self.peers.clone(),
                lease: Arc::clone(&self.lease),
                own: Arc::clone(&self.own),
            }
            .run(),
        );
    }
}
