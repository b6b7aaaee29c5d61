//! Placement apart from the view: ids, versions, stores, and the step to the level that brings it.

use std::collections::BTreeSet;

use super::golden::hex;
use super::rig::*;
use crate::codec::FIRST_LEVEL;
use crate::id::{GroupId, NodeId, StoreId};
use crate::trust::TrustState;
use crate::trust::command::{
    AssignGroup, BindDataStore, Command, CreateGroup, Evict, FEATURE_LEVEL, RaiseLevel, ReportFeatureLevel,
};
use crate::trust::outcome::{Outcome, Refused};
use crate::trust::placement::{PLACEMENT_LEVEL, PlacementVersion};

const SNAPSHOT: &str = include_str!("golden_snapshot_2.hex");
const LOG: &str = include_str!("golden_log_2.txt");

fn nodes(members: &[u64]) -> Vec<NodeId> {
    members.iter().copied().map(NodeId).collect()
}

fn create(members: &[u64]) -> Command {
    Command::CreateGroup(CreateGroup { members: nodes(members) })
}

fn assign(group: u64, members: &[u64]) -> Command {
    Command::AssignGroup(AssignGroup { group: GroupId(group), members: nodes(members) })
}

fn bind(node: u64, store: u8) -> Command {
    Command::BindDataStore(BindDataStore { node: NodeId(node), store: StoreId([store; 16]) })
}

fn evict(node: u64) -> Command {
    Command::Evict(Evict { node: NodeId(node), compromised: false, keep_authority: true })
}

fn placed(group: u64, version: u64) -> Outcome {
    Outcome::Placed { group: GroupId(group), version: PlacementVersion(version) }
}

fn assigned(rig: &Rig, group: u64) -> [Option<bool>; 3] {
    [1, 2, 3].map(|node| rig.0.assigned(GroupId(group), NodeId(node)))
}

fn raise(rig: &mut Rig) {
    for node in [1, 2, 3] {
        rig.apply(Command::ReportFeatureLevel(ReportFeatureLevel { node: NodeId(node), level: PLACEMENT_LEVEL }));
    }
    let raise = RaiseLevel { level: PLACEMENT_LEVEL, without: BTreeSet::new(), by_itself: false };
    assert!(matches!(rig.apply(Command::RaiseLevel(raise)), Outcome::Done(_)));
}

#[test]
fn id_of_a_removed_group_is_never_used_again() {
    let mut rig = Rig::three_voters_at(PLACEMENT_LEVEL);
    assert_eq!(rig.apply(create(&[1, 2])), placed(1, 1));
    assert_eq!(rig.apply(create(&[3])), placed(2, 2));
    assert_eq!(rig.apply(assign(2, &[])), placed(2, 3));
    assert_eq!(rig.0.assigned(GroupId(2), NodeId(3)), None);
    assert_eq!(rig.refused(assign(2, &[1])), Refused::NoSuchGroup(GroupId(2)));
    assert_eq!(rig.apply(create(&[2, 3])), placed(3, 4));
    assert_eq!(assigned(&rig, 1), [Some(true), Some(true), Some(false)]);
    assert_eq!(assigned(&rig, 3), [Some(false), Some(true), Some(true)]);
    for (command, why) in [
        (create(&[1, 9]), Refused::NoSuchNode(NodeId(9))),
        (create(&[]), Refused::GroupWithoutMembers),
        (assign(1, &[9]), Refused::NoSuchNode(NodeId(9))),
        (assign(0, &[1]), Refused::NoSuchGroup(GroupId(0))),
        (assign(9, &[1]), Refused::NoSuchGroup(GroupId(9))),
    ] {
        assert_eq!(rig.refused(command.clone()), why, "{command:?}");
    }
}

#[test]
fn placement_raises_no_generation_and_is_an_event() {
    let mut rig = Rig::three_voters_at(PLACEMENT_LEVEL);
    let (generation, events) = (rig.0.view().unwrap().generation, rig.1.len());
    rig.apply(create(&[1]));
    rig.apply(assign(1, &[1, 2]));
    rig.apply(bind(2, 70));
    assert_eq!(rig.0.view().unwrap().generation, generation);
    let names: Vec<_> = rig.1[events..].iter().map(|event| event.name).collect();
    assert_eq!(names, ["group.created", "group.assigned", "node.data_store_bound"]);
}

