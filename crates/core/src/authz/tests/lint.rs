//! Lint: which rules it finds, which it leaves, and that taking out a redundant rule changes no decision.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::cases::*;
use crate::authz::label::Labels;
use crate::authz::lint::lint_within;
use crate::authz::text::RuleText;
use crate::authz::{Effect, Finding, Lint, NamePattern, NeverWhy, Policy, Rule, RuleId, decide, lint};
use crate::id::ed25519_spki;
use crate::principal::Role;
use crate::trust::command::{Command, IssuePrincipal};
use crate::trust::tests::rig::{NOW, Rig, key, name};
use crate::trust::view::View;

/// Members 1 to 3, the client `pay` who is a `W[g=1]`, and the admin `root`.
fn view() -> View {
    let mut rig = Rig::three_voters();
    for (role, seed) in [(Role::Client(name("pay")), 60), (Role::Admin(name("root")), 61)] {
        let spki = ed25519_spki(&key(seed).public().0).to_vec();
        rig.apply(Command::IssuePrincipal(IssuePrincipal { role, spki, ttl_secs: 600 }));
    }
    let mut view = View::clone(rig.0.view().unwrap());
    let attributes = [("g".to_owned(), "1".to_owned())].into();
    let labels = Labels { role: Some("W".to_owned()), attributes };
    view.labels = [(Role::Client(name("pay")), labels)].into();
    view
}

fn with(rules: impl IntoIterator<Item = Rule>) -> View {
    View { policy: Arc::new(Policy::of([], rules)), ..view() }
}

/// A rule from words: id, effect, principal, actions, resource (`any`, `=name` or `prefix…`).
fn rule(text: &str) -> Rule {
    let words: Vec<&str> = text.split(' ').collect();
    let [id, effect, principal, actions, topic] = words[..] else { panic!("{text}") };
    let mut rule = RuleText {
        id: Some(id.to_owned()),
        principal: principal.to_owned(),
        actions: actions.split(',').map(str::to_owned).collect(),
        topic: Some("x".to_owned()),
        ..RuleText::default()
    }
    .rule()
    .unwrap();
    rule.effect = if effect == "deny" { Effect::Deny } else { Effect::Allow };
    rule.pattern = match (topic, topic.strip_prefix('='), topic.strip_suffix('…')) {
        ("any", ..) => NamePattern::Any,
        (_, Some(name), _) => NamePattern::Exact(name.into()),
        (_, _, Some(prefix)) => NamePattern::Prefix(prefix.into()),
        _ => panic!("{text}"),
    };
    rule
}

fn id(text: &str) -> RuleId {
    RuleId::parse(text).unwrap()
}

/// The findings, except for rules that match no principal: these have a test of their own.
fn found(rules: impl IntoIterator<Item = Rule>) -> Vec<String> {
    let lints = lint(&with(rules), NOW).into_iter();
    let others = lints.filter(|lint| !matches!(lint.finding, Finding::NeverMatches(_)));
    let show = |Lint { rule, finding }| match finding {
        Finding::Shadowed { by } => format!("{rule} shadowed by {by}"),
        Finding::Redundant { by } => format!("{rule} redundant by {by}"),
        other => format!("{rule} {other:?}"),
    };
    others.map(show).collect()
}

#[test]
fn an_allow_under_a_deny_is_shadowed() {
    for (allow, deny) in [
        ("a allow client/pay read =x", "d deny client/pay read,describe =x"),
        ("a allow client/pay read =x", "d deny client/p* all =x"),
        ("a allow client/pay read =x", "d deny * read,describe any"),
        ("a allow client/pay* create x…", "d deny client/p* create x…"),
        ("a allow client/pay* create xy…", "d deny client/* create x…"),
        ("a allow role:W[g=1] create =x", "d deny role:W create x…"),
        ("a allow role:W[g=1] describe any", "d deny * describe any"),
    ] {
        assert_eq!(found([rule(allow), rule(deny)]), ["a shadowed by d"], "{allow}; {deny}");
    }
}

