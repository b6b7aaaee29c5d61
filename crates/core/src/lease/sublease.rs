//! A member's leases to those outside the cluster who decide by its word: out of its own, and acknowledged after them.

use std::collections::BTreeMap;

use crate::id::Generation;
use crate::limits::LEASE_DRIFT_PERMILLE;
use crate::time::BootMillis;

/// Whom a lease was given: each connection has a number of its own, since whoever connects anew remembers nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subtenant(pub u64);

/// All who are not there any more, and may count a lease.
const GONE: Subtenant = Subtenant(0);

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Tenancy {
    acknowledged: Generation,
    /// The end of the last lease at each generation named, by this member's clock.
    until: BTreeMap<Generation, BootMillis>,
}

/// What a member gave out of its own lease.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Sublessor {
    tenancies: BTreeMap<Subtenant, Tenancy>,
}

impl Sublessor {
    /// After a start by whoever may have given leases before it: some, which nobody remembers, last until then.
    pub fn after_others(&mut self, until: BootMillis) {
        let forgotten = self.tenancies.entry(GONE).or_default();
        forgotten.until.insert(Generation(0), until);
    }

    /// Gives a lease that names `newest`, the generation that this member enforces, and ends with its own. Returns for how
    /// many milliseconds its holder may count it, from before it asked: fewer than are left, since its clock may be slower.
    pub fn grant(&mut self, to: Subtenant, newest: Generation, own_end: BootMillis, now: BootMillis) -> u64 {
        let tenancy = self.tenancies.entry(to).or_default();
        tenancy.until.retain(|_, until| *until > now);
        let until = tenancy.until.entry(newest).or_default();
        *until = own_end.max(*until);
        let left = own_end.since(now);
        left.saturating_sub((left.saturating_mul(LEASE_DRIFT_PERMILLE)).div_ceil(1000))
    }

