//! Why a store cannot be opened, and why a write did not become durable.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::binding::Binding;

/// Why a store cannot be opened. Nothing here is repaired by trying again, but for a lock.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another handle of this one, has it open.
    #[error("`{}` is in use by another process", path.display())]
    Locked {
        /// The store.
        path: PathBuf,
    },
    /// There is none, although one was made.
    #[error("there is no store in `{}`", path.display())]
    Missing {
        /// Where it was to be.
        path: PathBuf,
    },
    /// It was made for another member, or for this one before it returned with another.
    #[error("`{}` is the store of {got}; expected that of {expected}", path.display())]
    Foreign {
        /// The store.
        path: PathBuf,
        /// Whose it was to be.
        expected: Box<Binding>,
        /// Whose it is.
        got: Box<Binding>,
    },
    /// The record that stands outside of the store is not there, so nothing tells whether the store is an older copy.
    #[error("`{}` is missing, the record of what the store has confirmed", path.display())]
    NoRecord {
        /// Where it was to be.
        path: PathBuf,
    },
    /// The disk forgot what it had confirmed, or the store is an older copy. A member that goes on could vote twice in
    /// one term.
    #[error("`{}` has lost confirmed writes: it ends at {found}, but {confirmed} was confirmed", path.display())]
    LostWrites {
        /// The store.
        path: PathBuf,
        /// The last write found.
        found: u64,
        /// The last write that was confirmed.
        confirmed: u64,
    },
    /// The bytes on disk are not those that were written.
    #[error("`{}` is damaged", path.display())]
    Corrupt {
        /// The store.
        path: PathBuf,
        /// What the database says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Written by a build with another layout.
    #[error("`{}` has layout {got}, this binary expects {expected}", path.display())]
    Layout {
        /// The store.
        path: PathBuf,
        /// The layout found.
        got: u8,
        /// The layout that this version writes.
        expected: u8,
    },
    /// The file system refused.
    #[error("cannot open `{}`", path.display())]
    Io {
        /// The store.
        path: PathBuf,
        /// Its reason.
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    /// Whether what the member promised by this store is lost: it must never vote again under this store's id. False
    /// where the store may be whole and cannot be opened now, or by this binary.
    pub const fn is_loss(&self) -> bool {
        match self {
            Self::Missing { .. }
            | Self::Foreign { .. }
            | Self::NoRecord { .. }
            | Self::LostWrites { .. }
            | Self::Corrupt { .. } => true,
            Self::Locked { .. } | Self::Layout { .. } | Self::Io { .. } => false,
        }
    }

    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn corrupt(path: &Path, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Corrupt { path: path.to_owned(), source: source.into() }
    }

    /// A file that is missing or cut short is damage; a permission or a full disk is not.
    pub(super) fn file(path: &Path, error: io::Error) -> Self {
        use io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
        if matches!(error.kind(), InvalidData | InvalidInput | NotFound | UnexpectedEof) {
            Self::corrupt(path, error)
        } else {
            Self::io(path, error)
        }
    }

    /// A mark that cannot be read: one that is damaged, or a file system that refuses.
    pub(super) fn mark(path: &Path, error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidData { Self::corrupt(path, error) } else { Self::io(path, error) }
    }

    /// Sorts what fjall says into what an operator can act on.
    pub(super) fn database(path: &Path, error: fjall::Error) -> Self {
        if matches!(error, fjall::Error::Locked) {
            Self::Locked { path: path.to_owned() }
        } else if let fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) = error {
            Self::file(path, e)
        } else {
            Self::corrupt(path, error)
        }
    }
}

/// Why a write did not become durable, or a read failed. The first such error ends the store: what is on disk is no
/// longer known, so nothing more may be promised. Causes stand in the texts: Raft hands on an error's own text alone,
/// and an operator must read there that the disk is full.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the store is closed")]
    Closed,
    #[error("the store failed before and accepts nothing more")]
    Failed,
    #[error("the database failed: {}", Cause(.0))]
    Database(fjall::Error),
    #[error("the mark of confirmed writes cannot be written: {0}")]
    Mark(io::Error),
    #[error("a stored record cannot be read")]
    Record(#[from] countersign_core::codec::CodecError),
    #[error("entry {index} is not in order after {last}")]
    Disorder { index: u64, last: u64 },
    #[error("the log cannot be purged up to {upto}: no snapshot replaces it")]
    NoSnapshot { upto: u64 },
    #[error("a blocking read was cancelled")]
    Cancelled,
}

impl From<fjall::Error> for StoreError {
    fn from(error: fjall::Error) -> Self {
        Self::Database(error)
    }
}

/// What the system said, without the database's words around it.
struct Cause<'a>(&'a fjall::Error);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e)) = self.0 {
            e.fmt(f)
        } else if matches!(self.0, fjall::Error::Poisoned) {
            f.write_str("a write failed before")
        } else {
            self.0.fmt(f)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_is_named_in_the_error_s_own_text() {
        let full = || io::Error::from_raw_os_error(28); // ENOSPC
        let database = |error: fjall::Error| StoreError::from(error);
        for error in [
            database(fjall::Error::Io(full())),
            database(fjall::Error::Storage(fjall::LsmError::Io(full()))),
            StoreError::Mark(full()),
        ] {
            let told = openraft::AnyError::new(&error).to_string();
            assert!(told.ends_with(": No space left on device (os error 28)"), "{told}");
        }
    }
}
