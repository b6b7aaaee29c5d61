//! The state machine that a group replicates, as this crate sees it: bytes in, bytes out.
//!
//! A machine never does IO of its own and never learns who proposed a command: whatever must be decided atomically is
//! decided in `apply`, alike on every member.
//!
//! There are two kinds. The state of one, such as the trust state, is worth what its commands came to: a snapshot
//! holds it whole, and the log before a snapshot is deleted. The other, such as a partition of a broker, has its data
//! in the log itself: its commands are read again with [`Group::read`](crate::Group::read) and copied nowhere. Such a
//! machine names a
//! *retention floor*, the first entry to keep, and two states: a *checkpoint*, from which a restart goes on, and a
//! *base*, from which a member begins that receives the log from the floor on.

use std::error::Error;

use countersign_core::group::GroupMembers;

/// A place in a group's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition {
    /// The term of the leader that wrote the entry.
    pub term: u64,
    /// The entry's number; it alone orders committed entries.
    pub index: u64,
}

/// A snapshot that this machine cannot take.
#[derive(Debug, thiserror::Error)]
#[error("the snapshot cannot be restored")]
pub struct RestoreError(#[source] Box<dyn Error + Send + Sync>);

impl RestoreError {
    /// Wraps the machine's own reason.
    pub fn new(reason: impl Error + Send + Sync + 'static) -> Self {
        Self(Box::new(reason))
    }
}

/// A committed command that this machine cannot apply: a newer binary wrote it. Skipping it would make this member's
/// state differ from all others', so the group stops here; the next start stops at the same command.
#[derive(Debug, thiserror::Error)]
#[error("a committed command cannot be applied")]
pub struct ApplyError(#[source] Box<dyn Error + Send + Sync>);

impl ApplyError {
    /// Wraps the machine's own reason.
    pub fn new(reason: impl Error + Send + Sync + 'static) -> Self {
        Self(Box::new(reason))
    }
}

/// What a group replicates.
///
/// `apply` must be total and deterministic: it is run on every member, and again after a restart for every entry since
/// the last snapshot or checkpoint. Nothing is to be published before [`applied_batch`](Self::applied_batch): until
/// then a restored state is not yet durable.
pub trait GroupMachine: Send + Sync + 'static {
    /// Applies one committed command and returns its encoded outcome. Commands of one entry share `at`. `members` are
    /// the group's by the entries before this one, alike on every member. After an error the group stops: nothing of
    /// that run of entries is published, answered, or put into a snapshot.
    fn apply(&mut self, at: LogPosition, members: &GroupMembers, command: &[u8]) -> Result<Vec<u8>, ApplyError>;

    /// The whole state, encoded: what is sent to a member that lacks the log, or the checkpoint of a machine with a
    /// [retention floor](Self::retention_floor), which never leaves this member.
    fn snapshot(&self) -> Vec<u8>;

    /// The index of the first entry to keep, for a machine whose log entries are its data: every member deletes those
    /// before it. None, from the first moment to the last, for one whose snapshot is all that matters.
    ///
    /// INVARIANT: moved by applied entries alone, so that all members agree; never back, and never past the next entry.
    fn retention_floor(&self) -> Option<u64> {
        None
    }

    /// The state at the retention floor, encoded as `restore` takes it: with the entries from the floor on it comes to
    /// the same as if all had been applied. As little as that takes, and no entry: the floor itself, and what is
    /// counted across it.
    fn base(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Replaces the whole state by one that `snapshot` or `base` encoded. After an error the group stops.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError>;

    /// Called once after each run of entries or a restore: the moment to publish what changed. `upto` is the last entry
    /// that is in the state now.
    fn applied_batch(&mut self, upto: Option<LogPosition>) {
        let _ = upto;
    }
}
