//! Leases in simulated time: no promise breaks, and each rule left out is noticed.
//!
//! `COUNTERSIGN_SIM_SEEDS` chooses other worlds: a number of seeds from 0, or a range such as `500..900`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::env;
use std::ops::Range;

use countersign_sim::{LeaseBroken, LeaseDanger, LeaseReport, Setting, Unmet, eviction_millis, lease_cost, run_leases};

/// Times of trouble in each world.
const ROUNDS: u32 = 3;
const SEEDS: Range<u64> = 0..10;
/// Worlds in which a rule that is left out is looked for.
const SEARCHED: Range<u64> = 0..40;

fn seeds() -> Range<u64> {
    let Ok(text) = env::var("COUNTERSIGN_SIM_SEEDS") else { return SEEDS };
    let bounds: Vec<u64> = text.split("..").map(|n| n.parse().expect("a number, or FROM..TO")).collect();
    match bounds[..] {
        [count] => 0..count,
        [from, to] => from..to,
        _ => panic!("COUNTERSIGN_SIM_SEEDS is `{text}`, expected a number or FROM..TO"),
    }
}

#[test]
fn leases_hold_whatever_fails() {
    let mut total = LeaseReport::default();
    for seed in seeds() {
        match run_leases(seed, Setting::rounds(ROUNDS)) {
            Ok(report) => total.absorb(&report),
            Err(violation) => panic!("{violation}"),
        }
    }
    println!("{} worlds, none served a client that a barrier had revoked\n{total}", seeds().count());
    if seeds().count() < SEEDS.count() {
        return; // too few worlds to ask that all happened
    }
    let missing: Vec<&str> = total.counts().iter().filter(|(_, count)| *count == 0).map(|(name, _)| *name).collect();
    assert!(missing.is_empty(), "never happened: {missing:?}");
}

#[test]
fn one_seed_is_one_world_of_leases() {
    let run = |seed| run_leases(seed, Setting::rounds(1)).unwrap();
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// Whether this violation is what the fault was put there to cause.
fn is_due_to(danger: LeaseDanger, broken: &LeaseBroken) -> bool {
    match danger {
        LeaseDanger::ServesWithoutLease
        | LeaseDanger::CountsFromAnswer
        | LeaseDanger::SkipsRecognition
        | LeaseDanger::AcknowledgesBeforeClosing
        | LeaseDanger::ForgetsPredecessor => matches!(broken, LeaseBroken::StaleAllow { .. }),
        LeaseDanger::DropsOldCertificate => matches!(broken, LeaseBroken::MemberRefused { .. }),
        LeaseDanger::StampsByOwnClock => matches!(broken, LeaseBroken::TimeAhead { .. }),
        LeaseDanger::ForgetsAcknowledged => matches!(broken, LeaseBroken::GenerationFell { .. }),
        LeaseDanger::BelievesRefusal => matches!(broken, LeaseBroken::LeftUnproven { .. }),
        LeaseDanger::ServesEvicted => matches!(broken, LeaseBroken::ServedEvicted { .. }),
        LeaseDanger::NeverAsksWhy | LeaseDanger::ReturnsWithOldKey => {
            matches!(broken, LeaseBroken::Waits { what: Unmet::Lease | Unmet::Leaving, .. })
        }
        LeaseDanger::RenewsByLogAlone => matches!(broken, LeaseBroken::Waits { what: Unmet::Certificate, .. }),
        LeaseDanger::ExpiresRecovery | LeaseDanger::IgnoresExpiredClocks => {
            matches!(broken, LeaseBroken::Waits { what: Unmet::Leader | Unmet::Lease, .. })
        }
    }
}

#[test]
fn each_rule_of_leases_left_out_is_noticed() {
    let mut unseen = Vec::new();
    for danger in LeaseDanger::ALL {
        let only_stale = danger != LeaseDanger::ServesEvicted;
        let setting = Setting { danger: Some(danger), only_stale, ..Setting::rounds(ROUNDS) };
        match SEARCHED.into_iter().find_map(|seed| run_leases(seed, setting).err()) {
            Some(violation) => {
                println!("{danger:?}: seed {}, {}", violation.seed, violation.broken);
                assert!(is_due_to(danger, &violation.broken), "{danger:?} was seen as something else: {violation}");
            }
            None => unseen.push(danger),
        }
    }
    assert!(unseen.is_empty(), "no world noticed {unseen:?}");
}

#[test]
fn serving_after_the_lease_is_noticed() {
    let danger = Some(LeaseDanger::ServesWithoutLease);
    let broken = run_leases(0, Setting { danger, ..Setting::rounds(1) }).unwrap_err().broken;
    assert!(matches!(broken, LeaseBroken::ServedUnleased { .. }), "{broken}");
}

/// A limit, on record: a leader alone grants leases, so one that was evicted and lies can keep a member going that
/// hears no other member and has not lost its lease since. A member that lost it asks a majority first.
#[test]
fn evicted_leader_that_lies_keeps_a_member_that_hears_only_it() {
    let setting = Setting { captures: true, only_stale: true, ..Setting::rounds(ROUNDS) };
    let found = SEARCHED.into_iter().find_map(|seed| run_leases(seed, setting).err()).unwrap();
    assert!(matches!(found.broken, LeaseBroken::StaleAllow { .. }), "{found}");
}

/// The sizes that matter are in the example `lease_cost`: they take longer.
#[test]
fn leases_cost_two_messages_per_renewal_and_two_per_revocation() {
    let cost = lease_cost(1, 4, 20).unwrap();
    // The leader asks itself, which is no message: of four members three do.
    assert!(cost.steady > 0.40 && cost.steady < 0.50, "{cost:?}");
    assert!(cost.burst > 14.0 && cost.burst < 17.0, "{cost:?}");
}

#[test]
fn an_eviction_closes_every_connection_one_message_after_its_commit() {
    for seed in 0..3 {
        let millis = eviction_millis(seed, 12).unwrap();
        assert!((2..=21).contains(&millis), "{millis} ms");
    }
}