    /// A holder has gone, and may count the leases that it was given until they end. All who have gone are one: the slowest.
    pub fn depart(&mut self, gone: Subtenant, now: BootMillis) {
        let Some(mut left) = self.tenancies.remove(&gone) else { return };
        left.until.retain(|_, until| *until > now);
        if left.until.is_empty() {
            return;
        }
        match self.tenancies.get_mut(&GONE) {
            None => drop(self.tenancies.insert(GONE, left)),
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

    /// Holders that are counted: those who are there, and one for all who have gone.
    #[cfg(test)]
    fn holders(&self) -> usize {
        self.tenancies.len()
    }

    /// A holder enforces `generation`.
    pub fn acknowledge(&mut self, from: Subtenant, generation: Generation) {
        let tenancy = self.tenancies.entry(from).or_default();
        tenancy.acknowledged = tenancy.acknowledged.max(generation);
    }

    /// The newest generation that this member, which enforces `own`, may say that it enforces: with everybody whom it gave a
    /// lease. And when that may change by the passing of time alone.
    pub fn enforced(&mut self, own: Generation, now: BootMillis) -> (Generation, Option<BootMillis>) {
        // Whoever holds nothing any more and is gone leaves nothing behind.
        self.tenancies.retain(|_, tenancy| {
            tenancy.until.retain(|_, until| *until > now);
            !tenancy.until.is_empty()
        });
        let (mut enforced, mut next) = (own, None);
        for tenancy in self.tenancies.values().filter(|tenancy| tenancy.acknowledged < own) {
            // A lease counts only once its holder enforces what it names, so one that names `own` is none yet.
            let Some(until) = tenancy.until.range(..own).map(|(_, until)| *until).max() else { continue };
            enforced = enforced.min(tenancy.acknowledged);
            next = Some(next.map_or(until, |next: BootMillis| next.min(until)));
        }
        (enforced, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Subtenant = Subtenant(1);
    const OTHER: Subtenant = Subtenant(2);

    fn at(millis: u64) -> BootMillis {
        BootMillis(millis)
    }

    #[test]
    fn a_member_says_that_it_enforces_what_all_do_whom_it_gave_a_lease() {
        let mut sublessor = Sublessor::default();
        assert_eq!(sublessor.enforced(Generation(7), at(0)), (Generation(7), None));
        assert_eq!(sublessor.grant(ONE, Generation(7), at(10_000), at(0)), 9_900);
        sublessor.acknowledge(ONE, Generation(7));
        assert_eq!(sublessor.enforced(Generation(7), at(0)), (Generation(7), None));
        assert_eq!(sublessor.enforced(Generation(8), at(0)), (Generation(7), Some(at(10_000))));
        sublessor.acknowledge(ONE, Generation(8));
        assert_eq!(sublessor.enforced(Generation(8), at(0)), (Generation(8), None));
    }

    #[test]
    fn whoever_does_not_answer_is_waited_for_until_its_lease_has_run_out() {
        let mut sublessor = Sublessor::default();
        sublessor.grant(ONE, Generation(7), at(10_000), at(0));
        sublessor.acknowledge(ONE, Generation(7));
        assert_eq!(sublessor.enforced(Generation(8), at(9_999)).0, Generation(7));
        assert_eq!(sublessor.enforced(Generation(8), at(10_000)), (Generation(8), None));
    }

    #[test]
    fn a_lease_that_names_what_its_holder_does_not_enforce_prolongs_nothing() {
        let mut sublessor = Sublessor::default();
        sublessor.grant(ONE, Generation(7), at(10_000), at(0));
        sublessor.acknowledge(ONE, Generation(7));
        sublessor.grant(ONE, Generation(8), at(20_000), at(5_000));
        assert_eq!(sublessor.enforced(Generation(8), at(5_000)), (Generation(7), Some(at(10_000))));
        assert_eq!(sublessor.enforced(Generation(8), at(10_000)), (Generation(8), None));
        // It counts for the next one: by then it may have come to enforce what was named.
        assert_eq!(sublessor.enforced(Generation(9), at(10_000)).1, Some(at(20_000)));
    }

    #[test]
    fn whoever_has_gone_is_waited_for_and_however_many_went_are_one() {
        let mut sublessor = Sublessor::default();
        for number in 1..=1000 {
            sublessor.grant(Subtenant(number), Generation(7), at(10_000 + number), at(0));
            sublessor.acknowledge(Subtenant(number), Generation(7));
            sublessor.depart(Subtenant(number), at(1));
        }
        assert_eq!(sublessor.holders(), 1);
        assert_eq!(sublessor.enforced(Generation(7), at(2)), (Generation(7), None), "what they enforce is enough");
        assert_eq!(sublessor.enforced(Generation(8), at(2)), (Generation(7), Some(at(11_000))));
        // Nobody who is there answers for them, and one who had acknowledged nothing counts most.
        sublessor.grant(OTHER, Generation(8), at(9_000), at(3));
        sublessor.acknowledge(OTHER, Generation(8));
        assert_eq!(sublessor.enforced(Generation(8), at(3)).0, Generation(7));
        sublessor.grant(ONE, Generation(5), at(12_000), at(3));
        sublessor.depart(ONE, at(3));
        assert_eq!(sublessor.enforced(Generation(8), at(3)), (Generation(0), Some(at(12_000))));
        assert_eq!(sublessor.enforced(Generation(8), at(12_000)), (Generation(8), None));
        assert_eq!(sublessor.holders(), 0);
        // One whose leases have ended leaves nothing.
        sublessor.grant(ONE, Generation(8), at(13_000), at(12_500));
        sublessor.depart(ONE, at(13_000));
        assert_eq!(sublessor.holders(), 0);
    }

    #[test]
    fn the_slowest_of_several_counts_and_a_restart_waits_for_those_it_forgot() {
        let mut sublessor = Sublessor::default();
        sublessor.after_others(at(3_000));
        assert_eq!(sublessor.enforced(Generation(9), at(0)), (Generation(0), Some(at(3_000))));
        sublessor.grant(ONE, Generation(8), at(10_000), at(0));
        sublessor.grant(OTHER, Generation(8), at(12_000), at(0));
        sublessor.acknowledge(ONE, Generation(9));
        assert_eq!(sublessor.enforced(Generation(9), at(3_000)), (Generation(0), Some(at(12_000))));
        sublessor.acknowledge(OTHER, Generation(8));
        assert_eq!(sublessor.enforced(Generation(9), at(3_000)), (Generation(8), Some(at(12_000))));
        assert_eq!(sublessor.enforced(Generation(9), at(12_000)), (Generation(9), None));
    }
}
