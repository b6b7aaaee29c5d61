//! Members: sealed to, promoted, demoted, evicted.

use super::rig::*;
use crate::codec::{self, CodecError, FIRST_LEVEL};
use crate::group::GroupMembers;
use crate::id::{GroupId, NodeId};
use crate::name::Address;
use crate::trust::addresses_transcript;
use crate::trust::command::{
    AddJoinToken, AdoptLeaf, AssignGroup, Command, ConfirmAuthority, Evict, FEATURE_LEVEL, Renew, ReportFeatureLevel,
    RevokeKey, RotateClusterToken, SealAuthority, SetAddresses, SetSuffrage, SignAttestation, Stamped, UnreadableEntry,
};
use crate::trust::member::Suffrage;
use crate::trust::outcome::{Limited, Outcome, Refused, Signer};
use crate::trust::seal::confirm_transcript;
use crate::trust::{TrustState, UnsupportedLevel};

fn suffrage(node: u64, suffrage: Suffrage, keep_authority: bool) -> Command {
    Command::SetSuffrage(SetSuffrage { node: NodeId(node), suffrage, keep_authority })
}

fn evict(node: u64, keep_authority: bool) -> Command {
    Command::Evict(Evict { node: NodeId(node), compromised: false, keep_authority })
}

#[test]
fn a_voter_leaves_only_with_its_copy_of_the_ca_key_accounted_for() {
    let mut rig = Rig::three_voters();
    for command in [suffrage(2, Suffrage::Learner, false), evict(2, false)] {
        assert_eq!(rig.refused(command), Refused::KeepAuthority(NodeId(2)));
    }
    assert!(matches!(rig.apply(suffrage(2, Suffrage::Learner, true)), Outcome::Done(_)));
    assert!(rig.0.sealed().keys().all(|(_, node)| *node != NodeId(2)), "a learner keeps no sealed copy");
    assert!(matches!(rig.apply(evict(2, false)), Outcome::Evicted { .. }), "a learner holds no CA key");
}

#[test]
fn the_last_voter_cannot_leave() {
    let mut rig = Rig::founded();
    assert_eq!(rig.refused(evict(1, true)), Refused::LastVoter(NodeId(1)));
    // A voter that never opened the CA key could not go on alone.
    rig.apply(Command::AddJoinToken(AddJoinToken(voter_record(5, 1))));
    rig.apply(Command::Admit(Box::new(request(2, 5).into())));
    assert_eq!(rig.refused(suffrage(1, Suffrage::Learner, true)), Refused::LastVoter(NodeId(1)));
    rig.open_authority(NodeId(2));
    rig.apply(suffrage(1, Suffrage::Learner, true));
    rig.attest();
    assert!(matches!(rig.apply(evict(1, true)), Outcome::Evicted { .. }));
    assert_eq!(rig.refused(evict(2, true)), Refused::LastVoter(NodeId(2)));
}

#[test]
fn an_evicted_node_is_named_and_stays_evicted() {
    let mut rig = Rig::three_voters();
    rig.apply(evict(3, true));
    assert_eq!(rig.refused(evict(3, true)), Refused::AlreadyEvicted(NodeId(3)));
    assert_eq!(rig.refused(suffrage(3, Suffrage::Voter, true)), Refused::AlreadyEvicted(NodeId(3)));
    assert_eq!(rig.refused(evict(9, true)), Refused::NoSuchNode(NodeId(9)));
    let view = rig.0.view().unwrap();
    assert!(view.revoked_keys.contains(&keys(3).identity.id()) && view.revoked_keys.contains(&leaf_key(3)));
}

