//! Leases that this member delegates to guards outside the cluster: the places of the guards, and the mark of the
//! first lease.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::id::{Generation, NodeId};
use countersign_core::lease::{DelegateId, Leader, LeaseKeeper, LeaseLength};
use countersign_core::limits::{DELEGATED_LEASES_MAX, DELEGATED_LEASES_PER_PRINCIPAL_MAX};
use countersign_core::locked::Locked;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::boot::boot_now;
use crate::identity::datadir::{DataDir, DataDirError, file};
use crate::trust::machine::SharedState;

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("{DELEGATED_LEASES_MAX} guards outside the cluster watch this member: ask another")]
    Member,
    #[error(
        "{DELEGATED_LEASES_PER_PRINCIPAL_MAX} guards of this principal watch this member: end one, or ask another \
         member"
    )]
    Principal,
}

/// Places that each principal holds; a principal that holds none is absent.
type Held = Arc<Locked<BTreeMap<String, usize>>>;

/// The newest level that each guard knows, as it last said, by the number of its place.
type Levels = Arc<Locked<BTreeMap<u64, (String, u32)>>>;

/// The place of a guard, which may be delegated leases.
pub(crate) struct Place {
    delegate: DelegateId,
    principal: String,
    held: Held,
    levels: Levels,
    keeper: Arc<Locked<LeaseKeeper>>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.keeper.lock().handle_delegate_gone(self.delegate, boot_now());
        self.levels.lock().remove(&self.delegate.0);
        let mut held = self.held.lock();
        match held.get_mut(&self.principal) {
            Some(places) if *places > 1 => *places -= 1,
            _ => drop(held.remove(&self.principal)),
        }
    }
}

/// The guards at this member, and the leases that it delegates to them.
pub struct DelegatedLeases {
    keeper: Arc<Locked<LeaseKeeper>>,
    acknowledged: watch::Sender<()>,
    places: Arc<Semaphore>,
    held: Held,
    levels: Levels,
    next: AtomicU64,
    marked: Locked<bool>,
}

impl DelegatedLeases {
    /// After a start. What the process before delegated lasts as long as its own lease did, at most.
    pub(crate) fn new(data: &DataDir, length: LeaseLength) -> Result<Self, DataDirError> {
        let marked = data.read(file::DELEGATED)?.is_some();
        let mut keeper = LeaseKeeper::default();
        if marked {
            keeper.handle_forgotten_delegates(boot_now().plus(length.waited_millis()));
        }
        Ok(Self {
            keeper: Arc::new(Locked::new(keeper)),
            acknowledged: watch::Sender::new(()),
            places: Arc::new(Semaphore::new(DELEGATED_LEASES_MAX)),
            held: Held::default(),
            levels: Levels::default(),
            next: AtomicU64::new(1),
            marked: Locked::new(marked),
        })
    }

    /// The keeper of this member's own lease.
    pub(super) fn keeper(&self) -> Arc<Locked<LeaseKeeper>> {
        Arc::clone(&self.keeper)
    }

    /// A place for a guard of this principal.
    pub(crate) fn enter(&self, principal: &str) -> Result<Place, Full> {
        let mut held = self.held.lock();
        let own = held.get(principal).copied().unwrap_or_default();
        if own >= DELEGATED_LEASES_PER_PRINCIPAL_MAX {
            return Err(Full::Principal);
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Full::Member)?;
        held.insert(principal.to_owned(), own.saturating_add(1));
        drop(held);
        let delegate = DelegateId(self.next.fetch_add(1, Ordering::Relaxed));
        let (held, keeper) = (Arc::clone(&self.held), Arc::clone(&self.keeper));
        keeper.lock().handle_delegating();
        let levels = Arc::clone(&self.levels);
        Ok(Place { delegate, principal: principal.to_owned(), held, levels, keeper, _place: place })
    }

    /// The guard at this place says which level it knows.
    pub(crate) fn knows(&self, place: &Place, level: u32) {
        self.levels.lock().insert(place.delegate.0, (place.principal.clone(), level));
    }

