//! Rules, roles and attributes in the state. That a refusal changes nothing but the time, the rig looks after.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::rig::*;
use crate::authz::change::{ChangeId, Changed, PolicyChange, PolicyError, PolicyLimit, StagedParts};
use crate::authz::text::RuleText;
use crate::authz::{Effect, Requirement, Rule, RuleId};
use crate::id::{Generation, ed25519_spki};
use crate::limits::{
    POLICY_WEIGHT_MAX, REQUIREMENTS_MAX, RESOURCE_NAME_LEN_MAX, ROLE_PATTERNS_MAX, RULES_MAX, STAGED_CHANGES_MAX,
    STAGED_SECS_MAX, SUPER_USERS_MAX,
};
use crate::principal::Role;
use crate::trust::command::{Bootstrap, Command, IssuePrincipal, StagePolicy};
use crate::trust::outcome::{Outcome, Refused};

fn rule(id: &str, principal: &str, effect: Effect) -> Rule {
    RuleText {
        id: Some(id.to_owned()),
        effect: Some(effect),
        principal: principal.to_owned(),
        actions: vec!["read".to_owned()],
        resource_any: Some("topic".to_owned()),
        ..RuleText::default()
    }
    .rule()
    .unwrap()
}

fn allow(id: &str) -> Rule {
    rule(id, "client/pay", Effect::Allow)
}

fn id(text: &str) -> RuleId {
    RuleId::parse(text).unwrap()
}

fn change(change: PolicyChange) -> Command {
    Command::ChangePolicy(Box::new(change))
}

fn put(rules: impl Into<Vec<Rule>>) -> PolicyChange {
    PolicyChange { put: rules.into(), ..PolicyChange::default() }
}

fn stage(change: u8, part: u32, rules: impl Into<Vec<Rule>>) -> Command {
    stage_both(change, part, [], rules)
}

fn stage_both(change: u8, part: u32, remove: impl Into<Vec<RuleId>>, rules: impl Into<Vec<Rule>>) -> Command {
    Command::StagePolicy(StagePolicy { change: ChangeId([change; 16]), part, remove: remove.into(), put: rules.into() })
}

fn sent(of: u8, parts: u32) -> PolicyChange {
    let staged = StagedParts { change: ChangeId([of; 16]), parts };
    PolicyChange { staged: Some(staged), ..PolicyChange::default() }
}

fn staged(of: u8, parts: u32) -> Command {
    change(sent(of, parts))
}

fn generation(rig: &Rig) -> Generation {
    rig.0.view().unwrap().generation
}

fn ids(rig: &Rig) -> Vec<String> {
    rig.0.view().unwrap().policy.rules().map(|rule| rule.id.to_string()).collect()
}

#[track_caller]
fn changed(rig: &Rig, outcome: &Outcome, put: u64, removed: u64) {
    assert_eq!(*outcome, Outcome::Policy { generation: generation(rig), changed: Changed { put, removed } });
}

fn beyond(what: PolicyLimit, max: usize) -> Refused {
    PolicyError::Limit { what, max: max as u64 }.into()
}

#[test]
fn a_new_cluster_allows_admins_everything_and_others_nothing() {
    let rig = Rig::founded();
    let policy = &rig.0.view().unwrap().policy;
    assert_eq!(*policy.super_users(), BTreeSet::from(["admin/*".parse().unwrap()]));
    assert!(policy.is_empty() && policy.changed() == Generation(0));
}

#[test]
fn a_deny_and_an_allow_of_one_change_come_with_one_generation() {
    let mut rig = Rig::founded();
    rig.apply(change(put([allow("old")])));
    let before = generation(&rig);
    let outcome = rig.apply(change(PolicyChange {
        remove: vec![id("old")],
        put: vec![allow("new"), rule("no", "client/pay", Effect::Deny)],
        ..PolicyChange::default()
    }));
    changed(&rig, &outcome, 2, 1);
    assert_eq!((generation(&rig), ids(&rig)), (Generation(before.0 + 1), vec!["new".to_owned(), "no".to_owned()]));
    assert_eq!(rig.0.view().unwrap().policy.changed(), generation(&rig));
}

