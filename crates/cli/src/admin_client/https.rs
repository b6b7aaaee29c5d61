//! The HTTPS port of any member, with an admin's certificate.
//!
//! The server's certificate must be one for servers under a given authority and hold the dialed host: the member's own,
//! or the one that its operator gave it. The operating system's trust store is never consulted.

use std::sync::Arc;

use countersign_core::name::Address;
use countersign_net::https::{HttpsClientStream, dial_https};
use countersign_net::{Clock, Credential, SystemClock};
use countersign_pki::credential;
use countersign_pki::pem::certificates_from_pem;
use countersign_pki::verify::Bundle;

use crate::admin_client::AdminError;
use crate::failure::{Failure, chain};
use crate::files::{read_private, read_text};

/// A member's HTTPS port, the authority to trust there, and the certificate to show.
pub(crate) struct Remote {
    pub(crate) server: Address,
    bundle: Arc<Bundle>,
    credential: Credential,
}

impl Remote {
    /// Reads the files.
    pub(crate) fn load(
        server: &str,
        identity: &std::path::Path,
        identity_key: &std::path::Path,
        authority: &std::path::Path,
    ) -> Result<Self, Failure> {
        let address = Address::parse(server).map_err(|reason| {
            Failure::usage(format!("`--server {server}`: {reason}"), "write HOST:PORT, IPv6 addresses in brackets")
        })?;
        let unusable = |path: &std::path::Path, error: &dyn std::error::Error, flag: &str| {
            Failure::usage(format!("`{}` cannot be used: {}", path.display(), chain(error)), format!("check {flag}"))
        };
        let pem = |path: &std::path::Path, flag: &str| {
            let text = read_text(path, &format!("check {flag}"))?;
            certificates_from_pem(&text).map_err(|error| unusable(path, &error, flag))
        };
        let authorities = pem(authority, "--ca")?;
        let bundle = Bundle::new(authorities.iter().map(AsRef::as_ref));
        let bundle = bundle.map_err(|error| unusable(authority, &error, "--ca"))?;
        let key = read_private(identity_key, "check --identity-key")?;
        let checked = credential::Credential::from_pem(&read_text(identity, "check --identity")?, &key);
        let checked = checked.map_err(|error| unusable(identity, &error, "--identity and --identity-key"))?;
        Ok(Self { server: address, bundle: Arc::new(bundle), credential: Credential::checked(&checked) })
    }

    /// Another member's port: the same authority to trust, and the same one to be.
    pub(crate) fn at(&self, server: Address) -> Self {
        Self { server, bundle: Arc::clone(&self.bundle), credential: self.credential.clone() }
    }
}

/// Connects to a member's HTTPS port.
pub(crate) async fn connect(remote: &Remote) -> Result<HttpsClientStream, AdminError> {
    let dialed = dial_https(&remote.server, Arc::clone(&remote.bundle), &remote.credential, SystemClock.now()).await;
    Ok(dialed?)
}
