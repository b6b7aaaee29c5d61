//! All groups of one member: starts them, and judges every request before a group sees it.
//!
//! The rule: who sends a Vote, AppendEntries, snapshot or TimeoutNow request must be the candidate or leader that the
//! request names, must be assigned to the group, and may not bring members that are not. What is not known yet is
//! refused, never accepted.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::codec::{self, CodecError};
use countersign_core::id::{GroupId, NodeId, StoreId};
use countersign_core::locked::Locked;
use openraft::error::{Fatal, RaftError};
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::{ConfigError, GroupConfig};
use crate::group::{Context, Group, StandError};
use crate::machine::{GroupMachine, RestoreError};
use crate::memory::{Position, StoreFault};
use crate::message::{Answered, Asked, Implausible, Request, SnapshotMessage, TimeoutNow};
use crate::status::GroupStopped;
use crate::store::Store;
use crate::transport::{RaftRpc, Refusal, Transport};
use crate::types::{LogId, Snapshot, TypeConfig, Vote};

/// Who belongs to which group, as the trust state says.
pub trait Assignments: Send + Sync + 'static {
    /// Whether `node` is assigned to `group`: `None` while that is not known here. While members change, the current
    /// and the incoming ones are assigned.
    fn assigned(&self, group: GroupId, node: NodeId) -> Option<bool>;

    /// Whether `node` may send requests to `group`, that is, stand for election and lead. Where learners are less
    /// trusted than voters, as in the trust group, answer no for them: Raft obeys whoever claims to lead.
    fn may_lead(&self, group: GroupId, node: NodeId) -> Option<bool> {
        self.assigned(group, node)
    }

    /// The stores that count as `node`'s: the one on record first, then those that a change on its way brings, which is in
    /// this member's log and not applied yet, or which the voters have attested. Empty while none is known.
    fn stores(&self, group: GroupId, node: NodeId) -> Vec<StoreId>;

    /// Whether this member may vote and stand for election. A store that was made anew has forgotten every vote: it may not
    /// before the group's own log, applied or not, says that the store is this member's.
    fn may_vote(&self, group: GroupId) -> bool;

    /// What a member said was refused for its store.
    fn distrusted(&self, group: GroupId, fault: &StoreFault) {
        let _ = (group, fault);
    }

    /// Another member refused this member's request for this member's store.
    fn refused_by(&self, group: GroupId, peer: NodeId, refusal: Refusal) {
        let _ = (group, peer, refusal);
    }

    /// A command stands in the log of `group` from now on, at `index`: it may be committed or cut off again. Called before
    /// the entry is answered for, and at a start for each that is not known to be committed.
    fn appended(&self, group: GroupId, index: u64, command: &[u8]) {
        let _ = (group, index, command);
    }

    /// The entries of `group` from `index` on were cut off: they were never committed.
    fn truncated(&self, group: GroupId, index: u64) {
        let _ = (group, index);
    }

    /// Whether a snapshot may be installed that names `member`. The trust group's own snapshot carries its members:
    /// whoever implements this may look into `snapshot`, so that a member that is behind is not locked out by a newcomer.
    fn admits(&self, group: GroupId, member: NodeId, snapshot: &[u8]) -> bool {
        let _ = snapshot;
        self.assigned(group, member) == Some(true)
    }
}

