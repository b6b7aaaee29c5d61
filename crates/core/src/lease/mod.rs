//! Leases: a member serves clients only as long as it has lately heard what is revoked.
//!
//! The leader grants a lease after a quorum has confirmed it since the request came, and names the newest committed
//! generation. The [`Holder`] counts from its own clock before it asked, and only once that generation is in force with
//! it. So when the [`Grantor`] has waited for every member to enforce a revocation, or for its last lease to run out,
//! no member serves what was revoked. The argument is that of leases on cached data (Gray and Cheriton, SOSP 1989).
//!
//! A [`LeaseKeeper`] says when a member asks and what; a [`LeaseManager`] says what its leader answers, and a
//! [`PendingBarrier`] how far a revocation is. Their users send the messages and read the clocks.

mod barrier;
mod delegated;
mod enforcements;
mod fresh;
mod grantor;
mod holder;
mod keeper;
mod manager;
mod message;
mod processes;
mod receipts;
mod term;

pub use barrier::{Eviction, PendingBarrier, Progress, Roster};
pub use delegated::DelegateId;
pub use enforcements::Enforcement;
pub use fresh::{Fresh, LeaseClock, NoLease};
pub use grantor::{Grantor, Standing};
pub use holder::Holder;
pub use keeper::LeaseKeeper;
pub use manager::{Action, LeaseManager, NotLeader, PendingGrant};
pub use message::{Answer, Ask, Leader, Request};
pub use receipts::VerifiedReceipt;
pub use term::TermState;

use serde::{Deserialize, Serialize};

use crate::limits::{LEASE_DRIFT_PERMILLE, LEASE_SECS_MAX};

/// How long a lease lasts, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct LeaseLength(u64);

/// A lease must last at least a second and at most an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a lease lasts from 1 to {LEASE_SECS_MAX} seconds")]
pub struct LeaseLengthError;

impl Default for LeaseLength {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TryFrom<u64> for LeaseLength {
    type Error = LeaseLengthError;

    /// From milliseconds, which are whole seconds.
    fn try_from(millis: u64) -> Result<Self, LeaseLengthError> {
        if millis.is_multiple_of(1000) { Self::from_secs(millis / 1000) } else { Err(LeaseLengthError) }
    }
}

impl From<LeaseLength> for u64 {
    fn from(length: LeaseLength) -> Self {
        length.0
    }
}

impl LeaseLength {
    /// Ten seconds.
    pub const DEFAULT: Self = Self(10_000);

    /// From whole seconds.
    pub const fn from_secs(secs: u64) -> Result<Self, LeaseLengthError> {
        if secs == 0 || secs > LEASE_SECS_MAX { Err(LeaseLengthError) } else { Ok(Self(secs * 1000)) }
    }

    /// As its holder counts it.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// As its grantor waits for it: the holder's clock may be slower by the drift bound.
    pub const fn waited_millis(self) -> u64 {
        self.0 + (self.0 * LEASE_DRIFT_PERMILLE).div_ceil(1000)
    }

    /// How long after a lease began its holder asks for the next one: two requests may be lost.
    pub const fn renew_millis(self) -> u64 {
        self.0 / 3
    }
}

#[cfg(test)]
mod tests;
