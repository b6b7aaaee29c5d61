//! Oddities of rules: rules that say nothing, and rules that say a lot. Advice, never a decision.

use core::fmt;
use core::ops::Bound;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::action::{Action, ActionSet};
use super::policy::{Group, Policy};
use super::resource::{Kind, NamePattern};
use super::role_expr::RoleExpr;
use super::rule::{Effect, PrincipalPattern, Rule, RuleId};
use super::subject::Subject;
use crate::limits::LINT_STEPS_MAX;
use crate::principal::Role;
use crate::time::UnixMillis;
use crate::trust::member::Attributes;
use crate::trust::view::View;

/// An oddity of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// An allow of nothing: a deny without conditions is about all of it.
    Shadowed {
        /// The deny.
        by: RuleId,
    },
    /// Another rule without conditions says all of it.
    Redundant {
        /// The other.
        by: RuleId,
    },
    /// No principal that could ask now matches it.
    NeverMatches(NeverWhy),
    /// An allow of much to everybody, or of everything to all of one kind.
    OverBroad,
    /// This rule was not compared with others, and the rules after it were not either: too many are about the same
    /// things.
    NotCompared,
}

/// Why no principal matches a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NeverWhy {
    /// No principal of that name is on record.
    NoSuchPrincipal,
    /// No principal on record has a name that begins so.
    NoSuchPrefix,
    /// No principal on record holds the role and the attributes.
    NoHolder,
    /// Its time has passed.
    Expired,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shadowed { by } => write!(f, "allows nothing: rule `{by}` denies all of it"),
            Self::Redundant { by } => write!(f, "adds nothing: rule `{by}` says all of it"),
            Self::NeverMatches(why) => write!(f, "matches no principal: {why}"),
            Self::NotCompared => f.write_str(
                "was not compared with others, and some more were not: too many rules are about the same things",
            ),
            Self::OverBroad => f.write_str("allows more than reading to everybody, or everything to all of one kind"),
        }
    }
}

impl fmt::Display for NeverWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchPrincipal => "no such principal is on record",
            Self::NoSuchPrefix => "no principal on record has a name that begins so",
            Self::NoHolder => "no principal on record holds this role with these attributes",
            Self::Expired => "its time has passed",
        })
    }
}

/// A rule and its oddity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lint {
    /// The rule.
    pub rule: RuleId,
    /// The oddity.
    pub finding: Finding,
}

/// All that is odd about the rules of a view at `now`, by rule. Not quadratic: a rule is compared with those alone that
/// an index finds for it.
pub fn lint(view: &View, now: UnixMillis) -> Vec<Lint> {
    lint_within(view, now, LINT_STEPS_MAX)
}

/// The same in at most so many comparisons.
pub(super) fn lint_within(view: &View, now: UnixMillis, steps: usize) -> Vec<Lint> {
    let whole = unconditional(&view.policy);
    let roles: Vec<_> = whole.groups().filter(|(pattern, _)| matches!(pattern, PrincipalPattern::Role(_))).collect();
    let known = Known::of(view);
    let mut lints = Vec::new();
    let mut steps = Some(steps);
    for (principal, group) in view.policy.groups() {
        let covering = covering(&whole, &roles, principal);
        let never = known.never(principal);
        for rule in group.iter().flat_map(|(_, rules)| rules.iter()) {
            let found = |finding| Lint { rule: rule.id.clone(), finding };
            if rule.not_after.is_some_and(|last| last.secs() < now.secs()) {
                // An expired rule has no other oddity worth telling.
                lints.push(found(Finding::NeverMatches(NeverWhy::Expired)));
                continue;
            }
            lints.extend(never.map(|why| found(Finding::NeverMatches(why))));
            if let Some(left) = steps {
                let found_others = said_by_others(rule, &covering, left);
                steps = found_others.as_ref().map(|(_, left)| *left);
                lints.extend(found_others.map_or(Some(Finding::NotCompared), |(said, _)| said).map(found));
            }
            lints.extend(is_over_broad(rule).then(|| found(Finding::OverBroad)));
        }
    }
    lints.sort_unstable();
    lints
}

/// The rules without conditions. Of rules that say the same, only the one whose id comes first: no two cover each
/// other, and few are about the same things, however many there were.
fn unconditional(policy: &Policy) -> Policy {
    type Said<'a> = (&'a PrincipalPattern, &'a Kind, &'a NamePattern, Effect, ActionSet);
    let mut seen: BTreeSet<Said<'_>> = BTreeSet::new();
    let mut whole = Policy::default();
    let candidates = policy.rules().filter(|rule| !rule.is_conditional());
    let first = candidates.filter(|r| seen.insert((&r.principal, &r.kind, &r.pattern, r.effect, r.decides())));
    whole.extend(first.cloned());
    whole
}

/// The groups that are about every principal that `principal` is about.
fn covering<'a>(
    whole: &'a Policy,
    roles: &[(&'a PrincipalPattern, &'a Arc<Group>)],
    principal: &PrincipalPattern,
) -> Vec<&'a Group> {
    let any = whole.group(&PrincipalPattern::Any).map(|group| &**group).into_iter();
    match principal {
        PrincipalPattern::Any => any.collect(),
        PrincipalPattern::Exact(text) | PrincipalPattern::Prefix(text) => {
            let named = Subject { name: text.to_string(), ..Subject::default() };
            let about = whole.groups_of(&named).filter(|(pattern, _)| pattern.covers(principal));
            about.filter_map(|(pattern, _)| whole.group(pattern)).map(|group| &**group).collect()
        }
        PrincipalPattern::Role(_) => {
            let wider = roles.iter().filter(|(pattern, _)| pattern.covers(principal));
            any.chain(wider.map(|(_, group)| &***group)).collect()
        }
    }
}

