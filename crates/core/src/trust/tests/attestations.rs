//! Attestations: made, signed, followed, and refused where they are forged.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rig::*;
use crate::id::{AuthorityId, Generation, NodeId, StoreId};
use crate::trust::attestation::{Attestation, AttestedVoter, ChainBroken, Signature, SignedAttestation, follow};
use crate::trust::command::{AddJoinToken, Command, Evict, RevokeKey, SetSuffrage, SignAttestation};
use crate::trust::member::Suffrage;
use crate::trust::outcome::{Outcome, Refused, Signer};
use crate::trust::recognition::{AnswerError, AttestationClaim, Recognition};

fn sign(rig: &mut Rig, number: u64, node: u8) -> Outcome {
    let attestation = Arc::clone(&rig.0.attestations().get(number).unwrap().attestation);
    let signature = key(node).sign(&attestation.transcript());
    rig.apply(Command::SignAttestation(SignAttestation { number, node: NodeId(node.into()), signature }))
}

/// Voters 1 to 3, and all of them have signed every attestation that they may sign.
fn attested() -> Rig {
    let mut rig = Rig::three_voters();
    rig.attest();
    rig
}

fn evict(rig: &mut Rig, node: u64) {
    rig.apply(Command::Evict(Evict { node: NodeId(node), compromised: false, keep_authority: true }));
}

fn chain_after(rig: &Rig, known: u64) -> Vec<SignedAttestation> {
    rig.0.chain_after(known).cloned().collect()
}

fn generation(rig: &Rig) -> Generation {
    rig.0.view().unwrap().generation
}

#[test]
fn a_change_of_voters_authorities_or_evictions_makes_an_attestation_and_nothing_else_does() {
    let mut rig = attested();
    let count = rig.0.attestations().next_number();
    rig.apply(Command::RevokeKey(RevokeKey(key(99).public().id())));
    rig.apply(Command::AddJoinToken(AddJoinToken(record(5, 1))));
    rig.apply(Command::Admit(Box::new(request(4, 5).into())));
    assert_eq!(rig.0.attestations().next_number(), count, "a learner, a token, a key");
    evict(&mut rig, 4);
    let last = &rig.0.attestations().last().unwrap().1.attestation;
    assert_eq!((rig.0.attestations().next_number(), last.evicted.contains(&NodeId(4))), (count + 1, true));
    assert_eq!(last.generation, generation(&rig));
    assert_eq!(rig.0.view().unwrap().attestation, *last);
    rig.apply(Command::SetSuffrage(SetSuffrage { node: NodeId(3), suffrage: Suffrage::Learner, keep_authority: true }));
    assert_eq!(rig.0.attestations().next_number(), count + 2);
}

#[test]
fn a_majority_of_the_voters_before_signs_and_members_see_when_it_has() {
    let mut rig = attested();
    evict(&mut rig, 3);
    let (number, at) = (rig.0.attestations().next_number() - 1, generation(&rig));
    assert!(!rig.0.is_attested(at) && rig.0.chain_after(number - 1).next().is_none());
    sign(&mut rig, number, 1);
    assert!(!rig.0.is_attested(at), "one of three");
    assert_eq!(generation(&rig), at);
    sign(&mut rig, number, 1);
    assert!(!rig.0.is_attested(at), "twice the same");
    sign(&mut rig, number, 2);
    assert!(rig.0.is_attested(at));
    assert_eq!((generation(&rig), rig.0.view().unwrap().attested), (Generation(at.0 + 1), number));
    // More than enough are not kept.
    let before = rig.0.clone();
    sign(&mut rig, number, 3);
    assert_eq!(rig.0, before);
}

