//! Who may own, read and write what a member keeps, and what it is given to read.
//!
//! Inside the data directory a file belongs to the process's user and to no other user. No link is followed, since it
//! could lead to files of others. A file that is open to the world is refused: any user may have read a key in it.
//! What a volume's `fsGroup` opens to a group of the process at each mount is closed again. Files that an operator or
//! an orchestrator provides, such as a mounted Secret, are read and never changed: there links are followed, and a
//! group of the process may read.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use countersign_core::secret::SecretBytes;

use crate::identity::datadir::{DataDirError, file};

/// The process, as far as the permissions of files are concerned.
pub(crate) struct Process {
    user: u32,
    groups: Vec<u32>,
}

impl Process {
    /// This one.
    pub(crate) fn this() -> io::Result<Self> {
        let mut groups: Vec<u32> = rustix::process::getgroups()?.into_iter().map(|group| group.as_raw()).collect();
        groups.push(rustix::process::getegid().as_raw());
        Ok(Self { user: rustix::process::geteuid().as_raw(), groups })
    }
}

/// What an entry of the data directory has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Socket,
}

/// What is seen of an entry without following a link.
#[derive(Debug, Clone, Copy)]
struct Seen {
    kind: Option<Kind>,
    user: u32,
    group: u32,
    mode: u32,
}

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        let kind = metadata.file_type();
        let kind = match () {
            () if kind.is_file() => Some(Kind::File),
            () if kind.is_dir() => Some(Kind::Directory),
            () if kind.is_socket() => Some(Kind::Socket),
            () => None,
        };
        Self { kind, user: metadata.uid(), group: metadata.gid(), mode: metadata.mode() & 0o7777 }
    }
}

/// What to do about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// It is open to a group of this process: it is closed again.
    Narrow,
    WrongKind,
    Owner,
    Exposed,
}

/// Judges an entry. The store's files come from a library and get the process's umask: what others could read there
/// lies within directories that they cannot enter, so that only what they could write is refused.
fn judge(seen: Seen, wanted: Kind, in_store: bool, process: &Process) -> Verdict {
    if seen.kind != Some(wanted) {
        return Verdict::WrongKind;
    }
    if seen.user != process.user {
        return Verdict::Owner;
    }
    if wanted == Kind::Socket {
        return Verdict::Fine; // each start makes a new one
    }
    let own = if wanted == Kind::Directory { 0o700 } else { 0o600 };
    let (world, group) = (seen.mode & 0o007, seen.mode & 0o070);
    let world_refused = if in_store { world & 0o002 != 0 } else { world != 0 };
    if world_refused || (group != 0 && !in_store && !process.groups.contains(&seen.group)) {
        return Verdict::Exposed;
    }
    if seen.mode & !own & !0o100 == 0 { Verdict::Fine } else { Verdict::Narrow }
}

/// Whether entries that are open to a group are closed, or only judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repair {
    Yes,
    No,
}

/// Judges every entry of the data directory `path` that a member uses, and closes what is open to a group of this
/// process.
pub(crate) fn audit(path: &Path, process: &Process, repair: Repair) -> Result<(), DataDirError> {
    let mut narrowed = Vec::new();
    for entry in entries(path)? {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        // Nothing else is ever opened here.
        let Some(wanted) = wanted(name) else { continue };
        let in_store = wanted == Kind::Directory && name != file::KEYS;
        visit(&entry.path(), wanted, in_store, process, &mut narrowed)?;
    }
    if repair == Repair::No || narrowed.is_empty() {
        return Ok(());
    }
    for (path, mode) in &narrowed {
        close(path, *mode).map_err(|source| DataDirError::Io { action: "protect", path: path.clone(), source })?;
    }
    tracing::warn!(
        directory = %path.display(),
        entries = narrowed.len(),
        "files were open to a group of this process and are closed again; a volume's fsGroup opens them at each mount"
    );
    Ok(())
}

fn wanted(name: &str) -> Option<Kind> {
    let name = name.strip_suffix(".new").unwrap_or(name);
    match name {
        file::KEYS | file::STORE | file::DATA_STORE => Some(Kind::Directory),
        file::SOCKET => Some(Kind::Socket),
        // Stores that were put aside are kept, and never opened.
        file::REPLACED => None,
        name if file::ALL.contains(&name) => Some(Kind::File),
        _ => None,
    }
}

