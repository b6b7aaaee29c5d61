//! A cluster in simulated time: members with leases, clocks that drift and jump, messages that are late, lost, twice
//! and out of order, pauses, crashes, partitions, deposed leaders that do not know it; and an adversary that keeps
//! every certificate it ever saw and presents all of them everywhere, again and again.
//!
//! What is decided about leases, barriers, voters, recognition, renewal, return and time, the core decides; the rest,
//! Raft too, is small and here. Everything follows from the seed.
//!
//! What it does not model: a voter that lies while it is a voter, and what it may do afterwards to a member that hears
//! no other member and has not lost its lease in between ([`Setting::captures`] shows that this is a limit, not an
//! oversight). And a voter that tells members without a lease that their certificates are superseded: each asks for
//! another, and until it has it, one that is on record and not adopted yet is void. Told to a majority at once, that
//! stops the cluster.

mod clients;
mod clock;
mod evictions;
mod found;
mod leader;
mod liars;
mod machine;
mod operator;
mod post;
mod raft;
mod receive;
mod refusals;
mod renew;
mod trouble;
mod verdict;
mod world;

pub use evictions::{Cost, eviction_millis, lease_cost};
pub use found::eviction_begun;
pub use verdict::{LeaseBroken, LeaseReport, LeaseViolation, Unmet};

use world::World;

/// A rule that every simulated member leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseDanger {
    /// Members serve without a lease.
    ServesWithoutLease,
    /// A generation is acknowledged while connections that it refuses are open.
    AcknowledgesBeforeClosing,
    /// A lease counts from the moment of the answer.
    CountsFromAnswer,
    /// A new leader does not reckon with leases that its predecessor granted.
    ForgetsPredecessor,
    /// A member that was away believes any member that says that it leads.
    SkipsRecognition,
    /// The certificate in use ends when the next is on record, not when it is first used.
    DropsOldCertificate,
    /// A leader stamps what its own clock shows.
    StampsByOwnClock,
    /// What a member acknowledged is not durable.
    ForgetsAcknowledged,
    /// No member serves or renews while its certificate has expired: even its own renewal is not allowed.
    ExpiresRecovery,
    /// A member that is refused as evicted believes it.
    BelievesRefusal,
    /// A member that is refused asks no member why.
    NeverAsksWhy,
    /// A member that has proof of its eviction serves on until its lease ends.
    ServesEvicted,
    /// A member returns with the key of the certificate that is refused.
    ReturnsWithOldKey,
    /// A member renews by its clock and its log alone, whatever the leader stamps.
    RenewsByLogAlone,
    /// A leader does not hear what the clocks of those show whose certificates have expired, by its own clock.
    IgnoresExpiredClocks,
}

impl LeaseDanger {
    /// Every fault.
    pub const ALL: [Self; 15] = [
        Self::ServesWithoutLease,
        Self::AcknowledgesBeforeClosing,
        Self::CountsFromAnswer,
        Self::ForgetsPredecessor,
        Self::SkipsRecognition,
        Self::DropsOldCertificate,
        Self::StampsByOwnClock,
        Self::ForgetsAcknowledged,
        Self::ExpiresRecovery,
        Self::IgnoresExpiredClocks,
        Self::BelievesRefusal,
        Self::NeverAsksWhy,
        Self::ServesEvicted,
        Self::ReturnsWithOldKey,
        Self::RenewsByLogAlone,
    ];
}

/// What kind of world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Times of trouble, each with a calm one after it.
    pub rounds: u32,
    /// What is left out.
    pub danger: Option<LeaseDanger>,
    /// Evicted machines also claim to lead towards members that have been in touch since before the eviction. No lease
    /// that one leader grants alone withstands that: it is a limit of the protocol.
    pub captures: bool,
    /// The check looks only for clients that a barrier revoked, not whether each member that serves has a lease to, or
    /// was evicted.
    pub only_stale: bool,
}

impl Setting {
    /// The rules as they are.
    pub const fn rounds(rounds: u32) -> Self {
        Self { rounds, danger: None, captures: false, only_stale: false }
    }
}

/// Runs the world of `seed`.
///
/// Errors: the first promise that did not hold, and when.
pub fn run_leases(seed: u64, setting: Setting) -> Result<LeaseReport, LeaseViolation> {
    let violation = |at, broken, events| LeaseViolation { seed, at, broken, events };
    let mut world = World::new(seed, setting).map_err(|broken| violation(0, broken, Vec::new()))?;
    match (0..setting.rounds).try_for_each(|_| world.round()).and_then(|()| world.idle()) {
        Ok(()) => Ok(world.shop.report),
        Err(broken) => Err(violation(world.shop.now, broken, world.shop.events.into())),
    }
}
