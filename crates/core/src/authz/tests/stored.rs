//! A policy is stored, written as text, and read back as it was. A text that means something else, or nothing, is
//! refused.

use proptest::prelude::*;

use super::cases::*;
use crate::authz::change::checked;
use crate::authz::text::{PolicyText, RuleText};
use crate::authz::{ActionSet, Effect, Kind, NamePattern, Policy, PrincipalPattern, Rule, RuleId};
use crate::codec::{decode, encode};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_policy_is_read_back_as_it_was(
        rules in rules(spelled_principal()),
        requirements in requirements(),
        asked in asked(),
    ) {
        let super_users: Vec<PrincipalPattern> = vec!["admin/*".parse().unwrap()];
        let super_users = super_users.into_iter().collect();
        let case = Case { super_users, requirements, unevaluable: Default::default(), rules };
        let policy = case.policy();
        let stored: Policy = decode(&encode(&policy).unwrap()).unwrap();
        prop_assert_eq!(&stored, &policy);
        prop_assert_eq!(stored.weight(), policy.weight());
        let written: PolicyText =
            serde_json::from_str(&serde_json::to_string(&PolicyText::of(&policy)).unwrap()).unwrap();
        prop_assert_eq!(&written.policy().unwrap(), &policy);
        let decided = |policy| crate::authz::decide(policy, Default::default(), &asked.question());
        prop_assert_eq!(decided(&stored), decided(&policy));
    }

    /// A name that looks like a pattern stays a name, and a pattern stays a pattern.
    #[test]
    fn a_rule_is_written_and_read_back_as_it_was(rule in rule(spelled_principal())) {
        let text = RuleText::of(&rule);
        let json = serde_json::to_string(&text).unwrap();
        let read: RuleText = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&read, &text);
        prop_assert_eq!(&read.rule().unwrap(), &rule);
        let nameless = RuleText { id: None, ..read };
        let named = nameless.rule().unwrap();
        prop_assert_eq!(&named.id, &nameless.rule().unwrap().id, "the same text has the same id");
        prop_assert_eq!(Rule { id: rule.id.clone(), ..named }, rule);
    }

    #[test]
    fn rules_that_say_different_things_are_given_different_ids(
        a in rule(spelled_principal()),
        b in rule(spelled_principal()),
    ) {
        let named = |rule: &Rule| RuleText { id: None, ..RuleText::of(rule) }.rule().unwrap().id;
        let same = Rule { id: a.id.clone(), ..b.clone() } == a;
        prop_assert_eq!(named(&a) == named(&b), same);
    }
}

fn rule_about(principal: PrincipalPattern) -> Rule {
    Rule {
        id: RuleId::parse("r").unwrap(),
        effect: Effect::Deny,
        principal,
        actions: ActionSet::ALL,
        kind: Kind::TOPIC,
        pattern: NamePattern::Any,
        network: None,
        not_after: None,
    }
}

#[test]
fn a_stored_rule_that_cannot_count_is_refused_and_not_passed_over() {
    let stored = |rule: Rule| decode::<Policy>(&encode(&Policy::of([], [rule])).unwrap());
    assert!(stored(rule_about(PrincipalPattern::Any)).is_ok());
    let any = rule_about(PrincipalPattern::Any);
    for rule in [
        rule_about(PrincipalPattern::Prefix("".into())),
        rule_about(PrincipalPattern::Exact("*".into())),
        Rule { pattern: NamePattern::Prefix("".into()), ..any.clone() },
        Rule { actions: ActionSet::NONE, ..any.clone() },
        Rule { network: Some("::ffff:10.0.0.0/104".parse().unwrap()), ..any },
    ] {
        assert!(stored(rule.clone()).is_err(), "{rule}");
    }
}

#[test]
fn a_policy_with_rules_that_cannot_be_evaluated_is_not_stored_without_them() {
    let policy = Policy::default().with_unevaluable([RuleId::parse("future").unwrap()]);
    assert!(encode(&policy).is_err());
    assert!(encode(&policy.with_unevaluable([])).is_ok());
}

/// Of the text of one good rule, with one field changed.
fn text(edit: impl FnOnce(&mut RuleText)) -> RuleText {
    let mut text = RuleText {
        principal: "client/pay".to_owned(),
        actions: vec!["read".to_owned()],
        topic: Some("*".to_owned()),
        ..RuleText::default()
    };
    edit(&mut text);
    text
}

