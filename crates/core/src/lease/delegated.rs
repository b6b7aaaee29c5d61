//! Leases that a member delegates to guards outside the cluster, which decide by its word. Each ends with the member's
//! own. The member must never say that it enforces a generation before its delegates do, or their leases have ended.

use std::collections::BTreeMap;

use crate::id::Generation;
use crate::limits::LEASE_DRIFT_PERMILLE;
use crate::time::BootMillis;

/// One delegate. Each connection has a number of its own, above 0: a guard that connects again remembers nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DelegateId(pub u64);

/// All delegates that have gone and may still count a lease.
const GONE: DelegateId = DelegateId(0);

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Delegate {
    acknowledged: Generation,
    /// The end of the last lease at each generation named, by this member's clock.
    until: BTreeMap<Generation, BootMillis>,
}

/// The leases that a member gave out of its own, by delegate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct DelegatedLeases {
    delegates: BTreeMap<DelegateId, Delegate>,
}

impl DelegatedLeases {
    /// After a start: the process before may have delegated leases that this one does not know. They last until then.
    pub(super) fn after_others(&mut self, until: BootMillis) {
        let forgotten = self.delegates.entry(GONE).or_default();
        forgotten.until.insert(Generation(0), until);
    }

    /// Gives a lease that names `newest`, the generation that this member enforces, and ends with its own. Returns for
    /// how many milliseconds the delegate may count it from before it asked. They are fewer than are left: its clock
    /// may be slower.
    pub(super) fn grant(&mut self, to: DelegateId, newest: Generation, own_end: BootMillis, now: BootMillis) -> u64 {
        let delegate = self.delegates.entry(to).or_default();
        delegate.until.retain(|_, until| *until > now);
        let until = delegate.until.entry(newest).or_default();
        *until = own_end.max(*until);
        let left = own_end.since(now);
        left.saturating_sub((left.saturating_mul(LEASE_DRIFT_PERMILLE)).div_ceil(1000))
    }

    /// A delegate has gone, and may count its leases until they end. All that have gone are one: the slowest.
    pub(super) fn depart(&mut self, gone: DelegateId, now: BootMillis) {
        let Some(mut left) = self.delegates.remove(&gone) else { return };
        left.until.retain(|_, until| *until > now);
        if left.until.is_empty() {
            return;
        }
        match self.delegates.get_mut(&GONE) {
            None => drop(self.delegates.insert(GONE, left)),
            Some(others) => {
                others.until.retain(|_, until| *until > now);
                others.acknowledged = others.acknowledged.min(left.acknowledged);
                for (generation, until) in left.until {
                    let last = others.until.entry(generation).or_default();
                    *last = until.max(*last);
                }
            }
        }
    }

