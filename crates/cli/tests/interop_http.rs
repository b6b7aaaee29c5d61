//! Stock HTTP clients at a member that embeds an axum app and has joined a live cluster of three, and at a remote guard
//! with the same app: the JDK's HttpClient, fetch of Node and curl_cffi, in HTTP/2 and HTTP/1.1. `cargo xtask interop`
//! installs them and runs this.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod interop;
mod remote;
mod support_cluster;

use interop::app::{App, PAGE, be_the_member_if_told, pages};
use interop::{Client, Files, Report, allow, beside, installed};
use remote::Remote;
use support_cluster::{Node, World};

/// Who serves the app.
enum Server {
    Member(Box<App>),
    Remote(Box<Remote>),
}

impl Server {
    fn target(&self) -> String {
        match self {
            Self::Member(app) => app.target(),
            Self::Remote(remote) => remote.target(),
        }
    }

    fn restart(&mut self) {
        match self {
            Self::Member(app) => app.restart(),
            Self::Remote(remote) => remote.restart(),
        }
    }
}

/// At a member that joins a cluster of three.
fn judge(name: &'static str, version: &str, client: &Client) {
    be_the_member_if_told();
    let report = Report::new(name);
    let world = World::new();
    let nodes = world.voters(3);
    let server = Server::Member(Box::new(App::join(&world, &nodes[2])));
    led(report, version, &world, &nodes[0], server, client);
}

/// At a remote guard that follows a member.
fn judge_at_a_remote_guard(name: &'static str, version: &str, client: &Client) {
    let report = Report::new(name);
    let world = World::new();
    let nodes = world.voters(3);
    let server = Server::Remote(Box::new(Remote::following(&world, &nodes[0], &nodes[2], pages)));
    led(report, version, &world, &nodes[0], server, client);
}

/// All that an HTTP client is led through; `admin` is told of the revocation, and the client does not ask it.
fn led(mut report: Report, version: &str, world: &World, admin: &Node, mut server: Server, client: &Client) {
    let (pay, target) = (Files::issue(world, admin, "pay"), server.target());
    for resource in ["service:/orders", "service:/ticks"] {
        allow(admin, "client/pay", resource);
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
    server.restart();
    let said = running.goes_on();
    said.says("before", &["200"]);
    // The server stopped while the stream was open.
    said.says("stopped", &["failed"]);
    said.says("after", &["200"]);
    report.tries("revocation");
    let running = client.begins("watch", "watching", &target, &pay);
    admin.ask(&["cert", "revoke", &pay.key_id]).ok();
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

#[test]
#[ignore = "run by cargo xtask interop"]
fn jdk_http_client_is_served_by_a_remote_guard() {
    judge_at_a_remote_guard("JDK HttpClient, HTTP/2, remote guard", "HTTP/2.0", &jdk(&["2"]));
    judge_at_a_remote_guard("JDK HttpClient, HTTP/1.1, remote guard", "HTTP/1.1", &jdk(&["1"]));
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn fetch_of_node_is_served_by_a_remote_guard() {
    judge_at_a_remote_guard("Node fetch, HTTP/2, remote guard", "HTTP/2.0", &node(&["2"]));
    judge_at_a_remote_guard("Node fetch, HTTP/1.1, remote guard", "HTTP/1.1", &node(&["1"]));
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn curl_cffi_is_served_by_a_remote_guard() {
    judge_at_a_remote_guard("curl_cffi, HTTP/2, remote guard", "HTTP/2.0", &cffi(&["2"]));
    judge_at_a_remote_guard("curl_cffi, HTTP/1.1, remote guard", "HTTP/1.1", &cffi(&["1"]));
}
