//! The clocks of one host: one that only counts, and goes on through pauses, and one that anybody may set.

use countersign_core::time::{BootMillis, UnixMillis};

use crate::actors::BEGIN;
use crate::rng::Rng;

/// Millionths by which a counting clock runs fast or slow at most: two of them stay within the drift bound of leases.
const DRIFT_MAX_PPM: u64 = 4_900;
/// Ten years.
const JUMP_MILLIS: i64 = 10 * 366 * 86_400_000;
/// Milliseconds by which a clock that is right is wrong.
const OFF_MAX: u64 = 2_000;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    started: u64,
    ppm: i64,
    off: i64,
    /// Set wrong, by years.
    pub(crate) jump: i64,
}

fn around(rng: &mut Rng, bound: u64) -> i64 {
    i64::try_from(rng.below(2 * bound + 1)).unwrap_or(0) - i64::try_from(bound).unwrap_or(0)
}

impl Clocks {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        // Half of them as wrong as they may be: that is where errors are.
        let ppm = match rng.below(4) {
            0 => -(DRIFT_MAX_PPM as i64),
            1 => DRIFT_MAX_PPM as i64,
            _ => around(rng, DRIFT_MAX_PPM),
        };
        Self { started: 1_000_000 + rng.below(1_000_000_000), ppm, off: around(rng, OFF_MAX), jump: 0 }
    }

    /// What the counting clock reads when the true time is `now` milliseconds since the world began.
    pub(crate) const fn boot(&self, now: u64) -> BootMillis {
        let drift = (now as i64).saturating_mul(self.ppm) / 1_000_000;
        BootMillis(self.started.saturating_add_signed((now as i64).saturating_add(drift)))
    }

    /// What the wall clock shows.
    pub(crate) const fn wall(&self, now: u64) -> UnixMillis {
        UnixMillis((BEGIN.0 + now).saturating_add_signed(self.off + self.jump))
    }

    pub(crate) fn set_wrong(&mut self, rng: &mut Rng) {
        self.jump = if rng.one_in(2) { JUMP_MILLIS } else { -JUMP_MILLIS };
    }

    pub(crate) const fn set_behind(&mut self, behind: bool) {
        self.jump = if behind { -JUMP_MILLIS } else { 0 };
    }

    pub(crate) const fn is_right(&self) -> bool {
        self.jump == 0
    }
}
