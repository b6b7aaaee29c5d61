//! The acceptor of the cluster port: from a socket to a judged stream, or to a refusal that both ends know.
//!
//! The life of a connection: charge its source, take a place, read the ClientHello, choose by its one protocol which
//! proof to ask for, end the handshake, register, judge, say `Welcome` or `Refused`, hand over. All of it under one
//! deadline and one count of bytes. Nothing is read from the peer between its handshake and `Welcome`.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::limits;
use countersign_core::peer::Refusal;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::alpn::Alpn;
use crate::attempt::{Attempt, Failure};
use crate::budget::Source;
use crate::counted::Counted;
use crate::endpoint::Endpoint;
use crate::gate::Gate;
use crate::handshake::{Hello, LINGER, Port, Refused, linger};
use crate::routes::Routes;
use crate::share::Shares;
use crate::stream::{EnrollStream, PeerStream};

/// What an acceptor grants to peers that it does not know yet.
#[derive(Debug, Clone, Copy)]
pub struct AcceptorLimits {
    /// From accept to `Welcome`.
    pub handshake: Duration,
    /// Bytes that a peer may send before it is welcome.
    pub preauth_bytes: u64,
    /// Handshakes under way at once, enrollments not counted once they said what they are.
    pub handshakes_in_flight: usize,
    /// Enrollment connections open at once.
    pub enrollments_in_flight: usize,
    /// Enrollment connections of one source open at once.
    pub enrollments_per_source: usize,
    /// How long an enrollment connection may stay open.
    pub enrollment: Duration,
    /// How long a caller that the client port refuses stays connected to ask for the reason.
    pub refused: Duration,
    /// Such callers connected at once.
    pub refused_in_flight: usize,
    /// Such callers of one source connected at once.
    pub refused_per_source: usize,
    /// Attempts of one source that may fail within a minute; past it, it is let in only while half the places are free.
    pub failures_per_source_minute: u32,
}

impl Default for AcceptorLimits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_millis(limits::HANDSHAKE_MILLIS_MAX),
            preauth_bytes: limits::PREAUTH_BYTES_MAX,
            handshakes_in_flight: limits::HANDSHAKES_IN_FLIGHT_MAX,
            enrollments_in_flight: limits::ENROLLMENTS_IN_FLIGHT_MAX,
            enrollments_per_source: limits::ENROLLMENTS_PER_SOURCE_MAX,
            enrollment: Duration::from_secs(60),
            refused: Duration::from_secs(10),
            refused_in_flight: limits::REFUSED_IN_FLIGHT_MAX,
            refused_per_source: limits::REFUSED_PER_SOURCE_MAX,
            failures_per_source_minute: limits::FAILURES_PER_SOURCE_MINUTE_MAX,
        }
    }
}

/// Accepts connections on one TCP port.
pub struct Acceptor {
    listener: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    endpoint: Endpoint,
    limits: AcceptorLimits,
    routes: Routes,
    gate: Gate,
    enrollments: Arc<Semaphore>,
    joiners: Arc<Shares<Source>>,
}

impl Acceptor {
    /// Listens on `address`. Nothing is accepted before [`Acceptor::run`].
    pub async fn bind(address: SocketAddr, endpoint: Endpoint, limits: AcceptorLimits) -> io::Result<Self> {
        Ok(Self::on(TcpListener::bind(address).await?, endpoint, limits))
    }

