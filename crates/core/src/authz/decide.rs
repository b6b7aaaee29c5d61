//! The decision: one pure function.

use core::fmt;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::policy::Policy;
use super::resource::Kind;
use super::rule::{Effect, RuleId};
use super::subject::Subject;
use crate::id::Generation;
use crate::limits::RESOURCE_NAME_LEN_MAX;
use crate::time::UnixMillis;

/// May `subject` do `action` to the thing of this kind and name?
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who asks.
    pub subject: &'a Subject,
    /// What for.
    pub action: Action,
    /// The kind of thing.
    pub kind: &'a Kind,
    /// Its name.
    pub name: &'a str,
    /// Where the request comes from; none if that is not known.
    pub from: Option<IpAddr>,
    /// When: the later of the local clock and the last applied time.
    pub now: UnixMillis,
}

/// Why it was decided so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The subject is a super-user.
    SuperUser,
    /// A rule says so. If several do, the one whose id comes first.
    Rule(RuleId),
    /// The task requires a role, which the subject has or lacks.
    Requirement(String),
    /// No rule allows it.
    NoRule,
    /// No rule can be about a name so long.
    NameTooLong,
    /// There is a rule that this build cannot evaluate: it may deny.
    Unevaluable(RuleId),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SuperUser => f.write_str("super-user"),
            Self::Rule(id) => write!(f, "rule `{id}`"),
            Self::Requirement(task) => write!(f, "required capability of task `{task}`"),
            Self::NoRule => f.write_str("no rule allows it"),
            Self::NameTooLong => write!(f, "names have at most {RESOURCE_NAME_LEN_MAX} bytes"),
            Self::Unevaluable(id) => write!(f, "rule `{id}` cannot be evaluated by this version"),
        }
    }
}

/// A decision, its reason, and the generation that it was made under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether it may be done.
    pub effect: Effect,
    /// Why.
    pub reason: Reason,
    /// The generation that it was decided under.
    pub generation: Generation,
}

/// Decides by `policy`, which is that of `generation`. Default deny; a deny wins, in any order.
pub fn decide(policy: &Policy, generation: Generation, question: &Question<'_>) -> Decision {
    let (effect, reason) = decided(policy, question);
    Decision { effect, reason, generation }
}

fn decided(policy: &Policy, question: &Question<'_>) -> (Effect, Reason) {
    let Question { subject, action, kind, name, from, now } = *question;
    if name.len() > RESOURCE_NAME_LEN_MAX {
        return (Effect::Deny, Reason::NameTooLong);
    }
    if policy.is_super(subject) {
        return (Effect::Allow, Reason::SuperUser);
    }
    if let Some(id) = policy.unevaluable().first() {
        return (Effect::Deny, Reason::Unevaluable(id.clone()));
    }
    let (mut allow, mut deny): (Option<&RuleId>, Option<&RuleId>) = (None, None);
    for (_, group) in policy.groups_of(subject) {
        for rule in group.about(kind, name).filter(|rule| rule.decides().contains(action) && rule.holds(from, now)) {
            let first = match rule.effect {
                Effect::Allow => &mut allow,
                Effect::Deny => &mut deny,
            };
            if first.is_none_or(|id| rule.id < *id) {
                *first = Some(&rule.id);
            }
        }
    }
    if let Some(id) = deny {
        return (Effect::Deny, Reason::Rule(id.clone()));
    }
    match (requirement(policy, subject, kind, name), allow) {
        (Some(Effect::Deny), _) => (Effect::Deny, Reason::Requirement(name.to_owned())),
        (_, Some(id)) => (Effect::Allow, Reason::Rule(id.clone())),
        (Some(Effect::Allow), None) => (Effect::Allow, Reason::Requirement(name.to_owned())),
        (None, None) => (Effect::Deny, Reason::NoRule),
    }
}

/// The effect that a task's requirement has for `subject`, if the task has one.
fn requirement(policy: &Policy, subject: &Subject, kind: &Kind, name: &str) -> Option<Effect> {
    let required = policy.requirements().get(name).filter(|_| *kind == Kind::TASK)?;
    Some(if required.is_met(subject) { Effect::Allow } else { Effect::Deny })
}
