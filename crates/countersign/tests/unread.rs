//! A broker that asks what rules say and reads no answer: it fills its own places, and no other caller waits for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign_core::limits::UNREAD_PER_PRINCIPAL_MAX;
use countersign_net::{ClientDialer, SystemClock};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::rules::{policy, rule};
use support::{Issued, Node};

/// A connection on which the server may send so many bytes of an answer before they are read.
async fn connected(node: &Node, issued: &Issued, window: u32) -> SendRequest<Full<Bytes>> {
    let (domain, clock) = (node.member().view().trust_domain.clone(), Arc::new(SystemClock));
    let dialer = ClientDialer::new(Arc::clone(&issued.bundle), domain, Arc::clone(&issued.credential), clock);
    let stream = TokioIo::new(dialer.dial(&node.client_address()).await.unwrap());
    let mut builder = Builder::new(TokioExecutor::new());
    let (client, connection) = builder.initial_stream_window_size(window).handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Asks about a client. Returns the answer once it begins.
async fn fetched(node: &Node, client: &mut SendRequest<Full<Bytes>>) -> hyper::Response<Incoming> {
    let principal = b"client/pay";
    let len = u8::try_from(principal.len()).unwrap();
    let message = [&[0, 0, 0, 0, len + 2, 0x0a, len], &principal[..]].concat();
    let request = hyper::Request::post(format!("https://{}/countersign.v1.Policy/Fetch", node.client_address()));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    client.send_request(request.body(Full::from(message)).unwrap()).await.unwrap()
}

/// The code of an answer that is no more than that.
fn code(answer: &hyper::Response<Incoming>) -> Option<&str> {
    answer.headers().get("grpc-status").map(|code| code.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_are_few_and_delay_no_other_caller() {
    let node = Node::bootstrap("n1").await;
    // Long enough not to be taken for read once it is handed to a connection.
    let long = (0..300).map(|at| rule(&format!("pay-{at:012}"), "client/pay", "read", &format!("topic:t{at}")));
    node.apply(policy(&[], long.chain([rule("fetch", "broker/*", "read", "policy")]))).await;
    let (hostile, honest) = (node.issue("broker/hostile.example").await, node.issue("broker/honest.example").await);
    // No byte, or one; on one connection, or on several.
    for window in [0, 1] {
        let mut connections = [connected(&node, &hostile, window).await, connected(&node, &hostile, window).await];
        let mut unread = Vec::new();
        for at in 0..UNREAD_PER_PRINCIPAL_MAX {
            let answer = fetched(&node, &mut connections[at % 2]).await;
            assert_eq!(code(&answer), None);
            unread.push(answer);
        }
        for connection in &mut connections {
            assert_eq!(code(&fetched(&node, connection).await), Some("8"), "window {window}: one more is refused");
        }
        let mut reading = connected(&node, &honest, 65_535).await;
        for _ in 0..2 * UNREAD_PER_PRINCIPAL_MAX {
            let body = fetched(&node, &mut reading).await.into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        }
        // A caller that gives an answer up has its place again.
        unread.pop();
        let again = async { while code(&fetched(&node, &mut connections[0]).await).is_some() {} };
        tokio::time::timeout(Duration::from_secs(60), again).await.unwrap();
    }
}
