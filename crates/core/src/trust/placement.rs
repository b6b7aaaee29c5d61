//! Placement: the groups, the members that they are assigned to, and the stores that members keep them in.
//!
//! It has a version of its own. A change of placement is no change of trust: it raises no generation, so no connection
//! is judged again and no revocation waits for it. Below [`PLACEMENT_LEVEL`] assignments stand in the view instead.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::outcome::{Limited, Refused};
use super::state::TrustState;
use super::tables::Groups;
use super::view::View;
use crate::codec::{self, CodecError};
use crate::id::{GroupId, NodeId, StoreId};
use crate::limits::GROUPS_MAX;
use crate::table::Table;

/// The level from which on placement is apart from the view.
pub const PLACEMENT_LEVEL: u32 = 2;

/// The version of the placement: how often it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct PlacementVersion(pub u64);

impl core::fmt::Display for PlacementVersion {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

/// Which group lives on which members, and in which of their stores.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    version: PlacementVersion,
    /// The highest id that a group ever had. No id is given out twice.
    last_group: GroupId,
    groups: Groups,
    /// The store in which each member keeps all groups but the trust group.
    data_stores: Table<NodeId, StoreId>,
}

impl Placement {
    /// The version: grows with each change.
    pub const fn version(&self) -> PlacementVersion {
        self.version
    }

    /// The groups that there are, with their members. The trust group is not among them.
    pub const fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The store in which `node` keeps all groups but the trust group; none while it has not said so.
    pub fn data_store(&self, node: NodeId) -> Option<StoreId> {
        self.data_stores.get(&node).copied()
    }

    /// The assignments that a view of an earlier level holds.
    fn of_view(groups: Groups) -> Self {
        let last_group = groups.last_key_value().map(|(group, _)| *group).unwrap_or_default();
        Self { version: PlacementVersion(1), last_group, groups, data_stores: Table::new() }
    }

    /// What its digest is made of.
    pub(super) fn parts(&self) -> Result<Vec<Vec<u8>>, CodecError> {
        let Self { version, last_group, groups, data_stores } = self;
        let counters = codec::appended(&(version, last_group))?;
        Ok(vec![counters, groups.sum().to_bytes().to_vec(), data_stores.sum().to_bytes().to_vec()])
    }
}

impl TrustState {
    /// The placement. Empty below [`PLACEMENT_LEVEL`].
    pub const fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Whether `node` may speak for `group`: `None` while the assignment is not known here.
    pub fn assigned(&self, group: GroupId, node: NodeId) -> Option<bool> {
        let view = self.view()?;
        if self.level() < PLACEMENT_LEVEL || group == GroupId::TRUST {
            return view.assigned(group, node);
        }
        self.placement.groups.get(&group).map(|members| members.contains(&node))
    }

    /// Takes the assignments out of the view, where an earlier level kept them.
    pub(super) fn part_placement(&mut self) -> Result<(), Refused> {
        let groups = self.current()?.groups.clone();
        if !groups.is_empty() {
            self.change(|view| view.groups = Groups::default())?;
        }
        self.placement = Placement::of_view(groups);
        self.revise();
        Ok(())
    }

    /// The one way to change the placement: raises its version.
    fn place(&mut self, edit: impl FnOnce(&mut Placement)) -> PlacementVersion {
        edit(&mut self.placement);
        self.placement.version.0 = self.placement.version.0.saturating_add(1);
        self.revise();
        self.placement.version
    }

    /// A group of these members, under an id that no group had before.
    pub(super) fn create_group(&mut self, members: &[NodeId]) -> Result<(GroupId, PlacementVersion), Refused> {
        let members = self.assignable(members)?;
        if members.is_empty() {
            return Err(Refused::GroupWithoutMembers);
        }
        if self.placement.groups.len() >= GROUPS_MAX {
            return Err(Refused::Limit { what: Limited::Groups, max: GROUPS_MAX as u64 });
        }
        let group = GroupId(self.placement.last_group.0.saturating_add(1));
        let version = self.place(|placement| {
            placement.last_group = group;
            placement.groups.assign(group, members);
        });
        Ok((group, version))
    }

    /// Assigns a group that there is to other members; to none: it is removed.
    pub(super) fn reassign_group(&mut self, group: GroupId, members: &[NodeId]) -> Result<PlacementVersion, Refused> {
        if !self.placement.groups.contains_key(&group) {
            return Err(Refused::NoSuchGroup(group));
        }
        let members = self.assignable(members)?;
        Ok(self.place(|placement| placement.groups.assign(group, members)))
    }

    /// Records the store in which `node` keeps its groups. Another store than before holds nothing of them, so the
    /// member leaves every group first.
    pub(super) fn bind_data_store(&mut self, node: NodeId, store: StoreId) -> PlacementVersion {
        self.place(|placement| {
            if placement.data_stores.get(&node).is_some_and(|before| *before != store) {
                placement.groups.remove_member(&node);
            }
            placement.data_stores.insert(node, store);
        })
    }

    /// Forgets a member that was evicted.
    pub(super) fn displace(&mut self, node: NodeId) {
        let Placement { groups, data_stores, .. } = &self.placement;
        if data_stores.contains_key(&node) || groups.has_member(&node) {
            self.place(|placement| {
                placement.groups.remove_member(&node);
                placement.data_stores.remove(&node);
            });
        }
    }

    fn assignable(&self, members: &[NodeId]) -> Result<BTreeSet<NodeId>, Refused> {
        let view: &View = self.current()?;
        match members.iter().find(|node| !view.members.contains_key(node)) {
            Some(other) => Err(Refused::NoSuchNode(*other)),
            None => Ok(members.iter().copied().collect()),
        }
    }
}
