//! One group on this member: propose, read, change its members, watch it.
//!
//! Every call returns within twice the group's deadline, but for [`Group::initialize`], which asks no other member. No
//! call decides who may make it.

mod error;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use countersign_core::id::{GroupId, NodeId, StoreId};
use openraft::error::{CheckIsLeaderError, Fatal, InitializeError as RaftInitializeError, RaftError};
use openraft::{ChangeMembers, EmptyNode, ServerState};
use tokio::sync::{Notify, Semaphore, watch};

use crate::applier::{Applier, Refusal, Work};
use crate::assignments::Assignments;
use crate::config::{GroupConfig, Purging};
use crate::contacts::Contacts;
use crate::hub::StartError;
use crate::machine::{GroupMachine, LogPosition};
use crate::memory::{Floor, Memory, Position, StoreFault};
use crate::network::Network;
use crate::proposer::{ProposeError, Proposed, Proposer};
use crate::status::{GroupState, GroupStatus, GroupStopped};
use crate::store::{GroupLog, Snapshots, Store};
use crate::transport::Transport;
use crate::types::{Raft, Vote, position};

pub(crate) use error::StandError;
pub use error::{InitializeError, MembershipError, ReadError};
pub use read::{CommittedEntry, LogReadError};

use error::refused;

/// What all groups of a member share.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) me: NodeId,
    /// The id of `store`, named in every message.
    pub(crate) own: StoreId,
    pub(crate) store: Store,
    /// Bytes of commands that may still wait in all groups of that store.
    pub(crate) proposals: Arc<Semaphore>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) assignments: Arc<dyn Assignments>,
}

/// A running group. Clones share it.
#[derive(Clone)]
pub struct Group(Arc<Inner>);

struct Inner {
    id: GroupId,
    context: Context,
    config: GroupConfig,
    raft: Raft,
    log: GroupLog,
    memory: Memory,
    contacts: Contacts,
    proposer: Proposer,
    status: watch::Receiver<GroupStatus>,
    committed: watch::Receiver<Option<u64>>,
    refusal: Refusal,
    work: Work,
    /// Handing over: nothing may renew the members' lease on this leader.
    yielding: AtomicBool,
}

impl Group {
    pub(crate) async fn start(
        context: Context,
        id: GroupId,
        machine: Box<dyn GroupMachine>,
        config: GroupConfig,
    ) -> Result<Self, StartError> {
        let storage = |e: crate::store::StoreError| StartError::Storage(Arc::new(e));
        let purging = if machine.retention_floor().is_some() { Purging::AtFloor } else { Purging::BySnapshot };
        let openraft = config.openraft(format!("group {id}"), purging)?;
        if context.store.is_removed(id).await.map_err(storage)? {
            return Err(StartError::Removed(id));
        }
        let (snapshots, saved) = Snapshots::open(&context.store, id).await.map_err(storage)?;
        let memory = Memory::open(&context.store, id).await.map_err(storage)?;
        let assignments = Arc::clone(&context.assignments);
        let log = GroupLog::open(&context.store, id, snapshots.replaced(), memory.clone(), assignments)
            .await
            .map_err(storage)?;
        let applier = Applier::start(machine, (snapshots, log.clone()), saved, config.snapshot_after)?;
        let (refusal, work, checkpoints) = (applier.refusal(), applier.work(), applier.checkpoints());
        let committed = applier.committed();
        let snapshot_stale = Arc::new(Notify::new());
        let contacts = Contacts::default();
        let network = Network {
            me: context.me,
            own: context.own,
            memory: memory.clone(),
            contacts: contacts.clone(),
            group: id,
            transport: Arc::clone(&context.transport),
            assignments: Arc::clone(&context.assignments),
            backoff: config.heartbeat,
            snapshot_stale: Arc::clone(&snapshot_stale),
        };
        // Re-applies what is committed before it sends or accepts anything.
        let raft = Raft::new(context.me.0, openraft, network, log.clone(), applier)
            .await
            .map_err(|e| StartError::Stopped(GroupStopped::of(e, &refusal)))?;
        // Its first report says what it found in the store; until then it would pass for a group without a log. An
        // error means that it ended, which the report says as well.
        let mut metrics = raft.metrics();
        drop(metrics.changed().await);
        let (reports, status) = watch::channel(GroupStatus::of(&metrics.borrow()));
        let franchise = Franchise { group: id, assignments: Arc::clone(&context.assignments) };
        franchise.extend_to(&raft);
        tokio::spawn(report(raft.clone(), reports, snapshot_stale, franchise));
        if let Some(checkpoints) = checkpoints {
            tokio::spawn(checkpoints.keep(raft.clone(), config.heartbeat));
        }
        let proposer = Proposer::start(raft.clone(), Arc::clone(&context.proposals), config.deadline);
        let yielding = AtomicBool::new(false);
        Ok(Self(Arc::new(Inner {
            id,
            context,
            config,
            raft,
            log,
            memory,
            contacts,
            proposer,
            status,
            committed,
            refusal,
            work,
            yielding,
        })))
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.0.raft
    }

