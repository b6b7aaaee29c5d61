//! One group's current snapshot on disk. It is durable before anyone hears of it, so that the log may be purged after.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use countersign_core::codec;
use countersign_core::id::GroupId;

use super::{Change, Record, Store, StoreError, Table, record_key};
use crate::types::SnapshotMeta;

/// A snapshot and what it is of.
#[derive(Debug, Clone)]
pub(crate) struct StoredSnapshot {
    pub(crate) meta: SnapshotMeta,
    pub(crate) data: Bytes,
}

/// A handle on one group's snapshot. Clones share it.
#[derive(Clone)]
pub(crate) struct Snapshots {
    group: GroupId,
    store: Store,
    /// What is current, or queued to be.
    current: Arc<Mutex<Option<SnapshotMeta>>>,
}

impl Snapshots {
    /// Opens the group's snapshot and returns it, if there is one.
    pub(crate) async fn open(store: &Store, group: GroupId) -> Result<(Self, Option<StoredSnapshot>), StoreError> {
        let snapshots = Self { group, store: store.clone(), current: Arc::default() };
        let stored = snapshots.read().await?;
        *snapshots.current.lock().unwrap_or_else(PoisonError::into_inner) = stored.as_ref().map(|s| s.meta.clone());
        Ok((snapshots, stored))
    }

    /// The current snapshot.
    pub(crate) async fn read(&self) -> Result<Option<StoredSnapshot>, StoreError> {
        let group = self.group;
        self.store
            .read(move |files| {
                let (meta, data) =
                    (files.record(group, Record::SnapshotMeta)?, files.record(group, Record::SnapshotData)?);
                let (Some(meta), Some(data)) = (meta, data) else { return Ok(None) };
                Ok(Some(StoredSnapshot { meta: codec::decode(&meta)?, data: Bytes::copy_from_slice(&data) }))
            })
            .await
    }

    /// Makes a snapshot the current one, durably, unless a newer one was stored meanwhile: building and installing run
    /// side by side.
    pub(crate) async fn store(&self, snapshot: &StoredSnapshot) -> Result<(), Arc<StoreError>> {
        let change =
            |record, value| Change { table: Table::Snapshot, key: record_key(self.group, record), value: Some(value) };
        let meta = codec::encode(&snapshot.meta).map_err(|e| Arc::new(e.into()))?;
        let changes = vec![change(Record::SnapshotMeta, meta), change(Record::SnapshotData, snapshot.data.to_vec())];
        let write = {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            if current.as_ref().is_some_and(|current| current.last_log_id > snapshot.meta.last_log_id) {
                return Ok(());
            }
            *current = Some(snapshot.meta.clone());
            // Queued under the lock, so that the disk sees the same order.
            self.store.write(changes)
        };
        write.await
    }
}
