//! Files that are replaced together: a directory by a new one beside it and one step that makes its name lead there, a
//! single file by a new one and one rename.
//!
//! A reader never finds an old file beside a new one, whatever step the process ends at. A secret is open to its owner
//! alone until it has the owner, group and mode of the one before.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use countersign::KeyId;
use rustix::fs::{CWD, Gid, OFlags, RenameFlags, Uid, fchown, renameat_with};
use zeroize::Zeroizing;

use super::identity::{Place, own_name};

/// Links that a directory's path may go through.
const LINKS_MAX: usize = 8;

/// What is done next; tests end the process there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Clear,
    Stage,
    Write,
    Carry,
    Name,
    Link,
    Swap,
    Aside,
    Remove,
}

/// Asked before each step.
type Before<'a> = &'a mut dyn FnMut(Step) -> io::Result<()>;

/// Hidden files beside what is replaced, named after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Beside {
    parent: PathBuf,
    base: String,
}

impl Beside {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let base = own_name(path).ok_or_else(|| invalid("the path does not end in a name"))?.to_owned();
        // One version of a directory: what leads to it is meant.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent = fs::canonicalize(parent)?;
        let name = base.strip_prefix('.').and_then(|rest| rest.rsplit_once('-')).map(|(name, _)| name);
        if let Some(name) = name
            && fs::read_link(parent.join(name)).is_ok_and(|target| target == Path::new(&base))
        {
            return Ok(Self { base: name.to_owned(), parent });
        }
        Ok(Self { parent, base })
    }

    /// Refuses what cannot be renamed because it is mounted, before a member is asked: the answer would be lost when an
    /// operator moves the files. Where mounts cannot be listed, the renaming itself tells.
    ///
    /// # Errors
    /// If a file system is mounted there, or in it.
    pub(super) fn check_mounts(&self) -> io::Result<()> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if is_mounted(&mounts, &self.path()) { Err(io::ErrorKind::ResourceBusy.into()) } else { Ok(()) }
    }

    /// Refuses a parent directory in which another user could put links in the way of the superuser, who would write
    /// and give away what they lead to.
    ///
    /// # Errors
    /// Who could.
    pub(super) fn check_owner(&self) -> io::Result<()> {
        let parent = fs::metadata(&self.parent)?;
        if !rustix::process::geteuid().is_root() || safe_for_root(parent.uid(), parent.mode()) {
            return Ok(());
        }
        let shown = self.parent.display();
        Err(io::Error::other(format!("users other than root can change `{shown}`, where its next version is made")))
    }

    /// The path itself.
    fn path(&self) -> PathBuf {
        self.parent.join(&self.base)
    }

    fn hidden(&self, what: &str) -> PathBuf {
        self.parent.join(format!(".{}-{what}", self.base))
    }

    fn version(&self, number: u64) -> PathBuf {
        self.hidden(&number.to_string())
    }

    /// The number of the version that a name of an entry beside is.
    fn number(&self, name: &str) -> Option<u64> {
        let digits = name.strip_prefix('.')?.strip_prefix(&self.base)?.strip_prefix('-')?;
        let number: u64 = digits.parse().ok()?;
        (number.to_string() == digits).then_some(number)
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.parent)? {
            numbers.extend(entry?.file_name().to_str().and_then(|name| self.number(name)));
        }
        Ok(numbers)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.parent)?.sync_all()
    }
}

/// Whether one of the mounts (proc_pid_mountinfo(5), fifth field) is at a path or under it.
fn is_mounted(mounts: &str, path: &Path) -> bool {
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).any(|at| Path::new(at).starts_with(path))
}

/// Whether no other user can replace what root makes in a directory: in a sticky one, users replace their own.
fn safe_for_root(owner: u32, mode: u32) -> bool {
    owner == 0 && (mode & 0o022 == 0 || mode & 0o1000 != 0)
}

