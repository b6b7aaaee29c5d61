//! Leases that this member gives out of its own, to guards outside the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::id::{Generation, NodeId};
use countersign_core::lease::{DelegateId, DelegatedLeases, LeaseLength};
use countersign_core::limits::{SUBTENANTS_MAX, SUBTENANTS_PER_PRINCIPAL_MAX};
use countersign_core::locked::{LockGuard, Locked, Order};
use countersign_core::time::BootMillis;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::boot::boot_now;
use crate::identity::datadir::{DataDir, DataDirError, file};
use crate::trust::machine::SharedState;

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("{SUBTENANTS_MAX} guards outside the cluster watch this member: ask another")]
    Member,
    #[error(
        "{SUBTENANTS_PER_PRINCIPAL_MAX} guards of this principal watch this member: end one, or ask another member"
    )]
    Principal,
}

/// Places that each principal holds; who holds none is absent.
type Held = Arc<Locked<BTreeMap<String, usize>>>;

/// The newest level that each guard knows, as it last said, by the number of its place.
type Levels = Arc<Locked<BTreeMap<u64, (String, u32)>>>;

/// Whoever holds a place may be given leases.
pub(crate) struct Place {
    pub(crate) tenant: DelegateId,
    principal: String,
    held: Held,
    levels: Levels,
    sublessor: Arc<Locked<DelegatedLeases>>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sublessor.lock().depart(self.tenant, boot_now());
        self.levels.lock().remove(&self.tenant.0);
        let mut held = self.held.lock();
        match held.get_mut(&self.principal) {
            Some(places) if *places > 1 => *places -= 1,
            _ => drop(held.remove(&self.principal)),
        }
    }
}

/// What was given, and who has acknowledged what.
pub struct Subleases {
    /// Held while it is asked to which leader leases were announced: reading that and granting are one step.
    sublessor: Arc<Locked<DelegatedLeases>>,
    acknowledged: watch::Sender<()>,
    places: Arc<Semaphore>,
    held: Held,
    levels: Levels,
    next: AtomicU64,
    /// Whom it was told that leases are given to others, in which term. Until then none is.
    announced: Locked<Option<(NodeId, u64)>>,
    marked: Locked<bool>,
}

impl Subleases {
    /// After a start. What the process before gave out lasts as long as its own lease did, at most.
    pub(crate) fn new(data: &DataDir, length: LeaseLength) -> Result<Self, DataDirError> {
        let marked = data.read(file::SUBLEASED)?.is_some();
        let mut sublessor = DelegatedLeases::default();
        if marked {
            sublessor.after_others(boot_now().plus(length.waited_millis()));
        }
        Ok(Self {
            sublessor: Arc::new(Locked::of(Order::Outer, sublessor)),
            acknowledged: watch::Sender::new(()),
            places: Arc::new(Semaphore::new(SUBTENANTS_MAX)),
            held: Held::default(),
            levels: Levels::default(),
            next: AtomicU64::new(1),
            announced: Locked::default(),
            marked: Locked::new(marked),
        })
    }

