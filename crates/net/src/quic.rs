//! The same proofs over QUIC (RFC 9000, RFC 9001): one certificate check, one judgement, one first frame.
//!
//! A QUIC port serves one purpose, because quinn cannot choose a configuration by protocol. There is no 0-RTT, and this
//! end sends nothing before the other end is authenticated. `Welcome` comes on the acceptor's first stream.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use countersign_core::peer::{Refusal, VerifiedPeer, Wanted};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connecting, Incoming, VarInt};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
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
use crate::refusal::RefusalRecord;
use crate::registry::{Closed, Closer, Connection, Registration};
use crate::routes::Route;
use crate::stream::ClosedByTrust;
use crate::trust::Trust;

/// What a QUIC port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuicPurpose {
    /// Between members.
    Peer,
    /// Any principal.
    Service,
}

impl QuicPurpose {
    pub(crate) const fn alpn(self) -> Alpn {
        match self {
            Self::Peer => Alpn::Peer,
            Self::Service => Alpn::Service,
        }
    }

    const fn wanted(self) -> Wanted {
        match self {
            Self::Peer => Wanted::AnyNode,
            Self::Service => Wanted::AnyPrincipal,
        }
    }
}

/// A judged QUIC connection, accepted or dialed. Dropping it closes the connection and all its streams.
pub struct QuicConnection {
    connection: quinn::Connection,
    registration: Registration,
    peer: VerifiedPeer,
}

impl QuicConnection {
    pub(crate) const fn new(connection: quinn::Connection, registration: Registration, peer: VerifiedPeer) -> Self {
        Self { connection, registration, peer }
    }

    /// Who is at the other end.
    pub const fn peer(&self) -> &VerifiedPeer {
        &self.peer
    }

    /// Where the other end is now; it may move.
    pub fn remote(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Ends when trust ends the connection, with the reason.
    pub fn closed(&self) -> impl Future<Output = Refusal> + Send + 'static {
        let closed = Arc::clone(self.registration.closed());
        async move { closed.wait().await }
    }

    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.registration.closed().refusal()
    }

    /// Opens a stream; the other end sees it with its first byte.
    pub async fn open(&self) -> io::Result<QuicStream> {
        let streams = self.connection.open_bi().await?;
        Ok(self.stream(streams))
    }

    /// The next stream that the other end opens.
    pub async fn accept(&self) -> io::Result<QuicStream> {
        let streams = self.connection.accept_bi().await?;
        Ok(self.stream(streams))
    }

    fn stream(&self, (send, recv): (quinn::SendStream, quinn::RecvStream)) -> QuicStream {
        QuicStream { send, recv, closed: Arc::clone(self.registration.closed()) }
    }
}

impl Drop for QuicConnection {
    fn drop(&mut self) {
        // Streams alone would keep the connection alive, out of the registry's reach.
        self.connection.close(VarInt::from_u32(0), b"");
    }
}

impl core::fmt::Debug for QuicConnection {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "QuicConnection({} at {})", self.peer.principal(), self.remote())
    }
}

/// One stream of a [`QuicConnection`], both ways.
pub struct QuicStream {
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    closed: Arc<Closed>,
}

impl QuicStream {
    /// Bytes that arrived before the registry closed the connection are not handed out after it.
    fn check(&self) -> io::Result<()> {
        match self.closed.refusal() {
            None => Ok(()),
            Some(refusal) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, ClosedByTrust(refusal))),
        }
    }
}

impl AsyncRead for QuicStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        match AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buf) {
            // The connection may have been closed while this waited.
            Poll::Ready(Err(error)) => Poll::Ready(self.check().and(Err(error))),
            other => other,
        }
    }
}

impl AsyncWrite for QuicStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}

/// Shows the certificate to a ClientHello that offers exactly the one protocol, and keeps what it said.
#[derive(Debug)]
struct OneProtocol {
    alpn: Alpn,
    certified: Arc<CertifiedKey>,
    hello: Mutex<Option<(Option<String>, Result<Alpn, OfferError>)>>,
}

