//! The files of an identity: certificate, private key and authorities, in a directory of their own or in one file. They
//! are read together, and judged before a member is asked.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use countersign::{ClientDialer, ClientFilesError, KeyPair, Principal};
use countersign_core::time::Validity;
use countersign_pki::pem::{certificate_pem, certificates_from_pem};
use zeroize::Zeroizing;

use super::swap::{Beside, Versions, replace_file};
use super::unwritable;
use crate::failure::{Failure, chain};

/// Bytes of one file.
const FILE_LEN_MAX: u64 = 1024 * 1024;
/// Files beside each other in a directory that is replaced as a whole.
const ENTRIES_MAX: usize = 64;
/// What they are named.
const ENDINGS: [&str; 2] = ["pem", "key"];
const AUTHORITIES: &str = "ca.pem";

/// Where the files are, as the operator said.
pub(super) enum Files {
    /// NAME.pem, NAME.key and ca.pem.
    Directory { dir: PathBuf, name: Option<String> },
    /// One PEM file.
    Bundle(PathBuf),
}

/// Where the files are. No other renewal has them as long as this is there.
pub(super) struct Place {
    shown: PathBuf,
    beside: Beside,
    kind: Kind,
    /// Ends with the value.
    _lock: File,
}

enum Kind {
    Directory { versions: Versions, name: String },
    Bundle { path: PathBuf },
}

/// An identity that can ask for its renewal.
pub(super) struct Identity {
    pub(super) dialer: ClientDialer,
    pub(super) principal: Principal,
    pub(super) key: KeyPair,
    pub(super) validity: Validity,
    /// The chain, PEM.
    pub(super) certificate: String,
}

impl Files {
    /// Finds the files and keeps other renewals from them.
    ///
    /// # Errors
    /// What is not there, or is not such that it can be replaced as a whole.
    pub(super) fn find(&self) -> Result<Place, Failure> {
        match self {
            Self::Directory { dir, name } => {
                let find = || Beside::of(dir).and_then(Versions::find);
                let failed = |error: io::Error| unreadable(dir, &error, OWN_DIRECTORY);
                let versions = find().map_err(failed)?;
                let owned = versions.beside().check_owner();
                owned.map_err(|error| unreadable(dir, &error, OTHER_USER))?;
                versions.beside().check_mounts().map_err(|error| unwritable(&error, dir))?;
                let lock = locked(versions.current(), dir)?;
                if find().map_err(failed)?.current() != versions.current() {
                    return Err(busy(dir));
                }
                let name = identity_in(dir, &versions, name.as_deref())?;
                let beside = versions.beside().clone();
                let kind = Kind::Directory { versions, name };
                Ok(Place { shown: dir.clone(), beside, kind, _lock: lock })
            }
            Self::Bundle(bundle) => {
                let path = fs::canonicalize(bundle).map_err(|error| unreadable(bundle, &error, MAKE_BUNDLE))?;
                let beside = Beside::of(&path).map_err(|error| unreadable(bundle, &error, MAKE_BUNDLE))?;
                beside.check_owner().map_err(|error| unreadable(bundle, &error, OTHER_USER))?;
                beside.check_mounts().map_err(|error| unwritable(&error, bundle))?;
                let lock = locked(&path, bundle)?;
                let same = |held: &Metadata, now: &Metadata| (held.dev(), held.ino()) == (now.dev(), now.ino());
                match (lock.metadata(), fs::metadata(&path)) {
                    (Ok(held), Ok(now)) if same(&held, &now) => {}
                    (Ok(_) | Err(_), Ok(_) | Err(_)) => return Err(busy(bundle)),
                }
                Ok(Place { shown: bundle.clone(), beside, kind: Kind::Bundle { path }, _lock: lock })
            }
        }
    }
}

const OWN_DIRECTORY: &str = "give the directory that `countersign cert issue --out DIR` wrote, by its path";
const OTHER_USER: &str = "run this as the user of that directory, or move the files to one of root's";
const MAKE_BUNDLE: &str = "make it of the files of `countersign cert issue`: (umask 077; cat NAME.pem NAME.key > FILE)";

fn unreadable(path: &Path, error: &io::Error, next: &str) -> Failure {
    Failure::usage(format!("cannot use `{}`: {}", path.display(), chain(error)), next)
}

fn busy(path: &Path) -> Failure {
    let reason = format!("another renewal of `{}` is under way", path.display());
    Failure::unreachable(reason, "let it end, then try again")
}

