//! Between openraft and a [`GroupMachine`]: unpacks entries, remembers what was applied, builds and installs snapshots.
//!
//! The machine lives in memory and is rebuilt at each start from the last snapshot and the committed entries after it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use countersign_core::group::GroupMembers;
use countersign_core::id::NodeId;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::Mutex;

use crate::machine::{ApplyError, GroupMachine, RestoreError};
use crate::store::{Snapshots, StoredSnapshot};
use crate::types::{
    Entry, LogId, Outcomes, Snapshot, SnapshotMeta, StorageError, StorageIoError, StoredMembership, TypeConfig,
    position,
};

/// A handle on the machine. Clones share it: one applies while another builds a snapshot.
#[derive(Clone)]
pub(crate) struct Applier {
    snapshots: Snapshots,
    /// Held while entries are applied, which takes other locks: tasks that wait for it block no thread.
    applied: Arc<Mutex<Applied>>,
    refused: Refusal,
    work: Work,
}

/// What a group's machine is at. A watcher reads it without a lock, so it learns of a machine that stands still.
///
/// A number that grows by one when the machine begins with an entry or with publishing, and by one when it is done: it is odd
/// while the machine works.
#[derive(Debug, Clone, Default)]
pub struct Work(Arc<AtomicU64>);

impl Work {
    /// Which piece of work is under way, if one is: the same number for as long as that one lasts.
    pub fn under_way(&self) -> Option<u64> {
        let count = self.0.load(Ordering::Acquire);
        (count % 2 == 1).then_some(count)
    }

    fn begin(&self) -> Working<'_> {
        self.0.fetch_add(1, Ordering::AcqRel);
        Working(self)
    }
}

/// A piece of work, until it is dropped.
struct Working<'a>(&'a Work);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::AcqRel);
    }
}

struct Applied {
    machine: Box<dyn GroupMachine>,
    last: Option<LogId>,
    membership: StoredMembership,
    /// The same, as the machine gets them.
    members: GroupMembers,
    refused: Refusal,
}

/// While members change, the current and the incoming voters.
fn members(membership: &StoredMembership) -> GroupMembers {
    let membership = membership.membership();
    GroupMembers {
        voters: membership.voter_ids().map(NodeId).collect(),
        learners: membership.learner_ids().map(NodeId).collect(),
    }
}

/// The command that ended the group, once there is one; Raft itself keeps only the text of an error.
#[derive(Clone, Default)]
pub(crate) struct Refusal(Arc<OnceLock<Arc<ApplyError>>>);

impl Refusal {
    pub(crate) fn reason(&self) -> Option<Arc<ApplyError>> {
        self.0.get().cloned()
    }
}

impl Applier {
    /// Brings a fresh machine to the stored snapshot, if there is one.
    pub(crate) fn start(
        mut machine: Box<dyn GroupMachine>,
        snapshots: Snapshots,
        stored: Option<StoredSnapshot>,
    ) -> Result<Self, RestoreError> {
        let (mut last, mut membership) = (None, StoredMembership::default());
        if let Some(StoredSnapshot { meta, data }) = stored {
            machine.restore(&data)?;
            machine.applied_batch(meta.last_log_id.as_ref().map(position));
            (last, membership) = (meta.last_log_id, meta.last_membership);
        }
        let refused = Refusal::default();
        let members = members(&membership);
        let applied = Applied { machine, last, membership, members, refused: refused.clone() };
        Ok(Self { snapshots, applied: Arc::new(Mutex::new(applied)), refused, work: Work::default() })
    }