#[test]
fn who_must_sign_is_not_evicted_before_it_has() {
    let mut rig = Rig::founded();
    rig.apply(Command::AddJoinToken(AddJoinToken(voter_record(5, 2))));
    rig.apply(Command::Admit(Box::new(request(2, 5).into())));
    rig.open_authority(NodeId(2));
    let evict_2 = || Command::Evict(Evict { node: NodeId(2), compromised: true, keep_authority: true });
    let missing = |number| Refused::SignatureMissing { node: NodeId(2), number };
    let of_founder = Command::Evict(Evict { node: NodeId(1), compromised: false, keep_authority: true });
    assert_eq!(rig.refused(of_founder), Refused::SignatureMissing { node: NodeId(1), number: 0 });
    rig.attest();
    // Of two voters both must sign: not even the eviction's own attestation could be completed.
    assert_eq!(rig.refused(evict_2()), missing(2));
    rig.apply(Command::SetSuffrage(SetSuffrage { node: NodeId(2), suffrage: Suffrage::Learner, keep_authority: true }));
    let demoted = generation(&rig);
    assert_eq!(rig.refused(evict_2()), missing(2));
    assert_eq!(rig.0.unsigned(), [NodeId(1), NodeId(2)].into());
    rig.sign_one(1);
    assert_eq!(rig.refused(evict_2()), missing(2), "its own signature is the one that is missing");
    assert_eq!((rig.0.unsigned(), rig.0.is_attested(demoted)), ([NodeId(2)].into(), false));
    // A member that never had to sign is not concerned.
    rig.apply(Command::AddJoinToken(AddJoinToken(record(6, 1))));
    rig.apply(Command::Admit(Box::new(request(3, 6).into())));
    assert_eq!((rig.0.needs(NodeId(3)), rig.0.needs(NodeId(2))), (None, Some(2)));
    rig.sign_one(2);
    assert_eq!((rig.0.needs(NodeId(2)), rig.0.is_attested(demoted)), (None, true));
    assert!(matches!(rig.apply(evict_2()), Outcome::Evicted { .. }));
    rig.attest();
    assert!(rig.0.is_attested(generation(&rig)));
}

#[test]
fn a_dead_voter_is_evicted_without_its_signature_where_the_others_are_enough() {
    let mut rig = attested();
    rig.apply(Command::SetSuffrage(SetSuffrage { node: NodeId(3), suffrage: Suffrage::Learner, keep_authority: true }));
    evict(&mut rig, 3);
    assert!(rig.0.view().unwrap().evicted.contains_key(&NodeId(3)), "two of three can sign, and need not have");
    // Now each of the two must.
    let second = Command::Evict(Evict { node: NodeId(2), compromised: false, keep_authority: true });
    assert!(matches!(rig.refused(second), Refused::SignatureMissing { .. }));
    for node in [1, 2].repeat(4) {
        rig.sign_one(node);
    }
    assert!(rig.0.is_attested(generation(&rig)));
}

#[test]
fn no_other_node_signs() {
    let mut rig = attested();
    evict(&mut rig, 3);
    let number = rig.0.attestations().next_number() - 1;
    let attestation = Arc::clone(&rig.0.attestations().get(number).unwrap().attestation);
    let command = |number, node, by: u8| {
        let signature = key(by).sign(&attestation.transcript());
        Command::SignAttestation(SignAttestation { number, node: NodeId(node), signature })
    };
    assert_eq!(rig.refused(command(number, 9, 9)), Refused::NotASigner { node: NodeId(9), number });
    assert_eq!(rig.refused(command(number, 1, 9)), Refused::Signature(Signer::Identity));
    assert_eq!(rig.refused(command(number, 1, 51)), Refused::Signature(Signer::Identity), "the leaf key");
    for beyond in [number + 1, u64::MAX] {
        assert_eq!(rig.refused(command(beyond, 1, 1)), Refused::NotASigner { node: NodeId(1), number: beyond });
    }
    // Of another attestation.
    let other = Arc::clone(&rig.0.attestations().get(0).unwrap().attestation);
    let signature = key(1).sign(&other.transcript());
    let command = Command::SignAttestation(SignAttestation { number, node: NodeId(1), signature });
    assert_eq!(rig.refused(command), Refused::Signature(Signer::Identity));
}

