//! Answers that may be long. Each takes a place of its caller until the caller has read it. A caller that does not read
//! soon has no place left, and takes no place of others.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use countersign_core::limits::UNREAD_PER_PRINCIPAL_MAX;
use countersign_core::locked::Locked;
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Bytes of an answer that are handed to the connection at once. The member cannot know whether these were read.
const PIECE_LEN: usize = 4 * 1024;

/// The places of each principal that holds one.
#[derive(Clone, Default)]
pub(super) struct UnreadAnswers(Arc<Locked<BTreeMap<String, Arc<Semaphore>>>>);

/// A place, as it travels with an answer from its handler to its body.
#[derive(Clone)]
pub(super) struct UnreadPlace {
    _place: Arc<OwnedSemaphorePermit>,
}

impl UnreadAnswers {
    /// A place of this principal by `until`, or none.
    pub(super) async fn place(&self, principal: &str, until: Instant) -> Option<UnreadPlace> {
        let places = {
            let mut all = self.0.lock();
            // A caller that holds no place and waits for none is forgotten.
            all.retain(|_, places| Arc::strong_count(places) > 1);
            let new = || Arc::new(Semaphore::new(UNREAD_PER_PRINCIPAL_MAX));
            Arc::clone(all.entry(principal.to_owned()).or_insert_with(new))
        };
        let place = tokio::time::timeout_at(until, places.acquire_owned()).await.ok()?.ok()?;
        Some(UnreadPlace { _place: Arc::new(place) })
    }
}

/// The layer around the service: an answer that came with a place holds it as long as there is anything left of it.
pub(crate) async fn until_read(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<UnreadPlace>() {
        Some(place) => response.map(|body| in_pieces(body, PIECE_LEN, place)),
        None => response,
    }
}

/// Hands `body` over in pieces of `piece_len` bytes as it is read, and drops `place` with it.
pub(super) fn in_pieces(body: Body, piece_len: usize, place: impl Send + Unpin + 'static) -> Body {
    Body::new(InPieces { body, rest: Bytes::new(), piece_len, _place: place })
}

/// A body that is handed over as it is read.
struct InPieces<P> {
    body: Body,
    rest: Bytes,
    piece_len: usize,
    _place: P,
}

impl<P: Unpin> HttpBody for InPieces<P> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let len = self.rest.len().min(self.piece_len);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn principal_has_so_many_places_and_takes_none_of_others() {
        let unread = UnreadAnswers::default();
        let now = Instant::now();
        let mut own = Vec::new();
        for _ in 0..UNREAD_PER_PRINCIPAL_MAX {
            own.push(unread.place("broker/b1", now).await.unwrap());
        }
        assert!(unread.place("broker/b1", now).await.is_none());
        assert!(unread.place("broker/b2", now).await.is_some());
        own.pop();
        assert!(unread.place("broker/b1", now).await.is_some());
        drop(own);
        assert!(unread.place("broker/b3", now).await.is_some());
        assert_eq!(unread.0.lock().len(), 1, "no other caller is remembered");
    }

    #[tokio::test]
    async fn a_place_is_held_until_the_last_piece_is_taken() {
        let unread = UnreadAnswers::default();
        let place = unread.place("broker/b1", Instant::now()).await.unwrap();
        let held = Arc::downgrade(&place._place);
        let body = Body::from(vec![7; 2 * PIECE_LEN + 1]);
        let mut body = InPieces { body, rest: Bytes::new(), piece_len: PIECE_LEN, _place: place };
        for len in [PIECE_LEN, PIECE_LEN, 1] {
            assert!(!body.is_end_stream() && held.strong_count() == 1);
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), len);
        }
        assert!(body.is_end_stream());
        drop(body);
        assert_eq!(held.strong_count(), 0);
    }
}