#[test]
fn eviction_ends_the_token_that_admitted_the_node_and_compromise_ends_all() {
    let mut rig = Rig::founded();
    for (seed, uses) in [(5, 4), (6, 4), (7, 1)] {
        rig.apply(Command::AddJoinToken(AddJoinToken(record(seed, uses))));
    }
    for seed in [2, 3] {
        rig.apply(Command::Admit(Box::new(request(seed, 5).into())));
    }
    let ended = |outcome| match outcome {
        Outcome::Evicted { tokens_revoked, .. } => tokens_revoked,
        other => panic!("{other:?}"),
    };
    assert_eq!(ended(rig.apply(evict(2, false))), vec![token(5).id()]);
    let compromised = Command::Evict(Evict { node: NodeId(3), compromised: true, keep_authority: false });
    let mut all = vec![token(6).id(), token(7).id()];
    all.sort();
    assert_eq!(ended(rig.apply(compromised)), all, "single-use ones too: its holder may have made them");
}

#[test]
fn only_the_holder_of_the_authority_key_confirms_a_sealed_copy() {
    let mut rig = Rig::founded();
    rig.apply(Command::AddJoinToken(AddJoinToken(voter_record(5, 1))));
    rig.apply(Command::Admit(Box::new(request(2, 5).into())));
    let confirm =
        |signature| Command::ConfirmAuthority(ConfirmAuthority { authority: pin(), node: NodeId(2), signature });
    assert_eq!(rig.refused(confirm(vec![0; 64])), Refused::NotSealed(NodeId(2)));
    rig.apply(Command::SealAuthority(SealAuthority { authority: pin(), node: NodeId(2), sealed: vec![9] }));
    let for_another = key(250).sign(&confirm_transcript(CLUSTER, pin(), NodeId(3), &[9])).to_vec();
    let by_another = key(2).sign(&confirm_transcript(CLUSTER, pin(), NodeId(2), &[9])).to_vec();
    for forged in [vec![], vec![0; 64], for_another, by_another] {
        assert_eq!(rig.refused(confirm(forged)), Refused::Signature(Signer::Authority));
    }
    rig.open_authority(NodeId(2));
    rig.apply(Command::SealAuthority(SealAuthority { authority: pin(), node: NodeId(2), sealed: vec![7] }));
    assert_eq!(rig.0.sealed().get(&(pin(), NodeId(2))).unwrap().ciphertext, [9], "an opened copy was replaced");
}

#[test]
fn an_old_proof_says_nothing_of_a_later_sealed_copy() {
    let mut rig = Rig::three_voters();
    let old = key(250).sign(&confirm_transcript(CLUSTER, pin(), NodeId(2), &[9])).to_vec();
    rig.apply(suffrage(2, Suffrage::Learner, true));
    rig.apply(suffrage(2, Suffrage::Voter, false));
    rig.apply(Command::SealAuthority(SealAuthority { authority: pin(), node: NodeId(2), sealed: vec![66] }));
    let replayed = Command::ConfirmAuthority(ConfirmAuthority { authority: pin(), node: NodeId(2), signature: old });
    assert_eq!(rig.refused(replayed), Refused::Signature(Signer::Authority));
}

#[test]
fn the_key_of_a_member_is_not_revoked_but_the_member_evicted() {
    let mut rig = Rig::three_voters();
    for key in [keys(2).identity.id(), keys(2).ucan.id(), leaf_key(2)] {
        assert_eq!(rig.refused(Command::RevokeKey(RevokeKey(key))), Refused::KeyOfNode(NodeId(2)));
    }
}

#[test]
fn an_old_change_of_addresses_does_not_come_back() {
    let mut rig = Rig::three_voters();
    let to = |rig: &Rig, port: u16| {
        let view = rig.0.view().unwrap();
        let addresses = vec![Address::parse(&format!("10.0.0.2:{port}")).unwrap()];
        let signature = key(2).sign(&addresses_transcript(view, NodeId(2), &addresses));
        Command::SetAddresses(SetAddresses { node: NodeId(2), addresses, signature })
    };
    let first = to(&rig, 1);
    rig.apply(first.clone());
    let second = to(&rig, 2);
    rig.apply(second);
    assert_eq!(rig.refused(first), Refused::Signature(Signer::Identity));
}

