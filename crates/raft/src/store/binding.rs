//! What a store is bound to: it is used by the member that it was made for, and by no other.

use std::fmt;
use std::path::PathBuf;

use countersign_core::id::{ClusterId, Incarnation, NodeId, StoreId};
use serde::{Deserialize, Serialize};

/// The member that a store is made for. A store of another one holds votes and entries that this one never promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its number.
    pub node: NodeId,
    /// How often the cluster was restarted from a survivor when the store was made.
    pub incarnation: Incarnation,
    /// The id under which the member answers for what it stored; drawn when it is made, and again when it returns with
    /// nothing.
    pub store: StoreId,
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, node, incarnation, store } = self;
        write!(f, "node {node} of cluster {cluster}, incarnation {}, store id {store}", incarnation.0)
    }
}

/// Where a store is, and whose it must be.
#[derive(Debug, Clone)]
pub struct StorePlace {
    /// The store's directory.
    pub path: PathBuf,
    /// The record of confirmed writes that stands outside of it.
    pub record: PathBuf,
    /// The member that it must have been made for.
    pub binding: Binding,
}

/// What a store says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) binding: Binding,
    /// The store's own id: two stores of one member are never taken for each other.
    pub(super) own: StoreId,
}
