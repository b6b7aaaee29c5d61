//! The store's directory: a lock, one fjall database for all groups, and the mark of confirmed writes. A second mark
//! stands outside of it.
//!
//! This file knows the layout and how a store comes to be; it never interprets what the groups put into it.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use countersign_core::codec;
use countersign_core::id::{GroupId, NodeId, StoreId};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::binding::{Identity, StorePlace};
use super::error::{OpenError, StoreError};
use super::journal::{self, JournalError};
use super::mark::{Mark, Marks, sync_parent};

/// The layout that this build writes and the only one it reads.
const LAYOUT: u8 = 2;
const LAYOUT_KEY: &[u8] = b"layout";
/// Under this key the store says whose it is.
const IDENTITY_KEY: &[u8] = b"identity";
/// Under this key every synced batch stores its number, to be held against the mark.
pub(super) const NUMBER_KEY: &[u8] = b"number";
/// The mark inside the store.
const CONFIRMED: &str = "confirmed";

/// Which table a key belongs to. Group and index are big-endian, so that a group's log is one ordered run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// (group, index) → entry.
    Log,
    /// (group, tag) → vote, committed, purged; (group, tag, member) → what it acknowledged; "removed", group → nothing.
    Meta,
    /// (group, tag) → the snapshot's description and bytes, and the checkpoint's.
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
    CheckpointMeta = 7,
    CheckpointData = 8,
}

impl Record {
    pub(super) const ALL: [Self; 6] =
        [Self::Vote, Self::Committed, Self::Purged, Self::SnapshotMeta, Self::SnapshotData, Self::Acknowledged];

    /// The table that it is in.
    pub(super) const fn table(self) -> Table {
        match self {
            Self::Vote | Self::Committed | Self::Purged | Self::Acknowledged => Table::Meta,
            Self::SnapshotMeta | Self::SnapshotData | Self::CheckpointMeta | Self::CheckpointData => Table::Snapshot,
        }
    }
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
        Ok(self.table(record.table()).get(record_key(group, record))?)
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
    pub(super) marks: Marks,
    /// The number of the last synced batch.
    pub(super) number: u64,
    pub(super) lock: File,
}

/// Opens the store at its place. One that is missing, made for another member, or behind a mark is refused.
pub(super) fn open(place: &StorePlace) -> Result<Opened, OpenError> {
    let path = &place.path;
    if is_vacant(path)? {
        return Err(OpenError::Missing { path: path.clone() });
    }
    let Found { files, identity, number, lock } = find(path)?;
    if identity.binding != place.binding {
        let (expected, got) = (Box::new(place.binding), Box::new(identity.binding));
        return Err(OpenError::Foreign { path: path.clone(), expected, got });
    }
    let mark = |at: &Path| {
        Mark::open(at, identity.own).map_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                OpenError::NoRecord { path: at.to_owned() }
            } else {
                OpenError::mark(at, error)
            }
        })
    };
    let (inside, confirmed_inside) = mark(&path.join(CONFIRMED))?;
    let (outside, confirmed_outside) = mark(&place.record)?;
    let confirmed = confirmed_inside.max(confirmed_outside);
    if number < confirmed {
        return Err(OpenError::LostWrites { path: path.clone(), found: number, confirmed });
    }
    let marks = Marks { inside, outside };
    // A kill between an fsync and its marks leaves them behind by one, a power cut by more.
    marks.write(number).and_then(|()| marks.sync()).map_err(|e| OpenError::io(path, e))?;
    Ok(Opened { files, marks, number, lock })
}

/// Whether nothing of a store is there.
fn is_vacant(path: &Path) -> Result<bool, OpenError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(true),
        Err(e) => return Err(OpenError::io(path, e)),
    };
    for entry in entries {
        if entry.map_err(|e| OpenError::io(path, e))?.file_name() != "lock" {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The files in a directory, of any owner.
struct Found {
    files: Files,
    identity: Identity,
    number: u64,
    lock: File,
}

fn find(path: &Path) -> Result<Found, OpenError> {
    let lock = lock(path)?;
    let tables = path.join("tables");
    if !tables.try_exists().map_err(|e| OpenError::io(path, e))? {
        return Err(OpenError::corrupt(path, "its tables are missing"));
    }
    journal::check(&tables).map_err(|e| match e {
        JournalError::Io { source, .. } => OpenError::file(path, source),
        damage @ (JournalError::Disorder { .. } | JournalError::Damaged { .. }) => OpenError::corrupt(path, damage),
    })?;
    // A damaged file can make the database panic; to the operator that is corruption like any other.
    let opened = std::panic::catch_unwind(|| Files::open_tables(&tables));
    let files = match opened {
        Ok(opened) => opened.map_err(|e| OpenError::database(path, e))?,
        Err(_) => return Err(OpenError::corrupt(path, "the database panicked on it")),
    };
    let (identity, number) = read_meta(path, &files)?;
    Ok(Found { files, identity, number, lock })
}

/// Takes the directory for this process. The lock goes with the process, however it ends.
fn lock(path: &Path) -> Result<File, OpenError> {
    let io = |e| OpenError::io(path, e);
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path.join("lock"));
    let file = file.map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path.to_owned() }),
        Err(TryLockError::Error(e)) => Err(io(e)),
    }
}

