//! Who belongs to which group, and which stores count, as a test says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use countersign_core::id::{GroupId, NodeId, StoreId};
use countersign_raft::{Assignments, StoreFault, StoreKind};

use super::ids;

/// The store of a member that has never been given another.
pub fn first_store(node: NodeId) -> StoreId {
    StoreId([node.0 as u8; 16])
}

/// The bulk store of a member that has never been given another.
pub fn first_bulk_store(node: NodeId) -> StoreId {
    StoreId([node.0 as u8 | 0x80; 16])
}

/// Who belongs to which group; a group that is absent is not known.
#[derive(Clone, Default)]
pub struct Roster {
    groups: Arc<Mutex<BTreeMap<GroupId, BTreeSet<NodeId>>>>,
    stores: Arc<Mutex<BTreeMap<(StoreKind, NodeId), StoreId>>>,
    faults: Arc<Mutex<Vec<(GroupId, StoreFault)>>>,
}

impl Roster {
    pub fn set(&self, group: GroupId, members: &[u64]) {
        self.groups.lock().unwrap().insert(group, ids(members));
    }

    pub fn forget(&self, group: GroupId) {
        self.groups.lock().unwrap().remove(&group);
    }

    /// Puts another trust store of `node` on record.
    pub fn bind(&self, node: NodeId, store: StoreId) {
        self.bind_of(StoreKind::Trust, node, store);
    }

    /// Puts another store of `node` on record.
    pub fn bind_of(&self, kind: StoreKind, node: NodeId, store: StoreId) {
        self.stores.lock().unwrap().insert((kind, node), store);
    }

    fn recorded(&self, kind: StoreKind, node: NodeId) -> StoreId {
        let first = match kind {
            StoreKind::Trust => first_store(node),
            StoreKind::Bulk => first_bulk_store(node),
        };
        self.stores.lock().unwrap().get(&(kind, node)).copied().unwrap_or(first)
    }

    /// What was refused for the store of who said it.
    pub fn faults(&self) -> Vec<StoreFault> {
        self.faults.lock().unwrap().iter().map(|(_, fault)| *fault).collect()
    }

    /// The same of one group.
    pub fn faults_of(&self, group: GroupId) -> Vec<StoreFault> {
        self.faults.lock().unwrap().iter().filter(|(of, _)| *of == group).map(|(_, fault)| *fault).collect()
    }

    /// The roster as `me` has it, whose trust store is `own`.
    pub fn of(&self, me: NodeId, own: StoreId) -> Arc<dyn Assignments> {
        self.of_stores(me, own, first_bulk_store(me))
    }

    /// The roster as `me` has it, whose stores are these.
    pub fn of_stores(&self, me: NodeId, trust: StoreId, bulk: StoreId) -> Arc<dyn Assignments> {
        Arc::new(RosterOf { roster: self.clone(), me, trust, bulk })
    }
}

/// The roster as one member has it.
struct RosterOf {
    roster: Roster,
    me: NodeId,
    trust: StoreId,
    bulk: StoreId,
}

impl Assignments for RosterOf {
    fn assigned(&self, group: GroupId, node: NodeId) -> Option<bool> {
        self.roster.groups.lock().unwrap().get(&group).map(|members| members.contains(&node))
    }

    fn stores(&self, kind: StoreKind, node: NodeId) -> Vec<StoreId> {
        vec![self.roster.recorded(kind, node)]
    }

    fn may_vote(&self, group: GroupId) -> bool {
        let kind = StoreKind::of(group);
        let own = match kind {
            StoreKind::Trust => self.trust,
            StoreKind::Bulk => self.bulk,
        };
        self.roster.recorded(kind, self.me) == own
    }

    fn distrusted(&self, group: GroupId, fault: &StoreFault) {
        self.roster.faults.lock().unwrap().push((group, *fault));
    }
}
