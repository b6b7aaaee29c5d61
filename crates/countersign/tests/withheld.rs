//! What was allowed when it began and is not any more: requests of admins that were withheld, calls that stream, and
//! members that hear nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use countersign::Services;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header;
use axum::routing::post;
use countersign_api::admin::{Problem, TokenCreate};
use countersign_core::name::Address;
use countersign_core::trust::member::Suffrage;
use countersign_net::https::{HttpsClientStream, dial_https};
use countersign_net::{Clock, SystemClock};
use http_body_util::BodyExt;
use support::{Issued, Node, cluster_around, cluster_of};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

/// Longer than anything takes on a loaded machine; only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

async fn dial(node: &Node, admin: &Issued) -> HttpsClientStream {
    let address = Address::parse(&node.member().https_addr().unwrap().to_string()).unwrap();
    dial_https(&address, admin.bundle.clone(), &admin.credential, SystemClock.now()).await.unwrap()
}

/// The whole answer: its status, and its body.
async fn answer(mut stream: HttpsClientStream) -> (u16, String) {
    let mut said = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("no answer").unwrap();
    let said = String::from_utf8(said).unwrap();
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn head(method: &str, path: &str, framing: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n{framing}\r\n\r\n"
    )
}

async fn ask(node: &Node, admin: &Issued, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = dial(node, admin).await;
    let request = head(method, path, &format!("content-length: {}", body.len())) + body;
    stream.write_all(request.as_bytes()).await.unwrap();
    answer(stream).await
}

fn token() -> String {
    let wanted = TokenCreate {
        suffrage: Suffrage::Voter,
        ttl_secs: 600,
        uses: 9,
        name: None,
        hosts: vec![],
        role: None,
        attributes: Default::default(),
    };
    serde_json::to_string(&wanted).unwrap()
}

async fn tokens(node: &Node) -> String {
    node.ask("GET", "/v1/tokens", String::new()).await.1
}