#[test]
fn a_member_that_knows_one_attestation_follows_to_the_newest() {
    let mut rig = attested();
    let known = Arc::clone(&rig.0.attestations().get(0).unwrap().attestation);
    evict(&mut rig, 3);
    rig.attest();
    let (newest, evicted) = follow(&known, &chain_after(&rig, 0)).unwrap();
    assert_eq!(newest, rig.0.attestations().last().unwrap().1.attestation);
    assert!(evicted.contains(&NodeId(3)));
}

#[test]
fn old_keys_forge_no_successor() {
    let rig = attested();
    let known = Arc::clone(&rig.0.attestations().last().unwrap().1.attestation);
    let forged = |signers: &[u8], edit: fn(&mut Attestation)| {
        let mut next = Attestation {
            number: known.number + 1,
            generation: Generation(known.generation.0 + 1),
            previous: known.digest(),
            ..Attestation::clone(&known)
        };
        edit(&mut next);
        let signed = |n: &u8| (NodeId((*n).into()), Signature(key(*n).sign(&next.transcript())));
        let signatures: BTreeMap<_, _> = signers.iter().map(signed).collect();
        follow(&known, &[SignedAttestation { attestation: Arc::new(next), signatures }]).map(|_| ())
    };
    let number = known.number + 1;
    assert_eq!(forged(&[1, 2], |_| {}), Ok(()), "this is how it is done");
    assert_eq!(forged(&[], |_| {}), Err(ChainBroken::Signatures(number)));
    assert_eq!(forged(&[1], |_| {}), Err(ChainBroken::Signatures(number)), "one evicted voter alone");
    assert_eq!(forged(&[1, 9, 8], |_| {}), Err(ChainBroken::Signatures(number)), "with unknown voters");
    let by_its_own_voters: fn(&mut Attestation) = |s| {
        let voter = |n| AttestedVoter { identity: key(n).public(), store: StoreId([n; 16]) };
        s.voters = [9, 8].map(|n| (NodeId(n.into()), voter(n))).into();
    };
    assert_eq!(forged(&[9, 8], by_its_own_voters), Err(ChainBroken::Signatures(number)));
    let out_of_order: [fn(&mut Attestation); 6] = [
        |s| s.number += 1,
        |s| s.number -= 1,
        |s| s.generation.0 -= 1,
        |s| s.previous = [0; 32],
        |s| s.cluster.0[0] ^= 1,
        |s| s.incarnation.0 += 1,
    ];
    for edit in out_of_order {
        assert!(matches!(forged(&[1, 2], edit), Err(ChainBroken::Order(_))));
    }
}

#[test]
fn a_signature_covers_every_field() {
    let attestation = Attestation::clone(&attested().0.attestations().last().unwrap().1.attestation);
    let edits: [fn(&mut Attestation); 10] = [
        |s| s.cluster.0[0] ^= 1,
        |s| s.incarnation.0 += 1,
        |s| s.number += 1,
        |s| s.generation.0 += 1,
        |s| s.previous[0] ^= 1,
        |s| assert!(s.voters.pop_last().is_some()),
        |s| s.voters.values_mut().for_each(|voter| voter.store.0[0] ^= 1),
        |s| s.voters.values_mut().for_each(|voter| voter.identity = key(9).public()),
        |s| assert!(s.authorities.insert(AuthorityId([1; 32]))),
        |s| assert!(s.evicted.insert(NodeId(7))),
    ];
    for edit in edits {
        let mut other = attestation.clone();
        edit(&mut other);
        assert_ne!((other.transcript(), other.digest()), (attestation.transcript(), attestation.digest()));
    }
}

/// What voter `node` of `rig` answers to `recognition`.
fn ask(rig: &Rig, recognition: &mut Recognition, node: u8) -> Result<(), AnswerError> {
    let asked = Arc::clone(recognition.newest());
    let (nonce, number) = recognition.question();
    let chain = chain_after(rig, number);
    let newest = rig.0.newest_attested().unwrap();
    let claim = AttestationClaim::of(NodeId(node.into()), newest);
    let signature = claim.sign(&key(node), &nonce);
    recognition.answer(&asked, &claim, &chain, &signature)
}

