//! What members serve each other: Raft of every group, and commands passed on to the leader.

use std::sync::Weak;

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
use countersign_guard::Caller;
use countersign_raft::RaftRpc;
use tonic::{Request, Response, Status};

use super::recovery::{may_carry_group, may_propose};
use super::{undecodable, unreadable};
use crate::member::Inner;
use crate::propose::CommandError;

/// The peer protocol's services. Weak, so that a member that was dropped is not kept alive by its own server.
#[derive(Clone)]
pub(crate) struct PeerService(pub(crate) Weak<Inner>);

impl PeerService {
    pub(super) fn member(&self) -> Result<std::sync::Arc<Inner>, Status> {
        self.0.upgrade().ok_or_else(|| Status::unavailable("shutting down"))
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
        let member = self.member()?;
        let reply = match member.hub.handle(from, GroupId(group), kind, &body).await {
            Ok(body) => RaftReply { body: Bytes::from(body), refused: Bytes::new() },
            Err(error) => {
                tracing::debug!(%from, group, error = %crate::chain(&error), "raft message refused");
                let refused = codec::encode(&error.refusal()).map_err(|_| Status::internal("refused"))?;
                RaftReply { body: Bytes::new(), refused: refused.into() }
            }
        };
        if kind == RaftRpc::Append && reply.refused.is_empty() && member.leader() == Some(from) {
            member.heard.set();
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
        let member = self.member()?;
        let known = member.state.read().known();
        let command = Command::decode(known, &command).map_err(|error| undecodable("command", &error))?;
        may_propose(&command)?;
        match member.propose_for(from, claim, &command, &spki).await {
            Ok(Some(reply)) => Ok(Response::new(reply)),
            Ok(None) => Err(Status::failed_precondition("not the leader")),
            Err(error) => {
                tracing::warn!(%from, %error, "command passed on by a member was not carried out");
                Err(match error {
                    // Nothing was carried out; whoever passed it on comes again.
                    CommandError::Clock(why) => {
                        let details = codec::encode(&why).unwrap_or_default();
                        Status::with_details(tonic::Code::Aborted, error.to_string(), details.into())
                    }
                    CommandError::TooLong { .. } => Status::invalid_argument("command is too long"),
                    CommandError::NotPermitted(_) => Status::permission_denied("not a voter"),
                    CommandError::Overloaded => Status::resource_exhausted("too many commands are waiting"),
                    CommandError::Busy(busy) => Status::resource_exhausted(busy.to_string()),
                    CommandError::Shutdown => Status::failed_precondition("shutting down"),
                    _ => Status::unknown("the command may or may not have been carried out"),
                })
            }
        }
    }

    async fn admin_address(
        &self,
        request: Request<AdminAddressRequest>,
    ) -> Result<Response<AdminAddressReply>, Status> {
        caller(&request)?;
        let address = self.member()?.admin_address().map(|address| address.to_string()).unwrap_or_default();
        Ok(Response::new(AdminAddressReply { address }))
    }

    async fn guards(&self, request: Request<GuardsRequest>) -> Result<Response<GuardsReply>, Status> {
        caller(&request)?;
        let guards = self.member()?.lease.subleases.below(u32::MAX).into_iter();
        Ok(Response::new(GuardsReply { guards: guards.map(|(name, level)| GuardLevel { name, level }).collect() }))
    }

    async fn revocations(&self, request: Request<RevocationsRequest>) -> Result<Response<RevocationsReply>, Status> {
        let from = caller(&request)?;
        let member = self.member()?;
        let view = member.state.read().view().cloned();
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
        let (page, last) = member.revocations_page(after.as_ref());
        let page = codec::encode(&page).map_err(|_| Status::internal("a revocation cannot be encoded"))?;
        Ok(Response::new(RevocationsReply { page: page.into(), last }))
    }

    async fn recent(&self, request: Request<RecentRequest>) -> Result<Response<RecentReply>, Status> {
        caller(&request)?;
        let member = self.member()?;
        // Who was evicted while this member was cut off is not told what others asked.
        member.lease.fresh().map_err(|denied| Status::unavailable(denied.to_string()))?;
        let requests = member.guard.recent().iter().map(codec::encode).collect::<Result<Vec<_>, _>>();
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