/// A directory that is replaced by its next version.
pub(super) struct Versions {
    beside: Beside,
    /// Where its files are.
    current: PathBuf,
    /// Its number; none for a directory that is not linked yet.
    number: Option<u64>,
}

impl Versions {
    /// Finds the version in use. Other links than ours are followed.
    pub(super) fn find(mut beside: Beside) -> io::Result<Self> {
        for _ in 0..LINKS_MAX {
            let path = beside.path();
            let metadata = match fs::symlink_metadata(&path) {
                // Its first renewal ended between two steps, where the file system cannot exchange: the link was made.
                Err(error) if error.kind() == io::ErrorKind::NotFound && beside.hidden("link").is_symlink() => {
                    fs::rename(beside.hidden("link"), &path)?;
                    fs::symlink_metadata(&path)?
                }
                metadata => metadata?,
            };
            if metadata.is_dir() {
                return Ok(Self { beside, current: path, number: None });
            }
            let target = fs::read_link(&path)?;
            if let Some(number) = target.to_str().and_then(|name| beside.number(name)) {
                return Ok(Self { current: beside.version(number), beside, number: Some(number) });
            }
            beside = Beside::of(&beside.parent.join(target))?;
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "too many links"))
    }

    /// What is beside it.
    pub(super) const fn beside(&self) -> &Beside {
        &self.beside
    }

    /// Where its files are. They stay there when it is replaced, until it is replaced once more.
    pub(super) fn current(&self) -> &Path {
        &self.current
    }

    /// Makes the next version, with these files changed and all others as they are, and makes the path lead to it.
    pub(super) fn replace(&self, changed: &[(String, &[u8])], before: Before<'_>) -> io::Result<()> {
        let Self { beside, current, number } = self;
        let (staging, link) = (beside.hidden("new"), beside.hidden("link"));
        before(Step::Clear)?;
        remove(&staging)?;
        remove(&link)?;
        before(Step::Stage)?;
        DirBuilder::new().mode(0o700).create(&staging)?;
        for entry in fs::read_dir(current)? {
            let entry = entry?;
            let (name, old) = (entry.file_name(), entry.metadata()?);
            let target = staging.join(&name);
            match changed.iter().find(|(changed, _)| name == changed.as_str()) {
                Some((_, content)) => {
                    before(Step::Write)?;
                    write_like(&target, content, &old)?;
                }
                None => {
                    before(Step::Carry)?;
                    carry(&entry.path(), &target, &old)?;
                }
            }
        }
        let directory = opened(&staging)?;
        like(&directory, &fs::metadata(current)?)?;
        directory.sync_all()?;
        let next = beside.numbers()?.into_iter().max().unwrap_or_default() + 1;
        before(Step::Name)?;
        fs::rename(&staging, beside.version(next))?;
        before(Step::Link)?;
        symlink(format!(".{}-{next}", beside.base), &link)?;
        beside.sync()?;
        before(Step::Swap)?;
        let kept = match number {
            Some(number) => {
                fs::rename(&link, beside.path())?;
                *number
            }
            None => {
                first(beside, &link, before)?;
                0
            }
        };
        beside.sync()?;
        before(Step::Remove)?;
        for number in beside.numbers()? {
            if number != next && number != kept {
                remove(&beside.version(number))?;
            }
        }
        Ok(())
    }
}

/// Puts the link in the place of a directory, which becomes version 0. In one step where the file system can exchange
/// two names; elsewhere there is a moment in which the path leads nowhere.
fn first(beside: &Beside, link: &Path, before: Before<'_>) -> io::Result<()> {
    let (path, zero) = (beside.path(), beside.version(0));
    remove(&zero)?;
    match renameat_with(CWD, link, CWD, &path, RenameFlags::EXCHANGE) {
        Ok(()) => {
            before(Step::Aside)?;
            fs::rename(link, &zero)
        }
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            fs::rename(&path, &zero)?;
            before(Step::Aside)?;
            fs::rename(link, &path)
        }
        Err(error) => Err(error.into()),
    }
}

