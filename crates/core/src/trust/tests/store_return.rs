//! A return with a new store: what it needs, what it ends, and in which order.

use super::rig::*;
use crate::enroll::returning::{ReturnChannel, ReturnError, StoreReturn};
use crate::group::GroupMembers;
use crate::id::{ClusterId, NodeId, StoreId};
use crate::key::SignatureError;
use crate::trust::author::permit;
use crate::trust::command::{AddJoinToken, BindStore, Command, Evict, SetSuffrage};
use crate::trust::member::Suffrage;
use crate::trust::outcome::{Outcome, Refused, Signer};

const HERE: ReturnChannel = ReturnChannel { leaf: [3; 32], exporter: [4; 32] };
const OLD: StoreId = StoreId([2; 16]);
const NEW: StoreId = StoreId([72; 16]);

fn request(replaces: StoreId, store: StoreId) -> StoreReturn {
    StoreReturn::sign(&key(2), (CLUSTER, NodeId(2)), (replaces, store), HERE)
}

fn returning(request: StoreReturn) -> Command {
    Command::ReturnStore(Box::new(request))
}

fn bind(store: StoreId) -> Command {
    Command::BindStore(BindStore { node: NodeId(2), store })
}

fn among(voters: &[u64], learners: &[u64]) -> GroupMembers {
    let nodes = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect();
    GroupMembers { voters: nodes(voters), learners: nodes(learners) }
}

fn recorded(rig: &Rig) -> (StoreId, Option<StoreId>, Suffrage) {
    let member = &rig.0.view().unwrap().members[&NodeId(2)];
    (member.store, member.returning, member.suffrage)
}

#[test]
fn new_store_counts_only_once_the_number_has_left_the_group() {
    let mut rig = Rig::three_voters();
    assert!(matches!(rig.apply(returning(request(OLD, NEW))), Outcome::Done(_)));
    assert_eq!(recorded(&rig), (OLD, Some(NEW), Suffrage::Learner));
    assert!(rig.0.sealed().keys().all(|(_, node)| *node != NodeId(2)), "it holds no copy of the CA key");
    for members in [among(&[1, 2, 3], &[]), among(&[2], &[]), among(&[1, 3], &[2])] {
        let refused = rig.apply_among(&members, bind(NEW));
        assert_eq!(refused, Outcome::Refused(Refused::StillInGroup(NodeId(2))));
        assert_eq!(recorded(&rig).0, OLD);
    }
    assert!(matches!(rig.apply_among(&among(&[1, 3], &[]), bind(NEW)), Outcome::Done(_)));
    assert_eq!(recorded(&rig), (NEW, None, Suffrage::Learner));
}

#[test]
fn each_step_is_repeated_without_a_change() {
    let mut rig = Rig::three_voters();
    rig.apply(returning(request(OLD, NEW)));
    for step in [returning(request(OLD, NEW)), bind(NEW)] {
        rig.apply(step.clone());
        let before = rig.0.clone();
        assert!(matches!(rig.apply(step), Outcome::Done(_)));
        assert_eq!(rig.0, before);
    }
    // Its answer was lost, and the leader has gone on meanwhile: asked again, it does not begin again.
    rig.apply(returning(request(OLD, NEW)));
    assert_eq!(recorded(&rig), (NEW, None, Suffrage::Learner));
}

#[test]
fn return_is_refused_unless_the_member_signed_it_for_its_own_store() {
    let mut rig = Rig::three_voters();
    let by = |seed: u8, node| StoreReturn::sign(&key(seed), (CLUSTER, NodeId(node)), (OLD, NEW), HERE);
    let elsewhere = StoreReturn::sign(&key(2), (ClusterId([9; 16]), NodeId(2)), (OLD, NEW), HERE);
    let identity = || Refused::Signature(Signer::Identity);
    for (request, expected, claim) in [
        (by(3, 2), identity(), "another member"),
        (by(99, 2), identity(), "a key that is no member's"),
        (by(2, 3), identity(), "for another member"),
        (by(2, 9), Refused::NoSuchNode(NodeId(9)), "for no member"),
        (elsewhere, identity(), "another cluster"),
        (StoreReturn { store: StoreId([73; 16]), ..request(OLD, NEW) }, identity(), "the store was changed"),
        (StoreReturn { replaces: StoreId([3; 16]), ..request(OLD, NEW) }, identity(), "what it replaces was changed"),
        (StoreReturn { channel: ReturnChannel { leaf: [9; 32], ..HERE }, ..request(OLD, NEW) }, identity(), "moved"),
        (request(OLD, StoreId([3; 16])), Refused::StoreTaken(StoreId([3; 16])), "another member's store"),
        (request(OLD, OLD), Refused::StoreTaken(OLD), "the store that it replaces"),
    ] {
        assert_eq!(rig.refused(returning(request)), expected, "{claim}");
    }
    let other = Refused::OtherStore { node: NodeId(2), expected: OLD, got: StoreId([9; 16]) };
    assert_eq!(rig.refused(returning(request(StoreId([9; 16]), NEW))), other);
    // An earlier return, seen on its way and sent again after the member has returned once more.
    let later = StoreId([73; 16]);
    rig.apply(returning(request(OLD, NEW)));
    rig.apply(bind(NEW));
    rig.apply(returning(request(NEW, later)));
    rig.apply(bind(later));
    let other = Refused::OtherStore { node: NodeId(2), expected: later, got: OLD };
    assert_eq!(rig.refused(returning(request(OLD, NEW))), other);
}

