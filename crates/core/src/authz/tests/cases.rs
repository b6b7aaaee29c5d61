//! Small random policies and questions, and a search through all rules that shares no matching code with the engine.
//!
//! The alphabets are small, so that rules, subjects and names meet.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::authz::change::checked;
use crate::authz::{
    Action, ActionSet, Effect, Kind, NamePattern, Policy, PrincipalPattern, Question, Reason, Requirement, RoleExpr,
    Rule, RuleId, Subject,
};
use crate::limits::RESOURCE_NAME_LEN_MAX;
use crate::time::UnixMillis;

/// The parts that a policy is made of.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) super_users: BTreeSet<PrincipalPattern>,
    pub(super) requirements: Vec<Requirement>,
    pub(super) unevaluable: BTreeSet<RuleId>,
    /// In the order in which they are put in.
    pub(super) rules: Vec<Rule>,
}

impl Case {
    pub(super) fn policy(&self) -> Policy {
        let mut policy = Policy::of(self.super_users.clone(), self.rules.clone());
        policy.set_requirements(checked(&self.requirements).unwrap());
        policy.with_unevaluable(self.unevaluable.clone())
    }
}

/// A question that owns what it asks about.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) subject: Subject,
    pub(super) action: Action,
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) from: Option<IpAddr>,
    pub(super) now: UnixMillis,
}

impl Asked {
    pub(super) fn question(&self) -> Question<'_> {
        let Self { subject, action, kind, name, from, now } = self;
        Question { subject, action: *action, kind, name, from: *from, now: *now }
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    select(vec![Kind::TOPIC, Kind::TASK, Kind::TASK, Kind::parse("topics").unwrap()])
}

fn name_pattern() -> impl Strategy<Value = NamePattern> {
    prop_oneof![
        1 => Just(NamePattern::Any),
        2 => "[ab*é]{0,3}".prop_map(|text| NamePattern::Exact(text.into())),
        3 => "[ab*é]{1,3}".prop_map(|text| NamePattern::Prefix(text.into())),
    ]
}

fn expr() -> impl Strategy<Value = RoleExpr> {
    select(vec!["W", "W[g=1]", "W[g=1,z=2]", "W[z=2]", "M", "M[g=2]"]).prop_map(|text| text.parse().unwrap())
}

/// Also names that no principal has: a name is not a pattern, whatever it looks like.
pub(super) fn any_principal() -> impl Strategy<Value = PrincipalPattern> {
    let names = vec!["client/a", "client/ab", "client/é", "client/*", "*", "*a", "", "node/1", "clienta"];
    let prefixes = vec!["client/", "client/a", "client/é", "c", "*", "n", "client/*"];
    prop_oneof![
        1 => Just(PrincipalPattern::Any),
        3 => select(names).prop_map(|text| PrincipalPattern::Exact(text.into())),
        3 => select(prefixes).prop_map(|text| PrincipalPattern::Prefix(text.into())),
        2 => expr().prop_map(PrincipalPattern::Role),
    ]
}

/// Those that a stored rule can have.
pub(super) fn spelled_principal() -> impl Strategy<Value = PrincipalPattern> {
    let texts = vec![
        "*",
        "client/a",
        "client/ab",
        "client/*",
        "client/a*",
        "node/1",
        "node/*",
        "role:W",
        "role:W[g=1]",
        "role:M",
    ];
    select(texts).prop_map(|text| text.parse().unwrap())
}

fn actions() -> impl Strategy<Value = ActionSet> {
    prop_oneof![
        select(Action::ALL.to_vec()).prop_map(ActionSet::from),
        (1..=0x7f_u8).prop_map(|bits| ActionSet::try_from(bits).unwrap()),
    ]
}

fn network() -> impl Strategy<Value = Option<IpNet>> {
    let some = vec!["10.0.0.0/8", "10.0.0.1/32", "0.0.0.0/0", "::/0", "fd00::/8", "10.0.0.0/31"];
    prop_oneof![3 => Just(None), 2 => select(some).prop_map(|text| Some(text.parse().unwrap()))]
}