#[test]
fn evicting_the_founder_ends_the_cluster_token_that_lies_on_its_disk() {
    let mut rig = Rig::three_voters();
    rig.apply(Command::RotateClusterToken(RotateClusterToken(record(5, 8))));
    let Outcome::Evicted { tokens_revoked, .. } = rig.apply(evict(1, true)) else { panic!() };
    assert_eq!(tokens_revoked, vec![token(5).id()]);
}

#[test]
fn what_is_said_again_changes_nothing_and_is_known_before_it_is_proposed() {
    let mut rig = Rig::three_voters();
    let report = |level| Command::ReportFeatureLevel(ReportFeatureLevel { node: NodeId(2), level });
    rig.apply(report(7));
    let view = rig.0.view().unwrap().clone();
    let same = Outcome::Done(view.generation);
    assert_eq!(rig.0.answered(&report(7), NOW), Some(same.clone()));
    assert_eq!(rig.apply(report(7)), same);
    let addresses = vec![Address::parse("10.0.0.2:7001").unwrap()];
    let signature = key(2).sign(&addresses_transcript(&view, NodeId(2), &addresses));
    let stay = Command::SetAddresses(SetAddresses { node: NodeId(2), addresses, signature });
    assert_eq!(rig.0.answered(&stay, NOW), Some(same.clone()));
    assert_eq!(rig.apply(stay), same);
    assert_eq!(*rig.0.view().unwrap(), view);
    assert_eq!(rig.0.answered(&report(8), NOW), None, "this is to be applied");
    let unknown = Command::ReportFeatureLevel(ReportFeatureLevel { node: NodeId(9), level: 1 });
    assert_eq!(rig.0.answered(&unknown, NOW), Some(Outcome::Refused(Refused::NoSuchNode(NodeId(9)))));
}

#[test]
fn what_would_be_refused_is_known_before_it_is_proposed() {
    let mut rig = Rig::three_voters();
    let endorsement = crate::key::Endorsement::sign(&key(2), CLUSTER, leaf_key(3), 1);
    for command in [
        Command::SignAttestation(SignAttestation { number: 1, node: NodeId(3), signature: [0; 64] }),
        Command::SignAttestation(SignAttestation { number: 99, node: NodeId(1), signature: [0; 64] }),
        Command::AdoptLeaf(AdoptLeaf { node: NodeId(2), renewal: 1 }),
        Command::Renew(Renew { node: NodeId(2), key: leaf_key(3), endorsement: endorsement.clone() }),
        Command::Renew(Renew { node: NodeId(3), key: leaf_key(9), endorsement }),
        Command::SetAddresses(SetAddresses { node: NodeId(2), addresses: vec![], signature: [0; 64] }),
        Command::Admit(Box::new(request(9, 77).into())),
    ] {
        let answered = rig.0.answered(&command, NOW);
        assert_eq!(answered, Some(Outcome::Refused(rig.refused(command.clone()))), "{command:?}");
    }
    // What operators ask for is not answered here.
    assert_eq!(rig.0.answered(&evict(9, true), NOW), None);
}

#[test]
fn addresses_change_by_identity_signature_only() {
    let mut rig = Rig::three_voters();
    let wanted = vec![Address::parse("10.0.0.77:7001").unwrap()];
    let view = rig.0.view().unwrap().clone();
    let set = |signer: u8, node: u64, addresses: &[Address]| {
        Command::SetAddresses(SetAddresses {
            node: NodeId(node),
            addresses: addresses.to_vec(),
            signature: key(signer).sign(&addresses_transcript(&view, NodeId(node), &wanted)),
        })
    };
    assert_eq!(rig.refused(set(3, 2, &wanted)), Refused::Signature(Signer::Identity));
    let others = [wanted.clone(), wanted.clone()].concat();
    assert_eq!(rig.refused(set(2, 2, &others)), Refused::Signature(Signer::Identity));
    assert!(matches!(rig.apply(set(2, 2, &wanted)), Outcome::Done(_)));
    let taken = Refused::AddressTaken { address: wanted[0].clone(), node: NodeId(2) };
    assert_eq!(rig.refused(set(3, 3, &wanted)), taken);
}