    /// The guards at this member that know less than `level`, with what they know.
    pub fn below(&self, level: u32) -> Vec<(String, u32)> {
        self.levels.lock().values().filter(|(_, knows)| *knows < level).cloned().collect()
    }

    /// Has the leader told before the first lease is given.
    pub fn announce(&self) {
        self.acknowledged.send_replace(());
    }

    /// Delegates a lease, which ends with this member's own: the keeper knows when that is. Returns the generation
    /// that it names, and for how many milliseconds it may be counted; 0 for none.
    pub(crate) fn grant(
        &self,
        to: &Place,
        state: &SharedState,
        data: &DataDir,
        leader: Option<(NodeId, u64)>,
    ) -> Result<(Generation, u64), DataDirError> {
        self.mark(data)?;
        let enforced = *state.applied().borrow();
        let mut keeper = self.keeper.lock();
        keeper.handle_enforced(enforced);
        keeper.handle_leader(leader.map(|(node, term)| Leader { node, term }));
        Ok(keeper.delegate(to.delegate, boot_now()))
    }

    /// Before the first lease is given: it may outlive this process.
    fn mark(&self, data: &DataDir) -> Result<(), DataDirError> {
        let mut marked = self.marked.lock();
        if !*marked {
            data.write(file::DELEGATED, b"leases were given to guards outside the cluster\n")?;
            *marked = true;
        }
        Ok(())
    }

    pub(crate) fn acknowledge(&self, from: &Place, generation: Generation) {
        self.keeper.lock().handle_delegate_enforced(from.delegate, generation);
        self.acknowledged.send_replace(());
    }

    /// Changes whenever a guard has acknowledged something.
    pub(crate) fn acknowledged(&self) -> watch::Receiver<()> {
        self.acknowledged.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::founded;

    /// Whether a leader would be told that leases are delegated.
    fn says_so(delegated: &DelegatedLeases) -> bool {
        let mut keeper = delegated.keeper.lock();
        keeper.handle_length(LeaseLength::DEFAULT);
        keeper.handle_leader(Some(Leader { node: NodeId(1), term: 3 }));
        keeper.poll_ask(boot_now()).unwrap().delegates
    }

    #[tokio::test]
    async fn leader_is_told_of_guards_of_the_previous_process() {
        let (directory, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let running = founded(directory.path()).await.unwrap();
        let data = DataDir::open(own.path()).unwrap();
        let open = || DelegatedLeases::new(&data, LeaseLength::DEFAULT).unwrap();
        assert!(!says_so(&open()), "no leader is told without need");
        let delegated = open();
        let place = delegated.enter("broker/b1").unwrap();
        assert!(says_so(&delegated));
        assert!(!says_so(&open()), "no lease was delegated yet");
        let granted = delegated.grant(&place, &running.state, &data, Some((NodeId(1), 3))).unwrap();
        assert_eq!(granted.1, 0, "the member has none itself, and its leader was not told");
        assert!(says_so(&open()));
        running.shutdown().await;
    }

    #[test]
    fn places_are_bounded_for_each_principal_and_in_total() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(directory.path()).unwrap();
        let delegated = DelegatedLeases::new(&data, LeaseLength::DEFAULT).unwrap();
        let one = |_| delegated.enter("broker/b1").unwrap();
        let mut own: Vec<Place> = (0..DELEGATED_LEASES_PER_PRINCIPAL_MAX).map(one).collect();
        assert_eq!(delegated.enter("broker/b1").map(drop), Err(Full::Principal));
        own.pop();
        own.push(delegated.enter("broker/b1").unwrap());
        assert_eq!(delegated.enter("broker/b1").map(drop), Err(Full::Principal));
        let left = DELEGATED_LEASES_MAX - DELEGATED_LEASES_PER_PRINCIPAL_MAX;
        let others: Vec<Place> = (0..left).map(|at| delegated.enter(&format!("broker/o{at}")).unwrap()).collect();
        assert_eq!(delegated.enter("broker/more").map(drop), Err(Full::Member));
        drop(own);
        assert!(delegated.enter("broker/more").is_ok());
        drop(others);
        assert!(delegated.held.lock().is_empty(), "no holder is remembered");
    }
}
