//! Stock HTTP clients at a member that embeds an axum app and has joined a live cluster of three: the JDK's HttpClient,
//! fetch of Node and curl_cffi, in HTTP/2 and HTTP/1.1. `cargo xtask interop` installs them and runs this.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod interop;
mod support_cluster;

use interop::app::{App, PAGE, be_the_member_if_told};
use interop::{Client, Files, Report, allow, beside, installed};
use support_cluster::World;

/// All that an HTTP client is led through; the member that it asks is not the one that is told of the revocation.
fn judge(name: &'static str, version: &str, client: &Client) {
    be_the_member_if_told();
    let mut report = Report::new(name);
    let world = World::new();
    let nodes = world.voters(3);
    let mut app = App::join(&world, &nodes[2]);
    let (pay, target) = (Files::issue(&world, &nodes[0], "pay"), app.target());
    for resource in ["service:/orders", "service:/ticks"] {
        allow(&nodes[0], "client/pay", resource);
    }
    report.tries("unary");
    let said = client.tries(&target, &pay);
    report.version(said.of("version"));
    said.says("unary", &[&format!("200 {PAGE} by {version} ")]);
    report.tries("stream");
    said.says("stream", &["tick"]);
    report.tries("deadline");
    said.says("deadline", &["timeout", "timed out"]);
    report.tries("cancellation");
    said.says("cancelled", &["CANCELLED", "CancellationException", "AbortError"]);
    said.says("alive", &[&format!("200 {PAGE}")]);
    report.tries("denial");
    said.says("denied", &["403"]);
    report.tries("restart");
    let running = client.begins("restart", "open", &target, &pay);
    app.restart();
    let said = running.goes_on();
    said.says("before", &["200"]);
    // The member stopped while the stream was open.
    said.says("stopped", &["failed"]);
    said.says("after", &["200"]);
    report.tries("revocation");
    let running = client.begins("watch", "watching", &target, &pay);
    nodes[0].ask(&["cert", "revoke", &pay.key_id]).ok();
    let said = running.ends();
    said.says("cut", &["failed"]);
    said.says("again", &["403"]);
    said.says("again", &["failure_id"]);
}

fn jdk(last: &'static [&'static str]) -> Client {
    Client::new(&["java", &beside("jdk_client.java")], last)
}

fn node(last: &'static [&'static str]) -> Client {
    Client::new(&["node", &beside("client.mjs")], last)
}

fn cffi(last: &'static [&'static str]) -> Client {
    Client::new(&[&installed("python/bin/python"), &beside("cffi.py")], last)
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn jdk_http_client_is_served_in_http_2() {
    judge("JDK HttpClient, HTTP/2", "HTTP/2.0", &jdk(&["2"]));
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn jdk_http_client_is_served_in_http_1() {
    judge("JDK HttpClient, HTTP/1.1", "HTTP/1.1", &jdk(&["1"]));
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn fetch_of_node_is_served_in_http_2() {
    judge("Node fetch, HTTP/2", "HTTP/2.0", &node(&["2"]));
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn fetch_of_node_is_served_in_http_1() {
    judge("Node fetch, HTTP/1.1", "HTTP/1.1", &node(&["1"]));
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn curl_cffi_is_served_in_http_2() {
    judge("curl_cffi, HTTP/2", "HTTP/2.0", &cffi(&["2"]));
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn curl_cffi_is_served_in_http_1() {
    judge("curl_cffi, HTTP/1.1", "HTTP/1.1", &cffi(&["1"]));
}