#[test]
fn groups_are_assigned_to_members_and_leave_with_them() {
    let mut rig = Rig::three_voters_at(FIRST_LEVEL);
    let assign = |group, members: &[u64]| {
        Command::AssignGroup(AssignGroup {
            group: GroupId(group),
            members: members.iter().map(|id| NodeId(*id)).collect(),
        })
    };
    assert_eq!(rig.refused(assign(7, &[1, 9])), Refused::NoSuchNode(NodeId(9)));
    assert!(matches!(rig.refused(assign(0, &[1])), Refused::Limit { what: Limited::Groups, .. }));
    rig.apply(assign(7, &[1, 2]));
    let assigned = |rig: &Rig, node| rig.0.view().unwrap().assigned(GroupId(7), NodeId(node));
    assert_eq!([1, 2, 3].map(|n| assigned(&rig, n)), [Some(true), Some(true), Some(false)]);
    assert_eq!(rig.0.view().unwrap().assigned(GroupId(8), NodeId(1)), None);
    rig.apply(evict(2, true));
    assert_eq!(assigned(&rig, 2), Some(false));
}

#[test]
fn a_voter_of_the_group_is_not_evicted_before_it_has_left() {
    let nodes = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect();
    let among = |voters: &[u64], learners: &[u64]| GroupMembers { voters: nodes(voters), learners: nodes(learners) };
    let mut rig = Rig::three_voters();
    // Demoted or not, and also where the incoming voters only or the current ones only hold it.
    for voters in [&[1, 2, 3][..], &[2], &[1, 2]] {
        let refused = rig.apply_among(&among(voters, &[]), evict(2, true));
        assert_eq!(refused, Outcome::Refused(Refused::StillVotes(NodeId(2))), "{voters:?}");
    }
    rig.apply(suffrage(2, Suffrage::Learner, true));
    rig.attest();
    let refused = rig.apply_among(&among(&[1, 2, 3], &[]), evict(2, true));
    assert_eq!(refused, Outcome::Refused(Refused::StillVotes(NodeId(2))));
    assert!(rig.0.view().unwrap().members.contains_key(&NodeId(2)));
    let evicted = rig.apply_among(&among(&[1, 3], &[2]), evict(2, true));
    assert!(matches!(evicted, Outcome::Evicted { .. }), "{evicted:?}");
}

#[test]
fn a_command_above_our_level_stops_the_member() {
    let mut state = TrustState::new();
    let above = Stamped { level: FEATURE_LEVEL + 1, ..stamped(NOW, bootstrap()) };
    let refused = Err(UnsupportedLevel { needed: FEATURE_LEVEL + 1, known: FEATURE_LEVEL });
    assert_eq!(state.apply(&above, &GroupMembers::default()), refused);
    assert_eq!(state, TrustState::new());
}

#[test]
fn an_entry_with_an_unknown_command_says_the_level_that_it_needs() {
    let stamped = stamped(NOW, bootstrap());
    let bytes = stamped.encode().unwrap();
    assert_eq!(Stamped::decode(FEATURE_LEVEL, &bytes), Ok(stamped));
    // A variant that does not exist yet, of a level that does not either.
    let unknown = |level: u32| codec::encode_at(level, &(NOW, author(), 250_u32)).unwrap();
    let needed = FEATURE_LEVEL + 1;
    assert_eq!(
        Stamped::decode(FEATURE_LEVEL, &unknown(needed)),
        Err(UnreadableEntry::Level(UnsupportedLevel { needed, known: FEATURE_LEVEL }))
    );
    assert!(matches!(Stamped::decode(FEATURE_LEVEL, &unknown(FEATURE_LEVEL)), Err(UnreadableEntry::Codec(_))));
    assert_eq!(Stamped::decode(FEATURE_LEVEL, &[]), Err(UnreadableEntry::Codec(CodecError::Empty)));
}
