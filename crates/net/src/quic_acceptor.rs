//! The acceptor of a QUIC port: as the TCP one, with the order that QUIC imposes. A source address that has not
//! answered yet may be forged. Where it would have to be charged, it is asked to answer (Retry, RFC 9000 §8.1.2). So is
//! every source while many fail that never answer: forged packets must not fill the log.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::locked::Locked;
use countersign_core::peer::{Refusal, VerifiedPeer};
use countersign_core::principal::Principal;
use countersign_pki::verify::{ChainError, VerifiedChain};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Incoming, VarInt};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;

use crate::acceptor::AcceptorLimits;
use crate::alpn::{Alpn, OfferError};
use crate::attempt::{Attempt, Failure};
use crate::budget::Charge;
use crate::config::server_config;
use crate::endpoint::Endpoint;
use crate::frame::FirstFrame;
use crate::gate::Gate;
use crate::handshake::client_verifier;
use crate::quic::{self, QuicConnection, QuicPurpose};
use crate::quic_limits::{self, Held};
use crate::refusal::RefusalRecord;
use crate::registry::{Closer, Connection};
use crate::routes::Route;
use crate::share::Shares;
use crate::trust::Trust;
use crate::verifier::ChainVerifier;

/// Shows the certificate to a ClientHello that offers exactly one protocol, and keeps what it said.
#[derive(Debug)]
struct OneProtocol {
    certified: Arc<CertifiedKey>,
    hello: Locked<Option<Said>>,
}

/// What a ClientHello said.
#[derive(Debug)]
struct Said {
    name: Option<String>,
    offer: Result<Alpn, OfferError>,
}

impl ResolvesServerCert for OneProtocol {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offer = Alpn::of_quic_offer(hello.alpn());
        let name = hello.server_name().map(str::to_owned);
        *self.hello.lock() = Some(Said { name, offer });
        // One other protocol is left to the TLS stack, which answers with an alert of its own.
        let one = matches!(offer, Ok(_) | Err(OfferError::Unknown));
        one.then(|| Arc::clone(&self.certified))
    }
}

/// Accepts connections on one QUIC port.
pub struct QuicAcceptor {
    quic: quinn::Endpoint,
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    purpose: QuicPurpose,
    limits: AcceptorLimits,
    gate: Gate,
    route: Route<QuicConnection>,
    template: quinn::ServerConfig,
    held: Arc<Shares<Principal>>,
}

