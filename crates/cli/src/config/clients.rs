//! Which clients the certificates of a configuration shut out, as far as its files tell.

use std::path::Path;

use countersign_pki::key_kind::{KeyKind, shut_out};
use countersign_pki::pem::certificates_from_pem;

use crate::config::checked::{Mode, ServerConfig};

/// One line for each key that shuts clients out.
pub(crate) fn clients_shut_out(config: &ServerConfig) -> Vec<String> {
    let made = Some(KeyKind::from(config.key));
    let (leaf, authority) = match (&config.files, &config.authority, &config.mode) {
        (Some(files), _, _) => (in_file(&files.cert), in_file(&files.ca)),
        (None, Some(directory), _) => (made, in_file(&directory.join("ca.pem"))),
        (None, None, Mode::Bootstrap | Mode::Alone) => (made, made),
        // The cluster's authority is not known before it is joined.
        (None, None, Mode::Join { .. } | Mode::Return { .. }) => (made, None),
    };
    shut_out(leaf, authority)
}

/// A file that cannot be read is told about elsewhere.
fn in_file(path: &Path) -> Option<KeyKind> {
    let pem = std::fs::read_to_string(path).ok()?;
    certificates_from_pem(&pem).ok()?.first().and_then(|der| KeyKind::of_certificate(der))
}
