//! The clocks that a guard is told by.

use countersign_core::time::{BootMillis, UnixMillis};

/// What a guard asks for the time.
pub trait Time: Send + Sync + 'static {
    /// The clock that no suspend stops (`CLOCK_BOOTTIME`), by which leases are counted.
    fn boot(&self) -> BootMillis;

    /// This host's clock.
    fn clock(&self) -> UnixMillis;

    /// The later of this host's clock and the cluster's last known time: validity is judged by it.
    fn now(&self) -> UnixMillis;
}
