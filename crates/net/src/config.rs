//! The one place where rustls configurations are made, for TCP and QUIC, for both ends.
//!
//! TLS 1.3 only (RFC 8446). No tickets, no session store, no early data: on a resumed session rustls does not ask the
//! verifier, so a revoked client would come back in (CVE-2025-23419 and CVE-2025-68121 elsewhere). The key exchange is
//! hybrid, post-quantum first. A configuration serves one protocol and one handshake.

use std::sync::{Arc, LazyLock};

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, ResolvesServerCert};
use rustls::{ClientConfig, Error, ServerConfig, version};

use crate::alpn::Alpn;
use crate::credential::Credential;
use crate::verifier::ChainVerifier;

/// The cryptography of every connection. Never installed as the process's default.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        use aws_lc_rs::{cipher_suite, default_provider, kx_group};
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
            ..default_provider()
        })
    });
    &PROVIDER
}

/// For one accepted connection. Without a verifier no client certificate is asked for: enrollment.
pub(crate) fn server_config(
    alpn: Alpn,
    certificate: Arc<dyn ResolvesServerCert>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, Error> {
    server_config_for(&[alpn.id()], certificate, verifier)
}

/// As [`server_config`], for protocols that are not ours, the preferred one first: HTTP.
pub(crate) fn server_config_for(
    protocols: &[&[u8]],
    certificate: Arc<dyn ResolvesServerCert>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(verifier.unwrap_or_else(|| Arc::new(NoClientAuth)))
        .with_cert_resolver(certificate);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    Ok(config)
}

/// For one dialed connection. Without a credential it stays anonymous: enrollment.
pub(crate) fn client_config(
    alpn: Alpn,
    credential: Option<&Credential>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<ClientConfig, Error> {
    client_config_for(alpn.id(), credential, verifier)
}

/// As [`client_config`], for a protocol that is not ours: HTTP.
pub(crate) fn client_config_for(
    protocol: &[u8],
    credential: Option<&Credential>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<ClientConfig, Error> {
    let mut config = client_template().clone()?;
    config.dangerous().set_certificate_verifier(verifier);
    if let Some(credential) = credential {
        config.client_auth_cert_resolver = credential.resolver();
    }
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

/// The common part of every dialed connection: it is anonymous and trusts no server. Made once, because rustls makes a
/// session store with each configuration that it builds, and throws the store away when told that none is wanted.
fn client_template() -> &'static Result<ClientConfig, Error> {
    static TEMPLATE: LazyLock<Result<ClientConfig, Error>> = LazyLock::new(|| {
        let no_server = ChainVerifier::<(), ()>::new(|_| Err(()));
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(no_server)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok(config)
    });
    &TEMPLATE
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::NamedGroup;

    #[test]
    fn the_hybrid_group_comes_first_and_tls12_is_absent() {
        let groups: Vec<_> = provider().kx_groups.iter().map(|g| g.name()).collect();
        assert_eq!(groups, [NamedGroup::X25519MLKEM768, NamedGroup::X25519, NamedGroup::secp256r1]);
        assert!(provider().cipher_suites.iter().all(|s| s.version().version == rustls::ProtocolVersion::TLSv1_3));
    }
}