#[test]
fn one_part_of_a_change_that_cannot_be_carried_out_keeps_all_of_it_out() {
    let mut rig = Rig::founded();
    rig.apply(change(put([allow("old")])));
    let good = PolicyChange { remove: vec![id("old")], ..put([allow("new")]) };
    let bad_rule = Rule { actions: Default::default(), ..allow("bad") };
    let no_capability = Requirement { task: String::new(), any_of: vec!["W".parse().unwrap()] };
    for (why, bad) in [
        (PolicyError::NoSuchRule(id("none")), PolicyChange { remove: vec![id("old"), id("none")], ..good.clone() }),
        (PolicyError::NoSuchRule(id("old")), PolicyChange { remove: vec![id("old"), id("old")], ..good.clone() }),
        (PolicyError::RuleExists(id("old")), put([allow("new"), rule("old", "*", Effect::Allow)])),
        (PolicyError::RuleExists(id("new")), put([allow("new"), rule("new", "*", Effect::Allow)])),
        (
            PolicyError::Rule { id: id("bad"), why: bad_rule.check().unwrap_err() },
            PolicyChange { put: vec![allow("new"), bad_rule], ..good.clone() },
        ),
        (
            PolicyError::EverybodySuper,
            PolicyChange { super_users: Some(["*".parse().unwrap()].into()), ..good.clone() },
        ),
        (
            PolicyError::Requirement(String::new()),
            PolicyChange { requirements: Some(vec![no_capability]), ..good.clone() },
        ),
        (PolicyError::PartsMissing, PolicyChange { staged: sent(9, 1).staged, ..good.clone() }),
    ] {
        assert_eq!(rig.refused(change(bad)), why.into());
    }
    let outcome = rig.apply(change(good));
    changed(&rig, &outcome, 1, 1);
}

#[test]
fn a_change_that_changes_nothing_makes_no_generation() {
    let mut rig = Rig::founded();
    let whole = PolicyChange { super_users: Some(["admin/root".parse().unwrap()].into()), ..put([allow("a")]) };
    let outcome = rig.apply(change(whole.clone()));
    changed(&rig, &outcome, 1, 0);
    let view = Arc::clone(rig.0.view().unwrap());
    let again = rig.apply(change(whole));
    changed(&rig, &again, 0, 0);
    let replaced = rig.apply(change(PolicyChange { remove: vec![id("a")], ..put([allow("a")]) }));
    changed(&rig, &replaced, 0, 0);
    assert!(Arc::ptr_eq(rig.0.view().unwrap(), &view));
}

#[test]
fn a_change_made_for_an_older_policy_is_refused_and_one_made_for_an_older_view_is_not() {
    let mut rig = Rig::founded();
    rig.apply(change(put([allow("a")])));
    let seen = generation(&rig);
    let after = |seen, rule| change(PolicyChange { if_generation: Some(seen), ..put([rule]) });
    rig.apply(issue("pay"));
    assert!(generation(&rig) > seen, "something else changed");
    assert!(matches!(rig.apply(after(seen, allow("b"))), Outcome::Policy { .. }));
    let changed = generation(&rig);
    let overtaken = PolicyError::Changed { changed, expected: seen };
    assert_eq!(rig.refused(after(seen, allow("c"))), overtaken.into());
    let just_before = Generation(changed.0 - 1);
    assert!(matches!(rig.refused(after(just_before, allow("c"))), Refused::Policy(PolicyError::Changed { .. })));
    assert!(matches!(rig.apply(after(changed, allow("c"))), Outcome::Policy { .. }));
}

#[test]
fn parts_are_put_in_with_their_change_and_not_before() {
    let mut rig = Rig::founded();
    let before = generation(&rig);
    assert_eq!(rig.apply(stage(1, 0, [allow("a"), allow("b")])), Outcome::Staged);
    assert_eq!(rig.apply(stage(1, 1, [allow("c")])), Outcome::Staged);
    // Sent twice, kept once, whatever is in it.
    assert_eq!(rig.apply(stage(1, 0, [allow("a"), allow("b")])), Outcome::Staged);
    assert_eq!(rig.apply(stage(1, 1, [rule("c", "*", Effect::Deny)])), Outcome::Staged);
    assert_eq!((generation(&rig), ids(&rig).len()), (before, 0));
    let whole = PolicyChange { staged: sent(1, 2).staged, ..put([allow("d")]) };
    let outcome = rig.apply(change(whole));
    changed(&rig, &outcome, 4, 0);
    assert_eq!(
        (generation(&rig), ids(&rig)),
        (Generation(before.0 + 1), ["a", "b", "c", "d"].map(str::to_owned).into())
    );
    assert_eq!(rig.refused(staged(1, 2)), PolicyError::PartsMissing.into(), "they are used up");
}

