//! Leases at their limits: the values that the lease keeper and the lease manager are made of.

use crate::id::{BootId, Generation, NodeId};
use crate::lease::processes::Processes;
use crate::lease::{Grantor, Holder, LeaseClock, LeaseLength, LeaseLengthError, NoLease, Standing};
use crate::limits::LEASE_SECS_MAX;
use crate::time::BootMillis;

const TEN: LeaseLength = LeaseLength::DEFAULT;
const ONE: NodeId = NodeId(1);

fn generation(n: u64) -> Generation {
    Generation(n)
}

#[test]
fn a_lease_lasts_from_a_second_to_an_hour() {
    assert_eq!(LeaseLength::from_secs(0), Err(LeaseLengthError));
    assert_eq!(LeaseLength::from_secs(1).map(LeaseLength::millis), Ok(1000));
    assert!(LeaseLength::from_secs(LEASE_SECS_MAX).is_ok());
    assert_eq!(LeaseLength::from_secs(LEASE_SECS_MAX + 1), Err(LeaseLengthError));
    assert_eq!(TEN.waited_millis(), 10_100);
}

#[test]
fn a_lease_counts_from_before_it_was_asked_for() {
    let mut holder = Holder::default();
    holder.enforced(generation(5));
    holder.granted(BootMillis(1000), generation(5), TEN);
    assert!(holder.holds(BootMillis(10_999)) && !holder.holds(BootMillis(11_000)));
    // An answer to an earlier request, late: it takes nothing away.
    holder.granted(BootMillis(500), generation(5), TEN);
    assert_eq!(holder.deadline(), Some(BootMillis(11_000)));
}

#[test]
fn grant_of_an_unenforced_generation_does_not_count() {
    let mut holder = Holder::default();
    holder.enforced(generation(4));
    holder.granted(BootMillis(0), generation(5), TEN);
    assert_eq!(holder.deadline(), None);
    holder.enforced(generation(5));
    assert_eq!(holder.deadline(), Some(BootMillis(10_000)));
    // One that waits is not displaced by an older answer.
    holder.granted(BootMillis(5000), generation(7), TEN);
    holder.granted(BootMillis(6000), generation(6), TEN);
    holder.enforced(generation(6));
    assert_eq!(holder.deadline(), Some(BootMillis(10_000)));
    holder.enforced(generation(7));
    assert_eq!(holder.deadline(), Some(BootMillis(15_000)));
}

#[test]
fn a_lease_given_up_is_gone_until_the_next_grant() {
    let mut holder = Holder::default();
    holder.granted(BootMillis(0), generation(0), TEN);
    holder.granted(BootMillis(0), generation(9), TEN);
    holder.surrender();
    holder.enforced(generation(9));
    assert!(!holder.holds(BootMillis(1)));
}

#[test]
fn a_new_leader_waits_for_the_leases_of_its_predecessor() {
    let grantor = Grantor::new(BootMillis(1000), TEN);
    let until = BootMillis(11_100);
    assert_eq!(grantor.standing(ONE, generation(5), BootMillis(11_099)), Standing::Until(until));
    assert_eq!(grantor.standing(ONE, generation(5), until), Standing::Lapsed);
}

#[test]
fn the_barrier_waits_for_the_last_grant_below_the_generation() {
    let mut grantor = Grantor::new(BootMillis(0), TEN);
    grantor.grant(ONE, generation(4), BootMillis(20_000));
    grantor.grant(ONE, generation(5), BootMillis(25_000));
    let standing = |g: &Grantor, n, at| g.standing(ONE, generation(n), BootMillis(at));
    assert_eq!(standing(&grantor, 5, 25_000), Standing::Until(BootMillis(30_100)));
    assert_eq!(standing(&grantor, 6, 25_000), Standing::Until(BootMillis(35_100)));
    assert_eq!(standing(&grantor, 5, 30_100), Standing::Lapsed);
    grantor.acknowledge(ONE, generation(5));
    assert_eq!(standing(&grantor, 5, 25_000), Standing::Enforced);
    assert_eq!(standing(&grantor, 6, 25_000), Standing::Until(BootMillis(35_100)));
    // An acknowledgement of less takes nothing back.
    grantor.acknowledge(ONE, generation(1));
    assert_eq!(standing(&grantor, 5, 25_000), Standing::Enforced);
    grantor.forget(ONE);
    assert_eq!(standing(&grantor, 5, 25_000), Standing::Lapsed);
}

#[test]
fn late_recorded_grant_takes_back_no_later_grant() {
    let mut grantor = Grantor::new(BootMillis(0), TEN);
    grantor.grant(ONE, generation(4), BootMillis(21_000));
    grantor.grant(ONE, generation(4), BootMillis(20_000));
    let until = BootMillis(31_100);
    assert_eq!(grantor.standing(ONE, generation(5), BootMillis(30_100)), Standing::Until(until));
}

