//! The floor: rustls and quinn with the same certificates and the same cryptography, verified by rustls' own verifiers.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use countersign_net::Alpn;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::cluster::{Cluster, Identity};

/// What Countersign offers, in its order.
pub(crate) fn provider() -> Arc<CryptoProvider> {
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
}

fn roots(cluster: &Cluster) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(cluster.authority.certificate().to_vec()))?;
    Ok(Arc::new(roots))
}

fn credential(who: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = who.chain.iter().cloned().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::try_from(who.key.to_pkcs8()?.expose().to_vec()).map_err(|e| anyhow!(e))?;
    Ok((chain, key))
}

/// Member 1 accepts every peer that the cluster's authority certified.
pub(crate) fn server(cluster: &Cluster) -> Result<ServerConfig> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(cluster)?, provider()).build()?;
    let (chain, key) = credential(cluster.identity(1)?)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![Alpn::Peer.id().to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Member 2 dials.
pub(crate) fn client(cluster: &Cluster) -> Result<ClientConfig> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(cluster)?, provider()).build()?;
    let (chain, key) = credential(cluster.identity(2)?)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![Alpn::Peer.id().to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}