/// Why a request was not handed to its group. For the audit log; the peer learns [`HubError::refusal`].
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Not known here yet: the assignment, or the group.
    #[error("group {group} is not known here yet")]
    NotYet {
        /// The group.
        group: GroupId,
    },
    /// The sender does not speak for the group.
    #[error("node {peer} is not assigned to group {group}")]
    NotAssigned {
        /// The group.
        group: GroupId,
        /// The verified sender.
        peer: NodeId,
    },
    /// The request names another sender than the one it came from.
    #[error("node {peer} sent a request of group {group} in the name of node {claimed}")]
    WrongSender {
        /// The group.
        group: GroupId,
        /// The verified sender.
        peer: NodeId,
        /// Whom the request names.
        claimed: NodeId,
    },
    /// A snapshot names a member that is not assigned to the group.
    #[error("a snapshot of group {group} names node {member}, which is not assigned to it")]
    Outsider {
        /// The group.
        group: GroupId,
        /// The member.
        member: NodeId,
    },
    /// Longer than any such request.
    #[error("a request of {got} bytes, at most {max} are allowed")]
    TooLarge {
        /// Its length.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// Not a request at all.
    #[error("a request that cannot be read")]
    Malformed(#[from] CodecError),
    /// No honest member sends it.
    #[error("a request that no member sends")]
    Implausible(#[from] Implausible),
    /// Asked to stand for election by someone who does not lead.
    #[error("node {peer} does not lead group {group}")]
    NotLeader {
        /// The group.
        group: GroupId,
        /// The verified sender.
        peer: NodeId,
    },
    /// Asked to stand for election without a vote.
    #[error("this node is no voter of group {group}")]
    NotVoter {
        /// The group.
        group: GroupId,
    },
    /// The sender's store is not the one that it should be.
    #[error("a request of group {group} is refused")]
    Store {
        /// The group.
        group: GroupId,
        /// Why.
        #[source]
        fault: StoreFault,
    },
    /// The candidate lacks an entry that is committed here.
    #[error("node {peer} stands for election in group {group} without what is committed here")]
    Lacks {
        /// The group.
        group: GroupId,
        /// The verified sender.
        peer: NodeId,
    },
    /// This member's own store is not on record yet.
    #[error("this node's store is not on record in group {group} yet: it has no vote")]
    NoVote {
        /// The group.
        group: GroupId,
    },
    /// The group has stopped.
    #[error("group {group} has stopped")]
    Stopped {
        /// The group.
        group: GroupId,
        /// Why.
        #[source]
        source: GroupStopped,
    },
}

impl HubError {
    /// What the peer is told.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::NotYet { .. } | Self::NoVote { .. } | Self::Lacks { .. } => Refusal::NotYet,
            Self::Store { fault: StoreFault::Other { .. }, .. } => Refusal::OtherStore,
            Self::Store {
                fault: StoreFault::Log { .. } | StoreFault::Vote { .. } | StoreFault::Before { .. }, ..
            } => Refusal::RolledBack,
            Self::Store { fault: StoreFault::Conflict { .. }, .. } => Refusal::Conflict,
            Self::NotAssigned { .. } => Refusal::NotAssigned,
            Self::Outsider { .. } => Refusal::Outsider,
            Self::Stopped { .. } => Refusal::Stopped,
            Self::WrongSender { .. }
            | Self::TooLarge { .. }
            | Self::Malformed(_)
            | Self::Implausible(_)
            | Self::NotLeader { .. }
            | Self::NotVoter { .. } => Refusal::Invalid,
        }
    }
}