/// Whole seconds: finer ones have no text.
fn not_after() -> impl Strategy<Value = Option<UnixMillis>> {
    prop_oneof![4 => Just(None), 1 => select(vec![99, 100, 101]).prop_map(|secs| Some(UnixMillis::from_secs(secs)))]
}

pub(super) fn rule_id() -> impl Strategy<Value = RuleId> {
    "[abc]{1,2}".prop_map(|text| RuleId::parse(&text).unwrap())
}

pub(super) fn effect() -> impl Strategy<Value = Effect> {
    prop_oneof![3 => Just(Effect::Allow), 2 => Just(Effect::Deny)]
}

pub(super) fn rule(principal: impl Strategy<Value = PrincipalPattern>) -> impl Strategy<Value = Rule> {
    (rule_id(), effect(), principal, actions(), kind(), name_pattern(), network(), not_after()).prop_map(
        |(id, effect, principal, actions, kind, pattern, network, not_after)| Rule {
            id,
            effect,
            principal,
            actions,
            kind,
            pattern,
            network,
            not_after,
        },
    )
}

/// Rules with ids of their own, in any order.
pub(super) fn rules(principal: impl Strategy<Value = PrincipalPattern>) -> impl Strategy<Value = Vec<Rule>> {
    let unique = |rules: Vec<Rule>| {
        let mut seen = BTreeSet::new();
        rules.into_iter().filter(|rule| seen.insert(rule.id.clone())).collect()
    };
    vec(rule(principal), 0..14).prop_map(unique)
}

pub(super) fn requirements() -> impl Strategy<Value = Vec<Requirement>> {
    let by_task = btree_map(prop_oneof!["[ab]", "[ab]{2}"], vec(expr(), 1..3), 0..3);
    by_task.prop_map(|by_task: BTreeMap<String, Vec<RoleExpr>>| {
        by_task.into_iter().map(|(task, any_of)| Requirement { task, any_of }).collect()
    })
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    let super_users = prop_oneof![3 => Just(BTreeSet::new()), 1 => btree_set(any_principal(), 0..3)];
    let unevaluable = prop_oneof![9 => Just(BTreeSet::new()), 1 => btree_set(rule_id(), 1..3)];
    (super_users, requirements(), unevaluable, rules(any_principal())).prop_map(
        |(super_users, requirements, unevaluable, rules)| Case { super_users, requirements, unevaluable, rules },
    )
}

pub(super) fn subject() -> impl Strategy<Value = Subject> {
    let names = vec!["client/a", "client/ab", "client/abc", "client/é", "client/*", "*", "*a", "", "node/1", "clienta"];
    let attributes = subsequence(vec![("g", "1"), ("z", "2"), ("g", "2")], 0..=2);
    (select(names), subsequence(vec!["W", "M"], 0..=2), attributes).prop_map(|(name, roles, attributes)| Subject {
        name: name.to_owned(),
        roles: roles.into_iter().map(str::to_owned).collect(),
        attributes: attributes.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    })
}

pub(super) fn asked() -> impl Strategy<Value = Asked> {
    let from = vec![None, Some("10.0.0.1"), Some("::ffff:10.0.0.1"), Some("10.0.0.2"), Some("fd00::1"), Some("::1")];
    let name = prop_oneof![30 => "[ab*é]{0,4}", 20 => "[ab]", 1 => Just("a".repeat(RESOURCE_NAME_LEN_MAX + 1))];
    let now = select(vec![99_999, 100_000, 100_999, 101_000, 102_000]);
    (subject(), select(Action::ALL.to_vec()), kind(), name, select(from), now).prop_map(
        |(subject, action, kind, name, from, now)| Asked {
            subject,
            action,
            kind,
            name,
            from: from.map(|text| text.parse().unwrap()),
            now: UnixMillis(now),
        },
    )
}

