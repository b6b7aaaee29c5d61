//! All groups of one member: starts and stops them, and judges every request before a group sees it.
//!
//! The trust group is kept in one store and all other groups in another, the bulk store, which is opened when the
//! member is to have such groups. It never starts a group twice, a data group never runs in the trust store, and
//! nothing reaches a group past it.

mod error;
mod judge;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use countersign_core::id::{GroupId, NodeId, StoreId};
use countersign_core::locked::Locked;
use tokio::sync::Semaphore;

use crate::assignments::Assignments;
use crate::config::GroupConfig;
use crate::group::{Context, Group};
use crate::limits::{DATA_PROPOSAL_BYTES_MAX, PROPOSAL_BYTES_MAX};
use crate::machine::GroupMachine;
use crate::store::{Store, StoreKind, StorePlace};
use crate::transport::Transport;

pub use error::{BulkStoreError, HubError, RemoveError, StartError};

/// All groups of this member. Clones share them. Dropping them stops nothing: see [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Groups(Arc<Hub>);

struct Hub {
    me: NodeId,
    trust: OwnStore,
    /// None until the member is to have data groups.
    bulk: OnceLock<OwnStore>,
    transport: Arc<dyn Transport>,
    assignments: Arc<dyn Assignments>,
    running: Locked<BTreeMap<GroupId, Option<Group>>>,
}

/// A store of this member.
struct OwnStore {
    /// The id under which it answers.
    id: StoreId,
    store: Store,
    /// Bytes of commands that may still wait in all of its groups: one kind of group cannot use up the other's.
    proposals: Arc<Semaphore>,
}

impl OwnStore {
    fn new(id: StoreId, store: Store, kind: StoreKind) -> Self {
        let proposal_bytes_max = match kind {
            StoreKind::Trust => PROPOSAL_BYTES_MAX,
            StoreKind::Bulk => DATA_PROPOSAL_BYTES_MAX,
        };
        Self { id, store, proposals: Arc::new(Semaphore::new(proposal_bytes_max)) }
    }
}

impl Hub {
    fn store(&self, kind: StoreKind) -> Option<&OwnStore> {
        match kind {
            StoreKind::Trust => Some(&self.trust),
            StoreKind::Bulk => self.bulk.get(),
        }
    }

    /// What a group works with; none while there is no store for it.
    fn context(&self, group: GroupId) -> Option<Context> {
        let own = self.store(StoreKind::of(group))?;
        Some(Context {
            me: self.me,
            own: own.id,
            store: own.store.clone(),
            proposals: Arc::clone(&own.proposals),
            transport: Arc::clone(&self.transport),
            assignments: Arc::clone(&self.assignments),
        })
    }
}

impl Groups {
    /// A member without groups, whose trust store is `store` and has the id `own`. Data groups need a
    /// [bulk store](Self::open_bulk) as well.
    pub fn new(
        me: NodeId,
        own: StoreId,
        store: Store,
        transport: Arc<dyn Transport>,
        assignments: Arc<dyn Assignments>,
    ) -> Self {
        let trust = OwnStore::new(own, store, StoreKind::Trust);
        let (bulk, running) = (OnceLock::new(), Locked::default());
        Self(Arc::new(Hub { me, trust, bulk, transport, assignments, running }))
    }

    /// Opens the store of the data groups, which [`Store::create`] made; its id is the one that it is bound to. Its
    /// writer makes way for the trust store's. Blocks while the journal is replayed.
    ///
    /// # Errors It is open already, or cannot be opened. Where that [is a loss](crate::OpenError::is_loss), the trust
    /// store stays as it is: the member makes a bulk store with a new id, which has no vote in any group until that
    /// group's members know it.
    pub fn open_bulk(&self, place: &StorePlace) -> Result<Store, BulkStoreError> {
        if self.0.bulk.get().is_some() {
            return Err(BulkStoreError::AlreadyOpen);
        }
        let store = self.0.trust.store.open_beside(place)?;
        let own = OwnStore::new(place.binding.store, store.clone(), StoreKind::Bulk);
        self.0.bulk.set(own).map_err(|_| BulkStoreError::AlreadyOpen)?;
        Ok(store)
    }

