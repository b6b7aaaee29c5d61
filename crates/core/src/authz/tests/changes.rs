//! Changes of policies: all or nothing, and the same as making the result from scratch.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::cases::*;
use crate::authz::change::{Changed, PolicyChange, PolicyError, PolicyLimit, Sizes, StagedRules, checked};
use crate::authz::{Policy, PrincipalPattern, Requirement, Rule, RuleId};
use crate::id::Generation;
use crate::limits::{
    POLICY_WEIGHT_MAX, REQUIREMENTS_MAX, RESOURCE_NAME_LEN_MAX, ROLE_PATTERNS_MAX, RULES_MAX, SUPER_USERS_MAX,
};

fn policy(rules: &[Rule], requirements: &[Requirement]) -> Policy {
    let mut policy = Policy::of([], rules.to_vec());
    policy.set_requirements(checked(requirements).unwrap());
    policy
}

fn change() -> impl Strategy<Value = PolicyChange> {
    let super_users = prop::option::weighted(0.2, prop::collection::btree_set(spelled_principal(), 0..3));
    let requirements = prop::option::weighted(0.2, requirements());
    let remove = prop::collection::vec(rule_id(), 0..3);
    (remove, rules(spelled_principal()), super_users, requirements, 0..3_u64).prop_map(
        |(remove, put, super_users, requirements, seen)| PolicyChange {
            if_generation: (seen > 0).then_some(Generation(seen * 4)),
            staged: None,
            remove,
            put: put.into_iter().take(4).collect(),
            super_users,
            requirements,
        },
    )
}

/// The rules after the change in a plain map, if it is carried out.
fn by_hand(before: &[Rule], change: &PolicyChange) -> Option<BTreeMap<RuleId, Rule>> {
    let mut rules: BTreeMap<RuleId, Rule> = before.iter().map(|rule| (rule.id.clone(), rule.clone())).collect();
    for id in &change.remove {
        rules.remove(id)?;
    }
    for rule in &change.put {
        let known = rules.insert(rule.id.clone(), rule.clone());
        if known.is_some_and(|known| known != *rule) {
            return None;
        }
    }
    Some(rules)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_changed_policy_is_the_one_made_from_scratch(
        before in rules(spelled_principal()),
        required in requirements(),
        change in change(),
        more in 0..4_usize,
    ) {
        let mut old = policy(&before, &required);
        old.set_changed(Generation(5));
        // Some changes name rules that exist.
        let mut change = change;
        change.remove.extend(before.iter().take(more).map(|rule| rule.id.clone()));
        change.remove.dedup();
        change.put.extend(before.iter().skip(1).step_by(2).take(more).cloned());
        let after = old.changed_by(&change, StagedRules::NONE, Generation(9));
        let wanted = by_hand(&before, &change);
        let everybody = change.super_users.as_ref().is_some_and(|s| s.contains(&PrincipalPattern::Any));
        let overtaken = change.if_generation.is_some_and(|seen| seen < Generation(5));
        let Some(wanted) = wanted.filter(|_| !everybody && !overtaken) else {
            prop_assert!(after.is_err(), "{:?}", after);
            return Ok(());
        };
        let requirements = change.requirements.clone().unwrap_or(required);
        let mut expected = policy(&wanted.values().cloned().collect::<Vec<_>>(), &requirements);
        expected.set_super_users(change.super_users.clone().unwrap_or_default());
        expected.set_changed(Generation(9));
        match after.unwrap() {
            Some((after, _)) => {
                prop_assert_eq!(after.weight(), expected.weight());
                prop_assert_eq!(after, expected);
            }
            None => {
                expected.set_changed(Generation(5));
                prop_assert_eq!(old, expected);
            }
        }
    }

    #[test]
    fn a_change_counts_what_became_different(before in rules(spelled_principal()), change in change()) {
        let Some(wanted) = by_hand(&before, &change) else { return Ok(()) };
        let change = PolicyChange { if_generation: None, super_users: None, requirements: None, ..change };
        let had = |rule: &Rule| before.contains(rule);
        let gone = before.iter().filter(|rule| !wanted.contains_key(&rule.id)).count() as u64;
        let expected = Changed { put: wanted.values().filter(|rule| !had(rule)).count() as u64, removed: gone };
        let got = policy(&before, &[]).changed_by(&change, StagedRules::NONE, Generation(1)).unwrap();
        prop_assert_eq!(got.map_or(Changed::default(), |(_, changed)| changed), expected);
    }

    #[test]
    fn staged_rules_are_taken_out_and_put_in_with_the_others(
        before in rules(spelled_principal()),
        put in rules(spelled_principal()),
        (removals, at, unknown) in (0..9_usize, 0..9_usize, prop::option::weighted(0.2, rule_id())),
    ) {
        let old = policy(&before, &[]);
        let remove: Vec<RuleId> = before.iter().take(removals).map(|rule| rule.id.clone()).chain(unknown).collect();
        let (gone, more) = remove.split_at(at.min(remove.len()));
        let (staged, rest) = put.split_at(at.min(put.len()));
        let whole = PolicyChange { remove: remove.clone(), put: put.clone(), ..PolicyChange::default() };
        let whole = old.changed_by(&whole, StagedRules::NONE, Generation(1));
        let staged = StagedRules { remove: gone.to_vec(), put: staged.to_vec() };
        let change = PolicyChange { remove: more.to_vec(), put: rest.to_vec(), ..PolicyChange::default() };
        prop_assert_eq!(whole, old.changed_by(&change, &staged, Generation(1)));
    }

    #[test]
    fn a_plan_makes_the_wanted_policy_and_a_second_plan_is_empty(
        before in (rules(spelled_principal()), requirements()),
        wanted in (rules(spelled_principal()), requirements()),
        common in 0..5_usize,
        super_user in any::<bool>(),
    ) {
        let old = policy(&before.0, &before.1);
        let some = before.0.iter().take(common).cloned();
        let mut rules: BTreeMap<RuleId, Rule> = wanted.0.iter().map(|rule| (rule.id.clone(), rule.clone())).collect();
        rules.extend(some.map(|rule| (rule.id.clone(), rule)));
        let mut wanted = policy(&rules.into_values().collect::<Vec<_>>(), &wanted.1);
        if super_user {
            wanted.set_super_users(BTreeSet::from(["admin/*".parse().unwrap()]));
        }
        let plan = old.plan(&wanted);
        let unchanged = |rule: &Rule| before.0.contains(rule) && wanted.rule(&rule.id).is_some_and(|w| **w == *rule);
        prop_assert!(!plan.put.iter().any(unchanged), "equal rules are left alone");
        prop_assert!(before.0.iter().filter(|r| unchanged(r)).all(|rule| !plan.remove.contains(&rule.id)));
        let after = match old.changed_by(&plan, StagedRules::NONE, Generation(3)).unwrap() {
            Some((after, _)) => after,
            None => old.clone(),
        };
        wanted.set_changed(after.changed());
        prop_assert_eq!(&after, &wanted);
        prop_assert_eq!(after.plan(&wanted), PolicyChange::default());
        prop_assert_eq!(after.changed_by(&after.plan(&wanted), StagedRules::NONE, Generation(4)), Ok(None));
    }
}