fn code(body: &str) -> String {
    serde_json::from_str::<Problem>(body).unwrap().code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_withheld_until_its_admin_was_revoked_is_refused() {
    let node = Node::bootstrap("n1").await;
    let (ada, eve) = (node.issue("admin/ada").await, node.issue("admin/eve").await);
    let body = token();
    let (early, late) = body.split_at(body.len() - 1);
    let counted = format!("content-length: {}", body.len());
    let chunked = "transfer-encoding: chunked";
    let mut withheld = Vec::new();
    for admin in [&ada, &eve] {
        for (head, last) in [
            (head("POST", "/v1/tokens", &counted) + early, late.to_owned()),
            (head("POST", "/v1/tokens", chunked) + &format!("{:x}\r\n{body}\r\n", body.len()), "0\r\n\r\n".to_owned()),
            // Of what has no body, the last byte of the head is withheld.
            (
                head("DELETE", &format!("/v1/certificates/{}", ada.key), "x: y").trim_end().to_owned(),
                "\r\n\r\n".to_owned(),
            ),
        ] {
            let mut stream = dial(&node, admin).await;
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            withheld.push((stream, last));
        }
    }
    // why: nothing tells that the server has read what was sent; were it not read yet, nothing would be tested
    tokio::time::sleep(Duration::from_millis(500)).await;
    node.revoke(&eve.key).await;
    let before = tokens(&node).await;
    let of_ada = withheld.drain(..3).collect::<Vec<_>>();
    for (mut stream, last) in withheld {
        stream.write_all(last.as_bytes()).await.unwrap();
        let (status, body) = answer(stream).await;
        assert_eq!((status, code(&body).as_str()), (403, "key-revoked"), "{body}");
    }
    assert_eq!(tokens(&node).await, before, "nothing was carried out");
    // Whoever is not revoked may take a while.
    for (mut stream, last) in of_ada.into_iter().take(2) {
        stream.write_all(last.as_bytes()).await.unwrap();
        let (status, body) = answer(stream).await;
        assert_eq!(status, 200, "{body}");
    }
    assert_ne!(tokens(&node).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_long_or_a_strangers_is_refused_unread() {
    let node = Node::bootstrap("n1").await;
    let (ada, pay) = (node.issue("admin/ada").await, node.issue("client/pay").await);
    let (status, body) = ask(&node, &ada, "POST", "/v1/tokens", &" ".repeat(64 * 1024 + 1)).await;
    assert_eq!((status, code(&body).as_str()), (413, "body"), "{body}");
    // Not waited for: neither of whom no rule allows it, nor of nobody at all.
    for path in ["/v1/acl/apply", "/v1/tokens/rotate", "/v1/nodes/n1/demote", "/elsewhere"] {
        let mut stream = dial(&node, &pay).await;
        stream.write_all(head("POST", path, "content-length: 134217728").as_bytes()).await.unwrap();
        let (status, body) = answer(stream).await;
        assert_eq!((status, code(&body).as_str()), (403, "denied"), "{path}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_withheld_until_its_rule_was_removed_is_refused() {
    let node = Node::bootstrap("n1").await;
    let pay = node.issue("client/pay").await;
    let rule = r#"{"rule":{"id":"mint","principal":"client/pay","actions":["create"],"resource_any":"token"}}"#;
    let (status, body) = node.ask("POST", "/v1/acl/rules", rule.to_owned()).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(ask(&node, &pay, "POST", "/v1/tokens", &token()).await.0, 200);
    let body = token();
    let (early, late) = body.split_at(body.len() - 1);
    let mut stream = dial(&node, &pay).await;
    let begun = head("POST", "/v1/tokens", &format!("content-length: {}", body.len())) + early;
    stream.write_all(begun.as_bytes()).await.unwrap();
    // why: nothing tells that the server has read what was sent; were it not read yet, nothing would be tested
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (status, said) = node.ask("DELETE", "/v1/acl/rules/mint", String::new()).await;
    assert_eq!(status, 200, "{said}");
    let before = tokens(&node).await;
    stream.write_all(late.as_bytes()).await.unwrap();
    let (status, body) = answer(stream).await;
    assert_eq!((status, code(&body).as_str()), (403, "denied"), "{body}");
    assert_eq!(tokens(&node).await, before, "nothing was carried out");
}

/// The first of three, cut off from the others.
async fn cut_off(mut nodes: Vec<Node>) -> Node {
    let left = nodes.remove(0);
    for node in nodes {
        node.stop().await;
    }
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_a_lease_takes_nobody_for_an_admin() {
    let nodes = cluster_of(3).await;
    let ada = nodes[0].issue("admin/ada").await;
    let (status, body) = ask(&nodes[0], &ada, "GET", "/v1/certificates", "").await;
    assert_eq!(status, 200, "{body}");
    let left = cut_off(nodes).await;
    left.until(|status| status.lease_millis_left.is_none()).await;
    let certificate = format!("/v1/certificates/{}", ada.key);
    for (method, path, sent) in [
        ("POST", "/v1/tokens", token()),
        ("POST", "/v1/tokens/rotate", String::new()),
        ("POST", "/v1/nodes/n2/evict", "{}".to_owned()),
        ("POST", "/v1/status", String::new()),
        ("DELETE", &certificate, String::new()),
        ("GET", "/v1/certificates", String::new()),
        ("GET", "/v1/tokens", String::new()),
        ("GET", "/v1/status/", String::new()),
    ] {
        let (status, body) = ask(&left, &ada, method, path, &sent).await;
        assert_eq!((status, code(&body).as_str()), (503, "no-lease"), "{method} {path}: {body}");
    }
    let (status, body) = ask(&left, &ada, "GET", "/v1/status", "").await;
    assert_eq!(status, 200, "{body}");
    // The host's own operator is somebody else's concern.
    let (status, body) = left.ask("GET", "/v1/certificates", String::new()).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_streams_is_cut_when_the_lease_lapses() {
    let quiet = async || {
        Body::from_stream(tokio_stream::StreamExt::chain(
            tokio_stream::once(Ok::<_, Infallible>(Bytes::from_static(b"begun"))),
            tokio_stream::pending(),
        ))
    };
    let services = axum::Router::new()
        .route("/test.Echo/Both", post(async |request: Request| request.into_body()))
        .route("/test.Echo/Quiet", post(quiet));
    let founder = Node::bootstrap_serving("n1", |_| Services::builder().grpc_router(services).build()).await;
    let nodes = cluster_around(founder, 3).await;
    let client = nodes[0].client("pay").await;
    nodes[0].settled(3).await;
    let rule = r#"{"rule":{"principal":"client/pay","actions":["write"],"resource_prefix":"service:test.Echo/"}}"#;
    let (status, body) = nodes[0].ask("POST", "/v1/acl/rules", rule.to_owned()).await;
    assert_eq!(status, 200, "{body}");
    let stream = client.dialer.dial(&nodes[0].address()).await.unwrap();
    let endpoint = tonic::transport::Endpoint::from_static("http://cluster");
    let channel = countersign::channel_over(&endpoint, stream);

    let (send, sent) = tokio::sync::mpsc::channel::<Result<Bytes, Infallible>>(1);
    let sent = tonic::body::Body::new(Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(sent)));
    let request = |method: &str, path: &str, body| {
        let request = axum::http::Request::builder().method(method).uri(format!("http://cluster{path}"));
        request.header(header::CONTENT_TYPE, "application/grpc").body(body).unwrap()
    };
    let both = request("POST", "/test.Echo/Both", sent);
    let mut both = channel.clone().oneshot(both).await.unwrap().into_body();
    let quiet = request("POST", "/test.Echo/Quiet", tonic::body::Body::empty());
    let mut quiet = channel.oneshot(quiet).await.unwrap().into_body();
    assert_eq!(quiet.frame().await.unwrap().unwrap().into_data().unwrap(), "begun");
    send.send(Ok(Bytes::from_static(b"ping"))).await.unwrap();
    assert_eq!(both.frame().await.unwrap().unwrap().into_data().unwrap(), "ping");

    let left = cut_off(nodes).await;
    let ended = tokio::time::timeout(PATIENCE, quiet.frame()).await.expect("the stream goes on without a lease");
    assert!(!ended.is_some_and(|frame| frame.is_ok_and(|frame| frame.is_data())));
    assert!(left.status().await.lease_millis_left.is_none(), "cut before its time");
    let _ = send.send(Ok(Bytes::from_static(b"late"))).await;
    let ended = tokio::time::timeout(PATIENCE, both.frame()).await.expect("the call goes on without a lease");
    assert!(!ended.is_some_and(|frame| frame.is_ok_and(|frame| frame.is_data())));
}
