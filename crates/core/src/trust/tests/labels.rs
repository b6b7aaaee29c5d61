//! Roles and attributes of members and of brokers, clients and admins. Given by an admission or an admin, never
//! claimed.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rig::*;
use crate::authz::Subject;
use crate::authz::label::{LabelEdit, LabelError, Labels};
use crate::id::{NodeId, ed25519_spki};
use crate::limits::{ATTRIBUTES_MAX, PRINCIPALS_MAX};
use crate::principal::Role;
use crate::trust::command::{AddJoinToken, Command, Evict, IssuePrincipal, Label, RevokePrincipal};
use crate::trust::join_token::TokenRecord;
use crate::trust::outcome::{Limited, Outcome, Refused};
use crate::trust::view::View;

fn label(role: &Role, edits: &[(&str, Option<&str>)]) -> Command {
    let edit =
        |(name, value): &(&str, Option<&str>)| LabelEdit { name: (*name).to_owned(), value: value.map(str::to_owned) };
    Command::Label(Label { role: role.clone(), edits: edits.iter().map(edit).collect() })
}

fn client(text: &str) -> Role {
    Role::Client(name(text))
}

fn issue(text: &str) -> Command {
    let spki = ed25519_spki(&key(60).public().0).to_vec();
    Command::IssuePrincipal(IssuePrincipal { role: client(text), spki, ttl_secs: 60 })
}

fn view(rig: &Rig) -> &View {
    rig.0.view().unwrap()
}

fn shown(rig: &Rig, role: &Role) -> String {
    let Subject { roles, attributes, .. } = Subject::of(view(rig), role);
    format!("{roles:?} {attributes:?}")
}

const NOTHING: &str = "{} {}";