#[test]
fn a_part_out_of_order_is_refused_and_so_is_one_that_cannot_count() {
    let mut rig = Rig::founded();
    let missing: Refused = PolicyError::PartsMissing.into();
    assert_eq!(rig.refused(stage(1, 1, [allow("b")])), missing);
    rig.apply(stage(1, 0, [allow("a")]));
    assert_eq!(rig.refused(stage(1, 2, [allow("c")])), missing);
    assert_eq!(rig.refused(stage(2, 1, [allow("b")])), missing, "the part of another");
    let bad = Rule { actions: Default::default(), ..allow("bad") };
    assert!(matches!(rig.refused(stage(1, 1, [allow("b"), bad])), Refused::Policy(PolicyError::Rule { .. })));
    assert_eq!(rig.refused(staged(2, 1)), missing);
    rig.apply(stage(1, 1, [rule("a", "*", Effect::Deny)]));
    assert_eq!(
        rig.refused(staged(1, 2)),
        PolicyError::RuleExists(id("a")).into(),
        "two parts that contradict each other"
    );
}

#[test]
fn parts_take_rules_out_before_any_is_put_in() {
    let mut rig = Rig::founded();
    rig.apply(change(put(["a", "b", "c", "d"].map(allow))));
    let before = generation(&rig);
    // Put in by an earlier part than the one that takes out what has its id.
    rig.apply(stage_both(1, 0, [id("a")], [rule("b", "*", Effect::Deny)]));
    rig.apply(stage_both(1, 1, [id("b")], [rule("c", "*", Effect::Deny)]));
    assert_eq!(generation(&rig), before);
    let outcome = rig.apply(change(PolicyChange { remove: vec![id("c")], ..sent(1, 2) }));
    changed(&rig, &outcome, 2, 1);
    assert_eq!((generation(&rig).0, ids(&rig)), (before.0 + 1, ["b", "c", "d"].map(str::to_owned).into()));
    assert_eq!(rig.0.view().unwrap().policy.rule(&id("b")).unwrap().effect, Effect::Deny);
}

#[test]
fn a_part_that_takes_out_what_is_not_there_or_twice_keeps_all_of_the_change_out() {
    let mut rig = Rig::founded();
    rig.apply(change(put([allow("a"), allow("b")])));
    let none = |of: &str| PolicyError::NoSuchRule(id(of)).into();
    rig.apply(stage_both(1, 0, [id("a"), id("none")], []));
    assert_eq!(rig.refused(staged(1, 1)), none("none"));
    rig.apply(stage_both(2, 0, [id("a")], []));
    rig.apply(stage_both(2, 1, [id("a")], []));
    assert_eq!(rig.refused(staged(2, 2)), none("a"), "by two parts");
    rig.apply(stage_both(3, 0, [id("a")], []));
    let twice = PolicyChange { remove: vec![id("a")], ..sent(3, 1) };
    assert_eq!(rig.refused(change(twice)), none("a"), "by a part and by the change");
    let outcome = rig.apply(staged(3, 1));
    changed(&rig, &outcome, 0, 1);
}

#[test]
fn a_change_counts_its_parts_and_is_refused_without_the_last() {
    let mut rig = Rig::founded();
    let missing: Refused = PolicyError::PartsMissing.into();
    rig.apply(stage(1, 0, [rule("no", "*", Effect::Allow)]));
    for parts in [0, 2, u32::MAX] {
        assert_eq!(rig.refused(staged(1, parts)), missing, "{parts}");
    }
    rig.apply(stage(1, 1, [rule("deny", "*", Effect::Deny)]));
    for parts in [0, 1, 3] {
        assert_eq!(rig.refused(staged(1, parts)), missing, "{parts}");
    }
    // None was sent, and none is spoken of: that is not the same as a change without parts.
    assert_eq!(rig.refused(staged(2, 0)), missing);
    let outcome = rig.apply(staged(1, 2));
    changed(&rig, &outcome, 2, 0);
}

#[test]
fn a_change_that_others_overtook_is_forgotten_whole() {
    let mut rig = Rig::founded();
    let later = |n: u8| NOW.plus_secs(n.into());
    for n in 1..=STAGED_CHANGES_MAX as u8 {
        rig.apply_at(later(n), stage(n, 0, [allow("a")]));
    }
    // At the limit each is there, and one that goes on takes no other's place.
    rig.apply_at(later(9), stage(2, 1, [allow("b")]));
    assert_eq!(rig.apply_at(later(9), stage(1, 1, [allow("b")])), Outcome::Staged);
    // One more, and the one that has waited longest is gone.
    rig.apply_at(later(10), stage(100, 0, [allow("a")]));
    let missing: Refused = PolicyError::PartsMissing.into();
    assert_eq!(rig.refused_at(later(10), staged(3, 1)), missing);
    assert_eq!(rig.refused_at(later(10), stage(3, 1, [allow("b")])), missing, "half of it is gone");
    for (n, parts) in [(1, 2), (2, 2), (4, 1), (100, 1)] {
        assert!(matches!(rig.apply_at(later(10), staged(n, parts)), Outcome::Policy { .. }), "{n}");
    }
}

