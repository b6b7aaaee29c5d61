//! A change of the rules: all of it, or none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::policy::Policy;
use super::rule::{PrincipalPattern, Requirement, Rule, RuleError, RuleId};
use crate::id::Generation;
use crate::limits::{
    POLICY_WEIGHT_MAX, REQUIREMENTS_MAX, RESOURCE_NAME_LEN_MAX, ROLE_PATTERNS_MAX, RULE_ID_LEN_MAX, RULES_MAX,
    SUPER_USERS_MAX,
};

/// Names a change whose rules come in parts, before the change itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChangeId(pub [u8; 16]);

impl core::fmt::Display for ChangeId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

/// The parts of a change that were sent before it: all of them, or the change is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedParts {
    /// Of which change.
    pub change: ChangeId,
    /// How many there are.
    pub parts: u32,
}

/// The rules that all parts of a change together take out and put in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StagedRules {
    /// Rules to take out.
    pub remove: Vec<RuleId>,
    /// Rules to put in, after all that are taken out.
    pub put: Vec<Rule>,
}

impl StagedRules {
    /// No part was sent.
    pub const NONE: &'static Self = &Self { remove: Vec::new(), put: Vec::new() };
}

/// A change, carried out in one step: no member ever decides by half of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyChange {
    /// Only if the policy has not changed since this generation.
    pub if_generation: Option<Generation>,
    /// Parts that were sent before, to be carried out with `remove` and `put`.
    pub staged: Option<StagedParts>,
    /// Rules to take out, before others are put in.
    pub remove: Vec<RuleId>,
    /// Rules to put in.
    pub put: Vec<Rule>,
    /// The principals that may do everything from now on.
    pub super_users: Option<BTreeSet<PrincipalPattern>>,
    /// What tasks require from now on.
    pub requirements: Option<Vec<Requirement>>,
}

/// What of a policy is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyLimit {
    /// Rules.
    Rules,
    /// Their bytes.
    Weight,
    /// Expressions over roles that rules name.
    RolePatterns,
    /// Super-users.
    SuperUsers,
    /// Required capabilities, or the expressions of one.
    Requirements,
    /// Bytes of a change that was sent in parts.
    Staged,
}

impl core::fmt::Display for PolicyLimit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Rules => "the number of rules",
            Self::Weight => "the bytes of all rules",
            Self::RolePatterns => "the number of role expressions that rules name",
            Self::SuperUsers => "the number of super-users",
            Self::Requirements => "the number of required capabilities, or of the expressions of one",
            Self::Staged => "the bytes of a change that is sent in parts",
        })
    }
}

/// Why a policy is not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyError {
    /// Another caller changed it meanwhile.
    #[error("policy was changed in generation {changed}, after generation {expected} that this change was made for")]
    Changed {
        /// When it last changed.
        changed: Generation,
        /// The generation that the change was made for.
        expected: Generation,
    },
    /// A rule that cannot count.
    #[error("rule `{id}` {why}")]
    Rule {
        /// Which.
        id: RuleId,
        /// Why not.
        why: RuleError,
    },
    /// Another rule has this id.
    #[error("rule `{0}` exists and says something else: remove it first, or give another id")]
    RuleExists(RuleId),
    /// No rule has this id.
    #[error("there is no rule `{0}`")]
    NoSuchRule(RuleId),
    /// Everybody would be a super-user.
    #[error("`*` cannot be a super-user: no principal would be denied anything")]
    EverybodySuper,
    /// A super-user that no principal can be, or whose text says something else.
    #[error("super-user `{0}` is no principal: expected KIND/NAME, KIND/PREFIX*, or role:EXPRESSION")]
    SuperUser(String),
    /// A task whose requirement cannot count: no name, one too long, or no expression.
    #[error("required capability of task `{0}` has no role, or no name that a task can have")]
    Requirement(String),
    /// Past a limit.
    #[error("{what} is beyond its limit of {max}")]
    Limit {
        /// Of what.
        what: PolicyLimit,
        /// The limit.
        max: u64,
    },
    /// The parts that the change speaks of are not here.
    #[error("parts of this change are missing: it was overtaken by others, or sent out of order; send it again")]
    PartsMissing,
}

/// The effect of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Changed {
    /// Rules put in, in place of others or not.
    pub put: u64,
    /// Rules taken out for good.
    pub removed: u64,
}

