//! Between openraft and a [`Transport`]: encodes requests, decodes answers, turns errors into retries.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::codec::{self, CodecError};
use countersign_core::id::{GroupId, NodeId};
use openraft::error::{
    Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Timeout as RaftTimeout, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{EmptyNode, OptionalSend, RPCTypes, RaftNetwork, RaftNetworkFactory};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::hub::Assignments;
use crate::limits::{SNAPSHOT_LEN_MAX, TERM_JUMP_MAX};
use crate::message::SnapshotMessage;
use crate::transport::{RaftRpc, Refusal, Transport, TransportError};
use crate::types::{Snapshot, TypeConfig, Vote};

/// Makes the connections of one group.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) me: NodeId,
    pub(crate) group: GroupId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) assignments: Arc<dyn Assignments>,
    pub(crate) backoff: Duration,
    /// Told when a snapshot of ours is out of date in its members.
    pub(crate) snapshot_stale: Arc<Notify>,
}

/// One group's way to one member.
pub(crate) struct Link {
    network: Network,
    target: NodeId,
}

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the answer cannot be read")]
    Answer(#[from] CodecError),
    #[error("the answer's term {got} is implausible after {sent}")]
    Term { got: u64, sent: u64 },
    #[error("the answer raises the term, and its sender may not lead")]
    Usurper,
    #[error("the snapshot has {got} bytes, at most {max} can be sent")]
    SnapshotTooLarge { got: usize, max: usize },
}

impl Link {
    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: RaftRpc,
        request: &Q,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let Network { group, transport, .. } = &self.network;
        let answer = transport.call(self.target, *group, kind, codec::encode(request)?, deadline).await?;
        Ok(codec::decode(&answer)?)
    }

    /// A member's answer may raise our vote, but not exhaust the terms, and only if it may lead: Raft believes any higher
    /// vote, whoever reports it.
    fn plausible(&self, got: &Vote, sent: &Vote) -> Result<(), CallError> {
        let (got_term, sent_term) = (got.leader_id.term, sent.leader_id.term);
        if got_term > sent_term.saturating_add(TERM_JUMP_MAX) {
            return Err(CallError::Term { got: got_term, sent: sent_term });
        }
        let Network { assignments, group, .. } = &self.network;
        if got > sent && assignments.may_lead(*group, self.target) != Some(true) {
            return Err(CallError::Usurper);
        }
        Ok(())
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> RaftTimeout<u64> {
        RaftTimeout { action, id: self.network.me.0, target: self.target.0, timeout }
    }

    fn rpc_error<E: std::error::Error>(
        &self,
        action: RPCTypes,
        timeout: Duration,
        error: &CallError,
    ) -> RPCError<u64, EmptyNode, E> {
        match error {
            CallError::Transport(TransportError::Timeout) => RPCError::Timeout(self.timeout(action, timeout)),
            other => RPCError::Unreachable(Unreachable::new(other)),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Link {
        Link { network: self.clone(), target: NodeId(target) }
    }
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64>>> {
        let deadline = option.hard_ttl();
        let answer = async {
            let answer = self.call(RaftRpc::Append, &rpc, deadline).await?;
            if let AppendEntriesResponse::HigherVote(vote) = &answer {
                self.plausible(vote, &rpc.vote)?;
            }
            Ok(answer)
        };
        answer.await.map_err(|e| self.rpc_error(RPCTypes::AppendEntries, deadline, &e))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, EmptyNode, RaftError<u64>>> {
        let deadline = option.hard_ttl();
        let answer = async {
            let answer: VoteResponse<u64> = self.call(RaftRpc::Vote, &rpc, deadline).await?;
            self.plausible(&answer.vote, &rpc.vote)?;
            Ok(answer)
        };
        answer.await.map_err(|e| self.rpc_error(RPCTypes::Vote, deadline, &e))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let deadline = option.hard_ttl();
        let message = SnapshotMessage { vote, meta: snapshot.meta, data: *snapshot.snapshot };
        let answer = async {
            if message.data.len() > SNAPSHOT_LEN_MAX {
                return Err(CallError::SnapshotTooLarge { got: message.data.len(), max: SNAPSHOT_LEN_MAX });
            }
            let answer: SnapshotResponse<u64> = self.call(RaftRpc::Snapshot, &message, deadline).await?;
            self.plausible(&answer.vote, &vote)?;
            Ok(answer)
        };
        let answer = tokio::select! {
            answer = answer => answer,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        answer.map_err(|error| {
            if matches!(error, CallError::Transport(TransportError::Refused(Refusal::Outsider))) {
                // Members may have left since it was built: only a newer one can be accepted.
                self.network.snapshot_stale.notify_one();
            }
            match error {
                CallError::Transport(TransportError::Timeout) => {
                    StreamingError::Timeout(self.timeout(RPCTypes::InstallSnapshot, deadline))
                }
                other => StreamingError::Unreachable(Unreachable::new(&other)),
            }
        })
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.network.backoff))
    }
}
