//! Who can, and dry runs: they give the answers of `decide`.

use core::net::IpAddr;
use core::slice::from_ref;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;

use super::cases::*;
use crate::authz::label::Labels;
use crate::authz::text::RuleText;
use crate::authz::{
    Access, Action, Effect, Flip, Kind, Policy, Question, Reason, Recorded, Rule, RuleId, Subject, decide, dry_run,
    who_can,
};
use crate::id::{Generation, NodeId, ed25519_spki};
use crate::principal::Role;
use crate::trust::command::{Command, IssuePrincipal};
use crate::trust::tests::rig::{NOW, Rig, key, name};
use crate::trust::view::View;

fn client(text: &str) -> Role {
    Role::Client(name(text))
}

/// The members 1 to 3, the clients `a` and `ab`, the admin `root`, and `c` with labels alone. `ab` is a `W[g=1]`.
fn view_with(policy: Policy) -> View {
    let mut rig = Rig::three_voters();
    for (role, seed) in [(client("a"), 60), (client("ab"), 61), (Role::Admin(name("root")), 62)] {
        let spki = ed25519_spki(&key(seed).public().0).to_vec();
        rig.apply(Command::IssuePrincipal(IssuePrincipal { role, spki, ttl_secs: 600 }));
    }
    let held = Labels { role: Some("W".to_owned()), attributes: [("g".to_owned(), "1".to_owned())].into() };
    let labels = [(client("ab"), held), (client("c"), Labels::default())].into();
    View { policy: Arc::new(policy), labels, ..View::clone(rig.0.view().unwrap()) }
}

fn rule(id: &str, effect: Effect, principal: &str, network: Option<&str>) -> Rule {
    RuleText {
        id: Some(id.to_owned()),
        effect: Some(effect),
        principal: principal.to_owned(),
        actions: vec!["read".to_owned()],
        topic: Some("x".to_owned()),
        network: network.map(str::to_owned),
        ..RuleText::default()
    }
    .rule()
    .unwrap()
}

fn readers(rules: impl IntoIterator<Item = Rule>) -> Vec<String> {
    let view = view_with(Policy::of(["admin/*".parse().unwrap()], rules));
    let show = |Access { principal, decision, only_from }: Access| {
        assert_eq!((decision.effect, decision.generation), (Effect::Allow, view.generation));
        let from: Vec<String> = only_from.iter().map(ToString::to_string).collect();
        format!("{principal} {} {}", decision.reason, from.join(" ")).trim_end().to_owned()
    };
    who_can(&view, Action::Read, &Kind::TOPIC, "x", NOW).into_iter().map(show).collect()
}

#[test]
fn everybody_on_record_who_may_is_named_with_why() {
    use Effect::{Allow, Deny};
    let root = "admin/root super-user";
    assert_eq!(readers([]), [root]);
    assert_eq!(readers([rule("r", Allow, "client/a", None)]), ["client/a rule `r`", root]);
    assert_eq!(readers([rule("r", Allow, "role:W", None)]), ["client/ab rule `r`", root]);
    let all = ["node/1", "node/2", "node/3", "client/a", "client/ab", "client/c"];
    let all: Vec<String> = all.into_iter().map(|who| format!("{who} rule `r`")).chain([root.to_owned()]).collect();
    assert_eq!(readers([rule("r", Allow, "*", None)]), all);
    let but_one = [rule("r", Allow, "client/*", None), rule("d", Deny, "role:W[g=1]", None)];
    assert_eq!(readers(but_one), ["client/a rule `r`", "client/c rule `r`", root]);
    assert_eq!(readers([rule("r", Allow, "client/unknown", None)]), [root], "none that is not on record");
    let view = view_with(Policy::default());
    assert_eq!(who_can(&view, Action::Read, &Kind::TOPIC, "x", NOW), [], "none without super-users");
}

