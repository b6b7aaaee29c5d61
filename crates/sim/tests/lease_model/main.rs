//! Every reachable state of a small cluster with leases: once the barrier has returned, no member serves the revoked
//! client.
//!
//! The leases and the barrier are those of the core ([`Holder`], [`TermState`], [`Fresh`]). They are driven through
//! every order of events that the scope allows: requests and answers late, lost, twice and out of order; a change of
//! leader whose predecessor answers late; pauses, restarts, and a clock that is slow by the drift bound. A pause
//! between the read of the clock and the effect is not a state here: an effect that has begun may finish.
//!
//! What one enforcer does depends on no other, and the barrier asks each for itself; so one is looked at closely,
//! several for a shorter time. `COUNTERSIGN_MODEL_PHASES` looks further ahead: two phases are a lease.
//!
//! [`Holder`]: countersign_core::lease::Holder
//! [`TermState`]: countersign_core::lease::TermState
//! [`Fresh`]: countersign_core::lease::Fresh

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod clocks;
mod fault;
mod world;

use std::env;

use countersign_core::lease::Standing;
use stateright::{Checker, Model, Property};

use fault::Fault;
use world::{Event, NEW, OLD, Scope, Stage, World};

const SAFE: &str = "once the barrier has returned, no member serves the revoked client";

/// One enforcer, closely: two requests under way at once.
const ONE: Scope = Scope {
    enforcers: &[2],
    slow: 2,
    phases: 3,
    calls: 2,
    renews: true,
    early: false,
    pauses: 0,
    restarts: 0,
    fault: None,
};
/// A leader that handles two requests of one member at once, and reads its clock early.
const EARLY: Scope = Scope { phases: 3, renews: false, early: true, ..ONE };
/// One enforcer that is paused and restarted.
const INTERRUPTED: Scope = Scope { calls: 1, pauses: 1, restarts: 1, ..ONE };
/// The old leader, which grants a lease to itself, and another.
const TWO: Scope = Scope { enforcers: &[0, 2], phases: 2, calls: 1, renews: false, ..ONE };
/// The leaders and a third, each an enforcer, before any lease that was granted runs out.
const THREE: Scope = Scope { enforcers: &[0, 1, 2], phases: 0, calls: 1, renews: false, ..ONE };

fn standing(scope: &Scope, world: &World, leader: usize, all: Standing) -> bool {
    !world.returned && scope.may_return(world, leader) && scope.standings(world, leader).iter().all(|s| *s == all)
}

impl Model for Scope {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        vec![self.begin()]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        self.events(world, events);
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        self.after(world, event)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let safe = vec![Property::always(SAFE, |scope: &Self, world: &World| {
            !world.returned || (0..world.members.len()).all(|at| !scope.allows(world, at))
        })];
        let covered = vec![
            Property::sometimes("the barrier returns: everybody enforces", |scope: &Self, world: &World| {
                standing(scope, world, OLD, Standing::Enforced)
            }),
            Property::sometimes("the barrier returns: a member's lease has run out", |scope: &Self, world: &World| {
                !world.returned
                    && scope.may_return(world, OLD)
                    && scope.standings(world, OLD).contains(&Standing::Lapsed)
            }),
            Property::sometimes(
                "the new leader's barrier returns: everybody enforces",
                |scope: &Self, world: &World| standing(scope, world, NEW, Standing::Enforced),
            ),
            Property::sometimes("a barrier returns at a leader that is deposed", |scope: &Self, world: &World| {
                !world.returned && world.elected && scope.may_return(world, OLD)
            }),
            Property::sometimes("a client that is not revoked is served on", |scope: &Self, world: &World| {
                let serves = |at: usize| world.members[at].stage == Stage::Enforced && scope.is_fresh(world, at);
                world.returned && (0..world.members.len()).any(serves)
            }),
            Property::sometimes(
                "the revoked client is served until the barrier returns",
                |scope: &Self, world: &World| {
                    world.committed.is_some() && (0..world.members.len()).any(|at| scope.allows(world, at))
                },
            ),
        ];
        // A broken world is searched for one thing only, so that what is found is shortest.
        if self.fault.is_some() { safe } else { safe.into_iter().chain(covered).collect() }
    }
}

fn check(name: &str, scope: Scope) {
    let further = env::var("COUNTERSIGN_MODEL_PHASES").map(|n| n.parse().expect("a number"));
    let scope = Scope { phases: further.unwrap_or(scope.phases), ..scope };
    let checker = scope.checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states", checker.unique_state_count());
    assert!(checker.is_done());
    checker.assert_properties();
}

#[test]
fn one_enforcer_never_serves_after_the_barrier() {
    check("one enforcer", ONE);
}

#[test]
fn an_enforcer_that_is_interrupted_never_serves_after_the_barrier() {
    check("interrupted", INTERRUPTED);
}

#[test]
fn grants_recorded_out_of_order_are_waited_for() {
    check("early", EARLY);
}

#[test]
fn two_enforcers_never_serve_after_the_barrier() {
    check("two enforcers", TWO);
}

#[test]
fn three_enforcers_never_serve_after_the_barrier() {
    check("three enforcers", THREE);
}

#[test]
fn each_rule_left_out_is_missed() {
    for fault in Fault::ALL {
        let scope = Scope { fault: Some(fault), pauses: 1, restarts: 1, ..ONE };
        let found = scope.checker().spawn_bfs().join();
        let Some(path) = found.discovery(SAFE) else { panic!("{fault:?} goes unnoticed") };
        let events = path.into_actions();
        println!("{fault:?}: {} states, {} events: {events:?}", found.unique_state_count(), events.len());
    }
}
