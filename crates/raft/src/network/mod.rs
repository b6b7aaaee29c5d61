//! Between openraft and a [`Transport`]: encodes requests, decodes answers, turns errors into retries.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::codec::{self, CodecError};
use countersign_core::id::{GroupId, NodeId, StoreId};
use openraft::error::{
    Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Timeout as RaftTimeout, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{EmptyNode, OptionalSend, RPCTypes, RaftNetwork, RaftNetworkFactory};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::assignments::Assignments;
use crate::contacts::Contacts;
use crate::limits::{SNAPSHOT_LEN_MAX, TERM_JUMP_MAX};
use crate::memory::{Memory, StoreFault};
use crate::message::{Answered, Asked, SnapshotMessage};
use crate::store::StoreKind;
use crate::transport::{RaftRpc, Refusal, Transport, TransportError};
use crate::types::{LogId, Snapshot, TypeConfig, Vote};

/// Makes the connections of one group.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) me: NodeId,
    /// The id of this member's store.
    pub(crate) own: StoreId,
    pub(crate) group: GroupId,
    pub(crate) memory: Memory,
    pub(crate) contacts: Contacts,
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
    #[error(transparent)]
    Store(#[from] StoreFault),
    #[error("the store of node {0} is not known")]
    StoreUnknown(NodeId),
    #[error("this node's store is not on record yet: it has no vote")]
    NoVote,
    #[error("the snapshot has {got} bytes, at most {max} can be sent")]
    SnapshotTooLarge { got: usize, max: usize },
}

impl CallError {
    const fn is_timeout(&self) -> bool {
        matches!(self, Self::Transport(TransportError::Timeout))
    }
}

impl Link {
    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: RaftRpc,
        request: &Q,
        deadline: Duration,
    ) -> Result<(StoreId, A), CallError> {
        let Network { group, transport, memory, assignments, own, .. } = &self.network;
        // Before it is sent: of what is acknowledged in the meantime the answer may know nothing yet.
        let before: Vec<_> = assignments
            .stores(StoreKind::of(*group), self.target)
            .into_iter()
            .map(|store| (store, memory.floor(self.target, store)))
            .collect();
        let asked = codec::encode(&Asked { store: *own, request })?;
        let answer = transport.call(self.target, *group, kind, asked, deadline).await;
        let answer = answer.inspect_err(|error| {
            if let Some(refusal) = error.about_store() {
                assignments.refused_by(*group, self.target, refusal);
            }
        })?;
        let Answered { store, position, answer } = codec::decode(&answer)?;
        let Some((expected, _)) = before.first() else { return Err(CallError::StoreUnknown(self.target)) };
        let checked = match before.iter().find(|(counts, _)| *counts == store) {
            Some((_, floor)) => memory.check(self.target, floor, &position),
            None => Err(StoreFault::Other { node: self.target, expected: *expected, got: store }),
        };
        checked.inspect_err(|fault| assignments.distrusted(*group, fault))?;
        Ok((store, answer))
    }

    /// Keeps what the member acknowledged, if it votes: one that does not can take nothing away from a quorum.
    fn acknowledged(&self, store: StoreId, vote: &Vote, upto: Option<&LogId>) {
        let Network { assignments, group, memory, .. } = &self.network;
        if assignments.may_lead(*group, self.target) != Some(true) {
            return;
        }
        memory.voted(self.target, store, *vote);
        if let Some(upto) = upto {
            memory.appended(self.target, store, *vote, upto.index);
        }
    }

    /// A member's answer may raise our vote, but not exhaust the terms, and only if it may lead: Raft believes any
    /// higher vote, from any member.
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
        if error.is_timeout() {
            RPCError::Timeout(self.timeout(action, timeout))
        } else {
            RPCError::Unreachable(Unreachable::new(error))
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
            let (store, answer) = self.call(RaftRpc::Append, &rpc, deadline).await?;
            match &answer {
                AppendEntriesResponse::HigherVote(vote) => self.plausible(vote, &rpc.vote)?,
                AppendEntriesResponse::Success => {
                    let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
                    self.acknowledged(store, &rpc.vote, last.as_ref());
                }
                AppendEntriesResponse::PartialSuccess(upto) => self.acknowledged(store, &rpc.vote, upto.as_ref()),
                AppendEntriesResponse::Conflict => self.acknowledged(store, &rpc.vote, None),
            }
            self.network.contacts.heard(self.target);
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
            let Network { assignments, group, .. } = &self.network;
            if !assignments.may_vote(*group) {
                return Err(CallError::NoVote);
            }
            let (store, answer): (_, VoteResponse<u64>) = self.call(RaftRpc::Vote, &rpc, deadline).await?;
            self.plausible(&answer.vote, &rpc.vote)?;
            if answer.vote_granted {
                self.acknowledged(store, &rpc.vote, None);
            }
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
            let (store, answer): (_, SnapshotResponse<u64>) = self.call(RaftRpc::Snapshot, &message, deadline).await?;
            self.plausible(&answer.vote, &vote)?;
            if answer.vote == vote {
                self.acknowledged(store, &vote, message.meta.last_log_id.as_ref());
                self.network.contacts.heard(self.target);
            }
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
            if error.is_timeout() {
                StreamingError::Timeout(self.timeout(RPCTypes::InstallSnapshot, deadline))
            } else {
                StreamingError::Unreachable(Unreachable::new(&error))
            }
        })
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.network.backoff))
    }
}

#[cfg(test)]
mod tests;
