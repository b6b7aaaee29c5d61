//! Why a use case was not carried out.

use countersign_core::id::{Generation, KeyId, TokenId};
use countersign_core::name::Name;
use countersign_node::datadir::DataDirError;
use countersign_node::{CommandError, KeysError};

use crate::membership;

/// Why a use case was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The command was not carried out, or may not have been.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// There is no such member.
    #[error("there is no node `{text}`")]
    UnknownNode {
        /// The text asked for.
        text: String,
        /// The members that there are.
        known: Vec<Name>,
    },
    /// A member cannot evict itself: once out of the voters it could not ask for the rest.
    #[error("node {0} cannot evict itself")]
    EvictsItself(Name),
    /// A member cannot refuse itself.
    #[error("node {0} cannot refuse itself")]
    QuarantinesItself(Name),
    /// The voters that stay cannot commit anything now. Nothing was changed.
    #[error(
        "node {node} cannot be removed now, and nothing was changed: the voters that stay are no majority without {}",
        unreached.join(", ")
    )]
    NoQuorum {
        /// The member that was to leave.
        node: Name,
        /// The voters that were not reached, and why.
        unreached: Vec<String>,
    },
    /// The change is recorded, and Raft has not followed in time.
    #[error(
        "the change is recorded, but raft has not followed for node {node} within {} seconds",
        membership::CONVERGE_DEADLINE.as_secs()
    )]
    NotConverged {
        /// The member.
        node: Name,
    },
    /// The member votes no more and is not evicted, since voters have not signed what the cluster has become.
    #[error(
        "node {node} is no voter any more, and is not evicted: what the cluster has become lacks signatures, and these \
         have not signed: {}",
        unsigned.join(", ")
    )]
    NotAttested {
        /// The member.
        node: Name,
        /// The voters whose signatures are missing.
        unsigned: Vec<String>,
    },
    /// A change that must outlive a restart could not be written down.
    #[error(transparent)]
    NotStored(DataDirError),
    /// This member has not applied the generation that was asked for, or that a change was made at, in time.
    #[error("generation {wanted} is not in force here, which has {applied}")]
    Behind {
        /// The generation waited for.
        wanted: Generation,
        /// The generation in force here.
        applied: Generation,
    },
    /// No authority can issue certificates now.
    #[error("no authority can issue certificates")]
    NoAuthority,
    /// The operating system gave no randomness.
    #[error(transparent)]
    Random(KeysError),
    /// No certificate of this key is on record.
    #[error("no certificate of key `{0}` is on record")]
    UnknownKey(KeyId),
    /// A node's certificates are not revoked: a node is evicted.
    #[error("certificates of node {node} are not revoked: a node is evicted")]
    CertificateOfNode {
        /// Its name, or its number where it has none here.
        node: String,
    },
    /// The token was revoked, and no record of it was seen here.
    #[error("token {0} is revoked, and its record is not here")]
    TokenForgotten(TokenId),
    /// A thread that worked on this ended before its work was done.
    #[error("the work broke off")]
    BrokeOff,
}