#[test]
fn an_allow_that_allows_anything_is_not_shadowed() {
    for (allow, deny) in [
        // Reading implies describing, which is not denied.
        ("a allow client/pay read =x", "d deny client/pay read =x"),
        ("a allow client/pay read,create =x", "d deny client/pay read,describe =x"),
        ("a allow client/pay read =x", "d deny client/pay2 all =x"),
        ("a allow client/p* read =x", "d deny client/pay all =x"),
        ("a allow client/pay* read =x", "d deny client/pay all =x"),
        ("a allow client/p* read =x", "d deny client/pay* all =x"),
        ("a allow client/pay read x…", "d deny client/pay all =x"),
        ("a allow client/pay read any", "d deny client/pay all x…"),
        ("a allow client/pay read x…", "d deny client/pay all xy…"),
        ("a allow role:W read =x", "d deny role:W[g=1] all =x"),
        ("a allow role:W read =x", "d deny client/* all =x"),
        ("a allow client/pay read =x", "d deny role:W all =x"),
    ] {
        assert_eq!(found([rule(allow), rule(deny)]), [""; 0], "{allow}; {deny}");
    }
    let (allow, deny) = (rule("a allow client/pay read =x"), rule("d deny * all any"));
    assert_eq!(found([allow.clone(), Rule { not_after: Some(NOW), ..deny.clone() }]), [""; 0]);
    assert_eq!(found([allow.clone(), Rule { network: Some("0.0.0.0/0".parse().unwrap()), ..deny.clone() }]), [""; 0]);
    assert_eq!(found([allow, Rule { kind: crate::authz::Kind::GROUP, ..deny }]), [""; 0]);
}

#[test]
fn a_rule_that_another_says_is_redundant_and_one_of_two_equal_ones_stays() {
    for (some, more, expected) in [
        ("a allow client/pay read =x", "b allow client/pay read =x", "b redundant by a"),
        ("a deny client/pay read =x", "b deny client/* read =x", "a redundant by b"),
        ("a allow client/pay describe =x", "b allow client/pay read =x", "a redundant by b"),
        ("a allow client/pay read,describe =x", "b allow client/pay read =x", "b redundant by a"),
        ("a deny role:W[g=1] read =x", "b deny role:W all any", "a redundant by b"),
    ] {
        assert_eq!(found([rule(some), rule(more)]), [expected], "{some}; {more}");
    }
    for (some, more) in [
        // A deny of reading denies no describing.
        ("a deny client/pay describe =x", "b deny client/pay read =x"),
        ("a allow client/pay create =x", "b allow client/pay read =x"),
        ("a allow client/pay read =x", "b allow client/pay read =y"),
        ("a allow client/pay read =x", "b allow role:W read =x"),
        ("a allow client/pay read =xy", "b allow client/pay read =x"),
    ] {
        assert_eq!(found([rule(some), rule(more)]), [""; 0], "{some}; {more}");
    }
    let network = |id: &str| Rule {
        network: Some("10.0.0.0/8".parse().unwrap()),
        ..rule(&format!("{id} allow client/pay read =x"))
    };
    assert_eq!(found([network("a"), network("b")]), [""; 0], "conditions are not compared");
    assert_eq!(found([network("a"), rule("b allow client/pay read =x")]), ["a redundant by b"]);
    let all = ["c", "b", "a"].map(|id| rule(&format!("{id} deny client/pay read =x")));
    assert_eq!(found(all), ["b redundant by a", "c redundant by a"]);
}

