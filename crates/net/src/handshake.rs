//! The acceptor's side of a handshake, step by step: [`Hello`] → [`Proven`] → [`Judged`] → handed over, or [`Hello`] →
//! [`Anonymous`] → handed over. Each step consumes the one before it, so none can be left out.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::Generation;
use countersign_core::peer::{Refusal, VerifiedPeer};
use countersign_core::principal::Principal;
use countersign_pki::verify::{ChainError, Usage, VerifiedChain};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{Acceptor, ResolvesServerCert};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::OwnedPermit;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::alpn::{Alpn, HttpVersion, OfferError};
use crate::attempt::{Attempt, Failure};
use crate::config::{server_config, server_config_for};
use crate::counted::Counted;
use crate::endpoint::Endpoint;
use crate::frame::FirstFrame;
use crate::registry::{Closer, Connection, Registration};
use crate::routes::Route;
use crate::session::{ENROLL_EXPORTER, Session};
use crate::stream::{ClientStream, SponsorProof};
use crate::trust::Trust;
use crate::verifier::ChainVerifier;

/// TLS alerts (RFC 8446 §6) that are sent before a configuration is chosen.
const NO_APPLICATION_PROTOCOL: u8 = 120;
const INTERNAL_ERROR: u8 = 80;

/// How long a refused peer may take to fetch the reason.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// The port that a ClientHello came to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Port {
    /// Exactly one protocol of ours.
    Cluster,
    /// HTTP.
    Client,
}

/// A refused handshake: why, and the connection on which the reason may still be under way.
pub(crate) struct Refused {
    pub(crate) failure: Failure,
    pub(crate) socket: Option<Counted>,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self { failure, socket: None }
    }
}

/// Waits until the refused peer has hung up. A socket closed with unread bytes in it is reset, and the reason is lost
/// with it (RFC 9293 §3.10.4); so what still comes is read, within the count, and dropped.
pub(crate) async fn linger(mut socket: Counted) {
    let _ = socket.shutdown().await;
    let mut dropped = [0; 1024];
    while matches!(socket.read(&mut dropped).await, Ok(1..)) {}
}

/// A ClientHello that asks for what its port speaks.
pub(crate) struct Hello {
    start: StartHandshake<Counted>,
    alpn: Alpn,
}

