//! The encodings of a snapshot and of a log, byte for byte: what one version wrote, the next must read.

use std::collections::BTreeSet;

use super::rig::*;
use crate::authz::change::{ChangeId, PolicyChange};
use crate::authz::label::LabelEdit;
use crate::authz::text::RuleText;
use crate::authz::{Requirement, Rule};
use crate::codec::FIRST_LEVEL;
use crate::enroll::returning::{ReturnChannel, StoreReturn};
use crate::group::GroupMembers;
use crate::id::{GroupId, NodeId, StoreId, ed25519_spki};
use crate::key::Endorsement;
use crate::name::{Address, Host};
use crate::principal::Role;
use crate::trust::TrustState;
use crate::trust::addresses_transcript;
use crate::trust::command::{
    AddJoinToken, AdoptLeaf, AssignGroup, BindStore, ClusterSetting, Command, EditHosts, Evict, FEATURE_LEVEL,
    IssuePrincipal, Label, ProveHosts, RaiseLevel, Renew, RenewPrincipal, ReportFeatureLevel, RevokeJoinToken,
    RevokeKey, RevokePrincipal, RotateClusterToken, SetAddresses, SetSuffrage, SignAttestation, StagePolicy, Stamped,
};
use crate::trust::hosts::Witness;
use crate::trust::join_token::{TokenRecord, token_id};
use crate::trust::member::Suffrage;
use crate::trust::outcome::Outcome;

const SNAPSHOT: &str = include_str!("golden_snapshot.hex");

/// Three lines for an entry: the voters before it, the entry, and its outcome, as they are stored and answered.
const LOG: &str = include_str!("golden_log.txt");

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
    let mut rig = Rig::three_voters_at(FIRST_LEVEL);
    rig.apply(Command::AddJoinToken(AddJoinToken(record(5, 3))));
    rig.apply(Command::Admit(Box::new(request_at(FIRST_LEVEL, 4, 5).into())));
    rig.apply(Command::Evict(Evict { node: NodeId(3), compromised: false, keep_authority: true }));
    let next = key(80).public().id();
    let endorsement = Endorsement::sign(&key(2), CLUSTER, next, 1);
    rig.apply(Command::Renew(Renew { node: NodeId(2), key: next, endorsement }));
    rig.apply(Command::IssuePrincipal(IssuePrincipal {
        role: Role::Client(name("pay")),
        spki: ed25519_spki(&key(60).public().0).to_vec(),
        ttl_secs: 60,
    }));
    rig.apply(Command::RevokePrincipal(RevokePrincipal(Role::Client(name("pay")))));
    let spki = |seed| ed25519_spki(&key(seed).public().0).to_vec();
    rig.apply(Command::IssuePrincipal(IssuePrincipal {
        role: Role::Client(name("shop")),
        spki: spki(61),
        ttl_secs: 60,
    }));
    let in_use = key(61).public().id();
    rig.apply(Command::RenewPrincipal(RenewPrincipal { role: Role::Client(name("shop")), in_use, spki: spki(62) }));
    rig.apply(Command::ChangePolicy(Box::new(policy_change())));
    rig.apply(Command::Label(Label {
        role: Role::Node(NodeId(2)),
        edits: vec![edit("role", "Worker"), edit("gpu", "true")],
    }));
    rig.apply(Command::Label(Label { role: Role::Client(name("shop")), edits: vec![edit("zone", "eu")] }));
    let remove = vec![rule("pay").id];
    rig.apply(Command::StagePolicy(StagePolicy {
        change: ChangeId([9; 16]),
        part: 0,
        remove,
        put: vec![rule("staged")],
    }));
    let transcript = rig.0.attestations().get(3).unwrap().attestation.transcript();
    rig.apply(Command::SignAttestation(SignAttestation {
        number: 3,
        node: NodeId(1),
        signature: key(1).sign(&transcript),
    }));
    let host = |text| Host::parse(text).unwrap();
    rig.apply(Command::AddJoinToken(AddJoinToken(TokenRecord { hosts: vec![host("db.example")], ..record(6, 3) })));
    rig.apply(Command::SetCluster(ClusterSetting::ClientNames(vec![host("lb.example")])));
    rig.apply(Command::EditHosts(EditHosts { node: NodeId(2), add: vec![host("n2.example")], remove: vec![] }));
    let witness = Witness { by: NodeId(1), hosts: vec![host("10.0.0.4")] };
    rig.apply(Command::ProveHosts(ProveHosts { node: NodeId(4), witness }));
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