#[test]
fn a_rule_that_matches_no_principal_is_found() {
    let why = |view: &View, principal: &str| {
        let policy = Policy::of([], [rule(&format!("r deny {principal} read =x"))]);
        let lints = lint(&View { policy: Arc::new(policy), ..view.clone() }, NOW);
        lints.into_iter().next().map(|lint| lint.finding)
    };
    let never = |why| Some(Finding::NeverMatches(why));
    let here = view();
    for known in ["*", "client/pay", "admin/root", "node/3", "client/*", "client/p*", "node/*", "role:W", "role:W[g=1]"]
    {
        assert_eq!(why(&here, known), None, "{known}");
    }
    for (unmatched, reason) in [
        ("client/pay2", NeverWhy::NoSuchPrincipal),
        ("admin/pay", NeverWhy::NoSuchPrincipal),
        ("node/4", NeverWhy::NoSuchPrincipal),
        ("broker/pay", NeverWhy::NoSuchPrincipal),
        ("client/pay2*", NeverWhy::NoSuchPrefix),
        ("client/q*", NeverWhy::NoSuchPrefix),
        ("broker/*", NeverWhy::NoSuchPrefix),
        ("role:M", NeverWhy::NoHolder),
        ("role:W[g=2]", NeverWhy::NoHolder),
        ("role:W[g=1,z=1]", NeverWhy::NoHolder),
        ("role:w", NeverWhy::NoHolder),
    ] {
        assert_eq!(why(&here, unmatched), never(reason), "{unmatched}");
    }
    let mut imported = here;
    imported.authorities.values_mut().for_each(|authority| authority.imported = true);
    imported.revoked_principals.insert(Role::Client(name("gone")));
    for elsewhere in ["client/pay2", "client/q*", "broker/pay", "broker/*"] {
        assert_eq!(why(&imported, elsewhere), None, "{elsewhere}");
    }
    for (unmatched, reason) in [
        ("client/gone", NeverWhy::NoSuchPrincipal),
        ("admin/pay", NeverWhy::NoSuchPrincipal),
        ("node/4", NeverWhy::NoSuchPrincipal),
        ("admin/q*", NeverWhy::NoSuchPrefix),
        ("role:M", NeverWhy::NoHolder),
    ] {
        assert_eq!(why(&imported, unmatched), never(reason), "{unmatched}");
    }
}

#[test]
fn a_rule_whose_time_has_passed_has_no_other_fault() {
    let until = |last| Rule { not_after: Some(last), ..rule("a allow * all any") };
    let lints = |rule| lint(&with([rule]), NOW);
    let expired = Lint { rule: id("a"), finding: Finding::NeverMatches(NeverWhy::Expired) };
    assert_eq!(lints(until(NOW.minus_secs(1))), [expired]);
    assert_eq!(lints(until(NOW)), [Lint { rule: id("a"), finding: Finding::OverBroad }]);
}

#[test]
fn an_allow_of_much_to_many_is_over_broad() {
    for broad in [
        "a allow * all any",
        "a allow * all =x",
        "a allow * write any",
        "a allow * read,create any",
        "a allow * administer any",
        "a allow client/* all any",
        "a allow node/* all any",
    ] {
        assert_eq!(found([rule(broad)]), ["a OverBroad"], "{broad}");
    }
    for narrow in [
        "a allow * read any",
        "a allow * read,describe any",
        "a allow * write x…",
        "a allow * write =x",
        "a deny * all any",
        "a allow client/p* all any",
        "a allow client/* all x…",
        "a allow client/* write,read any",
        "a allow client/pay all any",
        "a allow role:W all any",
    ] {
        assert_eq!(found([rule(narrow)]), [""; 0], "{narrow}");
    }
}

