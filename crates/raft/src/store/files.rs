//! The store's directory: a lock, one fjall database for all groups, and the mark of confirmed writes.
//!
//! This file knows the layout and how a store comes to be; it never interprets what the groups put into it.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use countersign_core::id::{GroupId, NodeId};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::error::{OpenError, StoreError};
use super::journal::{self, JournalError};
use super::mark::Mark;

/// The layout that this build writes and the only one it reads.
const LAYOUT: u8 = 1;
const LAYOUT_KEY: &[u8] = b"layout";
/// Under this key every synced batch stores its number, to be held against the mark.
pub(super) const NUMBER_KEY: &[u8] = b"number";

/// Which table a key belongs to. Group and index are big-endian, so that a group's log is one ordered run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// (group, index) → entry.
    Log,
    /// (group, tag) → vote, committed, purged; (group, tag, member) → what it acknowledged.
    Meta,
    /// (group, tag) → the snapshot's description and bytes.
    Snapshot,
}

/// A record of which each group has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    Vote = 1,
    Committed = 2,
    Purged = 3,
    SnapshotMeta = 4,
    SnapshotData = 5,
    Acknowledged = 6,
}

/// The key of a log entry.
pub(crate) fn log_key(group: GroupId, index: u64) -> Vec<u8> {
    [group.0.to_be_bytes(), index.to_be_bytes()].concat()
}

/// The key of one of a group's single records.
pub(crate) fn record_key(group: GroupId, record: Record) -> Vec<u8> {
    let mut key = group.0.to_be_bytes().to_vec();
    key.push(record as u8);
    key
}

/// The key of a record of which a group has one for each member.
pub(crate) fn member_key(group: GroupId, record: Record, node: NodeId) -> Vec<u8> {
    let mut key = record_key(group, record);
    key.extend(node.0.to_be_bytes());
    key
}

/// The open tables. Cheap to clone; the directory stays locked while the first copy lives.
#[derive(Clone)]
pub(crate) struct Files {
    pub(super) db: Database,
    log: Keyspace,
    meta: Keyspace,
    snapshot: Keyspace,
}

impl Files {
    pub(crate) fn table(&self, table: Table) -> &Keyspace {
        match table {
            Table::Log => &self.log,
            Table::Meta => &self.meta,
            Table::Snapshot => &self.snapshot,
        }
    }

    /// One of a group's single records.
    pub(crate) fn record(&self, group: GroupId, record: Record) -> Result<Option<fjall::Slice>, StoreError> {
        let table = match record {
            Record::Vote | Record::Committed | Record::Purged | Record::Acknowledged => Table::Meta,
            Record::SnapshotMeta | Record::SnapshotData => Table::Snapshot,
        };
        Ok(self.table(table).get(record_key(group, record))?)
    }

    fn open_tables(path: &Path) -> Result<Self, fjall::Error> {
        let mib = 1024 * 1024;
        // The journals are replayed at every start: bounded well below fjall's 512 MiB.
        let db = Database::builder(path).max_journaling_size(128 * mib).open()?;
        let table = |name, size| db.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(size));
        let (log, meta, snapshot) = (table("log", 16 * mib)?, table("meta", mib)?, table("snapshot", 16 * mib)?);
        Ok(Self { db, log, meta, snapshot })
    }
}

/// A directory just opened.
pub(super) struct Opened {
    pub(super) files: Files,
    pub(super) mark: Mark,
    /// The number of the last synced batch.
    pub(super) number: u64,
    pub(super) lock: File,
}

/// Opens the store at `path`, or creates it there.
pub(super) fn open(path: &Path) -> Result<Opened, OpenError> {
    let io = |e| OpenError::io(path, e);
    fs::create_dir_all(path).map_err(io)?;
    let lock = lock(path)?;
    let tables = path.join("tables");
    if !tables.try_exists().map_err(io)? {
        create(path, &tables)?;
    }
    journal::check(&tables).map_err(|e| match e {
        JournalError::Io { source, .. } => OpenError::file(path, source),
        damage => OpenError::corrupt(path, damage),
    })?;
    // A damaged file can make the database panic; to the operator that is corruption like any other.
    let opened = std::panic::catch_unwind(|| Files::open_tables(&tables));
    let files = match opened {
        Ok(opened) => opened.map_err(|e| OpenError::database(path, e))?,
        Err(_) => return Err(OpenError::corrupt(path, "the database panicked on it")),
    };
    let number = check_layout(path, &files)?;
    let (mark, confirmed) = Mark::open(&path.join("confirmed")).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => OpenError::corrupt(path, e),
        _ => OpenError::io(path, e),
    })?;
    if number < confirmed {
        return Err(OpenError::LostWrites { path: path.to_owned(), found: number, confirmed });
    }
    Ok(Opened { files, mark, number, lock })
}

/// Takes the directory for this process. The lock goes with the process, however it ends.
fn lock(path: &Path) -> Result<File, OpenError> {
    let io = |e| OpenError::io(path, e);
    let file = File::options().create(true).truncate(false).write(true).open(path.join("lock")).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(e)) => Err(io(e)),
    }
}

/// Builds new tables aside and renames them into place, so that a crash in between leaves nothing that blocks the next
/// start. Only here is anything ever deleted, and only what no one was ever promised.
fn create(path: &Path, tables: &PathBuf) -> Result<(), OpenError> {
    let io = |e| OpenError::io(path, e);
    let database = |e| OpenError::database(path, e);
    if path.join("confirmed").try_exists().map_err(io)? {
        return Err(OpenError::corrupt(path, "its tables are missing"));
    }
    let new = path.join("tables.new");
    if new.try_exists().map_err(io)? {
        fs::remove_dir_all(&new).map_err(io)?;
    }
    let files = Files::open_tables(&new).map_err(database)?;
    files.meta.insert(LAYOUT_KEY, [LAYOUT]).map_err(database)?;
    files.db.persist(PersistMode::SyncAll).map_err(database)?;
    drop(files);
    fs::rename(&new, tables).map_err(io)?;
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io)
}

/// Checks the layout and returns the number of the last synced batch.
fn check_layout(path: &Path, files: &Files) -> Result<u64, OpenError> {
    let read = |key| files.meta.get(key).map_err(|e| OpenError::database(path, e));
    match read(LAYOUT_KEY)?.as_deref() {
        Some([LAYOUT]) => {}
        Some([got]) => return Err(OpenError::Layout { path: path.to_owned(), got: *got, expected: LAYOUT }),
        // Either is possible only when the journal lost its beginning; what the mark says comes out the same.
        _ => return Err(OpenError::corrupt(path, "its layout record is missing")),
    }
    match read(NUMBER_KEY)? {
        None => Ok(0),
        Some(bytes) => match <[u8; 8]>::try_from(&*bytes) {
            Ok(number) => Ok(u64::from_be_bytes(number)),
            Err(_) => Err(OpenError::corrupt(path, "its last number is malformed")),
        },
    }
}
