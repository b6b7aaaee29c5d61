//! The HTTPS port speaks HTTP/1.1 and no HTTP/2, and what stands behind an ambiguous request is never read as another:
//! here that would make a new cluster token.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod raw;
mod support;

use raw::{Identity, Said};
use rustls::AlertDescription;
use support::Node;
use support::rules::policy;

const BAD: &str = "HTTP/1.1 400 Bad Request";
const FINE: &str = "HTTP/1.1 200 OK";

/// A request that two readers may read differently, the first line of its answer, and how many are answered.
type Row = (&'static str, String, &'static str, usize);

/// As on the client port, RFC 9112 sections 2.2, 3.2, 5.2, 6.1 and 6.3, and more of the same kind.
fn table(host: &str) -> Vec<Row> {
    let behind = format!("POST /v1/tokens/rotate HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
    let get = format!("GET /v1/status HTTP/1.1\r\nHost: {host}\r\n");
    let (close, chunked) = ("Connection: close\r\n\r\n", "Transfer-Encoding: chunked\r\n");
    let none = format!("\r\n0\r\n\r\n{behind}");
    vec![
        // Chunked counts, and the connection ends behind it, as the RFC has it.
        ("length, chunked", format!("{get}Content-Length: 4\r\n{chunked}{none}"), FINE, 1),
        ("chunked, length", format!("{get}{chunked}Content-Length: 4\r\n{none}"), FINE, 1),
        ("two lengths", format!("{get}Content-Length: 0\r\nContent-Length: 4\r\n\r\n{behind}"), BAD, 1),
        ("a list of lengths", format!("{get}Content-Length: 0, 4\r\n\r\n{behind}"), BAD, 1),
        ("a signed length", format!("{get}Content-Length: +0\r\n\r\n{behind}"), BAD, 1),
        ("a length in hexadecimal", format!("{get}Content-Length: 0x0\r\n\r\n{behind}"), BAD, 1),
        ("two encodings", format!("{get}{chunked}Transfer-Encoding: gzip\r\n{none}"), BAD, 1),
        ("another encoding last", format!("{get}Transfer-Encoding: chunked, gzip\r\n{none}"), BAD, 1),
        ("an unknown encoding", format!("{get}Transfer-Encoding: xchunked\r\n{none}"), BAD, 1),
        ("identity", format!("{get}Transfer-Encoding: identity\r\n{none}"), BAD, 1),
        ("an encoding in HTTP/1.0", format!("GET /v1/status HTTP/1.0\r\nHost: {host}\r\n{chunked}{none}"), BAD, 1),
        ("a folded header", format!("{get}X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n{behind}"), BAD, 1),
        ("a space before the colon", format!("{get}Content-Length : 0\r\n\r\n{behind}"), BAD, 1),
        (
            "a space before the first header",
            format!("GET /v1/status HTTP/1.1\r\n Host: {host}\r\n\r\n{behind}"),
            BAD,
            1,
        ),
        ("a CR in a header", format!("{get}X-A: b\rc\r\nContent-Length: 0\r\n\r\n{behind}"), BAD, 1),
        ("a NUL in a header", format!("{get}X-A: b\0c\r\nContent-Length: 0\r\n\r\n{behind}"), BAD, 1),
        ("a chunk size of letters", format!("{get}{chunked}\r\nzz\r\n\r\n{behind}"), BAD, 1),
        ("a chunk size above 2^64", format!("{get}{chunked}\r\n10000000000000000\r\n\r\n{behind}"), BAD, 1),
        ("a chunk longer than its size", format!("{get}{chunked}\r\n1\r\nab\r\n0\r\n\r\n{behind}"), BAD, 1),
        ("two hosts", format!("{get}Host: evil.example\r\n{close}"), BAD, 1),
        ("no host", format!("GET /v1/status HTTP/1.1\r\n{close}"), BAD, 1),
        ("two targets", format!("GET https://evil.example/v1/status HTTP/1.1\r\nHost: {host}\r\n{close}"), BAD, 1),
        ("a target with a space", format!("GET /v1/status x HTTP/1.1\r\nHost: {host}\r\n{close}"), BAD, 1),
        ("HTTP/2 in HTTP/1.1", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "", 0),
        // A lone LF ends a line (section 2.2), for this reader and for every one behind it: there is none.
        ("LF alone", format!("GET /v1/status HTTP/1.1\nHost: {host}\nConnection: close\n\n{behind}"), FINE, 1),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_request_is_smuggled_behind_another_on_the_https_port() {
    let node = Node::bootstrap("n1").await;
    node.apply(policy(&["admin/root"], [])).await;
    let (root, address) = (Identity::issue(&node, "admin/root").await, node.member().https_addr().unwrap());
    let sent = async |offer: &[&[u8]], bytes: &[u8]| {
        Said::in_tls((address, "127.0.0.1"), root.config(true, offer), bytes, |_| false).await
    };
    let tokens = node.control().tokens();
    let mut wrong = Vec::new();
    for (what, bytes, first, answers) in table(&address.to_string()) {
        let said = sent(&[b"http/1.1"], bytes.as_bytes()).await;
        let answered = String::from_utf8_lossy(&said.bytes).matches("HTTP/1.1 ").count();
        if (said.first_line().as_str(), answered) != (first, answers) {
            wrong.push(format!("{what}: {answered} of {}", said.first_line()));
        }
        assert_eq!(node.control().tokens(), tokens, "{what}: a token was made");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Two honest requests on one connection are both answered, and do what they say.
    let host = address.to_string();
    let rotate = format!("POST /v1/tokens/rotate HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n");
    let said = sent(&[], format!("{rotate}\r\n{rotate}Connection: close\r\n\r\n").as_bytes()).await;
    assert_eq!(String::from_utf8_lossy(&said.bytes).matches(FINE).count(), 2, "{said:?}");
    assert_ne!(node.control().tokens(), tokens);
    // HTTP/2 is not agreed on.
    let said = sent(&[b"h2"], &raw::http2::preface()).await;
    assert_eq!((said.alert, said.bytes.len()), (Some(AlertDescription::NoApplicationProtocol), 0));
}
