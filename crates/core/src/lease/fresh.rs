//! The proof that a decision is fresh, made by one clock read.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};

use super::Holder;
use crate::time::BootMillis;

/// This member has no lease: it has not heard lately what is revoked, so it serves no client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this member has no lease: it has not heard from a leader with a quorum lately")]
pub struct NoLease;

/// Proof that a lease was valid at a clock read in this task's current turn. It cannot move to another thread, so it
/// does not live across an await in a spawned task: a task that was paused makes another, and is denied if its time is
/// over.
///
/// ```compile_fail,E0277
/// fn elsewhere<T: Send>(_: T) {}
/// let clock = countersign_core::lease::LeaseClock::default();
/// if let Ok(fresh) = clock.fresh(countersign_core::time::BootMillis(0)) {
///     elsewhere(fresh);
/// }
/// ```
#[derive(Debug)]
pub struct Fresh<'a> {
    now: BootMillis,
    deadline: BootMillis,
    _here: PhantomData<(*const (), &'a LeaseClock)>,
}

impl Fresh<'_> {
    /// What the clock read.
    pub const fn now(&self) -> BootMillis {
        self.now
    }

    /// When the lease that it rests on ends.
    pub const fn deadline(&self) -> BootMillis {
        self.deadline
    }
}

/// The end of a member's lease, as the hot path reads it: one relaxed load, written seldom.
#[derive(Debug, Default)]
pub struct LeaseClock(AtomicU64);

impl LeaseClock {
    /// Takes over what the holder knows.
    pub fn follow(&self, holder: &Holder) {
        self.0.store(holder.deadline().map_or(0, |deadline| deadline.0), Ordering::Release);
    }

    /// A proof for a clock that reads `now`, read *after* the requests that it is to cover had been received.
    pub fn fresh(&self, now: BootMillis) -> Result<Fresh<'_>, NoLease> {
        let deadline = BootMillis(self.0.load(Ordering::Acquire));
        if now < deadline { Ok(Fresh { now, deadline, _here: PhantomData }) } else { Err(NoLease) }
    }
}