/// Such as a list of networks. One at a time, each rule would copy all before it: a billion copies.
#[test]
fn many_rules_about_the_same_come_and_go_together() {
    let from = |n: u32| Rule {
        id: RuleId::parse(&format!("r{n}")).unwrap(),
        effect: crate::authz::Effect::Deny,
        principal: PrincipalPattern::Any,
        actions: crate::authz::ActionSet::ALL,
        kind: crate::authz::Kind::TOPIC,
        pattern: crate::authz::NamePattern::Any,
        network: Some(core::net::IpAddr::from(n.to_be_bytes()).into()),
        not_after: None,
    };
    let rules: Vec<Rule> = (0..50_000).map(from).collect();
    let (before, none) = (Policy::default(), PolicyChange::default());
    let put = PolicyChange { put: rules.clone(), ..none.clone() };
    let (full, changed) = before.changed_by(&put, StagedRules::NONE, Generation(1)).unwrap().unwrap();
    assert_eq!((full.len(), changed.put), (50_000, 50_000));
    let remove = PolicyChange { remove: rules.into_iter().map(|rule| rule.id).collect(), ..none };
    let (empty, changed) = full.changed_by(&remove, StagedRules::NONE, Generation(2)).unwrap().unwrap();
    assert_eq!((empty.len(), empty.groups().count(), changed.removed), (0, 0, 50_000));
}

#[test]
fn super_users_or_requirements_alone_are_a_change() {
    let old = Policy::initial();
    let super_users = Some(BTreeSet::from(["admin/root".parse().unwrap()]));
    let requirements = Some(vec![Requirement { task: "t".to_owned(), any_of: vec!["W".parse().unwrap()] }]);
    let nothing = PolicyChange::default();
    for change in [
        PolicyChange { super_users, ..nothing.clone() },
        PolicyChange { requirements, ..nothing.clone() },
        PolicyChange { super_users: Some(BTreeSet::new()), ..nothing.clone() },
    ] {
        let (after, changed) = old.changed_by(&change, StagedRules::NONE, Generation(3)).unwrap().unwrap();
        assert_eq!((changed, after.changed()), (Changed::default(), Generation(3)));
        assert_eq!(after.changed_by(&change, StagedRules::NONE, Generation(4)), Ok(None), "again");
    }
    assert_eq!(old.changed_by(&nothing, StagedRules::NONE, Generation(3)), Ok(None));
}

