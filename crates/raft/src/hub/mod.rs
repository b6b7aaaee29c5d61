//! All groups of one member: starts and stops them, and judges every request before a group sees it.
//!
//! It never starts a group twice, and nothing reaches a group past it.

mod error;
mod judge;

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::id::{GroupId, NodeId, StoreId};
use countersign_core::locked::Locked;

use crate::assignments::Assignments;
use crate::config::GroupConfig;
use crate::group::{Context, Group};
use crate::machine::GroupMachine;
use crate::store::Store;
use crate::transport::Transport;

pub use error::{HubError, StartError};

/// All groups of this member. Clones share them. Dropping them stops nothing: see [`shutdown`](Self::shutdown).
#[derive(Clone)]
pub struct Groups(Arc<Hub>);

struct Hub {
    context: Context,
    running: Locked<BTreeMap<GroupId, Option<Group>>>,
}

impl Groups {
    /// A member without groups, whose store has the id `own`.
    pub fn new(
        me: NodeId,
        own: StoreId,
        store: Store,
        transport: Arc<dyn Transport>,
        assignments: Arc<dyn Assignments>,
    ) -> Self {
        let context = Context { me, own, store, transport, assignments };
        Self(Arc::new(Hub { context, running: Locked::default() }))
    }

    /// Starts a group from what the store has of it. When this returns, the machine holds every entry known to be
    /// committed, and no message was sent or accepted before.
    pub async fn start(
        &self,
        group: GroupId,
        machine: Box<dyn GroupMachine>,
        config: GroupConfig,
    ) -> Result<Group, StartError> {
        {
            let mut running = self.0.running.lock();
            if running.contains_key(&group) {
                return Err(StartError::AlreadyStarted(group));
            }
            running.insert(group, None);
        }
        let started = Group::start(self.0.context.clone(), group, machine, config).await;
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
        let stopped = self.0.running.lock().remove(&group).flatten();
        if let Some(stopped) = stopped {
            stopped.shutdown().await;
        }
    }

    /// Stops all groups and closes the store.
    pub async fn shutdown(&self) {
        let groups = std::mem::take(&mut *self.0.running.lock());
        for group in groups.into_values().flatten() {
            group.shutdown().await;
        }
        let store = self.0.context.store.clone();
        // Ends only by closing: a panic in it has closed the store as well.
        drop(tokio::task::spawn_blocking(move || store.close()).await);
    }

    /// Whether `peer` may send requests to any group that runs here: to be asked before a body is read. `None` while that is
    /// not known. [`handle`](Self::handle) asks again, of the group that the request is for.
    pub fn may_lead_any(&self, peer: NodeId) -> Option<bool> {
        let running: Vec<GroupId> = self.0.running.lock().keys().copied().collect();
        let mut known = (!running.is_empty()).then_some(false);
        for group in running {
            match self.0.context.assignments.may_lead(group, peer) {
                Some(true) => return Some(true),
                Some(false) => {}
                None => known = None,
            }
        }
        known
    }
}
