//! Whatever the rules are, a session answers as the decision does: at the first question, at the second, and after each
//! change.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use countersign_core::authz::change::PolicyChange;
use countersign_core::authz::{
    ActionSet, NamePattern, PrincipalPattern, Question, Requirement, Rule, RuleId, Subject, decide,
};
use countersign_core::principal::Role;
use countersign_core::time::UnixMillis;
use countersign_core::trust::command::Command;
use countersign_guard::{Action, Denial, Effect, Kind, Resource, Session};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use support::{NOW, World, client};

const CLIENTS: [&str; 3] = ["pay", "pay-2", "shop"];

fn names() -> impl Strategy<Value = String> {
    select(vec!["", "a", "ab", "abc", "abé", "b", "*", "*a", "render"]).prop_map(str::to_owned)
}

fn rules() -> impl Strategy<Value = Rule> {
    // Mostly about one client and one kind, so that patterns meet each other.
    let others = select(vec![
        "*",
        "client/*",
        "client/pay*",
        "client/pay-*",
        "client/shop",
        "node/*",
        "role:Worker",
        "role:Worker[gpu=true]",
    ]);
    let principals = prop_oneof![2 => Just("client/pay"), 1 => others];
    let patterns = (0..3_u8, names()).prop_map(|(which, name)| match which {
        1 if !name.is_empty() => NamePattern::Prefix(name.into()),
        2 => NamePattern::Any,
        _ => NamePattern::Exact(name.into()),
    });
    let actions = (1..0x80_u8).prop_map(|bits| ActionSet::try_from(bits).unwrap());
    let kinds = prop_oneof![4 => Just(Kind::TOPIC), 1 => Just(Kind::TASK)];
    let networks = select(vec![None, None, None, Some("10.0.0.0/8"), Some("10.0.0.7/32"), Some("2001:db8::/32")]);
    let ends = select(vec![None, None, None, Some(5), Some(0)]);
    let texts = (any::<bool>(), principals, actions, kinds, patterns, networks, ends);
    texts.prop_map(|(deny, principal, actions, kind, pattern, network, ends)| Rule {
        id: RuleId::parse("unnamed").unwrap(),
        effect: if deny { Effect::Deny } else { Effect::Allow },
        principal: principal.parse::<PrincipalPattern>().unwrap(),
        actions,
        kind,
        pattern,
        network: network.map(|network| network.parse().unwrap()),
        not_after: ends.map(|secs| NOW.plus_secs(secs)),
    })
}

/// What happens between two rounds of questions.
#[derive(Debug, Clone)]
enum Step {
    Put(Rule),
    Remove(Index),
    Label(usize, &'static str, Option<&'static str>),
    Super(bool),
    Require(bool),
    Later,
}

fn steps() -> impl Strategy<Value = Step> {
    let label = (
        0..CLIENTS.len(),
        select(vec![("role", Some("Worker")), ("role", None), ("gpu", Some("true")), ("gpu", None)]),
    );
    prop_oneof![
        6 => rules().prop_map(Step::Put),
        2 => any::<Index>().prop_map(Step::Remove),
        2 => label.prop_map(|(who, (name, value))| Step::Label(who, name, value)),
        1 => any::<bool>().prop_map(Step::Super),
        1 => any::<bool>().prop_map(Step::Require),
        1 => Just(Step::Later),
    ]
}

fn take(world: &World, step: &Step, turn: usize) {
    let change = |change: PolicyChange| drop(world.apply(Command::ChangePolicy(Box::new(change))));
    match step {
        Step::Put(rule) => {
            world.put([Rule { id: RuleId::parse(&format!("r{turn}")).unwrap(), ..rule.clone() }]);
        }
        Step::Remove(which) => {
            let ids: Vec<RuleId> = world.view().policy.rules().map(|rule| rule.id.clone()).collect();
            if !ids.is_empty() {
                world.remove(which.get(&ids).as_str());
            }
        }
        Step::Label(who, name, value) => world.label(client(CLIENTS[*who]), name, *value),
        Step::Super(on) => {
            let users = on.then(|| "client/shop".parse().unwrap()).into_iter().collect();
            change(PolicyChange { super_users: Some(users), ..PolicyChange::default() });
        }
        Step::Require(on) => {
            let required = Requirement { task: "render".to_owned(), any_of: vec!["Worker".parse().unwrap()] };
            let requirements = Some(on.then_some(required).into_iter().collect());
            change(PolicyChange { requirements, ..PolicyChange::default() });
        }
        Step::Later => {
            world.clocks.unix.fetch_add(1000, Ordering::Relaxed);
            world.clocks.boot.fetch_add(1000, Ordering::Relaxed);
        }
    }
}

fn check(world: &World, who: &Role, session: &Session, from: Option<IpAddr>, resources: &[Resource]) {
    let view = world.view();
    let subject = Subject::of(&view, who);
    let now = UnixMillis(world.clocks.unix.load(Ordering::Relaxed));
    for resource in resources {
        for action in Action::ALL {
            let (kind, name) = (resource.kind(), resource.name());
            let question = Question { subject: &subject, action, kind, name, from, now };
            let decided = decide(&view.policy, view.generation, &question);
            let fresh = world.guard.fresh().unwrap();
            let remembered = session.authorize(&fresh, action, resource);
            let again = session.authorize(&fresh, action, resource);
            let named = session.authorize_named(&fresh, action, kind, name);
            for answer in [remembered, again, named] {
                match answer {
                    Ok(permit) => {
                        assert_eq!(decided.effect, Effect::Allow, "{question:?} {decided:?}");
                        assert_eq!((permit.generation(), permit.name()), (view.generation, name));
                    }
                    Err(denial) => assert_eq!(denial, Denial::Denied(decided.clone()), "{question:?}"),
                }
            }
            assert_eq!(session.explain(&fresh, action, kind, name), Ok(decided));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_session_answers_as_the_decision_does(
        first in prop::collection::vec(rules(), 0..16),
        steps in prop::collection::vec(steps(), 1..14),
    ) {
        let world = World::new(&CLIENTS);
        let named = |(i, rule)| Rule { id: RuleId::parse(&format!("f{i}")).unwrap(), ..rule };
        world.put(first.into_iter().enumerate().map(named));
        let froms = ["10.0.0.7", "::ffff:10.1.0.1", "192.0.2.1"].map(|text| Some(text.parse::<IpAddr>().unwrap()));
        let froms: Vec<Option<IpAddr>> = [None].into_iter().chain(froms).collect();
        let sessions: Vec<(Role, Option<IpAddr>, Session)> = CLIENTS
            .iter()
            .zip(froms.iter().cycle().skip(steps.len()))
            .map(|(name, from)| (client(name), *from, world.guard.session(&world.peer(name), *from).unwrap()))
            .collect();
        let all = ["", "a", "ab", "abc", "abcd", "abz", "ac", "abé", "abéa", "b", "ba", "*", "*a", "**", "render", "c"];
        let resources: Vec<Resource> = all
            .iter()
            .flat_map(|name| [Kind::TOPIC, Kind::TASK, Kind::GROUP].map(|kind| Resource::new(kind, name)))
            .collect();
        for (turn, step) in steps.iter().enumerate() {
            take(&world, step, turn);
            if turn % 3 != 0 && turn + 1 != steps.len() {
                continue;
            }
            for (who, from, session) in &sessions {
                check(&world, who, session, *from, &resources);
            }
        }
    }
}