#[test]
fn who_may_from_some_places_alone_is_named_with_these() {
    use Effect::{Allow, Deny};
    let of_a = |rules: &[Rule]| readers(rules.to_vec()).into_iter().find(|who| who.starts_with("client/a "));
    let within = rule("r", Allow, "client/a", Some("10.0.0.0/8"));
    assert_eq!(of_a(from_ref(&within)).unwrap(), "client/a rule `r` 10.0.0.0/8");
    let hole = rule("d", Deny, "*", Some("10.0.0.0/9"));
    assert_eq!(of_a(&[within.clone(), hole]).unwrap(), "client/a rule `r` 10.128.0.0/9");
    let everywhere = rule("s", Allow, "client/a", None);
    assert_eq!(of_a(&[within.clone(), everywhere.clone()]).unwrap(), "client/a rule `s`", "from anywhere");
    let half = rule("d", Deny, "*", Some("128.0.0.0/1"));
    assert_eq!(of_a(&[everywhere.clone(), half]).unwrap().split(' ').nth(3), Some("0.0.0.0/1"));
    let six = rule("d", Deny, "*", Some("::/0"));
    assert_eq!(of_a(&[everywhere.clone(), six]).unwrap(), "client/a rule `s` 0.0.0.0/0");
    let ends = rule("r", Allow, "client/a", Some("255.255.255.255"));
    assert_eq!(of_a(&[ends]).unwrap(), "client/a rule `r` 255.255.255.255/32");
    let ends = rule("r", Allow, "client/a", Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
    assert_eq!(of_a(&[ends]).unwrap(), "client/a rule `r` ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128");
    assert_eq!(of_a(&[within.clone(), rule("d", Deny, "*", Some("10.0.0.0/7"))]), None, "from nowhere");
    assert_eq!(of_a(&[within, rule("d", Deny, "client/a", None)]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// From each place: named, and the place among those named, if and only if `decide` allows it.
    #[test]
    fn who_is_named_is_who_would_be_allowed(rules in rules(spelled_principal()), asked in asked()) {
        let view = view_with(Policy::of(["admin/*".parse().unwrap()], rules));
        let named = who_can(&view, asked.action, &asked.kind, &asked.name, asked.now);
        let places = ["0.0.0.0", "10.0.0.0", "10.0.0.1", "10.0.0.2", "10.255.255.255", "255.255.255.255"];
        let more = ["::", "::ffff:10.0.0.1", "::ffff:0:1", "fcff::", "fd00::", "fdff::1", "fe00::", "ffff::"];
        for place in places.into_iter().chain(more) {
            let from: IpAddr = place.parse().unwrap();
            let nodes = view.members.scan().keys().map(|id| Role::Node(*id));
            for role in nodes.chain(view.principals.scan().keys().cloned()) {
                let subject = Subject::of(&view, &role);
                let question = Question { subject: &subject, from: Some(from), ..asked.question() };
                let allowed = decide(&view.policy, view.generation, &question).effect == Effect::Allow;
                let access = named.iter().find(|access| access.principal == role);
                let holds = |net: &IpNet| net.contains(&from.to_canonical());
                let within = |nets: &[IpNet]| nets.is_empty() || nets.iter().any(holds);
                prop_assert_eq!(access.is_some_and(|access| within(&access.only_from)), allowed, "{} {}", role, place);
            }
        }
    }
}

fn recorded(principal: Role, topic: &str, from: Option<&str>) -> Recorded {
    let from = from.map(|text| text.parse().unwrap());
    Recorded { principal, action: Action::Read, kind: Kind::TOPIC, name: topic.to_owned(), from }
}

#[test]
fn a_dry_run_names_the_requests_that_would_flip_and_no_others() {
    use Effect::{Allow, Deny};
    let now = Policy::of([], [rule("a", Allow, "client/a", None), rule("w", Allow, "role:W", Some("10.0.0.0/8"))]);
    let wanted = Policy::of([], [rule("ab", Allow, "client/ab", None), rule("n", Allow, "node/*", None)]);
    let view = view_with(now);
    let requests = [
        recorded(client("a"), "x", None),
        recorded(client("a"), "y", None),
        recorded(client("ab"), "x", Some("10.0.0.1")),
        recorded(client("ab"), "x", Some("11.0.0.1")),
        recorded(client("gone"), "x", None),
        recorded(Role::Node(NodeId(1)), "x", None),
    ];
    let flips = dry_run(&view, &wanted, &requests, NOW);
    let shown: Vec<_> = flips.iter().map(|flip| (&flip.request, flip.before.effect, flip.after.effect)).collect();
    assert_eq!(shown, [(&requests[0], Allow, Deny), (&requests[3], Deny, Allow), (&requests[5], Deny, Allow)]);
    let Flip { before, after, .. } = &flips[0];
    assert_eq!((before.generation, after.generation), (view.generation, Generation(view.generation.0 + 1)));
    assert_eq!((&before.reason, &after.reason), (&Reason::Rule(RuleId::parse("a").unwrap()), &Reason::NoRule));
    assert_eq!(dry_run(&view, &view.policy, &requests, NOW), [], "another rule, but the same effect, is no flip");
    assert_eq!(dry_run(&view, &wanted, &[], NOW), []);
}

#[test]
fn a_rule_about_a_role_is_dry_run_with_the_roles_of_now() {
    let view = view_with(Policy::default());
    let wanted = Policy::of([], [rule("w", Effect::Allow, "role:W[g=1]", None)]);
    let requests = [recorded(client("a"), "x", None), recorded(client("ab"), "x", None)];
    let flips = dry_run(&view, &wanted, &requests, NOW);
    assert_eq!(flips.iter().map(|flip| &flip.request.principal).collect::<Vec<_>>(), [&client("ab")]);
}
