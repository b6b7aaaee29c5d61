//! A socket that hands out only so many bytes until its peer is authenticated. rustls alone would buffer 64 KiB of
//! handshake for an unauthenticated connection (GHSA-m4hf-6vgr-75r2 shows the cost of no bound).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// More bytes came than a peer may send before it is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {max} bytes before authentication")]
pub(crate) struct PreauthLimit {
    /// Bytes allowed.
    pub(crate) max: u64,
}

/// Counts until [`Counted::lift`].
#[derive(Debug)]
pub(crate) struct Counted<S = TcpStream> {
    io: S,
    max: u64,
    /// Bytes left; none once the peer is authenticated.
    left: Option<u64>,
}

impl<S> Counted<S> {
    pub(crate) const fn new(io: S, max: u64) -> Self {
        Self { io, max, left: Some(max) }
    }

    /// The peer is authenticated: from here on it may send what it likes.
    pub(crate) const fn lift(&mut self) {
        self.left = None;
    }

    pub(crate) const fn socket(&self) -> &S {
        &self.io
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(left) = this.left else {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        };
        if left == 0 {
            return Poll::Ready(Err(io::Error::other(PreauthLimit { max: this.max })));
        }
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut this.io).poll_read(cx, &mut part))?;
        let got = part.filled().len();
        buf.advance(got);
        this.left = Some(left.saturating_sub(got as u64));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn read_all(bytes: &[u8], max: u64, lifted: bool) -> io::Result<usize> {
        let mut counted = Counted::new(bytes, max);
        if lifted {
            counted.lift();
        }
        counted.read_to_end(&mut Vec::new()).await
    }

    #[tokio::test]
    async fn the_limit_is_reached_but_not_passed() {
        // The stream has to end by then: asking for one byte more than the limit is already too much.
        assert_eq!(read_all(&[0; 99], 100, false).await.unwrap(), 99);
        let mut exact = [0; 100];
        assert_eq!(Counted::new(&[0; 100][..], 100).read_exact(&mut exact).await.unwrap(), 100);
        let error = read_all(&[0; 101], 100, false).await.unwrap_err();
        let limit = error.get_ref().and_then(|e| e.downcast_ref::<PreauthLimit>());
        assert_eq!(limit, Some(&PreauthLimit { max: 100 }));
        assert_eq!(read_all(&[0; 101], 100, true).await.unwrap(), 101);
    }
}
