//! Why a call on a group fails.

use countersign_core::id::NodeId;
use openraft::EmptyNode;
use openraft::error::{ChangeMembershipError, ClientWriteError};

use crate::status::GroupStopped;

/// Why a group was not initialized.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InitializeError {
    /// It has a log or has voted already.
    #[error("the group was initialized before")]
    NotPristine,
    /// The first members must include this one.
    #[error("this node is not among the first members")]
    NotMember,
    /// A first member is not assigned to the group.
    #[error("node {0} is not assigned to the group")]
    NotAssigned(NodeId),
    /// The group has stopped.
    #[error("the group has stopped")]
    Stopped(#[source] GroupStopped),
}

/// Why the leader cannot be read from.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// This member does not lead.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, as far as this member knows.
        leader: Option<NodeId>,
    },
    /// No quorum confirmed in time that this member still leads.
    #[error("no quorum answered")]
    NoQuorum,
    /// The group has stopped.
    #[error("the group has stopped")]
    Stopped(#[source] GroupStopped),
}

/// Why the members of a group were not changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MembershipError {
    /// This member does not lead.
    #[error("not the leader")]
    NotLeader {
        /// Who leads, as far as this member knows.
        leader: Option<NodeId>,
    },
    /// Assignment comes first.
    #[error("node {0} is not assigned to the group")]
    NotAssigned(NodeId),
    /// A voter must have been a learner before.
    #[error("node {0} is not a learner of the group")]
    NotLearner(NodeId),
    /// A group needs a voter.
    #[error("the group would have no voter left")]
    NoVoter,
    /// One change at a time, and none while leadership is handed over.
    #[error("another change of members or of leader is under way")]
    InProgress,
    /// The change may or may not take effect; look at the status and repeat it.
    #[error("the outcome is not known")]
    Unknown,
    /// The group has stopped.
    #[error("the group has stopped")]
    Stopped(#[source] GroupStopped),
}

/// Why a request to stand for election was not followed.
pub(crate) enum StandError {
    NotLeader,
    NotVoter,
    Stopped(GroupStopped),
}

pub(super) fn refused(error: ClientWriteError<u64, EmptyNode>) -> MembershipError {
    match error {
        ClientWriteError::ForwardToLeader(to) => MembershipError::NotLeader { leader: to.leader_id.map(NodeId) },
        ClientWriteError::ChangeMembershipError(error) => match error {
            ChangeMembershipError::InProgress(_) => MembershipError::InProgress,
            ChangeMembershipError::EmptyMembership(_) => MembershipError::NoVoter,
            ChangeMembershipError::LearnerNotFound(node) => MembershipError::NotLearner(NodeId(node.node_id)),
        },
    }
}
