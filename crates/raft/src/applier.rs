//! Between openraft and a [`GroupMachine`]: unpacks entries, remembers what was applied, builds and installs snapshots.
//!
//! The machine lives in memory and is rebuilt at each start from the last snapshot and the committed entries after it.
//! A machine with a retention floor is rebuilt from its checkpoint instead: its snapshot is of the floor, far behind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use countersign_core::group::GroupMembers;
use countersign_core::id::NodeId;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, LogIdOptionExt, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::{Mutex, watch};

use crate::checkpoint::{Checkpoints, Mark};
use crate::machine::{ApplyError, GroupMachine, RestoreError};
use crate::store::{Checkpoint, GroupLog, Saved, Snapshots, StoredSnapshot};
use crate::types::{
    Entry, LogId, Outcomes, Snapshot, SnapshotMeta, StorageError, StorageIoError, StoredMembership, TypeConfig,
    position,
};

/// A handle on the machine. Clones share it: one applies while another builds a snapshot.
#[derive(Clone)]
pub(crate) struct Applier {
    snapshots: Snapshots,
    log: GroupLog,
    /// For a machine with a retention floor.
    checkpoints: Option<Checkpoints>,
    /// Held while entries are applied, which takes other locks: tasks that wait for it block no thread.
    applied: Arc<Mutex<Applied>>,
    /// The last entry that is applied and published.
    committed: Arc<watch::Sender<Option<u64>>>,
    refused: Refusal,
    work: Work,
}

/// What a group's machine is at. A watcher reads it without a lock, so it learns of a machine that stands still.
///
/// A number that grows by one when the machine begins with an entry or with publishing, and by one when it is done: it
/// is odd while the machine works.
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
    /// Those before it that a snapshot of the retention floor may need.
    earlier: Vec<StoredMembership>,
    /// The current ones, as the machine gets them.
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
    /// Brings a fresh machine to what is stored, if there is anything. A machine with a retention floor writes a
    /// checkpoint after `every` entries.
    pub(crate) fn start(
        mut machine: Box<dyn GroupMachine>,
        (snapshots, log): (Snapshots, GroupLog),
        saved: Saved,
        every: u64,
    ) -> Result<Self, RestoreError> {
        let retains = machine.retention_floor().is_some();
        let Saved { snapshot, checkpoint } = saved;
        let begin = match checkpoint.filter(|_| retains) {
            Some(checkpoint) => Some(checkpoint),
            None => snapshot.map(StoredSnapshot::into_checkpoint),
        };
        let (mut last, mut memberships) = (None, Vec::new());
        if let Some(begin) = begin {
            machine.restore(&begin.data)?;
            machine.applied_batch(begin.last.as_ref().map(position));
            (last, memberships) = (begin.last, begin.memberships);
        }
        let refused = Refusal::default();
        let membership = memberships.pop().unwrap_or_default();
        let members = members(&membership);
        let applied = Applied { machine, last, membership, earlier: memberships, members, refused: refused.clone() };
        let checkpoints = applied.mark().map(|mark| Checkpoints::of(every, mark));
        let committed = Arc::new(watch::Sender::new(applied.last.index()));
        let applied = Arc::new(Mutex::new(applied));
        Ok(Self { snapshots, log, checkpoints, applied, committed, refused, work: Work::default() })
    }

    /// When checkpoints are due, for a machine with a retention floor.
    pub(crate) fn checkpoints(&self) -> Option<Checkpoints> {
        self.checkpoints.clone()
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
            applied.earlier.clear();
        }
        let snapshot = StoredSnapshot { meta: meta.clone(), data };
        let checkpoint = self.checkpoints.is_some().then(|| snapshot.clone().into_checkpoint());
        self.snapshots.store(&Saved { snapshot: Some(snapshot), checkpoint }).await.map_err(|e| failed(&*e))?;
        let mut applied = self.applied.lock().await;
        let _working = self.work.begin();
        self.publish(&mut applied);
        if let (Some(checkpoints), Some(mark)) = (&self.checkpoints, applied.mark()) {
            checkpoints.stored(mark);
        }
        Ok(())
    }

    /// The machine publishes its changes, and readers that wait for entries hear of it.
    fn publish(&self, applied: &mut Applied) {
        applied.machine.applied_batch(applied.last.as_ref().map(position));
        self.committed.send_replace(applied.last.index());
        if let (Some(checkpoints), Some(mark)) = (&self.checkpoints, applied.mark()) {
            checkpoints.applied(mark);
        }
    }

    /// The last entry that is applied and published.
    pub(crate) fn committed(&self) -> watch::Receiver<Option<u64>> {
        self.committed.subscribe()
    }

    /// Tells what the machine is at.
    pub(crate) fn work(&self) -> Work {
        self.work.clone()
    }

    /// Tells, once the group has stopped, whether a command was why.
    pub(crate) fn refusal(&self) -> Refusal {
        self.refused.clone()
    }

    /// What is to be stored now, and how far the machine has come if it has a retention floor.
    async fn capture(&self) -> Result<(Saved, Option<Mark>), StorageError> {
        let mut applied = self.applied.lock().await;
        // An entry of several commands may be applied in part: no snapshot may say so.
        if let Some(refused) = applied.refused.reason() {
            return Err(StorageIoError::read_state_machine(&*refused).into());
        }
        let data = Bytes::from(applied.machine.snapshot());
        let Some(mark) = applied.mark() else {
            let snapshot = StoredSnapshot { meta: snapshot_meta(applied.last, applied.membership.clone()), data };
            return Ok((Saved { snapshot: Some(snapshot), checkpoint: None }, None));
        };
        let base = Bytes::from(applied.machine.base());
        let memberships = applied.memberships_since(mark.floor);
        let checkpoint = Checkpoint { last: applied.last, memberships, data };
        drop(applied);
        let Some(below) = mark.floor.checked_sub(1) else {
            // There is nothing to purge, and no member is sent anything but entries.
            return Ok((Saved { snapshot: None, checkpoint: Some(checkpoint) }, Some(mark)));
        };
        let Some(below) = self.log.id(below).await.map_err(|e| StorageIoError::read_logs(&e))? else {
            // The log has not come there: a snapshot is being installed, which stores itself.
            return Ok((Saved::default(), None));
        };
        let at_floor = checkpoint.memberships.first().filter(|first| *first.log_id() <= Some(below)).cloned();
        let meta = snapshot_meta(Some(below), at_floor.unwrap_or_default());
        let snapshot = StoredSnapshot { meta, data: base };
        Ok((Saved { snapshot: Some(snapshot), checkpoint: Some(checkpoint) }, Some(mark)))
    }
}

