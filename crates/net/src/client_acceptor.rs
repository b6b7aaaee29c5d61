//! The acceptor of the client port: mutual TLS 1.3 for any principal, and HTTP/2 or HTTP/1.1 inside, as every stock
//! client speaks them.
//!
//! There is no first frame. A caller that the cluster refuses learns so by the answer to its first request. So its
//! connection is handed over, too, as a [`RefusedStream`]: bounded in bytes and time, and of no use but for that
//! answer.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use countersign_core::id::FailureId;
use countersign_core::peer::Refusal;
use countersign_core::principal::Principal;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Receiver;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Sleep;

use crate::acceptor::{AcceptorLimits, pause_after};
use crate::alpn::HttpVersion;
use crate::attempt::{Attempt, Failure};
use crate::budget::Source;
use crate::counted::Counted;
use crate::endpoint::Endpoint;
use crate::gate::Gate;
use crate::handshake::{Hello, LINGER, Port, Refused, Unfit, linger};
use crate::routes::Route;
use crate::session::Session;
use crate::share::{Share, Shares};
use crate::stream::ClientStream;

/// Silence after which the kernel asks whether the caller is still there, and how often it asks again.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMES: u32 = 4;
/// How long what was sent may stay unacknowledged, as from a caller that reads no more: keepalive asks nothing then.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);

/// An accepted connection of a caller that holds the key of a certificate under the cluster's authorities.
#[derive(Debug)]
pub enum ClientConnection {
    /// The cluster knows the caller.
    Accepted {
        /// Its bytes, until trust ends them.
        stream: ClientStream,
        /// What is spoken.
        http: HttpVersion,
        /// The address that the caller dialed.
        local: SocketAddr,
    },
    /// The cluster refuses the caller. Its first request is answered with the reason.
    Refused {
        /// Its bytes, few and not for long.
        stream: RefusedStream,
        /// What is spoken.
        http: HttpVersion,
        /// Whose certificate it has.
        principal: Principal,
        /// Why it is refused.
        refusal: Refusal,
        /// The refusal's number in this member's log.
        failure_id: FailureId,
    },
}

/// Accepts callers on one TCP port.
pub struct ClientAcceptor {
    listener: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    limits: AcceptorLimits,
    route: Route<ClientConnection>,
    gate: Gate,
    /// Places of refused callers.
    refused: Arc<Semaphore>,
    refused_of_source: Arc<Shares<Source>>,
}

