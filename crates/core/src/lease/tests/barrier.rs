//! The judgement of a barrier.

use super::{TEN, at};
use crate::id::{Generation, NodeId};
use crate::lease::{Eviction, LeaseLength, PendingBarrier, Progress, Roster, TermState};
use crate::time::BootMillis;
use crate::trust::member::Suffrage;

const REVOKES: Generation = Generation(7);
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const GONE: NodeId = NodeId(9);
/// Long after the election: leases of the leader before have ended.
const LATER: BootMillis = BootMillis(50_000);

fn term() -> TermState {
    TermState::new(5, TEN, at(0))
}

fn roster(generation: u64) -> Roster {
    Roster {
        generation: Generation(generation),
        attested: true,
        members: NODES.map(|node| (node, Suffrage::Voter)).to_vec(),
        evictions: Vec::new(),
    }
}

fn evicted(generation: u64, secs_ago: u64) -> Roster {
    let eviction = Eviction { node: GONE, generation: Generation(generation), secs_ago };
    Roster { evictions: vec![eviction], ..roster(generation.max(7)) }
}

fn look(term: &TermState, roster: &Roster, now: BootMillis) -> Progress {
    term.progress(&mut PendingBarrier::new(REVOKES), roster, now)
}

fn all_enforce(term: &mut TermState, generation: u64) {
    NODES.iter().for_each(|node| term.acknowledge(*node, Generation(generation)));
}

#[test]
fn barrier_passes_when_members_enforce_or_have_no_lease() {
    let mut term = term();
    assert!(!look(&term, &roster(7), LATER).passed, "no voter enforces it");
    assert_eq!(look(&term, &roster(7), at(10_000)).wake, Some(at(10_100)), "leases of the leader before");
    term.acknowledge(NODES[0], REVOKES);
    assert!(!look(&term, &roster(7), LATER).passed, "one of three");
    term.acknowledge(NODES[1], REVOKES);
    assert!(look(&term, &roster(7), LATER).passed, "the third has no lease");
    term.grant(NODES[2], Generation(6), at(45_000));
    let waits = look(&term, &roster(7), LATER);
    assert_eq!((waits.passed, waits.wake), (false, Some(at(55_100))));
    assert_eq!(waits.absent, [(NODES[2], at(55_100))].into());
    let lapsed = look(&term, &roster(7), at(55_100));
    assert_eq!((lapsed.passed, lapsed.wake), (true, None));
    assert_eq!(lapsed.absent, waits.absent, "when its lease ended is told");
    assert_eq!(lapsed.enforced.keys().copied().collect::<Vec<_>>(), NODES[..2]);
}

#[test]
fn learners_are_waited_for_and_count_for_no_majority() {
    let mut term = term();
    let learners = NODES.iter().map(|node| (*node, Suffrage::Learner));
    let roster = Roster { members: learners.chain([(GONE, Suffrage::Voter)]).collect(), ..roster(7) };
    all_enforce(&mut term, 7);
    assert!(!look(&term, &roster, LATER).passed);
    term.acknowledge(GONE, REVOKES);
    assert!(look(&term, &roster, LATER).passed);
}

#[test]
fn a_leader_that_has_not_applied_the_generation_judges_nothing() {
    let mut term = term();
    all_enforce(&mut term, 6);
    let mut barrier = PendingBarrier::new(REVOKES);
    let behind = term.progress(&mut barrier, &roster(6), at(100));
    assert!(!behind.passed && behind.enforced.is_empty());
    // It has applied it now, and has taken nothing for done.
    assert!(!term.progress(&mut barrier, &roster(7), at(100)).passed);
    all_enforce(&mut term, 7);
    assert!(term.progress(&mut barrier, &roster(7), at(100)).passed);
}

#[test]
fn barrier_waits_until_members_know_the_attestation_is_complete() {
    let mut term = term();
    all_enforce(&mut term, 7);
    let mut barrier = PendingBarrier::new(REVOKES);
    let unsigned = Roster { attested: false, ..roster(7) };
    assert!(!term.progress(&mut barrier, &unsigned, LATER).passed);
    assert!(!term.progress(&mut barrier, &roster(8), LATER).passed, "signed since, which the members do not know");
    all_enforce(&mut term, 8);
    assert!(term.progress(&mut barrier, &roster(20), LATER).passed, "what comes later is not waited for");
}

#[test]
fn evicted_member_with_a_lease_is_reported_not_waited_for() {
    let mut term = term();
    all_enforce(&mut term, 7);
    term.grant(GONE, Generation(6), LATER);
    let progress = look(&term, &evicted(7, 0), LATER);
    assert!(progress.passed);
    assert_eq!(progress.absent, [(GONE, at(60_100))].into());
    assert!(look(&term, &evicted(7, 0), at(60_100)).absent.is_empty(), "it has none any more");
}

#[test]
fn an_evicted_member_is_waited_for_that_delegates_or_may_or_that_serves_what_was_revoked_before() {
    let (mut known, mut unheard) = (term(), term());
    all_enforce(&mut known, 20);
    all_enforce(&mut unheard, 20);
    known.grant(GONE, Generation(6), at(9_000));
    let waits = |term: &TermState, roster: &Roster| look(term, roster, at(10_000)).wake;
    assert_eq!(waits(&known, &evicted(7, 0)), None);
    // It was a member when this was revoked.
    assert_eq!(waits(&known, &evicted(8, 0)), Some(at(19_100)));
    // It delegates.
    known.delegating(GONE);
    assert_eq!(waits(&known, &evicted(7, 0)), Some(at(19_100)));
    // It may have told the leader before, if it was evicted lately: two leases ago at most.
    assert_eq!(waits(&unheard, &evicted(7, 20)), Some(at(10_100)));
    assert_eq!(waits(&unheard, &evicted(7, 21)), None);
    assert!(look(&unheard, &evicted(7, 20), at(10_100)).passed);
}

#[test]
fn a_receipt_is_shown_with_the_member_that_gave_it() {
    let mut term = TermState::new(5, LeaseLength::DEFAULT, at(0));
    all_enforce(&mut term, 7);
    let receipt = super::manager::receipt(7, NODES[1]);
    term.received(receipt);
    let progress = look(&term, &roster(7), LATER);
    let with: Vec<bool> = progress.enforced.values().map(Option::is_some).collect();
    assert_eq!(with, [false, true, false]);
}