fn snapshot_meta(last: Option<LogId>, last_membership: StoredMembership) -> SnapshotMeta {
    let snapshot_id = match &last {
        Some(last) => format!("{}-{}-{}", last.leader_id.term, last.leader_id.node_id, last.index),
        None => String::new(),
    };
    SnapshotMeta { last_log_id: last, last_membership, snapshot_id }
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
                let newer = StoredMembership::new(Some(id), membership);
                let before = std::mem::replace(&mut self.membership, newer);
                if self.machine.retention_floor().is_some() {
                    self.earlier.push(before);
                }
                self.members = members(&self.membership);
                Outcomes::default()
            }
        };
        self.last = Some(id);
        Ok(outcomes)
    }

    /// How far the machine has come, if it has a retention floor.
    fn mark(&self) -> Option<Mark> {
        let next = self.last.next_index();
        self.machine.retention_floor().map(|floor| Mark { next, floor: floor.min(next) })
    }

    /// The members by the entries before `floor`, and all that came after; older ones are forgotten.
    fn memberships_since(&mut self, floor: u64) -> Vec<StoredMembership> {
        let mut all = std::mem::take(&mut self.earlier);
        all.push(self.membership.clone());
        let at_floor = all.iter().rposition(|membership| membership.log_id().is_some_and(|id| id.index < floor));
        let since = all.split_off(at_floor.unwrap_or(0));
        self.earlier = since.iter().take(since.len().saturating_sub(1)).cloned().collect();
        since
    }

    fn refuse(&self, id: LogId, error: ApplyError) -> StorageError {
        let failed = StorageIoError::apply(id, &error);
        let _ = self.refused.0.set(Arc::new(error));
        failed.into()
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Applier {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let (saved, mark) = self.capture().await?;
        let signature = saved.snapshot.as_ref().map(|snapshot| snapshot.meta.signature());
        self.snapshots.store(&saved).await.map_err(|e| StorageIoError::write_snapshot(signature, &*e))?;
        if let (Some(checkpoints), Some(mark)) = (&self.checkpoints, mark) {
            checkpoints.stored(mark);
        }
        let (meta, data) = match saved.snapshot {
            Some(StoredSnapshot { meta, data }) => (meta, data),
            None => (SnapshotMeta::default(), Bytes::new()),
        };
        Ok(Snapshot { meta, snapshot: Box::new(data) })
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
        self.publish(&mut applied);
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