/// A log with every command that this level has.
pub(super) fn logged() -> Rig {
    let mut rig = sampled();
    let among = |voters: &[u64]| GroupMembers {
        voters: voters.iter().copied().map(NodeId).collect(),
        learners: BTreeSet::from([NodeId(4)]),
    };
    rig.apply(Command::RevokeJoinToken(RevokeJoinToken(token_id(record(5, 3).verifier))));
    rig.apply(Command::RotateClusterToken(RotateClusterToken(record(9, 3))));
    rig.apply(Command::AssignGroup(AssignGroup { group: GroupId(7), members: vec![NodeId(1), NodeId(2)] }));
    rig.apply(Command::ReportFeatureLevel(ReportFeatureLevel { node: NodeId(2), level: 2 }));
    rig.apply(Command::RaiseLevel(RaiseLevel { level: 2, without: BTreeSet::from([NodeId(4)]), by_itself: false }));
    let addresses = vec![Address::parse("10.0.0.22:7001").unwrap(), Address::parse("n2.example:7001").unwrap()];
    let signature = key(2).sign(&addresses_transcript(rig.0.view().unwrap(), NodeId(2), &addresses));
    rig.apply(Command::SetAddresses(SetAddresses { node: NodeId(2), addresses, signature }));
    rig.apply(Command::AdoptLeaf(AdoptLeaf { node: NodeId(2), renewal: 1 }));
    rig.apply(Command::RevokeKey(RevokeKey(key(61).public().id())));
    rig.apply(Command::SetSuffrage(SetSuffrage { node: NodeId(4), suffrage: Suffrage::Voter, keep_authority: false }));
    let (leaf, exporter) = ([3; 32], [4; 32]);
    let (replaces, store) = (StoreId([2; 16]), StoreId([72; 16]));
    let ids = (CLUSTER, NodeId(2));
    let back = StoreReturn::sign(&key(2), ids, (replaces, store), ReturnChannel { leaf, exporter });
    rig.apply(Command::ReturnStore(Box::new(back)));
    rig.apply_among(&among(&[1, 2]), Command::BindStore(BindStore { node: NodeId(2), store }));
    rig.apply_among(&among(&[1]), Command::BindStore(BindStore { node: NodeId(2), store }));
    rig
}

/// One name for each command. A new one needs a name here, and an entry in a golden log of its level.
pub(super) const fn name_of(command: &Command) -> Option<&'static str> {
    Some(match command {
        Command::Bootstrap(_) => "Bootstrap",
        Command::AddJoinToken(_) => "AddJoinToken",
        Command::RevokeJoinToken(_) => "RevokeJoinToken",
        Command::RotateClusterToken(_) => "RotateClusterToken",
        Command::Admit(_) => "Admit",
        Command::SealAuthority(_) => "SealAuthority",
        Command::ConfirmAuthority(_) => "ConfirmAuthority",
        Command::SetSuffrage(_) => "SetSuffrage",
        Command::Evict(_) => "Evict",
        Command::IssuePrincipal(_) => "IssuePrincipal",
        Command::RevokeKey(_) => "RevokeKey",
        Command::RevokePrincipal(_) => "RevokePrincipal",
        Command::AssignGroup(_) => "AssignGroup",
        Command::ReportFeatureLevel(_) => "ReportFeatureLevel",
        Command::RaiseLevel(_) => "RaiseLevel",
        Command::SetAddresses(_) => "SetAddresses",
        Command::Renew(_) => "Renew",
        Command::AdoptLeaf(_) => "AdoptLeaf",
        Command::SignAttestation(_) => "SignAttestation",
        Command::RenewPrincipal(_) => "RenewPrincipal",
        Command::StagePolicy(_) => "StagePolicy",
        Command::ChangePolicy(_) => "ChangePolicy",
        Command::Label(_) => "Label",
        Command::ProveHosts(_) => "ProveHosts",
        Command::EditHosts(_) => "EditHosts",
        Command::SetCluster(_) => "SetCluster",
        Command::ReturnStore(_) => "ReturnStore",
        Command::BindStore(_) => "BindStore",
        Command::CreateGroup(_) => "CreateGroup",
        Command::BindDataStore(_) => "BindDataStore",
        Command::ReportClientPort(_) => "ReportClientPort",
        Command::NoteForTesting(_) => return None,
    })
}