    async fn install(&self, meta: &SnapshotMeta, data: Bytes) -> Result<(), StorageError> {
        let failed = |e: &(dyn std::error::Error + 'static)| {
            StorageIoError::write_snapshot(Some(meta.signature()), openraft::AnyError::from_dyn(e, None))
        };
        // Restored before it is stored, so that a snapshot that this machine refuses is not found at the next start;
        // stored before it is published, so that nothing published is ever taken back.
        {
            // Not watched: a large state takes as long as it takes, and would again after a restart.
            let mut applied = self.applied.lock().await;
            applied.machine.restore(&data).map_err(|e| failed(&e))?;
            // Together with the state, so that a snapshot being built now describes what it holds.
            (applied.last, applied.membership) = (meta.last_log_id, meta.last_membership.clone());
            applied.members = members(&applied.membership);
        }
        let snapshot = StoredSnapshot { meta: meta.clone(), data };
        self.snapshots.store(&snapshot).await.map_err(|e| failed(&*e))?;
        let mut applied = self.applied.lock().await;
        let _working = self.work.begin();
        applied.publish();
        Ok(())
    }

    /// Tells what the machine is at.
    pub(crate) fn work(&self) -> Work {
        self.work.clone()
    }

    /// Tells, once the group has stopped, whether a command was why.
    pub(crate) fn refusal(&self) -> Refusal {
        self.refused.clone()
    }

    async fn capture(&self) -> Result<StoredSnapshot, StorageError> {
        let applied = self.applied.lock().await;
        // An entry of several commands may be applied in part: no snapshot may say so.
        if let Some(refused) = applied.refused.reason() {
            return Err(StorageIoError::read_state_machine(&*refused).into());
        }
        let data = Bytes::from(applied.machine.snapshot());
        let snapshot_id = match &applied.last {
            Some(last) => format!("{}-{}-{}", last.leader_id.term, last.leader_id.node_id, last.index),
            None => String::new(),
        };
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.membership.clone(), snapshot_id };
        Ok(StoredSnapshot { meta, data })
    }
}

impl Applied {
    fn apply(&mut self, entry: Entry) -> Result<Outcomes, StorageError> {
        let id = entry.log_id;
        let outcomes = match entry.payload {
            EntryPayload::Blank => Outcomes::default(),
            EntryPayload::Normal(batch) => {
                let Self { machine, members, .. } = self;
                let outcomes: Result<_, _> =
                    batch.0.iter().map(|command| machine.apply(position(&id), members, command)).collect();
                Outcomes(outcomes.map_err(|error| self.refuse(id, error))?)
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership);
                self.members = members(&self.membership);
                Outcomes::default()
            }
        };
        self.last = Some(id);
        Ok(outcomes)
    }

    fn publish(&mut self) {
        self.machine.applied_batch(self.last.as_ref().map(position));
    }

    fn refuse(&self, id: LogId, error: ApplyError) -> StorageError {
        let failed = StorageIoError::apply(id, &error);
        let _ = self.refused.0.set(Arc::new(error));
        failed.into()
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Applier {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let snapshot = self.capture().await?;
        let failed = |e: &_| StorageIoError::write_snapshot(Some(snapshot.meta.signature()), e);
        self.snapshots.store(&snapshot).await.map_err(|e| failed(&*e))?;
        Ok(Snapshot { meta: snapshot.meta, snapshot: Box::new(snapshot.data) })
    }
}

impl RaftStateMachine<TypeConfig> for Applier {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let applied = self.applied.lock().await;
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcomes>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied = self.applied.lock().await;
        // Entry by entry: many that take long together are no machine that stands still.
        let one = |entry| {
            let _working = self.work.begin();
            applied.apply(entry)
        };
        let outcomes = entries.into_iter().map(one).collect::<Result<_, _>>()?;
        let _working = self.work.begin();
        applied.publish();
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Bytes>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Box<Bytes>) -> Result<(), StorageError> {
        let installed = self.install(meta, *data).await;
        if installed.is_err() {
            self.snapshots.fail();
        }
        installed
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let stored = self.snapshots.read().await.map_err(|e| StorageIoError::read_snapshot(None, &e))?;
        Ok(stored.map(|StoredSnapshot { meta, data }| Snapshot { meta, snapshot: Box::new(data) }))
    }
}
