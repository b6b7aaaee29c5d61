//! The HTTPS port: apart from the cluster port, and less of it. A client may come without a certificate and is nobody then;
//! one that it shows is verified and judged as everywhere else, anew for each request.
//!
//! Browsers refuse Ed25519 certificates, so two are offered: the node's leaf to clients that say they know Ed25519, and
//! another, self-signed or the operator's, to all others.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::limits::HANDSHAKE_MILLIS_MAX;
use countersign_core::name::Address;
use countersign_core::peer::{Evidence, Refusal, VerifiedPeer, Wanted};
use countersign_core::time::UnixMillis;
use countersign_pki::verify::{Bundle, Usage, VerifiedChain, verify_chain};
use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::config::{client_config_for, server_config_for};
use crate::credential::Credential;
use crate::dial_error::{DialCause, DialError, Foreign};
use crate::dialer::{attempt, serves_host};
use crate::endpoint::Endpoint;
use crate::verifier::ChainVerifier;

const HTTP: &[u8] = b"http/1.1";
const DEADLINE: Duration = Duration::from_millis(HANDSHAKE_MILLIS_MAX);

/// What the HTTPS port shows to clients.
#[derive(Clone)]
pub enum HttpsCertificate {
    /// The node's leaf where the client knows Ed25519, else this one.
    NodeOr(Arc<Credential>),
    /// The operator's own, to everybody.
    Operator(Arc<Credential>),
}

/// Who is at the other end of an HTTPS connection, as far as it said.
#[derive(Clone)]
pub struct HttpsPeer {
    endpoint: Endpoint,
    evidence: Option<Evidence>,
    /// Where it is.
    pub remote: SocketAddr,
}

impl HttpsPeer {
    /// The peer as judged now: asked for each request, so that an evicted admin's open connection is of no use.
    /// `None` if it showed no certificate.
    pub fn verified(&self) -> Option<Result<VerifiedPeer, Refusal>> {
        let trust = self.endpoint.trust().load();
        self.evidence.as_ref().map(|evidence| self.endpoint.judge(&trust, evidence, Wanted::AnyPrincipal))
    }
}

/// An accepted HTTPS connection.
pub type HttpsStream = tokio_rustls::server::TlsStream<TcpStream>;

/// Why an HTTPS handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// TLS.
    #[error("TLS handshake failed")]
    Tls(#[source] rustls::Error),
    /// The connection.
    #[error("connection failed")]
    Io(#[source] io::Error),
    /// Too slow.
    #[error("handshake took too long")]
    Deadline,
}

/// Ends the handshake of an accepted connection.
pub async fn accept_https(
    endpoint: &Endpoint,
    certificate: &HttpsCertificate,
    socket: TcpStream,
    remote: SocketAddr,
) -> Result<(HttpsStream, HttpsPeer), HttpsError> {
    let trust = endpoint.trust().load();
    let resolver = Arc::new(ByScheme { node: trust.credential.clone(), certificate: certificate.clone() });
    let (verifying, judged_by) = (endpoint.clone(), Arc::clone(&trust));
    let verifier = ChainVerifier::optional(move |chain| verifying.verify(&judged_by, chain, Usage::Client));
    let config = server_config_for(HTTP, resolver, Some(Arc::clone(&verifier) as _)).map_err(HttpsError::Tls)?;
    let ended = tokio::time::timeout(DEADLINE, TlsAcceptor::from(Arc::new(config)).accept(socket)).await;
    let tls = ended.map_err(|_| HttpsError::Deadline)?.map_err(HttpsError::Io)?;
    let evidence = match verifier.take_outcome() {
        Some(Ok(chain)) => Some(chain.evidence().clone()),
        _ => None,
    };
    Ok((tls, HttpsPeer { endpoint: endpoint.clone(), evidence, remote }))
}

/// Chooses by what the client can verify.
struct ByScheme {
    node: Option<Arc<Credential>>,
    certificate: HttpsCertificate,
}

impl core::fmt::Debug for ByScheme {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ByScheme")
    }
}

impl ResolvesServerCert for ByScheme {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let (other, may_be_node) = match &self.certificate {
            HttpsCertificate::NodeOr(other) => (other, true),
            HttpsCertificate::Operator(own) => (own, false),
        };
        let ed25519 = hello.signature_schemes().contains(&SignatureScheme::ED25519);
        match &self.node {
            Some(node) if may_be_node && ed25519 => Some(node.certified()),
            _ => Some(other.certified()),
        }
    }
}

/// A dialed HTTPS connection to a member.
pub type HttpsClientStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Connects to a member's HTTPS port with an admin certificate. The server must be a node or broker under `bundle` whose
/// certificate holds the dialed host.
pub async fn dial_https(
    address: &Address,
    bundle: Arc<Bundle>,
    credential: &Credential,
    now: UnixMillis,
) -> Result<HttpsClientStream, DialError> {
    attempt(address, DEADLINE, |_| async move {
        let host = address.host.clone();
        let verifier = ChainVerifier::new(move |presented| -> Result<VerifiedChain, DialCause> {
            let chain = verify_chain(&bundle, presented, Usage::Server, Some(now)).map_err(DialCause::Untrusted)?;
            if serves_host(&chain, &host) { Ok(chain) } else { Err(DialCause::Host) }
        });
        let config = client_config_for(HTTP, Some(credential), Arc::clone(&verifier) as _).map_err(DialCause::Tls)?;
        let target = (address.host.to_string(), address.port);
        let socket = TcpStream::connect(target).await.map_err(DialCause::Connect)?;
        let name = ServerName::try_from(address.host.to_string()).map_err(|_| DialCause::Host)?;
        let ended = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
        match (ended, verifier.take_outcome()) {
            (Ok(tls), Some(Ok(_))) => Ok(tls),
            (_, Some(Err(cause))) => Err(cause),
            (Err(error), _) => Err(DialCause::of_io(error)),
            (Ok(_), None) => Err(DialCause::NotCountersign(Foreign::Protocol)),
        }
    })
    .await
}
