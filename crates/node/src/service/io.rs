//! Authenticated streams as tonic wants them. Who is at the other end travels with each call, as a request extension.

use std::fmt::Display;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use countersign_core::id::{FailureId, NodeId};
use countersign_core::limits::ENROLLMENT_REQUESTS_MAX;
use countersign_guard::Caller;
use countersign_net::{EnrollStream, PeerStream, SponsorProof};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::{Request, Status};

/// A caller on a connection of the *enroll* protocol, which proves nothing about the caller.
#[derive(Debug, Clone)]
pub struct UnauthenticatedCaller {
    pub(crate) proof: SponsorProof,
    pub(crate) remote: SocketAddr,
    pub(crate) attempt: FailureId,
    /// Whether its source has failed too often: its refusals are counted, not told again.
    pub(crate) repeated: bool,
    /// How many requests this connection has made.
    requests: Arc<AtomicUsize>,
}

impl UnauthenticatedCaller {
    /// The caller of this request, as long as its connection may make one more.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        // Absent only if the router were wired wrongly: refuse.
        let caller = request.extensions().get::<Self>().ok_or_else(|| Status::unauthenticated("no connection"))?;
        if caller.requests.fetch_add(1, Ordering::Relaxed) >= ENROLLMENT_REQUESTS_MAX {
            return Err(Status::resource_exhausted("too many requests on one connection"));
        }
        Ok(caller.clone())
    }

    /// Logs that a request of this caller failed.
    pub(crate) fn failed(&self, what: &str, why: &dyn Display) {
        let Self { remote, attempt, .. } = self;
        if self.repeated {
            tracing::debug!(%remote, failure_id = %attempt, reason = %why, "{what}");
        } else {
            tracing::warn!(%remote, failure_id = %attempt, reason = %why, "{what}");
        }
    }

    /// The same, of one that says it is this node.
    pub(crate) fn return_failed(&self, node: NodeId, what: &str, why: &dyn Display) {
        self.failed(what, &format_args!("{why} (node {node})"));
    }
}

/// A stream of ours, served by tonic.
pub struct Served<S>(pub(crate) S);

impl<S: AsyncRead + Unpin> AsyncRead for Served<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Served<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Connected for Served<PeerStream> {
    type ConnectInfo = Caller;
    fn connect_info(&self) -> Caller {
        Caller { peer: self.0.peer().clone(), remote: self.0.remote() }
    }
}

impl Connected for Served<EnrollStream> {
    type ConnectInfo = UnauthenticatedCaller;
    fn connect_info(&self) -> UnauthenticatedCaller {
        let Self(stream) = self;
        UnauthenticatedCaller {
            proof: stream.proof(),
            remote: stream.remote(),
            attempt: stream.attempt(),
            repeated: stream.repeated(),
            requests: Arc::default(),
        }
    }
}
