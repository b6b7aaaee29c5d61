//! The data directory: what a member keeps, written so that a kill at any point leaves the old or the new, never half.
//!
//! Files hold secrets, so they are 0600 in a 0700 directory; who may own and read them is judged in `ownership`.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use countersign_core::secret::SecretBytes;
use countersign_raft::{Binding, StorePlace};

pub use crate::identity::file;
pub use crate::identity::member_file::MemberFile;
use crate::identity::ownership::{Process, Repair, audit};
pub use crate::identity::ownership::{open_given, read_given_secret, read_own_secret};

/// Why a data directory cannot be used. Each names the path.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds it.
    #[error("data directory `{}` is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Something else lives there.
    #[error("directory `{}` is not empty and holds no member: found `{found}`", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the strange files.
        found: String,
    },
    /// A secret that others can read.
    #[error("`{}` can be read by others (mode {mode:03o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It belongs to another user.
    #[error("`{}` belongs to user {owner}, not to this process's", path.display())]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
    },
    /// Written by a build with another layout.
    #[error("`{}` has layout {got}, this binary expects {expected}", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// The layout found.
        got: u32,
        /// The layout of this build.
        expected: u32,
    },
    /// A link where a file or directory of this member's own was expected; what it leads to is not touched.
    #[error("`{}` is a link; the data directory must hold the thing itself", path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// A directory where a file was expected, or the reverse.
    #[error("`{}` is of another kind than this member makes: file, directory or socket", path.display())]
    Kind {
        /// The entry.
        path: PathBuf,
    },
    /// A file that cannot be parsed.
    #[error("`{}` is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: DamageReason,
    },
    /// Reading or writing failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DamageReason {
    /// It does not parse.
    #[error("it does not parse")]
    Parse,
    /// It does not belong to the other files.
    #[error("it does not belong to the other files of this directory")]
    Mismatch,
    /// It is missing.
    #[error("it is missing")]
    Missing,
}

/// An open data directory; the lock is held as long as it lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: Option<File>,
}

impl DataDir {
    /// Opens a directory for one process, making it if there is none. A directory that holds anything but a member's
    /// files is refused and left as it is. The directory itself may be reached through a link; nothing in it may be
    /// one.
    ///
    /// # Errors
    /// Every entry must be this user's and closed to others; what a group of this process can reach is closed.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let io = |action| move |source| DataDirError::Io { action, path: path.to_owned(), source };
        if !path.exists() {
            fs::create_dir_all(path).map_err(io("create"))?;
        }
        let process = check_top(path)?;
        // Only now is it known to be ours: others must neither read what is in it, nor put files there.
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io("protect"))?;
        let lock = take_lock(path, true)?;
        audit(path, &process, Repair::Yes)?;
        match DirBuilder::new().mode(0o700).create(path.join(file::KEYS)) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(io("create keys in")(source)),
            _ => Ok(Self { path: path.to_owned(), _lock: lock }),
        }
    }

    /// Opens a directory to look at it: what [`Self::open`] refuses is refused, and nothing is made or changed. None if
    /// there is none.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn look(path: &Path) -> Result<Option<Self>, DataDirError> {
        if !path.exists() {
            return Ok(None);
        }
        let process = check_top(path)?;
        let lock = take_lock(path, false)?;
        audit(path, &process, Repair::No)?;
        Ok(Some(Self { path: path.to_owned(), _lock: lock }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file of it is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The member that this directory belongs to, if bootstrap or enrollment ended well.
    pub fn member(&self) -> Result<Option<MemberFile>, DataDirError> {
        let path = self.file(file::MEMBER);
        let Some(bytes) = read_optional(&path)? else { return Ok(None) };
        MemberFile::parse(&path, &bytes).map(Some)
    }

    /// What a member leaves behind and a fresh directory does not hold. Where [`Self::member`] is none and no start is
    /// under way, another member was here.
    pub fn remains(&self) -> Result<Vec<&'static str>, DataDirError> {
        let mut found = Vec::new();
        let parts = [file::STORE, file::CONFIRMED, file::DATA_STORE, file::DATA_CONFIRMED, file::KEYS];
        for name in parts.into_iter().chain([file::VIEW, file::LEAF, file::CLUSTER_TOKEN]) {
            let path = self.file(name);
            let io = |source| DataDirError::Io { action: "read", path: path.clone(), source };
            let there = match fs::symlink_metadata(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => false,
                Err(e) => return Err(io(e)),
                Ok(metadata) if metadata.is_dir() => fs::read_dir(&path).map_err(io)?.next().is_some(),
                Ok(_) => true,
            };
            if there {
                found.push(name);
            }
        }
        Ok(found)
    }

    /// Writes the file that makes the directory a member's.
    pub fn write_member(&self, member: &MemberFile) -> Result<(), DataDirError> {
        let bytes = serde_json::to_vec_pretty(member).unwrap_or_default();
        self.write(file::MEMBER, &bytes)
    }

    /// Where the store is of the member that is bound to it in this way.
    pub fn store_place(&self, binding: Binding) -> StorePlace {
        StorePlace { path: self.file(file::STORE), record: self.file(file::CONFIRMED), binding }
    }

    /// Where the store is that keeps all groups but the trust group.
    pub fn data_store_place(&self, binding: Binding) -> StorePlace {
        StorePlace { path: self.file(file::DATA_STORE), record: self.file(file::DATA_CONFIRMED), binding }
    }

    /// A durable step is about to change `name`: tests kill a member here.
    pub(crate) fn step(&self, name: &str) -> Result<(), DataDirError> {
        #[cfg(test)]
        crate::killed::step(&self.file(name))?;
        let _ = name;
        Ok(())
    }

    /// Reads a file that may be absent.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, DataDirError> {
        read_optional(&self.file(name))
    }

    /// Replaces a file durably: written beside, synced, renamed, and the directory synced.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        self.step(name)?;
        write_private(&self.file(name), bytes)
    }

    /// Removes a file that may be absent.
    pub fn remove(&self, name: &str) -> Result<(), DataDirError> {
        let path = self.file(name);
        self.step(name)?;
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(DataDirError::Io { action: "remove", path, source })
            }
            _ => sync_parent(&path),
        }
    }

    /// Reads a secret; one that others can read is refused.
    pub fn read_secret(&self, name: &str) -> Result<Option<SecretBytes>, DataDirError> {
        read_own_secret(&self.file(name))
    }
}

