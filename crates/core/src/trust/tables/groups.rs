//! Groups and the members that are assigned to them, found both ways.

use core::ops::Deref;
use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{add, take};
use crate::id::{GroupId, NodeId};
use crate::map::{Map, Set};
use crate::table::Table;

/// Members by group. Each way of changing them keeps the index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    by_id: Table<GroupId, BTreeSet<NodeId>>,
    of_member: Map<NodeId, Set<GroupId>>,
}

impl Groups {
    /// Assigns a group to these members, in place of those before. To none: the group is removed.
    pub fn assign(&mut self, group: GroupId, members: BTreeSet<NodeId>) {
        let before = self.by_id.remove(&group).unwrap_or_default();
        for gone in before.difference(&members) {
            take(&mut self.of_member, gone, group);
        }
        for new in members.difference(&before) {
            add(&mut self.of_member, *new, group);
        }
        if !members.is_empty() {
            self.by_id.insert(group, members);
        }
    }

    /// Takes a member out of all its groups, which stay.
    pub fn remove_member(&mut self, node: &NodeId) {
        for group in self.of_member.remove(node).unwrap_or_default().iter() {
            self.by_id.update(group, |members| members.remove(node));
        }
    }

    /// Whether a member is assigned to any group.
    pub fn has_member(&self, node: &NodeId) -> bool {
        self.of_member.contains_key(node)
    }
}

impl Deref for Groups {
    type Target = Table<GroupId, BTreeSet<NodeId>>;

    fn deref(&self) -> &Table<GroupId, BTreeSet<NodeId>> {
        &self.by_id
    }
}

impl Serialize for Groups {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.by_id.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Groups {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let by_id = Table::<GroupId, BTreeSet<NodeId>>::deserialize(deserializer)?;
        let mut all = Self::default();
        for (group, members) in by_id.scan() {
            // A group whose members were all evicted stays, without any.
            all.assign(*group, members.clone());
        }
        Ok(Self { by_id, ..all })
    }
}
