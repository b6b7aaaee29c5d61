//! What members serve each other: Raft of every group, and commands passed on to the leader.

use std::sync::Arc;

use bytes::Bytes;
use countersign_api::cluster::members_server::Members;
use countersign_api::cluster::raft_server::Raft;
use countersign_api::cluster::snapshots_server::Snapshots;
use countersign_api::cluster::{
    AdminAddressReply, AdminAddressRequest, GuardLevel, GuardsReply, GuardsRequest, ProposeReply, ProposeRequest,
    RaftReply, RaftRequest, RecentReply, RecentRequest, RevocationsReply, RevocationsRequest,
};
use countersign_api::convert::decoded;
use countersign_core::codec;
use countersign_core::id::{GroupId, NodeId};
use countersign_core::limits::AUTHOR_LEN_MAX;
use countersign_core::trust::author::Claim;
use countersign_core::trust::command::Command;
use countersign_core::trust::member::Suffrage;
use countersign_guard::{Caller, Guard};
use countersign_raft::{Group, Groups, RaftRpc};
use tonic::{Request, Response, Status};

use super::recovery::{may_carry_group, may_propose};
use super::{undecodable, unreadable};
use crate::identity::endpoints::OwnEndpoints;
use crate::identity::local::Local;
use crate::leader_contact::LeaderContact;
use crate::lease::{Granting, Leasehold};
use crate::node::Node;
use crate::time::ClusterTime;
use crate::trust::divergence::Divergence;
use crate::trust::machine::SharedState;
use crate::trust::propose::{CommandError, Proposer};
use crate::trust::stores::Stores;

/// The peer protocol's services.
#[derive(Clone)]
pub(crate) struct PeerService {
    pub(super) local: Arc<Local>,
    pub(super) state: SharedState,
    pub(super) groups: Groups,
    pub(super) group: Group,
    pub(super) proposer: Arc<Proposer>,
    pub(super) lease: Arc<Leasehold>,
    pub(super) granting: Arc<Granting>,
    pub(super) time: Arc<ClusterTime>,
    pub(super) divergence: Arc<Divergence>,
    pub(super) stores: Arc<Stores>,
    pub(super) guard: Guard,
    pub(super) endpoints: Arc<OwnEndpoints>,
    pub(super) leader_contact: Arc<LeaderContact>,
}

impl PeerService {
    pub(crate) fn of(node: &Node) -> Self {
        Self {
            local: Arc::clone(&node.local),
            state: node.state.clone(),
            groups: node.groups.clone(),
            group: node.group.clone(),
            proposer: Arc::clone(&node.proposer),
            lease: Arc::clone(&node.lease),
            granting: Arc::clone(&node.granting),
            time: Arc::clone(&node.time),
            divergence: Arc::clone(&node.divergence),
            stores: Arc::clone(&node.stores),
            guard: node.guard.clone(),
            endpoints: Arc::clone(&node.endpoints),
            leader_contact: Arc::clone(&node.leader_contact),
        }
    }
}

/// The member that the transport verified. Absent only if the router were wired wrongly: refuse.
pub(super) fn caller<T>(request: &Request<T>) -> Result<NodeId, Status> {
    let caller = request.extensions().get::<Caller>().and_then(|caller| caller.peer.node_id());
    caller.ok_or_else(|| Status::unauthenticated("not a member"))
}

#[tonic::async_trait]
impl Raft for PeerService {
    async fn call(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        self.pass(request, |kind| kind != RaftRpc::Snapshot).await
    }
}

#[tonic::async_trait]
impl Snapshots for PeerService {
    async fn install(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        self.pass(request, |kind| kind == RaftRpc::Snapshot).await
    }
}

impl PeerService {
    /// Hands a request to its group, if it is of a kind that came the right way.
    async fn pass(
        &self,
        request: Request<RaftRequest>,
        expected: impl Fn(RaftRpc) -> bool,
    ) -> Result<Response<RaftReply>, Status> {
        let from = caller(&request)?;
        may_carry_group(&request, GroupId(request.get_ref().group))?;
        let RaftRequest { group, kind, body } = request.into_inner();
        let kind: RaftRpc = decoded("kind", &kind).map_err(|error| unreadable("kind", error))?;
        if !expected(kind) {
            return Err(Status::invalid_argument("snapshots have a service of their own"));
        }
        let reply = match self.groups.handle(from, GroupId(group), kind, &body).await {
            Ok(body) => RaftReply { body: Bytes::from(body), refused: Bytes::new() },
            Err(error) => {
                tracing::debug!(%from, group, error = %crate::chain(&error), "raft message refused");
                let refused = codec::encode(&error.refusal()).map_err(|_| Status::internal("refused"))?;
                RaftReply { body: Bytes::new(), refused: refused.into() }
            }
        };
        if kind == RaftRpc::Append && reply.refused.is_empty() && self.group.leader() == Some(from) {
            self.leader_contact.set();
        }
        Ok(Response::new(reply))
    }
}

