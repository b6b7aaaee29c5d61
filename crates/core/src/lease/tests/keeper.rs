//! The member's side: when it asks, what it says, and what it makes of answers.

use std::sync::Arc;

use proptest::prelude::*;

use super::{LEADER, TEN, at, keeper};
use crate::id::{Generation, NodeId};
use crate::lease::{Answer, Ask, DelegateId, Enforcement, Leader, LeaseKeeper, LeaseLength, NoLease};
use crate::time::{BootMillis, UnixMillis};

const GUARD: DelegateId = DelegateId(1);
const GRANTED: Answer = Answer::Granted(Generation(7));

/// A member with a lease that it asked for at 0.
fn leased() -> LeaseKeeper {
    let mut keeper = keeper(7);
    let ask = keeper.poll_ask(at(0)).unwrap();
    assert!(keeper.handle_answer(ask.number, GRANTED, at(50)));
    keeper
}

#[test]
fn member_asks_again_after_a_third_of_its_lease() {
    let mut keeper = keeper(7);
    let ask = keeper.poll_ask(at(1000)).unwrap();
    let Ask { to, enforced, renew, delegates, .. } = ask;
    assert_eq!((to, enforced, renew, delegates), (LEADER, Generation(7), true, false));
    assert_eq!(keeper.poll_ask(at(1001)), None, "one request at a time");
    assert!(keeper.handle_answer(ask.number, GRANTED, at(1100)));
    assert_eq!(keeper.lease_end(), Some(at(11_000)), "from before it was asked for");
    assert_eq!(keeper.poll_ask(at(4332)), None);
    assert_eq!(keeper.poll_timeout(), Some(at(4333)));
    assert!(keeper.poll_ask(at(4333)).unwrap().renew);
}

#[test]
fn without_a_leader_or_a_length_a_member_asks_nothing() {
    let mut keeper = LeaseKeeper::default();
    keeper.handle_leader(Some(LEADER));
    assert_eq!((keeper.poll_ask(at(0)), keeper.poll_timeout()), (None, None));
    keeper.handle_length(TEN);
    keeper.handle_leader(None);
    assert_eq!((keeper.poll_ask(at(0)), keeper.poll_timeout()), (None, None));
    keeper.handle_leader(Some(LEADER));
    assert!(keeper.poll_ask(at(0)).is_some());
}

#[test]
fn generation_in_force_is_reported_at_once_and_only_once() {
    let mut keeper = leased();
    keeper.handle_enforced(Generation(8));
    let ask = keeper.poll_ask(at(100)).unwrap();
    assert_eq!((ask.enforced, ask.renew), (Generation(8), false));
    // While this is under way, more comes into force.
    keeper.handle_enforced(Generation(9));
    assert_eq!(keeper.poll_ask(at(110)), None);
    assert!(keeper.handle_answer(ask.number, Answer::Heard, at(120)));
    let ask = keeper.poll_ask(at(120)).unwrap();
    assert_eq!(ask.enforced, Generation(9));
    keeper.handle_answer(ask.number, Answer::Heard, at(130));
    assert_eq!(keeper.poll_ask(at(130)), None);
    assert_eq!(keeper.poll_timeout(), Some(at(3333)), "the next lease");
}

#[test]
fn a_request_without_an_answer_is_made_again() {
    for failure in [true, false] {
        let mut keeper = keeper(7);
        let ask = keeper.poll_ask(at(0)).unwrap();
        assert_eq!(keeper.poll_timeout(), Some(at(2000)));
        if failure {
            keeper.handle_failure(ask.number, at(2000));
        }
        assert_eq!(keeper.poll_ask(at(2000)), None);
        assert_eq!(keeper.poll_timeout(), Some(at(2200)));
        let again = keeper.poll_ask(at(2200)).unwrap();
        assert!(again.number > ask.number);
        assert!(!keeper.handle_answer(ask.number, GRANTED, at(2300)), "too late");
        assert_eq!(keeper.lease_end(), None);
    }
}

#[test]
fn a_short_lease_survives_a_lost_message() {
    let mut keeper = keeper(7);
    keeper.handle_length(LeaseLength::from_secs(1).unwrap());
    let ask = keeper.poll_ask(at(0)).unwrap();
    keeper.handle_answer(ask.number, GRANTED, at(10));
    assert!(keeper.poll_ask(at(333)).is_some(), "lost");
    keeper.poll_ask(at(666));
    assert!(keeper.poll_ask(keeper.poll_timeout().unwrap()).is_some());
    assert!(keeper.holds(keeper.poll_timeout().unwrap().min(at(999))));
    assert!(keeper.holds(at(866)));
}

