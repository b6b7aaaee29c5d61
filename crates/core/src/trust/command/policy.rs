//! Changes of the rules. A change that is too long for one command is sent in parts before it, and takes all of them or
//! none.

use core::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use crate::authz::change::{ChangeId, Changed, PolicyChange, PolicyError, PolicyLimit, StagedRules};
use crate::authz::text::RuleText;
use crate::authz::{Affected, Rule, RuleId};
use crate::codec::FIRST_LEVEL;
use crate::id::Generation;
use crate::json::Object;
use crate::limits::{EVENT_LIST_LEN_MAX, POLICY_WEIGHT_MAX, RULES_MAX, STAGED_CHANGES_MAX, STAGED_SECS_MAX};
use crate::time::UnixMillis;
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft, count};
use crate::trust::outcome::Outcome;
use crate::trust::state::TrustState;
use crate::trust::view::View;

/// Bytes that a removal weighs besides its id.
const REMOVAL_WEIGHT: usize = 2;

/// A part of a change of rules that is too long for one command, to be carried out with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagePolicy {
    /// The change.
    pub change: ChangeId,
    /// The number of the part, from zero: each after the one before.
    pub part: u32,
    /// Rules to take out.
    pub remove: Vec<RuleId>,
    /// Rules to put in.
    pub put: Vec<Rule>,
}

/// Parts of a change that has not come itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::trust) struct Staged {
    parts: u32,
    rules: StagedRules,
    weight: usize,
    at: UnixMillis,
}

impl Operation for StagePolicy {
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
        Affected::default()
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    /// Keeps a part until its change comes. A part that is here already is not kept twice.
    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let Self { change, part, remove, put } = self;
        state.current()?;
        for rule in put {
            rule.check().map_err(|why| PolicyError::Rule { id: rule.id.clone(), why })?;
        }
        let before = state.staged.get(change);
        match part.cmp(&before.map_or(0, |staged| staged.parts)) {
            Ordering::Less => return Ok(Outcome::Staged),
            Ordering::Equal => {}
            Ordering::Greater => return Err(PolicyError::PartsMissing.into()),
        }
        let removals = before.map_or(0, |staged| staged.rules.remove.len()).saturating_add(remove.len());
        let rules = before.map_or(0, |staged| staged.rules.put.len()).saturating_add(put.len());
        if removals.max(rules) > RULES_MAX {
            return Err(PolicyError::Limit { what: PolicyLimit::Rules, max: RULES_MAX as u64 }.into());
        }
        let weights = remove.iter().map(|id| id.as_str().len() + REMOVAL_WEIGHT).chain(put.iter().map(Rule::weight));
        let weight = before.map_or(0, |staged| staged.weight).saturating_add(weights.sum());
        if weight > POLICY_WEIGHT_MAX {
            return Err(PolicyError::Limit { what: PolicyLimit::Staged, max: POLICY_WEIGHT_MAX as u64 }.into());
        }
        state.forget_staged(*change, weight);
        let at = state.time;
        let staged = state.staged.entry(*change).or_default();
        staged.rules.remove.extend(remove.iter().cloned());
        staged.rules.put.extend(put.iter().cloned());
        (staged.parts, staged.weight, staged.at) = (part.saturating_add(1), weight, at);
        state.revise();
        Ok(Outcome::Staged)
    }

    fn event(&self, _: &Draft<'_>) -> Account {
        let Self { change, part, remove, put } = self;
        let details = Object::default().text("change", change).number("part", u64::from(*part));
        ("policy.staged", details.number("put", count(put.len())).number("removed", count(remove.len())))
    }
}

impl Operation for PolicyChange {
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

    fn affects(&self, view: &View) -> Affected {
        Affected::by_change(self, view)
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    /// In one step, whatever it holds.
    fn apply(&self, state: &mut TrustState, entry: &Entry<'_>) -> Applied {
        let view = state.current()?;
        let (policy, generation) = (Arc::clone(&view.policy), view.generation);
        let next = Generation(generation.0.saturating_add(1));
        let staged = state.staged_for(self)?;
        let mut changed = policy.changed_by(self, staged, next)?;
        if let Some((policy, _)) = &mut changed {
            let put = staged.put.iter().chain(&self.put);
            policy.record(put.map(|rule| &rule.id), &Arc::new(entry.made.clone()));
            policy.check()?;
        }
        if let Some(sent) = self.staged {
            state.staged.remove(&sent.change);
            state.revise();
        }
        let Some((policy, changed)) = changed else {
            return Ok(Outcome::Policy { generation, changed: Changed::default() });
        };
        let generation = state.edit(|view| view.policy = Arc::new(policy))?;
        Ok(Outcome::Policy { generation, changed })
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        let nothing = Changed::default();
        let Changed { put, removed } =
            if let Outcome::Policy { changed, .. } = draft.outcome { *changed } else { nothing };
        let details = Object::default().maybe("change", self.staged.map(|staged| staged.change));
        let details = details.number("put", put).number("removed", removed);
        let details = details.objects("rules", self.put.iter().map(rule), EVENT_LIST_LEN_MAX);
        // A rule that another takes the place of is taken out first.
        let put_again: BTreeSet<_> = self.put.iter().map(|rule| &rule.id).collect();
        let gone = self.remove.iter().filter(|id| !put_again.contains(id));
        let details = details.texts("removed_rules", gone, EVENT_LIST_LEN_MAX);
        let details = match &self.super_users {
            Some(users) => details.texts("super_users", users, EVENT_LIST_LEN_MAX),
            None => details,
        };
        let details = match &self.requirements {
            Some(required) => details.number("required_capabilities", count(required.len())),
            None => details,
        };
        ("policy.changed", details)
    }
}

/// As `acl list --json` shows it.
fn rule(rule: &Rule) -> Object {
    let text = RuleText::of(rule);
    let object = Object::default().text("id", &rule.id).text("effect", rule.effect).text("principal", text.principal);
    let object = object.texts("actions", text.actions, EVENT_LIST_LEN_MAX);
    let object = object.maybe("resource", text.resource).maybe("resource_prefix", text.resource_prefix);
    let object = object.maybe("resource_any", text.resource_any).maybe("network", text.network);
    match text.not_after {
        Some(not_after) => object.number("not_after", not_after),
        None => object,
    }
}

impl TrustState {
    /// Forgets changes whose next part is long overdue, then the oldest, until there is room for one more of `weight`.
    fn forget_staged(&mut self, keep: ChangeId, weight: usize) {
        let now = self.time;
        self.staged.retain(|id, staged| *id == keep || now.secs_since(staged.at) <= STAGED_SECS_MAX);
        loop {
            let others = self.staged.iter().filter(|(id, _)| **id != keep);
            let (count, held) =
                others.clone().fold((0, weight), |(n, sum), (_, s)| (n + 1, s.weight.saturating_add(sum)));
            let oldest = others.min_by_key(|(_, staged)| staged.at).map(|(id, _)| *id);
            match oldest {
                Some(oldest) if count >= STAGED_CHANGES_MAX || held > POLICY_WEIGHT_MAX => self.staged.remove(&oldest),
                Some(_) | None => return,
            };
        }
    }

    /// The parts of a change that were sent before it: each part that it names, and no other.
    pub(super) fn staged_for(&self, change: &PolicyChange) -> Result<&StagedRules, PolicyError> {
        let Some(sent) = change.staged else { return Ok(StagedRules::NONE) };
        let staged = self.staged.get(&sent.change).filter(|staged| staged.parts == sent.parts);
        staged.map(|staged| &staged.rules).ok_or(PolicyError::PartsMissing)
    }
}
