//! Groups that were removed from a store: their records are deleted, and their ids are remembered for good.
//!
//! A removed group never comes back here: with its records went its votes, and a member that forgot a vote could give
//! it twice. The id is recorded durably before anything is deleted. So a crash in between leaves records of a group
//! that is known to be removed, and the next opening of the store deletes them.

use std::sync::Arc;

use countersign_core::id::GroupId;
use fjall::PersistMode;

use super::{Change, Files, Record, Store, StoreError, Table, log_key, record_key};
use crate::limits::REMOVED_KEYS_MAX;

/// Keys of removed groups begin with it.
const PREFIX: &[u8] = b"removed";

fn removed_key(group: GroupId) -> Vec<u8> {
    [PREFIX, &group.0.to_be_bytes()].concat()
}

/// Keys of a group's records, at most [`REMOVED_KEYS_MAX`] of them; none once all are deleted.
fn records(files: &Files, group: GroupId) -> Result<Vec<(Table, Vec<u8>)>, StoreError> {
    let log =
        files.table(Table::Log).range(log_key(group, 0)..=log_key(group, u64::MAX)).map(|item| (Table::Log, item));
    // What a record has for each member has keys that begin with the record's own.
    let others = Record::ALL.into_iter().flat_map(|record| {
        let table = record.table();
        files.table(table).prefix(record_key(group, record)).map(move |item| (table, item))
    });
    log.chain(others).take(REMOVED_KEYS_MAX).map(|(table, item)| Ok((table, item.key()?.to_vec()))).collect()
}

/// Deletes the records that are left of removed groups. For a store that is not in use yet.
pub(super) fn sweep(files: &Files) -> Result<(), StoreError> {
    for item in files.table(Table::Meta).prefix(PREFIX) {
        let key = item.key()?;
        let Some(group) = key.get(PREFIX.len()..).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes) else {
            continue;
        };
        loop {
            let left = records(files, GroupId(group))?;
            if left.is_empty() {
                break;
            }
            let mut batch = files.db.batch().durability(Some(PersistMode::Buffer));
            for (table, key) in left {
                batch.remove(files.table(table), key);
            }
            batch.commit()?;
        }
    }
    Ok(())
}

impl Store {
    /// Whether `group` was removed from this store.
    pub(crate) async fn is_removed(&self, group: GroupId) -> Result<bool, StoreError> {
        self.read(move |files| Ok(files.table(Table::Meta).contains_key(removed_key(group))?)).await
    }

    /// Removes `group`, which has been stopped. May be repeated, after an error and after it is done.
    pub(crate) async fn remove(&self, group: GroupId) -> Result<(), Arc<StoreError>> {
        self.write(vec![Change { table: Table::Meta, key: removed_key(group), value: Some(Vec::new()) }]).await?;
        loop {
            let left = self.read(move |files| records(files, group)).await.map_err(Arc::new)?;
            if left.is_empty() {
                return Ok(());
            }
            let changes = left.into_iter().map(|(table, key)| Change { table, key, value: None }).collect();
            // No fsync: what comes back after a power cut is deleted when the store is opened.
            self.write_unsynced(changes).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::id::{NodeId, StoreId};

    use super::super::member_key;
    use super::super::suite::{place_in, store_in};
    use super::*;

    const GONE: GroupId = GroupId(7);
    const ENTRIES: u64 = REMOVED_KEYS_MAX as u64 + 100;

    /// One record of each kind for a group, and so many entries.
    fn fill(group: GroupId, entries: u64) -> Vec<Change> {
        let value = || Some(b"value".to_vec());
        let log = (0..entries).map(|index| Change { table: Table::Log, key: log_key(group, index), value: value() });
        let records = Record::ALL.into_iter().map(|record| Change {
            table: record.table(),
            key: record_key(group, record),
            value: value(),
        });
        let members = [1, u64::MAX].into_iter().map(|node| Change {
            table: Table::Meta,
            key: member_key(group, Record::Acknowledged, NodeId(node)),
            value: value(),
        });
        log.chain(records).chain(members).collect()
    }

    fn count(files: &Files, group: GroupId) -> usize {
        let begins = group.0.to_be_bytes();
        [Table::Log, Table::Meta, Table::Snapshot].into_iter().map(|t| files.table(t).prefix(begins).count()).sum()
    }

    /// How many records the neighbours and the group itself have in the store.
    fn counts(store: &Store) -> [usize; 3] {
        let files = store.files().unwrap();
        [GroupId(6), GONE, GroupId(8)].map(|group| count(&files, group))
    }

    async fn filled(dir: &std::path::Path) -> (Store, [usize; 3]) {
        let store = store_in(dir);
        for (group, entries) in [(GroupId(6), 3), (GONE, ENTRIES), (GroupId(8), 3)] {
            store.write(fill(group, entries)).await.unwrap();
        }
        let before = counts(&store);
        assert!(before[1] > before[0] && before[0] == before[2], "{before:?}");
        (store, before)
    }

    #[tokio::test]
    async fn removed_group_leaves_only_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let (store, before) = filled(dir.path()).await;
        assert!(!store.is_removed(GONE).await.unwrap());
        // Twice: a caller that was interrupted comes again.
        for _ in 0..2 {
            store.remove(GONE).await.unwrap();
            assert_eq!(counts(&store), [before[0], 0, before[2]]);
        }
        store.close();
        let store = Store::open(&place_in(dir.path())).unwrap();
        assert!(store.is_removed(GONE).await.unwrap() && !store.is_removed(GroupId(6)).await.unwrap());
        assert_eq!(counts(&store), [before[0], 0, before[2]]);
    }

    #[tokio::test]
    async fn removal_cut_short_by_a_crash_is_finished_when_the_store_is_opened() {
        let removed = || Change { table: Table::Meta, key: removed_key(GONE), value: Some(Vec::new()) };
        for deleted in [0, 1, REMOVED_KEYS_MAX, ENTRIES as usize] {
            let dir = tempfile::tempdir().unwrap();
            let (store, before) = filled(dir.path()).await;
            let deleted = (0..deleted as u64).map(|n| Change { table: Table::Log, key: log_key(GONE, n), value: None });
            store.write([removed()].into_iter().chain(deleted).collect()).await.unwrap();
            assert!(counts(&store)[1] > 0);
            store.close();
            let store = Store::open(&place_in(dir.path())).unwrap();
            assert_eq!(counts(&store), [before[0], 0, before[2]]);
            assert!(store.is_removed(GONE).await.unwrap());
        }
    }

    #[tokio::test]
    async fn store_that_fails_keeps_the_group_until_the_removal_is_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let (store, before) = filled(dir.path()).await;
        store.fail_writes_for_testing();
        assert!(store.remove(GONE).await.is_err());
        assert_eq!(counts(&store), before);
        assert_eq!(store.binding().store, StoreId([2; 16]));
    }
}