fn entries(path: &Path) -> Result<Vec<fs::DirEntry>, DataDirError> {
    let read = || fs::read_dir(path)?.collect::<io::Result<Vec<_>>>();
    read().map_err(|source| DataDirError::Io { action: "read", path: path.to_owned(), source })
}

type Narrowed = Vec<(PathBuf, u32)>;

fn visit(
    path: &Path,
    wanted: Kind,
    in_store: bool,
    process: &Process,
    narrowed: &mut Narrowed,
) -> Result<(), DataDirError> {
    let metadata = fs::symlink_metadata(path);
    let metadata = metadata.map_err(|source| DataDirError::Io { action: "read", path: path.to_owned(), source })?;
    let seen = Seen::of(&metadata);
    let verdict = judge(seen, wanted, in_store, process);
    refusal(path, seen, verdict)?;
    if verdict == Verdict::Narrow {
        narrowed.push((path.to_owned(), if wanted == Kind::Directory { 0o700 } else { 0o600 }));
    }
    if wanted == Kind::Directory {
        for entry in entries(path)? {
            let inner = match entry.file_type() {
                Ok(kind) if kind.is_dir() && in_store => Kind::Directory,
                _ => Kind::File,
            };
            visit(&entry.path(), inner, in_store, process, narrowed)?;
        }
    }
    Ok(())
}

