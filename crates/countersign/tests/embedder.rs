//! What an embedder writes: the app of the example, on a member and on a host that is none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

/// The example that embedders start from is what is tested.
#[allow(dead_code)]
#[path = "../examples/member.rs"]
mod example;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use bytes::Bytes;
use countersign::{Action, Caller, Client, Denial, Guard, Kind, Permits, RemoteGuard, RemoteGuardSettings, Services};
use countersign_core::lease::NoLease;
use countersign_core::name::Address;
use countersign_core::peer::Refusal;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::rules::rule;
use support::{Issued, Node};

fn app(guard: &Guard) -> Services {
    let whose = get(async |caller: Caller| caller.peer.principal().role.to_string());
    let app = Router::new().route("/orders/{topic}", get(example::orders)).route("/whose", whose);
    Services::builder().http(app.with_state(guard.clone())).build()
}

async fn asked(client: &support::Client, address: &Address, path: &str) -> (u16, String) {
    let stream = TokioIo::new(client.dialer.dial(address).await.unwrap());
    let (mut requests, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get(format!("https://{address}{path}")).body(Empty::<Bytes>::new()).unwrap();
    let answer = requests.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn handler_asks_by_its_argument_on_a_member_and_on_a_remote_guard() {
    let node = Node::bootstrap_serving("n1", |member| app(member.guard())).await;
    node.converged(1).await;
    let Issued { bundle, credential, .. } = node.issue("broker/localhost").await;
    let domain = node.member().view().trust_domain.clone();
    let broker =
        countersign::ClientDialer::new(bundle, domain, credential, std::sync::Arc::new(countersign_net::SystemClock));
    node.add_rule(rule("policy", "broker/*", "read", "policy")).await;
    let listen = "127.0.0.1:0".parse().unwrap();
    let settings = RemoteGuardSettings::new(Client::new(broker), vec![node.client_address()], listen);
    let connected = RemoteGuard::connect(settings).await.unwrap();
    let services = app(connected.guard());
    let remote = connected.serve(services);
    let outside = format!("localhost:{}", remote.local_addr().unwrap().port()).parse().unwrap();
    let client = node.client("pay").await;
    let generation = node.add_rule(rule("app", "client/pay", "read", "service:/*")).await;
    assert!(node.control().await_barrier(generation).await.unwrap().passed);
    for address in [node.client_address(), outside] {
        assert_eq!(asked(&client, &address, "/whose").await, (200, "client/pay".to_owned()), "{address}");
        assert_eq!(asked(&client, &address, "/orders/shoes").await.0, 403, "{address}");
        let generation = node.add_rule(rule("shoes", "client/pay", "read", "topic:shoes")).await;
        assert!(node.control().await_barrier(generation).await.unwrap().passed);
        let (status, body) = asked(&client, &address, "/orders/shoes").await;
        assert!(status == 200 && body.ends_with("/client/pay reads shoes\n"), "{address}: {status} {body}");
        assert_eq!(asked(&client, &address, "/orders/hats").await.0, 403, "{address}");
        let generation = node.remove_rule("shoes").await;
        assert!(node.control().await_barrier(generation).await.unwrap().passed);
    }
    remote.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_without_a_caller_gets_no_permit() {
    let node = Node::bootstrap("n1").await;
    let none = Permits::of(node.member().guard(), &axum::http::Extensions::new()).unwrap_err();
    assert_eq!(none, Denial::Refused(Refusal::PrincipalUnknown));
}

#[test]
fn denials_are_statuses_in_both_worlds() {
    for (denial, http, grpc) in [
        (Denial::NoLease(NoLease), StatusCode::SERVICE_UNAVAILABLE, tonic::Code::Unavailable),
        (Denial::Unfetched, StatusCode::SERVICE_UNAVAILABLE, tonic::Code::Unavailable),
        (Denial::Refused(Refusal::KeyRevoked), StatusCode::FORBIDDEN, tonic::Code::Unauthenticated),
        (Denial::RecoveryOnly, StatusCode::FORBIDDEN, tonic::Code::Unauthenticated),
    ] {
        assert_eq!(StatusCode::from(denial.clone()), http, "{denial}");
        assert_eq!(tonic::Status::from(denial.clone()).code(), grpc, "{denial}");
    }
    let (kind, action): (Kind, Action) = ("invoice".parse().unwrap(), "read".parse().unwrap());
    assert_eq!((kind.as_str(), action), ("invoice", Action::Read));
    assert!("No Kind".parse::<Kind>().is_err());
}