#[test]
fn each_size_of_a_policy_has_a_limit() {
    let limit = |what, max: usize| Err(PolicyError::Limit { what, max: max as u64 });
    type Set = fn(usize) -> Sizes;
    let cases: [(PolicyLimit, usize, Set); 5] = [
        (PolicyLimit::Rules, RULES_MAX, |rules| Sizes { rules, ..Sizes::default() }),
        (PolicyLimit::Weight, POLICY_WEIGHT_MAX, |weight| Sizes { weight, ..Sizes::default() }),
        (PolicyLimit::RolePatterns, ROLE_PATTERNS_MAX, |role_patterns| Sizes { role_patterns, ..Sizes::default() }),
        (PolicyLimit::SuperUsers, SUPER_USERS_MAX, |super_users| Sizes { super_users, ..Sizes::default() }),
        (PolicyLimit::Requirements, REQUIREMENTS_MAX, |requirements| Sizes { requirements, ..Sizes::default() }),
    ];
    for (what, max, sizes) in cases {
        assert_eq!(sizes(max).check(), Ok(()), "{what}");
        assert_eq!(sizes(max + 1).check(), limit(what, max), "{what}");
    }
}

proptest! {
    #[test]
    fn sizes_are_those_of_what_is_there(case in case()) {
        let principals: BTreeSet<_> = case.rules.iter().map(|rule| &rule.principal).collect();
        let roles = principals.into_iter().filter(|p| matches!(p, PrincipalPattern::Role(_))).count();
        let expected = Sizes {
            rules: case.rules.len(),
            weight: case.rules.iter().map(Rule::weight).sum(),
            role_patterns: roles,
            super_users: case.super_users.len(),
            requirements: case.requirements.len(),
        };
        prop_assert_eq!(case.policy().sizes(), expected);
    }
}

#[test]
fn requirements_that_cannot_count_are_refused() {
    let required = |task: &str, n: usize| Requirement {
        task: task.to_owned(),
        any_of: (0..n).map(|i| format!("R{i}").parse().unwrap()).collect(),
    };
    let long = "t".repeat(RESOURCE_NAME_LEN_MAX);
    assert!(checked(&[required(&long, REQUIREMENTS_MAX), required("t", 1)]).is_ok());
    let refused = |requirement: Requirement| checked(&[requirement]).unwrap_err();
    assert_eq!(refused(required("", 1)), PolicyError::Requirement(String::new()));
    assert_eq!(refused(required("t", 0)), PolicyError::Requirement("t".to_owned()));
    assert!(matches!(refused(required(&format!("{long}t"), 1)), PolicyError::Requirement(_)));
    let limit = PolicyError::Limit { what: PolicyLimit::Requirements, max: REQUIREMENTS_MAX as u64 };
    assert_eq!(refused(required("t", REQUIREMENTS_MAX + 1)), limit);
    assert_eq!(checked(&[required("t", 1), required("t", 2)]), Err(PolicyError::Requirement("t".to_owned())));
    let many = |n: usize| (0..n).map(|i| required(&format!("t{i}"), 1)).collect::<Vec<_>>();
    assert!(checked(&many(REQUIREMENTS_MAX)).is_ok());
    assert_eq!(checked(&many(REQUIREMENTS_MAX + 1)), Err(limit));
}

#[test]
fn a_text_that_means_another_principal_makes_no_super_user() {
    let refused = |pattern: PrincipalPattern| {
        let super_users = Some(BTreeSet::from([pattern]));
        Policy::initial().changed_by(
            &PolicyChange { super_users, ..PolicyChange::default() },
            StagedRules::NONE,
            Generation(1),
        )
    };
    assert_eq!(refused(PrincipalPattern::Any), Err(PolicyError::EverybodySuper));
    for pattern in [
        PrincipalPattern::Prefix("".into()),
        PrincipalPattern::Prefix("c".into()),
        PrincipalPattern::Exact("*".into()),
        PrincipalPattern::Exact("client/*".into()),
        PrincipalPattern::Exact("".into()),
    ] {
        assert!(matches!(refused(pattern.clone()), Err(PolicyError::SuperUser(_))), "{pattern:?}");
    }
    assert!(refused("client/*".parse().unwrap()).is_ok());
}