#[test]
fn more_to_say_ends_a_pause() {
    let mut keeper = keeper(7);
    let ask = keeper.poll_ask(at(0)).unwrap();
    keeper.handle_failure(ask.number, at(10));
    assert_eq!(keeper.poll_ask(at(20)), None);
    keeper.handle_enforced(Generation(8));
    let ask = keeper.poll_ask(at(30)).unwrap();
    assert!(ask.renew && ask.enforced == Generation(8));
    keeper.handle_failure(ask.number, at(40));
    assert_eq!(keeper.poll_ask(at(50)), None);
}

#[test]
fn another_leader_or_term_is_told_everything() {
    let mut keeper = leased();
    for leader in [Leader { term: 6, ..LEADER }, Leader { node: NodeId(2), term: 7 }] {
        let old = keeper.poll_ask(at(5000));
        keeper.handle_leader(Some(leader));
        let ask = keeper.poll_ask(at(5000)).unwrap();
        assert_eq!((ask.to, ask.enforced, ask.renew), (leader, Generation(7), true));
        assert!(old.is_none_or(|old| !keeper.handle_answer(old.number, GRANTED, at(5000))), "of the one before");
        assert_eq!(keeper.lease_end(), Some(at(10_000)), "the lease that it has goes on");
        keeper.handle_failure(ask.number, at(5000));
    }
}

#[test]
fn leader_found_again_needs_no_second_report() {
    let mut keeper = leased();
    keeper.handle_leader(None);
    keeper.handle_leader(Some(LEADER));
    assert_eq!(keeper.poll_ask(at(100)), None);
}

#[test]
fn without_a_valid_certificate_a_member_only_reports() {
    let mut keeper = keeper(7);
    keeper.handle_certificate(false);
    let ask = keeper.poll_ask(at(0)).unwrap();
    assert!(!ask.renew);
    keeper.handle_answer(ask.number, Answer::Heard, at(10));
    assert_eq!(keeper.poll_ask(at(209)), None);
    keeper.handle_certificate(true);
    assert!(keeper.poll_ask(at(210)).unwrap().renew);
}

#[test]
fn refused_member_gives_its_lease_up_and_keeps_asking() {
    for (answer, replaced) in [(Answer::Differs, false), (Answer::Replaced, true)] {
        let mut keeper = leased();
        let ask = keeper.poll_ask(at(4000)).unwrap();
        keeper.handle_answer(ask.number, answer, at(4100));
        assert_eq!((keeper.lease_end(), keeper.is_replaced()), (None, replaced));
        assert_eq!((keeper.poll_ask(at(5099)), keeper.poll_timeout()), (None, Some(at(5100))));
        let ask = keeper.poll_ask(at(5100)).unwrap();
        assert!(ask.renew);
        keeper.handle_answer(ask.number, GRANTED, at(5200));
        assert_eq!((keeper.lease_end(), keeper.is_replaced()), (Some(at(15_100)), false));
    }
}

#[test]
fn a_wrong_clock_costs_the_lease_until_it_is_right() {
    let mut keeper = leased();
    keeper.handle_clock(false);
    assert_eq!(keeper.lease_end(), None);
    let ask = keeper.poll_ask(at(4000)).unwrap();
    keeper.handle_answer(ask.number, GRANTED, at(4010));
    assert_eq!((keeper.lease_end(), keeper.poll_ask(at(4020))), (None, None), "it is not asked for in a loop");
    keeper.handle_clock(true);
    let ask = keeper.poll_ask(at(8000)).unwrap();
    keeper.handle_answer(ask.number, GRANTED, at(8010));
    assert_eq!(keeper.lease_end(), Some(at(18_000)));
}

#[test]
fn a_surrender_is_final() {
    let mut keeper = LeaseKeeper::default();
    let clock = Arc::clone(keeper.clock());
    keeper.handle_length(TEN);
    keeper.handle_leader(Some(LEADER));
    let first = keeper.poll_ask(at(0)).unwrap();
    keeper.handle_answer(first.number, Answer::Granted(Generation(0)), at(1));
    assert!(clock.fresh(at(1)).is_ok(), "the clock follows the lease");
    let second = keeper.poll_ask(at(4000)).unwrap();
    keeper.surrender();
    assert!(!keeper.handle_answer(second.number, Answer::Granted(Generation(0)), at(4001)));
    keeper.handle_enforced(Generation(9));
    keeper.handle_leader(Some(Leader { term: 9, ..LEADER }));
    assert_eq!(clock.fresh(at(4001)).map(|_| ()), Err(NoLease));
    assert_eq!((keeper.poll_ask(at(9000)), keeper.poll_timeout(), keeper.is_surrendered()), (None, None, true));
}

