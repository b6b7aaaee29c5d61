//! The data directory: what a member keeps, written so that a kill at any point leaves the old or the new, never half.
//!
//! Files hold secrets, so they are 0600 in a 0700 directory, and a key that others can read is refused, not repaired:
//! whoever could read it may have.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use countersign_core::id::{ClusterId, Incarnation, NodeId, StoreId};
use countersign_core::name::Name;
use countersign_core::secret::SecretBytes;
use countersign_raft::{Binding, StorePlace};
use serde::{Deserialize, Serialize};

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
    /// Somebody else's.
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

/// Who this directory belongs to; written last, so its presence means that bootstrap or enrollment ended well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberFile {
    /// The layout's version.
    version: u32,
    /// The cluster, 32 hexadecimal digits.
    cluster: String,
    /// The cluster's name.
    pub cluster_name: Name,
    /// How often the cluster was restarted from a survivor.
    incarnation: u64,
    /// The member's number.
    node: u64,
    /// The member's name.
    pub name: Name,
    /// The id under which the member answers for what it stored, 32 hexadecimal digits.
    store: String,
}

/// The version of the directory's layout.
const LAYOUT_VERSION: u32 = 2;

impl MemberFile {
    /// For a member of a cluster, with the store that was made for it.
    pub fn new(binding: &Binding, cluster_name: Name, name: Name) -> Self {
        Self {
            version: LAYOUT_VERSION,
            cluster: binding.cluster.to_string(),
            cluster_name,
            incarnation: binding.incarnation.0,
            node: binding.node.0,
            name,
            store: binding.store.to_string(),
        }
    }

    /// Reads what [`DataDir::write_member`] wrote. One of another layout is refused by name.
    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, DataDirError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let damaged = |_| DataDirError::Damaged { path: path.to_owned(), reason: DamageReason::Parse };
        let Versioned { version } = serde_json::from_slice(bytes).map_err(damaged)?;
        if version != LAYOUT_VERSION {
            return Err(DataDirError::Layout { path: path.to_owned(), got: version, expected: LAYOUT_VERSION });
        }
        let member: Self = serde_json::from_slice(bytes).map_err(damaged)?;
        if member.ids().is_none() {
            return Err(DataDirError::Damaged { path: path.to_owned(), reason: DamageReason::Parse });
        }
        Ok(member)
    }

    fn ids(&self) -> Option<(ClusterId, StoreId)> {
        Some((ClusterId::parse(&self.cluster)?, StoreId::parse(&self.store)?))
    }

    /// What the member's stores are bound to.
    pub fn binding(&self) -> Option<Binding> {
        let (cluster, store) = self.ids()?;
        Some(Binding { cluster, node: self.node(), incarnation: self.incarnation(), store })
    }

    /// The cluster.
    pub fn cluster(&self) -> Option<ClusterId> {
        ClusterId::parse(&self.cluster)
    }

    /// The member's number.
    pub const fn node(&self) -> NodeId {
        NodeId(self.node)
    }

    /// How often the cluster was restarted from a survivor.
    pub const fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation)
    }

    /// The id under which the member answers for what it stored.
    pub fn store(&self) -> Option<StoreId> {
        StoreId::parse(&self.store)
    }
}

/// Every file that a member makes, by name.
pub mod file {
    /// Who this directory belongs to.
    pub const MEMBER: &str = "member.json";
    /// Held by the running process.
    pub const LOCK: &str = "lock";
    /// The member's certificate chain.
    pub const LEAF: &str = "leaf.pem";
    /// The view that enrollment brought, until Raft has caught up.
    pub const VIEW: &str = "view.bin";
    /// A bootstrap under way.
    pub const BOOTSTRAP: &str = "bootstrap.bin";
    /// An enrollment under way.
    pub const JOIN: &str = "join.json";
    /// The cluster token made at bootstrap.
    pub const CLUSTER_TOKEN: &str = "cluster-token";
    /// Bound addresses.
    pub const ENDPOINTS: &str = "endpoints.json";
    /// The admin socket.
    pub const SOCKET: &str = "admin.sock";
    /// Refused connections.
    pub const REFUSALS: &str = "refusals.jsonl";
    /// Members that an operator has this one refuse.
    pub const QUARANTINE: &str = "quarantine.json";
    /// The database.
    pub const STORE: &str = "store";
    /// What the store has confirmed, to tell an older copy of it.
    pub const CONFIRMED: &str = "store.confirmed";
    /// There once leases were given to services outside of the cluster.
    pub const SUBLEASED: &str = "subleased";
    /// A return with a new store, under way.
    pub const RETURN: &str = "return.json";
    /// The store that other members refuse, if they do.
    pub const STORE_REFUSED: &str = "store.refused";
    /// Stores that others have taken the place of.
    pub const REPLACED: &str = "replaced";
    /// The keys' directory.
    pub const KEYS: &str = "keys";
    /// Everything that may stand at the top of a data directory.
    pub const ALL: [&str; 18] = [
        MEMBER,
        LOCK,
        LEAF,
        VIEW,
        BOOTSTRAP,
        JOIN,
        CLUSTER_TOKEN,
        ENDPOINTS,
        SOCKET,
        REFUSALS,
        QUARANTINE,
        STORE,
        CONFIRMED,
        SUBLEASED,
        RETURN,
        STORE_REFUSED,
        REPLACED,
        KEYS,
    ];
}