impl ClientAcceptor {
    /// Listens on a socket that was bound before there was an endpoint. Nothing is accepted before
    /// [`ClientAcceptor::run`].
    pub fn on(listener: TcpListener, endpoint: Endpoint, limits: AcceptorLimits) -> Self {
        let gate = Gate::new(limits.handshakes_in_flight, limits.failures_per_source_minute);
        let refused = Arc::new(Semaphore::new(limits.refused_in_flight));
        let refused_of_source = Shares::new(limits.refused_per_source);
        let shared = Shared { endpoint, limits, route: Route::new(), gate, refused, refused_of_source };
        Self { listener, shared: Arc::new(shared) }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Handshakes under way, and callers that are about to be cut.
    pub fn handshakes_in_flight(&self) -> usize {
        self.shared.gate.in_flight()
    }

    /// Serves callers from now on, with at most `bound` connections waiting.
    pub fn connections(&self, bound: usize) -> Receiver<ClientConnection> {
        self.shared.route.serve(bound)
    }

    /// Accepts until dropped; handshakes under way end with it, connections handed over do not.
    pub async fn run(&self) -> Infallible {
        let accept = async {
            let mut handshakes = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = self.listener.accept() => match accepted {
                        Ok((socket, source)) => self.shared.begin(socket, source, &mut handshakes),
                        Err(error) => pause_after(&error).await,
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

impl Shared {
    /// Charges the source and takes a place, or refuses before any byte is read.
    fn begin(self: &Arc<Self>, socket: TcpStream, source: SocketAddr, handshakes: &mut JoinSet<()>) {
        let mut attempt = Attempt::new(source);
        if let Some((charged, place)) = self.gate.enter(&attempt, self.endpoint.refusals()) {
            attempt.repeated = !charged;
            // Boxed: the runtime moves a task about until it runs, and this one has kilobytes.
            handshakes.spawn(Box::pin(Arc::clone(self).serve(socket, attempt, charged, place)));
        }
    }

    async fn serve(
        self: Arc<Self>,
        socket: TcpStream,
        mut attempt: Attempt,
        charged: bool,
        _place: OwnedSemaphorePermit,
    ) {
        let outcome = {
            let accept = pin!(self.accept(socket, &mut attempt));
            tokio::time::timeout(self.limits.handshake, accept).await
        };
        let Refused { failure, socket } = match outcome {
            Ok(Ok(Handed::Accepted)) if charged => return self.gate.refund(attempt.source),
            // A refused caller is counted, whatever it proved: its certificate may be one of many that were revoked.
            Ok(Ok(Handed::Accepted | Handed::Refused)) => return,
            Ok(Err(refused)) => refused,
            Err(_) => Failure::from(Refusal::Deadline).into(),
        };
        self.endpoint.refusals().record(attempt.record(failure));
        if let Some(socket) = socket {
            let _ = tokio::time::timeout(LINGER, linger(socket)).await;
        }
    }

    async fn accept(&self, socket: TcpStream, attempt: &mut Attempt) -> Result<Handed, Refused> {
        let failed = |error: &io::Error| Failure::of(Refusal::Handshake, error);
        socket.set_nodelay(true).map_err(|error| failed(&error))?;
        let keepalive =
            TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_AGAIN).with_retries(KEEPALIVE_TIMES);
        let local = socket.local_addr().map_err(|error| failed(&error))?;
        SockRef::from(&socket).set_tcp_keepalive(&keepalive).map_err(|error| failed(&error))?;
        let unacknowledged = Some(UNACKNOWLEDGED_MAX);
        SockRef::from(&socket).set_tcp_user_timeout(unacknowledged).map_err(|error| failed(&error))?;
        let hello = Hello::read(Counted::new(socket, self.limits.preauth_bytes), attempt, Port::Client).await?;
        let proven = hello.authenticate(&self.endpoint).await?;
        let slot = match self.route.reserve() {
            Ok(slot) => slot,
            Err(refusal) => return Err(Failure::from(refusal).into()),
        };
        let http = proven.http();
        let (connection, handed) = match proven.admit(&self.endpoint, attempt) {
            Ok(judged) => {
                let stream = judged.into_client(attempt);
                (ClientConnection::Accepted { stream, http, local }, Handed::Accepted)
            }
            Err(Unfit { tls, principal, refusal }) => {
                let Some(place) = self.place_of_refused(attempt.source) else {
                    return Err(Failure::from(refusal).into());
                };
                let failure_id = attempt.failure_id();
                self.endpoint.refusals().record(attempt.clone().record(refusal.into()));
                // why: it is the deadline
                let deadline = Box::pin(tokio::time::sleep(self.limits.refused));
                let stream = RefusedStream { session: tls, deadline, _place: place };
                (ClientConnection::Refused { stream, http, principal, refusal, failure_id }, Handed::Refused)
            }
        };
        slot.send(connection);
        Ok(handed)
    }

    fn place_of_refused(&self, source: SocketAddr) -> Option<RefusedPlace> {
        let share = self.refused_of_source.take(Source::of(source.ip()))?;
        let permit = Arc::clone(&self.refused).try_acquire_owned().ok()?;
        Some(RefusedPlace { _share: share, _permit: permit })
    }
}

/// The connection of a refused caller. It ends by itself.
pub struct RefusedStream {
    session: Box<dyn Session>,
    deadline: Pin<Box<Sleep>>,
    _place: RefusedPlace,
}

/// A place among the refused callers, and in the share of its source.
struct RefusedPlace {
    _share: Share<Source>,
    _permit: OwnedSemaphorePermit,
}

/// What became of a connection that was handed over.
enum Handed {
    Accepted,
    Refused,
}

impl RefusedStream {
    fn open(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut dyn Session>> {
        match self.deadline.as_mut().poll(cx) {
            Poll::Pending => Ok(Pin::new(&mut *self.session)),
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl core::fmt::Debug for RefusedStream {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("RefusedStream")
    }
}

impl AsyncRead for RefusedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().open(cx) {
            Ok(session) => session.poll_read(cx, buf),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for RefusedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut().open(cx) {
            Ok(session) => session.poll_write(cx, buf),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().open(cx) {
            Ok(session) => session.poll_flush(cx),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().open(cx) {
            Ok(session) => session.poll_shutdown(cx),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}