/// How many commands there are at the first level.
pub(super) const COMMANDS: usize = 28;

pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

pub(super) fn line(logged: &Logged) -> String {
    let voters: Vec<String> = logged.members.voters.iter().map(ToString::to_string).collect();
    let outcome = crate::codec::encode(&logged.outcome).unwrap();
    let name = name_of(&logged.stamped.command).unwrap();
    format!("{name} [{}]\n  {}\n  {}\n", voters.join(" "), hex(&logged.stamped.encode().unwrap()), hex(&outcome))
}

#[test]
fn a_log_of_every_command_is_encoded_as_it_always_was() {
    let rig = logged();
    let names: BTreeSet<_> = rig.2.iter().filter_map(|logged| name_of(&logged.stamped.command)).collect();
    assert_eq!(names.len(), COMMANDS, "{names:?}");
    let all: String = rig.2.iter().map(line).collect();
    let differs = all.lines().zip(LOG.lines()).find(|(now, then)| now != then);
    assert!(all == LOG, "the encoding changed: raise the version or the feature level; first: {differs:?}\n{all}");
}

/// The entries are read as bytes alone: nothing here knows what they were made of.
#[test]
fn the_golden_log_leads_to_the_state_and_the_outcomes_that_it_led_to() {
    let mut state = TrustState::new();
    let lines: Vec<&str> = LOG.lines().collect();
    let bytes = |line: &str| data_encoding::HEXLOWER.decode(line.trim().as_bytes()).unwrap();
    for entry in lines.chunks(3) {
        let voters = entry[0].split_once('[').unwrap().1.trim_end_matches(']');
        let voters: BTreeSet<NodeId> = voters.split_whitespace().map(|node| NodeId(node.parse().unwrap())).collect();
        let learners = if voters.is_empty() { BTreeSet::new() } else { BTreeSet::from([NodeId(4)]) };
        let stamped = Stamped::decode(FEATURE_LEVEL, &bytes(entry[1])).unwrap();
        let outcome = state.apply(&stamped, &GroupMembers { voters, learners }).unwrap();
        let expected: Outcome = crate::codec::decode(&bytes(entry[2])).unwrap();
        assert_eq!(outcome, expected, "{}", entry[0]);
    }
    assert_eq!(state, logged().0);
}

/// Tables keep the sum of their entries' digests: it must be the one that they have when they are read.
#[test]
fn digest_of_a_state_changes_exactly_with_the_state_and_is_that_of_its_snapshot() {
    let (mut state, log) = (TrustState::new(), logged().2);
    let mut seen = BTreeSet::new();
    for Logged { members, stamped, .. } in &log {
        let before = (state.encode().unwrap(), state.digest().unwrap());
        state.apply(stamped, members).unwrap();
        let (encoded, digest) = (state.encode().unwrap(), state.digest().unwrap());
        assert_eq!(encoded == before.0, digest == before.1, "{:?}", stamped.command);
        let read = TrustState::decode(FEATURE_LEVEL, &encoded).unwrap();
        assert_eq!((read.digest().unwrap(), &read), (digest, &state), "{:?}", stamped.command);
        seen.insert(digest);
    }
    assert!(seen.len() > 30, "{}", seen.len());
}

/// Members of the first release have no other digest to compare with.
#[test]
fn digest_at_the_first_level_is_what_its_first_release_made() {
    let mut state = TrustState::new();
    for Logged { members, stamped, .. } in logged().2 {
        state.apply(&stamped, &members).unwrap();
    }
    assert_eq!(state.level(), FIRST_LEVEL);
    assert_eq!(hex(&state.digest().unwrap().0), "539a58cc66673a4981d2b2d5c13bcf76c3ba77a5610ab2c0fb5194155112ca82");
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
