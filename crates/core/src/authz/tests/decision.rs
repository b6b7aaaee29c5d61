//! `decide` agrees with a search through all rules, and has the properties without which a deny does not deny.

use core::slice::from_ref;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::cases::*;
use crate::authz::{
    Action, ActionSet, Effect, Kind, NamePattern, Policy, PrincipalPattern, Reason, Requirement, Rule, RuleId, Subject,
    decide,
};
use crate::id::Generation;
use crate::time::UnixMillis;

const GENERATION: Generation = Generation(7);

fn decided(case: &Case, asked: &Asked) -> (Effect, Reason) {
    let decision = decide(&case.policy(), GENERATION, &asked.question());
    assert_eq!(decision.generation, GENERATION);
    (decision.effect, decision.reason)
}

fn deny_all(id: &str, kind: Kind) -> Rule {
    Rule {
        id: RuleId::parse(id).unwrap(),
        effect: Effect::Deny,
        principal: PrincipalPattern::Any,
        actions: ActionSet::ALL,
        kind,
        pattern: NamePattern::Any,
        network: None,
        not_after: None,
    }
}

/// The case with one more rule, under an id that no other rule has.
fn with(case: &Case, rule: Rule) -> Case {
    let id = RuleId::parse("zzz").unwrap();
    Case { rules: case.rules.iter().cloned().chain([Rule { id, ..rule }]).collect(), ..case.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_decision_is_that_of_a_search_through_all_rules(case in case(), asked in prop::collection::vec(asked(), 1..8)) {
        for asked in asked {
            prop_assert_eq!(decided(&case, &asked), oracle(&case, &asked), "{:?}", asked);
        }
    }

    #[test]
    fn the_groups_of_a_subject_are_those_whose_pattern_is_about_it(case in case(), subject in subject()) {
        let policy = case.policy();
        let found: Vec<&PrincipalPattern> = policy.groups_of(&subject).map(|(pattern, _)| pattern).collect();
        let about = case.rules.iter().map(|rule| &rule.principal).filter(|pattern| is_about(pattern, &subject));
        let expected: BTreeSet<&PrincipalPattern> = about.collect();
        prop_assert_eq!(found.len(), expected.len(), "none twice");
        prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    }

    /// CVE-2021-36213: a deny took back another deny.
    #[test]
    fn one_more_deny_never_grants(case in case(), deny in rule(any_principal()), asked in asked()) {
        let deny = Rule { effect: Effect::Deny, ..deny };
        let (before, after) = (decided(&case, &asked).0, decided(&with(&case, deny.clone()), &asked).0);
        prop_assert!(before == Effect::Deny && after == Effect::Deny || before == Effect::Allow);
        if says(&deny, &asked) && !case.policy().is_super(&asked.subject) {
            prop_assert_eq!(after, Effect::Deny);
        }
    }

    #[test]
    fn one_allow_less_never_grants(case in case(), allow in rule(any_principal()), asked in asked()) {
        let more = with(&case, Rule { effect: Effect::Allow, ..allow });
        prop_assert!(decided(&more, &asked).0 == Effect::Allow || decided(&case, &asked).0 == Effect::Deny);
    }

    #[test]
    fn the_order_in_which_rules_are_put_in_is_irrelevant(case in case(), asked in asked(), by in any::<usize>()) {
        let mut rules = case.rules.clone();
        let by = by % rules.len().max(1);
        rules.rotate_left(by);
        rules.reverse();
        let other = Case { rules, ..case.clone() };
        prop_assert_eq!(other.policy(), case.policy());
        prop_assert_eq!(decided(&other, &asked), decided(&case, &asked));
    }

    #[test]
    fn of_two_rules_with_one_id_the_later_counts(rules in prop::collection::vec(rule(any_principal()), 0..14)) {
        let last: BTreeMap<RuleId, Rule> = rules.iter().map(|rule| (rule.id.clone(), rule.clone())).collect();
        let last = Policy::of([], last.into_values());
        let mut one_by_one = Policy::default();
        rules.iter().for_each(|rule| one_by_one.extend([Arc::new(rule.clone())]));
        prop_assert_eq!(one_by_one.weight(), last.weight());
        prop_assert_eq!(&one_by_one, &last);
        prop_assert_eq!(Policy::of([], rules), last);
    }

    #[test]
    fn a_rule_put_in_and_taken_out_leaves_no_trace(case in case(), rule in rule(any_principal())) {
        let id = RuleId::parse("zzz").unwrap();
        let mut policy = with(&case, rule).policy();
        policy.remove([&id]);
        policy.remove([&id]);
        prop_assert_eq!(policy.weight(), case.policy().weight());
        prop_assert_eq!(policy, case.policy());
    }

    #[test]
    fn only_a_super_user_passes_what_denies_everything(case in case(), asked in asked(), unevaluable in any::<bool>()) {
        let mut denied = with(&case, deny_all("zzz", asked.kind.clone()));
        if unevaluable {
            denied.unevaluable.insert(RuleId::parse("future").unwrap());
        }
        let is_super = case.super_users.iter().any(|pattern| is_about(pattern, &asked.subject));
        let fits = asked.name.len() <= crate::limits::RESOURCE_NAME_LEN_MAX;
        let (effect, reason) = decided(&denied, &asked);
        prop_assert_eq!(effect == Effect::Allow, is_super && fits);
        if !denied.unevaluable.is_empty() && !is_super && fits {
            prop_assert!(matches!(reason, Reason::Unevaluable(_)), "{:?}", reason);
        }
    }

    #[test]
    fn a_deny_that_has_expired_is_as_if_it_were_not_there(
        case in case(),
        deny in rule(any_principal()),
        asked in asked(),
        ago in 1..3_u64,
    ) {
        let at = |not_after| Rule { effect: Effect::Deny, not_after: Some(not_after), ..deny.clone() };
        let expired = with(&case, at(asked.now.minus_secs(ago)));
        prop_assert_eq!(decided(&expired, &asked), decided(&case, &asked));
        let last = at(UnixMillis::from_secs(asked.now.secs()));
        if says(&last, &asked) && !case.policy().is_super(&asked.subject) {
            prop_assert_eq!(decided(&with(&case, last), &asked).0, Effect::Deny, "in its last second it counts");
        }
    }

    #[test]
    fn from_nowhere_nothing_is_allowed_that_is_not_allowed_from_everywhere(case in case(), asked in asked()) {
        let nowhere = Asked { from: None, ..asked.clone() };
        prop_assert!(decided(&case, &asked).0 == Effect::Allow || decided(&case, &nowhere).0 == Effect::Deny);
    }
}

#[test]
fn only_holders_of_its_required_role_run_a_task() {
    let allow_all = Rule { effect: Effect::Allow, ..deny_all("r", Kind::TASK) };
    let subject = |roles: &[&str]| Subject {
        name: "node/1".to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..Subject::default()
    };
    let required = Requirement { task: "a".to_owned(), any_of: vec!["M".parse().unwrap(), "W".parse().unwrap()] };
    let effect = |rules: &[Rule], roles: &[&str], kind: Kind, name: &str| {
        let requirements = vec![required.clone()];
        let rules = rules.to_vec();
        let case = Case { super_users: BTreeSet::new(), requirements, unevaluable: BTreeSet::new(), rules };
        let (action, name) = (Action::Write, name.to_owned());
        decided(&case, &Asked { subject: subject(roles), action, kind, name, from: None, now: UnixMillis(0) }).0
    };
    assert_eq!(effect(&[], &["W"], Kind::TASK, "a"), Effect::Allow);
    assert_eq!(effect(&[], &[], Kind::TASK, "a"), Effect::Deny);
    assert_eq!(effect(from_ref(&allow_all), &[], Kind::TASK, "a"), Effect::Deny, "whatever rules allow");
    assert_eq!(effect(from_ref(&allow_all), &["W"], Kind::TASK, "a"), Effect::Allow);
    assert_eq!(effect(&[allow_all], &[], Kind::TASK, "b"), Effect::Allow, "another task");
    assert_eq!(effect(&[deny_all("r", Kind::TASK)], &["W"], Kind::TASK, "a"), Effect::Deny, "a deny wins");
    assert_eq!(effect(&[], &["W"], Kind::TOPIC, "a"), Effect::Deny, "no task");
}

/// The properties above say little about questions that all have one answer.
#[test]
fn random_questions_reach_every_kind_of_answer() {
    let mut runner = TestRunner::deterministic();
    let mut reached = BTreeSet::new();
    for _ in 0..4000 {
        let (case, asked) = (case(), asked()).new_tree(&mut runner).unwrap().current();
        let (effect, reason) = decided(&case, &asked);
        let reason = format!("{reason:?}");
        reached.insert(format!("{effect} {}", reason.split('(').next().unwrap()));
    }
    let all = ["SuperUser", "Rule", "Requirement"].map(|reason| format!("allow {reason}"));
    let none = ["Rule", "Requirement", "NoRule", "NameTooLong", "Unevaluable"].map(|reason| format!("deny {reason}"));
    assert_eq!(reached, all.into_iter().chain(none).collect());
}