#[test]
fn a_member_has_the_labels_of_its_token_until_an_admin_changes_them() {
    let mut rig = Rig::founded();
    let attributes = BTreeMap::from([("gpu".to_owned(), "true".to_owned())]);
    rig.apply(Command::AddJoinToken(AddJoinToken(TokenRecord {
        role: Some("Worker".to_owned()),
        attributes,
        ..record(5, 1)
    })));
    rig.apply(Command::Admit(Box::new(request(2, 5).into())));
    let node = Role::Node(NodeId(2));
    assert_eq!(shown(&rig, &node), r#"{"Worker"} {"gpu": "true"}"#);
    assert_eq!(shown(&rig, &Role::Node(NodeId(1))), NOTHING);
    let before = view(&rig).generation;
    let outcome = rig.apply(label(&node, &[("role", Some("Master")), ("gpu", None), ("zone", Some("eu"))]));
    assert_eq!(outcome, Outcome::Done(view(&rig).generation));
    assert_eq!(view(&rig).generation.0, before.0 + 1);
    assert_eq!(shown(&rig, &node), r#"{"Master"} {"zone": "eu"}"#);
    assert!(view(&rig).labels.is_empty(), "a member's are its own");
}

#[test]
fn a_client_has_labels_as_long_as_it_has_certificates() {
    let mut rig = Rig::founded();
    let pay = client("pay");
    assert_eq!(rig.refused(label(&pay, &[("role", Some("W"))])), Refused::NoSuchPrincipal(pay.clone()));
    rig.apply(issue("pay"));
    rig.apply(label(&pay, &[("role", Some("W")), ("zone", Some("eu"))]));
    assert_eq!(shown(&rig, &pay), r#"{"W"} {"zone": "eu"}"#);
    for other in [client("pay2"), Role::Admin(name("pay")), Role::Broker("pay".parse().unwrap())] {
        assert_eq!(shown(&rig, &other), NOTHING);
        assert_eq!(rig.refused(label(&other, &[("role", Some("W"))])), Refused::NoSuchPrincipal(other));
    }
    rig.apply(Command::RevokePrincipal(RevokePrincipal(pay.clone())));
    assert_eq!(shown(&rig, &pay), NOTHING, "the next holder of the name is another principal");
    assert!(view(&rig).labels.is_empty());
    assert_eq!(rig.refused(label(&pay, &[("role", Some("W"))])), Refused::NoSuchPrincipal(pay));
}

#[test]
fn labels_are_changed_together_or_not_at_all() {
    let mut rig = Rig::founded();
    let node = Role::Node(NodeId(1));
    rig.apply(label(&node, &[("role", Some("W"))]));
    for bad in ["", "a b", "a]", "*"] {
        let refused = rig.refused(label(&node, &[("role", None), ("zone", Some(bad))]));
        assert_eq!(refused, LabelError::Word(bad.to_owned()).into());
    }
    let many = |n: usize| (0..n).map(|i| LabelEdit { name: format!("a{i}"), value: Some("1".to_owned()) });
    let labels = |n| Command::Label(Label { role: Role::Node(NodeId(1)), edits: many(n).collect() });
    assert_eq!(rig.refused(labels(ATTRIBUTES_MAX + 1)), LabelError::TooMany.into());
    assert!(matches!(rig.apply(labels(ATTRIBUTES_MAX)), Outcome::Done(_)));
}

#[test]
fn repeated_labels_make_no_generation_and_none_are_none() {
    let mut rig = Rig::founded();
    rig.apply(issue("pay"));
    let pay = client("pay");
    for edits in [vec![("role", Some("W"))], vec![("role", None)], vec![("absent", None)], vec![]] {
        let first = rig.apply(label(&pay, &edits));
        let seen = Arc::clone(rig.0.view().unwrap());
        assert_eq!(rig.apply(label(&pay, &edits)), first);
        assert!(Arc::ptr_eq(rig.0.view().unwrap(), &seen), "{edits:?}");
    }
    assert!(view(&rig).labels.is_empty(), "no record of nothing");
}

#[test]
fn who_is_no_member_any_more_has_no_labels() {
    let mut rig = Rig::three_voters();
    let node = Role::Node(NodeId(3));
    rig.apply(label(&node, &[("role", Some("W"))]));
    rig.apply(Command::Evict(Evict { node: NodeId(3), compromised: false, keep_authority: true }));
    assert_eq!(shown(&rig, &node), NOTHING);
    assert_eq!(rig.refused(label(&node, &[("role", Some("W"))])), Refused::AlreadyEvicted(NodeId(3)));
    let unknown = Role::Node(NodeId(9));
    assert_eq!(rig.refused(label(&unknown, &[])), Refused::NoSuchNode(NodeId(9)));
    assert_eq!(Rig::empty().refused(label(&unknown, &[])), Refused::NoCluster);
}

/// A cluster whose authority was made elsewhere, with labels for so many clients.
fn imported(labels: usize) -> Rig {
    let mut rig = Rig::founded();
    let view = Arc::make_mut(rig.0.view.as_mut().unwrap());
    view.authorities.values_mut().for_each(|authority| authority.imported = true);
    let held = Labels { role: Some("W".to_owned()), ..Labels::default() };
    view.labels = (0..labels).map(|n| (client(&format!("c{n}")), held.clone())).collect();
    rig
}

#[test]
fn a_client_certified_elsewhere_has_labels_without_a_record() {
    let mut rig = imported(0);
    let pay = client("pay");
    rig.apply(label(&pay, &[("role", Some("W"))]));
    assert_eq!(shown(&rig, &pay), r#"{"W"} {}"#);
    rig.apply(Command::RevokePrincipal(RevokePrincipal(pay.clone())));
    assert_eq!(shown(&rig, &pay), NOTHING);
    assert_eq!(
        rig.refused(label(&pay, &[("role", Some("W"))])),
        Refused::NoSuchPrincipal(pay),
        "no certificate counts"
    );
}

#[test]
fn an_authority_elsewhere_certifies_no_admin_who_could_have_labels() {
    let root = Role::Admin(name("root"));
    assert_eq!(imported(0).refused(label(&root, &[("role", Some("W"))])), Refused::NoSuchPrincipal(root));
}

#[test]
fn labels_without_a_record_are_bounded() {
    let given = |rig: &mut Rig| rig.apply(label(&client("pay"), &[("role", Some("W"))]));
    assert!(matches!(given(&mut imported(PRINCIPALS_MAX - 1)), Outcome::Done(_)));
    let mut full = imported(PRINCIPALS_MAX);
    let past = Refused::Limit { what: Limited::Principals, max: PRINCIPALS_MAX as u64 };
    assert_eq!(given(&mut full), Outcome::Refused(past));
    // A client that has labels can have others.
    assert!(matches!(full.apply(label(&client("c0"), &[("role", Some("V"))])), Outcome::Done(_)));
}