    fn lock(&self) -> LockGuard<'_, DelegatedLeases> {
        self.sublessor.lock()
    }

    /// A place for a guard of this principal.
    pub(crate) fn enter(&self, principal: &str) -> Result<Place, Full> {
        let mut held = self.held.lock();
        let own = held.get(principal).copied().unwrap_or_default();
        if own >= SUBTENANTS_PER_PRINCIPAL_MAX {
            return Err(Full::Principal);
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Full::Member)?;
        held.insert(principal.to_owned(), own.saturating_add(1));
        let tenant = DelegateId(self.next.fetch_add(1, Ordering::Relaxed));
        let (held, sublessor) = (Arc::clone(&self.held), Arc::clone(&self.sublessor));
        let levels = Arc::clone(&self.levels);
        Ok(Place { tenant, principal: principal.to_owned(), held, levels, sublessor, _place: place })
    }

    /// The guard at this place says which level it knows.
    pub(crate) fn knows(&self, place: &Place, level: u32) {
        self.levels.lock().insert(place.tenant.0, (place.principal.clone(), level));
    }

    /// The guards at this member that know less than `level`, with what they know.
    pub fn below(&self, level: u32) -> Vec<(String, u32)> {
        self.levels.lock().values().filter(|(_, knows)| *knows < level).cloned().collect()
    }

    /// Whether leases are given, or may be: the leader is told with each request.
    pub(crate) fn are_wanted(&self) -> bool {
        self.next.load(Ordering::Relaxed) > 1 || *self.marked.lock()
    }

    /// This leader knows. Should this member be evicted, it waits for those whom leases were given to.
    pub(crate) fn announced_to(&self, leader: NodeId, term: u64) {
        *self.announced.lock() = Some((leader, term));
    }

    /// Has the leader told before the first lease is given.
    pub fn announce(&self) {
        self.acknowledged.send_replace(());
    }

    /// Gives a lease that ends with this member's own, and names what is enforced here. Reading that and recording what is
    /// given are one step: else a generation could be acknowledged in between, and the lease not be waited for. Returns the
    /// generation that it names, and for how many milliseconds it may be counted; 0 for none.
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
        let known = leader.is_some() && *self.announced.lock() == leader;
        let millis =
            own_end.filter(|end| known && *end > now).map_or(0, |end| sublessor.grant(to.tenant, enforced, end, now));
        Ok((enforced, millis))
    }

    /// Before the first lease is given: it may outlive this process.
    fn mark(&self, data: &DataDir) -> Result<(), DataDirError> {
        let mut marked = self.marked.lock();
        if !*marked {
            data.write(file::SUBLEASED, b"leases were given to guards outside the cluster\n")?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::founded;

    #[tokio::test]
    async fn no_lease_is_given_before_the_leader_of_this_term_knows_of_such_leases_or_after_one_s_own() {
        let (directory, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let running = founded(directory.path()).await.unwrap();
        let state = &running.state;
        let data = DataDir::open(own.path()).unwrap();
        let subleases = Subleases::new(&data, LeaseLength::DEFAULT).unwrap();
        assert!(!subleases.are_wanted(), "nobody is told without need");
        let place = subleases.enter("broker/b1").unwrap();
        assert!(subleases.are_wanted());
        let (n1, n2) = (NodeId(1), NodeId(2));
        let ends = || Some(boot_now().plus(60_000));
        let given = |leader, ends| subleases.grant(&place, state, &data, (leader, ends)).unwrap().1;
        assert_eq!(given(Some((n1, 3)), ends()), 0, "nobody was told");
        for (told, leads) in [((n1, 2), (n1, 3)), ((n2, 3), (n1, 3)), ((n1, 3), (n1, 4))] {
            subleases.announced_to(told.0, told.1);
            assert_eq!(given(Some(leads), ends()), 0, "{told:?} was told, {leads:?} leads");
        }
        assert_eq!(given(None, ends()), 0, "nobody leads");
        assert_eq!(given(Some((n1, 3)), None), 0, "it has none itself");
        assert_eq!(given(Some((n1, 3)), Some(boot_now())), 0, "its own is over");
        let millis = given(Some((n1, 3)), ends());
        assert!((1..=60_000).contains(&millis), "{millis}");
        // The next process waits for those whom this one gave leases to, and tells of them.
        assert!(Subleases::new(&data, LeaseLength::DEFAULT).unwrap().are_wanted());
        running.shutdown().await;
    }

    #[test]
    fn one_principal_holds_some_places_and_all_together_hold_no_more_than_there_are() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(directory.path()).unwrap();
        let subleases = Subleases::new(&data, LeaseLength::DEFAULT).unwrap();
        let one = |_| subleases.enter("broker/b1").unwrap();
        let mut own: Vec<Place> = (0..SUBTENANTS_PER_PRINCIPAL_MAX).map(one).collect();
        assert_eq!(subleases.enter("broker/b1").map(drop), Err(Full::Principal));
        own.pop();
        own.push(subleases.enter("broker/b1").unwrap());
        assert_eq!(subleases.enter("broker/b1").map(drop), Err(Full::Principal));
        let left = SUBTENANTS_MAX - SUBTENANTS_PER_PRINCIPAL_MAX;
        let others: Vec<Place> = (0..left).map(|at| subleases.enter(&format!("broker/o{at}")).unwrap()).collect();
        assert_eq!(subleases.enter("broker/more").map(drop), Err(Full::Member));
        drop(own);
        assert!(subleases.enter("broker/more").is_ok());
        drop(others);
        assert!(subleases.held.lock().is_empty(), "nobody is remembered");
    }
}
