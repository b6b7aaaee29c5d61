//! The encoding of a snapshot, byte for byte: what one version wrote, the next must read.

use super::rig::*;
use crate::authz::change::{ChangeId, PolicyChange};
use crate::authz::label::LabelEdit;
use crate::authz::text::RuleText;
use crate::authz::{Requirement, Rule};
use crate::id::{NodeId, ed25519_spki};
use crate::key::Endorsement;
use crate::name::Host;
use crate::principal::Role;
use crate::trust::TrustState;
use crate::trust::command::{Command, FEATURE_LEVEL};
use crate::trust::hosts::{ClusterSetting, Witness};
use crate::trust::join_token::TokenRecord;

const SNAPSHOT: &str = include_str!("golden_snapshot.hex");

fn rule(id: &str) -> Rule {
    let network = Some("10.0.0.0/8".to_owned());
    let (principal, resource_prefix) = ("client/pay".to_owned(), Some("topic:pay-".to_owned()));
    let actions = vec!["write".to_owned(), "read".to_owned()];
    let id = Some(id.to_owned());
    RuleText { id, principal, actions, resource_prefix, network, not_after: Some(7), ..RuleText::default() }
        .rule()
        .unwrap()
}

fn policy_change() -> PolicyChange {
    let required = Requirement { task: "render".to_owned(), any_of: vec!["Worker[gpu=true]".parse().unwrap()] };
    let any = RuleText {
        principal: "role:Worker".to_owned(),
        actions: vec!["all".to_owned()],
        resource_any: Some("topic".to_owned()),
        ..RuleText::default()
    };
    PolicyChange {
        put: vec![rule("pay"), any.rule().unwrap()],
        super_users: Some(["admin/root".parse().unwrap()].into()),
        requirements: Some(vec![required]),
        ..PolicyChange::default()
    }
}

fn edit(name: &str, value: &str) -> LabelEdit {
    LabelEdit { name: name.to_owned(), value: Some(value.to_owned()) }
}

pub(super) fn sample() -> TrustState {
    sampled().0
}

/// A state with some of everything, by nearly every command.
pub(super) fn sampled() -> Rig {
    let mut rig = Rig::three_voters();
    rig.apply(Command::AddJoinToken(record(5, 3)));
    rig.apply(Command::Admit(Box::new(request(4, 5).into())));
    rig.apply(Command::Evict { node: NodeId(3), compromised: false, keep_authority: true });
    let next = key(80).public().id();
    let endorsement = Endorsement::sign(&key(2), CLUSTER, next, 1);
    rig.apply(Command::Renew { node: NodeId(2), key: next, endorsement });
    rig.apply(Command::IssuePrincipal {
        role: Role::Client(name("pay")),
        spki: ed25519_spki(&key(60).public().0).to_vec(),
        ttl_secs: 60,
    });
    rig.apply(Command::RevokePrincipal(Role::Client(name("pay"))));
    let spki = |seed| ed25519_spki(&key(seed).public().0).to_vec();
    rig.apply(Command::IssuePrincipal { role: Role::Client(name("shop")), spki: spki(61), ttl_secs: 60 });
    let in_use = key(61).public().id();
    rig.apply(Command::RenewPrincipal { role: Role::Client(name("shop")), in_use, spki: spki(62) });
    rig.apply(Command::ChangePolicy(Box::new(policy_change())));
    rig.apply(Command::Label { role: Role::Node(NodeId(2)), edits: vec![edit("role", "Worker"), edit("gpu", "true")] });
    rig.apply(Command::Label { role: Role::Client(name("shop")), edits: vec![edit("zone", "eu")] });
    let remove = vec![rule("pay").id];
    rig.apply(Command::StagePolicy { change: ChangeId([9; 16]), part: 0, remove, put: vec![rule("staged")] });
    let transcript = rig.0.statements()[3].statement.transcript();
    rig.apply(Command::SignStatement { number: 3, node: NodeId(1), signature: key(1).sign(&transcript) });
    let host = |text| Host::parse(text).unwrap();
    rig.apply(Command::AddJoinToken(TokenRecord { hosts: vec![host("db.example")], ..record(6, 3) }));
    rig.apply(Command::SetCluster(ClusterSetting::ClientNames(vec![host("lb.example")])));
    rig.apply(Command::EditHosts { node: NodeId(2), add: vec![host("n2.example")], remove: vec![] });
    let witness = Witness { by: NodeId(1), hosts: vec![host("10.0.0.4")] };
    rig.apply(Command::ProveHosts { node: NodeId(4), witness });
    rig
}

#[test]
fn a_snapshot_is_encoded_as_it_always_was() {
    let encoded = data_encoding::HEXLOWER.encode(&sample().encode().unwrap());
    assert_eq!(encoded, SNAPSHOT.trim(), "the encoding changed: raise the version or the feature level");
    let decoded =
        TrustState::decode(FEATURE_LEVEL, &data_encoding::HEXLOWER.decode(SNAPSHOT.trim().as_bytes()).unwrap())
            .unwrap();
    assert_eq!(decoded, sample());
}

#[test]
fn a_damaged_snapshot_is_an_error_or_another_state_but_never_a_panic() {
    let good = sample().encode().unwrap();
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 0x41;
        let _ = TrustState::decode(FEATURE_LEVEL, &damaged);
        assert!(TrustState::decode(FEATURE_LEVEL, &good[..at]).is_err(), "cut at {at}");
    }
}
