//! Why a request is refused, and why a group does not start.

use std::sync::Arc;

use countersign_core::codec::CodecError;
use countersign_core::id::{GroupId, NodeId};

use crate::config::ConfigError;
use crate::machine::RestoreError;
use crate::memory::StoreFault;
use crate::message::Implausible;
use crate::status::GroupStopped;
use crate::store::OpenError;
use crate::transport::Refusal;

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
        /// The member that the request names.
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
    /// It is a data group, and no bulk store is open.
    #[error("there is no open store for group {0}")]
    NoStore(GroupId),
    /// It was removed from the store: an id is never used again.
    #[error("group {0} was removed here")]
    Removed(GroupId),
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

/// Why the store of the data groups is not opened.
#[derive(Debug, thiserror::Error)]
pub enum BulkStoreError {
    /// There is one open already.
    #[error("the bulk store is open already")]
    AlreadyOpen,
    /// It cannot be opened.
    #[error("the bulk store cannot be opened")]
    Open(#[from] OpenError),
}

/// Why a group is not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// The trust group is part of every member.
    #[error("the trust group cannot be removed")]
    Trust,
    /// No bulk store is open.
    #[error("there is no open store for group {0}")]
    NoStore(GroupId),
    /// It is being started, stopped or removed.
    #[error("group {0} is being started or removed")]
    Busy(GroupId),
    /// Its records were not deleted, or not all of them.
    #[error("the group's records cannot be deleted")]
    Storage(#[source] Arc<dyn std::error::Error + Send + Sync>),
}
