//! Where a request belongs that this member may not carry out: a learner's HTTPS port sends it on to the leader's.
//!
//! Forwarding would carry no authority, so the caller asks again, with its own certificate. It must be sent nowhere but
//! to a member, and it verifies the leader as it verified this member.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use countersign_core::id::NodeId;
use countersign_core::name::Address;

use crate::access::Admin;
use crate::problem::{AdminError, NOT_A_VOTER, NotAVoter};

/// Turns the answer that this member may not administer into a redirect, if the leader says where it may be reached.
pub(crate) async fn send_to_leader(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let response = next.run(request).await;
    if response.extensions().get::<NotAVoter>().is_none() {
        return response;
    }
    let Ok(member) = admin.member() else { return response };
    match member.controls.leaders_address().await {
        Some(address) => redirect(member.local.node, &address, &uri).unwrap_or(response),
        None => response,
    }
}

fn redirect(node: NodeId, leader: &Address, uri: &Uri) -> Option<Response> {
    let location = format!("https://{leader}{}", uri.path_and_query()?);
    let location = HeaderValue::try_from(location).ok()?;
    let mut error = AdminError::new(
        // With the same method and body (RFC 9110 §15.4.8).
        StatusCode::TEMPORARY_REDIRECT,
        NOT_A_VOTER,
        format!("node {node} is not a voter and may not administer the cluster; the leader is at `{leader}`"),
        format!("repeat the command with --server {leader}"),
    );
    error.problem.leader = Some(leader.to_string());
    let mut response = error.into_response();
    response.headers_mut().insert(header::LOCATION, location);
    Some(response)
}
