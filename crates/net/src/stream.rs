//! The streams that come out: one type per protocol, so that an unauthenticated connection cannot reach what only members
//! may reach. A [`PeerStream`] and a [`ServiceStream`] exist only with a judged peer; an [`EnrollStream`] has none.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use countersign_core::id::FailureId;
use countersign_core::peer::{Refusal, VerifiedPeer};
use countersign_core::time::Validity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

use crate::attempt::Attempt;
use crate::counted::Counted;
use crate::registry::{Closed, Registration};
use crate::share::Share;

/// TLS over TCP, from either end.
pub(crate) type Tls = tokio_rustls::TlsStream<Counted>;

/// The exporter's label (RFC 8446 §7.5) that binds an enrollment to its connection.
pub(crate) const ENROLL_EXPORTER: &[u8] = b"EXPORTER-countersign-enroll";

/// The registry has ended the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connection closed: {0}")]
pub struct ClosedByTrust(pub Refusal);

/// A registered stream.
struct Registered {
    tls: Tls,
    registration: Registration,
}

impl Registered {
    /// The stream, unless the registry has ended it.
    fn open(&mut self) -> io::Result<Pin<&mut Tls>> {
        match self.registration.closed().refusal() {
            None => Ok(Pin::new(&mut self.tls)),
            Some(refusal) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, ClosedByTrust(refusal))),
        }
    }
}

/// Reads and writes through the method that gives out the stream while it may be used.
macro_rules! delegate_io {
    ($stream:ty, $($field:ident).+) => {
        impl AsyncRead for $stream {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut().$($field).+.open() {
                    Ok(tls) => tls.poll_read(cx, buf),
                    Err(error) => Poll::Ready(Err(error)),
                }
            }
        }

        impl AsyncWrite for $stream {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut().$($field).+.open() {
                    Ok(tls) => tls.poll_write(cx, buf),
                    Err(error) => Poll::Ready(Err(error)),
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut().$($field).+.open() {
                    Ok(tls) => tls.poll_write_vectored(cx, bufs),
                    Err(error) => Poll::Ready(Err(error)),
                }
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut().$($field).+.open() {
                    Ok(tls) => tls.poll_flush(cx),
                    Err(error) => Poll::Ready(Err(error)),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut().$($field).+.open() {
                    Ok(tls) => tls.poll_shutdown(cx),
                    // Closed already, which is all that a shutdown asks for.
                    Err(_) => Poll::Ready(Ok(())),
                }
            }
        }
    };
}
pub(crate) use delegate_io;

macro_rules! verified_stream {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name {
            inner: Registered,
            peer: VerifiedPeer,
            remote: SocketAddr,
        }

        impl $name {
            pub(crate) fn new(mut tls: Tls, registration: Registration, peer: VerifiedPeer, remote: SocketAddr) -> Self {
                tls.get_mut().0.lift();
                Self { inner: Registered { tls, registration }, peer, remote }
            }

            /// Who is at the other end, as judged when the connection began; judged again whenever trust changes.
            pub const fn peer(&self) -> &VerifiedPeer {
                &self.peer
            }

            /// When the certificate that the other end shows is valid.
            pub const fn validity(&self) -> Validity {
                self.inner.registration.validity()
            }

            /// Where the other end is.
            pub const fn remote(&self) -> SocketAddr {
                self.remote
            }

            /// The key exchange that protects this connection, by its IANA name.
            pub fn key_exchange(&self) -> Option<&'static str> {
                key_exchange(&self.inner.tls)
            }

            /// Ends when trust ends the connection, with the reason. Holds nothing of the stream.
            pub fn closed(&self) -> impl Future<Output = Refusal> + Send + 'static {
                let closed: Arc<Closed> = Arc::clone(self.inner.registration.closed());
                async move { closed.wait().await }
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({} at {})"), self.peer.principal(), self.remote)
            }
        }

        delegate_io!($name, inner);
    };
}

verified_stream! {
    /// A connection to another member, accepted or dialed, under the peer protocol. Where the scope of its peer is
    /// recovery, nothing may be carried but what renews certificates and forms the cluster.
    PeerStream
}
verified_stream! {
    /// A connection to any principal, accepted or dialed, under the service protocol.
    ServiceStream
}

pub(crate) fn key_exchange(tls: &Tls) -> Option<&'static str> {
    tls.get_ref().1.negotiated_key_exchange_group().and_then(|group| group.name().as_str())
}

/// An accepted connection of a stranger: encrypted, this end proven, the other end unknown.
pub struct EnrollStream {
    inner: Timed,
    proof: SponsorProof,
    remote: SocketAddr,
    attempt: FailureId,
}

/// What a request that was made for this connection is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SponsorProof {
    /// The connection's exporter: a signature over it holds for this connection alone.
    pub exporter: [u8; 32],
    /// SHA-256 of the leaf that this end presented, DER.
    pub presented: [u8; 32],
}

struct Timed {
    tls: Tls,
    /// A stranger that says nothing must not keep its place for ever.
    deadline: Pin<Box<Sleep>>,
    /// The place among the enrollments under way, and among those of its source.
    _place: (OwnedSemaphorePermit, Share),
}

impl Timed {
    fn open(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut Tls>> {
        match self.deadline.as_mut().poll(cx) {
            Poll::Pending => Ok(Pin::new(&mut self.tls)),
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl EnrollStream {
    pub(crate) fn new(
        mut tls: Tls,
        proof: SponsorProof,
        deadline: Sleep,
        place: (OwnedSemaphorePermit, Share),
        attempt: &mut Attempt,
    ) -> Self {
        tls.get_mut().0.lift();
        let inner = Timed { tls, deadline: Box::pin(deadline), _place: place };
        Self { inner, proof, remote: attempt.source, attempt: attempt.failure_id() }
    }

    /// What a request over this connection is bound to.
    pub const fn proof(&self) -> SponsorProof {
        self.proof
    }

    /// The attempt's id; the other end prints the same.
    pub const fn attempt(&self) -> FailureId {
        self.attempt
    }

    /// Where the other end is.
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }
}

impl core::fmt::Debug for EnrollStream {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "EnrollStream({})", self.remote)
    }
}

impl AsyncRead for EnrollStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().inner.open(cx) {
            Ok(tls) => tls.poll_read(cx, buf),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for EnrollStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut().inner.open(cx) {
            Ok(tls) => tls.poll_write(cx, buf),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().inner.open(cx) {
            Ok(tls) => tls.poll_flush(cx),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner.tls).poll_shutdown(cx)
    }
}

/// A dialed stream that is in no registry: it belongs to no member.
pub(crate) struct Unregistered(pub(crate) Tls);

impl Unregistered {
    pub(crate) const fn open(&mut self) -> io::Result<Pin<&mut Tls>> {
        Ok(Pin::new(&mut self.0))
    }
}
