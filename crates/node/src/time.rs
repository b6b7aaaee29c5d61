//! The cluster's time: what this member stamps as leader, and how far its own clock is from what the leader stamps.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use countersign_core::id::NodeId;
use countersign_core::lease::LeaseManager;
use countersign_core::limits::SKEW_SECS;
use countersign_core::locked::Locked;
use countersign_core::time::{BootMillis, UnixMillis};
use countersign_core::trust::clocks::{Anchor, StampError};
use countersign_guard::Time;
use countersign_net::{Clock, SystemClock};

use crate::boot::boot_now;
use crate::trust::machine::SharedState;

/// The clocks that decisions are told by: this host's, and whatever tells the later of it and what members said.
pub struct Clocks<F>(
    /// What tells the later of the two.
    pub F,
);

impl<F: Fn() -> UnixMillis + Send + Sync + 'static> Time for Clocks<F> {
    fn boot(&self) -> BootMillis {
        boot_now()
    }

    fn clock(&self) -> UnixMillis {
        SystemClock.now()
    }

    fn now(&self) -> UnixMillis {
        (self.0)()
    }
}

/// This host's clock, as the cluster sees it.
#[derive(Default)]
struct OwnClock {
    /// Milliseconds by which it is ahead; 0 until a leader has said.
    ahead: AtomicI64,
}

impl OwnClock {
    /// Takes in what the leader's stamp was at about this moment, and says whether this host's clock is right.
    fn compare(&self, own: UnixMillis, stamp: UnixMillis) -> bool {
        let of = |time: UnixMillis| i64::try_from(time.0).unwrap_or(i64::MAX);
        self.ahead.store(of(own).saturating_sub(of(stamp)), Ordering::Relaxed);
        self.is_right()
    }

    /// Whether it is within the bound by which clocks may differ.
    fn is_right(&self) -> bool {
        self.ahead.load(Ordering::Relaxed).unsigned_abs() <= SKEW_SECS * 1000
    }

    /// By how many seconds it is ahead of the cluster's time, negative if it is behind; none while it is right.
    fn off_secs(&self) -> Option<i64> {
        (!self.is_right()).then(|| self.ahead.load(Ordering::Relaxed) / 1000)
    }
}

/// The cluster's time as this member knows it: the clocks that voters reported, and how far this host's is off.
pub struct ClusterTime {
    node: NodeId,
    state: SharedState,
    /// Has the clocks that voters reported.
    manager: Arc<Locked<LeaseManager>>,
    own: OwnClock,
    /// The leader's newest stamp, and when it came.
    told: Locked<Option<Anchor>>,
}

impl ClusterTime {
    pub(crate) fn new(node: NodeId, state: SharedState, manager: Arc<Locked<LeaseManager>>) -> Self {
        Self { node, state, manager, own: OwnClock::default(), told: Locked::default() }
    }

    /// Whether this host's clock is right, as far as a leader has said.
    pub(crate) fn is_right(&self) -> bool {
        self.own.is_right()
    }

    /// The leader's stamp in its newest answer, and when it came; none before the first.
    pub(crate) fn stamp_told(&self) -> Option<Anchor> {
        *self.told.lock()
    }

    fn voters(&self) -> BTreeSet<NodeId> {
        let state = self.state.read();
        let Some(view) = state.view() else { return BTreeSet::from([self.node]) };
        view.members.voters().map(|member| member.id).collect()
    }

    /// The time that this member, as leader, stamps a command with.
    pub(crate) fn stamp(&self) -> Result<UnixMillis, StampError> {
        let (voters, anchor) = (self.voters(), self.state.anchor());
        self.manager.lock().clocks().stamp(&voters, self.node, SystemClock.now(), boot_now(), anchor)
    }

    /// Who may lead in place of this member: the voters whose clocks are right, as far as is known here.
    pub(crate) fn in_step(&self) -> BTreeSet<NodeId> {
        let (voters, anchor) = (self.voters(), self.state.anchor());
        self.manager.lock().clocks().in_step(&voters, self.node, SystemClock.now(), boot_now(), anchor)
    }

    /// Takes in the leader's time, if it could tell one, and says whether this member may serve clients by its own.
    pub(crate) fn compare(&self, stamp: Option<UnixMillis>) -> bool {
        let was_right = self.own.is_right();
        let right = match stamp {
            Some(stamp) => {
                *self.told.lock() = Some(Anchor { time: stamp, at: boot_now() });
                self.own.compare(SystemClock.now(), stamp)
            }
            None => was_right,
        };
        match (was_right, self.own.off_secs()) {
            (true, Some(off)) => {
                tracing::warn!(ahead_secs = off, "this host's clock is wrong: no client is served until it is right");
            }
            (false, None) => tracing::info!("this host's clock is right again"),
            _ => {}
        }
        right
    }

    /// The leader's comparison with itself: it is away from the median of the voters' clocks, or it is not.
    pub(crate) fn own_stamp(&self) -> Option<UnixMillis> {
        match self.stamp() {
            Ok(_) => Some(SystemClock.now()),
            // Told by which way it is away: behind, it would stamp the last time again and again.
            Err(StampError::Skewed { off_secs }) => {
                let own = SystemClock.now();
                let ahead = own > self.state.anchor().now(boot_now());
                Some(if ahead { own.minus_secs(off_secs) } else { own.plus_secs(off_secs) })
            }
            Err(StampError::Unconfirmed { .. }) => None,
        }
    }

    /// What people are told of this host's clock; none while it is right.
    pub fn warning(&self) -> Option<String> {
        let off = self.own.off_secs()?;
        let way = if off > 0 { "ahead of" } else { "behind" };
        let off = off.unsigned_abs();
        Some(format!(
            "this host's clock is {off} seconds {way} the cluster's (bound: {SKEW_SECS}): no client is served here; \
             set it right"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_right_up_to_the_bound_and_not_beyond_it() {
        let clock = OwnClock::default();
        let (now, bound) = (UnixMillis(1_800_000_000_000), SKEW_SECS * 1000);
        assert!(clock.off_secs().is_none(), "unknown is not wrong");
        assert!(clock.compare(UnixMillis(now.0 + bound), now) && clock.compare(UnixMillis(now.0 - bound), now));
        assert!(!clock.compare(UnixMillis(now.0 + bound + 1), now));
        assert_eq!(clock.off_secs(), Some(60));
        assert!(!clock.compare(UnixMillis(now.0 - bound - 1), now));
        assert_eq!(clock.off_secs(), Some(-60));
        assert!(clock.compare(now, now) && clock.off_secs().is_none(), "set right again");
        assert!(!clock.compare(UnixMillis(0), now) && !clock.compare(UnixMillis(u64::MAX), now));
    }
}
