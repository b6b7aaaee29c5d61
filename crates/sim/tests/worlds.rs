//! The promises hold in every world tried, the worlds are worth trying, and the checks can fail.
//!
//! `COUNTERSIGN_SIM_SEEDS` chooses others: a number of seeds from 0, or a range such as `500..900`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;
use std::env;
use std::ops::Range;

use countersign_core::peer::Refusal;
use countersign_sim::{Broken, Danger, Event, Report, Unfounded, danger_run, run};

const STEPS: u32 = 2_000;
const SEEDS: Range<u64> = 0..12;

fn seeds() -> Range<u64> {
    let Ok(text) = env::var("COUNTERSIGN_SIM_SEEDS") else { return SEEDS };
    let bounds: Vec<u64> = text.split("..").map(|n| n.parse().expect("a number, or FROM..TO")).collect();
    match bounds[..] {
        [count] => 0..count,
        [from, to] => from..to,
        _ => panic!("COUNTERSIGN_SIM_SEEDS is `{text}`, expected a number or FROM..TO"),
    }
}

/// What these worlds can refuse a peer for; the rest are refusals of the transport.
const REFUSALS: [Refusal; 14] = [
    Refusal::TrustDomain,
    Refusal::Cluster,
    Refusal::Authority,
    Refusal::NotYetValid,
    Refusal::Expired,
    Refusal::KeyRevoked,
    Refusal::Evicted,
    Refusal::NotAMember,
    Refusal::KeyUnknown,
    Refusal::Endorsement,
    Refusal::Superseded,
    Refusal::NotANode,
    Refusal::WrongNode,
    Refusal::PrincipalUnknown,
];

#[test]
fn no_promise_breaks_and_everything_that_could_break_one_happens() {
    let mut total = Report::default();
    for seed in seeds() {
        match run(seed, STEPS) {
            Ok(report) => total.absorb(&report),
            Err(violation) => panic!("{violation}"),
        }
    }
    if seeds().count() < SEEDS.count() {
        return; // too few worlds to ask that all happened
    }
    let missing: Vec<&Event> =
        Event::ALL.iter().filter(|e| **e != Event::RefusedOtherwise && total.count(**e) == 0).collect();
    assert!(missing.is_empty(), "never happened: {missing:?}\n{total}");
    let missing: Vec<&Refusal> = REFUSALS.iter().filter(|r| !total.refusals.contains_key(r)).collect();
    assert!(missing.is_empty(), "no peer was ever refused for {missing:?}\n{total}");
}

#[test]
fn one_seed_is_one_world() {
    let (a, b, other) = (run(3, 600).unwrap(), run(3, 600).unwrap(), run(4, 600).unwrap());
    assert_eq!(a, b);
    assert_ne!(a.digest, other.digest);
}

/// Whether this violation is what the fault was put there to cause.
fn is_due_to(danger: Danger, broken: &Broken) -> bool {
    match danger {
        Danger::ForgetsToSpend => matches!(broken, Broken::Overspent { .. }),
        Danger::ForgetsRevocations => {
            matches!(
                broken,
                Broken::EndedTokenUsed(_)
                    | Broken::RevokedReturned(_)
                    | Broken::Accepted { why: Unfounded::Revoked, .. }
            )
        }
        Danger::ForgetsEvictions => {
            matches!(broken, Broken::Accepted { why: Unfounded::Evicted | Unfounded::Revoked, .. })
        }
        Danger::BelievesUnsignedRequests => matches!(broken, Broken::Unsigned { .. }),
        Danger::SponsorsRelayedRequests => matches!(broken, Broken::RelayedSponsored(_)),
        Danger::PermitsAnyMember => matches!(broken, Broken::Unpermitted(_)),
        Danger::AnswersRetriesDifferently => matches!(broken, Broken::AnswersDiffer(_)),
        Danger::FollowsEveryClock => matches!(broken, Broken::Time { .. }),
        Danger::RestartsFromTheOldSnapshot => {
            matches!(broken, Broken::StatesDiffer { .. } | Broken::Generation { .. } | Broken::Time { .. })
        }
        Danger::SkipsEntries => matches!(broken, Broken::StatesDiffer { .. } | Broken::OutcomesDiffer { .. }),
        Danger::ChangesOnRefusal => matches!(broken, Broken::RefusalChanged),
        Danger::BelievesAnyLeaf => matches!(broken, Broken::Accepted { why: Unfounded::NotVouched, .. }),
        Danger::IgnoresValidity => matches!(broken, Broken::Accepted { why: Unfounded::OutOfTime, .. }),
        Danger::TrustsAnyAuthority => matches!(broken, Broken::Accepted { why: Unfounded::Foreign, .. }),
        Danger::AcceptsAnyPeerAnywhere => matches!(broken, Broken::Accepted { why: Unfounded::NotWanted, .. }),
        Danger::BelievesAnyPrincipal => matches!(broken, Broken::Accepted { why: Unfounded::NotIssued, .. }),
        Danger::BelievesAnyNode => matches!(broken, Broken::Accepted { why: Unfounded::NeverAdmitted, .. }),
        Danger::RefusesRenewedLeaves => matches!(broken, Broken::MemberRefused { .. }),
        Danger::BelievesAnyAnswer => matches!(broken, Broken::LieBelieved(_)),
    }
}

#[test]
fn every_fault_breaks_the_promise_that_it_is_about() {
    let mut unseen: BTreeSet<Danger> = Danger::ALL.into();
    for danger in Danger::ALL {
        for seed in SEEDS {
            let Err(violation) = danger_run(seed, STEPS, danger) else { continue };
            assert!(is_due_to(danger, &violation.broken), "{danger:?} was seen as something else: {violation}");
            unseen.remove(&danger);
            break;
        }
    }
    assert!(unseen.is_empty(), "no world noticed {unseen:?}");
}

#[test]
fn a_violation_tells_how_to_see_it_again() {
    let mut seeds = SEEDS;
    let violation = seeds.find_map(|seed| danger_run(seed, STEPS, Danger::ForgetsToSpend).err()).unwrap();
    let shown = violation.to_string();
    let command = format!("--example replay -- {} {STEPS}", violation.seed);
    assert!(shown.ends_with(&command), "{shown}");
    assert!(shown.contains(&format!("step {}", violation.step)) && !violation.events.is_empty());
    let again = danger_run(violation.seed, STEPS, Danger::ForgetsToSpend).unwrap_err();
    assert_eq!(again, violation);
}
