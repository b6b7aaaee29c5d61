//! What was allowed when it began and is not any more: requests of admins that were withheld, calls that stream, and
//! members that hear nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header;
use axum::routing::post;
use countersign::Services;
use countersign_api::admin::TokenCreate;
use countersign_core::id::TokenId;
use countersign_core::trust::join_token::Token;
use countersign_core::trust::member::Suffrage;
use countersign_net::https::HttpsClientStream;
use http_body_util::BodyExt;
use support::http::{Answer, exchanged, request};
use support::rules::rule;
use support::{Issued, Node, PATIENCE, cluster_around, cluster_of};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::ServiceExt;

/// Bytes of a request that wait for their way to the server.
const BUFFER_LEN: usize = 4096;

/// A request that was sent but for its last byte.
struct Withheld {
    last: oneshot::Sender<()>,
    answer: JoinHandle<Answer>,
}

impl Withheld {
    async fn begin(node: &Node, admin: &Issued, request: Request) -> Self {
        let (client, between) = tokio::io::duplex(BUFFER_LEN);
        let (last, let_go) = oneshot::channel();
        tokio::spawn(all_but_last(between, node.dial_https(admin).await, let_go));
        Self { last, answer: tokio::spawn(exchanged(client, node.for_https(request))) }
    }

    /// Sends the last byte.
    async fn end(self) -> Answer {
        self.last.send(()).unwrap();
        self.answer.await.unwrap()
    }
}

/// Passes on all that both sides send, but keeps the last byte of the client until it is let go.
async fn all_but_last(client: DuplexStream, server: HttpsClientStream, mut let_go: oneshot::Receiver<()>) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let up = async {
        let mut kept = Vec::new();
        loop {
            tokio::select! {
                read = from_client.read_buf(&mut kept) => assert_ne!(read.unwrap(), 0, "the client gave up"),
                _ = &mut let_go => break,
            }
            let last = kept.split_off(kept.len() - 1);
            to_server.write_all(&kept).await.unwrap();
            to_server.flush().await.unwrap();
            kept = last;
        }
        to_server.write_all(&kept).await.unwrap();
        to_server.flush().await.unwrap();
    };
    let down = tokio::io::copy(&mut from_server, &mut to_client);
    let _ = tokio::join!(up, down);
}

/// A body of which no byte comes, and no end.
fn endless() -> Body {
    Body::from_stream(tokio_stream::pending::<Result<Bytes, Infallible>>())
}

fn token() -> String {
    let wanted = TokenCreate {
        role: Suffrage::Voter,
        ttl_secs: 600,
        uses: 9,
        name: None,
        hosts: vec![],
        labels: Default::default(),
    };
    serde_json::to_string(&wanted).unwrap()
}

fn tokens(node: &Node) -> Vec<(TokenId, Token)> {
    node.control().tokens()
}

/// What an answer of this status and code is compared with.
fn refusal(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn request_withheld_until_its_admin_was_revoked_is_refused() {
    let node = Node::bootstrap("n1").await;
    let (ada, eve) = (node.issue("admin/ada").await, node.issue("admin/eve").await);
    // Its length is told in the head, or chunk by chunk.
    let (counted, chunked) =
        (|| Body::from(token()), || Body::from_stream(tokio_stream::once(Ok::<_, Infallible>(token()))));
    let certificate = format!("/v1/certificates/{}", ada.key);
    let mut withheld = Vec::new();
    for admin in [&ada, &eve] {
        for request in [
            request("POST", "/v1/tokens", counted()),
            request("POST", "/v1/tokens", chunked()),
            // Of a request without a body, the last byte of the head is withheld.
            request("DELETE", &certificate, Body::empty()),
        ] {
            withheld.push(Withheld::begin(&node, admin, request).await);
        }
    }
    // why: nothing tells that the server has read what was sent; were it not read yet, nothing would be tested
    tokio::time::sleep(Duration::from_millis(500)).await;
    node.revoke(eve.key).await;
    let before = tokens(&node);
    let of_ada = withheld.drain(..3).collect::<Vec<_>>();
    for request in withheld {
        let answer = request.end().await;
        assert_eq!(answer.refused(), refusal(403, "key-revoked"), "{answer:?}");
    }
    assert_eq!(tokens(&node), before, "nothing was carried out");
    // An admin that is not revoked may take a while.
    for request in of_ada.into_iter().take(2) {
        let answer = request.end().await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_ne!(tokens(&node), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_or_unauthenticated_body_is_refused_unread() {
    let node = Node::bootstrap("n1").await;
    let (ada, pay) = (node.issue("admin/ada").await, node.issue("client/pay").await);
    let answer = node.over_https(&ada, "POST", "/v1/tokens", &" ".repeat(64 * 1024 + 1)).await;
    assert_eq!(answer.refused(), refusal(413, "body"), "{answer:?}");
    // The body of a caller that no rule allows is not waited for.
    for path in ["/v1/acl/apply", "/v1/tokens/rotate", "/v1/nodes/n1/demote", "/elsewhere"] {
        let mut asked = request("POST", path, endless());
        asked.headers_mut().insert(header::CONTENT_LENGTH, 134_217_728.into());
        let answer = exchanged(node.dial_https(&pay).await, node.for_https(asked)).await;
        assert_eq!(answer.refused(), refusal(403, "denied"), "{path}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_withheld_until_its_rule_was_removed_is_refused() {
    let node = Node::bootstrap("n1").await;
    let pay = node.issue("client/pay").await;
    node.add_rule(rule("mint", "client/pay", "create", "token")).await;
    assert_eq!(node.over_https(&pay, "POST", "/v1/tokens", &token()).await.status, 200);
    let withheld = Withheld::begin(&node, &pay, request("POST", "/v1/tokens", Body::from(token()))).await;
    // why: nothing tells that the server has read what was sent; were it not read yet, nothing would be tested
    tokio::time::sleep(Duration::from_millis(500)).await;
    node.remove_rule("mint").await;
    let before = tokens(&node);
    let answer = withheld.end().await;
    assert_eq!(answer.refused(), refusal(403, "denied"), "{answer:?}");
    assert_eq!(tokens(&node), before, "nothing was carried out");
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
async fn member_without_a_lease_takes_no_caller_for_an_admin() {
    let nodes = cluster_of(3).await;
    let ada = nodes[0].issue("admin/ada").await;
    let answer = nodes[0].over_https(&ada, "GET", "/v1/certificates", "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
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
        let answer = left.over_https(&ada, method, path, &sent).await;
        assert_eq!(answer.refused(), refusal(503, "no-lease"), "{method} {path}: {answer:?}");
    }
    let answer = left.over_https(&ada, "GET", "/v1/status", "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // The operator of the host needs no lease.
    let answer = left.on_socket("GET", "/v1/certificates", "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
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
    nodes[0].converged(3).await;
    nodes[0].add_rule(rule("echo", "client/pay", "write", "service:test.Echo/*")).await;
    let channel = support::connect(&client.dialer, &nodes[0].client_address()).await.unwrap();

    let (send, sent) = tokio::sync::mpsc::channel::<Result<Bytes, Infallible>>(1);
    let sent = tonic::body::Body::new(Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(sent)));
    let request = |method: &str, path: &str, body| {
        let request = axum::http::Request::builder().method(method).uri(path);
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