/// Makes a store for a member that is being made. Done already: nothing.
///
/// The mark outside comes first, so that no store is ever there without one. The store is built aside and renamed into
/// place whole, so that a crash in between leaves nothing that blocks the next start. Only here is anything ever
/// deleted, and only what no one was ever promised.
pub(super) fn create(place: &StorePlace, own: StoreId) -> Result<(), OpenError> {
    let path = &place.path;
    let io = |e| OpenError::io(path, e);
    if !is_vacant(path)? {
        let found = find(path)?;
        let got = found.identity.binding;
        if got == place.binding {
            return Ok(());
        }
        if !found.is_unused().map_err(|e| OpenError::database(path, e))? {
            let (expected, got) = (Box::new(place.binding), Box::new(got));
            return Err(OpenError::Foreign { path: path.clone(), expected, got });
        }
        drop(found);
        // Out of the way in one step, since half of it would be taken for a damaged store; what stands there goes next.
        let unused = built_aside(path);
        remove_if_there(&unused).map_err(io)?;
        fs::rename(path, &unused).map_err(io)?;
    }
    let confirmed = Mark::number(&place.record).map_err(|e| OpenError::mark(&place.record, e))?;
    if let Some(confirmed) = confirmed.filter(|confirmed| *confirmed > 0) {
        return Err(OpenError::LostWrites { path: path.clone(), found: 0, confirmed });
    }
    Mark::create(&place.record, own).map_err(|e| OpenError::io(&place.record, e))?;
    build(path, &Identity { binding: place.binding, own })
}

/// Where a store is built before it takes its place.
fn built_aside(path: &Path) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    PathBuf::from(aside)
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn build(path: &Path, identity: &Identity) -> Result<(), OpenError> {
    let io = |e| OpenError::io(path, e);
    let database = |e| OpenError::database(path, e);
    let new = built_aside(path);
    remove_if_there(&new).map_err(io)?;
    DirBuilder::new().recursive(true).mode(0o700).create(&new).map_err(io)?;
    let identity_bytes = codec::encode(identity).map_err(|e| OpenError::corrupt(path, e))?;
    let files = Files::open_tables(&new.join("tables")).map_err(database)?;
    files.meta.insert(LAYOUT_KEY, [LAYOUT]).map_err(database)?;
    files.meta.insert(IDENTITY_KEY, identity_bytes).map_err(database)?;
    files.db.persist(PersistMode::SyncAll).map_err(database)?;
    drop(files);
    Mark::create(&new.join(CONFIRMED), identity.own).map_err(io)?;
    // An empty directory, or one with a lock alone, makes way.
    let _ = fs::remove_file(path.join("lock"));
    fs::rename(&new, path).map_err(io)?;
    sync_parent(path).map_err(io)
}

impl Found {
    /// Whether no group ever wrote to it: then it holds no promise to another member.
    fn is_unused(&self) -> Result<bool, fjall::Error> {
        let Files { log, meta, snapshot, .. } = &self.files;
        Ok(self.number == 0 && log.is_empty()? && snapshot.is_empty()? && meta.len()? == 2)
    }
}

/// Checks the layout; returns whose the store is and the number of its last synced batch.
fn read_meta(path: &Path, files: &Files) -> Result<(Identity, u64), OpenError> {
    let read = |key| files.meta.get(key).map_err(|e| OpenError::database(path, e));
    match read(LAYOUT_KEY)?.as_deref() {
        Some([LAYOUT]) => {}
        Some([got]) => return Err(OpenError::Layout { path: path.to_owned(), got: *got, expected: LAYOUT }),
        // Either is possible only when the journal lost its beginning; what the mark says comes out the same.
        _ => return Err(OpenError::corrupt(path, "its layout record is missing")),
    }
    let identity = read(IDENTITY_KEY)?.ok_or_else(|| OpenError::corrupt(path, "it does not say whose it is"))?;
    let identity = codec::decode(&identity).map_err(|e| OpenError::corrupt(path, e))?;
    let number = match read(NUMBER_KEY)? {
        None => 0,
        Some(bytes) => match <[u8; 8]>::try_from(&*bytes) {
            Ok(number) => u64::from_be_bytes(number),
            Err(_) => return Err(OpenError::corrupt(path, "its last number is malformed")),
        },
    };
    Ok((identity, number))
}