impl Policy {
    /// The policy after `change`, whose parts sent before are `staged`; none if it is the same. `generation` is the one
    /// that will show it.
    pub fn changed_by(
        &self,
        change: &PolicyChange,
        staged: &StagedRules,
        generation: Generation,
    ) -> Result<Option<(Self, Changed)>, PolicyError> {
        if let Some(expected) = change.if_generation.filter(|expected| self.changed() > *expected) {
            return Err(PolicyError::Changed { changed: self.changed(), expected });
        }
        let mut next = self.clone();
        let mut changed = Changed::default();
        let mut removed: BTreeSet<&RuleId> = BTreeSet::new();
        let mut gone = staged.remove.iter().chain(&change.remove);
        if let Some(none) = gone.find(|id| self.rule(id).is_none() || !removed.insert(id)) {
            return Err(PolicyError::NoSuchRule(none.clone()));
        }
        next.remove(removed.iter().copied());
        let mut put: BTreeMap<&RuleId, &Rule> = BTreeMap::new();
        for rule in staged.put.iter().chain(&change.put) {
            rule.check().map_err(|why| PolicyError::Rule { id: rule.id.clone(), why })?;
            match put.get(&rule.id).copied().or_else(|| next.rule(&rule.id).map(|rule| &**rule)) {
                Some(known) if known == rule => {}
                Some(_) => return Err(PolicyError::RuleExists(rule.id.clone())),
                None => {
                    changed.put += u64::from(self.rule(&rule.id).is_none_or(|before| **before != *rule));
                    put.insert(&rule.id, rule);
                }
            }
        }
        next.extend(put.into_values().map(|rule| Arc::new(rule.clone())));
        changed.removed = removed.iter().filter(|id| next.rule(id).is_none()).count() as u64;
        if let Some(super_users) = &change.super_users {
            next.set_super_users(super_users.clone());
        }
        if let Some(requirements) = &change.requirements {
            next.set_requirements(checked(requirements)?);
        }
        next.check()?;
        let same = changed == Changed::default()
            && next.super_users() == self.super_users()
            && next.requirements() == self.requirements();
        if same {
            return Ok(None);
        }
        next.set_changed(generation);
        Ok(Some((next, changed)))
    }

    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            rules: self.len(),
            weight: self.weight(),
            role_patterns: self.role_patterns(),
            super_users: self.super_users().len(),
            requirements: self.requirements().len(),
        }
    }

    /// Whether it is within its limits, and each super-user is one that a principal can be.
    pub(crate) fn check(&self) -> Result<(), PolicyError> {
        self.sizes().check()?;
        if self.super_users().contains(&PrincipalPattern::Any) {
            return Err(PolicyError::EverybodySuper);
        }
        // An empty prefix would be everybody as well.
        match self.super_users().iter().find(|pattern| !pattern.is_spelled()) {
            Some(invalid) => Err(PolicyError::SuperUser(invalid.to_string().chars().take(RULE_ID_LEN_MAX).collect())),
            None => Ok(()),
        }
    }

    /// The change that makes `wanted` of this policy, rule by rule. Carried out on this one, it has no effect on equal
    /// rules.
    pub fn plan(&self, wanted: &Self) -> PolicyChange {
        let differs = |a: &Rule, b: Option<&Arc<Rule>>| b.is_none_or(|b| **b != *a);
        PolicyChange {
            remove: self.rules().filter(|r| differs(r, wanted.rule(&r.id))).map(|r| r.id.clone()).collect(),
            put: wanted.rules().filter(|r| differs(r, self.rule(&r.id))).map(|r| Rule::clone(r)).collect(),
            super_users: (self.super_users() != wanted.super_users()).then(|| wanted.super_users().clone()),
            requirements: (self.requirements() != wanted.requirements())
                .then(|| wanted.requirements().values().cloned().collect()),
            ..PolicyChange::default()
        }
    }
}

/// What of a policy is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sizes {
    pub(super) rules: usize,
    pub(super) weight: usize,
    pub(super) role_patterns: usize,
    pub(super) super_users: usize,
    pub(super) requirements: usize,
}

impl Sizes {
    pub(super) fn check(self) -> Result<(), PolicyError> {
        for (what, got, max) in [
            (PolicyLimit::Rules, self.rules, RULES_MAX),
            (PolicyLimit::Weight, self.weight, POLICY_WEIGHT_MAX),
            (PolicyLimit::RolePatterns, self.role_patterns, ROLE_PATTERNS_MAX),
            (PolicyLimit::SuperUsers, self.super_users, SUPER_USERS_MAX),
            (PolicyLimit::Requirements, self.requirements, REQUIREMENTS_MAX),
        ] {
            if got > max {
                return Err(PolicyError::Limit { what, max: max as u64 });
            }
        }
        Ok(())
    }
}

/// Requirements by task, each of which can count.
pub fn checked(requirements: &[Requirement]) -> Result<BTreeMap<String, Requirement>, PolicyError> {
    let mut by_task = BTreeMap::new();
    for requirement in requirements {
        let Requirement { task, any_of } = requirement;
        if any_of.len() > REQUIREMENTS_MAX || requirements.len() > REQUIREMENTS_MAX {
            return Err(PolicyError::Limit { what: PolicyLimit::Requirements, max: REQUIREMENTS_MAX as u64 });
        }
        let named = !task.is_empty() && task.len() <= RESOURCE_NAME_LEN_MAX;
        if !named || any_of.is_empty() || by_task.insert(task.clone(), requirement.clone()).is_some() {
            return Err(PolicyError::Requirement(task.chars().take(RESOURCE_NAME_LEN_MAX).collect()));
        }
    }
    Ok(by_task)
}
