//! The transport of messages between members. The crate that knows connections implements it.
//!
//! The contract: `call` reaches the member it names and no other, and its answer comes from that member. The other end
//! hands the body to [`Groups::handle`](crate::Groups::handle) together with the *verified* peer.

use std::pin::Pin;
use std::time::Duration;

use countersign_core::id::{GroupId, NodeId};
use serde::{Deserialize, Serialize};

use crate::limits::{APPEND_LEN_MAX, SNAPSHOT_MESSAGE_LEN_MAX, TIMEOUT_NOW_LEN_MAX, VOTE_LEN_MAX};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The kind of a request between members of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RaftRpc {
    /// Asks for a vote.
    Vote,
    /// Brings entries, or is a heartbeat.
    Append,
    /// Brings a whole snapshot.
    Snapshot,
    /// Asks the receiver to stand for election at once: how a leader hands over.
    TimeoutNow,
}

impl RaftRpc {
    /// The largest body of any kind but a snapshot.
    pub const MESSAGE_LEN_MAX: usize = APPEND_LEN_MAX;

    /// The largest body of this kind, for the reader of a connection.
    pub fn len_max(self) -> usize {
        match self {
            Self::Vote => VOTE_LEN_MAX,
            Self::Append => APPEND_LEN_MAX,
            Self::Snapshot => SNAPSHOT_MESSAGE_LEN_MAX,
            Self::TimeoutNow => TIMEOUT_NOW_LEN_MAX,
        }
    }
}

/// Why the other end refused a request: coarse, fit for the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// It does not know yet whether the sender speaks for the group, or has not started the group.
    #[error("not known there yet")]
    NotYet,
    /// The sender does not speak for the group.
    #[error("not assigned to the group")]
    NotAssigned,
    /// A snapshot names members that are not assigned to the group; a fresh one may not.
    #[error("the snapshot's members are not all assigned to the group")]
    Outsider,
    /// The request is malformed, too large, or claims to be from another sender.
    #[error("not a valid request")]
    Invalid,
    /// The group has stopped there.
    #[error("the group has stopped there")]
    Stopped,
    /// The sender's store is another than the one on record there.
    #[error("the sender's store is not the one on record there")]
    OtherStore,
    /// The sender's store is an older copy.
    #[error("the sender's store is an older copy: it lacks what the sender acknowledged")]
    RolledBack,
    /// The sender's log contradicts what is committed there.
    #[error("the sender's log lacks entries that are committed there")]
    Conflict,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection to the member.
    #[error("unreachable")]
    Unreachable,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The member answered, but with a refusal.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
}

impl TransportError {
    /// The refusal that says something of what the sender stored, not of its request.
    pub(crate) const fn about_store(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal @ (Refusal::OtherStore | Refusal::RolledBack | Refusal::Conflict)) => Some(*refusal),
            Self::Refused(
                Refusal::NotYet | Refusal::NotAssigned | Refusal::Outsider | Refusal::Invalid | Refusal::Stopped,
            )
            | Self::Unreachable
            | Self::Timeout => None,
        }
    }
}

/// Carries requests to members.
pub trait Transport: Send + Sync + 'static {
    /// Sends `body` to `target` and returns its answer, or gives up after `deadline`.
    ///
    /// Data must not delay a revocation: give the trust group a connection, or a stream with a flow control, of its
    /// own. [`StoreKind::of`](crate::StoreKind::of) tells which groups are to be kept apart.
    fn call(
        &self,
        target: NodeId,
        group: GroupId,
        kind: RaftRpc,
        body: Vec<u8>,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Vec<u8>, TransportError>>;
}
