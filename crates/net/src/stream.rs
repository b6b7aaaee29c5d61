//! The streams that come out: one type per protocol, so that an unauthenticated connection cannot reach what only
//! members may reach. A [`PeerStream`] and a [`ClientStream`] exist only with a judged peer; an [`EnrollStream`] has
//! none.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use countersign_core::id::FailureId;
use countersign_core::peer::{Refusal, VerifiedPeer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

use crate::attempt::Attempt;
use crate::budget::Source;
use crate::registry::{Closed, Registration};
use crate::session::{Protection, Session};
use crate::share::Share;

/// The registry has ended the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connection closed: {0}")]
pub struct ClosedByTrust(pub Refusal);

/// A registered stream.
struct Registered {
    session: Box<dyn Session>,
    registration: Registration,
}

impl Registered {
    /// The session, unless the registry has ended it.
    fn open(&mut self) -> io::Result<Pin<&mut dyn Session>> {
        match self.registration.closed().refusal() {
            None => Ok(Pin::new(&mut *self.session)),
            Some(refusal) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, ClosedByTrust(refusal))),
        }
    }
}

/// A session through the one in the field, whose method `open` gives it out while its bytes may be used.
macro_rules! delegate_session {
    ($stream:ty, $($field:ident).+) => {
        impl AsyncRead for $stream {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut().$($field).+.open() {
                    Ok(session) => session.poll_read(cx, buf),
                    Err(error) => Poll::Ready(Err(error)),
                }
            }
        }

        impl AsyncWrite for $stream {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut().$($field).+.open() {
                    Ok(session) => session.poll_write(cx, buf),
                    Err(error) => Poll::Ready(Err(error)),
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut().$($field).+.open() {
                    Ok(session) => session.poll_write_vectored(cx, bufs),
                    Err(error) => Poll::Ready(Err(error)),
                }
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut().$($field).+.open() {
                    Ok(session) => session.poll_flush(cx),
                    Err(error) => Poll::Ready(Err(error)),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut().$($field).+.open() {
                    Ok(session) => session.poll_shutdown(cx),
                    // Closed already, which is all that a shutdown asks for.
                    Err(_) => Poll::Ready(Ok(())),
                }
            }
        }

        impl Session for $stream {
            fn channel_binding(&self, label: &[u8]) -> io::Result<[u8; 32]> {
                self.$($field).+.session.channel_binding(label)
            }

            fn protection(&self) -> Protection {
                self.$($field).+.session.protection()
            }
        }
    };
}
pub(crate) use delegate_session;

macro_rules! verified_stream {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name {
            inner: Registered,
            peer: VerifiedPeer,
            remote: SocketAddr,
        }

        impl $name {
            pub(crate) const fn new(
                session: Box<dyn Session>,
                registration: Registration,
                peer: VerifiedPeer,
                remote: SocketAddr,
            ) -> Self {
                Self { inner: Registered { session, registration }, peer, remote }
            }

            /// The peer at the other end, as judged when the connection began; judged again whenever trust changes.
            pub const fn peer(&self) -> &VerifiedPeer {
                &self.peer
            }

            /// Where the other end is.
            pub const fn remote(&self) -> SocketAddr {
                self.remote
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

        delegate_session!($name, inner);
    };
}

verified_stream! {
    /// A connection to another member, accepted or dialed, under the peer protocol. Where the scope of its peer is
    /// recovery, nothing may be carried but what renews certificates and forms the cluster.
    PeerStream
}
verified_stream! {
    /// A connection on a client port, accepted or dialed. Any principal may be at the other end.
    ClientStream
}

/// An accepted connection of an unauthenticated caller: encrypted, this end proven, the other end unknown.
pub struct EnrollStream {
    inner: Timed,
    proof: SponsorProof,
    remote: SocketAddr,
    attempt: FailureId,
    repeated: bool,
}

/// What a request that was made for this connection is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SponsorProof {
    /// The connection's exporter: a signature over it holds for this connection alone.
    pub exporter: [u8; 32],
    /// SHA-256 of the leaf certificate of this end, DER.
    pub leaf: [u8; 32],
}

