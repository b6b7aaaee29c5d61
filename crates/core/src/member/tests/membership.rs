//! The leader's next step, one situation at a time, and as many of them as it takes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::enroll::returning::{ReturnChannel, StoreReturn};
use crate::group::GroupMembers;
use crate::id::{NodeId, StoreId};
use crate::member::membership::{GroupProgress, LAG_MAX, Step, can_remove, next_step};
use crate::trust::TrustState;
use crate::trust::command::{AddJoinToken, BindStore, Command, Evict, SealAuthority, SetSuffrage};
use crate::trust::member::Suffrage;
use crate::trust::tests::rig::*;

const LEADER: NodeId = NodeId(1);
const NEW_STORE: StoreId = StoreId([72; 16]);
const LAST: u64 = 1000;

fn nodes<const N: usize>(nodes: [u64; N]) -> BTreeSet<NodeId> {
    nodes.map(NodeId).into()
}

/// A group with these voters and learners, all of which have the whole log.
fn group(voters: BTreeSet<NodeId>, learners: BTreeSet<NodeId>) -> GroupProgress {
    let matched = voters.iter().chain(&learners).map(|id| (*id, LAST)).collect();
    GroupProgress { members: GroupMembers { voters, learners }, matched, last_log: LAST }
}

fn step(state: &TrustState, group: &GroupProgress) -> Option<Step> {
    next_step(state, group, LEADER)
}

fn suffrage(node: u64, suffrage: Suffrage) -> Command {
    Command::SetSuffrage(SetSuffrage { node: NodeId(node), suffrage, keep_authority: true })
}

fn returning(node: u8) -> Command {
    let here = ReturnChannel { leaf: [3; 32], exporter: [4; 32] };
    let replaces = (StoreId([node; 16]), NEW_STORE);
    Command::ReturnStore(Box::new(StoreReturn::sign(&key(node), (CLUSTER, NodeId(node.into())), replaces, here)))
}

/// Three voters, and learner 4.
fn with_learner() -> Rig {
    let mut rig = Rig::three_voters();
    rig.apply(Command::AddJoinToken(AddJoinToken(record(201, 1))));
    rig.apply(Command::Admit(Box::new(request(4, 201).into())));
    rig
}

#[test]
fn a_new_member_receives_the_log_then_the_ca_key_and_votes_once_it_has_both() {
    let mut rig = with_learner();
    let mut have = group(nodes([1, 2, 3]), nodes([]));
    assert_eq!(step(&rig.0, &have), Some(Step::AddLearner(NodeId(4))));
    have.members.learners.insert(NodeId(4));
    assert_eq!(step(&rig.0, &have), None, "a learner stays one");

    rig.apply(suffrage(4, Suffrage::Voter));
    let seal = Step::Seal { authority: pin(), node: NodeId(4), sealing: [4; 32] };
    assert_eq!(step(&rig.0, &have), Some(seal));
    rig.apply(Command::SealAuthority(SealAuthority { authority: pin(), node: NodeId(4), sealed: vec![9] }));
    assert_eq!(step(&rig.0, &have), None, "its copy is not opened yet");
    rig.open_authority(NodeId(4));
    for (matched, next) in [(None, None), (Some(LAST - LAG_MAX - 1), None), (Some(LAST - LAG_MAX), Some(()))] {
        have.matched.remove(&NodeId(4));
        have.matched.extend(matched.map(|matched| (NodeId(4), matched)));
        let promoted = next.map(|()| Step::SetVoters(nodes([1, 2, 3, 4])));
        assert_eq!(step(&rig.0, &have), promoted, "{matched:?}");
    }
}

#[test]
fn a_voter_leaves_the_voters_before_anything_else_and_a_leader_hands_over_first() {
    let mut rig = with_learner();
    rig.apply(suffrage(2, Suffrage::Learner));
    let have = group(nodes([1, 2, 3]), nodes([]));
    assert_eq!(step(&rig.0, &have), Some(Step::SetVoters(nodes([1, 3]))), "learner 4 waits");

    rig.apply(suffrage(1, Suffrage::Learner));
    let mut have = group(nodes([1, 3]), nodes([]));
    have.matched.clear();
    assert_eq!(step(&rig.0, &have), Some(Step::HandOver(NodeId(3))), "however far it is");
    assert_eq!(step(&rig.0, &group(nodes([1]), nodes([2, 3]))), None, "no voter can take over");
}

#[test]
fn an_evicted_member_receives_the_log_no_more() {
    let mut rig = with_learner();
    rig.apply(Command::Evict(Evict { node: NodeId(4), compromised: false, keep_authority: true }));
    assert_eq!(step(&rig.0, &group(nodes([1, 2, 3]), nodes([4]))), Some(Step::Remove(NodeId(4))));
}