    pub(crate) fn term(&self) -> u64 {
        self.0.raft.metrics().borrow().current_term
    }

    pub(crate) fn position(&self) -> Position {
        self.0.log.position()
    }

    pub(crate) fn log(&self) -> &GroupLog {
        &self.0.log
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.0.memory
    }

    /// Whether `store` counts as the store of `node`, and what it must hold; none while that is not known.
    pub(crate) fn counts(&self, node: NodeId, store: StoreId) -> Option<Result<Floor, StoreFault>> {
        self.0.memory.counts(&*self.0.context.assignments, node, store)
    }

    /// Whether `node` was found to have been rolled back, under `store`.
    pub fn is_rolled_back(&self, node: NodeId, store: StoreId) -> bool {
        self.0.memory.floor(node, store).is_rolled_back()
    }

    /// When `node` last answered an append of this member's under a store that counts. None if it has not since this
    /// start.
    pub fn last_contact(&self, node: NodeId) -> Option<Instant> {
        self.0.contacts.last(node)
    }

    pub(crate) fn context(&self) -> &Context {
        &self.0.context
    }

    pub(crate) fn config(&self) -> &GroupConfig {
        &self.0.config
    }

    pub(crate) fn yielding(&self) -> &AtomicBool {
        &self.0.yielding
    }

    /// Which group this is.
    pub fn id(&self) -> GroupId {
        self.0.id
    }

    /// Makes this the first start of the group, with these voters. Done on one member, once in the group's life.
    pub async fn initialize(&self, members: &BTreeSet<NodeId>) -> Result<(), InitializeError> {
        if let Some(node) = self.unassigned(members) {
            return Err(InitializeError::NotAssigned(node));
        }
        self.0.raft.initialize(nodes(members)).await.map_err(|e| match e {
            RaftError::APIError(RaftInitializeError::NotAllowed(_)) => InitializeError::NotPristine,
            RaftError::APIError(RaftInitializeError::NotInMembers(_)) => InitializeError::NotMember,
            RaftError::Fatal(fatal) => InitializeError::Stopped(self.stopped(fatal)),
        })
    }

    /// Proposes a command and waits until it is applied here.
    pub async fn propose(&self, command: Vec<u8>) -> Result<Proposed, ProposeError> {
        if self.0.yielding.load(Ordering::Acquire) {
            return Err(ProposeError::NotLeader { leader: None });
        }
        self.0.proposer.propose(command).await
    }