struct Timed {
    session: Box<dyn Session>,
    /// A caller that says nothing must not keep its place for good.
    deadline: Pin<Box<Sleep>>,
    /// The place among the enrollments under way, and among those of its source.
    _place: (OwnedSemaphorePermit, Share<Source>),
}

impl Timed {
    fn open(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut dyn Session>> {
        match self.deadline.as_mut().poll(cx) {
            Poll::Pending => Ok(Pin::new(&mut *self.session)),
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl EnrollStream {
    pub(crate) fn new(
        session: Box<dyn Session>,
        proof: SponsorProof,
        deadline: Sleep,
        place: (OwnedSemaphorePermit, Share<Source>),
        attempt: &mut Attempt,
    ) -> Self {
        let inner = Timed { session, deadline: Box::pin(deadline), _place: place };
        Self { inner, proof, remote: attempt.source, attempt: attempt.failure_id(), repeated: attempt.repeated }
    }

    /// What a request over this connection is bound to.
    pub const fn proof(&self) -> SponsorProof {
        self.proof
    }

    /// The attempt's id; the other end prints the same.
    pub const fn attempt(&self) -> FailureId {
        self.attempt
    }

    /// Whether its source has failed too often: what is refused on it is counted, not told again.
    pub const fn repeated(&self) -> bool {
        self.repeated
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
            Ok(session) => session.poll_read(cx, buf),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for EnrollStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut().inner.open(cx) {
            Ok(session) => session.poll_write(cx, buf),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().inner.open(cx) {
            Ok(session) => session.poll_flush(cx),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner.session).poll_shutdown(cx)
    }
}

impl Session for EnrollStream {
    fn channel_binding(&self, label: &[u8]) -> io::Result<[u8; 32]> {
        self.inner.session.channel_binding(label)
    }

    fn protection(&self) -> Protection {
        self.inner.session.protection()
    }
}

/// A dialed stream that is in no registry: it belongs to no member.
pub(crate) struct Unregistered {
    pub(crate) session: Box<dyn Session>,
}

impl Unregistered {
    pub(crate) fn open(&mut self) -> io::Result<Pin<&mut dyn Session>> {
        Ok(Pin::new(&mut *self.session))
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::peer::Wanted;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::alpn::Alpn;
    use crate::memory::tests::chain;
    use crate::registry::{Closer, Connection, Registry};

    /// A session without TLS.
    struct InMemory(DuplexStream);

    impl AsyncRead for InMemory {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for InMemory {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    impl Session for InMemory {
        fn channel_binding(&self, label: &[u8]) -> io::Result<[u8; 32]> {
            Ok([label.len() as u8; 32])
        }

        fn protection(&self) -> Protection {
            Protection::Tls { key_exchange: Some("none") }
        }
    }

    struct Stream {
        inner: Registered,
    }

    delegate_session!(Stream, inner);

    #[tokio::test]
    async fn a_stream_over_any_session_carries_its_bytes_and_ends_with_trust() {
        let (here, mut there) = tokio::io::duplex(64);
        let (registry, proof) = (Registry::default(), chain().proof());
        let principal = proof.principal().clone();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let registration = registry
            .register(Connection {
                proof,
                wanted: Wanted::AnyPrincipal,
                alpn: Alpn::Client,
                remote: "10.0.0.1:1".parse().unwrap(),
                dialed: false,
                closer: Closer::Tcp(socket),
            })
            .unwrap();
        let mut stream = Stream { inner: Registered { session: Box::new(InMemory(here)), registration } };
        assert_eq!(stream.channel_binding(b"abc").unwrap(), [3; 32]);
        assert_eq!(stream.protection(), Protection::Tls { key_exchange: Some("none") });
        stream.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        there.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping");
        // It has arrived by the time that trust ends the connection, and is not handed out.
        there.write_all(b"pong").await.unwrap();
        assert_eq!(registry.close_principal(&principal, Refusal::KeyRevoked).len(), 1);
        let error = stream.read_exact(&mut got).await.unwrap_err();
        let closed = error.get_ref().and_then(|inner| inner.downcast_ref::<ClosedByTrust>());
        assert_eq!(closed, Some(&ClosedByTrust(Refusal::KeyRevoked)));
    }
}