#[test]
fn a_member_with_a_new_store_leaves_the_group_and_enters_again() {
    let mut rig = Rig::three_voters();
    rig.apply(returning(2));
    let bind = Step::BindStore { node: NodeId(2), store: NEW_STORE };
    assert_eq!(step(&rig.0, &group(nodes([1, 2, 3]), nodes([]))), Some(Step::SetVoters(nodes([1, 3]))));
    assert_eq!(step(&rig.0, &group(nodes([1, 3]), nodes([2]))), Some(Step::Remove(NodeId(2))));
    let have = group(nodes([1, 3]), nodes([]));
    assert_eq!(step(&rig.0, &have), Some(bind));
    rig.apply_among(&have.members, Command::BindStore(BindStore { node: NodeId(2), store: NEW_STORE }));
    assert_eq!(step(&rig.0, &have), Some(Step::AddLearner(NodeId(2))));
}

#[test]
fn the_heir_is_the_other_voter_that_is_furthest() {
    let mut have = group(nodes([1, 2, 3]), nodes([4]));
    have.matched = [(NodeId(2), 7), (NodeId(4), LAST)].into();
    assert_eq!(have.heir(LEADER), Some(NodeId(2)));
    assert_eq!(have.heir(NodeId(2)), Some(NodeId(3)), "one of those of which nothing is known");
    assert_eq!(have.heir_among(&nodes([3, 4])), Some(NodeId(3)), "a learner leads nothing");
    assert_eq!(have.heir_among(&nodes([4])), None);
}

#[test]
fn both_before_and_after_the_removal_a_majority_must_be_there() {
    let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
    let decide = |voters, leaving, reached| can_remove(&ids(voters), NodeId(leaving), &ids(reached));
    assert!(decide(&[1, 2, 3], 3, &[1, 2]), "the one that leaves is down");
    assert!(!decide(&[1, 2, 3], 3, &[1, 3]), "one that stays is down");
    assert!(!decide(&[1, 2, 3], 3, &[1]));
    assert!(!decide(&[1, 2], 2, &[1]), "of two, both decide");
    assert!(decide(&[1, 2], 2, &[1, 2]));
    assert!(decide(&[1, 2, 3, 4], 4, &[1, 2, 4]));
    assert!(!decide(&[1, 2, 3, 4], 4, &[1, 2]), "two of four are no majority");
}

proptest! {
    /// Whatever Raft has and the operators wish, the steps end where the state wants, and leave a quorum at each.
    #[test]
    fn steps_lead_from_any_group_to_the_one_that_is_wanted(
        voters in proptest::collection::btree_set((1_u64..=4).prop_map(NodeId), 1..=4),
        learners in proptest::collection::btree_set((1_u64..=5).prop_map(NodeId), 0..=5),
        wishes in proptest::collection::vec((2_u64..=4, any::<bool>()), 0..4),
        returns in proptest::option::of(2_u8..=3),
    ) {
        let mut rig = with_learner();
        for (node, votes) in wishes {
            rig.apply(suffrage(node, if votes { Suffrage::Voter } else { Suffrage::Learner }));
        }
        if let Some(node) = returns {
            rig.apply(returning(node));
        }
        let voters: BTreeSet<NodeId> = voters.into_iter().chain([LEADER]).collect();
        let mut have = group(voters.clone(), learners.difference(&voters).copied().collect());
        let mut taken = 0;
        while let Some(step) = step(&rig.0, &have) {
            let before = have.members.voters.clone();
            match step {
                Step::AddLearner(node) => {
                    prop_assert!(have.members.learners.insert(node));
                    have.matched.insert(node, LAST);
                }
                Step::Remove(node) => prop_assert!(have.members.learners.remove(&node)),
                Step::SetVoters(voters) => {
                    prop_assert_eq!(before.symmetric_difference(&voters).count(), 1, "one at a time");
                    have.members.learners.retain(|id| !voters.contains(id));
                    have.members.learners.extend(before.difference(&voters));
                    have.members.voters = voters;
                }
                Step::Seal { node, .. } => rig.open_authority(node),
                Step::BindStore { node, store } => {
                    rig.apply_among(&have.members, Command::BindStore(BindStore { node, store }));
                }
                Step::HandOver(heir) => prop_assert!(false, "the leader stays a voter, and {heir} is to lead"),
            }
            taken += 1;
            prop_assert!(taken < 32);
            prop_assert!(have.members.voters.contains(&LEADER));
        }
        let view = rig.0.view().unwrap();
        let wanted: BTreeSet<NodeId> = view.members.voters().map(|member| member.id).collect();
        prop_assert_eq!(&have.members.voters, &wanted);
        let all: BTreeSet<NodeId> = view.members.scan().keys().copied().collect();
        prop_assert_eq!(&have.members.learners, &all.difference(&wanted).copied().collect::<BTreeSet<_>>());
    }
}