#[test]
fn revocations_in_force_are_reported_once_and_in_pages() {
    let mut keeper = leased();
    for n in 8..=47 {
        keeper.handle_revoked(Enforcement { generation: Generation(n), closed: 1, at: UnixMillis(n) });
    }
    assert_eq!(keeper.poll_ask(at(100)), None, "not in force yet");
    keeper.handle_enforced(Generation(47));
    let ask = keeper.poll_ask(at(100)).unwrap();
    let told: Vec<u64> = ask.enforcements.iter().map(|e| e.generation.0).collect();
    assert_eq!(told, (8..=39).collect::<Vec<_>>());
    keeper.handle_answer(ask.number, Answer::Heard, at(110));
    let ask = keeper.poll_ask(at(110)).unwrap();
    assert_eq!(ask.enforcements.len(), 8);
    keeper.handle_answer(ask.number, Answer::Heard, at(120));
    assert_eq!(keeper.poll_ask(at(120)), None);
}

#[test]
fn delegation_waits_for_the_leader_and_never_outlasts_its_lease() {
    let mut keeper = leased();
    assert_eq!(keeper.delegate(GUARD, at(60)), (Generation(7), 0), "no leader was told");
    keeper.handle_delegating();
    let ask = keeper.poll_ask(at(100)).unwrap();
    assert!(ask.delegates && !ask.renew, "the leader is told at once");
    assert_eq!(keeper.delegate(GUARD, at(100)).1, 0, "it has not heard yet");
    keeper.handle_answer(ask.number, Answer::Heard, at(110));
    assert_eq!(keeper.delegate(GUARD, at(110)), (Generation(7), 9_791), "what is left, less the drift");
    keeper.handle_leader(None);
    assert_eq!(keeper.delegate(GUARD, at(120)).1, 0, "no leader is known");
    keeper.handle_leader(Some(Leader { term: 6, ..LEADER }));
    assert_eq!(keeper.delegate(GUARD, at(120)).1, 0, "the next term knows nothing");
    let ask = keeper.poll_ask(at(120)).unwrap();
    keeper.handle_answer(ask.number, Answer::Heard, at(130));
    assert!(keeper.delegate(GUARD, at(130)).1 > 0);
    assert_eq!(keeper.delegate(GUARD, at(10_000)).1, 0, "its own is over");
}

#[test]
fn a_delegate_is_waited_for_until_it_enforces_or_its_lease_ends() {
    let mut keeper = leased();
    keeper.handle_delegating();
    let ask = keeper.poll_ask(at(100)).unwrap();
    keeper.handle_answer(ask.number, Answer::Heard, at(110));
    keeper.handle_delegate_enforced(GUARD, Generation(7));
    keeper.delegate(GUARD, at(120));
    keeper.handle_enforced(Generation(8));
    assert_eq!(keeper.poll_ask(at(200)), None, "the delegate does not enforce it");
    keeper.handle_delegate_enforced(GUARD, Generation(8));
    assert_eq!(keeper.poll_ask(at(200)).unwrap().enforced, Generation(8));
    // The next time it answers nothing, and its lease is waited out.
    keeper.handle_failure(2, at(210));
    keeper.handle_enforced(Generation(9));
    keeper.handle_delegate_gone(GUARD, at(220));
    let (mut now, mut said) = (at(210), Generation(8));
    while said < Generation(9) {
        now = keeper.poll_timeout().unwrap();
        said = keeper.poll_ask(now).map_or(said, |ask| ask.enforced);
    }
    assert!(at(10_000) <= now && now <= at(12_200), "{now:?}");
}

#[test]
fn restart_waits_for_delegates_of_the_previous_process() {
    let mut keeper = keeper(7);
    keeper.handle_forgotten_delegates(at(5000));
    let ask = keeper.poll_ask(at(0)).unwrap();
    assert_eq!((ask.enforced, ask.delegates), (Generation(0), true));
    keeper.handle_answer(ask.number, GRANTED, at(10));
    keeper.handle_leader(Some(LEADER));
    let ask = keeper.poll_ask(at(3333)).unwrap();
    keeper.handle_answer(ask.number, GRANTED, at(3340));
    assert_eq!((keeper.poll_ask(at(3350)), keeper.poll_timeout()), (None, Some(at(5000))));
    assert_eq!(keeper.poll_ask(at(5000)).unwrap().enforced, Generation(7));
}

