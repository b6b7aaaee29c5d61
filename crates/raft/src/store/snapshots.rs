//! One group's current snapshot on disk, and its checkpoint if it has one. It is durable before anyone hears of it, so
//! that the log may be purged after.
//!
//! Where a machine has a retention floor, the snapshot is of the floor and the checkpoint of what was applied: both are
//! written together, so that a log is never purged beyond its checkpoint.

use std::sync::Arc;

use bytes::Bytes;
use countersign_core::codec;
use countersign_core::id::GroupId;
use countersign_core::locked::Locked;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{Change, Record, Store, StoreError, record_key};
use crate::types::{LogId, SnapshotMeta, StoredMembership};

/// A snapshot and what it is of.
#[derive(Debug, Clone)]
pub(crate) struct StoredSnapshot {
    pub(crate) meta: SnapshotMeta,
    pub(crate) data: Bytes,
}

impl StoredSnapshot {
    /// The checkpoint of a machine that holds this and nothing more.
    pub(crate) fn into_checkpoint(self) -> Checkpoint {
        let Self { meta, data } = self;
        Checkpoint { last: meta.last_log_id, memberships: vec![meta.last_membership], data }
    }
}

/// What a restart begins with where the snapshot is of the retention floor.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    /// The last entry in it.
    pub(crate) last: Option<LogId>,
    /// The members by its last entry, last, and before that those that the group had since the floor.
    pub(crate) memberships: Vec<StoredMembership>,
    /// The machine's state.
    pub(crate) data: Bytes,
}

/// What is stored together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Saved {
    pub(crate) snapshot: Option<StoredSnapshot>,
    pub(crate) checkpoint: Option<Checkpoint>,
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
    /// Opens what the store has of the group and returns it.
    pub(crate) async fn open(store: &Store, group: GroupId) -> Result<(Self, Saved), StoreError> {
        let snapshots = Self { group, store: store.clone(), current: Arc::default(), replaced: Arc::default() };
        let saved = Saved { snapshot: snapshots.read().await?, checkpoint: snapshots.read_checkpoint().await? };
        if let Some(stored) = &saved.snapshot {
            snapshots.replaced.send_modify(|replaced| replaced.upto = stored.meta.last_log_id);
        }
        *snapshots.current.lock() = saved.snapshot.as_ref().map(|s| s.meta.clone());
        Ok((snapshots, saved))
    }

    /// The current snapshot.
    pub(crate) async fn read(&self) -> Result<Option<StoredSnapshot>, StoreError> {
        let pair = self.read_pair(Record::SnapshotMeta, Record::SnapshotData).await?;
        Ok(pair.map(|(meta, data)| StoredSnapshot { meta, data }))
    }

    async fn read_checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        let pair = self.read_pair(Record::CheckpointMeta, Record::CheckpointData).await?;
        Ok(pair.map(|((last, memberships), data)| Checkpoint { last, memberships, data }))
    }

    async fn read_pair<T: DeserializeOwned + Send + 'static>(
        &self,
        meta: Record,
        data: Record,
    ) -> Result<Option<(T, Bytes)>, StoreError> {
        let group = self.group;
        self.store
            .read(move |files| {
                let (Some(meta), Some(data)) = (files.record(group, meta)?, files.record(group, data)?) else {
                    return Ok(None);
                };
                Ok(Some((codec::decode(&meta)?, Bytes::copy_from_slice(&data))))
            })
            .await
    }

    /// Makes this the current state, durably, unless a newer snapshot was stored meanwhile: building and installing run
    /// side by side.
    pub(crate) async fn store(&self, saved: &Saved) -> Result<(), Arc<StoreError>> {
        let change = |record: Record, value| Change {
            table: record.table(),
            key: record_key(self.group, record),
            value: Some(value),
        };
        let mut changes = Vec::new();
        if let Some(StoredSnapshot { meta, data }) = &saved.snapshot {
            let meta = codec::encode(meta).map_err(|e| Arc::new(e.into()))?;
            changes.extend([change(Record::SnapshotMeta, meta), change(Record::SnapshotData, data.to_vec())]);
        }
        if let Some(Checkpoint { last, memberships, data }) = &saved.checkpoint {
            let meta = codec::encode(&(last, memberships)).map_err(|e| Arc::new(e.into()))?;
            changes.extend([change(Record::CheckpointMeta, meta), change(Record::CheckpointData, data.to_vec())]);
        }
        if changes.is_empty() {
            return Ok(());
        }
        let upto = saved.snapshot.as_ref().and_then(|snapshot| snapshot.meta.last_log_id);
        let write = {
            let mut current = self.current.lock();
            if current.as_ref().is_some_and(|current| current.last_log_id > upto) {
                return Ok(());
            }
            if let Some(snapshot) = &saved.snapshot {
                *current = Some(snapshot.meta.clone());
            }
            // Queued under the lock, so that the disk sees the same order.
            self.store.write(changes)
        };
        write.await?;
        self.replaced.send_modify(|replaced| replaced.upto = replaced.upto.max(upto));
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
