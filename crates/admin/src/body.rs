//! The body of a request over HTTPS, read before the request is carried out: no longer than its endpoint allows, for a
//! bounded time, and only a few long ones at once.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use countersign_core::limits::ADMIN_BODY_LEN_MAX;
use tokio::time::Instant;
use tokio_stream::StreamExt;

use crate::bounds::{Bounds, Place};
use crate::problem::AdminError;

/// A long body with its place among the few. It is held while a task or a thread reads it, also on a thread that no
/// task awaits.
struct Long {
    body: Vec<u8>,
    _place: Arc<Place>,
}

impl AsRef<[u8]> for Long {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// The request with all of its body; and the place that it takes if that is long, to be held until it is answered.
pub(super) async fn received(
    request: Request,
    len_max: usize,
    patience: Duration,
    bounds: &Bounds,
) -> Result<(Request, Option<Arc<Place>>), AdminError> {
    let (head, body) = request.into_parts();
    let mut parts = body.into_data_stream();
    let (mut body, mut place, mut patience) = (Vec::new(), None, patience);
    let begun = Instant::now();
    loop {
        let next = tokio::time::timeout_at(begun + patience, parts.next()).await.map_err(|_| late(patience))?;
        let Some(part) = next else { break };
        let part = part.map_err(|_| broken())?;
        let len = body.len().saturating_add(part.len());
        if len > len_max {
            return Err(too_long(len_max));
        }
        if len > ADMIN_BODY_LEN_MAX && place.is_none() {
            place = Some(Arc::new(bounds.long_body()?));
            patience += longer(len_max);
        }
        body.extend_from_slice(&part);
    }
    let body = match &place {
        Some(place) => Bytes::from_owner(Long { body, _place: Arc::clone(place) }),
        None => Bytes::from(body),
    };
    Ok((Request::from_parts(head, Body::from(body)), place))
}

/// How much longer a long body may take: 1 MiB each second, at least.
fn longer(len_max: usize) -> Duration {
    Duration::from_secs((len_max >> 20) as u64)
}

fn too_long(len_max: usize) -> AdminError {
    let message = format!("the request's body is longer than {len_max} bytes");
    AdminError::new(StatusCode::PAYLOAD_TOO_LARGE, "body", message, "send less")
}

fn broken() -> AdminError {
    let message = "the request's body broke off, or is no chunked text";
    AdminError::new(StatusCode::BAD_REQUEST, "body-broken", message, "repeat the command")
}

fn late(patience: Duration) -> AdminError {
    let message = format!("the request's body did not arrive within {} ms", patience.as_millis());
    AdminError::new(StatusCode::REQUEST_TIMEOUT, "body-late", message, "repeat the command")
}

#[cfg(test)]
mod tests {
    use axum::extract::FromRequest;
    use countersign_core::limits::{LONG_BODIES_MAX, POLICY_BODY_LEN_MAX};

    use super::*;

    /// Longer than anything takes on a loaded machine; only a failure waits so long.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn with(body: impl Into<Body>) -> Request {
        Request::builder().body(body.into()).unwrap()
    }

    fn status<T>(received: Result<T, AdminError>) -> Result<(), u16> {
        received.map(drop).map_err(|error| error.status.as_u16())
    }

    #[tokio::test]
    async fn a_body_ends_at_its_limit_and_does_not_take_forever() {
        let bounds = Bounds::default();
        assert_eq!(status(received(with("12345"), 5, PATIENCE, &bounds).await), Ok(()));
        assert_eq!(status(received(with("123456"), 5, PATIENCE, &bounds).await), Err(413));
        let cut = Body::from_stream(tokio_stream::once(Err::<String, _>(std::io::Error::other("cut"))));
        assert_eq!(status(received(with(cut), 5, PATIENCE, &bounds).await), Err(400));
        let never = Body::from_stream(tokio_stream::pending::<Result<String, std::io::Error>>());
        let received = received(with(never), 5, Duration::from_millis(20), &bounds);
        let late = tokio::time::timeout(PATIENCE, received).await;
        assert_eq!(status(late.expect("waits forever")), Err(408));
    }

    #[tokio::test]
    async fn long_bodies_are_few_at_once_until_their_readers_end() {
        let bounds = Bounds::default();
        let ask = async |len| received(with(vec![b'x'; len]), POLICY_BODY_LEN_MAX, PATIENCE, &bounds).await;
        let mut held = Vec::new();
        for _ in 0..LONG_BODIES_MAX {
            held.push(ask(ADMIN_BODY_LEN_MAX + 1).await.unwrap());
        }
        let refused = ask(ADMIN_BODY_LEN_MAX + 1).await.unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.problem.code.as_str()), (503, "busy"));
        // One that is not long needs no place.
        assert_eq!(status(ask(ADMIN_BODY_LEN_MAX).await), Ok(()));
        // The request has ended, and a thread still reads what it sent.
        let (request, place) = held.pop().unwrap();
        let read = Bytes::from_request(request, &()).await.unwrap();
        drop(place);
        assert_eq!((read.len(), status(ask(ADMIN_BODY_LEN_MAX + 1).await)), (ADMIN_BODY_LEN_MAX + 1, Err(503)));
        drop(read);
        assert_eq!(status(ask(ADMIN_BODY_LEN_MAX + 1).await), Ok(()));
    }
}
