//! The clocks of the lease model: one that is right, and one that loses as much as the drift bound lets it.
//!
//! Time goes on in two kinds of steps, so that the moments matter at which a lease of a second has run out for a leader
//! that ignores the drift (after 1000 ms), and for a member with the slow clock (10 ms later).

use countersign_core::limits::LEASE_DRIFT_PERMILLE;
use countersign_core::time::BootMillis;

/// What a slow clock loses while a lease of a second lasts.
pub(crate) const DRIFT_MILLIS: u64 = LEASE_DRIFT_PERMILLE;

/// What the clock of `node` reads. Readings of two machines have nothing to do with each other.
pub(crate) fn clock(node: usize, slow: bool, phase: u8) -> BootMillis {
    let started = 1_000_000 * (1 + node as u64);
    let (pairs, odd) = (u64::from(phase / 2), u64::from(phase % 2));
    let counted =
        if slow { 1000 * pairs + (1000 - DRIFT_MILLIS) * odd } else { (1000 + DRIFT_MILLIS) * pairs + 1000 * odd };
    BootMillis(started + counted)
}

#[test]
fn slow_clock_loses_only_the_drift_bound_in_every_lease() {
    for phase in 0..10 {
        let counted = |slow, from| clock(0, slow, from + 2).since(clock(0, slow, from));
        assert_eq!((counted(false, phase), counted(true, phase)), (1010, 1000));
    }
}