/// The rule without which `rule` would say something: a deny of all that it allows, or one that says as much. None if
/// that takes more than `steps`; else how many are left.
fn said_by_others(rule: &Rule, covering: &[&Group], steps: usize) -> Option<(Option<Finding>, usize)> {
    let mut left = steps;
    let (mut shadow, mut same): (Option<&RuleId>, Option<&RuleId>) = (None, None);
    for group in covering {
        // Each group costs its look-up, whatever it finds.
        left = left.checked_sub(1)?;
        for other in group.about(&rule.kind, rule.pattern.text()) {
            left = left.checked_sub(1)?;
            let covers = other.pattern.covers(&rule.pattern) && other.decides().covers(rule.decides());
            if other.id == rule.id || !covers {
                continue;
            }
            let first = |known: Option<&'_ RuleId>| known.is_none_or(|known| other.id < *known);
            if other.effect == Effect::Deny && rule.effect == Effect::Allow && first(shadow) {
                shadow = Some(&other.id);
            }
            if other.effect == rule.effect && first(same) {
                same = Some(&other.id);
            }
        }
    }
    let shadowed = shadow.map(|by| Finding::Shadowed { by: by.clone() });
    Some((shadowed.or_else(|| same.map(|by| Finding::Redundant { by: by.clone() })), left))
}

fn is_over_broad(rule: &Rule) -> bool {
    let reading = ActionSet::from_iter([Action::Read, Action::Describe]);
    let (of_any, all) = (rule.pattern == NamePattern::Any, rule.actions == ActionSet::ALL);
    rule.effect == Effect::Allow
        && match &rule.principal {
            PrincipalPattern::Any => all || of_any && !reading.covers(rule.actions),
            PrincipalPattern::Prefix(prefix) => all && of_any && prefix.ends_with('/'),
            PrincipalPattern::Exact(_) | PrincipalPattern::Role(_) => false,
        }
}

/// Who could ask.
struct Known<'a> {
    view: &'a View,
    names: BTreeSet<String>,
    /// Each role with the different sets of attributes that its holders have.
    held: BTreeMap<&'a str, BTreeSet<&'a Attributes>>,
    /// An authority made elsewhere may have certified clients and brokers that the view has not heard of.
    elsewhere: bool,
}

impl<'a> Known<'a> {
    fn of(view: &'a View) -> Self {
        let members = view.members.scan().values().map(|member| (member.role.as_deref(), &member.attributes));
        let labelled = view.labels.scan().values().map(|labels| (labels.role.as_deref(), &labels.attributes));
        let mut held: BTreeMap<&str, BTreeSet<&Attributes>> = BTreeMap::new();
        for (role, attributes) in members.chain(labelled) {
            if let Some(role) = role {
                held.entry(role).or_default().insert(attributes);
            }
        }
        let names = on_record(view).iter().map(ToString::to_string).collect();
        Self { view, names, held, elsewhere: view.authorities.values().any(|authority| authority.imported) }
    }

    /// Why `principal` matches no principal that could ask, if so.
    fn never(&self, principal: &PrincipalPattern) -> Option<NeverWhy> {
        match principal {
            PrincipalPattern::Any => None,
            PrincipalPattern::Exact(name) => {
                let known = self.names.contains(&**name) || self.elsewhere && self.may_be_elsewhere(name);
                (!known).then_some(NeverWhy::NoSuchPrincipal)
            }
            PrincipalPattern::Prefix(prefix) => {
                let next = self.names.range::<str, _>((Bound::Included(&**prefix), Bound::Unbounded)).next();
                let elsewhere = self.elsewhere && ["client/", "broker/"].iter().any(|kind| prefix.starts_with(kind));
                let known = next.is_some_and(|name| name.starts_with(&**prefix)) || elsewhere;
                (!known).then_some(NeverWhy::NoSuchPrefix)
            }
            PrincipalPattern::Role(expr) => (!self.is_held(expr)).then_some(NeverWhy::NoHolder),
        }
    }

    /// As a handshake has it: admins and nodes are always on record, and who was revoked comes back by the record
    /// alone.
    fn may_be_elsewhere(&self, name: &str) -> bool {
        match Role::parse(name) {
            Ok(role @ (Role::Client(_) | Role::Broker(_))) => !self.view.revoked_principals.contains(&role),
            Ok(Role::Node(_) | Role::Admin(_)) | Err(_) => false,
        }
    }

    fn is_held(&self, expr: &RoleExpr) -> bool {
        self.held.get(expr.role()).is_some_and(|sets| sets.iter().any(|attributes| expr.is_met_by(attributes)))
    }
}

/// Every principal that the view names: members, and brokers, clients and admins with certificates or labels.
pub(super) fn on_record(view: &View) -> BTreeSet<Role> {
    let members = view.members.scan().keys().map(|id| Role::Node(*id));
    members.chain(view.principals.scan().keys().cloned()).chain(view.labels.scan().keys().cloned()).collect()
}
