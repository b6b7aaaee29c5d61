//! The gate before every handshake, TCP or QUIC: what a source has left, and the places that are free.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::budget::{Charge, Source, SourceBudget};

/// Budget and places of one port.
pub(crate) struct Gate {
    started: Instant,
    budget: Mutex<SourceBudget>,
    places: Arc<Semaphore>,
    places_max: usize,
}

impl Gate {
    pub(crate) fn new(places_max: usize, failures_per_source_minute: u32) -> Self {
        Self {
            started: Instant::now(),
            budget: Mutex::new(SourceBudget::new(failures_per_source_minute)),
            places: Arc::new(Semaphore::new(places_max)),
            places_max,
        }
    }

    fn budget(&self) -> MutexGuard<'_, SourceBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an attempt as failed, until it is refunded.
    pub(crate) fn charge(&self, source: SocketAddr) -> Charge {
        self.budget().charge(Source::of(source.ip()), self.started.elapsed())
    }

    /// The attempt succeeded.
    pub(crate) fn refund(&self, source: SocketAddr) {
        self.budget().refund(Source::of(source.ip()));
    }

    /// Whether another attempt of `source` would be refused.
    pub(crate) fn is_exhausted(&self, source: SocketAddr) -> bool {
        self.budget().is_exhausted(Source::of(source.ip()), self.started.elapsed())
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
