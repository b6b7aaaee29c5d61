//! The leader's side: which requests are granted, and when.

use super::{TEN, at, view};
use crate::id::{BootId, ClusterId, Generation, NodeId};
use crate::lease::{Action, Answer, LeaseManager, NotLeader, PendingGrant, Request, Standing, VerifiedReceipt};
use crate::receipt::Receipt;
use crate::time::UnixMillis;
use crate::trust::tests::rig::key;

const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);

fn request(from: NodeId) -> Request {
    Request {
        from,
        boot: BootId([1; 16]),
        enforced: Generation(7),
        clock: UnixMillis(1_000),
        renew: true,
        delegates: false,
        receipts: Vec::new(),
    }
}

/// A receipt of this member, as it would sign it.
fn signed(generation: u64, member: NodeId) -> Receipt {
    let (cluster, boot, at) = (ClusterId([2; 16]), [1; 16], UnixMillis(6));
    let receipt =
        Receipt { cluster, generation: Generation(generation), member, boot, closed: 5, at, signature: [0; 64] };
    receipt.signed(&key(1))
}

pub(super) fn receipt(generation: u64, member: NodeId) -> VerifiedReceipt {
    VerifiedReceipt::new(signed(generation, member), key(1).public()).unwrap()
}

fn leading() -> LeaseManager {
    let mut manager = LeaseManager::default();
    manager.handle_term(5, TEN, at(0));
    manager
}

fn pending(manager: &mut LeaseManager, from: NodeId) -> PendingGrant {
    match manager.handle_request(request(from), &view(7, 3), true, at(100)) {
        Ok(Action::Confirm(pending)) => pending,
        other => panic!("{other:?}"),
    }
}

#[test]
fn grant_waits_for_a_quorum_and_names_the_newest_generation() {
    let mut manager = leading();
    let asked = pending(&mut manager, TWO);
    assert_eq!(asked.from(), TWO);
    assert!(!manager.term().unwrap().was_granted(TWO), "nothing is granted before");
    assert_eq!(manager.handle_confirmed(asked, &view(9, 3), true, at(30_000)), Ok(Answer::Granted(Generation(9))));
    let standing = |generation| manager.term().unwrap().standing(TWO, Generation(generation), at(30_000));
    assert_eq!(standing(7), Standing::Enforced, "it said so");
    assert_eq!(standing(10), Standing::Until(at(40_100)));
}

#[test]
fn only_a_leader_answers_and_only_members() {
    let mut manager = LeaseManager::default();
    assert_eq!(manager.handle_request(request(TWO), &view(7, 3), true, at(0)), Err(NotLeader));
    let mut manager = leading();
    assert_eq!(manager.handle_request(request(NodeId(4)), &view(7, 3), true, at(0)), Err(NotLeader));
    let asked = pending(&mut manager, THREE);
    assert_eq!(manager.handle_confirmed(asked, &view(8, 2), true, at(200)), Err(NotLeader), "evicted meanwhile");
}

#[test]
fn a_confirmation_for_one_term_grants_nothing_in_another() {
    let mut manager = leading();
    let asked = pending(&mut manager, TWO);
    manager.handle_term(6, TEN, at(500));
    let again = pending(&mut manager, TWO);
    assert_eq!(manager.handle_confirmed(asked, &view(7, 3), true, at(600)), Err(NotLeader));
    assert!(!manager.term().unwrap().was_granted(TWO));
    // It took nothing from the request of this term.
    assert_eq!(manager.handle_request(request(TWO), &view(7, 3), true, at(600)), Ok(Action::Answer(Answer::Heard)));
    assert!(manager.handle_confirmed(again, &view(7, 3), true, at(600)).is_ok());
}

#[test]
fn new_term_begins_without_grants_of_the_previous_term() {
    let mut manager = leading();
    let asked = pending(&mut manager, TWO);
    manager.handle_confirmed(asked, &view(7, 3), true, at(200)).unwrap();
    manager.handle_term(5, TEN, at(300));
    assert!(manager.term().unwrap().was_granted(TWO), "the same term");
    manager.handle_term(4, TEN, at(350));
    assert!(manager.term().unwrap().was_granted(TWO), "a term that is over");
    manager.handle_term(6, TEN, at(400));
    let term = manager.term().unwrap();
    assert_eq!(term.standing(TWO, Generation(7), at(500)), Standing::Until(at(10_500)));
    assert!(!term.was_granted(TWO));
}

#[test]
fn one_request_of_a_member_waits_at_a_time() {
    let mut manager = leading();
    let first = pending(&mut manager, TWO);
    let second = |manager: &mut LeaseManager| manager.handle_request(request(TWO), &view(7, 3), true, at(100));
    assert_eq!(second(&mut manager), Ok(Action::Answer(Answer::Heard)));
    assert_eq!(second(&mut manager), Ok(Action::Answer(Answer::Heard)), "the second gave up no place");
    manager.handle_unconfirmed(first);
    let third = pending(&mut manager, TWO);
    assert!(manager.handle_confirmed(third, &view(7, 3), true, at(100)).is_ok());
    assert!(matches!(second(&mut manager), Ok(Action::Confirm(_))));
}

