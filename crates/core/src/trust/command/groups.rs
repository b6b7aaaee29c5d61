//! Groups, the members that they are assigned to, and the stores that hold them. The trust group is assigned to no
//! member here: Raft keeps it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use crate::authz::Affected;
use crate::codec::FIRST_LEVEL;
use crate::id::{GroupId, NodeId, StoreId};
use crate::json::Object;
use crate::limits::{EVENT_LIST_LEN_MAX, GROUPS_MAX};
use crate::time::UnixMillis;
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft, count};
use crate::trust::outcome::{Limited, Outcome, Refused};
use crate::trust::placement::PLACEMENT_LEVEL;
use crate::trust::state::TrustState;
use crate::trust::view::View;

/// Makes a group of these members. Its id is the next one: no id is ever used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateGroup {
    /// Its members.
    pub members: Vec<NodeId>,
}

/// A member says in which store it keeps all groups but the trust group. If that is another store than before, the
/// member leaves every group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindDataStore {
    /// The member.
    pub node: NodeId,
    /// Its store.
    pub store: StoreId,
}

/// Assigns a group to members; an empty list removes it. At the level at which placement is apart from the view, only a
/// group that there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignGroup {
    /// The group.
    pub group: GroupId,
    /// Its members from now on.
    pub members: Vec<NodeId>,
}

impl Operation for AssignGroup {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Voter
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Nothing
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::identities()
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let Self { group, members } = self;
        if state.level() >= PLACEMENT_LEVEL {
            let version = state.reassign_group(*group, members)?;
            return Ok(Outcome::Placed { group: *group, version });
        }
        let view = state.current()?;
        if let Some(unknown) = members.iter().find(|id| !view.members.contains_key(id)) {
            return Err(Refused::NoSuchNode(*unknown));
        }
        if *group == GroupId::TRUST || (view.groups.len() >= GROUPS_MAX && !view.groups.contains_key(group)) {
            return Err(Refused::Limit { what: Limited::Groups, max: GROUPS_MAX as u64 });
        }
        let members: BTreeSet<NodeId> = members.iter().copied().collect();
        state.change(|view| view.groups.assign(*group, members))
    }

    fn event(&self, _: &Draft<'_>) -> Account {
        let Self { group, members } = self;
        let details = Object::default().number("group", group.0).number("members_count", count(members.len()));
        ("group.assigned", details.texts("members", members, EVENT_LIST_LEN_MAX))
    }
}

impl Operation for CreateGroup {
    fn level(&self) -> u32 {
        PLACEMENT_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Voter
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Nothing
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::default()
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let (group, version) = state.create_group(&self.members)?;
        Ok(Outcome::Placed { group, version })
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        let members = &self.members;
        let created = if let Outcome::Placed { group, .. } = draft.outcome { group.0 } else { 0 };
        let details = Object::default().number("group", created).number("members_count", count(members.len()));
        ("group.created", details.texts("members", members, EVENT_LIST_LEN_MAX))
    }
}

impl Operation for BindDataStore {
    fn level(&self) -> u32 {
        PLACEMENT_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Member { node: self.node, in_recovery: false }
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Nothing
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::default()
    }

    fn unchanged(&self, state: &TrustState, _: UnixMillis) -> Checked {
        let generation = state.current()?.generation;
        state.member(self.node)?;
        let recorded = state.placement().data_store(self.node) == Some(self.store);
        Ok(recorded.then_some(Outcome::Done(generation)))
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let generation = state.current()?.generation;
        state.bind_data_store(self.node, self.store);
        Ok(Outcome::Done(generation))
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        ("node.data_store_bound", draft.node(self.node).text("store", self.store))
    }
}
