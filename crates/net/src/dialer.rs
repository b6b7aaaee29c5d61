//! A member's dialer: it knows the peer that it dials, shows its own certificate, and is connected only after
//! `Welcome`.
//!
//! The other end is judged three times: within the handshake, before this end has shown its certificate; again when the
//! handshake has ended and the connection is registered; and from then on whenever trust changes. There is no fallback
//! to anything weaker.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::{FailureId, NodeId};
use countersign_core::limits::{HANDSHAKE_MILLIS_MAX, PREAUTH_BYTES_MAX};
use countersign_core::name::{Address, Host};
use countersign_core::peer::{VerifiedPeer, Wanted};
use countersign_core::principal::Role;
use countersign_pki::verify::{Usage, VerifiedChain};
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::alpn::{Alpn, HttpVersion};
use crate::config::client_config_for;
use crate::counted::Counted;
use crate::credential::Credential;
use crate::dial_error::{DialCause, DialError, Foreign};
use crate::endpoint::Endpoint;
use crate::frame::{FRAME_LEN, FirstFrame};
use crate::registry::{Closer, Connection, Registration};
use crate::session::Session;
use crate::sni;
use crate::stream::{ClientStream, PeerStream};
use crate::trust::Trust;
use crate::verifier::ChainVerifier;

/// The server that a member expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// This member.
    Node(NodeId),
    /// Any member or broker whose certificate holds the dialed host.
    Host,
}

/// A welcomed session, its place in the registry, the peer, and where the peer is.
type Dialed = (Box<dyn Session>, Registration, VerifiedPeer, SocketAddr);

/// Dials as a member.
#[derive(Clone)]
pub struct Dialer {
    endpoint: Endpoint,
    deadline: Duration,
}

impl Dialer {
    /// Dials with the trust and the credential of `endpoint`.
    pub const fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, deadline: DEADLINE }
    }

    /// With another limit on the time from dialing to `Welcome`.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Connects to the member `node` under the peer protocol; also if its certificate has expired, which the scope of
    /// the stream's peer says.
    pub async fn dial_peer(&self, address: &Address, node: NodeId) -> Result<PeerStream, DialError> {
        let connect = |failure_id| {
            let expected = Expected::Node(node);
            let name = expected.name(failure_id, &self.endpoint.trust().load());
            self.connect(address, Alpn::Peer, expected, name)
        };
        let (session, registration, peer, remote) = attempt(address, self.deadline, connect).await?;
        Ok(PeerStream::new(session, registration, peer, remote))
    }

    /// Connects to the client port of a member or broker, to speak HTTP/2 there. A server with an expired certificate
    /// is refused here. A server that refuses this member says so as the answer to the first request.
    pub async fn dial_client_port(&self, address: &Address, expected: Expected) -> Result<ClientStream, DialError> {
        let connecting = async {
            let name = sni::host_name(&address.host)?;
            self.connect(address, Alpn::Client, expected, name).await
        };
        let (session, registration, peer, remote) = attempt_as_client(address, self.deadline, connecting).await?;
        Ok(ClientStream::new(session, registration, peer, remote))
    }

    async fn connect(
        &self,
        address: &Address,
        alpn: Alpn,
        expected: Expected,
        name: ServerName<'static>,
    ) -> Result<Dialed, DialCause> {
        let trust = self.endpoint.trust().load();
        let credential = trust.credential.clone().ok_or(DialCause::NoCredential)?;
        let wanted = expected.wanted();
        let verifier = server_verifier(&self.endpoint, &trust, expected, &address.host);
        let Handshaken { tls, verified, remote } = handshake(address, alpn, Some(&credential), &verifier, name).await?;
        let closer = SockRef::from(tls.get_ref().0.socket()).try_clone().map_err(DialCause::Closed)?;
        let proof = verified.proof();
        let connection = Connection { proof, wanted, alpn, remote, dialed: true, closer: Closer::Tcp(closer) };
        let (registration, peer) = self.endpoint.admit(connection).map_err(DialCause::Judged)?;
        let session = welcomed(alpn, tls).await?;
        match registration.closed().refusal() {
            None => Ok((session, registration, peer, remote)),
            Some(refusal) => Err(DialCause::Judged(refusal)),
        }
    }
}

impl Expected {
    /// The server name that carries the id of an attempt.
    pub(crate) fn name(self, failure_id: FailureId, trust: &Trust) -> ServerName<'static> {
        let domain = &trust.view.trust_domain;
        match self {
            Self::Node(node) => sni::server_name(failure_id, &node.to_string(), domain),
            Self::Host => sni::server_name(failure_id, "service", domain),
        }
    }

    pub(crate) const fn wanted(self) -> Wanted {
        match self {
            Self::Node(node) => Wanted::Node(node),
            Self::Host => Wanted::AnyPrincipal,
        }
    }
}

/// Verifies a server's chain and judges it, within the handshake.
pub(crate) fn server_verifier(
    endpoint: &Endpoint,
    trust: &Arc<Trust>,
    expected: Expected,
    host: &Host,
) -> Arc<ChainVerifier<Arc<VerifiedChain>, DialCause>> {
    let (endpoint, trust, host) = (endpoint.clone(), Arc::clone(trust), host.clone());
    ChainVerifier::new(move |presented| {
        let chain = endpoint.chains().verify(&trust, presented, Usage::Server).map_err(DialCause::Untrusted)?;
        endpoint.judge(&trust, &chain.proof(), expected.wanted()).map_err(DialCause::Judged)?;
        if expected == Expected::Host && !serves_host(&chain, &host) {
            return Err(DialCause::Host);
        }
        Ok(chain)
    })
}

