//! Roles and attributes: what a principal is on an admin's word, never on its own.

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use super::principals::certified_elsewhere;
use crate::authz::Affected;
use crate::authz::label::{LabelEdit, Labels};
use crate::codec::FIRST_LEVEL;
use crate::json::Object;
use crate::limits::{EVENT_LIST_LEN_MAX, PRINCIPALS_MAX};
use crate::principal::Role;
use crate::time::UnixMillis;
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft, count};
use crate::trust::outcome::{Limited, Outcome, Refused};
use crate::trust::state::TrustState;
use crate::trust::view::View;

/// Changes what a member or a principal on record is. Repeated, it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The member or principal.
    pub role: Role,
    /// In this order; all or none.
    pub edits: Vec<LabelEdit>,
}

impl Operation for Label {
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
        Affected::principal(&self.role)
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let Self { role, edits } = self;
        let before = self.before(state)?;
        let after = before.edited(edits)?;
        if after == before {
            return Ok(Outcome::Done(state.current()?.generation));
        }
        state.change(|view| match role {
            Role::Node(node) => {
                view.members.update(node, |member| (member.role, member.attributes) = (after.role, after.attributes));
            }
            Role::Broker(_) | Role::Client(_) | Role::Admin(_) => {
                if after.is_empty() {
                    view.labels.remove(role);
                } else {
                    view.labels.insert(role.clone(), after);
                }
            }
        })
    }

    fn event(&self, _: &Draft<'_>) -> Account {
        let Self { role, edits } = self;
        let details = Object::default().text("principal", role).number("labels_count", count(edits.len()));
        ("labels.changed", details.texts("labels", edits.iter().map(told), EVENT_LIST_LEN_MAX))
    }
}

impl Label {
    fn before(&self, state: &TrustState) -> Result<Labels, Refused> {
        let view = state.current()?;
        let role = match &self.role {
            Role::Node(node) => {
                let member = state.member(*node)?;
                return Ok(Labels { role: member.role.clone(), attributes: member.attributes.clone() });
            }
            role @ (Role::Broker(_) | Role::Client(_) | Role::Admin(_)) => role,
        };
        let Some(known) = view.labels.get(role) else {
            // There is no record of principals that an authority made elsewhere has certified.
            if !view.principals.contains_key(role) && !certified_elsewhere(view, role) {
                return Err(Refused::NoSuchPrincipal(role.clone()));
            }
            if view.labels.len() >= PRINCIPALS_MAX {
                return Err(Refused::Limit { what: Limited::Principals, max: PRINCIPALS_MAX as u64 });
            }
            return Ok(Labels::default());
        };
        Ok(known.clone())
    }
}

/// As `node label` takes it: `NAME=VALUE`, or `NAME=` for one that is taken away.
fn told(edit: &LabelEdit) -> String {
    format!("{}={}", edit.name, edit.value.as_deref().unwrap_or_default())
}
