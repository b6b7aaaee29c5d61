//! openraft's own storage suite over this store: many groups in one database, so that one group's records are seen to
//! stay out of another's.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::group::GroupMembers;
use countersign_core::id::{ClusterId, GroupId, Incarnation, NodeId, StoreId};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::{StoreBuilder, Suite, blank_ent, log_id};
use tokio::sync::watch;

use super::{Binding, GroupLog, Replaced, Snapshots, Store, StoreKind, StorePlace};
use crate::applier::Applier;
use crate::assignments::Assignments;
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

struct NoAssignments;

impl Assignments for NoAssignments {
    fn assigned(&self, _: GroupId, _: NodeId) -> Option<bool> {
        None
    }

    fn stores(&self, _: StoreKind, _: NodeId) -> Vec<StoreId> {
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
        let log =
            GroupLog::open(&self.store, group, self.everything.clone(), memory, Arc::new(NoAssignments)).await.unwrap();
        let (snapshots, saved) = Snapshots::open(&self.store, group).await.unwrap();
        let applier = Applier::start(Box::new(Nothing), (snapshots, log.clone()), saved, 1).unwrap();
        Ok(((), log, applier))
    }
}

/// Where a store is in `dir`, which is made.
pub(super) fn place_in(dir: &Path) -> StorePlace {
    std::fs::create_dir_all(dir).unwrap();
    let binding =
        Binding { cluster: ClusterId([1; 16]), node: NodeId(1), incarnation: Incarnation(0), store: StoreId([2; 16]) };
    StorePlace { path: dir.join("store"), record: dir.join("record"), binding }
}

/// A new store in `dir`.
pub(crate) fn store_in(dir: &Path) -> Store {
    let place = place_in(dir);
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

/// The log of a group in `store`.
pub(super) async fn log_in(store: &Store, group: GroupId) -> GroupLog {
    let memory = Memory::open(store, group).await.unwrap();
    let (_keep, nothing) = watch::channel(Replaced::default());
    GroupLog::open(store, group, nothing, memory, Arc::new(NoAssignments)).await.unwrap()
}

/// A log with these ids, term and index, of which all up to `committed` are committed.
async fn log_of(dir: &Path, ids: &[(u64, u64)], committed: u64) -> GroupLog {
    let mut log = log_in(&store_in(dir), GroupId(7)).await;
    let entries = ids.iter().map(|(term, index)| blank_ent(*term, 1, *index));
    log.blocking_append(entries).await.unwrap();
    let last = ids.iter().find(|(_, index)| *index == committed).map(|(term, index)| log_id(*term, 1, *index));
    log.save_committed(last).await.unwrap();
    log
}

#[tokio::test]
async fn log_that_contradicts_committed_entries_is_recognized() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(dir.path(), &[(1, 1), (1, 2), (2, 3), (2, 4), (2, 5)], 4).await;
    let found = async |ids: &[(u64, u64)]| {
        let ids: Vec<_> = ids.iter().map(|(term, index)| log_id(*term, 1, *index)).collect();
        log.contradicts(&ids).await.unwrap().map(|(theirs, ours)| {
            assert!(theirs != ours && theirs.index == ours.index);
            theirs.index
        })
    };
    // The same entries, later ones, and others in place of what is not committed.
    for agrees in
        [&[][..], &[(2, 4)], &[(2, 4), (2, 5)], &[(3, 5)], &[(2, 4), (3, 5)], &[(9, 6)], &[(1, 1), (1, 2), (2, 3)]]
    {
        assert_eq!(found(agrees).await, None, "{agrees:?}");
    }
    for (contradicts, at) in
        [(&[(3, 4)][..], 4), (&[(3, 4), (3, 5)], 4), (&[(1, 2), (3, 3), (3, 4)], 3), (&[(1, 3)], 3), (&[(9, 1)], 1)]
    {
        assert_eq!(found(contradicts).await, Some(at), "{contradicts:?}");
    }
    // Of another leader of the same term.
    let both = (log_id(2, 3, 4), log_id(2, 1, 4));
    assert_eq!(log.contradicts(&[both.0]).await.unwrap(), Some(both));
}

#[tokio::test]
async fn candidate_that_lacks_a_committed_entry_is_recognized() {
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(dir.path(), &[(1, 1), (1, 2), (2, 3), (2, 4), (2, 5)], 4).await;
    for (term, index, lacks) in [(3, 3, true), (3, 4, true), (3, 5, false), (2, 5, false), (2, 4, false), (1, 2, false)]
    {
        assert_eq!(log.outvotes(log_id(term, 1, index)), lacks, "{term} {index}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(!log_of(empty.path(), &[], 0).await.outvotes(log_id(1, 1, 1)));
}
