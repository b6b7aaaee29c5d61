//! The same proofs over QUIC (RFC 9000, RFC 9001): one certificate check, one judgement, one answer.
//!
//! A QUIC port serves one purpose, because quinn cannot choose a configuration by protocol. There is no 0-RTT, and this
//! end sends nothing before the other end is authenticated. `Welcome` comes on the acceptor's first stream; clients get
//! no first frame. A connection that trust ends is closed with the refusal as its application error code.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use countersign_core::id::FailureId;
use countersign_core::peer::{Refusal, VerifiedPeer, Wanted};
use quinn::VarInt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::alpn::Alpn;
use crate::frame::RefusalCode;
use crate::registry::{Closed, Registration};
use crate::stream::ClosedByTrust;

/// What a QUIC port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuicPurpose {
    /// Between members.
    Peer,
    /// Any principal, on the client port: bounded as [`quic_limits`](crate::quic_limits) says, without a first frame.
    Client,
}

impl QuicPurpose {
    pub(crate) const fn alpn(self) -> Alpn {
        match self {
            Self::Peer => Alpn::Peer,
            Self::Client => Alpn::Client,
        }
    }

    pub(crate) const fn wanted(self) -> Wanted {
        match self {
            Self::Peer => Wanted::AnyNode,
            Self::Client => Wanted::AnyPrincipal,
        }
    }

    /// Whether the acceptor says `Welcome` or `Refused` in a first frame. Without one, a refusal closes the connection.
    pub(crate) const fn has_first_frame(self) -> bool {
        match self {
            Self::Peer => true,
            Self::Client => false,
        }
    }
}

/// Closes a connection with a refusal: its code, and its text with the failure id if it is on record under one.
pub(crate) fn close(connection: &quinn::Connection, refusal: Refusal, failure_id: Option<FailureId>) {
    let reason = match failure_id {
        Some(id) => format!("{refusal} (failure {id})"),
        None => refusal.to_string(),
    };
    connection.close(close_code(refusal), reason.as_bytes());
}

fn close_code(refusal: Refusal) -> VarInt {
    VarInt::from_u32(RefusalCode::from(refusal).close_code())
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

    /// The peer at the other end.
    pub const fn peer(&self) -> &VerifiedPeer {
        &self.peer
    }

    /// Where the other end is now; it may move, except from a port for clients.
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
    /// Ends the stream both ways with a refusal as its application error code. What was written may not arrive.
    pub fn refuse(mut self, refusal: Refusal) {
        let code = close_code(refusal);
        // An error says that the direction has ended already.
        let _ = (self.send.reset(code), self.recv.stop(code));
    }

    /// Ends this end's direction, and returns once the other end has received everything.
    ///
    /// # Errors
    /// The other end does not want it, or the connection has ended.
    pub async fn deliver(&mut self) -> io::Result<()> {
        self.check()?;
        self.send.finish()?;
        match self.send.stopped().await? {
            None => Ok(()),
            Some(code) => Err(io::Error::other(quinn::WriteError::Stopped(code))),
        }
    }

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
            answered @ (Poll::Ready(Ok(())) | Poll::Pending) => answered,
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