/// Through a descriptor that no link leads to: what was judged is what is changed.
fn close(path: &Path, mode: u32) -> io::Result<()> {
    let file = open_unlinked(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// Opens a file or directory for reading, unless it is a link.
pub(crate) fn open_unlinked(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// Reads a secret that this member made; `None` if absent. It is this user's alone, and no link.
///
/// # Errors
/// Refused if others can read it.
pub fn read_own_secret(path: &Path) -> Result<Option<SecretBytes>, DataDirError> {
    let failed = |source| DataDirError::Io { action: "read", path: path.to_owned(), source };
    // Opened once: what is judged is what is read.
    let file = match open_unlinked(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) if path.is_symlink() => return Err(DataDirError::Link { path: path.to_owned() }),
        Err(source) => return Err(failed(source)),
    };
    let metadata = file.metadata().map_err(failed)?;
    let seen = Seen::of(&metadata);
    refusal(path, seen, judge(seen, Kind::File, false, &Process::this().map_err(failed)?))?;
    read_all(file, &metadata).map(Some).map_err(failed)
}

fn read_all(mut file: File, metadata: &Metadata) -> io::Result<SecretBytes> {
    // Reserved whole: growing would leave copies of the secret behind.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default().saturating_add(1));
    let read = file.read_to_end(&mut bytes);
    let secret = SecretBytes::new(bytes);
    read.map(|_| secret)
}

/// The error that a verdict is, if it is one.
fn refusal(path: &Path, seen: Seen, verdict: Verdict) -> Result<(), DataDirError> {
    let path = || path.to_owned();
    match verdict {
        Verdict::Fine | Verdict::Narrow => Ok(()),
        Verdict::WrongKind if path().is_symlink() => Err(DataDirError::Link { path: path() }),
        Verdict::WrongKind => Err(DataDirError::Kind { path: path() }),
        Verdict::Owner => Err(DataDirError::Owner { path: path(), owner: seen.user }),
        Verdict::Exposed => Err(DataDirError::Exposed { path: path(), mode: seen.mode & 0o777 }),
    }
}

/// Whether a file that was given to be read may hold a secret: of root or of this user, and readable besides by a
/// group of this process at most.
fn may_be_given(metadata: &Metadata, process: &Process) -> Verdict {
    let (mode, group) = (metadata.mode() & 0o777, metadata.mode() & 0o070);
    if metadata.uid() != 0 && metadata.uid() != process.user {
        return Verdict::Owner;
    }
    let group_fits = group == 0 || (group == 0o040 && process.groups.contains(&metadata.gid()));
    if mode & 0o007 != 0 || !group_fits { Verdict::Exposed } else { Verdict::Fine }
}

/// Reads a secret that an operator or an orchestrator provides; `None` if absent. Links are followed, and what they
/// lead to is judged. What is no file, such as a pipe, has no reader but this process.
///
/// # Errors
/// Refused if others can read it.
pub fn read_given_secret(path: &Path) -> Result<Option<SecretBytes>, DataDirError> {
    let Some((file, metadata)) = open_given(path)? else { return Ok(None) };
    let failed = |source| DataDirError::Io { action: "read", path: path.to_owned(), source };
    read_all(file, &metadata).map(Some).map_err(failed)
}

/// Opens a secret that an operator or an orchestrator provides, judged as [`read_given_secret`] does.
///
/// # Errors
/// Refused if others can read it.
pub fn open_given(path: &Path) -> Result<Option<(File, Metadata)>, DataDirError> {
    let failed = |source| DataDirError::Io { action: "read", path: path.to_owned(), source };
    // Opened once: what is judged is what is read.
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_file() {
        let process = Process::this().map_err(failed)?;
        refusal(path, Seen::of(&metadata), may_be_given(&metadata, &process))?;
    }
    Ok(Some((file, metadata)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: u32 = 1000;
    const MINE: u32 = 2000;

    fn process() -> Process {
        Process { user: ME, groups: vec![1000, MINE] }
    }

    #[track_caller]
    fn check(kind: Kind, user: u32, group: u32, mode: u32, in_store: bool, expected: Verdict) {
        let seen = Seen { kind: Some(kind), user, group, mode };
        assert_eq!(judge(seen, kind, in_store, &process()), expected, "{seen:?}");
    }

    #[test]
    fn what_a_group_of_the_process_can_reach_is_closed_and_the_rest_refused() {
        use Kind::{Directory, File};
        use Verdict::{Exposed, Fine, Narrow, Owner};
        for (kind, mode, expected) in [
            (File, 0o600, Fine),
            (File, 0o400, Fine),
            (File, 0o660, Narrow),
            (File, 0o640, Narrow),
            (File, 0o2660, Narrow),
            (File, 0o604, Exposed),
            (File, 0o664, Exposed),
            (File, 0o602, Exposed),
            (File, 0o601, Exposed),
            (Directory, 0o700, Fine),
            (Directory, 0o2770, Narrow),
            (Directory, 0o755, Exposed),
            (Directory, 0o701, Exposed),
        ] {
            check(kind, ME, MINE, mode, false, expected);
            check(kind, 0, MINE, mode, false, Owner);
            check(kind, 1001, MINE, mode, true, Owner);
        }
        // A group that this process is not in.
        check(File, ME, 3000, 0o640, false, Exposed);
        check(File, ME, 3000, 0o600, false, Fine);
        // In the store, readable is closed and writable refused.
        check(File, ME, 3000, 0o644, true, Narrow);
        check(File, ME, 3000, 0o666, true, Exposed);
        check(Directory, ME, MINE, 0o755, true, Narrow);
        check(Directory, ME, MINE, 0o777, true, Exposed);
    }

    #[test]
    fn an_entry_of_another_kind_is_refused() {
        for (kind, wanted) in [
            (None, Kind::File),
            (Some(Kind::Directory), Kind::File),
            (Some(Kind::File), Kind::Directory),
            (Some(Kind::File), Kind::Socket),
            (Some(Kind::Socket), Kind::File),
        ] {
            let seen = Seen { kind, user: ME, group: MINE, mode: 0o600 };
            assert_eq!(judge(seen, wanted, false, &process()), Verdict::WrongKind);
        }
    }

    #[test]
    fn a_given_secret_is_read_through_links_and_not_if_others_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        // As Kubernetes mounts a Secret.
        let (versioned, current) = (dir.path().join("..2026"), dir.path().join("..data"));
        fs::create_dir(&versioned).unwrap();
        fs::write(versioned.join("tls.key"), "secret").unwrap();
        std::os::unix::fs::symlink("..2026", &current).unwrap();
        let given = dir.path().join("tls.key");
        std::os::unix::fs::symlink("..data/tls.key", &given).unwrap();
        for (mode, read) in [
            (0o440, true),
            (0o400, true),
            (0o640, true),
            (0o600, true),
            (0o660, false),
            (0o450, false),
            (0o420, false),
            (0o444, false),
            (0o604, false),
            (0o602, false),
        ] {
            fs::set_permissions(versioned.join("tls.key"), fs::Permissions::from_mode(mode)).unwrap();
            let got = read_given_secret(&given);
            assert_eq!(got.is_ok(), read, "{mode:o}");
            assert!(read || matches!(got, Err(DataDirError::Exposed { mode: m, .. }) if m == mode), "{mode:o}");
        }
        fs::set_permissions(versioned.join("tls.key"), fs::Permissions::from_mode(0o440)).unwrap();
        assert_eq!(read_given_secret(&given).unwrap().unwrap().expose(), b"secret");
        assert!(read_given_secret(&dir.path().join("absent")).unwrap().is_none());
    }
}