#[test]
fn a_part_waits_for_the_next_for_a_bounded_time() {
    for (secs, kept) in [(STAGED_SECS_MAX, true), (STAGED_SECS_MAX + 1, false)] {
        let mut rig = Rig::founded();
        rig.apply(stage(1, 0, [allow("a")]));
        rig.apply_at(NOW.plus_secs(secs), stage(2, 0, [allow("b")]));
        let outcome = rig.apply_at(NOW.plus_secs(secs), staged(1, 1));
        assert_eq!(matches!(outcome, Outcome::Policy { .. }), kept, "{secs}: {outcome:?}");
    }
}

/// Rules that weigh exactly so much together.
fn weighing(weight: usize) -> Vec<Rule> {
    let named = |n: usize, len: usize| {
        let name = "x".repeat(len);
        RuleText { resource_any: None, topic: Some(name), ..RuleText::of(&allow(&format!("{n:06}"))) }.rule().unwrap()
    };
    let fixed = named(0, 0).weight();
    let each = fixed + RESOURCE_NAME_LEN_MAX;
    let whole = weight / each - 1;
    let rest = weight - whole * each;
    let (half, other) = (rest / 2, rest - rest / 2);
    let lens = std::iter::repeat_n(RESOURCE_NAME_LEN_MAX, whole).chain([half - fixed, other - fixed]);
    let rules: Vec<Rule> = lens.enumerate().map(|(n, len)| named(n, len)).collect();
    assert_eq!(rules.iter().map(Rule::weight).sum::<usize>(), weight);
    rules
}

#[test]
fn parts_have_a_bounded_weight_and_the_oldest_change_makes_room() {
    let mut rig = Rig::founded();
    rig.apply(stage(1, 0, [allow("a")]));
    let small = allow("a").weight();
    let beyond = beyond(PolicyLimit::Staged, POLICY_WEIGHT_MAX);
    let half = weighing(POLICY_WEIGHT_MAX - 2 * small);
    assert_eq!(rig.apply_at(NOW.plus_secs(1), stage(2, 0, half)), Outcome::Staged);
    // At the limit with that of the other change.
    assert_eq!(rig.apply_at(NOW.plus_secs(1), stage(2, 1, [allow("a")])), Outcome::Staged);
    assert!(matches!(rig.apply_at(NOW.plus_secs(1), staged(1, 1)), Outcome::Policy { .. }));
    rig.apply_at(NOW.plus_secs(2), stage(2, 2, [allow("b")]));
    assert_eq!(rig.refused_at(NOW.plus_secs(2), stage(2, 3, [allow("c")])), beyond);
    // The first stays as long as there is room for it.
    rig.apply_at(NOW.plus_secs(3), stage(3, 0, [allow("c")]));
    assert_eq!(rig.refused_at(NOW.plus_secs(3), staged(2, 3)), PolicyError::PartsMissing.into());
    assert!(matches!(rig.apply_at(NOW.plus_secs(3), staged(3, 1)), Outcome::Policy { .. }));
}

#[test]
fn removals_weigh_as_well() {
    let mut rig = Rig::founded();
    let removals = |n: usize| vec![id(&"r".repeat(62)); n];
    let each = 62 + 2;
    let (whole, rest) = (POLICY_WEIGHT_MAX / each, POLICY_WEIGHT_MAX % each);
    assert_eq!(rest, 0);
    assert_eq!(rig.apply(stage_both(1, 0, removals(whole), [])), Outcome::Staged);
    assert_eq!(rig.refused(stage_both(1, 1, [id("a")], [])), beyond(PolicyLimit::Staged, POLICY_WEIGHT_MAX));
    assert_eq!(rig.refused(stage(1, 1, [allow("a")])), beyond(PolicyLimit::Staged, POLICY_WEIGHT_MAX));
    // In their place, one byte less: there is room for one of no more than that.
    assert_eq!(rig.apply(stage_both(2, 0, removals(whole - 1), [])), Outcome::Staged);
    let last = |len: usize| stage_both(2, 1, [id(&"r".repeat(len))], []);
    assert_eq!(rig.refused(last(63)), beyond(PolicyLimit::Staged, POLICY_WEIGHT_MAX));
    assert_eq!(rig.apply(last(62)), Outcome::Staged);
}