    /// Listens on a socket that was bound before there was an endpoint. Nothing is accepted before [`Acceptor::run`].
    pub fn on(listener: TcpListener, endpoint: Endpoint, limits: AcceptorLimits) -> Self {
        let shared = Arc::new(Shared {
            endpoint,
            limits,
            routes: Routes::new(),
            gate: Gate::new(limits.handshakes_in_flight, limits.failures_per_source_minute),
            enrollments: Arc::new(Semaphore::new(limits.enrollments_in_flight)),
            joiners: Shares::new(limits.enrollments_per_source),
        });
        Self { listener, shared }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where accepted connections go.
    pub fn routes(&self) -> &Routes {
        &self.shared.routes
    }

    /// Handshakes under way.
    pub fn handshakes_in_flight(&self) -> usize {
        self.shared.gate.in_flight()
    }

    /// Enrollment connections open.
    pub fn enrollments_in_flight(&self) -> usize {
        self.shared.limits.enrollments_in_flight.saturating_sub(self.shared.enrollments.available_permits())
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

/// Waits 50 ms after an accept that failed for want of descriptors or memory, where accepting again at once would only
/// spin. An error of one connection costs no wait: otherwise a peer that resets its connections would delay the others.
pub async fn pause_after(error: &io::Error) {
    let of_one_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    );
    if !of_one_connection {
        tracing::warn!(%error, "cannot accept connections");
        // why: the kernel does not tell when descriptors or memory are there again
        tokio::time::sleep(Duration::from_millis(50)).await;
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
        mut place: OwnedSemaphorePermit,
    ) {
        let outcome = {
            let accept = pin!(self.accept(socket, &mut attempt, &mut place));
            tokio::time::timeout(self.limits.handshake, accept).await
        };
        let Refused { failure, socket } = match outcome {
            // A joiner has proven nothing by its handshake: whether its request is granted or refused, it is counted.
            Ok(Ok(())) if charged && attempt.alpn.is_some_and(Alpn::proves_peer) => {
                return self.gate.refund(attempt.source);
            }
            Ok(Ok(())) => return,
            Ok(Err(refused)) => refused,
            Err(_) => Failure::from(Refusal::Deadline).into(),
        };
        self.endpoint.refusals().record(attempt.record(failure));
        if let Some(socket) = socket {
            let _ = tokio::time::timeout(LINGER, linger(socket)).await;
        }
    }

    async fn accept(
        &self,
        socket: TcpStream,
        attempt: &mut Attempt,
        place: &mut OwnedSemaphorePermit,
    ) -> Result<(), Refused> {
        // Answers are small; waiting to fill a segment costs 40 ms each.
        socket.set_nodelay(true).map_err(|e| Failure::of(Refusal::Handshake, &e))?;
        let hello = Hello::read(Counted::new(socket, self.limits.preauth_bytes), attempt, Port::Cluster).await?;
        match hello.alpn() {
            Alpn::Enroll => self.accept_anonymous(hello, attempt, place).await,
            Alpn::Peer => {
                let proven = hello.authenticate(&self.endpoint).await?;
                let judged = proven.judge(&self.endpoint, attempt).await?;
                judged.hand_over(&self.routes.peer, attempt, PeerStream::new).await
            }
            // The client port has an acceptor of its own, and `Hello` reads no such offer here.
            Alpn::Client => Err(hello.refuse(Refusal::Protocol).await),
        }
    }

    /// Enrollment has places of its own: a crowd of unauthenticated callers leaves the members' places alone, and one
    /// source leaves the other sources' places.
    async fn accept_anonymous(
        &self,
        hello: Hello,
        attempt: &mut Attempt,
        place: &mut OwnedSemaphorePermit,
    ) -> Result<(), Refused> {
        let share = self.joiners.take(Source::of(attempt.source.ip()));
        let own = Arc::clone(&self.enrollments).try_acquire_owned().ok();
        let (Some(share), Some(own)) = (share, own) else {
            return Err(hello.refuse(Refusal::Overloaded).await);
        };
        // Assigned, not shadowed: the handshake's place is free from here on.
        *place = own;
        let anonymous = hello.prove(&self.endpoint).await?;
        let (slot, anonymous) = anonymous.reserve(&self.routes.enroll, attempt).await?;
        let (session, proof) = anonymous.welcome().await?;
        // why: it is the deadline
        let deadline = tokio::time::sleep(self.limits.enrollment);
        let Some(place) = place.split(1) else { return Err(Failure::from(Refusal::Overloaded).into()) };
        slot.send(EnrollStream::new(session, proof, deadline, (place, share), attempt));
        Ok(())
    }
}
