//! Where clients reach members: who says so, what is refused, and the step to the level that brings it.

use std::collections::BTreeSet;

use super::golden::hex;
use super::rig::*;
use crate::id::NodeId;
use crate::name::Address;
use crate::trust::TrustState;
use crate::trust::client_ports::CLIENT_PORTS_LEVEL;
use crate::trust::command::{Command, Evict, RaiseLevel, ReportClientPort, ReportFeatureLevel};
use crate::trust::outcome::{Outcome, Refused};
use crate::trust::placement::PLACEMENT_LEVEL;

const SNAPSHOT: &str = include_str!("golden_snapshot_3.hex");
const LOG: &str = include_str!("golden_log_3.txt");

fn at(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn report(node: u64, address: Option<&str>) -> Command {
    Command::ReportClientPort(ReportClientPort { node: NodeId(node), address: address.map(at) })
}

fn evict(node: u64) -> Command {
    Command::Evict(Evict { node: NodeId(node), compromised: false, keep_authority: true })
}

fn of_voters(rig: &Rig) -> Vec<String> {
    rig.0.client_ports_of_voters().map(ToString::to_string).collect()
}

#[test]
fn member_says_where_clients_reach_it_and_can_take_it_back() {
    let mut rig = Rig::three_voters_at(CLIENT_PORTS_LEVEL);
    let (generation, events) = (rig.0.view().unwrap().generation, rig.1.len());
    rig.apply(report(2, Some("10.0.0.2:7102")));
    rig.apply(report(1, Some("10.0.0.1:7102")));
    rig.apply(report(1, Some("10.0.0.1:7102")));
    assert_eq!(of_voters(&rig), ["10.0.0.1:7102", "10.0.0.2:7102"]);
    rig.apply(report(2, None));
    assert_eq!(of_voters(&rig), ["10.0.0.1:7102"]);
    assert_eq!(rig.0.client_port(NodeId(2)), None);
    assert_eq!(rig.0.view().unwrap().generation, generation, "no trust changed");
    let names: Vec<_> = rig.1[events..].iter().map(|event| event.name).collect();
    assert_eq!(names, ["node.client_port"; 3], "what was said again is no event");
}

#[test]
fn attack_member_names_the_host_of_another_for_its_clients() {
    let mut rig = Rig::three_voters_at(CLIENT_PORTS_LEVEL);
    let of_two = rig.0.view().unwrap().members[&NodeId(2)].addresses[0].clone();
    let taken = Some(of_two.to_string());
    assert!(matches!(rig.refused(report(3, taken.as_deref())), Refused::HostTaken { .. }));
    assert!(matches!(rig.apply(report(2, taken.as_deref())), Outcome::Done(_)));
    assert_eq!(rig.refused(report(9, Some("10.0.0.9:7102"))), Refused::NoSuchNode(NodeId(9)));
}

#[test]
fn evicted_member_is_named_to_no_client() {
    let mut rig = Rig::three_voters_at(CLIENT_PORTS_LEVEL);
    rig.apply(report(3, Some("10.0.0.3:7102")));
    assert!(matches!(rig.apply(evict(3)), Outcome::Evicted { .. }));
    assert!(of_voters(&rig).is_empty());
    assert_eq!(rig.0.client_port(NodeId(3)), None);
    assert_eq!(rig.refused(report(3, Some("10.0.0.3:7102"))), Refused::AlreadyEvicted(NodeId(3)));
}

#[test]
fn level_before_does_not_know_client_ports() {
    let mut rig = Rig::three_voters_at(PLACEMENT_LEVEL);
    let needed = rig.refused(report(1, Some("10.0.0.1:7102")));
    assert!(matches!(needed, Refused::AboveLevel { needed: CLIENT_PORTS_LEVEL, .. }), "{needed:?}");
    for node in [1, 2, 3] {
        let level = CLIENT_PORTS_LEVEL;
        rig.apply(Command::ReportFeatureLevel(ReportFeatureLevel { node: NodeId(node), level }));
    }
    let raise = RaiseLevel { level: CLIENT_PORTS_LEVEL, without: BTreeSet::new(), by_itself: false };
    assert!(matches!(rig.apply(Command::RaiseLevel(raise)), Outcome::Done(_)));
    let before = rig.0.digest().unwrap();
    rig.apply(report(1, Some("10.0.0.1:7102")));
    assert_ne!(rig.0.digest().unwrap(), before);
    let again = TrustState::decode(CLIENT_PORTS_LEVEL, &rig.0.encode().unwrap()).unwrap();
    assert_eq!((&again, again.digest()), (&rig.0, rig.0.digest()));
    assert!(TrustState::decode(PLACEMENT_LEVEL, &rig.0.encode().unwrap()).is_err());
}

/// A state with client ports, by every command of this level.
fn sample() -> Rig {
    let mut rig = Rig::three_voters_at(CLIENT_PORTS_LEVEL);
    rig.apply(report(1, Some("10.0.0.1:7102")));
    rig.apply(report(2, Some("10.0.0.2:7102")));
    rig.apply(report(2, None));
    rig.apply(report(3, Some("n3.example:7102")));
    rig
}

#[test]
fn third_level_is_encoded_as_it_always_was() {
    let rig = sample();
    let encoded = hex(&rig.0.encode().unwrap());
    let log: String = rig.2.iter().map(super::golden::line).collect();
    assert!(encoded == SNAPSHOT.trim(), "the encoding changed: raise the feature level\n{encoded}");
    assert!(log == LOG, "the encoding changed: raise the feature level\n{log}");
    let bytes = data_encoding::HEXLOWER.decode(SNAPSHOT.trim().as_bytes()).unwrap();
    assert_eq!(TrustState::decode(CLIENT_PORTS_LEVEL, &bytes).unwrap(), rig.0);
}