#[derive(Debug, Clone)]
enum Event {
    Pass(u64),
    Enforce(u64),
    Lead(Option<u64>),
    Certificate(bool),
    Clock(bool),
    Answer(u8),
    Fail,
    Delegate(u64),
    DelegateEnforces(u64, u64),
    DelegateGoes(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0_u64..3000).prop_map(Event::Pass),
        2 => (0_u64..4).prop_map(Event::Enforce),
        1 => proptest::option::of(0_u64..3).prop_map(Event::Lead),
        1 => any::<bool>().prop_map(Event::Certificate),
        1 => any::<bool>().prop_map(Event::Clock),
        6 => (0_u8..6).prop_map(Event::Answer),
        1 => Just(Event::Fail),
        2 => (1_u64..4).prop_map(Event::Delegate),
        2 => (1_u64..4, 0_u64..4).prop_map(|(to, back)| Event::DelegateEnforces(to, back)),
        1 => (1_u64..4).prop_map(Event::DelegateGoes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn lease_always_ends_in_time_and_the_member_asks_again(
        secs in 1_u64..20,
        events in proptest::collection::vec(event(), 0..120),
    ) {
        let length = LeaseLength::from_secs(secs).unwrap();
        let mut keeper = LeaseKeeper::default();
        keeper.handle_length(length);
        keeper.handle_delegating();
        let (mut now, mut enforced, mut ask, mut asked_at) = (at(0), 0, None::<Ask>, at(0));
        // Of each delegate, what it enforces, and the leases that it may count: named and until.
        let mut delegates = vec![(0_u64, Vec::<(u64, BootMillis)>::new()); 4];
        for event in events {
            match event {
                Event::Pass(millis) => now = now.plus(millis),
                Event::Enforce(more) => {
                    enforced += more;
                    keeper.handle_enforced(Generation(enforced));
                }
                Event::Lead(term) => keeper.handle_leader(term.map(|term| Leader { term, ..LEADER })),
                Event::Certificate(valid) => keeper.handle_certificate(valid),
                Event::Clock(right) => keeper.handle_clock(right),
                Event::Answer(which) => {
                    let Some(ask) = ask.take() else { continue };
                    let named = Generation(enforced + u64::from(which % 2));
                    let answer = match which {
                        0..3 => Answer::Granted(named),
                        3 => Answer::Heard,
                        4 => Answer::Differs,
                        _ => Answer::Replaced,
                    };
                    keeper.handle_answer(ask.number, answer, now);
                }
                Event::Fail => {
                    if let Some(ask) = ask.take() {
                        keeper.handle_failure(ask.number, now);
                    }
                }
                Event::Delegate(to) => {
                    let (named, millis) = keeper.delegate(DelegateId(to), now);
                    prop_assert!(keeper.lease_end().map_or(millis == 0, |end| now.plus(millis) <= end.max(now)));
                    delegates[to as usize].1.push((named.0, now.plus(millis)));
                }
                Event::DelegateEnforces(by, back) => {
                    let by = by as usize;
                    delegates[by].0 = delegates[by].0.max(enforced.saturating_sub(back));
                    keeper.handle_delegate_enforced(DelegateId(by as u64), Generation(delegates[by].0));
                }
                Event::DelegateGoes(gone) => keeper.handle_delegate_gone(DelegateId(gone), now),
            }
            let before = ask.as_ref().map_or(0, |ask| ask.number);
            if let Some(next) = keeper.poll_ask(now) {
                prop_assert!(next.number > before);
                prop_assert!(next.enforced.0 <= enforced);
                for (acknowledged, leases) in &delegates {
                    // A lease counts once its delegate enforces what it names.
                    let counts = leases.iter().any(|(named, until)| named <= acknowledged && now < *until);
                    prop_assert!(!counts || next.enforced.0 <= *acknowledged);
                }
                (asked_at, ask) = (now, Some(next));
            }
            prop_assert!(keeper.lease_end().is_none_or(|end| end <= asked_at.plus(length.millis())));
        }
        // Left alone with a leader, it asks for a lease before long.
        keeper.handle_leader(Some(Leader { term: 0, ..LEADER }));
        keeper.handle_certificate(true);
        let end = now.plus(length.millis() + 3000);
        while keeper.poll_ask(now).is_none_or(|ask| !ask.renew) {
            let next = keeper.poll_timeout();
            prop_assert!(next.is_some_and(|next| now <= next && next <= end), "{next:?} at {now:?}");
            now = next.unwrap_or(end).max(now.plus(1));
        }
    }
}