/// Replaces one file by a new one with its owner, group and mode.
pub(super) fn replace_file(beside: &Beside, path: &Path, content: &[u8], before: Before<'_>) -> io::Result<()> {
    let staging = beside.hidden("new");
    before(Step::Clear)?;
    remove(&staging)?;
    before(Step::Write)?;
    write_like(&staging, content, &fs::metadata(path)?)?;
    before(Step::Swap)?;
    fs::rename(&staging, path)?;
    beside.sync()
}

fn write_like(path: &Path, content: &[u8], old: &Metadata) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    like(&file, old)?;
    file.sync_all()
}

/// Gives a file or directory the owner, the group and then the mode of another. An owner or group that this user may
/// not give, and that would lose nothing by it, is left.
fn like(file: &File, old: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    let (mode, others) = (old.mode() & 0o7777, old.mode() & 0o007);
    if new.gid() != old.gid() {
        let given = fchown(file, None, Some(Gid::from_raw(old.gid())));
        let needed = (mode & 0o070) >> 3 & !others != 0;
        given.or_else(|error| if needed { Err(error) } else { Ok(()) })?;
    }
    if new.uid() != old.uid() {
        let given = fchown(file, Some(Uid::from_raw(old.uid())), None);
        // The superuser reads it anyway.
        given.or_else(|error| if old.uid() == 0 { Ok(()) } else { Err(error) })?;
    }
    file.set_permissions(Permissions::from_mode(mode))
}

/// The same file in another directory; a copy, where this user may not link to it.
fn carry(from: &Path, to: &Path, old: &Metadata) -> io::Result<()> {
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let mut content = Zeroizing::new(Vec::new());
    opened(from)?.read_to_end(&mut content)?;
    write_like(to, &content, old)
}

/// Opens a file or directory, unless it is a link by now: what is read or given away is what was found.
fn opened(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// Removes a file, link or directory with its files, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// The key of a renewal that has not come to its end, stored beside the files and named after the key in use.
pub(super) struct Pending(PathBuf);

impl Pending {
    pub(super) fn of(place: &Place, in_use: &KeyId) -> Self {
        let id = in_use.to_string();
        Self(place.beside().hidden(&format!("next-{}.key", id.get(..16).unwrap_or(&id))))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The key, PEM; none if there is none.
    pub(super) fn read(&self) -> io::Result<Option<Zeroizing<String>>> {
        match fs::symlink_metadata(&self.0) {
            Ok(metadata) if metadata.is_file() && metadata.mode() & 0o077 == 0 => {}
            Ok(_) => return Err(io::Error::other("it is not a file that its owner alone can read")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        fs::read_to_string(&self.0).map(Zeroizing::new).map(Some)
    }

    /// Stores it: it is asked with only once it cannot be lost.
    pub(super) fn write(&self, pem: &str) -> io::Result<()> {
        remove(&self.0)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.0)?;
        file.write_all(pem.as_bytes())?;
        file.sync_all()?;
        self.0.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    }

    /// It is in use now.
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Place {
    /// Notes, before the files change, that a program is to be told of this certificate.
    pub(super) fn to_tell(&self, certificate: &str) -> io::Result<()> {
        let note = self.beside().hidden("then");
        remove(&note)?;
        OpenOptions::new().write(true).create_new(true).open(&note)?.write_all(certificate.as_bytes())
    }

    /// Whether a program was to be told of this certificate, and was not.
    pub(super) fn is_untold(&self, certificate: &str) -> bool {
        fs::read_to_string(self.beside().hidden("then")).is_ok_and(|noted| noted == certificate)
    }

    /// It was told.
    pub(super) fn told(&self) {
        let _ = fs::remove_file(self.beside().hidden("then"));
    }
}

#[cfg(test)]
mod tests;