/// Whether the directory may be used at all: it holds nothing but a member's files, and is this user's.
fn check_top(path: &Path) -> Result<Process, DataDirError> {
    let io = |action| move |source| DataDirError::Io { action, path: path.to_owned(), source };
    if !path.join(file::MEMBER).exists() && !path.join(file::LOCK).exists() {
        for entry in fs::read_dir(path).map_err(io("read"))? {
            let found = entry.map_err(io("read"))?.file_name().to_string_lossy().into_owned();
            if found != "lost+found" && !is_ours(&found) {
                return Err(DataDirError::Foreign { path: path.to_owned(), found });
            }
        }
    }
    let owner = fs::metadata(path).map_err(io("read"))?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return Err(DataDirError::Owner { path: path.to_owned(), owner });
    }
    Process::this().map_err(io("judge"))
}

/// Takes the directory for this process; without `make`, only if there is a lock to take.
fn take_lock(path: &Path, make: bool) -> Result<Option<File>, DataDirError> {
    let lock_path = path.join(file::LOCK);
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let opened =
        OpenOptions::new().create(make).truncate(false).write(true).mode(0o600).custom_flags(flags).open(&lock_path);
    let lock = match opened {
        Ok(lock) => lock,
        Err(e) if !make && e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) if lock_path.is_symlink() => return Err(DataDirError::Link { path: lock_path }),
        Err(source) => return Err(DataDirError::Io { action: "open", path: lock_path, source }),
    };
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(DataDirError::Io { action: "lock", path: lock_path, source }),
    }
}

fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(".new").unwrap_or(name);
    file::ALL.contains(&name)
}

/// Reads a file that may be absent.
pub fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, DataDirError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataDirError::Io { action: "read", path: path.to_owned(), source }),
    }
}

/// Writes a file with mode 0600 so that a kill leaves the old or the new content.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), DataDirError> {
    let io = |action| move |source| DataDirError::Io { action, path: path.to_owned(), source };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&beside).map_err(io("create"))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(source) = written {
        let _ = fs::remove_file(&beside); // a full disk: leave nothing half-written behind
        return Err(DataDirError::Io { action: "write", path: path.to_owned(), source });
    }
    fs::rename(&beside, path).map_err(io("replace"))?;
    sync_parent(path)
}

