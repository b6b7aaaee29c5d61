//! The HTTPS port: apart from the cluster port, and with less on it. A client may come without a certificate and then
//! has no principal. A certificate that it shows is verified as everywhere else, and judged for each request again.
//!
//! It shows the node's own leaf, the newest at each handshake, or the operator's certificate. There is no third.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use countersign_core::id::FailureId;
use countersign_core::limits::{
    FAILURES_PER_SOURCE_MINUTE_MAX, HANDSHAKE_MILLIS_MAX, HANDSHAKES_IN_FLIGHT_MAX, HTTPS_PER_SOURCE_MAX,
};
use countersign_core::name::{Address, Host};
use countersign_core::peer::{Proof, Refusal, VerifiedPeer, Wanted};
use countersign_core::time::UnixMillis;
use countersign_pki::foreign::{CertificateNames, ForeignChain, verify_foreign_chain};
use countersign_pki::verify::{Bundle, Usage};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::attempt::{Attempt, Failure};
use crate::budget::{Charge, Source};
use crate::config::{client_config_for, server_config_for};
use crate::credential::Credential;
use crate::dial_error::{DialCause, DialError, Foreign};
use crate::dialer::attempt_as_client;
use crate::endpoint::Endpoint;
use crate::gate::Gate;
use crate::share::{Share, Shares};
use crate::sni;
use crate::verifier::ChainVerifier;

const HTTP: &[u8] = b"http/1.1";
const DEADLINE: Duration = Duration::from_millis(HANDSHAKE_MILLIS_MAX);

/// What the HTTPS port shows to clients.
#[derive(Clone)]
pub enum HttpsCertificate {
    /// The node's own leaf.
    Node,
    /// The operator's own.
    Operator(Arc<Credential>),
}

/// Keeps the refusals of an HTTPS port on record, so many of one source in a minute, and the shares of sources.
pub struct HttpsRefusals {
    endpoint: Endpoint,
    gate: Gate,
    shares: Arc<Shares<Source>>,
}

/// A connection's part of the share of its source; given back when dropped.
pub struct HttpsShare {
    _share: Share<Source>,
}

impl HttpsRefusals {
    /// For a port of this endpoint.
    pub fn new(endpoint: Endpoint) -> Self {
        let gate = Gate::new(HANDSHAKES_IN_FLIGHT_MAX, FAILURES_PER_SOURCE_MINUTE_MAX);
        Self { endpoint, gate, shares: Shares::new(HTTPS_PER_SOURCE_MAX) }
    }

    /// A part for one more connection of this source. None if it has its share of the places, which is on record.
    pub fn share(&self, source: SocketAddr) -> Option<HttpsShare> {
        let share = self.shares.take(Source::of(source.ip()));
        if share.is_none() {
            let detail = Some("on the HTTPS port".to_owned());
            self.record(Attempt::new(source), Failure { refusal: Refusal::Overloaded, detail });
        }
        share.map(|share| HttpsShare { _share: share })
    }

    /// Whether one more refusal of this source is told: so many are in a minute.
    fn is_told(&self, source: SocketAddr) -> bool {
        self.gate.charge(source) == Charge::Taken
    }

    /// Puts a refusal on record. Past so many of this source, it is counted alone.
    fn record(&self, mut attempt: Attempt, failure: Failure) -> FailureId {
        let failure_id = attempt.failure_id();
        attempt.repeated = !self.is_told(attempt.source);
        self.endpoint.refusals().record(attempt.record(failure));
        failure_id
    }
}

/// The other end of an HTTPS connection, as far as it showed who it is.
#[derive(Clone)]
pub struct HttpsPeer {
    endpoint: Endpoint,
    proof: Option<Proof>,
    refusals: Arc<HttpsRefusals>,
    /// The id under which its refusal is on record.
    refused: Arc<OnceLock<FailureId>>,
    /// The address that it dialed.
    pub local: SocketAddr,
    /// Where it is.
    pub remote: SocketAddr,
}

impl HttpsPeer {
    /// The id under which it is on record that this peer is refused; put there when it is first asked for.
    pub fn failure_id(&self, refusal: Refusal) -> FailureId {
        *self.refused.get_or_init(|| {
            let mut attempt = Attempt::new(self.remote);
            attempt.principal = self.proof.as_ref().map(|proof| proof.principal().clone());
            self.refusals.record(attempt, Failure { refusal, detail: Some("on the HTTPS port".to_owned()) })
        })
    }

    /// Whether it is to be told in the log that a request of this peer is refused. A source has so many refusals in a
    /// minute; each question is one.
    pub fn is_told(&self) -> bool {
        self.refusals.is_told(self.remote)
    }

    /// Whether the cluster knows the peer now.
    pub fn is_known(&self) -> bool {
        matches!(self.verified(), Some(Ok(_)))
    }

