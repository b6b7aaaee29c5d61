//! Events and their chain, as the state makes them of commands.

use super::golden::sampled;
use super::rig::*;
use crate::authz::change::PolicyChange;
use crate::authz::text::RuleText;
use crate::group::GroupMembers;
use crate::id::{NodeId, TokenId};
use crate::limits::{ATTRIBUTE_LEN_MAX, ATTRIBUTES_MAX, EVENT_LEN_MAX, SUPER_USERS_MAX};
use crate::principal::Role;
use crate::trust::TrustState;
use crate::trust::author::{Actor, Made};
use crate::trust::chain::{Head, Line};
use crate::trust::command::{
    AddJoinToken, Command, FEATURE_LEVEL, Label, RevokeJoinToken, RevokePrincipal, SealAuthority, Stamped,
};
use crate::trust::member::Suffrage;

const EVENTS: &str = include_str!("golden_events.jsonl");
/// Of a cluster that began at the level that brought placements.
const EVENTS_2: &str = include_str!("golden_events_2.jsonl");

fn lines(rig: &Rig) -> String {
    rig.1.iter().map(|event| event.line()).collect::<Vec<_>>().join("\n")
}

#[test]
fn events_say_what_they_always_said() {
    for (rig, events) in [(sampled(), EVENTS), (super::placement::sample(), EVENTS_2)] {
        let got = lines(&rig);
        let changed = "an event changed: only fields may be added, at a new level; now they say:";
        assert_eq!(got, events.trim(), "{changed}\n{got}");
    }
}

#[test]
fn every_event_is_one_json_object_that_follows_from_the_one_before() {
    let rig = sampled();
    let mut before = Head::default();
    for (event, number) in rig.1.iter().zip(1..) {
        let text = event.line();
        assert!(!text.contains('\n') && text.len() <= EVENT_LEN_MAX);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&json["number"], &json["event"]), (&number.into(), &event.name.into()), "{text}");
        assert_eq!(json["head"], event.head.to_string());
        assert_eq!(json["author"]["by"], "admin/root");
        assert_eq!(json["author"]["taken_by"], 1);
        assert_eq!(json["author"]["source"], "10.0.0.99");
        let line = Line::parse(&text).unwrap();
        assert!(line.number == number && line.follows(before), "{text}");
        before = line.head;
    }
    assert_eq!((rig.0.chain().head(), rig.0.chain().count()), (before, rig.1.len() as u64));
}

#[test]
fn another_author_time_or_command_makes_another_head() {
    let rig = Rig::founded();
    let command = Command::AddJoinToken(AddJoinToken(record(5, 1)));
    let head = |stamped: &Stamped| {
        let mut state = rig.0.clone();
        state.apply(stamped, &GroupMembers::default()).unwrap();
        state.chain().head()
    };
    let good = stamped(NOW, command.clone());
    let author = author();
    for other in [
        stamped(NOW.plus_secs(1), command),
        stamped(NOW, Command::AddJoinToken(AddJoinToken(record(5, 2)))),
        Stamped { author: crate::trust::author::Author { taken_by: NodeId(2), ..author.clone() }, ..good.clone() },
        Stamped { author: crate::trust::author::Author { source: None, ..author.clone() }, ..good.clone() },
        Stamped {
            author: crate::trust::author::Author { actor: Actor::Operator { uid: 0 }, ..author.clone() },
            ..good.clone()
        },
    ] {
        assert_ne!(head(&good), head(&other), "{other:?}");
    }
    assert_eq!(head(&good), head(&good.clone()));
}

#[test]
fn refusals_and_repeated_commands_are_no_changes() {
    let mut rig = sampled();
    let count = rig.0.chain().count();
    rig.refused(Command::RevokeJoinToken(RevokeJoinToken(TokenId([9; 8]))));
    rig.refused(Command::AddJoinToken(AddJoinToken(record(5, 3))));
    // What admitted node 4 already, and addresses that node 2 has.
    rig.apply(Command::Admit(Box::new(request(4, 5).into())));
    rig.apply(Command::Label(Label { role: Role::Client(name("shop")), edits: vec![] }));
    rig.apply(Command::RevokePrincipal(RevokePrincipal(Role::Client(name("pay")))));
    rig.apply(Command::ChangePolicy(Box::default()));
    rig.apply(Command::SealAuthority(SealAuthority { authority: pin(), node: NodeId(2), sealed: vec![1, 2] }));
    assert_eq!(rig.0.chain().count(), count);
    rig.apply(Command::RevokeJoinToken(RevokeJoinToken(token(5).id())));
    assert_eq!(rig.0.chain().count(), count + 1);
    rig.apply(Command::RevokeJoinToken(RevokeJoinToken(token(5).id())));
    assert_eq!(rig.0.chain().count(), count + 1);
}

#[test]
fn head_and_count_survive_a_snapshot() {
    let mut rig = sampled();
    let mut restored = TrustState::decode(FEATURE_LEVEL, &rig.0.encode().unwrap()).unwrap();
    assert_eq!(restored.chain(), rig.0.chain());
    rig.apply(Command::RevokeJoinToken(RevokeJoinToken(token(5).id())));
    restored
        .apply(&stamped(NOW, Command::RevokeJoinToken(RevokeJoinToken(token(5).id()))), &GroupMembers::default())
        .unwrap();
    assert_eq!(restored.chain(), rig.0.chain());
}

