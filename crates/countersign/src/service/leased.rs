//! No client is served without a lease: no call begins, none that streams goes on, and no connection stays.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use countersign_core::lease::NoLease;
use countersign_core::peer::Refusal;
use hyper::body::{Frame, SizeHint};
use tonic::Status;

use crate::member::Inner;

/// How often it is looked whether the lease was given up before its end.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Lets a call through to an embedder's service only while this member holds a lease: asked after the call was received,
/// and again for each frame of it in either direction, so that what waited while the process was paused is denied.
pub(super) async fn leased(State(member): State<Weak<Inner>>, request: Request, next: Next) -> Response {
    if let Err(no_lease) = fresh(&member) {
        return denied(no_lease).into_http::<Body>().into_response();
    }
    let asked = member.clone();
    let request = request.map(|body| Body::new(Asked { body, fresh: move || fresh(&asked) }));
    next.run(request).await.map(|body| Body::new(Answered(Asked { body, fresh: move || fresh(&member) })))
}

fn fresh(member: &Weak<Inner>) -> Result<(), NoLease> {
    member.upgrade().ok_or(NoLease).and_then(|member| member.lease.fresh().map(|_| ()))
}

fn denied(no_lease: NoLease) -> Status {
    Status::unavailable(no_lease.to_string())
}

/// A body of which nothing is read without a lease.
struct Asked<F> {
    body: Body,
    fresh: F,
}

impl<F: Fn() -> Result<(), NoLease> + Unpin> HttpBody for Asked<F> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        // After the frame was received. The trailers say how the call ended, which is nothing new.
        match (&frame, (self.fresh)()) {
            (Poll::Ready(Some(Ok(frame))), Err(no_lease)) if frame.is_data() => {
                Poll::Ready(Some(Err(axum::Error::new(denied(no_lease)))))
            }
            _ => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The same for what is answered: the caller is told by the status of the call, with which it ends.
struct Answered<F>(Asked<F>);

impl<F: Fn() -> Result<(), NoLease> + Unpin> HttpBody for Answered<F> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.0.body).poll_frame(cx);
        match (&frame, (self.0.fresh)()) {
            (Poll::Ready(Some(Ok(frame))), Err(no_lease)) if frame.is_data() => {
                self.0.body = Body::empty();
                let mut trailers = HeaderMap::new();
                let told = denied(no_lease).add_header(&mut trailers).map_err(axum::Error::new);
                Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))))
            }
            _ => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Closes what clients opened whenever the lease is over: a stream without traffic asks nobody, and a call that has begun
/// works on.
pub(super) fn close_when_lapsed(member: &Arc<Inner>) {
    let this = Arc::clone(member);
    member.spawn(async move {
        let mut held = false;
        loop {
            let left = this.lease.millis_left();
            if left.is_none() && held {
                let closed = this.endpoint.registry().close_services(Refusal::NoLease).len();
                tracing::warn!(connections = closed, "no lease any more: connections of clients closed");
            }
            held = left.is_some();
            // why: a lease lapses by the passing of time alone
            tokio::time::sleep(left.map_or(LOOK_AGAIN, |left| LOOK_AGAIN.min(Duration::from_millis(left)))).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use http_body_util::BodyExt;
    use tokio_stream::iter;

    use super::*;

    fn three() -> Body {
        Body::from_stream(iter(["a", "b", "c"].map(Ok::<_, std::io::Error>)))
    }

    fn lapses(held: &Arc<AtomicBool>) -> impl Fn() -> Result<(), NoLease> + Unpin {
        let held = Arc::clone(held);
        move || if held.load(Ordering::Relaxed) { Ok(()) } else { Err(NoLease) }
    }

    #[tokio::test]
    async fn frames_that_waited_while_the_lease_lapsed_are_not_read() {
        let held = Arc::new(AtomicBool::new(true));
        let mut body = Asked { body: three(), fresh: lapses(&held) };
        assert!(body.frame().await.unwrap().unwrap().is_data());
        held.store(false, Ordering::Relaxed);
        assert!(body.frame().await.unwrap().unwrap_err().to_string().contains("no lease"));
    }

    #[tokio::test]
    async fn nothing_is_answered_without_a_lease_but_the_status_that_says_so() {
        let held = Arc::new(AtomicBool::new(true));
        let mut body = Answered(Asked { body: three(), fresh: lapses(&held) });
        assert!(body.frame().await.unwrap().unwrap().is_data());
        held.store(false, Ordering::Relaxed);
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "14");
        // Ended for good, though the lease is back.
        held.store(true, Ordering::Relaxed);
        assert!(body.frame().await.is_none());
    }
}
