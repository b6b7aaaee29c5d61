//! Renewal: recorded, used, repeated, refused.

use super::rig::*;
use crate::id::{KeyId, NodeId};
use crate::key::Endorsement;
use crate::name::{Address, Host};
use crate::trust::command::{AdoptLeaf, Command, Evict, ProveHosts, Renew, RevokeKey, SetAddresses};
use crate::trust::hosts::Witness;
use crate::trust::outcome::{Admitted, Outcome, Refused, Signer};
use crate::trust::{addresses_transcript, member::Member};

fn next_key(n: u8) -> KeyId {
    key(n).public().id()
}

fn renew(signer: u8, node: u64, leaf: KeyId, renewal: u64) -> Command {
    let endorsement = Endorsement::sign(&key(signer), CLUSTER, leaf, renewal);
    Command::Renew(Renew { node: NodeId(node), key: leaf, endorsement })
}

fn adopt(node: u64, renewal: u64) -> Command {
    Command::AdoptLeaf(AdoptLeaf { node: NodeId(node), renewal })
}

fn renewed(outcome: Outcome) -> Admitted {
    match outcome {
        Outcome::Renewed(admitted) => *admitted,
        other => panic!("expected a renewal, got {other:?}"),
    }
}

fn member(rig: &Rig, node: u64) -> Member {
    rig.0.view().unwrap().members[&NodeId(node)].clone()
}

#[test]
fn both_certificates_count_until_the_next_is_used() {
    let mut rig = Rig::three_voters();
    let first = renewed(rig.apply_at(NOW.plus_secs(600), renew(2, 2, next_key(80), 1)));
    assert_eq!((first.leaf.key, first.leaf.renewal, first.repeated), (next_key(80), 1, false));
    assert_eq!(first.leaf.validity.not_after, NOW.plus_secs(600 + 86_400), "it lives from now on");
    let both = member(&rig, 2);
    assert!(both.leaf_of(leaf_key(2)).is_some() && both.leaf_of(next_key(80)).is_some());
    rig.apply(adopt(2, 1));
    let one = member(&rig, 2);
    assert!(one.leaf_of(leaf_key(2)).is_none() && one.leaf.key == next_key(80) && one.renewed.is_none());
    // Used already: said again, it changes nothing.
    let before = rig.0.clone();
    assert!(matches!(rig.apply(adopt(2, 1)), Outcome::Done(_)));
    assert_eq!(rig.0.view(), before.view());
}

#[test]
fn the_lease_length_is_unknown_before_the_state_says_it() {
    assert_eq!(Rig::empty().0.lease(), None, "the default of this build is no promise");
    assert!(Rig::founded().0.lease().is_some());
}

#[test]
fn a_renewal_asked_for_again_gets_the_same_certificate() {
    let mut rig = Rig::three_voters();
    let first = renewed(rig.apply(renew(2, 2, next_key(80), 1)));
    let again = renewed(rig.apply_at(NOW.plus_secs(99), renew(2, 2, next_key(80), 1)));
    assert_eq!((first.grant, first.leaf), (again.grant.clone(), again.leaf.clone()));
    assert!(again.repeated);
    rig.apply(adopt(2, 1));
    let late = renewed(rig.apply_at(NOW.plus_secs(200), renew(2, 2, next_key(80), 1)));
    assert_eq!((late.grant, late.leaf), (again.grant, again.leaf), "also when it is in use");
}

#[test]
fn a_next_certificate_that_ended_before_its_member_had_it_is_issued_once_more_under_the_next_number() {
    let mut rig = Rig::three_voters();
    let first = renewed(rig.apply(renew(2, 2, next_key(80), 1)));
    let end = first.leaf.validity.not_after;
    let late = end.plus_secs(1);
    // Not yet over, the same answer; over, another number, and the same key.
    assert!(renewed(rig.apply_at(end, renew(2, 2, next_key(80), 1))).repeated);
    let next = Refused::RenewalOutOfOrder { node: NodeId(2), next: 2 };
    assert_eq!(rig.0.answered(&renew(2, 2, next_key(80), 1), late), Some(Outcome::Refused(next.clone())));
    assert_eq!(rig.refused_at(late, renew(2, 2, next_key(80), 1)), next);
    // For no other member.
    assert_eq!(rig.refused_at(late, renew(3, 3, next_key(80), 1)), Refused::KeyTaken(NodeId(2)));
    let again = renewed(rig.apply_at(late, renew(2, 2, next_key(80), 2)));
    assert_eq!((again.leaf.key, again.leaf.renewal), (next_key(80), 2));
    assert!(again.leaf.validity.not_after > late && again.leaf.serial != first.leaf.serial);
    // The one in use is not renewed for its own key, however old it is.
    rig.apply_at(late, adopt(2, 2));
    let later = again.leaf.validity.not_after.plus_secs(1);
    assert_eq!(rig.refused_at(later, renew(2, 2, next_key(80), 3)), Refused::KeyTaken(NodeId(2)));
}