#[test]
fn a_member_that_does_not_ask_is_heard() {
    let mut manager = leading();
    let heard = Request { renew: false, delegates: true, ..request(TWO) };
    assert_eq!(manager.handle_request(heard, &view(7, 3), true, at(0)), Ok(Action::Answer(Answer::Heard)));
    let term = manager.term().unwrap();
    assert_eq!(term.standing(TWO, Generation(7), at(0)), Standing::Enforced);
    assert!(term.delegates(TWO) && !term.delegates(THREE));
}

#[test]
fn differing_state_gets_no_lease_and_is_still_heard() {
    let mut manager = leading();
    let answered = manager.handle_request(request(TWO), &view(7, 3), false, at(0));
    assert_eq!(answered, Ok(Action::Answer(Answer::Differs)));
    assert_eq!(manager.term().unwrap().standing(TWO, Generation(7), at(0)), Standing::Enforced);
    // Another member may speak while the quorum is asked.
    let asked = pending(&mut manager, TWO);
    assert_eq!(manager.handle_confirmed(asked, &view(7, 3), false, at(0)), Ok(Answer::Differs));
    assert!(!manager.term().unwrap().was_granted(TWO));
    assert!(matches!(manager.handle_request(request(TWO), &view(7, 3), true, at(0)), Ok(Action::Confirm(_))));
}

#[test]
fn replaced_process_gets_no_lease_and_its_word_is_ignored() {
    let mut manager = leading();
    let said = |manager: &mut LeaseManager, boot, enforced, millis| {
        let (boot, enforced) = (BootId([boot; 16]), Generation(enforced));
        manager.handle_request(Request { boot, enforced, renew: false, ..request(TWO) }, &view(7, 3), true, at(millis))
    };
    assert_eq!(said(&mut manager, 1, 5, 0), Ok(Action::Answer(Answer::Heard)));
    assert_eq!(said(&mut manager, 2, 5, 10), Ok(Action::Answer(Answer::Heard)));
    assert_eq!(said(&mut manager, 1, 7, 20), Ok(Action::Answer(Answer::Replaced)));
    let standing = manager.term().unwrap().standing(TWO, Generation(7), at(20));
    assert_eq!(standing, Standing::Until(at(10_100)));
    assert!(manager.runs_twice(TWO, at(20)) && !manager.runs_twice(THREE, at(20)));
    // Which process counts outlives the term.
    manager.handle_term(6, TEN, at(30));
    assert_eq!(said(&mut manager, 1, 7, 40), Ok(Action::Answer(Answer::Replaced)));
}

#[test]
fn receipts_are_verified_that_the_leader_lacks_and_kept() {
    let mut manager = leading();
    let said = vec![signed(6, TWO), signed(7, TWO), signed(7, THREE), signed(8, TWO)];
    assert!(LeaseManager::default().lacking(TWO, said.clone(), Generation(7)).is_empty());
    let lacking = manager.lacking(TWO, said.clone(), Generation(7));
    assert_eq!(lacking.iter().map(|r| (r.generation.0, r.member)).collect::<Vec<_>>(), [(6, TWO), (7, TWO)]);
    let receipts = vec![receipt(6, TWO)];
    let told = Request { renew: false, receipts, ..request(TWO) };
    manager.handle_request(told, &view(7, 3), true, at(0)).unwrap();
    assert_eq!(manager.term().unwrap().receipt(Generation(6), TWO), Some(&signed(6, TWO)));
    assert_eq!(manager.lacking(TWO, said, Generation(7)).len(), 1);
}

#[test]
fn members_without_a_lease_of_this_leader_are_silent() {
    let mut manager = leading();
    let asked = pending(&mut manager, TWO);
    manager.handle_confirmed(asked, &view(7, 3), true, at(5_000)).unwrap();
    let silent = |now| [NodeId(1), TWO, THREE].map(|member| manager.is_silent(member, 6_000, at(now)));
    assert_eq!(silent(5_999), [false; 3], "it has led for too short a time");
    assert_eq!(silent(6_000), [true, false, true]);
    assert_eq!(silent(11_000), [true; 3]);
    assert!(!LeaseManager::default().is_silent(TWO, 0, at(0)));
}

#[test]
fn voters_clocks_outlive_a_term() {
    let mut manager = leading();
    let _pending = pending(&mut manager, TWO);
    manager.handle_term(6, TEN, at(200));
    let voters = [NodeId(1), TWO].into();
    let last = crate::trust::clocks::Anchor { time: UnixMillis(1_000), at: at(100) };
    assert_eq!(manager.clocks().in_step(&voters, NodeId(1), UnixMillis(1_100), at(200), last), [TWO].into());
}