pub(crate) fn sync_parent(path: &Path) -> Result<(), DataDirError> {
    let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) else { return Ok(()) };
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(|source| DataDirError::Io {
        action: "sync",
        path: parent.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_serves_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let _first = DataDir::open(dir.path()).unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::InUse { .. })));
    }

    #[test]
    fn a_foreign_directory_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Foreign { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        data.write("keys/leaf.key", b"secret").unwrap();
        assert_eq!(data.read_secret("keys/leaf.key").unwrap().unwrap().expose(), b"secret");
        for mode in [0o604, 0o602, 0o666, 0o644] {
            fs::set_permissions(data.file("keys/leaf.key"), fs::Permissions::from_mode(mode)).unwrap();
            assert!(
                matches!(data.read_secret("keys/leaf.key"), Err(DataDirError::Exposed { mode: m, .. }) if m == mode)
            );
        }
    }

    #[test]
    fn nothing_is_written_through_a_link_that_leads_out() {
        let elsewhere = tempfile::tempdir().unwrap();
        fs::set_permissions(elsewhere.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(elsewhere.path().join("file"), "theirs").unwrap();
        let target =
            |name: &str| elsewhere.path().join(if name == file::KEYS || name == file::STORE { "" } else { "file" });
        for name in [file::KEYS, file::STORE, file::LOCK, file::MEMBER, file::REFUSALS, file::CONFIRMED, file::VIEW] {
            let dir = tempfile::tempdir().unwrap();
            std::os::unix::fs::symlink(target(name), dir.path().join(name)).unwrap();
            for opened in [DataDir::open(dir.path()).map(drop), DataDir::look(dir.path()).map(drop)] {
                assert!(matches!(opened, Err(DataDirError::Link { .. })), "{name}: {opened:?}");
            }
        }
        // Also one that leads to where nothing is yet, and one within.
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path()).unwrap());
        std::os::unix::fs::symlink(elsewhere.path().join("new"), dir.path().join("keys/leaf.key")).unwrap();
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Link { .. })));
        assert_eq!(fs::metadata(elsewhere.path()).unwrap().mode() & 0o777, 0o755, "it was left as it is");
        assert_eq!(fs::read_to_string(elsewhere.path().join("file")).unwrap(), "theirs");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_is_reached_through_a_link_and_looked_at_without_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        assert!(DataDir::look(&real).unwrap().is_none());
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        drop(DataDir::look(&link).unwrap().unwrap());
        assert_eq!(fs::read_dir(&real).unwrap().count(), 0);
        let data = DataDir::open(&link).unwrap();
        data.write("keys/leaf.key", b"secret").unwrap();
        assert!(matches!(DataDir::look(&link), Err(DataDirError::InUse { .. })));
        drop(data);
        fs::set_permissions(real.join("keys/leaf.key"), fs::Permissions::from_mode(0o660)).unwrap();
        drop(DataDir::look(&link).unwrap().unwrap());
        assert_eq!(fs::metadata(real.join("keys/leaf.key")).unwrap().mode() & 0o777, 0o660);
        drop(DataDir::open(&link).unwrap());
        assert_eq!(fs::metadata(real.join("keys/leaf.key")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_belongs_to_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can give files away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let give = |path: &Path, to| std::os::unix::fs::chown(path, Some(to), None).unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        data.write("keys/leaf.key", b"secret").unwrap();
        give(&data.file("keys/leaf.key"), 12_345);
        assert!(matches!(data.read_secret("keys/leaf.key"), Err(DataDirError::Owner { owner: 12_345, .. })));
        drop(data);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        give(dir.path(), 12_345);
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Owner { owner: 12_345, .. })));
        // A directory of another user is left as it is.
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o755);
        give(dir.path(), 0);
        assert!(
            matches!(DataDir::open(dir.path()), Err(DataDirError::Owner { path, .. }) if path.ends_with("leaf.key"))
        );
        give(&dir.path().join("keys/leaf.key"), 0);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn a_write_replaces_whole_files_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        fs::write(data.file("view.bin.new"), "left by a kill").unwrap();
        data.write(file::VIEW, b"one").unwrap();
        data.write(file::VIEW, b"two").unwrap();
        assert_eq!(data.read(file::VIEW).unwrap().unwrap(), b"two");
        assert!(!data.file("view.bin.new").exists());
        assert_eq!(fs::metadata(data.file(file::VIEW)).unwrap().mode() & 0o777, 0o600);
    }
}