#[test]
fn without_a_lease_there_is_no_fresh_proof() {
    let (clock, mut holder) = (LeaseClock::default(), Holder::default());
    assert_eq!(clock.fresh(BootMillis(0)).map(|_| ()), Err(NoLease));
    holder.granted(BootMillis(100), generation(0), TEN);
    clock.follow(&holder);
    assert_eq!(clock.fresh(BootMillis(10_099)).map(|f| f.deadline()), Ok(BootMillis(10_100)));
    assert_eq!(clock.fresh(BootMillis(10_100)).map(|_| ()), Err(NoLease));
    holder.surrender();
    clock.follow(&holder);
    assert_eq!(clock.fresh(BootMillis(100)).map(|_| ()), Err(NoLease));
}

#[test]
fn grant_that_cannot_count_blocks_no_later_grant() {
    let mut holder = Holder::default();
    // A leader that lies names what will never be.
    holder.granted(BootMillis(0), generation(u64::MAX), TEN);
    holder.granted(BootMillis(5000), generation(1), TEN);
    holder.enforced(generation(1));
    assert_eq!(holder.deadline(), None, "the same leader, within the time");
    holder.granted(BootMillis(10_000), generation(1), TEN);
    assert_eq!(holder.deadline(), Some(BootMillis(20_000)), "when that time is over");
    holder.granted(BootMillis(11_000), generation(u64::MAX), TEN);
    holder.leader_changed();
    holder.granted(BootMillis(12_000), generation(1), TEN);
    assert_eq!(holder.deadline(), Some(BootMillis(22_000)), "when another leads");
}

#[test]
fn member_is_away_only_after_a_lease_without_any_contact() {
    let length = LeaseLength::from_secs(10).unwrap();
    let waited = length.waited_millis();
    let at = |millis| BootMillis(1_000_000 + millis);
    let mut grantor = Grantor::new(at(0), length);
    let node = NodeId(3);
    assert!(!grantor.is_away(node, None, at(waited - 1)), "the leader before may have granted it one");
    assert!(grantor.is_away(node, None, at(waited)));
    assert!(!grantor.is_away(node, Some(waited - 1), at(waited)), "it answered");
    assert!(grantor.is_away(node, Some(waited), at(waited)));
    grantor.grant(node, Generation(7), at(waited));
    assert!(!grantor.is_away(node, None, at(2 * waited - 1)));
    assert!(grantor.is_away(node, None, at(2 * waited)));
    assert!(grantor.is_away(NodeId(4), None, at(waited)), "another member's lease");
}

#[test]
fn process_of_a_member_that_started_last_counts() {
    let (length, at) = (LeaseLength::DEFAULT, |millis| BootMillis(1_000_000 + millis));
    let [first, second, third] = [1, 2, 3].map(|n| BootId([n; 16]));
    let (node, other) = (NodeId(3), NodeId(4));
    let mut processes = Processes::default();
    let mut counts = |boot, millis| processes.counts(node, boot, length, at(millis));
    assert!(counts(first, 0) && counts(first, 1));
    assert!(counts(second, 2), "a start does not wait for the lease of the process before it");
    assert!(!counts(first, 3), "the one before it counts no more");
    assert!(counts(second, 4) && !counts(first, 5));
    assert!(counts(third, 6) && !counts(first, 7) && !counts(second, 8), "nor one before that");
    // Once the one that counts has been silent for a lease, another may.
    let silent = 6 + length.waited_millis();
    assert!(!counts(first, silent - 1) && counts(first, silent));
    assert!(!counts(third, silent + 1));
    assert!(processes.are_two(node, length, at(silent + 2)));
    assert!(!processes.are_two(node, length, at(silent + 1 + length.waited_millis())), "the other one is gone");
    // Of each member by itself; and one that is gone is forgotten.
    assert!(processes.counts(other, first, length, at(0)) && !processes.are_two(other, length, at(0)));
    processes.keep(2, |_| unreachable!("no more of them are known than there are members"));
    processes.keep(1, |member| member == other);
    assert!(processes.counts(node, third, length, at(silent + 2)));
}

#[test]
fn replaced_processes_are_remembered_up_to_the_limit() {
    let (length, node, now) = (LeaseLength::DEFAULT, NodeId(1), BootMillis(1));
    let boot = |n: u8| BootId([n; 16]);
    let mut processes = Processes::default();
    for n in 0..=8 {
        assert!(processes.counts(node, boot(n), length, now));
    }
    assert!(!processes.counts(node, boot(0), length, now), "eight are remembered");
    assert!(processes.counts(node, boot(9), length, now));
    assert!(!processes.counts(node, boot(1), length, now));
    assert!(processes.counts(node, boot(0), length, now), "the ninth is not: it would start again");
}
