//! Seeded simulation of `countersign-core` with an adversary.
//!
//! A world of members, joiners, operators and an adversary stands around the functions of core: the state machine, the
//! typestates of enrollment, the judgement on a peer. Everything follows from one number. After each step the
//! simulation checks the promises of the cluster against an account of its own; [`Broken`] lists them.
//!
//! - [`run`] runs a world; [`danger_run`] puts one defect around core, which a check must notice.
//! - [`run_leases`] is a cluster in simulated time: leases, barriers, clocks and elections. It drives the same lease
//!   machines as a member does.
//!
//! It does not model which voters agreed on an entry, the bytes of certificates and TLS, or a change of authorities.
//!
//! It must never read a clock, draw the system's randomness, or open a socket: a failure could not be seen again.

mod actors;
mod admin;
mod adversary;
mod consensus;
mod danger;
mod forger;
mod history;
mod joiner;
mod leases;
mod ledger;
mod post;
mod replica;
mod rng;
mod trace;
mod violation;
mod world;

pub use danger::Danger;
pub use leases::{
    Cost, LeaseBroken, LeaseDanger, LeaseReport, LeaseViolation, Setting, Unmet, eviction_begun, eviction_millis,
    lease_cost, run_leases,
};
pub use trace::{Event, Report};
pub use violation::{Broken, Unfounded, Violation};

use world::World;

/// Runs the world of `seed` for `steps` steps.
///
/// Errors: the first promise that did not hold, with the events that led to it.
pub fn run(seed: u64, steps: u32) -> Result<Report, Violation> {
    run_world(seed, steps, None)
}

/// As [`run`], with one defect around the core: the run ought to fail, or its checks are worth nothing.
///
/// Errors: as for [`run`].
pub fn danger_run(seed: u64, steps: u32, danger: Danger) -> Result<Report, Violation> {
    run_world(seed, steps, Some(danger))
}

fn run_world(seed: u64, steps: u32, danger: Option<Danger>) -> Result<Report, Violation> {
    let violation = |step, broken, events| Violation { seed, steps, step, broken, events };
    let mut world = World::new(seed, danger).map_err(|broken| violation(0, broken, Vec::new()))?;
    let live = (0..steps).try_for_each(|_| world.step()).and_then(|()| world.apply_all()).and_then(|()| world.report());
    live.map_err(|broken| violation(world.trace.step, broken, world.trace.shown()))
}
