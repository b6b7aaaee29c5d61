//! No client is served without a lease.

use std::sync::Weak;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use countersign_core::lease::NoLease;
use tonic::Status;

use crate::member::Inner;

/// Lets a call through to an embedder's service only while this member holds a lease: asked after the call was received,
/// so that one that waited while the process was paused is denied.
pub(super) async fn leased(State(member): State<Weak<Inner>>, request: Request, next: Next) -> Response {
    let fresh = member.upgrade().ok_or(NoLease).and_then(|member| member.lease.fresh().map(|_| ()));
    match fresh {
        Ok(()) => next.run(request).await,
        Err(no_lease) => Status::unavailable(no_lease.to_string()).into_http::<axum::body::Body>().into_response(),
    }
}