/// Why a group cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It runs already.
    #[error("group {0} runs already")]
    AlreadyStarted(GroupId),
    /// Its configuration cannot work.
    #[error("the group's configuration cannot work")]
    Config(#[from] ConfigError),
    /// Its records cannot be read.
    #[error("the group's records cannot be read")]
    Storage(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The machine refuses the stored snapshot: perhaps an older binary meets newer data.
    #[error("the group's snapshot cannot be restored")]
    Restore(#[from] RestoreError),
    /// It stopped as soon as it started.
    #[error("the group stopped at its start")]
    Stopped(#[source] GroupStopped),
}

/// All groups of this member. Clones share them. Dropping them stops nothing: see [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Groups(Arc<Hub>);

struct Hub {
    context: Context,
    running: Locked<BTreeMap<GroupId, Option<Group>>>,
}

impl Groups {
    /// A member without groups, whose store has the id `own`.
    pub fn new(
        me: NodeId,
        own: StoreId,
        store: Store,
        transport: Arc<dyn Transport>,
        assignments: Arc<dyn Assignments>,
    ) -> Self {
        let context = Context { me, own, store, transport, assignments };
        Self(Arc::new(Hub { context, running: Locked::default() }))
    }

    /// Starts a group from what the store has of it. When this returns, the machine holds every entry known to be
    /// committed, and no message was sent or accepted before.
    pub async fn start(
        &self,
        group: GroupId,
        machine: Box<dyn GroupMachine>,
        config: GroupConfig,
    ) -> Result<Group, StartError> {
        {
            let mut running = self.0.running.lock();
            if running.contains_key(&group) {
                return Err(StartError::AlreadyStarted(group));
            }
            running.insert(group, None);
        }
        let started = Group::start(self.0.context.clone(), group, machine, config).await;
        let mut running = self.0.running.lock();
        match &started {
            Ok(started) => running.insert(group, Some(started.clone())),
            Err(_) => running.remove(&group),
        };
        started
    }

    /// A group that was started.
    pub fn group(&self, group: GroupId) -> Option<Group> {
        self.0.running.lock().get(&group).cloned().flatten()
    }

    /// Stops a group here and forgets that it ran; its records stay in the store.
    pub async fn stop(&self, group: GroupId) {
        let stopped = self.0.running.lock().remove(&group).flatten();
        if let Some(stopped) = stopped {
            stopped.shutdown().await;
        }
    }

    /// Stops all groups and closes the store.
    pub async fn shutdown(&self) {
        let groups = std::mem::take(&mut *self.0.running.lock());
        for group in groups.into_values().flatten() {
            group.shutdown().await;
        }
        let store = self.0.context.store.clone();
        // Ends only by closing: a panic in it has closed the store as well.
        drop(tokio::task::spawn_blocking(move || store.close()).await);
    }

    /// Whether `peer` may send requests to any group that runs here: to be asked before a body is read. `None` while that is
    /// not known. [`handle`](Self::handle) asks again, of the group that the request is for.
    pub fn may_lead_any(&self, peer: NodeId) -> Option<bool> {
        let running: Vec<GroupId> = self.0.running.lock().keys().copied().collect();
        let mut known = (!running.is_empty()).then_some(false);
        for group in running {
            match self.0.context.assignments.may_lead(group, peer) {
                Some(true) => return Some(true),
                Some(false) => {}
                None => known = None,
            }
        }
        known
    }

    /// Judges a request that `peer` sent, as its connection proved, and answers it.
    pub async fn handle(&self, peer: NodeId, group: GroupId, kind: RaftRpc, body: &[u8]) -> Result<Vec<u8>, HubError> {
        let (got, max) = (body.len(), kind.len_max());
        if got > max {
            return Err(HubError::TooLarge { got, max });
        }
        match self.0.context.assignments.may_lead(group, peer) {
            None => return Err(HubError::NotYet { group }),
            Some(false) => return Err(HubError::NotAssigned { group, peer }),
            Some(true) => {}
        }
        let here = self.group(group).ok_or(HubError::NotYet { group })?;
        let stopped = |fatal: Fatal<u64>| HubError::Stopped { group, source: here.stopped(fatal) };
        let raft = here.raft();
        // Before the request is carried out: what is compared with it was acknowledged before the request was sent.
        let position = here.position();
        let answers = Answers { store: self.0.context.own, position };
        match kind {
            RaftRpc::Vote => {
                let asked: Asked<VoteRequest<u64>> = accept(&here, peer, body)?;
                self.may_be_elected(&here, peer, &asked)?;
                answers.with(raft.vote(asked.request).await.map_err(|e| stopped(fatal(e)))?)
            }
            // A leader's store is not asked for: a member that is behind may know only an earlier one, and follows all the
            // same. The votes that made it leader were given to its store.
            RaftRpc::Append => {
                let asked: Asked<AppendEntriesRequest<TypeConfig>> = accept(&here, peer, body)?;
                let ids = asked.request.prev_log_id.into_iter().chain(asked.request.entries.iter().map(|e| e.log_id));
                self.may_follow(&here, &asked.request.vote, ids.collect()).await?;
                answers.with(raft.append_entries(asked.request).await.map_err(|e| stopped(fatal(e)))?)
            }
            RaftRpc::Snapshot => {
                let SnapshotMessage { vote, meta, data } = accept(&here, peer, body)?.request;
                self.may_follow(&here, &vote, meta.last_log_id.into_iter().collect()).await?;
                let assignments = &self.0.context.assignments;
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

    /// Whether a leader's log agrees with what is committed here. The engine takes that for granted, and would follow one that
    /// does not: two members that are ready would differ.
    async fn may_follow(&self, here: &Group, leader: &Vote, ids: Vec<LogId>) -> Result<(), HubError> {
        let group = here.id();
        let contradicted = here.log().contradicts(&ids).await;
        let contradicted = contradicted
            .map_err(|error| HubError::Stopped { group, source: GroupStopped::Storage(Arc::new(error)) })?;
        let Some((theirs, ours)) = contradicted else { return Ok(()) };
        // A leader that was deposed does not know yet what its successor has committed in place of its own entries, and Raft
        // tells it. No leader of a later term lacks what was committed before.
        if *leader < here.position().vote && theirs.leader_id < ours.leader_id {
            return Ok(());
        }
        let fault = StoreFault::Conflict { node: NodeId(leader.leader_id.node_id), index: ours.index };
        self.0.context.assignments.distrusted(group, &fault);
        Err(HubError::Store { group, fault })
    }

    /// Whether this member may vote, and the candidate's store is the one that counts and holds what the candidate
    /// acknowledged: the first vote of a candidate is its own.
    fn may_be_elected(&self, here: &Group, peer: NodeId, asked: &Asked<VoteRequest<u64>>) -> Result<(), HubError> {
        let group = here.id();
        let assignments = &self.0.context.assignments;
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
