//! Bodies that stop coming. A request holds what was read of its body, so it may not stay half sent.
//!
//! A body of HTTP must go on: silence ends it. A gRPC stream may be silent between messages for as long as it likes,
//! and not within one (its frames: a byte of flags, a length of four bytes, the message).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;

/// How long a body may be silent where it must go on.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Bytes before each gRPC message.
const PREFIX_LEN: usize = 5;

/// How far the body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a body of HTTP: it must go on until it ends.
    Http,
    /// In a prefix of gRPC, of which so many bytes have come with this length so far.
    Prefix { have: usize, len: u32 },
    /// In a message of gRPC, of which so many bytes are still to come.
    Message { left: u32 },
}

impl At {
    /// Whether silence is allowed here.
    const fn may_rest(self) -> bool {
        matches!(self, Self::Prefix { have: 0, .. })
    }

    fn after(self, mut data: &[u8]) -> Self {
        let mut at = self;
        while let Some((byte, rest)) = data.split_first() {
            at = match at {
                Self::Http => return Self::Http,
                Self::Prefix { have, len } => {
                    data = rest;
                    let len = if have == 0 { 0 } else { len << 8 | u32::from(*byte) };
                    match have + 1 {
                        PREFIX_LEN if len == 0 => Self::Prefix { have: 0, len: 0 },
                        PREFIX_LEN => Self::Message { left: len },
                        have => Self::Prefix { have, len },
                    }
                }
                Self::Message { left } => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
                    data = data.get(taken..).unwrap_or_default();
                    match left.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX)) {
                        0 => Self::Prefix { have: 0, len: 0 },
                        left => Self::Message { left },
                    }
                }
            };
        }
        at
    }
}

/// A body that ends with an error once it is silent for too long.
struct Timely {
    body: Body,
    at: At,
    silence: Duration,
    /// Runs while the body is waited for.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Bounds the silence of a body of HTTP or gRPC.
pub(super) fn timely(body: Body, grpc: bool, silence: Duration) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let at = if grpc { At::Prefix { have: 0, len: 0 } } else { At::Http };
    Body::new(Timely { body, at, silence, deadline: None })
}

impl HttpBody for Timely {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                self.at = self.at.after(data);
            }
            self.deadline = None;
            return Poll::Ready(frame);
        }
        let silence = self.silence;
        // why: it is the deadline
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
        let over = deadline.as_mut().poll(cx).is_ready();
        if self.at.may_rest() || !over {
            return Poll::Pending;
        }
        let slow = io::Error::new(io::ErrorKind::TimedOut, "the body of the request stopped coming");
        Poll::Ready(Some(Err(axum::Error::new(slow))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::BodyExt;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    fn body(grpc: bool) -> (UnboundedSender<Result<Bytes, Infallible>>, Body) {
        let (sender, receiver) = unbounded_channel();
        (sender, timely(Body::from_stream(UnboundedReceiverStream::new(receiver)), grpc, SHORT))
    }

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        // An empty message, one of three bytes, and the first half of a prefix.
        let bytes = [&[0, 0, 0, 0, 0][..], &[1, 0, 0, 0, 3], b"abc", &[0, 0]].concat();
        let begin = At::Prefix { have: 0, len: 0 };
        let rests: Vec<bool> = (0..=bytes.len()).map(|end| begin.after(&bytes[..end]).may_rest()).collect();
        let expected: Vec<bool> = (0..=bytes.len()).map(|end| matches!(end, 0 | 5 | 13)).collect();
        assert_eq!(rests, expected);
        for cut in 0..bytes.len() {
            assert_eq!(begin.after(&bytes[..cut]).after(&bytes[cut..]), begin.after(&bytes), "{cut}");
        }
        assert_eq!(begin.after(&[0, 1, 0, 0, 0]), At::Message { left: 1 << 24 });
    }

    #[tokio::test]
    async fn body_of_http_that_stops_is_an_error_and_one_that_goes_on_is_none() {
        let (sender, mut slow) = body(false);
        for _ in 0..3 {
            sender.send(Ok(Bytes::from_static(b"x"))).unwrap();
            assert_eq!(slow.frame().await.unwrap().unwrap().into_data().unwrap(), "x");
        }
        assert!(slow.frame().await.unwrap().is_err());
        let (sender, mut ended) = body(false);
        drop(sender);
        assert!(ended.frame().await.is_none());
    }

    #[tokio::test]
    async fn stream_of_grpc_rests_between_messages_and_not_within_one() {
        let (sender, mut stream) = body(true);
        let quiet = tokio::time::timeout(4 * SHORT, stream.frame()).await;
        assert!(quiet.is_err(), "it may rest before the first message");
        sender.send(Ok(Bytes::from_static(&[0, 0, 0, 0, 1, 7]))).unwrap();
        stream.frame().await.unwrap().unwrap();
        assert!(tokio::time::timeout(4 * SHORT, stream.frame()).await.is_err(), "and after it");
        sender.send(Ok(Bytes::from_static(&[0, 0]))).unwrap();
        stream.frame().await.unwrap().unwrap();
        assert!(stream.frame().await.unwrap().is_err());
    }
}
