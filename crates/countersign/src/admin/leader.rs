//! Where a request belongs that this member may not carry out: a learner's HTTPS port sends it on to the leader's.
//!
//! Forwarding would carry no authority, so the caller asks anew, with its own certificate. It must never be sent anywhere
//! but to a member, and it verifies whom it reaches as it did here.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use countersign_api::cluster::AdminAddressRequest;
use countersign_api::cluster::members_client::MembersClient;
use countersign_core::name::{Address, Host};

use super::access::Admin;
use super::problem::{AdminError, NOT_A_VOTER, NotAVoter};
use crate::member::Inner;

/// How long the leader may take to say where it is administered.
const ASK_DEADLINE: Duration = Duration::from_secs(5);

/// Turns the answer that this member may not administer into a redirect, if the leader says where it may be reached.
pub(crate) async fn send_to_leader(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let response = next.run(request).await;
    if response.extensions().get::<NotAVoter>().is_none() {
        return response;
    }
    let Ok(member) = admin.member() else { return response };
    match leaders_address(&member).await {
        Some(address) => redirect(&member, &address, &uri).unwrap_or(response),
        None => response,
    }
}

fn redirect(member: &Inner, leader: &Address, uri: &Uri) -> Option<Response> {
    let location = format!("https://{leader}{}", uri.path_and_query()?);
    let location = HeaderValue::try_from(location).ok()?;
    let mut error = AdminError::new(
        // With the same method and body (RFC 9110 §15.4.8).
        StatusCode::TEMPORARY_REDIRECT,
        NOT_A_VOTER,
        format!("node {} is not a voter and may not administer the cluster; the leader is at `{leader}`", member.node),
        format!("repeat the command with --server {leader}"),
    );
    error.problem.leader = Some(leader.to_string());
    let mut response = error.into_response();
    response.headers_mut().insert(header::LOCATION, location);
    Some(response)
}

/// What the leader says of itself; none if it is not known, not reached, or serves no HTTPS to other hosts.
async fn leaders_address(member: &Arc<Inner>) -> Option<Address> {
    let leader = member.leader().filter(|leader| *leader != member.node)?;
    let channel = member.peers.channel(leader)?;
    let mut request = tonic::Request::new(AdminAddressRequest {});
    request.set_timeout(ASK_DEADLINE);
    let reply = MembersClient::new(channel).admin_address(request).await.ok()?.into_inner();
    Address::parse(&reply.address).ok()
}

impl Inner {
    /// Where others reach this member's HTTPS port: under a host that it advertises, since its certificate holds those. None
    /// if the port is not served, or on loopback only while members are on other hosts.
    pub(crate) fn admin_address(&self) -> Option<Address> {
        let endpoints = self.lock_endpoints();
        let bound = endpoints.https?;
        let host: Host = endpoints.advertise.first()?.host.clone();
        let reached = host.is_loopback() || !bound.ip().to_canonical().is_loopback();
        reached.then_some(Address { host, port: bound.port() })
    }
}
