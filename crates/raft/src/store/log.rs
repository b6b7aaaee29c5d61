//! One group's log and vote, as openraft wants them.
//!
//! Entries are readable as soon as `append` returns and answered when they are durable. The committed index is written
//! without waiting: what it adds is that a restart re-applies more before any peer is met, never less.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use countersign_core::codec;
use countersign_core::id::GroupId;
use countersign_core::locked::{LockGuard, Locked};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogIdOptionExt, LogState, OptionalSend, RaftLogReader};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::tail::Tail;
use super::tails::Held;
use super::{Change, Files, Job, Record, Replaced, Store, StoreError, Table, log_key, record_key};
use crate::assignments::Assignments;
use crate::limits::REPLICATE_LEN_MAX;
use crate::memory::{Memory, Position};
use crate::types::{Entry, LogId, StorageError, StorageIoError, TypeConfig, Vote};

/// A handle on one group's log. Clones share it.
#[derive(Clone)]
pub(crate) struct GroupLog {
    group: GroupId,
    store: Store,
    state: Arc<Locked<State>>,
    replaced: watch::Receiver<Replaced>,
    /// What others acknowledged: follows what is committed.
    memory: Memory,
    /// Told of what comes into the log and goes out of it.
    assignments: Arc<dyn Assignments>,
}

/// What is known of one log.
pub(super) struct State {
    pub(super) tail: Tail,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl GroupLog {
    /// Opens the group's log, empty if the store has none. It is purged only as far as `replaced` allows.
    pub(crate) async fn open(
        store: &Store,
        group: GroupId,
        replaced: watch::Receiver<Replaced>,
        memory: Memory,
        assignments: Arc<dyn Assignments>,
    ) -> Result<Self, StoreError> {
        let held = store.tails().held();
        let state = store.read(move |files| State::read(files, group, held)).await?;
        let open = state.committed.map_or(0, |committed| committed.index.saturating_add(1))..u64::MAX;
        let state = Arc::new(Locked::new(state));
        store.tails().add(&state);
        let log = Self { group, store: store.clone(), state, replaced, memory, assignments };
        for entry in log.entries(open, usize::MAX).await? {
            log.tell(&entry);
        }
        Ok(log)
    }

    /// Tells of an entry's commands.
    fn tell(&self, entry: &Entry) {
        if let EntryPayload::Normal(batch) = &entry.payload {
            for command in batch.0.iter() {
                self.assignments.appended(self.group, entry.log_id.index, command);
            }
        }
    }

    /// Where this member's store stands: named in each answer.
    pub(crate) fn position(&self) -> Position {
        let state = self.state();
        Position { vote: state.vote.unwrap_or_default(), last: state.tail.last().map(|id| id.index) }
    }

    /// The first of these ids of a leader's log, which ascend, that is another than this log's at an index that is
    /// committed here; and this log's.
    pub(crate) async fn contradicts(&self, ids: &[LogId]) -> Result<Option<(LogId, LogId)>, StoreError> {
        let Some(committed) = self.state().committed else { return Ok(None) };
        let (Some(first), Some(last)) = (ids.first(), ids.iter().rfind(|id| id.index <= committed.index)) else {
            return Ok(None);
        };
        // Nearly always there is one, at the very end of what is committed.
        if first.index == committed.index {
            return Ok((*first != committed).then_some((*first, committed)));
        }
        // What is purged is not known any more.
        let ours = self.entries(first.index..last.index.saturating_add(1), usize::MAX).await?;
        let other = |id: &LogId| ours.iter().map(|entry| entry.log_id).find(|our| our.index == id.index && our != id);
        Ok(ids.iter().find_map(|id| Some((*id, other(id)?))))
    }

    /// Whether a log that ends with `last` would win this member's vote although it lacks what is committed here.
    pub(crate) fn outvotes(&self, last: LogId) -> bool {
        let state = self.state();
        let Some(committed) = state.committed else { return false };
        let wins = state.tail.last().is_none_or(|own| last > own);
        let lacks = last.index < committed.index || (last.index == committed.index && last != committed);
        wins && lacks
    }

    fn state(&self) -> LockGuard<'_, State> {
        self.state.lock()
    }

    fn record<T: Serialize>(&self, record: Record, value: &T) -> Result<Change, StoreError> {
        let value = Some(codec::encode(value)?);
        Ok(Change { table: Table::Meta, key: record_key(self.group, record), value })
    }

    fn deletions(&self, indexes: Range<u64>) -> impl Iterator<Item = Change> {
        let group = self.group;
        indexes.map(move |index| Change { table: Table::Log, key: log_key(group, index), value: None })
    }