#[test]
fn a_text_that_is_no_rule_is_refused_with_what_is_wrong() {
    assert_eq!(text(|_| {}).rule().unwrap().pattern, NamePattern::Exact("*".into()));
    type Edit = fn(&mut RuleText);
    let cases: [(&str, Edit); 16] = [
        ("id: `a b`", |t| t.id = Some("a b".to_owned())),
        ("principal: `pay`", |t| t.principal = "pay".to_owned()),
        ("principal: `cli*`", |t| t.principal = "cli*".to_owned()),
        ("principal: `role:W[`", |t| t.principal = "role:W[".to_owned()),
        ("actions: `*` is no action", |t| t.actions = vec!["*".to_owned()]),
        ("actions: `READ` is no action", |t| t.actions = vec!["READ".to_owned()]),
        ("rule names no action", |t| t.actions.clear()),
        ("got 0", |t| t.topic = None),
        ("got 2", |t| t.topic_prefix = Some("a".to_owned())),
        ("resource: `pay` has no kind", |t| (t.topic, t.resource) = (None, Some("pay".to_owned()))),
        ("resource_any: kind `*`", |t| (t.topic, t.resource_any) = (None, Some("*".to_owned()))),
        ("rule has an empty prefix", |t| (t.topic, t.topic_prefix) = (None, Some(String::new()))),
        ("rule has an empty prefix", |t| (t.topic, t.resource_prefix) = (None, Some("topic:".to_owned()))),
        ("network: `10.0.0.0/33` is no network", |t| t.network = Some("10.0.0.0/33".to_owned())),
        ("rule has a network whose address goes on", |t| t.network = Some("10.0.0.1/8".to_owned())),
        ("rule has a name of more than", |t| t.topic = Some("a".repeat(513))),
    ];
    for (why, edit) in cases {
        let error = text(edit).rule().unwrap_err().to_string();
        assert!(error.starts_with(why) || error.ends_with(why), "{error}: expected {why}");
    }
    for unknown in
        [r#"{"principal":"*","actions":[],"topics":"a"}"#, r#"{"principal":"*","actions":[],"effect":"ask"}"#]
    {
        assert!(serde_json::from_str::<RuleText>(unknown).is_err(), "{unknown}");
    }
}

#[test]
fn addresses_of_one_host_are_one_network_however_they_are_written() {
    let network = |written: &str| text(|t| t.network = Some(written.to_owned())).rule().unwrap().network.unwrap();
    for (written, kept) in [
        ("10.0.0.1", "10.0.0.1/32"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/95", "::/95"),
        ("2001:db8::1", "2001:db8::1/128"),
    ] {
        assert_eq!(network(written).to_string(), kept);
    }
}

#[test]
fn one_bad_rule_among_many_refuses_all_of_them_and_is_named() {
    let many = |edit: fn(&mut RuleText)| {
        let good = (0..1000).map(|i| text(|t| t.topic = Some(format!("t{i}"))));
        let mut rule: Vec<RuleText> = good.collect();
        edit(&mut rule[700]);
        PolicyText { rule, ..PolicyText::default() }.policy()
    };
    assert_eq!(many(|_| {}).unwrap().len(), 1000);
    let why = |edit| many(edit).unwrap_err().to_string();
    assert_eq!(why(|t| t.actions = vec!["raed".to_owned()]).split("`").next(), Some("rule 701: actions: "));
    assert!(why(|t| t.topic = Some("t3".to_owned())).starts_with("rule 701: id `r-"));
    assert!(why(|t| t.topic = Some("t3".to_owned())).ends_with("is that of rule 4 too"));
    let text = |super_user: &str| PolicyText { super_users: vec![super_user.to_owned()], ..PolicyText::default() };
    assert!(text("*").policy().unwrap_err().to_string().starts_with("`*` cannot be a super-user"));
    assert!(text("pay").policy().is_err() && text("admin/*").policy().is_ok());
    let required = |task: &str, expr: &str| {
        let required_capabilities = [(task.to_owned(), vec![expr.to_owned()])].into();
        PolicyText { required_capabilities, ..PolicyText::default() }.policy()
    };
    let bad = required("render", "Worker[gpu").unwrap_err().to_string();
    assert!(bad.starts_with("required_capabilities: task `render`: `Worker[gpu`: column 11"), "{bad}");
    assert!(required("", "W").is_err() && required("render", "W").is_ok());
    assert!(checked(&[]).unwrap().is_empty());
}