impl Hello {
    pub(crate) async fn read(socket: Counted, attempt: &mut Attempt, port: Port) -> Result<Self, Refused> {
        let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), socket);
        let start = match (&mut acceptor).await {
            Ok(start) => start,
            Err(error) => {
                let failure = Failure::of(Refusal::Handshake, &error);
                return Err(Refused { failure, socket: acceptor.take_io() });
            }
        };
        let hello = start.client_hello();
        match port {
            Port::Cluster => attempt.named(hello.server_name()),
            // Stock clients name the host; a caller does not choose the id under which a record is found.
            Port::Client => {}
        }
        let alpn: Result<Alpn, OfferError> = match port {
            Port::Cluster => Alpn::of_offer(hello.alpn()),
            Port::Client => HttpVersion::check_offer(hello.alpn()).map(|()| Alpn::Client),
        };
        match alpn {
            Ok(alpn) => {
                attempt.alpn = Some(alpn);
                Ok(Self { start, alpn })
            }
            Err(error) => {
                let failure = Failure::of(Refusal::Protocol, &error);
                Err(send_alert(start.io, NO_APPLICATION_PROTOCOL, failure).await)
            }
        }
    }

    pub(crate) const fn alpn(&self) -> Alpn {
        self.alpn
    }

    /// Ends the attempt before this end has shown a certificate.
    pub(crate) async fn refuse(self, refusal: Refusal) -> Refused {
        send_alert(self.start.io, INTERNAL_ERROR, refusal.into()).await
    }

    /// Ends the handshake with a client certificate: its chain is verified and its key was used.
    pub(crate) async fn authenticate(self, endpoint: &Endpoint) -> Result<Proven, Refused> {
        let (trust, alpn) = (endpoint.trust().load(), self.alpn);
        let verifier = client_verifier(endpoint, &trust);
        let ended = self.finish(&trust, Some(Arc::clone(&verifier) as Arc<dyn ClientCertVerifier>)).await;
        match (ended, verifier.take_outcome()) {
            (Ok(tls), Some(Ok(chain))) => Ok(Proven { tls, chain, alpn }),
            (Err(Refused { socket, .. }), Some(Err(error))) => {
                Err(Refused { failure: Failure::of(Refusal::Handshake, &error), socket })
            }
            (Err(refused), _) => Err(refused),
            // A handshake that ended without asking the verifier: rustls promises that there is none.
            (Ok(_), None | Some(Err(_))) => Err(Failure::from(Refusal::Handshake).into()),
        }
    }

    /// Ends the handshake without a client certificate: only this end proves itself.
    pub(crate) async fn prove(self, endpoint: &Endpoint) -> Result<Anonymous, Refused> {
        let trust = endpoint.trust().load();
        let tls = self.finish(&trust, None).await?;
        let exporter = tls.channel_binding(ENROLL_EXPORTER);
        let exporter = exporter.map_err(|e| Failure::of(Refusal::Handshake, &e))?;
        let leaf = trust.credential.as_ref().and_then(|c| c.leaf_digest()).unwrap_or_default();
        Ok(Anonymous { tls, proof: SponsorProof { exporter, leaf } })
    }

    async fn finish(
        self,
        trust: &Trust,
        verifier: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<TlsStream<Counted>, Refused> {
        let Self { start, alpn } = self;
        let Some(credential) = &trust.credential else {
            return Err(send_alert(start.io, INTERNAL_ERROR, Refusal::NotReady.into()).await);
        };
        let certificate: Arc<dyn ResolvesServerCert> = credential.resolver();
        let config = match alpn {
            Alpn::Enroll | Alpn::Peer => server_config(alpn, certificate, verifier),
            Alpn::Client => server_config_for(&HttpVersion::ALL.map(HttpVersion::id), certificate, verifier),
        };
        let config = config.map_err(|e| Failure::of(Refusal::Handshake, &e))?;
        let ended = start.into_stream(Arc::new(config)).into_fallible().await;
        let tls = ended.map_err(|(error, socket)| Refused {
            failure: Failure::of(Refusal::Handshake, &error),
            socket: Some(socket),
        })?;
        let agreed = tls.get_ref().1.alpn_protocol();
        let is_ours = match alpn {
            Alpn::Enroll | Alpn::Peer => agreed == Some(alpn.id()),
            Alpn::Client => HttpVersion::of_agreed(agreed).is_some(),
        };
        if is_ours { Ok(tls) } else { Err(Failure::from(Refusal::Protocol).into()) }
    }
}

/// Verifies a client's chain under one trust, whatever is published meanwhile.
pub(crate) fn client_verifier(
    endpoint: &Endpoint,
    trust: &Arc<Trust>,
) -> Arc<ChainVerifier<Arc<VerifiedChain>, ChainError>> {
    let (endpoint, trust) = (endpoint.clone(), Arc::clone(trust));
    ChainVerifier::new(move |chain| endpoint.chains().verify(&trust, chain, Usage::Client))
}

/// A plaintext alert, sent while no key has been agreed on.
async fn send_alert(mut socket: Counted, description: u8, failure: Failure) -> Refused {
    // Content type alert, legacy version 1.2, two bytes: fatal, description (RFC 8446 §5.1, §6).
    let _ = socket.write_all(&[21, 3, 3, 0, 2, 2, description]).await;
    Refused { failure, socket: Some(socket) }
}

/// The other end holds the key of a chain that leads to our authorities. Whether it belongs here is not known yet.
pub(crate) struct Proven {
    tls: TlsStream<Counted>,
    chain: Arc<VerifiedChain>,
    alpn: Alpn,
}

impl Proven {
    /// What was agreed on, on the client port.
    pub(crate) fn http(&self) -> HttpVersion {
        HttpVersion::of_agreed(self.tls.get_ref().1.alpn_protocol()).unwrap_or(HttpVersion::Http1)
    }

    /// Judges the peer, and tells it why if it is refused.
    pub(crate) async fn judge(self, endpoint: &Endpoint, attempt: &mut Attempt) -> Result<Judged, Refused> {
        match self.admit(endpoint, attempt) {
            Ok(judged) => Ok(judged),
            Err(Unfit { tls, refusal, .. }) => Err(refuse(*tls, refusal, attempt).await),
        }
    }

