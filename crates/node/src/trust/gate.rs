//! The gate before Raft's messages: shut until the cluster is recognized, and again when the lease lapses.

use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::time::BootMillis;

use crate::boot::boot_now;

/// Whether Raft's messages are believed: one moment of the clock that no suspend stops, so that a member that was
/// paused past the end of its lease believes nothing that was waiting for it.
pub(crate) struct Gate(AtomicU64);

const SHUT: u64 = 0;
const NO_LEASE_SINCE: u64 = u64::MAX;

impl Default for Gate {
    /// Open: for a group that no member stands around yet.
    fn default() -> Self {
        Self(AtomicU64::new(NO_LEASE_SINCE))
    }
}

impl Gate {
    /// Shuts it until the cluster is recognized.
    pub(crate) fn shut(&self) {
        self.0.store(SHUT, Ordering::Release);
    }

    /// Whether messages are believed now.
    pub(crate) fn is_open(&self) -> bool {
        boot_now().0 < self.0.load(Ordering::Acquire)
    }

    /// The cluster is recognized: messages are believed until the lease that this member has, or gets next, lapses.
    pub(crate) fn recognized(&self, lease: Option<BootMillis>) {
        let until = lease.filter(|end| boot_now() < *end).map_or(NO_LEASE_SINCE, |end| end.0);
        self.0.store(until, Ordering::Release);
    }

    /// A lease counts: from its end on nothing is believed. It does not open what is shut. One that has ended has shut
    /// it then: told of again, it does not shut what was recognized since, or two members would go on shutting each
    /// other out.
    pub(crate) fn leased(&self, until: BootMillis) {
        let now = boot_now().0;
        let counts = |end| (now < end && now < until.0).then_some(until.0);
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, counts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_that_has_ended_shuts_nothing_that_was_recognized_since() {
        let gate = Gate::default();
        let ended = BootMillis(boot_now().0.saturating_sub(1));
        gate.shut();
        gate.recognized(None);
        gate.leased(ended);
        assert!(gate.is_open(), "told of once more with each thing that is new");
        gate.leased(boot_now().plus(60_000));
        assert!(gate.is_open());
    }

    #[test]
    fn gate_opens_by_recognition_alone_and_shuts_with_the_lease() {
        let gate = Gate::default();
        assert!(gate.is_open(), "no member is put together around it yet");
        gate.shut();
        let (past, future) = (BootMillis(boot_now().0.saturating_sub(1)), boot_now().plus(3_600_000));
        gate.leased(future);
        assert!(!gate.is_open(), "a lease recognizes nothing");
        gate.recognized(None);
        assert!(gate.is_open(), "raft goes on without a lease");
        gate.leased(future);
        assert!(gate.is_open());
        gate.leased(boot_now().plus(5));
        while gate.is_open() {
            std::hint::spin_loop();
        }
        // It has lapsed.
        gate.leased(future);
        assert!(!gate.is_open(), "the next one comes too late");
        gate.recognized(Some(past));
        assert!(gate.is_open(), "once for each lapse");
        gate.recognized(Some(future));
        assert!(gate.is_open());
    }
}
