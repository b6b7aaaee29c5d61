//! The members that were evicted, found by number, by name and by when.

use core::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{add, take};
use crate::id::{Generation, NodeId};
use crate::map::{Map, Set};
use crate::name::{HostName, Name};
use crate::table::Table;
use crate::trust::member::Evicted;

/// Former members by number. Each way of changing them keeps the indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evictions {
    by_id: Table<NodeId, Evicted>,
    names: Map<Name, Set<NodeId>>,
    mapped: Map<HostName, Set<NodeId>>,
    generations: Set<(Generation, NodeId)>,
}

impl Evictions {
    /// Enters a member that was evicted.
    pub fn insert(&mut self, id: NodeId, evicted: Evicted) {
        if let Some(before) = self.by_id.remove(&id) {
            take(&mut self.names, &before.name, id);
            if let Some(name) = &before.mapped {
                take(&mut self.mapped, name, id);
            }
            self.generations.remove(&(before.generation, id));
        }
        self.enter(id, &evicted);
        self.by_id.insert(id, evicted);
    }

    /// The first former member of this name: a name may be given again.
    pub fn named(&self, name: &Name) -> Option<NodeId> {
        self.names.get(name)?.first().copied()
    }

    /// The last former member whose certificate, made elsewhere, mapped to this name.
    pub fn mapped(&self, name: &HostName) -> Option<NodeId> {
        self.mapped.get(name)?.last().copied()
    }

    /// The members that were evicted after `generation`.
    pub fn after(&self, generation: Generation) -> impl Iterator<Item = NodeId> {
        use core::ops::Bound::{Excluded, Unbounded};
        self.generations.range((Excluded((generation, NodeId(u64::MAX))), Unbounded)).map(|(_, id)| *id)
    }

    fn enter(&mut self, id: NodeId, evicted: &Evicted) {
        add(&mut self.names, evicted.name.clone(), id);
        if let Some(name) = &evicted.mapped {
            add(&mut self.mapped, name.clone(), id);
        }
        self.generations.insert((evicted.generation, id));
    }
}

impl Deref for Evictions {
    type Target = Table<NodeId, Evicted>;

    fn deref(&self) -> &Table<NodeId, Evicted> {
        &self.by_id
    }
}

impl FromIterator<(NodeId, Evicted)> for Evictions {
    fn from_iter<I: IntoIterator<Item = (NodeId, Evicted)>>(evicted: I) -> Self {
        let mut all = Self::default();
        evicted.into_iter().for_each(|(id, evicted)| all.insert(id, evicted));
        all
    }
}

impl Serialize for Evictions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.by_id.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Evictions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let by_id = Table::<NodeId, Evicted>::deserialize(deserializer)?;
        let mut all = Self::default();
        for (id, evicted) in by_id.scan() {
            all.enter(*id, evicted);
        }
        Ok(Self { by_id, ..all })
    }
}
