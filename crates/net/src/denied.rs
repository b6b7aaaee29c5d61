//! Members that this member refuses by itself, ahead of the view in force: those that an operator put in quarantine
//! here, and those that this member knows to be evicted before its own log has told it. It only ever adds refusals.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use countersign_core::id::NodeId;
use countersign_core::peer::Refusal;
use countersign_core::principal::Principal;

/// The refused members, and the refusal that each is told.
#[derive(Default)]
pub(crate) struct Denied(ArcSwap<BTreeMap<NodeId, Refusal>>);

impl Denied {
    pub(crate) fn of(&self, node: NodeId) -> Option<Refusal> {
        self.0.load().get(&node).copied()
    }

    pub(crate) fn check(&self, principal: &Principal) -> Result<(), Refusal> {
        principal.role.node_id().and_then(|node| self.of(node)).map_or(Ok(()), Err)
    }

    pub(crate) fn replace(&self, denied: BTreeMap<NodeId, Refusal>) {
        self.0.store(Arc::new(denied));
    }
}
