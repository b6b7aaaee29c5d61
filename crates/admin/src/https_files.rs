//! The operator's certificate for the HTTPS port: two PEM files, read again when they change.
//!
//! A pair that cannot be used never replaces one that can: the port goes on with the last good pair, and reads the
//! files again at the next handshake.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use countersign_core::locked::Locked;
use countersign_net::Credential;
use countersign_pki::credential::{self, CredentialError};

use countersign_node::datadir::{DataDirError, read_given_secret, read_optional};

/// Why the operator's certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// A file cannot be read, or the key can be read by others.
    #[error(transparent)]
    File(#[from] DataDirError),
    /// A file that was named is not there.
    #[error("`{}` does not exist", path.display())]
    Missing {
        /// Which.
        path: PathBuf,
    },
    /// A file is no text.
    #[error("`{}` is not PEM", path.display())]
    NotPem {
        /// Which.
        path: PathBuf,
    },
    /// Certificate and key are no credential; most often they do not belong together.
    #[error("`{}` and `{}` cannot be used together", certificate.display(), key.display())]
    Credential {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        #[source]
        source: CredentialError,
    },
}

/// What tells one state of a file from another without reading it: device, inode, size, and both times.
type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

/// The two files, and the last pair in them that could be used.
pub(crate) struct HttpsFiles {
    certificate: PathBuf,
    key: PathBuf,
    good: ArcSwap<Credential>,
    /// Of the files as they were read last, whether they could be used or not.
    seen: Locked<[Stamp; 2]>,
}

impl HttpsFiles {
    /// Reads the files for the first time.
    pub(crate) fn open((certificate, key): &(PathBuf, PathBuf)) -> Result<Self, HttpsError> {
        let seen = [stamp(certificate), stamp(key)];
        let good = read(certificate, key)?;
        Ok(Self {
            certificate: certificate.clone(),
            key: key.clone(),
            good: ArcSwap::from_pointee(good),
            seen: Locked::new(seen),
        })
    }

    /// What to show now. The files are read again only if one of them changed since.
    pub(crate) fn current(&self) -> Arc<Credential> {
        let now = [stamp(&self.certificate), stamp(&self.key)];
        let changed = {
            let mut seen = self.seen.lock();
            std::mem::replace(&mut *seen, now) != now
        };
        if changed {
            self.reload();
        }
        self.good.load_full()
    }

    /// Reads the files again. A pair that cannot be used is told in the log, and replaces nothing.
    pub(crate) fn reload(&self) {
        match read(&self.certificate, &self.key) {
            Ok(credential) if credential.leaf_digest() == self.good.load().leaf_digest() => {
                tracing::info!(certificate = %self.certificate.display(), "certificate of the HTTPS port is as it was");
            }
            Ok(credential) => {
                tracing::info!(certificate = %self.certificate.display(), "certificate of the HTTPS port replaced");
                self.good.store(Arc::new(credential));
            }
            Err(error) => {
                let error = countersign_node::chain(&error);
                tracing::warn!(%error, "certificate of the HTTPS port cannot be replaced, the last one stays");
            }
        }
    }
}

/// A link is followed: the file that it leads to is read.
fn stamp(path: &Path) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    let (modified, changed) = ((file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec()));
    Some((file.dev(), file.ino(), file.len(), modified, changed))
}

fn read(certificate: &Path, key: &Path) -> Result<Credential, HttpsError> {
    let missing = |path: &Path| HttpsError::Missing { path: path.to_owned() };
    let not_pem = |path: &Path| HttpsError::NotPem { path: path.to_owned() };
    let chain = read_optional(certificate)?.ok_or_else(|| missing(certificate))?;
    let chain = String::from_utf8(chain).map_err(|_| not_pem(certificate))?;
    let secret = read_given_secret(key)?.ok_or_else(|| missing(key))?;
    let secret = core::str::from_utf8(secret.expose()).map_err(|_| not_pem(key))?;
    let checked = credential::Credential::from_pem(&chain, secret);
    let (certificate, key) = (certificate.to_owned(), key.to_owned());
    let checked = checked.map_err(|source| HttpsError::Credential { certificate, key, source })?;
    Ok(Credential::checked(&checked))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{CertificateParams, KeyPair, KeyUsagePurpose};

    use super::*;

    struct Files {
        _dir: tempfile::TempDir,
        pair: (PathBuf, PathBuf),
    }

    impl Files {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let pair = (dir.path().join("https.pem"), dir.path().join("https.key"));
            Self { _dir: dir, pair }
        }

        /// Renamed into place, as tools do it.
        fn put(path: &Path, text: &str) {
            let beside = path.with_extension("new");
            std::fs::write(&beside, text).unwrap();
            std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).unwrap();
            std::fs::rename(beside, path).unwrap();
        }

        fn put_both(&self, (certificate, key): &(String, String)) {
            Self::put(&self.pair.0, certificate);
            Self::put(&self.pair.1, key);
        }
    }

    fn made(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(["n1.example.org".to_owned()]).unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn keys_of_every_usual_kind_are_taken() {
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_RSA_SHA256,
            &rcgen::PKCS_ED25519,
        ] {
            let files = Files::new();
            files.put_both(&made(algorithm));
            HttpsFiles::open(&files.pair).unwrap();
        }
    }

    #[test]
    fn replaced_files_are_read_again_and_a_bad_pair_replaces_nothing() {
        let (files, [first, second]) = (Files::new(), [(); 2].map(|()| made(&rcgen::PKCS_ECDSA_P256_SHA256)));
        files.put_both(&first);
        let https = HttpsFiles::open(&files.pair).unwrap();
        let shown = https.current();
        assert!(Arc::ptr_eq(&shown, &https.current()), "read again though nothing changed");
        // The new certificate beside the old key, then nothing at all, then the whole of it.
        Files::put(&files.pair.0, &second.0);
        assert_eq!(https.current().key(), shown.key());
        std::fs::remove_file(&files.pair.1).unwrap();
        assert_eq!(https.current().key(), shown.key());
        Files::put(&files.pair.1, &second.1);
        let replaced = https.current();
        assert_ne!(replaced.key(), shown.key());
        // Told to read them, it does not wait for a connection.
        files.put_both(&first);
        https.reload();
        assert_eq!(https.good.load().key(), shown.key());
        files.put_both(&second);
        let replaced = https.current();
        // A key that others can read is no better later than at the start.
        std::fs::set_permissions(&files.pair.1, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(https.current().key(), replaced.key());
    }

    #[test]
    fn files_that_are_no_credential_do_not_start_the_port() {
        let (files, [one, other]) = (Files::new(), [(); 2].map(|()| made(&rcgen::PKCS_ECDSA_P256_SHA256)));
        assert!(matches!(HttpsFiles::open(&files.pair), Err(HttpsError::Missing { .. })));
        for (certificate, key) in [(&one.0, &other.1), (&one.1, &one.1), (&one.0, &one.0), (&String::new(), &one.1)] {
            files.put_both(&(certificate.clone(), key.clone()));
            assert!(matches!(HttpsFiles::open(&files.pair), Err(HttpsError::Credential { .. })));
        }
        files.put_both(&one);
        std::fs::set_permissions(&files.pair.1, std::fs::Permissions::from_mode(0o660)).unwrap();
        assert!(matches!(HttpsFiles::open(&files.pair), Err(HttpsError::File(DataDirError::Exposed { .. }))));
    }
}
