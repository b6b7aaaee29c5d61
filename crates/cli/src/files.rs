//! Files that commands leave behind. A key is 0600 from its first byte, and what exists is not replaced unasked.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use countersign::datadir::{DataDirError, open_given};

use crate::failure::{Failure, chain};

/// Bytes of a PEM file that is read.
const PEM_LEN_MAX: u64 = 1024 * 1024;

/// The readers of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// The owner.
    Owner,
    /// Every user that the umask lets.
    All,
}

/// A file to be written.
pub(crate) struct NewFile<'a> {
    pub(crate) path: PathBuf,
    pub(crate) content: &'a [u8],
    pub(crate) readers: Readers,
}

/// Refuses if any of the files is there already, so that a pair of files is never made of an old and a new half.
pub(crate) fn check_absent<'a>(paths: impl IntoIterator<Item = &'a Path>, force: bool) -> Result<(), Failure> {
    match paths.into_iter().find(|path| !force && path.symlink_metadata().is_ok()) {
        Some(path) => Err(exists(path)),
        None => Ok(()),
    }
}

fn exists(path: &Path) -> Failure {
    Failure::usage(
        format!("`{}` exists already", path.display()),
        "choose another directory with --out, or replace it with --force",
    )
}

/// Writes a file, making its directory if there is none. With `force`, replaces it in one step.
#[allow(clippy::wildcard_enum_match_arm, reason = "kinds of error are the standard library's")]
pub(crate) fn write(file: &NewFile<'_>, force: bool) -> Result<(), Failure> {
    let path = &file.path;
    let result = make_parent(path).and_then(|()| if force { replace(file) } else { create(path, file) });
    result.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists if !force => exists(path),
        _ => Failure::usage(
            format!("cannot write `{}`: {}", path.display(), chain(&error)),
            "choose a directory that you can write with --out",
        ),
    })
}

fn make_parent(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => fs::create_dir_all(parent),
        None => Ok(()),
    }
}

fn create(path: &Path, file: &NewFile<'_>) -> io::Result<()> {
    let mode = if file.readers == Readers::Owner { 0o600 } else { 0o644 };
    let mut written = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let result = written.write_all(file.content).and_then(|()| written.sync_all());
    if result.is_err() {
        let _ = fs::remove_file(path); // a full disk: leave nothing half-written behind
    }
    result
}

/// Beside, then renamed: a reader sees the old or the new file, and an old file's permissions do not stay.
fn replace(file: &NewFile<'_>) -> io::Result<()> {
    let mut beside = file.path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    create(&beside, file)?;
    fs::rename(&beside, &file.path)
}

/// Reads a text file such as PEM.
pub(crate) fn read_text(path: &Path, next: &str) -> Result<String, Failure> {
    let failed = |why: String| Failure::usage(format!("cannot read `{}`: {why}", path.display()), next);
    let metadata = fs::metadata(path).map_err(|error| failed(chain(&error)))?;
    if metadata.len() > PEM_LEN_MAX {
        return Err(failed(format!("it holds more than {PEM_LEN_MAX} bytes")));
    }
    fs::read_to_string(path).map_err(|error| failed(chain(&error)))
}

/// Reads a private key's file. One that other users can read is refused: any of them may have read it.
pub(crate) fn read_private(path: &Path, next: &str) -> Result<zeroize::Zeroizing<String>, Failure> {
    let failed = |why: String| Failure::usage(format!("cannot read `{}`: {why}", path.display()), next);
    let (mut file, metadata) = match open_given(path) {
        Ok(Some(opened)) => opened,
        Ok(None) => return Err(failed("there is no such file".to_owned())),
        Err(error) => return Err(Failure::usage(chain(&error), exposed(&error, next))),
    };
    if metadata.len() > PEM_LEN_MAX {
        return Err(failed(format!("it holds more than {PEM_LEN_MAX} bytes")));
    }
    let mut text = zeroize::Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(|error| failed(chain(&error)))?;
    Ok(text)
}

/// What to do about a secret's file that cannot be used.
pub(crate) fn exposed(error: &DataDirError, next: &str) -> String {
    match error {
        DataDirError::Exposed { path, .. } => {
            format!("chmod 600 {}, and make a new one if another user may have read this one", path.display())
        }
        DataDirError::Owner { path, .. } => format!("chown {} to this user, or to root", path.display()),
        DataDirError::InUse { .. }
        | DataDirError::Foreign { .. }
        | DataDirError::Layout { .. }
        | DataDirError::Link { .. }
        | DataDirError::Kind { .. }
        | DataDirError::Damaged { .. }
        | DataDirError::Io { .. } => next.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn file<'a>(path: &Path, content: &'a str) -> NewFile<'a> {
        NewFile { path: path.to_owned(), content: content.as_bytes(), readers: Readers::Owner }
    }

    #[test]
    fn an_existing_file_stays_unless_forced_and_a_forced_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        fs::write(&path, "old").unwrap();
        assert!(check_absent([path.as_path()], false).is_err());
        assert!(write(&file(&path, "new"), false).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        check_absent([path.as_path()], true).unwrap();
        write(&file(&path, "new"), true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_dangling_link_is_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("a.key"), dir.path().join("elsewhere"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(check_absent([link.as_path()], false).is_err());
        assert!(write(&file(&link, "key"), false).is_err());
        assert!(!target.exists());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        write(&file(&path, "key"), false).unwrap();
        assert_eq!(read_private(&path, "").unwrap().as_str(), "key");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert!(read_private(&path, "").is_err());
    }
}
