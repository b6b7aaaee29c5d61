//! Groups and the members that are assigned to them, found both ways.

use core::ops::Deref;
use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{GroupId, NodeId};
use crate::map::{Map, Set};
use crate::table::{Sum, Table};

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
            self.leave(group, gone);
        }
        for new in members.difference(&before) {
            let mut groups = self.of_member.remove(new).unwrap_or_default();
            groups.insert(group);
            self.of_member.insert(*new, groups);
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

    /// The digest of all of them.
    pub const fn sum(&self) -> Sum {
        self.by_id.sum()
    }

    fn leave(&mut self, group: GroupId, node: &NodeId) {
        let mut groups = self.of_member.remove(node).unwrap_or_default();
        groups.remove(&group);
        if !groups.is_empty() {
            self.of_member.insert(*node, groups);
        }
    }
}

impl Deref for Groups {
    type Target = Map<GroupId, BTreeSet<NodeId>>;

    fn deref(&self) -> &Map<GroupId, BTreeSet<NodeId>> {
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
        for (group, members) in &by_id {
            // A group whose members were all evicted stays, without any.
            all.assign(*group, members.clone());
        }
        Ok(Self { by_id, ..all })
    }
}