#[test]
fn parts_have_a_bounded_number_of_removals_and_of_rules() {
    let mut rig = Rig::founded();
    let beyond = beyond(PolicyLimit::Rules, RULES_MAX);
    assert_eq!(rig.refused(stage_both(1, 0, vec![id("a"); RULES_MAX + 1], [])), beyond);
    assert_eq!(rig.apply(stage_both(1, 0, vec![id("a"); RULES_MAX], [])), Outcome::Staged);
    assert_eq!(rig.refused(stage_both(1, 1, [id("b")], [])), beyond);
    // Rules are counted for themselves.
    assert_eq!(rig.apply(stage(1, 1, [allow("b")])), Outcome::Staged);
    assert_eq!(rig.refused(stage(2, 0, vec![allow("a"); RULES_MAX + 1])), beyond);
}

#[test]
fn a_policy_has_limits() {
    let roles =
        |n: usize| (0..n).map(|n| rule(&format!("r{n}"), &format!("role:R{n}"), Effect::Allow)).collect::<Vec<_>>();
    let super_users = |n: usize| PolicyChange {
        super_users: Some((0..n).map(|n| format!("admin/a{n}").parse().unwrap()).collect()),
        ..PolicyChange::default()
    };
    let requirements = |n: usize| PolicyChange {
        requirements: Some(
            (0..n).map(|n| Requirement { task: format!("t{n}"), any_of: vec!["W".parse().unwrap()] }).collect(),
        ),
        ..PolicyChange::default()
    };
    type Make<'a> = &'a dyn Fn(usize) -> PolicyChange;
    let with_roles = |n| put(roles(n));
    let cases: [(PolicyLimit, usize, Make<'_>); 3] = [
        (PolicyLimit::RolePatterns, ROLE_PATTERNS_MAX, &with_roles),
        (PolicyLimit::SuperUsers, SUPER_USERS_MAX, &super_users),
        (PolicyLimit::Requirements, REQUIREMENTS_MAX, &requirements),
    ];
    for (what, max, make) in cases {
        let mut rig = Rig::founded();
        assert_eq!(rig.refused(change(make(max + 1))), beyond(what, max));
        assert!(matches!(rig.apply(change(make(max))), Outcome::Policy { .. }), "{what}");
    }
    let mut rig = Rig::founded();
    rig.apply(change(with_roles(ROLE_PATTERNS_MAX)));
    // Another rule about the same role is no further expression.
    rig.apply(change(put([rule("more", "role:R0", Effect::Deny)])));
    let past = rig.refused(change(put([rule("past", "role:R0[a=1]", Effect::Deny)])));
    assert_eq!(past, beyond(PolicyLimit::RolePatterns, ROLE_PATTERNS_MAX));
}

#[test]
fn without_a_cluster_there_are_no_rules() {
    let mut rig = Rig::empty();
    for command in [change(put([allow("a")])), stage(1, 0, [allow("a")])] {
        assert_eq!(rig.refused(command), Refused::NoCluster);
    }
}

#[test]
fn a_cluster_begins_with_the_policy_that_its_founder_gives_or_not_at_all() {
    let begin = |policy: PolicyChange| {
        let Command::Bootstrap(founding) = bootstrap() else { panic!() };
        Command::Bootstrap(Box::new(Bootstrap { policy, ..*founding }))
    };
    let mut rig = Rig::empty();
    let everybody = PolicyChange { super_users: Some(["*".parse().unwrap()].into()), ..put([allow("a")]) };
    assert_eq!(rig.refused(begin(everybody)), PolicyError::EverybodySuper.into());
    assert_eq!(rig.refused(begin(sent(1, 1))), PolicyError::PartsMissing.into());
    assert!(matches!(rig.apply(begin(put([allow("a")]))), Outcome::Admitted(_)));
    assert_eq!((ids(&rig), rig.0.view().unwrap().policy.changed()), (vec!["a".to_owned()], Generation(1)));
}

#[test]
fn what_waits_for_its_change_is_in_a_snapshot() {
    let mut rig = Rig::founded();
    rig.apply(change(put([allow("a")])));
    rig.apply(stage_both(1, 0, [id("a")], [allow("b")]));
    let mut other = Rig::of(
        crate::trust::TrustState::decode(crate::trust::command::FEATURE_LEVEL, &rig.0.encode().unwrap()).unwrap(),
    );
    assert_eq!(other.0, rig.0);
    assert_eq!(other.apply(staged(1, 1)), rig.apply(staged(1, 1)));
    assert_eq!((other.0.digest(), ids(&other)), (rig.0.digest(), vec!["b".to_owned()]));
}

fn issue(client: &str) -> Command {
    let spki = ed25519_spki(&key(60).public().0).to_vec();
    Command::IssuePrincipal(IssuePrincipal { role: Role::Client(name(client)), spki, ttl_secs: 60 })
}