/// The port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum QuicBindError {
    /// No certificate to show yet.
    #[error("this node has no certificate yet")]
    NoCredential,
    /// The TLS stack refuses the configuration.
    #[error("TLS configuration is refused")]
    Tls(#[source] rustls::Error),
    /// The TLS stack lacks the cipher suite of QUIC's first packets (RFC 9001 §5.2).
    #[error("no cipher suite for the first packets")]
    Suite(#[source] quinn::crypto::rustls::NoInitialCipherSuite),
    /// The address cannot be bound.
    #[error("cannot bind the address")]
    Bind(#[source] io::Error),
}

impl QuicAcceptor {
    /// Binds `address` for one purpose. Nothing is accepted before [`QuicAcceptor::run`].
    pub fn bind(
        address: SocketAddr,
        endpoint: Endpoint,
        purpose: QuicPurpose,
        limits: AcceptorLimits,
    ) -> Result<Self, QuicBindError> {
        Self::on(UdpSocket::bind(address).map_err(QuicBindError::Bind)?, endpoint, purpose, limits)
    }

    /// Takes a socket that was bound before there was an endpoint. Nothing is accepted before [`QuicAcceptor::run`].
    ///
    /// # Errors
    /// [`QuicBindError`].
    pub fn on(
        socket: UdpSocket,
        endpoint: Endpoint,
        purpose: QuicPurpose,
        limits: AcceptorLimits,
    ) -> Result<Self, QuicBindError> {
        let trust = endpoint.trust().load();
        // quinn wants a configuration to bind; each handshake brings its own.
        let mut template = quinn::ServerConfig::with_crypto(prepare(&endpoint, &trust, purpose)?.config);
        match purpose {
            QuicPurpose::Client => quic_limits::bound(&mut template),
            QuicPurpose::Peer => {}
        }
        let runtime = Arc::new(quinn::TokioRuntime);
        let quic = quinn::Endpoint::new(only_version_1(), Some(template.clone()), socket, runtime);
        let quic = quic.map_err(QuicBindError::Bind)?;
        let gate = Gate::new(limits.handshakes_in_flight, limits.failures_per_source_minute);
        let held = Shares::new(quic_limits::HELD_MAX);
        let shared = Shared { endpoint, purpose, limits, gate, route: Route::new(), template, held };
        Ok(Self { quic, shared: Arc::new(shared) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// Handshakes under way.
    pub fn handshakes_in_flight(&self) -> usize {
        self.shared.gate.in_flight()
    }

    /// Serves connections from now on, with at most `bound` waiting.
    pub fn connections(&self, bound: usize) -> Receiver<QuicConnection> {
        self.shared.route.serve(bound)
    }

    /// Returns once all connections have ended, and their peers were told.
    pub async fn ended(&self) {
        self.quic.wait_idle().await;
    }

    /// Accepts until dropped.
    pub async fn run(&self) -> Infallible {
        let accept = async {
            let mut handshakes = JoinSet::new();
            loop {
                tokio::select! {
                    incoming = self.quic.accept() => match incoming {
                        Some(incoming) => self.shared.begin(incoming, &mut handshakes),
                        // The port was closed: nothing comes any more.
                        None => core::future::pending().await,
                    },
                    Some(_) = handshakes.join_next() => {}
                }
            }
        };
        tokio::select! {
            never = accept => never,
            never = self.shared.endpoint.expire_connections() => never,
        }
    }
}

/// quinn would also speak the drafts of QUIC, which no page of ours describes.
fn only_version_1() -> quinn::EndpointConfig {
    let mut config = quinn::EndpointConfig::default();
    config.supported_versions(vec![1]);
    config
}

/// The configuration of one handshake, and what it will have learned.
struct Prepared {
    config: Arc<QuicServerConfig>,
    one: Arc<OneProtocol>,
    verifier: Arc<ChainVerifier<Arc<VerifiedChain>, ChainError>>,
}

fn prepare(endpoint: &Endpoint, trust: &Arc<Trust>, purpose: QuicPurpose) -> Result<Prepared, QuicBindError> {
    let certified = trust.credential.as_ref().ok_or(QuicBindError::NoCredential)?.certified();
    let one = Arc::new(OneProtocol { certified, hello: Locked::new(None) });
    let verifier = client_verifier(endpoint, trust);
    let certificate = Arc::clone(&one) as Arc<dyn ResolvesServerCert>;
    let verifying = Arc::clone(&verifier) as Arc<dyn ClientCertVerifier>;
    let config = server_config(purpose.alpn(), certificate, Some(verifying)).map_err(QuicBindError::Tls)?;
    let config = QuicServerConfig::try_from(config).map_err(QuicBindError::Suite)?;
    Ok(Prepared { config: Arc::new(config), one, verifier })
}

/// How long a refused peer may take to fetch the reason.
const LINGER: Duration = Duration::from_secs(1);

impl Shared {
    fn begin(self: &Arc<Self>, incoming: Incoming, handshakes: &mut JoinSet<()>) {
        let source = incoming.remote_address();
        let attempt = Attempt::new(source);
        // A source address that has not answered yet may be forged: it is asked to answer, not charged.
        let validated = incoming.remote_address_validated();
        if !validated && (self.gate.is_half_full() || self.gate.is_exhausted(source) || self.gate.is_deceived()) {
            // Fails only for an address that is validated already.
            let _ = incoming.retry();
            return;
        }
        let refuse = |incoming: Incoming, repeated: bool| {
            incoming.refuse();
            let record = attempt.clone().record(Refusal::Overloaded.into());
            self.endpoint.refusals().record(RefusalRecord { repeated, ..record });
        };
        let charged = match validated.then(|| self.gate.charge(source)) {
            Some(Charge::Refused { repeated }) => return refuse(incoming, repeated),
            charge => charge == Some(Charge::Taken),
        };
        match self.gate.place() {
            Some(place) => drop(handshakes.spawn(Box::pin(Arc::clone(self).serve(incoming, attempt, charged, place)))),
            None => refuse(incoming, false),
        }
    }

    async fn serve(
        self: Arc<Self>,
        incoming: Incoming,
        mut attempt: Attempt,
        charged: bool,
        _place: OwnedSemaphorePermit,
    ) {
        let (source, validated) = (attempt.source, incoming.remote_address_validated());
        let mut answered = false;
        let outcome = {
            let accept = pin!(self.accept(incoming, &mut attempt, &mut answered));
            tokio::time::timeout(self.limits.handshake, accept).await
        };
        let (failure, told) = match outcome {
            Ok(Ok(())) if charged => return self.gate.refund(source),
            Ok(Ok(())) => return,
            Ok(Err(refused)) => refused,
            Err(_) => (Failure::from(Refusal::Deadline), None),
        };
        if !validated {
            if answered {
                self.gate.charge(source);
            } else {
                self.gate.charge_unanswered();
            }
        }
        self.endpoint.refusals().record(attempt.record(failure));
        if let Some((connection, stream)) = told {
            let _ = tokio::time::timeout(LINGER, stream.stopped()).await;
            connection.close(VarInt::from_u32(0), b"");
        }
    }

    async fn accept(&self, incoming: Incoming, attempt: &mut Attempt, answered: &mut bool) -> Result<(), Refused> {
        let trust = self.endpoint.trust().load();
        let tls_failed = |error: &(dyn core::error::Error + 'static)| (Failure::of(Refusal::Handshake, error), None);
        let Prepared { config, one, verifier } = match prepare(&self.endpoint, &trust, self.purpose) {
            Ok(prepared) => prepared,
            Err(error) => {
                incoming.refuse();
                return Err((Failure::of(Refusal::NotReady, &error), None));
            }
        };
        let mut own = self.template.clone();
        own.crypto = config;
        let held = Held::default();
        match self.purpose {
            QuicPurpose::Client => _ = own.transport_config(quic_limits::transport(&held)),
            QuicPurpose::Peer => {}
        }
        let connecting = incoming.accept_with(Arc::new(own)).map_err(|e| tls_failed(&e))?;
        let ended = {
            // Also when the deadline drops this, what the ClientHello said must be on record.
            let _note = Note { one: &one, attempt, purpose: self.purpose };
            connecting.await
        };
        let outcome = verifier.take_outcome();
        // A client that presents a certificate has received our flight: the address is its own.
        *answered = outcome.is_some();
        let (connection, chain) = match (ended, outcome) {
            (Ok(connection), Some(Ok(chain))) => (connection, chain),
            (_, Some(Err(error))) => return Err(tls_failed(&error)),
            (Err(error), _) => {
                return Err(match one.offer() {
                    Some(Err(offer)) => (Failure::of(Refusal::Protocol, &offer), None),
                    Some(Ok(alpn)) if alpn != self.purpose.alpn() => (Refusal::Protocol.into(), None),
                    _ => tls_failed(&error),
                });
            }
            (Ok(_), None) => return Err((Refusal::Handshake.into(), None)),
        };
        let proof = chain.proof();
        attempt.principal = Some(proof.principal().clone());
        let (wanted, alpn) = (self.purpose.wanted(), self.purpose.alpn());
        let closer = Closer::Quic(connection.clone());
        let entry = Connection { proof, wanted, alpn, remote: attempt.source, dialed: false, closer };
        let judged = self.endpoint.admit(entry).and_then(|judged| self.hold(&held, &judged.1).map(|()| judged));
        let reserved = judged.and_then(|judged| self.route.reserve().map(|slot| (slot, judged)));
        match reserved {
            Ok((slot, (registration, peer))) => {
                let sent = if self.purpose.has_first_frame() {
                    let frame = FirstFrame::Welcome { generation: peer.generation() };
                    send_frame(&connection, frame).await.map(drop)
                } else {
                    Ok(())
                };
                if let Some(refusal) = registration.closed().refusal() {
                    return Err((refusal.into(), None));
                }
                sent.map_err(|e| tls_failed(&e))?;
                match self.purpose {
                    QuicPurpose::Client => quic_limits::open(&connection),
                    QuicPurpose::Peer => {}
                }
                slot.send(QuicConnection::new(connection, registration, peer));
                Ok(())
            }
            Err(refusal) if !self.purpose.has_first_frame() => {
                quic::close(&connection, refusal, Some(attempt.failure_id()));
                Err((refusal.into(), None))
            }
            Err(refusal) => {
                let frame = FirstFrame::Refused { code: refusal.into(), failure_id: attempt.failure_id() };
                let sent = send_frame(&connection, frame).await.ok();
                Err((refusal.into(), sent.map(|stream| (connection, stream))))
            }
        }
    }
}

impl Shared {
    /// Counts a client's connection for as long as quinn holds it, which is longer than it is open.
    fn hold(&self, held: &Held, peer: &VerifiedPeer) -> Result<(), Refusal> {
        match self.purpose {
            QuicPurpose::Peer => Ok(()),
            QuicPurpose::Client => held.by(&self.held, peer.principal()).ok_or(Refusal::Connections),
        }
    }
}

type Refused = (Failure, Option<(quinn::Connection, quinn::SendStream)>);

async fn send_frame(connection: &quinn::Connection, frame: FirstFrame) -> io::Result<quinn::SendStream> {
    let mut stream = connection.open_uni().await?;
    stream.write_all(&frame.encode()).await?;
    stream.finish()?;
    Ok(stream)
}

impl OneProtocol {
    fn offer(&self) -> Option<Result<Alpn, OfferError>> {
        self.hello.lock().as_ref().map(|said| said.offer)
    }
}

/// Writes what the ClientHello said into the attempt when it goes out of scope, by whatever way.
struct Note<'a> {
    one: &'a OneProtocol,
    attempt: &'a mut Attempt,
    purpose: QuicPurpose,
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        if let Some(Said { name, offer }) = &*self.one.hello.lock() {
            match self.purpose {
                QuicPurpose::Peer => self.attempt.named(name.as_deref()),
                // As on the client port's TCP: a caller does not choose the id under which a record is found.
                QuicPurpose::Client => {}
            }
            self.attempt.alpn = offer.ok();
        }
    }
}