    /// The entries of `range`, as many from its start as fit into `bytes_max` but at least one.
    pub(crate) async fn entries(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, StoreError> {
        let (disk, here) = {
            let state = self.state();
            state.tail.read(state.tail.clamp(range))
        };
        let mut entries = Vec::new();
        let mut bytes = 0;
        if !disk.is_empty() {
            let group = self.group;
            let read = move |files: &Files| read_entries(files, group, disk, bytes_max);
            (entries, bytes) = self.store.read(read).await?;
        }
        for (entry, len) in here {
            bytes += len;
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn queue_append(
        &self,
        entries: impl Iterator<Item = Entry>,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StoreError> {
        let mut changes = Vec::new();
        let mut last = None;
        let entries: Vec<Entry> = entries.collect();
        // Before the lock: what hears of an entry locks on its own account.
        entries.iter().for_each(|entry| self.tell(entry));
        let mut state = self.state();
        for entry in entries {
            let value = codec::encode(&entry)?;
            let (index, len) = (entry.log_id.index, value.len());
            let Some(ticket) = state.tail.append(entry, len)? else { continue };
            last = Some(ticket);
            changes.push(Change { table: Table::Log, key: log_key(self.group, index), value: Some(value) });
        }
        let (shared, tails) = (Arc::clone(&self.state), self.store.tails().clone());
        let done = move |result: Result<(), Arc<StoreError>>| {
            if let (Ok(()), Some(ticket)) = (&result, last) {
                shared.lock().tail.durable(ticket);
                tails.reclaim();
            }
            callback.log_io_completed(result.map_err(io::Error::other));
        };
        // Still under the lock: what is queued must have the order of what the tail shows.
        self.store.submit(Job { changes, sync: true, done: Some(Box::new(done)) });
        Ok(())
    }

    /// The index of the first entry that is not purged, there or to come.
    pub(crate) fn first(&self) -> u64 {
        self.state().tail.purged().next_index()
    }

    /// The id of the entry at `index`, or of the last one that was purged; none of an entry that is not there.
    pub(crate) async fn id(&self, index: u64) -> Result<Option<LogId>, StoreError> {
        let purged = self.state().tail.purged().filter(|purged| purged.index == index);
        match purged {
            Some(purged) => Ok(Some(purged)),
            None => Ok(self.entries(index..index.saturating_add(1), usize::MAX).await?.pop().map(|e| e.log_id)),
        }
    }

    async fn cut(&self, index: u64) -> Result<(), StoreError> {
        let before = match index.checked_sub(1) {
            Some(before) => self.id(before).await?,
            None => None,
        };
        let mut state = self.state();
        let changes = self.deletions(state.tail.truncate(index, before)).collect();
        self.assignments.truncated(self.group, index);
        // No fsync: an entry that comes back after a crash is uncommitted, and the leader cuts it again.
        self.store.submit(Job { changes, sync: false, done: None });
        Ok(())
    }

    async fn drop_front(&mut self, upto: LogId) -> Result<(), StoreError> {
        let ready = |replaced: &Replaced| replaced.failed || replaced.upto.is_some_and(|by| by.index >= upto.index);
        match self.replaced.wait_for(ready).await {
            Ok(replaced) if !replaced.failed => {}
            _ => return Err(StoreError::NoSnapshot { upto: upto.index }),
        }
        let mut state = self.state();
        let mut changes: Vec<Change> = self.deletions(state.tail.purge(upto)).collect();
        changes.push(self.record(Record::Purged, &upto)?);
        // No fsync: the snapshot that replaces these entries was fsynced before, in the same journal.
        self.store.submit(Job { changes, sync: false, done: None });
        Ok(())
    }
}

impl State {
    fn read(files: &Files, group: GroupId, held: Held) -> Result<Self, StoreError> {
        let purged = read_record::<LogId>(files, group, Record::Purged)?;
        let last = match files.table(Table::Log).range(log_key(group, 0)..=log_key(group, u64::MAX)).next_back() {
            Some(item) => Some(codec::decode::<Entry>(&item.value()?)?.log_id),
            None => None,
        };
        Ok(Self {
            tail: Tail::found(purged, last, held),
            vote: read_record(files, group, Record::Vote)?,
            committed: read_record(files, group, Record::Committed)?,
        })
    }
}

#[cfg(test)]
impl State {
    pub(super) fn of(tail: Tail) -> Self {
        Self { tail, vote: None, committed: None }
    }
}

fn read_record<T: DeserializeOwned>(files: &Files, group: GroupId, record: Record) -> Result<Option<T>, StoreError> {
    Ok(files.record(group, record)?.map(|bytes| codec::decode(&bytes)).transpose()?)
}

fn read_entries(
    files: &Files,
    group: GroupId,
    range: Range<u64>,
    bytes_max: usize,
) -> Result<(Vec<Entry>, usize), StoreError> {
    let mut entries = Vec::new();
    let mut bytes = 0_usize;
    for item in files.table(Table::Log).range(log_key(group, range.start)..log_key(group, range.end)) {
        let value = item.value()?;
        bytes = bytes.saturating_add(value.len());
        if bytes > bytes_max && !entries.is_empty() {
            break;
        }
        entries.push(codec::decode(&value)?);
    }
    Ok((entries, bytes))
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

fn read_logs(error: &StoreError) -> StorageError {
    StorageIoError::read_logs(error).into()
}

fn write_logs(error: &StoreError) -> StorageError {
    StorageIoError::write_logs(error).into()
}

impl RaftLogReader<TypeConfig> for GroupLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        self.entries(half_open(&range), usize::MAX).await.map_err(|e| read_logs(&e))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.entries(start..end, REPLICATE_LEN_MAX).await.map_err(|e| read_logs(&e))
    }
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let state = self.state();
        Ok(LogState { last_purged_log_id: state.tail.purged(), last_log_id: state.tail.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let change = self.record(Record::Vote, vote).map_err(|e| StorageIoError::write_vote(&e))?;
        self.store.write(vec![change]).await.map_err(|e| StorageIoError::write_vote(&*e))?;
        self.state().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.state().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        if let Some(committed) = committed {
            let change = self.record(Record::Committed, &committed).map_err(|e| write_logs(&e))?;
            let mut changes = self.memory.committed(&committed).map_err(|e| write_logs(&e))?;
            changes.push(change);
            self.store.submit(Job { changes, sync: false, done: None });
            self.state().committed = Some(committed);
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.state().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.queue_append(entries.into_iter(), callback).map_err(|e| write_logs(&e))
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.cut(log_id.index).await.map_err(|e| write_logs(&e))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.drop_front(log_id).await.map_err(|e| write_logs(&e))
    }
}