    /// Starts a group from what the store of its kind has of it. When this returns, the machine holds every entry
    /// known to be committed, and no message was sent or accepted before.
    pub async fn start(
        &self,
        group: GroupId,
        machine: Box<dyn GroupMachine>,
        config: GroupConfig,
    ) -> Result<Group, StartError> {
        let context = self.0.context(group).ok_or(StartError::NoStore(group))?;
        {
            let mut running = self.0.running.lock();
            if running.contains_key(&group) {
                return Err(StartError::AlreadyStarted(group));
            }
            running.insert(group, None);
        }
        let started = Group::start(context, group, machine, config).await;
        let mut running = self.0.running.lock();
        match &started {
            Ok(started) => running.insert(group, Some(started.clone())),
            Err(_) => running.remove(&group),
        };
        started
    }

    /// A group that was started.
    pub fn group(&self, group: GroupId) -> Option<Group> {
        self.0.running.lock().get(&group).cloned().flatten()
    }

    /// Stops a group here and forgets that it ran; its records stay in the store.
    pub async fn stop(&self, group: GroupId) {
        // One that is being started or removed is not stopped.
        drop(self.halt(group).await);
    }

    /// Stops a data group here and deletes its records, for good: its id cannot be started here again. To be repeated
    /// after an error. A crash in the middle leaves a group that is removed; the rest of its records goes when the
    /// store is opened.
    pub async fn remove(&self, group: GroupId) -> Result<(), RemoveError> {
        let store = match StoreKind::of(group) {
            StoreKind::Trust => return Err(RemoveError::Trust),
            StoreKind::Bulk => self.0.bulk.get().ok_or(RemoveError::NoStore(group))?.store.clone(),
        };
        let Some(_place) = self.halt(group).await else { return Err(RemoveError::Busy(group)) };
        store.remove(group).await.map_err(|error| RemoveError::Storage(error))
    }

    /// Stops a group, if it runs, and keeps its place as a start does, so that no start comes in between. None if
    /// another call has that place.
    async fn halt(&self, group: GroupId) -> Option<Place<'_>> {
        let halted = self.0.running.lock().insert(group, None);
        let place = match halted {
            Some(None) => return None,
            Some(Some(_)) | None => Place { hub: &self.0, group },
        };
        if let Some(Some(running)) = halted {
            running.shutdown().await;
        }
        Some(place)
    }

    /// Stops all groups and closes the stores.
    pub async fn shutdown(&self) {
        let groups = std::mem::take(&mut *self.0.running.lock());
        for group in groups.into_values().flatten() {
            group.shutdown().await;
        }
        for kind in [StoreKind::Bulk, StoreKind::Trust] {
            let Some(store) = self.0.store(kind).map(|own| own.store.clone()) else { continue };
            // Ends only by closing: a panic in it has closed the store as well.
            drop(tokio::task::spawn_blocking(move || store.close()).await);
        }
    }

    /// Whether `peer` may send requests to any group that runs here: to be asked before a body is read. `None` while
    /// that is not known. [`handle`](Self::handle) asks again, of the group that the request is for.
    pub fn may_lead_any(&self, peer: NodeId) -> Option<bool> {
        let running: Vec<GroupId> = self.0.running.lock().keys().copied().collect();
        let mut known = (!running.is_empty()).then_some(false);
        for group in running {
            match self.0.assignments.may_lead(group, peer) {
                Some(true) => return Some(true),
                Some(false) => {}
                None => known = None,
            }
        }
        known
    }
}

/// The place of a group that is being stopped, among those that run: given up when this is dropped.
struct Place<'a> {
    hub: &'a Hub,
    group: GroupId,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.hub.running.lock().remove(&self.group);
    }
}
