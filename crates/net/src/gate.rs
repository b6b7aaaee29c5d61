//! The gate before every handshake, TCP or QUIC: what a source has left, and the places that are free.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use countersign_core::locked::{LockGuard, Locked};
use countersign_core::peer::Refusal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::attempt::Attempt;
use crate::budget::{Charge, Source, SourceBudget};
use crate::refusal::{RefusalRecord, Refusals};

/// Stands for all sources that have not answered.
const NO_SOURCE: Source = Source::of_v4(Ipv4Addr::UNSPECIFIED);

/// Budget and places of one port.
pub(crate) struct Gate {
    started: Instant,
    budget: Locked<SourceBudget>,
    /// Failures of sources that never answered, all as one.
    unanswered: Locked<SourceBudget>,
    places: Arc<Semaphore>,
    places_max: usize,
}

impl Gate {
    pub(crate) fn new(places_max: usize, failures_per_source_minute: u32) -> Self {
        Self {
            started: Instant::now(),
            budget: Locked::new(SourceBudget::new(failures_per_source_minute)),
            unanswered: Locked::new(SourceBudget::new(failures_per_source_minute)),
            places: Arc::new(Semaphore::new(places_max)),
            places_max,
        }
    }

    fn budget(&self) -> LockGuard<'_, SourceBudget> {
        self.budget.lock()
    }

    /// Counts an attempt as failed, until it is refunded. A source that has failed too often is turned away only where
    /// places are scarce: a member may share its address with the caller that failed.
    pub(crate) fn charge(&self, source: SocketAddr) -> Charge {
        let (source, now, scarce) = (Source::of(source.ip()), self.started.elapsed(), self.is_half_full());
        let mut budget = self.budget();
        // Asked first: an attempt that is let in is not reported as a refusal, and the next refusal is.
        if !scarce && budget.is_exhausted(source, now) { Charge::Overdrawn } else { budget.charge(source, now) }
    }

    /// The attempt succeeded.
    pub(crate) fn refund(&self, source: SocketAddr) {
        self.budget().refund(Source::of(source.ip()));
    }

    /// Whether another attempt of `source` would be refused.
    pub(crate) fn is_exhausted(&self, source: SocketAddr) -> bool {
        self.budget().is_exhausted(Source::of(source.ip()), self.started.elapsed())
    }

    /// An attempt failed whose source has not answered, and so may be forged. All such count as one source.
    pub(crate) fn charge_unanswered(&self) {
        self.unanswered.lock().charge(NO_SOURCE, self.started.elapsed());
    }

    /// Whether so many of these failed lately that every source must answer first.
    pub(crate) fn is_deceived(&self) -> bool {
        self.unanswered.lock().is_exhausted(NO_SOURCE, self.started.elapsed())
    }

    /// Charges the source of an attempt and takes a place for it, before any byte is read: whether it was charged, and
    /// the place. An attempt that is refused is recorded.
    pub(crate) fn enter(&self, attempt: &Attempt, refusals: &dyn Refusals) -> Option<(bool, OwnedSemaphorePermit)> {
        let refuse = |repeated: bool| {
            let record = attempt.clone().record(Refusal::Overloaded.into());
            refusals.record(RefusalRecord { repeated, ..record });
            None
        };
        let charged = match self.charge(attempt.source) {
            Charge::Refused { repeated } => return refuse(repeated),
            Charge::Taken => true,
            Charge::Overdrawn => false,
        };
        match self.place() {
            Some(place) => Some((charged, place)),
            None => refuse(false),
        }
    }

    /// A place for one handshake, if one is free.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.places_max.saturating_sub(self.places.available_permits())
    }

    pub(crate) fn is_half_full(&self) -> bool {
        self.in_flight().saturating_mul(2) >= self.places_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: usize = 4;
    const FAILURES: u32 = 3;

    /// What an attempt meets after `failed` failures of its source, while `held` places are taken.
    fn check(failed: u32, held: usize, expected: Charge) {
        let gate = Gate::new(PLACES, FAILURES);
        let source = "10.0.0.1:1".parse().unwrap();
        for _ in 0..failed {
            assert_eq!(gate.charge(source), Charge::Taken);
        }
        let places: Vec<_> = (0..held).map(|_| gate.place().unwrap()).collect();
        assert_eq!(gate.charge(source), expected, "{failed} failed, {held} held");
        assert_eq!(gate.in_flight(), places.len());
    }

    #[tokio::test]
    async fn a_source_that_failed_too_often_is_let_in_while_half_the_places_are_free() {
        for (failed, held, expected) in [
            (0, 0, Charge::Taken),
            (FAILURES - 1, 0, Charge::Taken),
            (FAILURES - 1, PLACES, Charge::Taken),
            (FAILURES, 0, Charge::Overdrawn),
            (FAILURES, PLACES / 2 - 1, Charge::Overdrawn),
            (FAILURES, PLACES / 2, Charge::Refused { repeated: false }),
            (FAILURES, PLACES, Charge::Refused { repeated: false }),
        ] {
            check(failed, held, expected);
        }
    }

    #[tokio::test]
    async fn what_was_let_in_over_budget_leaves_the_first_refusal_to_be_told() {
        let gate = Gate::new(2, 1);
        let source = "10.0.0.1:1".parse().unwrap();
        assert_eq!(gate.charge(source), Charge::Taken);
        assert_eq!(gate.charge(source), Charge::Overdrawn);
        let _place = gate.place().unwrap();
        assert_eq!(gate.charge(source), Charge::Refused { repeated: false });
        assert_eq!(gate.charge(source), Charge::Refused { repeated: true });
    }
}
