//! Rules, roles and attributes in the state: one generation with who belongs.

use core::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::author::Made;
use super::outcome::{Limited, Outcome, Refused};
use super::state::{Applied, TrustState};
use crate::authz::change::{ChangeId, Changed, PolicyChange, PolicyError, PolicyLimit, StagedRules};
use crate::authz::label::{LabelEdit, Labels};
use crate::authz::{Rule, RuleId};
use crate::id::Generation;
use crate::limits::{POLICY_WEIGHT_MAX, PRINCIPALS_MAX, RULES_MAX, STAGED_CHANGES_MAX, STAGED_SECS_MAX};
use crate::principal::Role;
use crate::time::UnixMillis;

/// Bytes that a removal weighs besides its id.
const REMOVAL_WEIGHT: usize = 2;

/// Parts of a change that has not come itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Staged {
    parts: u32,
    rules: StagedRules,
    weight: usize,
    at: UnixMillis,
}

impl TrustState {
    /// Keeps a part until its change comes. A part that is here already is not kept twice.
    pub(super) fn stage_policy(&mut self, change: ChangeId, part: u32, remove: &[RuleId], put: &[Rule]) -> Applied {
        self.current()?;
        for rule in put {
            rule.check().map_err(|why| PolicyError::Rule { id: rule.id.clone(), why })?;
        }
        let before = self.staged.get(&change);
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
        self.forget_staged(change, weight);
        let at = self.time();
        let staged = self.staged.entry(change).or_default();
        staged.rules.remove.extend(remove.iter().cloned());
        staged.rules.put.extend(put.iter().cloned());
        (staged.parts, staged.weight, staged.at) = (part.saturating_add(1), weight, at);
        self.revise();
        Ok(Outcome::Staged)
    }

    /// Forgets changes whose next part is long overdue, then the oldest, until there is room for one more of `weight`.
    fn forget_staged(&mut self, keep: ChangeId, weight: usize) {
        let now = self.time();
        self.staged.retain(|id, staged| *id == keep || now.secs_since(staged.at) <= STAGED_SECS_MAX);
        loop {
            let others = self.staged.iter().filter(|(id, _)| **id != keep);
            let (count, held) =
                others.clone().fold((0, weight), |(n, sum), (_, s)| (n + 1, s.weight.saturating_add(sum)));
            let oldest = others.min_by_key(|(_, staged)| staged.at).map(|(id, _)| *id);
            match oldest {
                Some(oldest) if count >= STAGED_CHANGES_MAX || held > POLICY_WEIGHT_MAX => self.staged.remove(&oldest),
                _ => return,
            };
        }
    }

    /// What was sent of a change before it: each part that it speaks of, and no other.
    pub(super) fn staged_for(&self, change: &PolicyChange) -> Result<&StagedRules, PolicyError> {
        let Some(sent) = change.staged else { return Ok(StagedRules::NONE) };
        let staged = self.staged.get(&sent.change).filter(|staged| staged.parts == sent.parts);
        staged.map(|staged| &staged.rules).ok_or(PolicyError::PartsMissing)
    }

    /// In one step, whatever it holds.
    pub(super) fn change_policy(&mut self, change: &PolicyChange, made: &Made) -> Applied {
        let view = self.current()?;
        let (policy, generation) = (Arc::clone(&view.policy), view.generation);
        let next = Generation(generation.0.saturating_add(1));
        let staged = self.staged_for(change)?;
        let mut changed = policy.changed_by(change, staged, next)?;
        if let Some((policy, _)) = &mut changed {
            let put = staged.put.iter().chain(&change.put);
            policy.record(put.map(|rule| &rule.id), &Arc::new(made.clone()));
            policy.check()?;
        }
        if let Some(sent) = change.staged {
            self.staged.remove(&sent.change);
            self.revise();
        }
        let Some((policy, changed)) = changed else {
            return Ok(Outcome::Policy { generation, changed: Changed::default() });
        };
        self.change(|view| view.policy = Arc::new(policy))?;
        Ok(Outcome::Policy { generation: next, changed })
    }

    /// Changes what a member or a principal on record is. Repeated, it changes nothing.
    pub(super) fn label(&mut self, role: &Role, edits: &[LabelEdit]) -> Applied {
        let view = self.current()?;
        let generation = view.generation;
        let before = match role {
            Role::Node(node) => {
                let member = self.member(*node)?;
                Labels { role: member.role.clone(), attributes: member.attributes.clone() }
            }
            Role::Broker(_) | Role::Client(_) | Role::Admin(_) => {
                // An authority made elsewhere has certified whom there is no record of, but for admins and who was revoked.
                let elsewhere = view.authorities.values().any(|authority| authority.imported)
                    && !matches!(role, Role::Admin(_))
                    && !view.revoked_principals.contains(role);
                let known = view.labels.get(role);
                if known.is_none() && !view.principals.contains_key(role) && !elsewhere {
                    return Err(Refused::NoSuchPrincipal(role.clone()));
                }
                if known.is_none() && view.labels.len() >= PRINCIPALS_MAX {
                    return Err(Refused::Limit { what: Limited::Principals, max: PRINCIPALS_MAX as u64 });
                }
                known.cloned().unwrap_or_default()
            }
        };
        let after = before.edited(edits)?;
        if after == before {
            return Ok(Outcome::Done(generation));
        }
        self.change(|view| match role {
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
}
