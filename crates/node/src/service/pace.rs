//! A connection whose other end must speak in time: its first byte, and each head of a request of HTTP/1.1 once that
//! has begun. Between requests it may be silent for longer; hyper ends that silence.
//!
//! HTTP/2 has no bound of its own before its preface (RFC 9113 section 3.4). Within a head it sends no answers to
//! pings, so a ping ends a head that does not end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a caller may take to send its first byte, and how long to send the head of a request.
pub(super) const HEAD_MAX: Duration = Duration::from_secs(10);

/// Whether the next bytes of a connection begin a head.
#[derive(Clone, Default)]
pub(super) struct Heads(Arc<Counts>);

#[derive(Default)]
struct Counts {
    /// Heads that have come whole.
    read: AtomicU64,
    /// Requests under way: bodies that still come, and answers that are not sent yet.
    under_way: AtomicUsize,
}

/// Lasts as long as a half of a request is under way: its body, or its answer.
pub(super) struct Answering(Heads);

impl Heads {
    /// A head has come whole; it is answered.
    pub(super) fn answering(&self) -> Answering {
        self.0.read.fetch_add(1, Ordering::Relaxed);
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
        Answering(self.clone())
    }

    fn read(&self) -> u64 {
        self.0.read.load(Ordering::Relaxed)
    }

    fn is_awaited(&self) -> bool {
        self.0.under_way.load(Ordering::Relaxed) == 0
    }
}

impl Answering {
    /// The body of the same request, under way until it has come whole: its handler may read it on after the answer.
    pub(super) fn with_body(&self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        self.0.0.under_way.fetch_add(1, Ordering::Relaxed);
        Body::new(Coming { body, under_way: Some(Self(self.0.clone())) })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of a request.
struct Coming {
    body: Body,
    under_way: Option<Answering>,
}

impl HttpBody for Coming {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // hyper tells the end of a body of known length only with the next head, if it was answered before that.
        if self.body.is_end_stream() {
            self.under_way = None;
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.under_way = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that fails unless its other end speaks in time.
pub(super) struct Paced<S> {
    stream: S,
    /// None where no head is looked for: HTTP/2.
    heads: Option<Heads>,
    within: Duration,
    /// When what is awaited must have come: the first byte, or the end of a head.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Whether bytes of a head have come, and not its end.
    in_head: bool,
    /// Heads that had come whole when this was looked at last: the deadline is none of theirs.
    read: u64,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, heads: Option<Heads>, within: Duration) -> Self {
        // why: it is the deadline
        let deadline = Some(Box::pin(tokio::time::sleep(within)));
        Self { stream, heads, within, deadline, in_head: false, read: 0 }
    }

    fn awaits_head(&self) -> bool {
        self.heads.as_ref().is_some_and(Heads::is_awaited)
    }

    /// Bytes have come.
    fn heard(&mut self) {
        if !self.awaits_head() {
            self.deadline = None;
        } else if !self.in_head {
            self.in_head = true;
            // why: it is the deadline
            self.deadline = Some(Box::pin(tokio::time::sleep(self.within)));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = self.heads.as_ref().map_or(0, Heads::read);
        if core::mem::replace(&mut self.read, read) != read {
            (self.in_head, self.deadline) = (false, None);
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    fn paced(heads: Option<&Heads>) -> (Paced<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (here, there) = tokio::io::duplex(64);
        (Paced::new(here, heads.cloned(), SHORT), there)
    }

    async fn is_silent(stream: &mut Paced<tokio::io::DuplexStream>) -> bool {
        tokio::time::timeout(4 * SHORT, stream.read_u8()).await.is_err()
    }

    #[tokio::test]
    async fn silence_is_an_error_before_the_first_byte_and_none_after_it() {
        let (mut silent, _there) = paced(None);
        assert_eq!(silent.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (mut begun, mut there) = paced(None);
        there.write_all(b"x").await.unwrap();
        assert_eq!(begun.read_u8().await.unwrap(), b'x');
        assert!(is_silent(&mut begun).await, "it may be silent now");
    }

    #[tokio::test]
    async fn head_that_has_begun_must_end_in_time_and_between_heads_there_is_time() {
        let heads = Heads::default();
        let (mut slow, mut there) = paced(Some(&heads));
        for _ in 0..3 {
            there.write_all(b"G").await.unwrap();
            assert_eq!(slow.read_u8().await.unwrap(), b'G');
            let answering = heads.answering();
            assert!(is_silent(&mut slow).await, "the head has come, and is answered");
            // A body may come meanwhile, in its own time.
            there.write_all(b"b").await.unwrap();
            assert_eq!(slow.read_u8().await.unwrap(), b'b');
            assert!(is_silent(&mut slow).await, "the body is another's to bound");
            drop(answering);
            assert!(is_silent(&mut slow).await, "no head has begun");
        }
        there.write_all(b"G").await.unwrap();
        assert_eq!(slow.read_u8().await.unwrap(), b'G');
        there.write_all(b"E").await.unwrap();
        assert_eq!(slow.read_u8().await.unwrap(), b'E');
        assert_eq!(slow.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
