//! The clock that leases are counted by.

use countersign_core::time::BootMillis;
use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME`: no process can set it, and it goes on while the machine is suspended, which `Instant` does not.
pub fn boot_now() -> BootMillis {
    let now = clock_gettime(ClockId::Boottime);
    let (secs, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    BootMillis(secs.saturating_mul(1000).saturating_add(nanos / 1_000_000))
}
