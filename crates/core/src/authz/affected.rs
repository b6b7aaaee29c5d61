//! The principals that a change concerns: what caches elsewhere forget, and nothing else.

use std::collections::BTreeSet;

use super::change::PolicyChange;
use super::rule::PrincipalPattern;
use crate::principal::Role;
use crate::trust::command::Command;
use crate::trust::view::View;

/// Principals named one by one in one change; past it all are concerned.
const NAMED_MAX: usize = 256;

/// The principals about which rules, roles or attributes say something else after a change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Affected {
    /// All of them.
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

    /// Only who belongs, and by which keys.
    pub(crate) fn identities() -> Self {
        Self { who: true, ..Self::default() }
    }

    /// One principal.
    pub(crate) fn principal(role: &Role) -> Self {
        Self { principals: [PrincipalPattern::Exact(role.to_string().into())].into(), ..Self::default() }
    }

    /// All members.
    pub(crate) fn nodes() -> Self {
        Self { principals: [PrincipalPattern::Prefix("node/".into())].into(), ..Self::default() }
    }

    /// What `command` would concern, applied to `view`. Rather too many than one too few.
    pub fn by(command: &Command, view: Option<&View>) -> Self {
        view.map_or_else(Self::everything, |view| command.operation().affects(view))
    }

    /// What a change of the rules would concern.
    pub(crate) fn by_change(change: &PolicyChange, view: &View) -> Self {
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