/// Rules that say nothing, and what a comparison of each with each finds.
fn said_by_others(rules: &[Rule]) -> BTreeSet<RuleId> {
    let covers = |a: &Rule, b: &Rule| {
        !a.is_conditional()
            && a.principal.covers(&b.principal)
            && a.kind == b.kind
            && a.pattern.covers(&b.pattern)
            && a.decides().covers(b.decides())
    };
    let said = |rule: &&Rule| {
        rules.iter().filter(|other| other.id != rule.id && covers(other, rule)).any(|other| {
            let shadow = (other.effect, rule.effect) == (Effect::Deny, Effect::Allow);
            let more = other.effect == rule.effect && !(covers(rule, other) && rule.id < other.id);
            shadow || more
        })
    };
    rules.iter().filter(said).map(|rule| rule.id.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_index_finds_what_a_comparison_of_each_with_each_finds(rules in rules(any_principal())) {
        let says_nothing = |lint: &Lint| matches!(lint.finding, Finding::Shadowed { .. } | Finding::Redundant { .. });
        // Before any of the times in these rules.
        let lints = lint(&with(rules.clone()), crate::time::UnixMillis(0));
        let found: BTreeSet<RuleId> = lints.into_iter().filter(says_nothing).map(|lint| lint.rule).collect();
        prop_assert_eq!(found, said_by_others(&rules));
    }

    #[test]
    fn without_rules_that_say_nothing_everything_is_decided_as_before(
        case in case(),
        asked in prop::collection::vec(asked(), 1..8),
    ) {
        let lints = lint(&with(case.rules.clone()), crate::time::UnixMillis(0));
        let says_nothing = |lint: &&Lint| matches!(lint.finding, Finding::Shadowed { .. } | Finding::Redundant { .. });
        let out: BTreeSet<RuleId> = lints.iter().filter(says_nothing).map(|lint| lint.rule.clone()).collect();
        let rules = case.rules.iter().filter(|rule| !out.contains(&rule.id)).cloned().collect();
        let less = Case { rules, ..case.clone() };
        for asked in asked {
            let effect = |case: &Case| decide(&case.policy(), Default::default(), &asked.question()).effect;
            prop_assert_eq!(effect(&less), effect(&case), "{:?}", asked);
        }
    }
}

/// Each compared with each would be four hundred million comparisons.
#[test]
fn twenty_thousand_rules_are_linted_without_comparing_each_with_each() {
    let rules = (0..20_000).map(|n| match n % 4 {
        0 => rule(&format!("r{n:05} allow client/c{n} read =t{n}")),
        1 => rule(&format!("r{n:05} allow client/pay read =t{n}")),
        // Equal but for their network: many of one place.
        2 => Rule {
            network: Some(core::net::IpAddr::from((n as u32).to_be_bytes()).into()),
            ..rule(&format!("r{n:05} allow client/pay write =one"))
        },
        _ => rule(&format!("r{n:05} deny client/pay write =same")),
    });
    let lints = lint(&with(rules), NOW);
    let redundant = lints.iter().filter(|lint| lint.finding == Finding::Redundant { by: id("r00003") }).count();
    assert_eq!(redundant, 4_999);
    let unmatched = Finding::NeverMatches(NeverWhy::NoSuchPrincipal);
    assert_eq!(lints.iter().filter(|lint| lint.finding == unmatched).count(), 5_000);
    assert_eq!(lints.len(), 9_999);
}

#[test]
fn findings_have_words_and_one_spelling() {
    let shadowed = Finding::Shadowed { by: id("d") };
    assert_eq!(shadowed.to_string(), "allows nothing: rule `d` denies all of it");
    assert_eq!(serde_json::to_string(&shadowed).unwrap(), r#"{"shadowed":{"by":"d"}}"#);
    let never = Finding::NeverMatches(NeverWhy::NoSuchPrefix);
    assert_eq!(serde_json::to_string(&never).unwrap(), r#"{"never-matches":"no-such-prefix"}"#);
    assert_eq!(serde_json::from_str::<Finding>(r#""over-broad""#).unwrap(), Finding::OverBroad);
    for finding in [shadowed, never, Finding::OverBroad, Finding::Redundant { by: id("d") }] {
        assert!(finding.to_string().starts_with(|c: char| c.is_ascii_lowercase()));
    }
}

#[test]
fn what_takes_too_many_comparisons_is_not_compared_and_says_so_once() {
    let rules: Vec<Rule> = (0..10).map(|at| rule(&format!("t{at} allow client/pay read =t{at}"))).collect();
    let view = with(rules.into_iter().chain([rule("wide allow client/pay read,write any")]));
    let with_steps = |steps| lint_within(&view, NOW, steps).into_iter().map(|lint| lint.finding).collect::<Vec<_>>();
    let redundant = |found: &[Finding]| found.iter().filter(|f| matches!(f, Finding::Redundant { .. })).count();
    let cut = |found: &[Finding]| found.iter().filter(|f| matches!(f, Finding::NotCompared)).count();
    let whole = with_steps(1000);
    assert_eq!((redundant(&whole), cut(&whole)), (10, 0));
    let enough = (0..1000).find(|steps| cut(&with_steps(*steps)) == 0).unwrap();
    let short = with_steps(enough - 1);
    assert_eq!(cut(&short), 1);
    assert!(redundant(&short) < 10 && redundant(&with_steps(0)) == 0, "{short:?}");
    assert_eq!(redundant(&with_steps(enough)), 10);
}
