//! What Raft is made of here: the types that openraft is instantiated with. They never leave this crate.
//!
//! openraft's node ids are plain numbers and its nodes carry nothing: addresses live in the trust view, so a member
//! that moves needs no membership change.

use std::sync::Arc;

use bytes::Bytes;
use openraft::EmptyNode;
use serde::{Deserialize, Serialize};

use crate::machine::LogPosition;

/// The commands of one log entry. Several travel together because each entry costs one fsync per replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch(pub(crate) Arc<Vec<Bytes>>);

/// One encoded outcome for each command of a [`Batch`], in its order; none for entries of Raft's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcomes(pub(crate) Vec<Vec<u8>>);

openraft::declare_raft_types!(
    /// openraft's parameters.
    pub(crate) TypeConfig:
        D = Batch,
        R = Outcomes,
        NodeId = u64,
        Node = EmptyNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Bytes,
);

pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type Membership = openraft::Membership<u64, EmptyNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, EmptyNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, EmptyNode>;
pub(crate) type Snapshot = openraft::Snapshot<TypeConfig>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type StorageIoError = openraft::StorageIOError<u64>;

/// The position of an entry, as the rest of the product names it.
pub(crate) fn position(id: &LogId) -> LogPosition {
    LogPosition { term: id.leader_id.term, index: id.index }
}
