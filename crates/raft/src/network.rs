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

#[cfg(test)]
mod tests {
    use openraft::LogId;
    use openraft::testing::log_id;

    use super::*;
    use crate::transport::BoxFuture;
    use crate::types::SnapshotMeta;

    const TERM: u64 = 5;

    /// A member that always gives the same answer.
    struct Answering(Vec<u8>);

    impl Transport for Answering {
        fn call(
            &self,
            _: NodeId,
            _: GroupId,
            _: RaftRpc,
            _: Vec<u8>,
            _: Duration,
        ) -> BoxFuture<'_, Result<Vec<u8>, TransportError>> {
            Box::pin(async { Ok(self.0.clone()) })
        }
    }

    /// Everybody belongs to the group; whether they may lead it is another question.
    struct MayLead(Option<bool>);

    impl Assignments for MayLead {
        fn assigned(&self, _: GroupId, _: NodeId) -> Option<bool> {
            Some(true)
        }

        fn may_lead(&self, _: GroupId, _: NodeId) -> Option<bool> {
            self.0
        }
    }

    fn link(answer: &impl Serialize, may_lead: Option<bool>) -> Link {
        let network = Network {
            me: NodeId(1),
            group: GroupId::TRUST,
            transport: Arc::new(Answering(codec::encode(answer).unwrap())),
            assignments: Arc::new(MayLead(may_lead)),
            backoff: Duration::ZERO,
            snapshot_stale: Arc::default(),
        };
        Link { network, target: NodeId(2) }
    }

    /// Whether this member, leader of `TERM`, believes another that answers each of its requests with `vote`.
    async fn believes(vote: Vote, may_lead: Option<bool>) -> [bool; 3] {
        let (mine, option) = (Vote::new_committed(TERM, 1), || RPCOption::new(Duration::from_secs(60)));
        let append = AppendEntriesRequest { vote: mine, prev_log_id: None, entries: vec![], leader_commit: None };
        let refused: AppendEntriesResponse<u64> = AppendEntriesResponse::HigherVote(vote);
        let standing = VoteRequest { vote: mine, last_log_id: None };
        let denied = VoteResponse { vote, vote_granted: false, last_log_id: None::<LogId<u64>> };
        let meta = SnapshotMeta { last_log_id: Some(log_id(1, 1, 1)), ..SnapshotMeta::default() };
        let snapshot = Snapshot { meta, snapshot: Box::default() };
        let never = std::future::pending();
        [
            link(&refused, may_lead).append_entries(append, option()).await.is_ok(),
            link(&denied, may_lead).vote(standing, option()).await.is_ok(),
            link(&SnapshotResponse { vote }, may_lead).full_snapshot(mine, snapshot, never, option()).await.is_ok(),
        ]
    }

    #[tokio::test]
    async fn an_answer_that_raises_the_vote_is_believed_only_from_who_may_lead() {
        let higher = [Vote::new(TERM + 1, 2), Vote::new_committed(TERM, 2), Vote::new_committed(TERM + 1, 2)];
        for vote in higher {
            assert_eq!(believes(vote, Some(true)).await, [true; 3], "{vote}");
            assert_eq!(believes(vote, Some(false)).await, [false; 3], "{vote}");
            assert_eq!(believes(vote, None).await, [false; 3], "{vote}");
        }
        // What raises nothing is an answer like any other.
        for vote in [Vote::new(TERM - 1, 2), Vote::new(TERM, 1), Vote::new_committed(TERM, 1)] {
            assert_eq!(believes(vote, Some(false)).await, [true; 3], "{vote}");
        }
    }

    #[tokio::test]
    async fn an_answer_may_not_exhaust_the_terms() {
        let vote = |ahead| Vote::new(TERM + ahead, 2);
        assert_eq!(believes(vote(TERM_JUMP_MAX), Some(true)).await, [true; 3]);
        assert_eq!(believes(vote(TERM_JUMP_MAX + 1), Some(true)).await, [false; 3]);
    }
}
