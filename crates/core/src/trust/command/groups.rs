//! Groups and the members that they are assigned to. The trust group is assigned to no member here: Raft keeps it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation};
use crate::authz::Affected;
use crate::codec::FIRST_LEVEL;
use crate::id::{GroupId, NodeId};
use crate::json::Object;
use crate::limits::{EVENT_LIST_LEN_MAX, GROUPS_MAX};
use crate::time::UnixMillis;
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft, count};
use crate::trust::outcome::{Limited, Refused};
use crate::trust::state::TrustState;
use crate::trust::view::View;

/// Assigns a group to members; an empty list removes it.
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

    fn affects(&self, _: &View) -> Affected {
        Affected::identities()
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let Self { group, members } = self;
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
