//! When each member last answered this one under a store that counts: who answers is not replaced by a copy of itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use countersign_core::id::NodeId;
use countersign_core::locked::Locked;

/// When each member last answered an append. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Contacts(Arc<Locked<BTreeMap<NodeId, Instant>>>);

impl Contacts {
    pub(crate) fn heard(&self, node: NodeId) {
        self.0.lock().insert(node, Instant::now());
    }

    pub(crate) fn last(&self, node: NodeId) -> Option<Instant> {
        self.0.lock().get(&node).copied()
    }
}
