//! openraft's own storage suite over this store: many groups in one database, so that one group's records are seen to
//! stay out of another's.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::group::GroupMembers;
use countersign_core::id::{ClusterId, GroupId, Incarnation, NodeId, StoreId};
use openraft::testing::{StoreBuilder, Suite, log_id};
use tokio::sync::watch;

use super::{Binding, GroupLog, Replaced, Snapshots, Store, StorePlace};
use crate::applier::Applier;
use crate::hub::Assignments;
use crate::machine::{ApplyError, GroupMachine, LogPosition, RestoreError};
use crate::memory::Memory;
use crate::types::{StorageError, TypeConfig};

struct Nothing;

impl GroupMachine for Nothing {
    fn apply(&mut self, _: LogPosition, _: &GroupMembers, _: &[u8]) -> Result<Vec<u8>, ApplyError> {
        Ok(Vec::new())
    }

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }
}

struct Nobody;

impl Assignments for Nobody {
    fn assigned(&self, _: GroupId, _: NodeId) -> Option<bool> {
        None
    }

    fn stores(&self, _: GroupId, _: NodeId) -> Vec<StoreId> {
        Vec::new()
    }

    fn may_vote(&self, _: GroupId) -> bool {
        false
    }
}

/// Hands out a group never used before, from the middle of the id space so that there are neighbours on both sides.
struct NextGroup {
    store: Store,
    next: AtomicU64,
    /// The suite purges without ever having made a snapshot.
    everything: watch::Receiver<Replaced>,
}

impl StoreBuilder<TypeConfig, GroupLog, Applier> for NextGroup {
    async fn build(&self) -> Result<((), GroupLog, Applier), StorageError> {
        let group = GroupId(self.next.fetch_add(1, Ordering::Relaxed));
        let memory = Memory::open(&self.store, group).await.unwrap();
        let log = GroupLog::open(&self.store, group, self.everything.clone(), memory, Arc::new(Nobody)).await.unwrap();
        let (snapshots, stored) = Snapshots::open(&self.store, group).await.unwrap();
        Ok(((), log, Applier::start(Box::new(Nothing), snapshots, stored).unwrap()))
    }
}

/// A new store in `dir`.
pub(crate) fn store_in(dir: &Path) -> Store {
    let binding =
        Binding { cluster: ClusterId([1; 16]), node: NodeId(1), incarnation: Incarnation(0), store: StoreId([2; 16]) };
    let place = StorePlace { path: dir.join("store"), record: dir.join("record"), binding };
    Store::create(&place, StoreId([3; 16])).unwrap();
    Store::open(&place).unwrap()
}

#[test]
fn the_storage_suite_passes_in_many_groups_of_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(dir.path());
    let (_keep, everything) = watch::channel(Replaced { upto: Some(log_id(u64::MAX, 0, u64::MAX)), failed: false });
    let builder = NextGroup { store: store.clone(), next: AtomicU64::new(255), everything };
    Suite::test_all(builder).unwrap();
    assert!(!store.failed());
}