    /// Judges the peer. A refused one was told nothing yet.
    pub(crate) fn admit(self, endpoint: &Endpoint, attempt: &mut Attempt) -> Result<Judged, Unfit> {
        let Self { tls, chain, alpn } = self;
        let proof = chain.proof();
        let principal = proof.principal().clone();
        attempt.principal = Some(principal.clone());
        let unfit = |tls, refusal| Unfit { tls: Box::new(tls), principal, refusal };
        let Some(wanted) = alpn.wanted() else { return Err(unfit(tls, Refusal::Protocol)) };
        let Ok(socket) = SockRef::from(tls.get_ref().0.socket()).try_clone() else {
            // Out of descriptors.
            return Err(unfit(tls, Refusal::Overloaded));
        };
        let closer = Closer::Tcp(socket);
        let connection = Connection { proof, wanted, alpn, remote: attempt.source, dialed: false, closer };
        match endpoint.admit(connection) {
            Ok((registration, peer)) => Ok(Judged { tls, registration, peer }),
            Err(refusal) => Err(unfit(tls, refusal)),
        }
    }
}

/// A peer that proved to hold its key and is refused, on a connection that still works.
pub(crate) struct Unfit {
    pub(crate) tls: Box<TlsStream<Counted>>,
    pub(crate) principal: Principal,
    pub(crate) refusal: Refusal,
}

/// Registered, judged, not welcomed yet.
pub(crate) struct Judged {
    tls: TlsStream<Counted>,
    registration: Registration,
    peer: VerifiedPeer,
}

impl Judged {
    /// Hands the connection over as it is: on the client port nothing is said first. From then on the other end may
    /// send as much as it likes.
    pub(crate) fn into_client(self, attempt: &Attempt) -> ClientStream {
        let Self { mut tls, registration, peer } = self;
        tls.get_mut().0.lift();
        ClientStream::new(Box::new(tls), registration, peer, attempt.source)
    }

    pub(crate) async fn hand_over<S>(
        self,
        route: &Route<S>,
        attempt: &mut Attempt,
        stream: impl FnOnce(Box<dyn Session>, Registration, VerifiedPeer, core::net::SocketAddr) -> S,
    ) -> Result<(), Refused> {
        let Self { tls, registration, peer } = self;
        let (slot, tls) = reserve(route, tls, attempt).await?;
        let welcomed = welcome(tls, peer.generation()).await;
        // Trust may have changed since the judgement; then the registry has closed the connection.
        if let Some(refusal) = registration.closed().refusal() {
            return Err(Failure::from(refusal).into());
        }
        slot.send(stream(welcomed?, registration, peer, attempt.source));
        Ok(())
    }
}

/// A caller without a certificate, to which this end has proven itself.
pub(crate) struct Anonymous {
    tls: TlsStream<Counted>,
    proof: SponsorProof,
}

impl Anonymous {
    pub(crate) async fn reserve<S>(
        self,
        route: &Route<S>,
        attempt: &mut Attempt,
    ) -> Result<(OwnedPermit<S>, Self), Refused> {
        let (slot, tls) = reserve(route, self.tls, attempt).await?;
        Ok((slot, Self { tls, ..self }))
    }

    /// The generation is told to members only.
    pub(crate) async fn welcome(self) -> Result<(Box<dyn Session>, SponsorProof), Refused> {
        Ok((welcome(self.tls, Generation(0)).await?, self.proof))
    }
}

async fn reserve<S>(
    route: &Route<S>,
    tls: TlsStream<Counted>,
    attempt: &mut Attempt,
) -> Result<(OwnedPermit<S>, TlsStream<Counted>), Refused> {
    match route.reserve() {
        Ok(slot) => Ok((slot, tls)),
        Err(refusal) => Err(refuse(tls, refusal, attempt).await),
    }
}

/// Says welcome. From then on the other end may send as much as it likes.
async fn welcome(mut tls: TlsStream<Counted>, generation: Generation) -> Result<Box<dyn Session>, Refused> {
    let frame = FirstFrame::Welcome { generation }.encode();
    let sent = async {
        tls.write_all(&frame).await?;
        tls.flush().await
    };
    match sent.await {
        Ok(()) => {
            tls.get_mut().0.lift();
            Ok(Box::new(tls))
        }
        Err(error) => Err(Failure::of(Refusal::Handshake, &error).into()),
    }
}

/// Tells the other end why, under the id that this end logs.
async fn refuse(mut tls: TlsStream<Counted>, refusal: Refusal, attempt: &mut Attempt) -> Refused {
    let frame = FirstFrame::Refused { code: refusal.into(), failure_id: attempt.failure_id() }.encode();
    // Whether it arrives or not, the attempt is over.
    let _ = tls.write_all(&frame).await;
    let _ = tls.shutdown().await;
    let (socket, _) = tls.into_inner();
    Refused { failure: refusal.into(), socket: Some(socket) }
}
