//! Time as a value. Core never reads a clock: it is told.

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since the Unix epoch, never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// From whole seconds since the Unix epoch; saturates.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// This point moved `secs` seconds into the future; saturates.
    pub const fn plus_secs(self, secs: u64) -> Self {
        Self(self.0.saturating_add(secs.saturating_mul(1000)))
    }

    /// This point moved `secs` seconds into the past; stops at the epoch.
    pub const fn minus_secs(self, secs: u64) -> Self {
        Self(self.0.saturating_sub(secs.saturating_mul(1000)))
    }

    /// The first moment after the second that this point is in: what counts until a second counts until that is over.
    pub const fn next_second(self) -> Self {
        Self::from_secs(self.secs().saturating_add(1))
    }

    /// Seconds from `earlier` to this point, zero if it lies behind.
    pub const fn secs_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1000
    }
}

/// A reading of a clock that never runs backwards and goes on during suspend (`CLOCK_BOOTTIME`): milliseconds since
/// this machine started. Readings of two machines, or of two starts of one, are not comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct BootMillis(pub u64);

impl BootMillis {
    /// This moment moved `millis` into the future; saturates.
    pub const fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this moment, zero if it lies behind.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Validity of a certificate or a path: both ends inclusive, as in RFC 5280 §4.1.2.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    /// First moment of validity.
    pub not_before: UnixMillis,
    /// Last moment of validity.
    pub not_after: UnixMillis,
}

impl Validity {
    /// Whether `now` lies within, compared in whole seconds as certificates are.
    pub const fn contains(&self, now: UnixMillis) -> bool {
        self.not_before.secs() <= now.secs() && now.secs() <= self.not_after.secs()
    }

    /// The part that two validities share: the validity of a path through both.
    pub fn intersect(&self, other: &Self) -> Self {
        Self { not_before: self.not_before.max(other.not_before), not_after: self.not_after.min(other.not_after) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_includes_both_ends_and_nothing_beyond() {
        let v = Validity { not_before: UnixMillis::from_secs(10), not_after: UnixMillis::from_secs(20) };
        for (now, valid) in [(9_999, false), (10_000, true), (20_999, true), (21_000, false)] {
            assert_eq!(v.contains(UnixMillis(now)), valid, "{now}");
        }
    }

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(UnixMillis(5).minus_secs(1), UnixMillis(0));
        assert_eq!(UnixMillis(u64::MAX).plus_secs(1), UnixMillis(u64::MAX));
        assert_eq!(UnixMillis(1).secs_since(UnixMillis(9)), 0);
    }
}
