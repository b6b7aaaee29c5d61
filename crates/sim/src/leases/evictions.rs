//! What leases cost, and how soon an eviction has cut the last connection, in clusters that nothing disturbs.

use countersign_core::id::NodeId;
use countersign_core::lease::LeaseLength;

use super::Setting;
use super::found::Size;
use super::operator::{Wish, eviction};
use super::verdict::LeaseBroken;
use super::world::World;
use crate::rng::Rng;

/// Milliseconds until everybody has a lease, and those over which is counted.
const CONVERGED: u64 = 30_000;
const SPAN: u64 = 60_000;
/// Milliseconds from one revocation of a burst to the next.
const STEP: u64 = 100;

/// Messages about leases, per member and second: requests, acknowledgements and answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Members that the cluster has.
    pub members: u64,
    /// Over a minute in which nothing happens.
    pub steady: f64,
    /// Over the time of a burst of revocations, ten a second.
    pub burst: f64,
    /// Leases granted per second by the leader, in the steady state: each waits for a round of heartbeats to the
    /// voters.
    pub grants: f64,
}

fn calm_world(seed: u64, members: u64) -> Result<World, LeaseBroken> {
    let voters = members.min(5);
    let size = Size { members, voters, ttl_secs: 86_400, lease: LeaseLength::DEFAULT };
    World::of(Rng::new(seed), size, Setting::rounds(0))
}

/// What leases of ten seconds cost a cluster of so many members.
///
/// Errors: a promise that did not hold.
pub fn lease_cost(seed: u64, members: u64, revocations: u32) -> Result<Cost, LeaseBroken> {
    let mut world = calm_world(seed, members)?;
    world.run_until(CONVERGED)?;
    let (messages, grants) = (world.shop.lease_messages, world.shop.grants);
    world.run_until(CONVERGED + SPAN)?;
    let per = |from: u64, to: u64, millis: u64| (to - from) as f64 * 1000.0 / millis as f64;
    let steady = per(messages, world.shop.lease_messages, SPAN) / members as f64;
    let grants = per(grants, world.shop.grants, SPAN);
    for _ in 0..revocations {
        let issue = world.shop.issue().ok_or(LeaseBroken::World)?;
        world.wish(Wish::of(issue));
    }
    world.run_until(world.shop.now + 5_000)?;
    let keys: Vec<_> = world.shop.record.good().map(|credential| credential.key()).collect();
    let (began, messages) = (world.shop.now, world.shop.lease_messages);
    for key in keys {
        world.wish(Wish::of(countersign_core::trust::command::Command::RevokeKey(
            countersign_core::trust::command::RevokeKey(key),
        )));
        world.run_until(world.shop.now + STEP)?;
    }
    let burst = per(messages, world.shop.lease_messages, world.shop.now - began) / members as f64;
    Ok(Cost { members, steady, burst, grants })
}

/// Milliseconds from the commit of an eviction to the last of the connections closed that the evicted member has with
/// every other, messages taking 1 to 20 ms; none closed is an error.
///
/// Errors: a promise that did not hold, or an eviction that did not happen.
pub fn eviction_millis(seed: u64, members: u64) -> Result<u64, LeaseBroken> {
    let mut world = calm_world(seed, members)?;
    world.shop.closing = 1;
    world.run_until(CONVERGED)?;
    let victim = NodeId(members);
    let role = countersign_core::principal::Role::Node(victim);
    let own = world.shop.record.credentials.iter().position(|credential| *credential.role() == role);
    let own = own.ok_or(LeaseBroken::World)?;
    world.machines.values_mut().for_each(|machine| {
        machine.process.connections.insert(own);
    });
    let wish = world.wish(Wish::of(eviction(victim)));
    world.run_until(CONVERGED + 10_000)?;
    let committed = world.shop.record.wishes.get(wish).filter(|wish| wish.generation.is_some());
    let committed = committed.ok_or(LeaseBroken::World)?.committed_at;
    if (world.shop.shut_at.len() as u64) < members - 1 {
        return Err(LeaseBroken::World);
    }
    let last = world.shop.shut_at.iter().map(|(at, _)| *at).max().ok_or(LeaseBroken::World)?;
    Ok(last - committed)
}
