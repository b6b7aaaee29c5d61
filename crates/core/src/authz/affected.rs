//! Whom a change concerns: what caches elsewhere forget, and nothing else.

use std::collections::BTreeSet;

use super::change::PolicyChange;
use super::rule::PrincipalPattern;
use crate::principal::Role;
use crate::trust::command::Command;
use crate::trust::view::View;

/// Principals named one by one in one change; past it everybody is concerned.
const NAMED_MAX: usize = 256;

/// About whom rules, roles or attributes say something else after a change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Affected {
    /// Everybody.
    pub everybody: bool,
    /// These.
    pub principals: BTreeSet<PrincipalPattern>,
    /// Whether who belongs, and by which keys, may have changed.
    pub who: bool,
}

impl Affected {
    /// Everything may be different.
    pub fn everything() -> Self {
        Self { everybody: true, principals: BTreeSet::new(), who: true }
    }

    /// Whom `command` would concern, applied to `view`. Rather too many than one too few.
    pub fn by(command: &Command, view: Option<&View>) -> Self {
        let Some(view) = view else { return Self::everything() };
        match command {
            Command::ChangePolicy(change) => Self::by_change(change, view),
            Command::StagePolicy { .. } | Command::AddJoinToken(_) | Command::RevokeJoinToken(_) => Self::default(),
            Command::Label { role, .. } => Self { principals: [exactly(role)].into(), ..Self::default() },
            // Its labels go with it.
            Command::RevokePrincipal(role) => Self { principals: [exactly(role)].into(), who: true, ..Self::default() },
            Command::Evict { node, .. } => {
                Self { principals: [exactly(&Role::Node(*node))].into(), who: true, ..Self::default() }
            }
            // A newcomer has a role from its token; whoever asked about it before was told that it has none.
            Command::Admit(_) => Self { principals: [nodes()].into(), who: true, ..Self::default() },
            Command::Bootstrap(_) => Self::everything(),
            _ => Self { who: true, ..Self::default() },
        }
    }

    fn by_change(change: &PolicyChange, view: &View) -> Self {
        let named = change.remove.len().saturating_add(change.put.len());
        let general = change.super_users.is_some() || change.requirements.is_some() || change.staged.is_some();
        if general || named > NAMED_MAX {
            return Self { everybody: true, ..Self::default() };
        }
        let removed = change.remove.iter().filter_map(|id| view.policy.rule(id)).map(|rule| &rule.principal);
        let principals: BTreeSet<PrincipalPattern> =
            removed.chain(change.put.iter().map(|rule| &rule.principal)).cloned().collect();
        Self { everybody: principals.contains(&PrincipalPattern::Any), principals, who: false }
    }

    /// Both.
    pub fn join(&mut self, other: Self) {
        self.everybody |= other.everybody;
        self.who |= other.who;
        self.principals.extend(other.principals);
        if self.principals.len() > NAMED_MAX {
            self.everybody = true;
            self.principals.clear();
        }
    }
}

fn exactly(role: &Role) -> PrincipalPattern {
    PrincipalPattern::Exact(role.to_string().into())
}

fn nodes() -> PrincipalPattern {
    PrincipalPattern::Prefix("node/".into())
}