#[test]
fn store_that_no_return_named_is_not_bound() {
    let mut rig = Rig::three_voters();
    let refused = Refused::NotReturning { node: NodeId(2), store: NEW };
    assert_eq!(rig.refused(bind(NEW)), refused);
    rig.apply(returning(request(OLD, NEW)));
    let other = StoreId([73; 16]);
    assert_eq!(rig.refused(bind(other)), Refused::NotReturning { node: NodeId(2), store: other });
    assert_eq!(
        rig.refused(Command::SetSuffrage(SetSuffrage {
            node: NodeId(2),
            suffrage: Suffrage::Voter,
            keep_authority: true
        })),
        Refused::Returning(NodeId(2))
    );
    rig.apply(Command::Evict(Evict { node: NodeId(2), compromised: false, keep_authority: true }));
    assert_eq!(rig.refused(bind(NEW)), Refused::AlreadyEvicted(NodeId(2)));
    assert_eq!(rig.refused(returning(request(OLD, NEW))), Refused::AlreadyEvicted(NodeId(2)));
}

#[test]
fn last_holder_of_the_ca_key_keeps_its_vote() {
    let mut rig = Rig::founded();
    let of_founder = StoreReturn::sign(&key(1), (CLUSTER, NodeId(1)), (StoreId([1; 16]), NEW), HERE);
    assert_eq!(rig.refused(returning(of_founder)), Refused::LastVoter(NodeId(1)));
}

#[test]
fn promoted_again_the_member_is_attested_with_its_new_store() {
    let mut rig = Rig::three_voters();
    rig.apply(returning(request(OLD, NEW)));
    rig.apply(bind(NEW));
    rig.apply(Command::SetSuffrage(SetSuffrage { node: NodeId(2), suffrage: Suffrage::Voter, keep_authority: true }));
    rig.open_authority(NodeId(2));
    rig.attest();
    assert_eq!(rig.0.newest_attested().unwrap().voters[&NodeId(2)].store, NEW);
}

#[test]
fn server_passes_on_what_was_signed_for_its_connection_only() {
    let mut rig = Rig::three_voters();
    let check = |rig: &Rig, request: StoreReturn| request.into_command(&HERE, rig.0.view().unwrap());
    assert_eq!(check(&rig, request(OLD, NEW)), Ok(returning(request(OLD, NEW))));
    let relayed = ReturnChannel { exporter: [9; 32], ..HERE };
    let signed = |channel| StoreReturn::sign(&key(2), (CLUSTER, NodeId(2)), (OLD, NEW), channel);
    assert_eq!(check(&rig, signed(relayed)), Err(ReturnError::Relayed));
    let pretended = StoreReturn { channel: HERE, ..signed(relayed) };
    assert_eq!(check(&rig, pretended), Err(ReturnError::Identity(SignatureError)));
    let forged = StoreReturn::sign(&key(9), (CLUSTER, NodeId(2)), (OLD, NEW), HERE);
    assert_eq!(check(&rig, forged.clone()), Err(ReturnError::Identity(SignatureError)));
    rig.apply(Command::Evict(Evict { node: NodeId(2), compromised: false, keep_authority: true }));
    assert_eq!(check(&rig, forged), Err(ReturnError::Identity(SignatureError)), "told to the member alone");
    assert_eq!(check(&rig, request(OLD, NEW)), Err(Refused::AlreadyEvicted(NodeId(2)).into()));
}

#[test]
fn any_member_passes_a_return_on_and_voters_alone_bind_a_store() {
    let mut rig = Rig::three_voters();
    rig.apply(Command::AddJoinToken(AddJoinToken(record(5, 1))));
    rig.apply(Command::Admit(Box::new(super::rig::request(4, 5).into())));
    let view = rig.0.view().unwrap();
    let may = |from, command: &Command| permit(view, NodeId(from), command).is_ok();
    let pass = returning(request(OLD, NEW));
    assert!(may(1, &pass) && may(4, &pass) && !may(9, &pass));
    assert!(may(1, &bind(NEW)) && !may(4, &bind(NEW)) && !may(2 + 7, &bind(NEW)));
}
