//! Judges every request before a group sees it.
//!
//! The sender of a Vote, AppendEntries, snapshot or TimeoutNow request must be the candidate or leader that the
//! request names, must be assigned to the group, and may not bring members that are not. What is not known yet is
//! refused, never accepted.

use std::sync::Arc;

use countersign_core::codec;
use countersign_core::id::{GroupId, NodeId, StoreId};
use openraft::error::{Fatal, RaftError};
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Groups, HubError};
use crate::group::{Group, StandError};
use crate::memory::{Position, StoreFault};
use crate::message::{Answered, Asked, Request, SnapshotMessage, TimeoutNow};
use crate::status::GroupStopped;
use crate::transport::RaftRpc;
use crate::types::{LogId, Snapshot, TypeConfig, Vote};

impl Groups {
    /// Judges a request that `peer` sent, as its connection proved, and answers it.
    pub async fn handle(&self, peer: NodeId, group: GroupId, kind: RaftRpc, body: &[u8]) -> Result<Vec<u8>, HubError> {
        let (got, max) = (body.len(), kind.len_max());
        if got > max {
            return Err(HubError::TooLarge { got, max });
        }
        match self.0.assignments.may_lead(group, peer) {
            None => return Err(HubError::NotYet { group }),
            Some(false) => return Err(HubError::NotAssigned { group, peer }),
            Some(true) => {}
        }
        let here = self.group(group).ok_or(HubError::NotYet { group })?;
        let stopped = |fatal: Fatal<u64>| HubError::Stopped { group, source: here.stopped(fatal) };
        let raft = here.raft();
        // Before the request is carried out: what is compared with it was acknowledged before the request was sent.
        let position = here.position();
        let answers = Answers { store: here.context().own, position };
        match kind {
            RaftRpc::Vote => {
                let asked: Asked<VoteRequest<u64>> = accept(&here, peer, body)?;
                self.may_be_elected(&here, peer, &asked)?;
                answers.with(raft.vote(asked.request).await.map_err(|e| stopped(fatal(e)))?)
            }
            // A leader's store is not asked for: a member that is behind may know only an earlier one, and follows all
            // the same. The votes that made it leader were given to its store.
            RaftRpc::Append => {
                let asked: Asked<AppendEntriesRequest<TypeConfig>> = accept(&here, peer, body)?;
                let ids = asked.request.prev_log_id.into_iter().chain(asked.request.entries.iter().map(|e| e.log_id));
                self.may_follow(&here, &asked.request.vote, ids.collect()).await?;
                answers.with(raft.append_entries(asked.request).await.map_err(|e| stopped(fatal(e)))?)
            }
            RaftRpc::Snapshot => {
                let SnapshotMessage { vote, meta, data } = accept(&here, peer, body)?.request;
                self.may_follow(&here, &vote, meta.last_log_id.into_iter().collect()).await?;
                let assignments = &self.0.assignments;
                let outsider = {
                    let mut members = meta.last_membership.nodes().map(|(id, _)| NodeId(*id));
                    members.find(|member| !assignments.admits(group, *member, &data))
                };
                if let Some(member) = outsider {
                    return Err(HubError::Outsider { group, member });
                }
                let snapshot = Snapshot { meta, snapshot: Box::new(data) };
                answers.with(raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?)
            }
            RaftRpc::TimeoutNow => {
                let request: TimeoutNow = accept(&here, peer, body)?.request;
                here.stand_for(&request.vote).await.map_err(|e| match e {
                    StandError::NotLeader => HubError::NotLeader { group, peer },
                    StandError::NotVoter => HubError::NotVoter { group },
                    StandError::Stopped(source) => HubError::Stopped { group, source },
                })?;
                answers.with(())
            }
        }
    }

    /// Whether a leader's log agrees with what is committed here. The engine takes that for granted, and would follow
    /// one that does not: two members that are ready would differ.
    async fn may_follow(&self, here: &Group, leader: &Vote, ids: Vec<LogId>) -> Result<(), HubError> {
        let group = here.id();
        let contradicted = here.log().contradicts(&ids).await;
        let contradicted = contradicted
            .map_err(|error| HubError::Stopped { group, source: GroupStopped::Storage(Arc::new(error)) })?;
        let Some((theirs, ours)) = contradicted else { return Ok(()) };
        // A leader that was deposed does not know yet what its successor has committed in place of its own entries,
        // and Raft tells it. No leader of a later term lacks what was committed before.
        if *leader < here.position().vote && theirs.leader_id < ours.leader_id {
            return Ok(());
        }
        let fault = StoreFault::Conflict { node: NodeId(leader.leader_id.node_id), index: ours.index };
        self.0.assignments.distrusted(group, &fault);
        Err(HubError::Store { group, fault })
    }

    /// Whether this member may vote, and the candidate's store is the one that counts and holds what the candidate
    /// acknowledged: the first vote of a candidate is its own.
    fn may_be_elected(&self, here: &Group, peer: NodeId, asked: &Asked<VoteRequest<u64>>) -> Result<(), HubError> {
        let group = here.id();
        let assignments = &self.0.assignments;
        if !assignments.may_vote(group) {
            return Err(HubError::NoVote { group });
        }
        let position =
            Position { vote: asked.request.vote, last: asked.request.last_log_id.as_ref().map(|last| last.index) };
        let checked = here.counts(peer, asked.store).ok_or(HubError::NotYet { group })?.and_then(|floor| {
            // A request of an earlier term may have been long on its way; Raft refuses it.
            if position.vote < floor.vote() { Ok(()) } else { here.memory().check(peer, &floor, &position) }
        });
        checked.map_err(|fault| {
            assignments.distrusted(group, &fault);
            HubError::Store { group, fault }
        })?;
        // No accusation: it may be a candidate that has not heard of a later leader, and cannot win.
        let lacks = asked.request.last_log_id.is_some_and(|last| here.log().outvotes(last));
        if lacks { Err(HubError::Lacks { group, peer }) } else { Ok(()) }
    }
}

/// Decodes a request and checks that it is its sender's own.
fn accept<T: Request + DeserializeOwned>(here: &Group, peer: NodeId, body: &[u8]) -> Result<Asked<T>, HubError> {
    let asked: Asked<T> = codec::decode(body)?;
    let claimed = NodeId(asked.request.vote().leader_id.node_id);
    if claimed != peer {
        return Err(HubError::WrongSender { group: here.id(), peer, claimed });
    }
    asked.request.check(here.term())?;
    Ok(asked)
}

/// What every answer says of this member.
struct Answers {
    store: StoreId,
    position: Position,
}

impl Answers {
    fn with<T: Serialize>(self, answer: T) -> Result<Vec<u8>, HubError> {
        Ok(codec::encode(&Answered { store: self.store, position: self.position, answer })?)
    }
}

/// Requests between members have no errors of their own: what is left is that the group has stopped.
fn fatal(error: RaftError<u64>) -> Fatal<u64> {
    match error {
        RaftError::Fatal(fatal) => fatal,
        RaftError::APIError(never) => match never {},
    }
}
