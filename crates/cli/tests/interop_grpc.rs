//! Stock gRPC clients at a live cluster of three, and at a remote guard of it: grpc-java, grpc-js and grpc-go, each
//! with nothing but a certificate, its key and the certificate of the authority. `cargo xtask interop` installs them
//! and runs this.
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

use std::process::Command;

use interop::app::pages;
use interop::{Client, Files, Report, beside, endpoint, installed, printed, restarted};
use remote::Remote;
use support_cluster::{Node, World};

/// Who serves the client.
enum Server {
    Member(Box<Node>),
    Remote(Box<Remote>),
}

impl Server {
    fn target(&self) -> String {
        match self {
            Self::Member(node) => endpoint(node, "client"),
            Self::Remote(remote) => remote.target(),
        }
    }

    fn restart(&mut self) {
        match self {
            Self::Member(node) => restarted(node),
            Self::Remote(remote) => remote.restart(),
        }
    }
}

/// At a member of a cluster of three.
fn judge(name: &'static str, client: impl FnOnce(&World) -> Client) {
    let report = Report::new(name);
    let world = World::new();
    let client = client(&world);
    let mut nodes = world.voters(3);
    let server = Server::Member(Box::new(nodes.remove(1)));
    led(report, &world, &nodes[0], server, &client);
}

/// At a remote guard that follows a member.
fn judge_at_a_remote_guard(name: &'static str, client: impl FnOnce(&World) -> Client) {
    let report = Report::new(name);
    let world = World::new();
    let client = client(&world);
    let nodes = world.voters(3);
    let server = Server::Remote(Box::new(Remote::following(&world, &nodes[0], &nodes[2], pages)));
    led(report, &world, &nodes[0], server, &client);
}

/// All that a gRPC client is led through; `admin` is told of the revocation, and the client does not call it.
fn led(mut report: Report, world: &World, admin: &Node, mut server: Server, client: &Client) {
    let (pay, target) = (Files::issue(world, admin, "pay"), server.target());
    report.tries("unary");
    let said = client.tries(&target, &pay);
    report.version(said.of("version"));
    // `status: SERVING`.
    said.says("unary", &["0801"]);
    said.says("whoami", &[&data_encoding::HEXLOWER.encode(b"/client/pay")]);
    report.tries("stream");
    said.says("stream", &["0801"]);
    report.tries("deadline");
    said.says("deadline", &["DEADLINE_EXCEEDED"]);
    report.tries("cancellation");
    // One word in Go, another elsewhere.
    said.says("cancelled", &["CANCELLED", "Canceled"]);
    said.says("alive", &["0801"]);
    report.tries("denial");
    said.says("denied", &["PERMISSION_DENIED"]);
    report.tries("restart");
    let running = client.begins("restart", "open", &target, &pay);
    server.restart();
    let said = running.goes_on();
    said.says("before", &["0801"]);
    // The server stopped while the stream was open.
    said.says("stopped", &["UNAVAILABLE"]);
    said.says("after", &["0801"]);
    report.tries("revocation");
    let running = client.begins("watch", "watching", &target, &pay);
    admin.ask(&["cert", "revoke", &pay.key_id]).ok();
    let said = running.ends();
    said.says("cut", &["UNAVAILABLE"]);
    said.says("again", &["PERMISSION_DENIED"]);
    said.says("again", &["revoked"]);
}

/// The jars that Debian's libgrpc-java needs at run time.
const JARS: [&str; 18] = [
    "grpc-api",
    "grpc-context",
    "grpc-core",
    "grpc-netty",
    "grpc-stub",
    "guava",
    "netty-buffer",
    "netty-codec",
    "netty-codec-http",
    "netty-codec-http2",
    "netty-common",
    "netty-handler",
    "netty-handler-proxy",
    "netty-resolver",
    "netty-tcnative",
    "netty-transport",
    "opencensus-api",
    "perfmark-api",
];

fn java(_: &World) -> Client {
    let jars: Vec<String> = JARS.iter().map(|jar| format!("/usr/share/java/{jar}.jar")).collect();
    let libraries = format!("-Djava.library.path={}", installed("jni"));
    Client::new(&["java", &libraries, "-cp", &jars.join(":"), &beside("grpc_client.java")], &[])
}

fn js(_: &World) -> Client {
    Client::new(&["node", &beside("client.mjs")], &["grpc"])
}

fn go(world: &World) -> Client {
    let built = world.path("grpc-go");
    let built = built.to_str().unwrap();
    // Debian's libraries are sources in a tree of their own, without modules.
    let mut go = Command::new("go");
    go.args(["build", "-o", built, &beside("grpc_client.go")]);
    printed(go.envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode"), ("GOFLAGS", "")]));
    Client::new(&[built], &[])
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn grpc_java_calls_and_is_answered_in_its_own_terms() {
    judge("grpc-java", java);
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn grpc_js_calls_and_is_answered_in_its_own_terms() {
    judge("grpc-js", js);
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn grpc_go_calls_and_is_answered_in_its_own_terms() {
    judge("grpc-go", go);
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn grpc_java_is_answered_by_a_remote_guard() {
    judge_at_a_remote_guard("grpc-java, remote guard", java);
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn grpc_js_is_answered_by_a_remote_guard() {
    judge_at_a_remote_guard("grpc-js, remote guard", js);
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn grpc_go_is_answered_by_a_remote_guard() {
    judge_at_a_remote_guard("grpc-go, remote guard", go);
}