/// An open data directory; the lock is held as long as it lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens a directory for one process, making it if there is none. A directory that holds anything but a member's
    /// files is refused and left as it is.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let io = |action| move |source| DataDirError::Io { action, path: path.to_owned(), source };
        if !path.exists() {
            fs::create_dir_all(path).map_err(io("create"))?;
        }
        if !path.join(file::MEMBER).exists() && !path.join(file::LOCK).exists() {
            for entry in fs::read_dir(path).map_err(io("read"))? {
                let found = entry.map_err(io("read"))?.file_name().to_string_lossy().into_owned();
                if found != "lost+found" && !is_ours(&found) {
                    return Err(DataDirError::Foreign { path: path.to_owned(), found });
                }
            }
        }
        // Only now is it known to be ours: others must neither read what is in it, nor put files there.
        let owner = fs::metadata(path).map_err(io("read"))?.uid();
        if owner != rustix::process::geteuid().as_raw() {
            return Err(DataDirError::Owner { path: path.to_owned(), owner });
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io("protect"))?;
        let lock_path = path.join(file::LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|source| DataDirError::Io { action: "open", path: lock_path.clone(), source })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => {
                return Err(DataDirError::Io { action: "lock", path: lock_path, source });
            }
        }
        fs::create_dir_all(path.join(file::KEYS)).map_err(io("create keys in"))?;
        fs::set_permissions(path.join(file::KEYS), fs::Permissions::from_mode(0o700)).map_err(io("protect keys in"))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
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
    /// under way, somebody's member was here.
    pub fn remains(&self) -> Result<Vec<&'static str>, DataDirError> {
        let mut found = Vec::new();
        for name in [file::STORE, file::CONFIRMED, file::KEYS, file::VIEW, file::LEAF, file::CLUSTER_TOKEN] {
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

    /// Reads a file that may be absent.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, DataDirError> {
        read_optional(&self.file(name))
    }

    /// Replaces a file durably: written beside, synced, renamed, and the directory synced.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        write_private(&self.file(name), bytes)
    }

    /// Removes a file that may be absent.
    pub fn remove(&self, name: &str) -> Result<(), DataDirError> {
        let path = self.file(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(DataDirError::Io { action: "remove", path, source })
            }
            _ => sync_parent(&path),
        }
    }

    /// Reads a secret; one that others can read is refused.
    pub fn read_secret(&self, name: &str) -> Result<Option<SecretBytes>, DataDirError> {
        read_secret(&self.file(name))
    }
}

fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(".new").unwrap_or(name);
    file::ALL.contains(&name)
}

/// Reads a secret file anywhere; `None` if absent, refused if others can read it.
pub fn read_secret(path: &Path) -> Result<Option<SecretBytes>, DataDirError> {
    let failed = |source| DataDirError::Io { action: "read", path: path.to_owned(), source };
    // Opened once: what is judged is what is read.
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let metadata = file.metadata().map_err(failed)?;
    let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
    if mode & 0o077 != 0 {
        return Err(DataDirError::Exposed { path: path.to_owned(), mode });
    }
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(DataDirError::Owner { path: path.to_owned(), owner });
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(SecretBytes::new(bytes)))
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
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(data.file("keys/leaf.key"), fs::Permissions::from_mode(mode)).unwrap();
            assert!(
                matches!(data.read_secret("keys/leaf.key"), Err(DataDirError::Exposed { mode: m, .. }) if m == mode)
            );
        }
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
        // A directory of somebody else is left as it is.
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o755);
        give(dir.path(), 0);
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