    /// Confirms with a quorum, starting now, that this member still leads; when it returns, its machine holds every
    /// command that was answered before the call. Returns the position up to which that is.
    pub async fn ensure_linearizable(&self) -> Result<Option<LogPosition>, ReadError> {
        if self.0.yielding.load(Ordering::Acquire) {
            return Err(ReadError::NotLeader { leader: None });
        }
        match tokio::time::timeout(self.0.config.deadline, self.0.raft.ensure_linearizable()).await {
            Ok(Ok(upto)) => Ok(upto.as_ref().map(position)),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)))) => {
                Err(ReadError::NotLeader { leader: to.leader_id.map(NodeId) })
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) | Err(_) => Err(ReadError::NoQuorum),
            Ok(Err(RaftError::Fatal(fatal))) => Err(ReadError::Stopped(self.stopped(fatal))),
        }
    }

    /// Adds a member that receives the log without voting. Returns when that is committed, not when the member has
    /// caught up: see [`GroupStatus::matched`].
    pub async fn add_learner(&self, node: NodeId) -> Result<LogPosition, MembershipError> {
        let learner = BTreeSet::from([node]);
        self.assigned(&learner)?;
        self.change(ChangeMembers::AddNodes(nodes(&learner)), true).await
    }

    /// Replaces the voters. Those who vote no longer become learners if `retain` is set, else they leave.
    pub async fn set_voters(&self, voters: &BTreeSet<NodeId>, retain: bool) -> Result<LogPosition, MembershipError> {
        self.assigned(voters)?;
        self.change(ChangeMembers::ReplaceAllVoters(voters.iter().map(|id| id.0).collect()), retain).await
    }

    /// Removes a member, voter or learner. Its assignment ends after, not before.
    pub async fn remove(&self, node: NodeId) -> Result<LogPosition, MembershipError> {
        let voter = self.0.status.borrow().voters.contains(&node);
        let one = BTreeSet::from([node.0]);
        let change = if voter { ChangeMembers::RemoveVoters(one) } else { ChangeMembers::RemoveNodes(one) };
        self.change(change, false).await
    }

    /// Asks for a snapshot now; [`GroupStatus::snapshot`] tells when it is there.
    pub async fn snapshot_now(&self) -> Result<(), GroupStopped> {
        self.0.raft.trigger().snapshot().await.map_err(|fatal| self.stopped(fatal))
    }

    /// The group as this member sees it now.
    pub fn status(&self) -> GroupStatus {
        self.0.status.borrow().clone()
    }

    /// The leader that this member follows; itself, if it leads.
    pub fn leader(&self) -> Option<NodeId> {
        self.0.status.borrow().leader
    }

    /// The group as this member sees it, with every change; ends when the group stops.
    pub fn watch(&self) -> watch::Receiver<GroupStatus> {
        self.0.status.clone()
    }

    /// Whether the group takes part, and if not, why.
    pub fn running(&self) -> Result<(), GroupStopped> {
        let metrics = self.0.raft.metrics();
        metrics.borrow().running_state.clone().map_err(|fatal| self.stopped(fatal))?;
        // Raft reports how it ended, unless it had no chance to.
        if metrics.has_changed().is_err() { Err(GroupStopped::Panicked) } else { Ok(()) }
    }

    /// What the group's machine is at, for a watcher.
    pub fn work(&self) -> Work {
        self.0.work.clone()
    }

    /// Stops the group on this member.
    pub async fn shutdown(&self) {
        // An error only says that the task had ended already; `running` tells how.
        drop(self.0.raft.shutdown().await);
    }

    /// Stands for election because the leader of `vote` asked for it.
    pub(crate) async fn stand_for(&self, vote: &Vote) -> Result<(), StandError> {
        let (leads, votes) = {
            let metrics = self.0.raft.metrics();
            let metrics = metrics.borrow();
            let voters = metrics.membership_config.membership();
            let votes = voters.voter_ids().any(|id| id == self.0.context.me.0);
            (metrics.vote == *vote, votes && self.0.context.assignments.may_vote(self.0.id))
        };
        match (leads, votes) {
            (false, _) => Err(StandError::NotLeader),
            (true, false) => Err(StandError::NotVoter),
            (true, true) => self.0.raft.trigger().elect().await.map_err(|e| StandError::Stopped(self.stopped(e))),
        }
    }

    /// Why the group has stopped.
    pub(crate) fn stopped(&self, fatal: Fatal<u64>) -> GroupStopped {
        GroupStopped::of(fatal, &self.0.refusal)
    }

    fn unassigned(&self, nodes: &BTreeSet<NodeId>) -> Option<NodeId> {
        let assignments = &self.0.context.assignments;
        nodes.iter().copied().find(|node| assignments.assigned(self.0.id, *node) != Some(true))
    }

    fn assigned(&self, nodes: &BTreeSet<NodeId>) -> Result<(), MembershipError> {
        self.unassigned(nodes).map_or(Ok(()), |node| Err(MembershipError::NotAssigned(node)))
    }

    async fn change(
        &self,
        change: ChangeMembers<u64, EmptyNode>,
        retain: bool,
    ) -> Result<LogPosition, MembershipError> {
        if self.0.yielding.load(Ordering::Acquire) {
            return Err(MembershipError::InProgress);
        }
        let changing = self.0.raft.change_membership(change, retain);
        match tokio::time::timeout(self.0.config.deadline, changing).await {
            Ok(Ok(response)) => Ok(position(&response.log_id)),
            Ok(Err(RaftError::APIError(error))) => Err(refused(error)),
            Ok(Err(RaftError::Fatal(fatal))) => Err(MembershipError::Stopped(self.stopped(fatal))),
            Err(_) => Err(MembershipError::Unknown),
        }
    }
}

fn nodes(ids: &BTreeSet<NodeId>) -> BTreeMap<u64, EmptyNode> {
    ids.iter().map(|id| (id.0, EmptyNode {})).collect()
}

/// Who may stand for election here: openraft lets every voter of its newest members, also one whose log is only
/// beginning to come back and shows it members of long ago.
struct Franchise {
    group: GroupId,
    assignments: Arc<dyn Assignments>,
}

impl Franchise {
    fn extend_to(&self, raft: &Raft) {
        raft.runtime_config().elect(self.assignments.may_vote(self.group));
    }
}

/// Translates Raft's reports until it ends, and renews a snapshot that others refuse.
async fn report(raft: Raft, reports: watch::Sender<GroupStatus>, snapshot_stale: Arc<Notify>, franchise: Franchise) {
    let mut metrics = raft.metrics();
    loop {
        tokio::select! {
            changed = metrics.changed() => {
                let status = GroupStatus::of(&metrics.borrow_and_update());
                franchise.extend_to(&raft);
                let ended = changed.is_err() || status.state == GroupState::Stopped;
                reports.send_if_modified(|current| {
                    let next = if ended { GroupStatus { state: GroupState::Stopped, ..status } } else { status };
                    let modified = *current != next;
                    *current = next;
                    modified
                });
                if ended {
                    return;
                }
            }
            () = snapshot_stale.notified() => {
                // It fails only if Raft has stopped, which is seen above.
                drop(raft.trigger().snapshot().await);
            }
        }
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group")
            .field("id", &self.0.id)
            .field("status", &*self.0.status.borrow())
            .finish_non_exhaustive()
    }
}

/// How long followers stay loyal to a leader they no longer hear.
pub(crate) fn lease(config: &GroupConfig) -> Duration {
    config.election_max
}

/// Whether Raft says that this member leads.
pub(crate) fn leads(raft: &Raft) -> bool {
    raft.metrics().borrow().state == ServerState::Leader
}
