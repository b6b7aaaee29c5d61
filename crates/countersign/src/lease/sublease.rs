//! Leases that this member gives out of its own, to guards outside the cluster.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_core::id::{Generation, NodeId};
use countersign_core::lease::{LeaseLength, Sublessor, Subtenant};
use countersign_core::limits::SUBTENANTS_MAX;
use countersign_core::time::BootMillis;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::boot::boot_now;
use crate::datadir::{DataDir, DataDirError};
use crate::machine::SharedState;

/// There once this member has given a lease to somebody outside: after a start, such leases may go on.
const MARK: &str = "subleased";

/// Whoever holds a place may be given leases.
pub(crate) struct Place {
    pub(crate) tenant: Subtenant,
    _place: OwnedSemaphorePermit,
}

/// What was given, and who has acknowledged what.
pub(crate) struct Subleases {
    sublessor: Mutex<Sublessor>,
    acknowledged: watch::Sender<()>,
    places: Arc<Semaphore>,
    next: AtomicU64,
    /// Whom it was told that leases are given to others, in which term. Until then none is.
    announced: Mutex<Option<(NodeId, u64)>>,
    marked: Mutex<bool>,
}

impl Subleases {
    /// After a start. What the process before gave out lasts as long as its own lease did, at most.
    pub(crate) fn new(data: &DataDir, length: LeaseLength) -> Result<Self, DataDirError> {
        let marked = data.read(MARK)?.is_some();
        let mut sublessor = Sublessor::default();
        if marked {
            sublessor.after_others(boot_now().plus(length.waited_millis()));
        }
        Ok(Self {
            sublessor: Mutex::new(sublessor),
            acknowledged: watch::Sender::new(()),
            places: Arc::new(Semaphore::new(SUBTENANTS_MAX)),
            next: AtomicU64::new(1),
            announced: Mutex::default(),
            marked: Mutex::new(marked),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Sublessor> {
        self.sublessor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place; none if all are taken.
    pub(crate) fn enter(&self) -> Option<Place> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Place { tenant: Subtenant(self.next.fetch_add(1, Ordering::Relaxed)), _place: place })
    }

    /// Whether leases are given, or may be: the leader is told with each request.
    pub(crate) fn are_wanted(&self) -> bool {
        self.next.load(Ordering::Relaxed) > 1 || *self.marked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This leader knows. Should this member be evicted, it waits for those whom leases were given to.
    pub(crate) fn announced_to(&self, leader: NodeId, term: u64) {
        *self.announced.lock().unwrap_or_else(PoisonError::into_inner) = Some((leader, term));
    }

    /// Has the leader told before the first lease is given.
    pub(crate) fn announce(&self) {
        self.acknowledged.send_replace(());
    }

    /// Gives a lease that ends with this member's own, and names what is enforced here. Reading that and recording what is
    /// given are one step: else a generation could be acknowledged in between, and the lease not be waited for.
    pub(crate) fn grant(
        &self,
        to: &Place,
        state: &SharedState,
        data: &DataDir,
        (leader, own_end): (Option<(NodeId, u64)>, Option<BootMillis>),
    ) -> Result<(Generation, u64), DataDirError> {
        self.mark(data)?;
        let mut sublessor = self.lock();
        let enforced = *state.applied().borrow();
        let now = boot_now();
        let known = leader.is_some() && *self.announced.lock().unwrap_or_else(PoisonError::into_inner) == leader;
        let millis =
            own_end.filter(|end| known && *end > now).map_or(0, |end| sublessor.grant(to.tenant, enforced, end, now));
        Ok((enforced, millis))
    }

    /// Before the first lease is given: it may outlive this process.
    fn mark(&self, data: &DataDir) -> Result<(), DataDirError> {
        let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        if !*marked {
            data.write(MARK, b"leases were given to guards outside the cluster\n")?;
            *marked = true;
        }
        Ok(())
    }

    pub(crate) fn acknowledge(&self, from: &Place, generation: Generation) {
        self.lock().acknowledge(from.tenant, generation);
        self.acknowledged.send_replace(());
    }

    /// What this member may say that it enforces, and when that may change by time alone.
    pub(crate) fn enforced(&self, state: &SharedState, now: BootMillis) -> (Generation, Option<BootMillis>) {
        let mut sublessor = self.lock();
        let own = *state.applied().borrow();
        sublessor.enforced(own, now)
    }

    /// Changes whenever somebody has acknowledged something.
    pub(crate) fn acknowledged(&self) -> watch::Receiver<()> {
        self.acknowledged.subscribe()
    }
}
