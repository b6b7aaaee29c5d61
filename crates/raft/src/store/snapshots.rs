//! One group's current snapshot on disk. It is durable before anyone hears of it, so that the log may be purged after.

use std::sync::Arc;

use bytes::Bytes;
use countersign_core::codec;
use countersign_core::id::GroupId;
use countersign_core::locked::Locked;
use tokio::sync::watch;

use super::{Change, Record, Store, StoreError, Table, record_key};
use crate::types::{LogId, SnapshotMeta};

/// A snapshot and what it is of.
#[derive(Debug, Clone)]
pub(crate) struct StoredSnapshot {
    pub(crate) meta: SnapshotMeta,
    pub(crate) data: Bytes,
}

/// How much of a group's log its snapshot replaces for good.
///
/// openraft purges the log as soon as it has *asked* for a snapshot to be installed. A crash in between would leave a
/// member without either, so that the log waits for this before it purges.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Replaced {
    /// The last entry in the durable snapshot.
    pub(crate) upto: Option<LogId>,
    /// There will be no newer one: installing it failed.
    pub(crate) failed: bool,
}

/// A handle on one group's snapshot. Clones share it.
#[derive(Clone)]
pub(crate) struct Snapshots {
    group: GroupId,
    store: Store,
    /// What is current, or queued to be.
    current: Arc<Locked<Option<SnapshotMeta>>>,
    replaced: Arc<watch::Sender<Replaced>>,
}

impl Snapshots {
    /// Opens the group's snapshot and returns it, if there is one.
    pub(crate) async fn open(store: &Store, group: GroupId) -> Result<(Self, Option<StoredSnapshot>), StoreError> {
        let snapshots = Self { group, store: store.clone(), current: Arc::default(), replaced: Arc::default() };
        let stored = snapshots.read().await?;
        if let Some(stored) = &stored {
            snapshots.replaced.send_modify(|replaced| replaced.upto = stored.meta.last_log_id);
        }
        *snapshots.current.lock() = stored.as_ref().map(|s| s.meta.clone());
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
            let mut current = self.current.lock();
            if current.as_ref().is_some_and(|current| current.last_log_id > snapshot.meta.last_log_id) {
                return Ok(());
            }
            *current = Some(snapshot.meta.clone());
            // Queued under the lock, so that the disk sees the same order.
            self.store.write(changes)
        };
        write.await?;
        self.replaced.send_modify(|replaced| replaced.upto = replaced.upto.max(snapshot.meta.last_log_id));
        Ok(())
    }

    /// Tells the log how much may be purged.
    pub(crate) fn replaced(&self) -> watch::Receiver<Replaced> {
        self.replaced.subscribe()
    }

    /// Installing a snapshot failed: who waits for it should not.
    pub(crate) fn fail(&self) {
        self.replaced.send_modify(|replaced| replaced.failed = true);
    }
}
