//! What a group says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;

use countersign_core::id::NodeId;
use openraft::error::Fatal;
use openraft::{RaftMetrics, ServerState};

use crate::applier::Refusal;
use crate::machine::{ApplyError, LogPosition};
use crate::types::position;

/// What this member is doing in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupState {
    /// Receives the log and does not vote.
    #[default]
    Learner,
    /// Receives the log and votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Writes the log.
    Leader,
    /// Takes no part any more: see [`Group::running`](crate::Group::running).
    Stopped,
}

/// A group as this member sees it. Only a leader knows `matched` and `millis_since_quorum_ack`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupStatus {
    /// What this member is doing.
    pub state: GroupState,
    /// The leader that it follows.
    pub leader: Option<NodeId>,
    /// The term of its vote.
    pub term: u64,
    /// The index of its last entry, durable or not.
    pub last_log: Option<u64>,
    /// The last entry that its machine holds.
    pub applied: Option<LogPosition>,
    /// The last entry in its snapshot: of a machine with a retention floor, the last one before the floor.
    pub snapshot: Option<LogPosition>,
    /// The last entry deleted from the front of its log.
    pub purged: Option<LogPosition>,
    /// Who votes; while voters change, the old and the new.
    pub voters: BTreeSet<NodeId>,
    /// Who receives the log without voting.
    pub learners: BTreeSet<NodeId>,
    /// How far each other member's log is known to agree.
    pub matched: BTreeMap<NodeId, Option<u64>>,
    /// Milliseconds, when this was reported, since a quorum last confirmed this leader. Not fit for a lease:
    /// [`Group::ensure_linearizable`](crate::Group::ensure_linearizable) is.
    pub millis_since_quorum_ack: Option<u64>,
}

impl GroupStatus {
    pub(crate) fn of(metrics: &RaftMetrics<u64, openraft::EmptyNode>) -> Self {
        let membership = metrics.membership_config.membership();
        Self {
            state: match metrics.state {
                ServerState::Learner => GroupState::Learner,
                ServerState::Follower => GroupState::Follower,
                ServerState::Candidate => GroupState::Candidate,
                ServerState::Leader => GroupState::Leader,
                ServerState::Shutdown => GroupState::Stopped,
            },
            leader: metrics.current_leader.map(NodeId),
            term: metrics.current_term,
            last_log: metrics.last_log_index,
            applied: metrics.last_applied.as_ref().map(position),
            snapshot: metrics.snapshot.as_ref().map(position),
            purged: metrics.purged.as_ref().map(position),
            voters: membership.voter_ids().map(NodeId).collect(),
            learners: membership.learner_ids().map(NodeId).collect(),
            matched: metrics
                .replication
                .iter()
                .flatten()
                .filter(|(id, _)| **id != metrics.id)
                .map(|(id, matched)| (NodeId(*id), matched.map(|id| id.index)))
                .collect(),
            millis_since_quorum_ack: metrics.millis_since_quorum_ack,
        }
    }
}

/// Why a group takes no part any more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GroupStopped {
    /// It was told to.
    #[error("the group was shut down")]
    Shutdown,
    /// A promise could not be persisted, or the machine refused a snapshot. The process should end.
    #[error("the group's storage failed")]
    Storage(#[source] Arc<dyn Error + Send + Sync>),
    /// A committed command needs a newer binary. The process should end; this binary would stop here again.
    #[error(transparent)]
    Apply(Arc<ApplyError>),
    /// A defect. The process should end.
    #[error("the group panicked")]
    Panicked,
}

impl GroupStopped {
    /// Why Raft ended, or the command that made it end.
    pub(crate) fn of(fatal: Fatal<u64>, refusal: &Refusal) -> Self {
        match (fatal, refusal.reason()) {
            (Fatal::StorageError(_), Some(refused)) => Self::Apply(refused),
            (fatal, _) => fatal.into(),
        }
    }
}

impl From<Fatal<u64>> for GroupStopped {
    fn from(fatal: Fatal<u64>) -> Self {
        match fatal {
            Fatal::Stopped => Self::Shutdown,
            Fatal::Panicked => Self::Panicked,
            Fatal::StorageError(error) => Self::Storage(Arc::new(error)),
        }
    }
}