/// Whether a pattern is about a subject, by bytes and texts.
pub(super) fn is_about(pattern: &PrincipalPattern, subject: &Subject) -> bool {
    let name = subject.name.as_bytes();
    match pattern {
        PrincipalPattern::Any => true,
        PrincipalPattern::Exact(text) => text.as_bytes() == name,
        PrincipalPattern::Prefix(text) => name.get(..text.len()) == Some(text.as_bytes()),
        PrincipalPattern::Role(expr) => {
            let text = expr.to_string();
            let (role, rest) = text.split_once('[').unwrap_or((&text, "]"));
            let wanted = rest.trim_end_matches(']').split(',').filter(|word| !word.is_empty());
            let has = |word: &str| subject.attributes.iter().any(|(name, value)| format!("{name}={value}") == word);
            subject.roles.iter().any(|held| held == role) && wanted.into_iter().all(has)
        }
    }
}

fn name_is_in(pattern: &NamePattern, name: &str) -> bool {
    match pattern {
        NamePattern::Any => true,
        NamePattern::Exact(text) => text.as_bytes() == name.as_bytes(),
        NamePattern::Prefix(text) => name.as_bytes().get(..text.len()) == Some(text.as_bytes()),
    }
}

/// Whether the address is in the network, bit by bit; none for an unknown address.
fn address_is_in(network: IpNet, from: Option<IpAddr>) -> Option<bool> {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (true, u128::from(u32::from(v4)) << 96),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => (true, u128::from(u32::from(v4)) << 96),
            None => (false, u128::from(v6)),
        },
    };
    let ((family, net), (of, address)) = (bits(network.addr()), bits(from?));
    let differs = (net ^ address).leading_zeros();
    Some(family == of && differs >= u32::from(network.prefix_len()))
}

/// Whether a rule says something of the question, with its conditions.
pub(super) fn says(rule: &Rule, asked: &Asked) -> bool {
    let implied = rule.effect == Effect::Allow
        && asked.action == Action::Describe
        && [Action::Read, Action::Write, Action::Delete, Action::Alter].iter().any(|a| rule.actions.contains(*a));
    let there = rule.network.is_none_or(|network| match address_is_in(network, asked.from) {
        Some(within) => within,
        None => rule.effect == Effect::Deny,
    });
    is_about(&rule.principal, &asked.subject)
        && rule.kind.as_str() == asked.kind.as_str()
        && name_is_in(&rule.pattern, &asked.name)
        && (rule.actions.contains(asked.action) || implied)
        && there
        && rule.not_after.is_none_or(|last| asked.now.0 / 1000 <= last.0 / 1000)
}

/// The decision, by a search through all rules.
pub(super) fn oracle(case: &Case, asked: &Asked) -> (Effect, Reason) {
    if asked.name.len() > RESOURCE_NAME_LEN_MAX {
        return (Effect::Deny, Reason::NameTooLong);
    }
    if case.super_users.iter().any(|pattern| is_about(pattern, &asked.subject)) {
        return (Effect::Allow, Reason::SuperUser);
    }
    if let Some(id) = case.unevaluable.iter().min() {
        return (Effect::Deny, Reason::Unevaluable(id.clone()));
    }
    let first = |effect| {
        let that_say_so = case.rules.iter().filter(|rule| rule.effect == effect && says(rule, asked));
        that_say_so.map(|rule| rule.id.clone()).min_by(|a, b| a.as_str().cmp(b.as_str()))
    };
    if let Some(id) = first(Effect::Deny) {
        return (Effect::Deny, Reason::Rule(id));
    }
    let mut required = case.requirements.iter().filter(|r| asked.kind.as_str() == "task" && r.task == asked.name);
    let is_met = required.next().map(|requirement| {
        let mut any_of = requirement.any_of.iter();
        any_of.any(|expr| is_about(&PrincipalPattern::Role(expr.clone()), &asked.subject))
    });
    match (is_met, first(Effect::Allow)) {
        (Some(false), _) => (Effect::Deny, Reason::Requirement(asked.name.clone())),
        (_, Some(id)) => (Effect::Allow, Reason::Rule(id)),
        (Some(true), None) => (Effect::Allow, Reason::Requirement(asked.name.clone())),
        (None, None) => (Effect::Deny, Reason::NoRule),
    }
}