#[test]
fn member_with_another_data_store_leaves_every_group_but_the_first() {
    let mut rig = Rig::three_voters_at(PLACEMENT_LEVEL);
    rig.apply(bind(2, 70));
    rig.apply(create(&[1, 2]));
    rig.apply(create(&[2, 3]));
    let version = rig.0.placement().version();
    rig.apply(bind(2, 70));
    assert_eq!(rig.0.placement().version(), version, "said again");
    assert_eq!(assigned(&rig, 1), [Some(true), Some(true), Some(false)]);
    rig.apply(bind(2, 71));
    assert_eq!(rig.0.placement().data_store(NodeId(2)), Some(StoreId([71; 16])));
    assert_eq!(assigned(&rig, 1), [Some(true), Some(false), Some(false)]);
    assert_eq!(assigned(&rig, 2), [Some(false), Some(false), Some(true)]);
    assert_eq!(rig.0.assigned(GroupId::TRUST, NodeId(2)), Some(true));
    assert_eq!(rig.refused(bind(9, 72)), Refused::NoSuchNode(NodeId(9)));
}

#[test]
fn evicted_member_is_forgotten_by_the_placement() {
    let mut rig = Rig::three_voters_at(PLACEMENT_LEVEL);
    rig.apply(bind(3, 73));
    rig.apply(create(&[2, 3]));
    assert!(matches!(rig.apply(evict(3)), Outcome::Evicted { .. }));
    assert_eq!(assigned(&rig, 1), [Some(false), Some(true), Some(false)]);
    assert_eq!(rig.0.placement().data_store(NodeId(3)), None);
    assert_eq!(rig.0.assigned(GroupId::TRUST, NodeId(3)), Some(false));
}

#[test]
fn assignments_leave_the_view_when_the_level_rises() {
    let mut rig = Rig::three_voters_at(FIRST_LEVEL);
    assert!(matches!(rig.refused(create(&[1])), Refused::AboveLevel { needed: PLACEMENT_LEVEL, .. }));
    assert!(matches!(rig.refused(bind(1, 70)), Refused::AboveLevel { needed: PLACEMENT_LEVEL, .. }));
    rig.apply(assign(7, &[1, 2]));
    rig.apply(assign(4, &[3]));
    let before = [4, 7].map(|group| assigned(&rig, group));
    assert!(rig.0.placement().groups().is_empty());
    // What a binary of the first level wrote, read by this one.
    let rig_1 = TrustState::decode(FIRST_LEVEL, &rig.0.encode().unwrap()).unwrap();
    assert_eq!((rig_1.encode(), rig_1.digest()), (rig.0.encode(), rig.0.digest()));
    raise(&mut rig);
    assert!(rig.0.view().unwrap().groups.is_empty());
    assert_eq!([4, 7].map(|group| assigned(&rig, group)), before);
    assert_eq!(rig.apply(create(&[1])), placed(8, 2));
    let again = TrustState::decode(FEATURE_LEVEL, &rig.0.encode().unwrap()).unwrap();
    assert_eq!((&again, again.digest()), (&rig.0, rig.0.digest()));
    assert!(TrustState::decode(FIRST_LEVEL, &rig.0.encode().unwrap()).is_err(), "the first level does not know it");
}

#[test]
fn digest_changes_with_each_change_of_the_placement() {
    let mut rig = Rig::three_voters_at(PLACEMENT_LEVEL);
    let mut seen = BTreeSet::from([rig.0.digest().unwrap()]);
    for command in [create(&[1]), bind(2, 70), assign(1, &[1, 2]), bind(2, 71), create(&[3]), assign(2, &[])] {
        rig.apply(command.clone());
        assert!(seen.insert(rig.0.digest().unwrap()), "{command:?}");
    }
}

/// A state with placements, by every command of this level.
pub(super) fn sample() -> Rig {
    let mut rig = Rig::three_voters_at(PLACEMENT_LEVEL);
    rig.apply(bind(2, 70));
    rig.apply(create(&[1, 2]));
    rig.apply(create(&[2, 3]));
    rig.apply(assign(1, &[1, 3]));
    rig.apply(bind(3, 71));
    rig
}

#[test]
fn second_level_is_encoded_as_it_always_was() {
    let rig = sample();
    let encoded = hex(&rig.0.encode().unwrap());
    let log: String = rig.2.iter().map(super::golden::line).collect();
    assert!(encoded == SNAPSHOT.trim(), "the encoding changed: raise the feature level\n{encoded}");
    assert!(log == LOG, "the encoding changed: raise the feature level\n{log}");
    let bytes = data_encoding::HEXLOWER.decode(SNAPSHOT.trim().as_bytes()).unwrap();
    assert_eq!(TrustState::decode(FEATURE_LEVEL, &bytes).unwrap(), rig.0);
}
