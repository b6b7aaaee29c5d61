//! The state machine that a group replicates, as this crate sees it: bytes in, bytes out.
//!
//! A machine never does IO of its own and never learns who proposed a command: whatever must be decided atomically is
//! decided in `apply`, alike on every member.

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

/// A committed command that this machine cannot apply: a newer binary wrote it. Skipping it would make this member's state
/// differ from all others', so the group stops here; the next start stops at the same command.
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
/// the last snapshot. Nothing is to be published before [`applied_batch`](Self::applied_batch): until then a restored
/// state is not yet durable.
pub trait GroupMachine: Send + Sync + 'static {
    /// Applies one committed command and returns its encoded outcome. Commands of one entry share `at`. `members` are the
    /// group's by the entries before this one, alike on every member. After an error the group stops: nothing of that run of
    /// entries is published, answered, or put into a snapshot.
    fn apply(&mut self, at: LogPosition, members: &GroupMembers, command: &[u8]) -> Result<Vec<u8>, ApplyError>;

    /// The whole state, encoded.
    fn snapshot(&self) -> Vec<u8>;

    /// Replaces the whole state by one that `snapshot` encoded. After an error the group stops.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError>;

    /// Called once after each run of entries or a restore: the moment to publish what changed. `upto` is the last entry
    /// that is in the state now.
    fn applied_batch(&mut self, upto: Option<LogPosition>) {
        let _ = upto;
    }
}