#[test]
fn a_member_that_lost_its_next_key_takes_another() {
    let mut rig = Rig::three_voters();
    rig.apply(renew(2, 2, next_key(80), 1));
    assert_eq!(
        rig.refused(renew(2, 2, next_key(81), 1)),
        Refused::RenewalOutOfOrder { node: NodeId(2), next: 2 },
        "a number is given once"
    );
    renewed(rig.apply(renew(2, 2, next_key(81), 2)));
    let now = member(&rig, 2);
    assert!(now.leaf_of(next_key(80)).is_none(), "the one that was never used is gone");
    assert!(now.leaf_of(leaf_key(2)).is_some(), "the one in use is not");
}

#[test]
fn only_the_identity_key_renews() {
    let mut rig = Rig::three_voters();
    let refused = Refused::Signature(Signer::Identity);
    assert_eq!(rig.refused(renew(3, 2, next_key(80), 1)), refused, "another member's word");
    assert_eq!(rig.refused(renew(52, 2, next_key(80), 1)), refused, "the leaf key's word");
    let of_another = Endorsement::sign(&key(2), CLUSTER, next_key(81), 1);
    let command = Command::Renew(Renew { node: NodeId(2), key: next_key(80), endorsement: of_another });
    assert_eq!(rig.refused(command), refused, "for another key");
    let elsewhere = Endorsement::sign(&key(2), crate::id::ClusterId([9; 16]), next_key(80), 1);
    let command = Command::Renew(Renew { node: NodeId(2), key: next_key(80), endorsement: elsewhere });
    assert_eq!(rig.refused(command), refused, "in another cluster");
}

#[test]
fn a_key_that_is_taken_revoked_or_out_of_order_is_not_certified() {
    let mut rig = Rig::three_voters();
    for taken in [next_key(3), leaf_key(3), leaf_key(2), next_key(103)] {
        let holder = if taken == leaf_key(2) { 2 } else { 3 };
        assert_eq!(rig.refused(renew(2, 2, taken, 1)), Refused::KeyTaken(NodeId(holder)));
    }
    rig.apply(Command::RevokeKey(RevokeKey(next_key(82))));
    assert_eq!(rig.refused(renew(2, 2, next_key(82), 1)), Refused::KeyRevoked);
    for number in [0, 2, u64::MAX] {
        let refused = rig.refused(renew(2, 2, next_key(80), number));
        assert_eq!(refused, Refused::RenewalOutOfOrder { node: NodeId(2), next: 1 });
    }
    assert_eq!(rig.refused(adopt(2, 1)), Refused::RenewalOutOfOrder { node: NodeId(2), next: 0 });
    assert_eq!(rig.refused(renew(9, 9, next_key(80), 1)), Refused::NoSuchNode(NodeId(9)));
}

#[test]
fn an_evicted_member_renews_nothing_and_its_next_key_is_revoked_too() {
    let mut rig = Rig::three_voters();
    rig.apply(renew(3, 3, next_key(80), 1));
    rig.apply(Command::Evict(Evict { node: NodeId(3), compromised: false, keep_authority: true }));
    let revoked = &rig.0.view().unwrap().revoked_keys;
    assert!(revoked.contains(&next_key(80)) && revoked.contains(&leaf_key(3)));
    assert_eq!(rig.refused(renew(3, 3, next_key(81), 2)), Refused::AlreadyEvicted(NodeId(3)));
    assert_eq!(rig.refused(adopt(3, 1)), Refused::AlreadyEvicted(NodeId(3)));
}

#[test]
fn the_next_certificate_holds_the_addresses_of_now_and_keeps_them_from_others() {
    let mut rig = Rig::three_voters();
    let found = |rig: &mut Rig, text: &str| {
        let witness = Witness { by: NodeId(1), hosts: vec![Host::parse(text).unwrap()] };
        assert!(matches!(rig.apply(Command::ProveHosts(ProveHosts { node: NodeId(2), witness })), Outcome::Done(_)));
    };
    found(&mut rig, "10.0.0.2");
    rig.apply(renew(2, 2, next_key(79), 1));
    rig.apply(adopt(2, 1));
    let addresses = vec![Address::parse("10.0.9.2:7001").unwrap()];
    let signature = key(2).sign(&addresses_transcript(rig.0.view().unwrap(), NodeId(2), &addresses));
    rig.apply(Command::SetAddresses(SetAddresses { node: NodeId(2), addresses: addresses.clone(), signature }));
    found(&mut rig, "10.0.9.2");
    let next = renewed(rig.apply(renew(2, 2, next_key(80), 2)));
    assert_eq!(next.hosts, [addresses[0].host.clone()]);
    // The certificate in use still holds the old one.
    let old = vec![Address::parse("10.0.0.2:7001").unwrap()];
    let take = |rig: &Rig| {
        let signature = key(3).sign(&addresses_transcript(rig.0.view().unwrap(), NodeId(3), &old));
        Command::SetAddresses(SetAddresses { node: NodeId(3), addresses: old.clone(), signature })
    };
    let command = take(&rig);
    assert_eq!(rig.refused(command), Refused::AddressTaken { address: old[0].clone(), node: NodeId(2) });
    rig.apply(adopt(2, 2));
    let command = take(&rig);
    assert!(matches!(rig.apply(command), Outcome::Done(_)));
}
