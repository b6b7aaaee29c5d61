//! A member's stream as tonic wants it; the member's number travels with each call.

use std::pin::Pin;
use std::task::{Context, Poll};

use countersign_core::id::NodeId;
use countersign_net::PeerStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// The member at the other end.
#[derive(Clone, Copy)]
pub(crate) struct Caller(pub(crate) Option<NodeId>);

/// A stream that tonic serves.
pub(crate) struct Served(pub(crate) PeerStream);

impl Connected for Served {
    type ConnectInfo = Caller;
    fn connect_info(&self) -> Caller {
        Caller(self.0.peer().node_id())
    }
}

impl AsyncRead for Served {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Served {
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