impl ResolvesServerCert for OneProtocol {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offer = Alpn::of_offer(hello.alpn());
        let name = hello.server_name().map(str::to_owned);
        *self.hello.lock().unwrap_or_else(PoisonError::into_inner) = Some((name, offer));
        (offer == Ok(self.alpn)).then(|| Arc::clone(&self.certified))
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
        let trust = endpoint.trust().load();
        let (crypto, ..) = server_crypto(&endpoint, &trust, purpose).ok_or(QuicBindError::NoCredential)?;
        let template = quinn::ServerConfig::with_crypto(crypto.map_err(QuicBindError::Tls)?);
        let quic = quinn::Endpoint::server(template.clone(), address).map_err(QuicBindError::Bind)?;
        let gate = Gate::new(limits.handshakes_in_flight, limits.failures_per_source_minute);
        let shared = Shared { endpoint, purpose, limits, gate, route: Route::new(), template };
        Ok(Self { quic, shared: Arc::new(shared) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// Serves connections from now on, with at most `bound` waiting.
    pub fn connections(&self, bound: usize) -> Receiver<QuicConnection> {
        self.shared.route.serve(bound)
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

type ServerCrypto = (
    Result<Arc<QuicServerConfig>, rustls::Error>,
    Arc<OneProtocol>,
    Arc<
        crate::verifier::ChainVerifier<
            Arc<countersign_pki::verify::VerifiedChain>,
            countersign_pki::verify::ChainError,
        >,
    >,
);

/// The configuration of one handshake; none without a certificate.
fn server_crypto(endpoint: &Endpoint, trust: &Arc<Trust>, purpose: QuicPurpose) -> Option<ServerCrypto> {
    let certified = trust.credential.as_ref()?.certified();
    let one = Arc::new(OneProtocol { alpn: purpose.alpn(), certified, hello: Mutex::new(None) });
    let verifier = client_verifier(endpoint, trust);
    let verifying = Arc::clone(&verifier) as Arc<dyn ClientCertVerifier>;
    let config = server_config(purpose.alpn(), Arc::clone(&one) as Arc<dyn ResolvesServerCert>, Some(verifying));
    let no_suite = |_| rustls::Error::General("no cipher suite for QUIC's first packets".to_owned());
    let crypto = config.and_then(|config| QuicServerConfig::try_from(config).map(Arc::new).map_err(no_suite));
    Some((crypto, one, verifier))
}

/// How long a refused peer may take to fetch the reason.
const LINGER: Duration = Duration::from_secs(1);

impl Shared {
    fn begin(self: &Arc<Self>, incoming: Incoming, handshakes: &mut JoinSet<()>) {
        let source = incoming.remote_address();
        let attempt = Attempt::new(source);
        // A source that has not answered yet may be somebody else's address: it is asked to answer, not charged.
        let validated = incoming.remote_address_validated();
        if !validated && (self.gate.is_half_full() || self.gate.is_exhausted(source)) {
            // Fails only for an address that is validated already.
            let _ = incoming.retry();
            return;
        }
        let refuse = |incoming: Incoming, repeated: bool| {
            incoming.refuse();
            let record = attempt.clone().record(Refusal::Overloaded.into());
            self.endpoint.refusals().record(RefusalRecord { repeated, ..record });
        };
        if validated && let Charge::Refused { repeated } = self.gate.charge(source) {
            return refuse(incoming, repeated);
        }
        match self.gate.place() {
            Some(place) => drop(handshakes.spawn(Arc::clone(self).serve(incoming, attempt, validated, place))),
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
        let source = attempt.source;
        let mut answered = false;
        let accept = self.accept(incoming, &mut attempt, &mut answered);
        let outcome = tokio::time::timeout(self.limits.handshake, accept).await;
        let (failure, told) = match outcome {
            Ok(Ok(())) if charged => return self.gate.refund(source),
            Ok(Ok(())) => return,
            Ok(Err(refused)) => refused,
            Err(_) => (Failure::from(Refusal::Deadline), None),
        };
        if answered && !charged {
            self.gate.charge(source);
        }
        self.endpoint.refusals().record(attempt.record(failure));
        if let Some((connection, mut stream)) = told {
            let _ = tokio::time::timeout(LINGER, stream.stopped()).await;
            connection.close(VarInt::from_u32(0), b"");
        }
    }

    async fn accept(&self, incoming: Incoming, attempt: &mut Attempt, answered: &mut bool) -> Result<(), Refused> {
        let trust = self.endpoint.trust().load();
        let Some((crypto, one, verifier)) = server_crypto(&self.endpoint, &trust, self.purpose) else {
            incoming.refuse();
            return Err((Refusal::NotReady.into(), None));
        };
        let tls_failed = |error: &(dyn core::error::Error + 'static)| (Failure::of(Refusal::Handshake, error), None);
        let mut config = self.template.clone();
        config.crypto = crypto.map_err(|e| tls_failed(&e))?;
        let connecting: Connecting = incoming.accept_with(Arc::new(config)).map_err(|e| tls_failed(&e))?;
        let ended = {
            // Also when the deadline drops this, what the ClientHello said must be on record.
            let _note = Note { one: &one, attempt };
            connecting.await
        };
        let outcome = verifier.take_outcome();
        // Whoever presents a certificate has received our flight: the address is its own.
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
        let evidence = chain.evidence().clone();
        attempt.presented = Some(evidence.parts().principal.clone());
        let (wanted, alpn) = (self.purpose.wanted(), self.purpose.alpn());
        let closer = Closer::Quic(connection.clone());
        let entry = Connection { evidence, wanted, alpn, remote: attempt.source, dialed: false, closer };
        let judged = self.endpoint.admit(entry);
        let reserved = judged.and_then(|judged| self.route.reserve().map(|slot| (slot, judged)));
        match reserved {
            Ok((slot, (registration, peer))) => {
                let frame = FirstFrame::Welcome { generation: peer.generation() };
                let sent = send_frame(&connection, frame).await;
                if let Some(refusal) = registration.closed().refusal() {
                    return Err((refusal.into(), None));
                }
                sent.map_err(|e| tls_failed(&e))?;
                slot.send(QuicConnection::new(connection, registration, peer));
                Ok(())
            }
            Err(refusal) => {
                let frame = FirstFrame::Refused { code: refusal.into(), failure_id: attempt.failure_id };
                let sent = send_frame(&connection, frame).await.ok();
                Err((refusal.into(), sent.map(|stream| (connection, stream))))
            }
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
        self.hello.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, offer)| *offer)
    }
}

/// Writes what the ClientHello said into the attempt when it goes out of scope, by whatever way.
struct Note<'a> {
    one: &'a OneProtocol,
    attempt: &'a mut Attempt,
}

impl Drop for Note<'_> {
    fn drop(&mut self) {
        if let Some((name, offer)) = &*self.one.hello.lock().unwrap_or_else(PoisonError::into_inner) {
            self.attempt.named(name.as_deref());
            self.attempt.alpn = offer.ok();
        }
    }
}