/// Only nodes and brokers serve, and only at the hosts that their certificates hold.
pub(crate) fn serves_host(chain: &VerifiedChain, host: &Host) -> bool {
    let serves = matches!(chain.claims().principal.role, Role::Node(_) | Role::Broker(_));
    serves && chain.hosts().contains(host)
}

/// From dialing to `Welcome`.
pub(crate) const DEADLINE: Duration = Duration::from_millis(HANDSHAKE_MILLIS_MAX);

/// Runs one attempt under one id and one deadline.
pub(crate) async fn attempt<T, F: Future<Output = Result<T, DialCause>>>(
    address: &Address,
    deadline: Duration,
    connect: impl FnOnce(FailureId) -> F,
) -> Result<T, DialError> {
    let failure_id = sni::draw();
    let outcome = within(deadline, pin!(connect(failure_id))).await;
    outcome.map_err(|cause| DialError { address: address.clone(), failure_id: Some(failure_id), cause })
}

/// Runs one attempt at a client port under one deadline. The other end takes no id from a client.
pub(crate) async fn attempt_as_client<T>(
    address: &Address,
    deadline: Duration,
    connecting: impl Future<Output = Result<T, DialCause>>,
) -> Result<T, DialError> {
    let outcome = within(deadline, pin!(connecting)).await;
    outcome.map_err(|cause| DialError { address: address.clone(), failure_id: None, cause })
}

async fn within<T>(deadline: Duration, connecting: impl Future<Output = Result<T, DialCause>>) -> Result<T, DialCause> {
    let millis = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    tokio::time::timeout(deadline, connecting).await.unwrap_or(Err(DialCause::Deadline { millis }))
}

/// A TLS handshake that has ended well, under the protocol that was asked for.
pub(crate) struct Handshaken<T> {
    pub(crate) tls: TlsStream<Counted>,
    pub(crate) verified: T,
    pub(crate) remote: SocketAddr,
}

/// Connects and ends the TLS handshake. What `verifier` found is the proof that it asked for.
pub(crate) async fn handshake<T: Send + 'static>(
    address: &Address,
    alpn: Alpn,
    credential: Option<&Credential>,
    verifier: &Arc<ChainVerifier<T, DialCause>>,
    name: ServerName<'static>,
) -> Result<Handshaken<T>, DialCause> {
    let verifying = Arc::clone(verifier) as Arc<dyn ServerCertVerifier>;
    let protocol = over_tcp(alpn);
    let config = client_config_for(protocol, credential, verifying).map_err(DialCause::Tls)?;
    let (socket, remote) = open(address).await.map_err(DialCause::Connect)?;
    let socket = Counted::new(socket, PREAUTH_BYTES_MAX);
    let ended = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
    let (tls, verified) = match (ended, verifier.take_outcome()) {
        (Ok(tls), Some(Ok(verified))) => (tls, verified),
        (_, Some(Err(cause))) => return Err(cause),
        (Err(error), _) => return Err(DialCause::of_io(error)),
        // A handshake that ended without asking the verifier: rustls promises that there is none.
        (Ok(_), None) => return Err(DialCause::NotCountersign(Foreign::Protocol)),
    };
    if tls.get_ref().1.alpn_protocol() != Some(protocol) {
        return Err(DialCause::NotCountersign(Foreign::Protocol));
    }
    Ok(Handshaken { tls, verified, remote })
}

/// The protocol that is offered for this purpose.
const fn over_tcp(alpn: Alpn) -> &'static [u8] {
    match alpn {
        Alpn::Enroll | Alpn::Peer => alpn.id(),
        Alpn::Client => HttpVersion::Http2.id(),
    }
}

async fn open(address: &Address) -> std::io::Result<(TcpStream, SocketAddr)> {
    let (socket, remote) = match &address.host {
        Host::Ip(ip) => {
            let remote = SocketAddr::new(*ip, address.port);
            (TcpStream::connect(remote).await?, remote)
        }
        Host::Dns(name) => {
            let socket = TcpStream::connect((name.as_str(), address.port)).await?;
            let remote = socket.peer_addr()?;
            (socket, remote)
        }
    };
    // Requests are small; waiting to fill a segment costs 40 ms each.
    socket.set_nodelay(true)?;
    Ok((socket, remote))
}

/// The session of a connection that both ends agree on. On a client port no first frame says so.
pub(crate) async fn welcomed(alpn: Alpn, tls: TlsStream<Counted>) -> Result<Box<dyn Session>, DialCause> {
    match alpn {
        Alpn::Enroll | Alpn::Peer => read_welcome(tls).await,
        Alpn::Client => Ok(unwelcomed(tls)),
    }
}

/// The session of a client. From now on the acceptor may send as much as it likes.
fn unwelcomed(mut tls: TlsStream<Counted>) -> Box<dyn Session> {
    tls.get_mut().0.lift();
    Box::new(tls)
}

/// Reads the acceptor's first frame. Before it nothing is sent; from then on the acceptor may send as much as it likes.
pub(crate) async fn read_welcome(mut tls: TlsStream<Counted>) -> Result<Box<dyn Session>, DialCause> {
    let mut frame = [0; FRAME_LEN];
    tls.read_exact(&mut frame).await.map_err(DialCause::of_io)?;
    accept_frame(&frame)?;
    tls.get_mut().0.lift();
    Ok(Box::new(tls))
}

pub(crate) fn accept_frame(frame: &[u8; FRAME_LEN]) -> Result<(), DialCause> {
    match FirstFrame::decode(frame) {
        Ok(FirstFrame::Welcome { .. }) => Ok(()),
        Ok(FirstFrame::Refused { code, .. }) => Err(DialCause::Refused { code }),
        Err(error) => Err(DialCause::NotCountersign(Foreign::FirstFrame(error))),
    }
}