fn locked(path: &Path, shown: &Path) -> Result<File, Failure> {
    let file = File::open(path).map_err(|error| unreadable(shown, &error, "run this as the user of these files"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(busy(shown)),
        Err(TryLockError::Error(error)) => Err(unreadable(shown, &error, "use a file system that has locks")),
    }
}

/// The name of the identity in a directory that holds certificates and keys alone: all of it is replaced.
fn identity_in(shown: &Path, versions: &Versions, wanted: Option<&str>) -> Result<String, Failure> {
    let failed = |error: io::Error| unreadable(shown, &error, OWN_DIRECTORY);
    let mut names = Vec::new();
    for (count, entry) in fs::read_dir(versions.current()).map_err(failed)?.enumerate() {
        let entry = entry.map_err(failed)?;
        let (path, is_file) = (entry.path(), entry.file_type().map_err(failed)?.is_file());
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if count >= ENTRIES_MAX || !is_file || !ENDINGS.contains(&ending) {
            let reason = format!(
                "`{}` holds more than certificates and keys, such as `{}`, and would be replaced as a whole",
                shown.display(),
                entry.file_name().display()
            );
            let next = "move NAME.pem, NAME.key and a copy of ca.pem to a directory of their own, or use --bundle";
            return Err(Failure::usage(reason, next));
        }
        if ending == "key"
            && let Some(name) = path.file_stem().and_then(|name| name.to_str())
            && path.with_extension("pem").exists()
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    match (wanted, names.as_slice()) {
        (None, [name]) => Ok(name.clone()),
        (Some(wanted), names) if names.iter().any(|name| name == wanted) => Ok(wanted.to_owned()),
        (wanted, []) => {
            let name = wanted.unwrap_or("NAME");
            let reason = format!("`{}` does not hold {name}.pem with {name}.key", shown.display());
            Err(Failure::usage(reason, OWN_DIRECTORY))
        }
        (_, names) => {
            let reason = format!("`{}` holds the certificates of {}", shown.display(), names.join(", "));
            Err(Failure::usage(reason, "say with --name which one is renewed"))
        }
    }
}

impl Place {
    /// As the operator named it.
    pub(super) fn shown(&self) -> &Path {
        &self.shown
    }

    pub(super) fn certificate_file(&self) -> PathBuf {
        self.file("pem")
    }

    pub(super) fn key_file(&self) -> PathBuf {
        self.file("key")
    }

    fn file(&self, ending: &str) -> PathBuf {
        match &self.kind {
            Kind::Directory { name, .. } => self.shown.join(format!("{name}.{ending}")),
            Kind::Bundle { .. } => self.shown.clone(),
        }
    }

    /// Beside what is replaced, and not replaced with it.
    pub(super) fn beside(&self) -> &Beside {
        &self.beside
    }

    /// Reads and judges the files.
    ///
    /// # Errors
    /// What is wrong with them, and what to do.
    pub(super) fn read(&self) -> Result<Identity, Failure> {
        let (certificate, key, authorities) = match &self.kind {
            Kind::Directory { versions, name } => {
                let at = |file: &str| versions.current().join(file);
                let certificate = read(&at(&format!("{name}.pem")), &self.certificate_file(), false)?;
                let key = read(&at(&format!("{name}.key")), &self.key_file(), true)?;
                let authorities = at(AUTHORITIES);
                let authorities = if authorities.exists() {
                    read(&authorities, &self.shown.join(AUTHORITIES), false)?.as_str().to_owned()
                } else {
                    after_leaf(&certificate)
                };
                (certificate, key, authorities)
            }
            Kind::Bundle { path } => {
                let bundle = read(path, &self.shown, true)?;
                let authorities = after_leaf(&bundle);
                (bundle.clone(), bundle, authorities)
            }
        };
        let unusable = |error: ClientFilesError| {
            let next = "these files are not of one `countersign cert issue`: put back the files that belong together, \
                        or have an admin issue others with --force";
            Failure::usage(format!("`{}` cannot be used: {}", self.shown.display(), chain(&error)), next)
        };
        let dialer = ClientDialer::from_pem(&certificate, &key, &authorities).map_err(unusable)?;
        let key = KeyPair::from_pem(&key).map_err(|error| unusable(ClientFilesError::Key(error)))?;
        let credential = dialer.credential();
        let validity = credential.validity();
        let (Some(validity), Some(principal)) = (validity, dialer.principal()) else {
            return Err(Failure::usage(
                format!("`{}` holds a certificate that does not say who it is for", self.shown.display()),
                "use a certificate of `countersign cert issue`: others are renewed where they were made",
            ));
        };
        let certificate = credential.chain().map(certificate_pem).collect();
        Ok(Identity { principal, key, validity, certificate, dialer })
    }

    /// Puts the certificate and its key in the place of the old ones, together. Modes, owners and groups stay.
    ///
    /// # Errors
    /// The files are the old ones then, or, if only what follows failed, the new ones.
    pub(super) fn replace(&self, certificate: &str, key: &str) -> io::Result<()> {
        match &self.kind {
            Kind::Directory { versions, name } => {
                let changed =
                    [(format!("{name}.pem"), certificate.as_bytes()), (format!("{name}.key"), key.as_bytes())];
                versions.replace(&changed, &mut |_| Ok(()))
            }
            Kind::Bundle { path } => {
                let bundle = Zeroizing::new(format!("{certificate}{key}"));
                replace_file(&self.beside, path, bundle.as_bytes(), &mut |_| Ok(()))
            }
        }
    }
}

/// The certificates after the first: the authority is among them.
fn after_leaf(pem: &str) -> String {
    let certificates = certificates_from_pem(pem).unwrap_or_default();
    certificates.iter().skip(1).map(|der| certificate_pem(der)).collect()
}

/// Reads a file. A secret that every user can read or change is refused: any of them may have.
fn read(path: &Path, shown: &Path, secret: bool) -> Result<Zeroizing<String>, Failure> {
    let failed = |error: io::Error| unreadable(shown, &error, "run this as the user of these files");
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.mode() & 0o777;
    if secret && mode & 0o027 != 0 {
        return Err(Failure::usage(
            format!("`{}` is a secret that other users can read or change (mode {mode:04o})", shown.display()),
            format!(
                "chmod 600 {}, and have an admin issue another if another user may have read this one",
                shown.display()
            ),
        ));
    }
    if metadata.len() > FILE_LEN_MAX {
        return Err(Failure::usage(
            format!("`{}` holds more than {FILE_LEN_MAX} bytes", shown.display()),
            "is it the right file?",
        ));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_LEN_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// Whether a path ends in a name of its own: `.` and `..` name no entry that could be replaced.
pub(super) fn own_name(path: &Path) -> Option<&str> {
    match path.components().next_back() {
        Some(Component::Normal(name)) => name.to_str(),
        Some(Component::CurDir | Component::ParentDir | Component::RootDir | Component::Prefix(_)) | None => None,
    }
}
