//! Remote guards: they are told of views, of changes of rules, and what rules say of a principal.

use axum::Router;
use axum::middleware::from_fn;
use countersign_api::cluster::policy_server::PolicyServer;
use countersign_core::limits::{CLIENT_MESSAGE_LEN_MAX, SLICE_LEN_MAX};
use tonic::server::NamedService;
use tonic::service::Routes;

use super::{Capability, ClusterServices};
use crate::node::Node;
use crate::service::endpoints::{Call, CallAccess};
use crate::service::policy::PolicyService;
use crate::service::unread::until_read;
use crate::tasks::Tasks;

/// Its calls.
pub(super) const CALLS: &[Call] = &[
    ("countersign.v1.Policy", "Watch", CallAccess::ReadPolicy),
    ("countersign.v1.Policy", "Fetch", CallAccess::ReadPolicy),
];

/// The capability.
pub(super) struct RemoteGuards(PolicyService);

impl RemoteGuards {
    pub(super) fn of(node: &Node) -> Self {
        Self(PolicyService::of(node, node.cache_ttl_secs))
    }
}

impl Capability for RemoteGuards {
    fn serve(&self, services: &mut ClusterServices) {
        let policy = PolicyServer::new(self.0.clone())
            .max_decoding_message_size(CLIENT_MESSAGE_LEN_MAX)
            .max_encoding_message_size(SLICE_LEN_MAX);
        let path = format!("/{}/{{*call}}", PolicyServer::<PolicyService>::NAME);
        let served = Router::new().route_service(&path, policy).layer(from_fn(until_read));
        let others = core::mem::take(&mut services.principals).into_axum_router();
        services.principals = Routes::from(others.merge(served));
    }

    /// None: each guard that watches is served by a task of its own.
    fn start(&self, _: &Tasks) {}
}