/// What a member reports about the author of a command that it forwards.
fn claimed(bytes: &[u8]) -> Result<Claim, Status> {
    if bytes.len() > AUTHOR_LEN_MAX {
        return Err(Status::invalid_argument("claim is too long"));
    }
    decoded("claim", bytes).map_err(|error| unreadable("claim", error))
}

#[tonic::async_trait]
impl Members for PeerService {
    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeReply>, Status> {
        let from = caller(&request)?;
        let may_propose = may_propose(&request, from);
        let ProposeRequest { command, spki, claim } = request.into_inner();
        let claim = claimed(&claim)?;
        let known = self.state.read().known();
        let command = Command::decode(known, &command).map_err(|error| undecodable("command", &error))?;
        may_propose(&command)?;
        match self.proposer.propose_for(from, claim, &command, &spki).await {
            Ok(Some(reply)) => Ok(Response::new(reply)),
            Ok(None) => Err(Status::failed_precondition("not the leader")),
            Err(error) => {
                tracing::warn!(%from, %error, "command passed on by a member was not carried out");
                Err(match error {
                    // Nothing was carried out; the member that passed it on asks again.
                    CommandError::Clock(why) => {
                        let details = codec::encode(&why).unwrap_or_default();
                        Status::with_details(tonic::Code::Aborted, error.to_string(), details.into())
                    }
                    CommandError::TooLong { .. } => Status::invalid_argument("command is too long"),
                    CommandError::NotPermitted(_) => Status::permission_denied("not a voter"),
                    CommandError::Overloaded => Status::resource_exhausted("too many commands are waiting"),
                    CommandError::Busy(busy) => Status::resource_exhausted(busy.to_string()),
                    CommandError::Shutdown => Status::failed_precondition("shutting down"),
                    CommandError::Refused(_)
                    | CommandError::NoLeader
                    | CommandError::Unknown
                    | CommandError::OtherOutcome
                    | CommandError::Sign(_)
                    | CommandError::Keys(_)
                    | CommandError::Message(_)
                    | CommandError::Codec(_) => Status::unknown("the command may or may not have been carried out"),
                })
            }
        }
    }

    async fn admin_address(
        &self,
        request: Request<AdminAddressRequest>,
    ) -> Result<Response<AdminAddressReply>, Status> {
        caller(&request)?;
        let address = self.endpoints.admin_address().map(|address| address.to_string()).unwrap_or_default();
        Ok(Response::new(AdminAddressReply { address }))
    }

    async fn guards(&self, request: Request<GuardsRequest>) -> Result<Response<GuardsReply>, Status> {
        caller(&request)?;
        let guards = self.lease.delegated.below(u32::MAX).into_iter();
        Ok(Response::new(GuardsReply { guards: guards.map(|(name, level)| GuardLevel { name, level }).collect() }))
    }

    async fn revocations(&self, request: Request<RevocationsRequest>) -> Result<Response<RevocationsReply>, Status> {
        let from = caller(&request)?;
        let view = self.state.read().view().cloned();
        // Only a leader has a use for it.
        let voter = view.and_then(|view| Some(view.members.get(&from)?.suffrage == Suffrage::Voter));
        if voter != Some(true) {
            return Err(Status::permission_denied("not a voter"));
        }
        let after = request.into_inner().after;
        let after = match after.as_ref() {
            [] => None,
            bytes => Some(decoded("revocation", bytes).map_err(|error| unreadable("revocation", error))?),
        };
        let (page, last) = self.divergence.revocations_page(after.as_ref());
        let page = codec::encode(&page).map_err(|_| Status::internal("a revocation cannot be encoded"))?;
        Ok(Response::new(RevocationsReply { page: page.into(), last }))
    }

    async fn recent(&self, request: Request<RecentRequest>) -> Result<Response<RecentReply>, Status> {
        caller(&request)?;
        // Who was evicted while this member was cut off is not told what others asked.
        self.lease.fresh().map_err(|denied| Status::unavailable(denied.to_string()))?;
        let requests = self.guard.recent().iter().map(codec::encode).collect::<Result<Vec<_>, _>>();
        let requests = requests.map_err(|_| Status::internal("a request cannot be encoded"))?;
        Ok(Response::new(RecentReply { requests: requests.into_iter().map(Bytes::from).collect() }))
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::id::RequestId;

    use super::*;

    #[test]
    fn claim_longer_than_any_author_is_not_decoded() {
        let claim = codec::encode(&Claim::of_member(NodeId(1), RequestId([1; 16]))).unwrap();
        let padded = |len: usize| [claim.clone(), vec![0; len - claim.len()]].concat();
        assert!(claimed(&claim).is_ok());
        assert_eq!(claimed(&padded(AUTHOR_LEN_MAX)).unwrap_err().message(), "malformed claim");
        assert_eq!(claimed(&padded(AUTHOR_LEN_MAX + 1)).unwrap_err().message(), "claim is too long");
        assert!(claimed(&[]).is_err());
    }
}