#[test]
fn a_returning_member_learns_evictions_before_it_believes_a_voter() {
    let mut rig = attested();
    let stored = Arc::clone(&rig.0.view().unwrap().attestation);
    let old = Rig::of(rig.0.clone());
    evict(&mut rig, 3);
    rig.attest();
    let mut recognition = Recognition::new(stored, [7; 32]);
    // The evicted voter shows the past, and is counted as one of three.
    ask(&old, &mut recognition, 3).unwrap();
    assert!(recognition.recognized().is_none());
    ask(&rig, &mut recognition, 1).unwrap();
    assert!(recognition.recognized().is_none(), "one of the two voters that remain");
    ask(&rig, &mut recognition, 2).unwrap();
    let (newest, evicted) = recognition.recognized().unwrap();
    assert_eq!(*newest, rig.0.view().unwrap().attestation);
    assert!(evicted.contains(&NodeId(3)));
}

#[test]
fn an_answer_for_another_nonce_or_by_another_key_is_not_counted() {
    let rig = attested();
    let stored = Arc::clone(&rig.0.view().unwrap().attestation);
    let mut recognition = Recognition::new(Arc::clone(&stored), [7; 32]);
    let mut answer = |node: u64, by: u8, nonce: [u8; 32], of: u64| {
        let signature = AttestationClaim::of(NodeId(of), &stored).sign(&key(by), &nonce);
        recognition.answer(&stored, &AttestationClaim::of(NodeId(node), &stored), &[], &signature)
    };
    assert_eq!(answer(1, 1, [8; 32], 1), Err(AnswerError::Signature), "replayed");
    assert_eq!(answer(1, 2, [7; 32], 1), Err(AnswerError::Signature));
    assert_eq!(answer(1, 1, [7; 32], 2), Err(AnswerError::Signature));
    assert_eq!(answer(9, 9, [7; 32], 9), Err(AnswerError::Signature), "no voter");
    assert_eq!(answer(1, 1, [7; 32], 1), Ok(()));
    assert_eq!(answer(1, 1, [7; 32], 1), Ok(()), "counted once");
    assert!(recognition.recognized().is_none());
}

#[test]
fn a_voter_that_is_behind_is_counted_and_one_of_another_history_is_not() {
    let old = attested();
    let mut rig = Rig::of(old.0.clone());
    rig.apply(Command::AddJoinToken(AddJoinToken(voter_record(5, 1))));
    rig.apply(Command::Admit(Box::new(request(4, 5).into())));
    rig.open_authority(NodeId(4));
    rig.attest();
    let stored = Arc::clone(&rig.0.view().unwrap().attestation);
    let mut recognition = Recognition::new(Arc::clone(&stored), [7; 32]);
    for node in [1, 2] {
        ask(&old, &mut recognition, node).unwrap();
        assert!(recognition.recognized().is_none(), "of four voters");
    }
    let mut other = Attestation::clone(&stored);
    other.voters.clear();
    let claim = AttestationClaim::of(NodeId(3), &other);
    let signature = claim.sign(&key(3), &[7; 32]);
    assert_eq!(recognition.answer(&stored, &claim, &[], &signature), Err(AnswerError::Elsewhere));
    ask(&rig, &mut recognition, 4).unwrap();
    assert!(recognition.recognized().is_some());
}

#[test]
fn a_voter_that_never_came_so_far_as_to_hold_the_key_is_not_waited_for() {
    let mut rig = Rig::founded();
    rig.apply(Command::AddJoinToken(AddJoinToken(voter_record(5, 1))));
    rig.apply(Command::Admit(Box::new(request(2, 5).into())));
    assert_eq!(rig.0.view().unwrap().attestation.voters.len(), 1, "it may have died since");
    evict(&mut rig, 2);
    rig.attest();
    assert!(rig.0.is_attested(generation(&rig)), "the founder alone signs");
}
