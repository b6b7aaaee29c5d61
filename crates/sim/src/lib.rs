//! Seeded simulation of the pure core with an adversary.
//!
//! A world of members, joiners, operators and an adversary around the core's own functions: the state machine, the
//! enrollment's typestate, the judgement on a peer. Everything that happens follows from one number. After every step the
//! promises of the cluster are checked against an account that the simulation keeps by itself; [`Broken`] lists them.
//! It must never read a clock, draw the system's randomness, or open a socket, or a failure could not be seen again.
//!
//! What it does not model: which voters agreed on an entry (a committed prefix is never taken back), the bytes of
//! certificates and of TLS, and the rotation of authorities. Leases, barriers, clocks and elections have a world of their
//! own, in simulated time: [`run_leases`].

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
    Awaited, Cost, LeaseBroken, LeaseDanger, LeaseReport, LeaseViolation, Setting, eviction_millis, lease_cost,
    run_leases,
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
    let live = (0..steps).try_for_each(|_| world.step()).and_then(|()| world.settle()).and_then(|()| world.report());
    live.map_err(|broken| violation(world.trace.step, broken, world.trace.shown()))
}