#[test]
fn records_name_who_made_them() {
    let rig = sampled();
    let made = Made { at: NOW, by: author().actor, taken_by: NodeId(1) };
    let view = rig.0.view().unwrap();
    let four = &view.members[&NodeId(4)];
    assert_eq!((&four.leaf.issued.made, four.leaf.issued.authority), (&made, Some(pin())));
    assert_eq!((four.admitted_by, four.token_made.as_ref()), (Some(token(5).id()), Some(&made)));
    let founder = &view.members[&NodeId(1)];
    assert_eq!((&founder.leaf.issued.made, &founder.token_made), (&made, &None));
    let renewed = view.members[&NodeId(2)].renewed.as_ref().unwrap();
    assert_eq!((&renewed.leaf.issued.made, renewed.leaf.issued.authority), (&made, Some(pin())));
    assert_eq!(rig.0.tokens()[&token(5).id()].made, made);
    let keys = &view.principals[&Role::Client(name("shop"))];
    assert!(keys.len() == 2 && keys.values().all(|key| key.issued.made == made && key.issued.authority == Some(pin())));
    assert!(view.policy.rules().all(|rule| view.policy.made(&rule.id) == Some(&made)));
}

#[test]
fn rule_keeps_its_author_until_it_is_put_in_again() {
    let rule = |id: &str, topic: &str| {
        let text = RuleText { id: Some(id.to_owned()), topic: Some(topic.to_owned()), ..RuleText::default() };
        RuleText { principal: "client/pay".to_owned(), actions: vec!["read".to_owned()], ..text }.rule().unwrap()
    };
    let mut rig = Rig::founded();
    let change = |put, remove| Command::ChangePolicy(Box::new(PolicyChange { put, remove, ..PolicyChange::default() }));
    rig.apply(change(vec![rule("a", "x"), rule("b", "x")], vec![]));
    let weight = rig.0.view().unwrap().policy.weight();
    let later = NOW.plus_secs(60);
    rig.apply_at(later, change(vec![rule("a", "x"), rule("c", "x")], vec![]));
    rig.apply_at(later, change(vec![rule("b", "y")], vec![rule("b", "x").id]));
    let policy = &rig.0.view().unwrap().policy;
    let at = |id: &str| policy.made(&rule(id, "x").id).unwrap().at;
    assert_eq!([at("a"), at("b"), at("c")], [NOW, later, later]);
    rig.apply(change(vec![], vec![rule("c", "x").id]));
    let policy = &rig.0.view().unwrap().policy;
    assert_eq!((policy.made(&rule("c", "x").id), policy.weight()), (None, weight), "its author goes with it");
    let restored = TrustState::decode(FEATURE_LEVEL, &rig.0.encode().unwrap()).unwrap();
    assert_eq!(restored, rig.0);
    assert_eq!(restored.view().unwrap().policy.weight(), weight);
}

#[test]
fn longest_event_stays_within_its_limit() {
    let mut rig = Rig::founded();
    let long = |at: usize| RuleText {
        id: Some(format!("{at:063}")),
        principal: "client/*".to_owned(),
        actions: vec!["all".to_owned()],
        // Control characters take six bytes each.
        resource: Some(format!("topic:{}", "\u{1}".repeat(500))),
        ..RuleText::default()
    };
    let put: Vec<_> = (0..100).map(|at| long(at).rule().unwrap()).collect();
    let remove: Vec<_> = put.iter().map(|rule| rule.id.clone()).collect();
    let super_users =
        (0..SUPER_USERS_MAX).map(|at| format!("broker/{}*", format!("{at:060}.").repeat(4)).parse().unwrap());
    let super_users = Some(super_users.collect());
    let change = PolicyChange { put, super_users, ..PolicyChange::default() };
    rig.apply(Command::ChangePolicy(Box::new(change)));
    rig.apply(Command::ChangePolicy(Box::new(PolicyChange { remove, ..PolicyChange::default() })));
    let attributes = (0..ATTRIBUTES_MAX).map(|at| (format!("{at:063}"), "v".repeat(ATTRIBUTE_LEN_MAX))).collect();
    rig.apply(Command::AddJoinToken(AddJoinToken(crate::trust::join_token::TokenRecord {
        attributes,
        ..record(5, 1)
    })));
    let lens: Vec<usize> = rig.1.iter().map(|event| event.line().len()).collect();
    assert!(lens.iter().all(|len| *len <= EVENT_LEN_MAX), "{lens:?}");
    assert!(lens.iter().any(|len| *len > EVENT_LEN_MAX / 3), "{lens:?}");
    for event in &rig.1 {
        serde_json::from_str::<serde_json::Value>(&event.line()).unwrap();
    }
}

#[test]
fn no_event_holds_what_only_a_joiner_or_a_client_may_know() {
    let text = lines(&sampled());
    let spki = crate::id::ed25519_spki(&key(60).public().0);
    for secret in [token(5).reveal(), token(200).reveal(), data_encoding::HEXLOWER.encode(&spki)] {
        let secret = secret.split(':').next().unwrap();
        assert!(!text.contains(secret), "{secret}");
    }
    assert!(!text.contains("cst_"));
    let suffrage = Suffrage::Learner.to_string();
    assert!(text.contains(&suffrage));
}
