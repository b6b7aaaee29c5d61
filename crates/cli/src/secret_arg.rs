//! Secrets as arguments: `@FILE`, `-` for standard input, or the secret itself. Never shown again.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign::datadir::{DataDirError, open_given};
use countersign_core::secret::SecretBytes;

/// Bytes that a secret may have.
const SECRET_LEN_MAX: usize = 64 * 1024;

/// Where a secret is.
#[derive(Clone)]
pub(crate) enum SecretArg {
    /// In a file.
    File(PathBuf),
    /// On standard input.
    Stdin,
    /// In the argument.
    Literal(Arc<SecretBytes>),
}

/// Why a secret cannot be had. None of these shows any part of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// The file or standard input cannot be read.
    #[error("cannot read {from}")]
    Io {
        /// Where it was to be.
        from: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Others can read the file, or it is theirs.
    #[error(transparent)]
    NotPrivate(#[from] DataDirError),
    /// Nothing there.
    #[error("{from} is empty")]
    Empty {
        /// Where it was to be.
        from: String,
    },
    /// Too much there.
    #[error("{from} holds more than {SECRET_LEN_MAX} bytes")]
    TooLong {
        /// Where it was to be.
        from: String,
    },
}

impl SecretArg {
    pub(crate) fn parse(text: &str) -> Self {
        match (text, text.strip_prefix('@')) {
            ("-", _) => Self::Stdin,
            (_, Some(path)) => Self::File(PathBuf::from(path)),
            _ => Self::Literal(Arc::new(SecretBytes::new(text.as_bytes().to_vec()))),
        }
    }

    /// The secret, without the line break that editors and `echo` leave at its end.
    pub(crate) fn read(&self) -> Result<SecretBytes, SecretError> {
        let from = || self.to_string();
        let bytes = match self {
            Self::File(path) => read_limited(path, &from)?,
            Self::Stdin => read_all(io::stdin().lock(), &from)?,
            Self::Literal(secret) => secret.expose().to_vec(),
        };
        let read = SecretBytes::new(bytes);
        let trimmed = read.expose().trim_ascii();
        if trimmed.is_empty() {
            return Err(SecretError::Empty { from: from() });
        }
        Ok(SecretBytes::new(trimmed.to_vec()))
    }

    /// Whether it is certainly empty, as far as can be told without reading.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::File(path) => path.as_os_str().is_empty(),
            Self::Stdin => false,
            Self::Literal(secret) => secret.expose().trim_ascii().is_empty(),
        }
    }
}

fn read_limited(path: &Path, from: &dyn Fn() -> String) -> Result<Vec<u8>, SecretError> {
    match open_given(path) {
        Ok(Some((file, _))) => read_all(file, from),
        Ok(None) => Err(SecretError::Io { from: from(), source: io::ErrorKind::NotFound.into() }),
        Err(DataDirError::Io { source, .. }) => Err(SecretError::Io { from: from(), source }),
        Err(error) => Err(error.into()),
    }
}

fn read_all(source: impl Read, from: &dyn Fn() -> String) -> Result<Vec<u8>, SecretError> {
    // Reserved whole: growing would leave copies of the secret behind.
    let mut bytes = Vec::with_capacity(SECRET_LEN_MAX + 1);
    let limit = u64::try_from(SECRET_LEN_MAX + 1).unwrap_or(u64::MAX);
    let read = source.take(limit).read_to_end(&mut bytes);
    let secret = SecretBytes::new(bytes);
    read.map_err(|source| SecretError::Io { from: from(), source })?;
    if secret.expose().len() > SECRET_LEN_MAX {
        return Err(SecretError::TooLong { from: from() });
    }
    Ok(secret.expose().to_vec())
}

impl fmt::Display for SecretArg {
    /// Says where it is, never what it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "`@{}`", path.display()),
            Self::Stdin => f.write_str("standard input"),
            Self::Literal(_) => f.write_str("the given secret"),
        }
    }
}

impl fmt::Debug for SecretArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretArg({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_comes_from_a_file_or_from_the_argument_and_loses_its_line_break() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "  hush\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        for exposed in [0o644, 0o604, 0o660] {
            mode(exposed);
            let read = SecretArg::File(path.clone()).read();
            assert!(matches!(read, Err(SecretError::NotPrivate(DataDirError::Exposed { .. }))), "{read:?}");
        }
        mode(0o400);
        for text in [format!("@{}", path.display()), "hush".to_owned()] {
            assert_eq!(SecretArg::parse(&text).read().unwrap().expose(), b"hush");
        }
    }

    #[test]
    fn a_secret_at_the_limit_is_read_and_one_beyond_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        for (len, read) in [(SECRET_LEN_MAX, true), (SECRET_LEN_MAX + 1, false)] {
            std::fs::write(&path, vec![b'x'; len]).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            assert_eq!(SecretArg::File(path.clone()).read().is_ok(), read, "{len}");
        }
    }

    #[test]
    fn nothing_is_no_secret_and_no_error_shows_one() {
        for empty in ["", " \n"] {
            assert!(matches!(SecretArg::parse(empty).read(), Err(SecretError::Empty { .. })));
            assert!(SecretArg::parse(empty).is_empty());
        }
        let arg = SecretArg::parse("hunter2");
        assert!(!format!("{arg} {arg:?}").contains("hunter2"));
        assert!(matches!(SecretArg::parse("@/nonexistent/x").read(), Err(SecretError::Io { .. })));
    }
}