    /// Delegates that are counted: those that are there, and one for all that have gone.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.delegates.len()
    }

    /// A delegate enforces `generation`.
    pub(super) fn acknowledge(&mut self, from: DelegateId, generation: Generation) {
        let delegate = self.delegates.entry(from).or_default();
        delegate.acknowledged = delegate.acknowledged.max(generation);
    }

    /// The newest generation that a member which enforces `own` may say that it enforces, with all its delegates. And
    /// when that may change by the passing of time alone.
    pub(super) fn enforced(&mut self, own: Generation, now: BootMillis) -> (Generation, Option<BootMillis>) {
        // A delegate without a lease is not waited for.
        self.delegates.retain(|_, delegate| {
            delegate.until.retain(|_, until| *until > now);
            !delegate.until.is_empty()
        });
        let (mut enforced, mut next) = (own, None);
        for delegate in self.delegates.values().filter(|delegate| delegate.acknowledged < own) {
            // A lease counts only once its delegate enforces what it names, so one that names `own` is none yet.
            let Some(until) = delegate.until.range(..own).map(|(_, until)| *until).max() else { continue };
            enforced = enforced.min(delegate.acknowledged);
            next = Some(next.map_or(until, |next: BootMillis| next.min(until)));
        }
        (enforced, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: DelegateId = DelegateId(1);
    const OTHER: DelegateId = DelegateId(2);

    fn at(millis: u64) -> BootMillis {
        BootMillis(millis)
    }

    #[test]
    fn member_claims_only_what_all_its_delegates_enforce() {
        let mut leases = DelegatedLeases::default();
        assert_eq!(leases.enforced(Generation(7), at(0)), (Generation(7), None));
        assert_eq!(leases.grant(ONE, Generation(7), at(10_000), at(0)), 9_900);
        leases.acknowledge(ONE, Generation(7));
        assert_eq!(leases.enforced(Generation(7), at(0)), (Generation(7), None));
        assert_eq!(leases.enforced(Generation(8), at(0)), (Generation(7), Some(at(10_000))));
        leases.acknowledge(ONE, Generation(8));
        assert_eq!(leases.enforced(Generation(8), at(0)), (Generation(8), None));
    }

    #[test]
    fn silent_delegate_is_waited_for_until_its_lease_runs_out() {
        let mut leases = DelegatedLeases::default();
        leases.grant(ONE, Generation(7), at(10_000), at(0));
        leases.acknowledge(ONE, Generation(7));
        assert_eq!(leases.enforced(Generation(8), at(9_999)).0, Generation(7));
        assert_eq!(leases.enforced(Generation(8), at(10_000)), (Generation(8), None));
    }

    #[test]
    fn lease_for_an_unenforced_generation_prolongs_no_delegate() {
        let mut leases = DelegatedLeases::default();
        leases.grant(ONE, Generation(7), at(10_000), at(0));
        leases.acknowledge(ONE, Generation(7));
        leases.grant(ONE, Generation(8), at(20_000), at(5_000));
        assert_eq!(leases.enforced(Generation(8), at(5_000)), (Generation(7), Some(at(10_000))));
        assert_eq!(leases.enforced(Generation(8), at(10_000)), (Generation(8), None));
        // It counts for the next one: by then it may have come to enforce what was named.
        assert_eq!(leases.enforced(Generation(9), at(10_000)).1, Some(at(20_000)));
    }

    #[test]
    fn gone_delegates_are_waited_for_as_one() {
        let mut leases = DelegatedLeases::default();
        for number in 1..=1000 {
            leases.grant(DelegateId(number), Generation(7), at(10_000 + number), at(0));
            leases.acknowledge(DelegateId(number), Generation(7));
            leases.depart(DelegateId(number), at(1));
        }
        assert_eq!(leases.len(), 1);
        assert_eq!(leases.enforced(Generation(7), at(2)), (Generation(7), None), "what they enforce is enough");
        assert_eq!(leases.enforced(Generation(8), at(2)), (Generation(7), Some(at(11_000))));
        // No other delegate answers for them, and one that had acknowledged nothing counts most.
        leases.grant(OTHER, Generation(8), at(9_000), at(3));
        leases.acknowledge(OTHER, Generation(8));
        assert_eq!(leases.enforced(Generation(8), at(3)).0, Generation(7));
        leases.grant(ONE, Generation(5), at(12_000), at(3));
        leases.depart(ONE, at(3));
        assert_eq!(leases.enforced(Generation(8), at(3)), (Generation(0), Some(at(12_000))));
        assert_eq!(leases.enforced(Generation(8), at(12_000)), (Generation(8), None));
        assert_eq!(leases.len(), 0);
        // One whose leases have ended leaves nothing.
        leases.grant(ONE, Generation(8), at(13_000), at(12_500));
        leases.depart(ONE, at(13_000));
        assert_eq!(leases.len(), 0);
    }

    #[test]
    fn slowest_delegate_counts_and_a_restart_waits_for_forgotten_delegates() {
        let mut leases = DelegatedLeases::default();
        leases.after_others(at(3_000));
        assert_eq!(leases.enforced(Generation(9), at(0)), (Generation(0), Some(at(3_000))));
        leases.grant(ONE, Generation(8), at(10_000), at(0));
        leases.grant(OTHER, Generation(8), at(12_000), at(0));
        leases.acknowledge(ONE, Generation(9));
        assert_eq!(leases.enforced(Generation(9), at(3_000)), (Generation(0), Some(at(12_000))));
        leases.acknowledge(OTHER, Generation(8));
        assert_eq!(leases.enforced(Generation(9), at(3_000)), (Generation(8), Some(at(12_000))));
        assert_eq!(leases.enforced(Generation(9), at(12_000)), (Generation(9), None));
    }
}
