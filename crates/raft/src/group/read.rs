//! Reads a group's committed entries: how the data comes out of a group whose log entries are its data.
//!
//! A reader asks for entries from an index on, as many as fit, and goes on behind the last one that it got. At the end
//! it waits on [`Group::watch_committed`]. An entry that was read is committed and applied here: it never changes and
//! is never taken back. Any member that has the group can be read from; only [`Group::ensure_linearizable`] tells that
//! it is not behind.

use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;
use tokio::sync::watch;

use super::Group;
use crate::limits::READ_BYTES_MAX;
use crate::machine::LogPosition;
use crate::status::GroupStopped;
use crate::types::{Entry, position};

/// An entry that is committed and applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedEntry {
    /// Where it stands in the log.
    pub position: LogPosition,
    /// Its commands, in their order; none in an entry of Raft's own.
    pub commands: Vec<Bytes>,
}

/// Why entries cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogReadError {
    /// They were deleted: the retention floor has passed them, or a snapshot holds what they came to.
    #[error("the log begins at {first}")]
    Purged {
        /// The index of the first entry that is still there, or comes next.
        first: u64,
    },
    /// No such entry is committed and applied here yet.
    #[error("the log is committed up to {next}, exclusively")]
    PastEnd {
        /// The index that the next entry will have.
        next: u64,
    },
    /// The store cannot be read, or the group was removed.
    #[error("the group's entries cannot be read")]
    Stopped(#[source] GroupStopped),
}

impl From<Entry> for CommittedEntry {
    fn from(entry: Entry) -> Self {
        let commands = match entry.payload {
            EntryPayload::Normal(batch) => Arc::unwrap_or_clone(batch.0),
            EntryPayload::Blank | EntryPayload::Membership(_) => Vec::new(),
        };
        Self { position: position(&entry.log_id), commands }
    }
}

impl Group {
    /// The committed entries from index `from` on, without a gap: as many as have at most `max_bytes` in all, or
    /// [`READ_BYTES_MAX`] if that is less, and at least one. None if `from` is the index that comes next.
    pub async fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<CommittedEntry>, LogReadError> {
        // Before the log is read: it may grow meanwhile.
        let next = self.watch_committed().borrow().map_or(0, |last| last.saturating_add(1));
        if from > next {
            return Err(LogReadError::PastEnd { next });
        }
        let failed = |e| LogReadError::Stopped(GroupStopped::Storage(Arc::new(e)));
        let log = self.log();
        let found = log.entries(from..next, max_bytes.min(READ_BYTES_MAX)).await.map_err(failed)?;
        // Some may have been purged while the log was read, and those before `from` were before.
        let unbroken = (from..next).zip(found).take_while(|(index, entry)| entry.log_id.index == *index);
        let read: Vec<CommittedEntry> = unbroken.map(|(_, entry)| entry.into()).collect();
        let first = log.first();
        if from < first && read.is_empty() {
            return Err(LogReadError::Purged { first });
        }
        if from < next && read.is_empty() {
            return Err(LogReadError::Stopped(GroupStopped::Shutdown));
        }
        Ok(read)
    }

    /// The index of the last entry that is committed and applied here, with every change: none before the first. It
    /// ends when the group does.
    pub fn watch_committed(&self) -> watch::Receiver<Option<u64>> {
        self.0.committed.clone()
    }
}