    /// The peer as judged now: asked for each request, so that an evicted admin's open connection is of no use.
    /// `None` if it showed no certificate.
    pub fn verified(&self) -> Option<Result<VerifiedPeer, Refusal>> {
        let trust = self.endpoint.trust().load();
        self.proof.as_ref().map(|proof| self.endpoint.judge(&trust, proof, Wanted::AnyPrincipal))
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
    /// This node has no certificate yet.
    #[error("this node has no certificate to show")]
    NoCertificate,
    /// Too slow.
    #[error("handshake took too long")]
    Deadline,
}

/// Ends the handshake of an accepted connection. One that fails is on record.
///
/// # Errors
/// [`HttpsError`].
pub async fn accept_https(
    refusals: &Arc<HttpsRefusals>,
    certificate: HttpsCertificate,
    socket: TcpStream,
    remote: SocketAddr,
) -> Result<(HttpsStream, HttpsPeer), HttpsError> {
    let accepted = handshake(refusals, certificate, socket, remote).await;
    if let Err(error) = &accepted {
        let refusal = match error {
            HttpsError::Tls(_) | HttpsError::Io(_) => Refusal::Handshake,
            HttpsError::NoCertificate => Refusal::NotReady,
            HttpsError::Deadline => Refusal::Deadline,
        };
        let Failure { detail, .. } = Failure::of(refusal, error);
        let detail = detail.map(|detail| format!("on the HTTPS port: {detail}"));
        refusals.record(Attempt::new(remote), Failure { refusal, detail });
    }
    accepted
}

async fn handshake(
    refusals: &Arc<HttpsRefusals>,
    certificate: HttpsCertificate,
    socket: TcpStream,
    remote: SocketAddr,
) -> Result<(HttpsStream, HttpsPeer), HttpsError> {
    let endpoint = &refusals.endpoint;
    let local = socket.local_addr().map_err(HttpsError::Io)?;
    let trust = endpoint.trust().load();
    let shown = match certificate {
        HttpsCertificate::Node => trust.credential.clone(),
        HttpsCertificate::Operator(own) => Some(own),
    };
    let resolver = shown.ok_or(HttpsError::NoCertificate)?.resolver();
    let (verifying, judged_by) = (endpoint.clone(), Arc::clone(&trust));
    let verifier = ChainVerifier::optional(move |chain| verifying.chains().verify(&judged_by, chain, Usage::Client));
    let config = server_config_for(&[HTTP], resolver, Some(Arc::clone(&verifier) as _)).map_err(HttpsError::Tls)?;
    let ended = tokio::time::timeout(DEADLINE, TlsAcceptor::from(Arc::new(config)).accept(socket)).await;
    let tls = ended.map_err(|_| HttpsError::Deadline)?.map_err(HttpsError::Io)?;
    let proof = match verifier.take_outcome() {
        Some(Ok(chain)) => Some(chain.proof()),
        Some(Err(_)) | None => None,
    };
    let (refusals, refused) = (Arc::clone(refusals), Arc::default());
    Ok((tls, HttpsPeer { endpoint: endpoint.clone(), proof, refusals, refused, local, remote }))
}

/// A dialed HTTPS connection to a member.
pub type HttpsClientStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Connects to a member's HTTPS port with an admin certificate. The server's certificate must be one for servers under
/// `bundle` and hold the dialed host: a member's own leaf, or the operator's. An authority of ours issues certificates
/// for servers to nodes and brokers alone.
pub async fn dial_https(
    address: &Address,
    bundle: Arc<Bundle>,
    credential: &Credential,
    now: UnixMillis,
) -> Result<HttpsClientStream, DialError> {
    attempt_as_client(address, DEADLINE, async move {
        let host = address.host.clone();
        let verifier = ChainVerifier::new(move |presented| -> Result<ForeignChain, DialCause> {
            let chain = verify_foreign_chain(&bundle, presented, Usage::Server, Some(now));
            let chain = chain.map_err(DialCause::Untrusted)?;
            if holds_host(chain.names(), &host) { Ok(chain) } else { Err(DialCause::Host) }
        });
        let config = client_config_for(HTTP, Some(credential), Arc::clone(&verifier) as _).map_err(DialCause::Tls)?;
        let target = (address.host.to_string(), address.port);
        let socket = TcpStream::connect(target).await.map_err(DialCause::Connect)?;
        let name = sni::host_name(&address.host)?;
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

/// Whether a certificate's names hold the host. A wildcard stands for one whole leftmost label (RFC 6125 §6.4.3); the
/// common name is never looked at.
pub(crate) fn holds_host(names: &CertificateNames, host: &Host) -> bool {
    match host {
        Host::Ip(ip) => names.ips.contains(ip),
        Host::Dns(name) => names.dns.iter().any(|held| match held.strip_prefix("*.") {
            None => held == name.as_str(),
            Some(base) => name.as_str().split_once('.').is_some_and(|(_, rest)| rest == base),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_held_by_its_own_name_alone() {
        let names = CertificateNames {
            uris: vec!["spiffe://td/node/1".to_owned()],
            dns: vec!["n1.example.org".to_owned(), "*.wild.example.org".to_owned()],
            ips: vec!["10.0.0.1".parse().unwrap()],
            common_name: Some("cn.example.org".to_owned()),
        };
        for (host, held) in [
            ("n1.example.org", true),
            ("a.wild.example.org", true),
            ("10.0.0.1", true),
            ("n2.example.org", false),
            ("example.org", false),
            ("a.b.wild.example.org", false),
            ("wild.example.org", false),
            ("cn.example.org", false),
            ("10.0.0.2", false),
        ] {
            assert_eq!(holds_host(&names, &Host::parse(host).unwrap()), held, "{host}");
        }
    }
}
