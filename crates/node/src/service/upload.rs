//! What a caller still sends while its answer is ready. Some stock clients lose an answer that comes before they have
//! sent all: curl 7.88 does over HTTP/2. So the rest of a short body is read before its request is answered. A long one
//! is left alone: its stream or connection ends.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use countersign_core::locked::Locked;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

/// Bytes that are read of a body whose handler reads it no more.
const REST_LEN_MAX: usize = 64 * 1024;
/// How long the rest may take to come.
const REST_MAX: Duration = Duration::from_secs(1);

/// A body as its handler has it.
struct Lent(Arc<Locked<Body>>);

/// The same body, kept for when the handler drops it.
pub(super) struct Kept(Arc<Locked<Body>>);

/// Lends a body to a handler.
pub(super) fn lend(body: Body) -> (Body, Kept) {
    let shared = Arc::new(Locked::new(body));
    (Body::new(Lent(Arc::clone(&shared))), Kept(shared))
}

impl Kept {
    /// Reads the rest, within bounds. It leaves a body alone that its handler still reads, such as one whose answer
    /// streams.
    pub(super) async fn finish(self) {
        if let Some(body) = Arc::into_inner(self.0) {
            read_rest(body.into_inner()).await;
        }
    }
}

/// Reads what is left of a body, within bounds.
pub(super) async fn read_rest(mut body: Body) {
    let rest = async {
        let mut left = REST_LEN_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let len = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(len) {
                Some(less) => left = less,
                None => break,
            }
        }
    };
    let _ = tokio::time::timeout(REST_MAX, rest).await;
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.0.lock()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    fn body() -> (UnboundedSender<Result<Bytes, Infallible>>, Body) {
        let (sender, receiver) = unbounded_channel();
        (sender, Body::from_stream(UnboundedReceiverStream::new(receiver)))
    }

    #[tokio::test]
    async fn rest_of_a_short_body_is_read_once_its_handler_drops_it() {
        let (sender, body) = body();
        let (lent, kept) = lend(body);
        drop(lent);
        let finished = tokio::spawn(kept.finish());
        sender.send(Ok(Bytes::from(vec![0; REST_LEN_MAX]))).unwrap();
        drop(sender);
        finished.await.unwrap();
    }

    #[tokio::test]
    async fn body_past_the_limit_is_dropped() {
        let (sender, body) = body();
        let (lent, kept) = lend(body);
        drop(lent);
        sender.send(Ok(Bytes::from(vec![0; REST_LEN_MAX + 1]))).unwrap();
        kept.finish().await;
        assert!(sender.is_closed(), "the caller is told that no more is read");
    }

    #[tokio::test]
    async fn body_that_does_not_come_is_dropped_in_time() {
        let (sender, body) = body();
        let (lent, kept) = lend(body);
        drop(lent);
        let begun = tokio::time::Instant::now();
        kept.finish().await;
        assert!(begun.elapsed() >= REST_MAX && sender.is_closed());
    }

    #[tokio::test]
    async fn body_that_is_still_read_is_left_to_its_reader() {
        let (sender, body) = body();
        let (mut lent, kept) = lend(body);
        kept.finish().await;
        sender.send(Ok(Bytes::from_static(b"x"))).unwrap();
        assert_eq!(lent.frame().await.unwrap().unwrap().into_data().unwrap(), "x");
    }
}
