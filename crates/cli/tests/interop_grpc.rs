//! Stock gRPC clients at a live cluster of three: grpc-java, grpc-js and grpc-go, each with nothing but a certificate,
//! its key and the certificate of the authority. `cargo xtask interop` installs them and runs this.
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

use std::process::Command;

use interop::{Client, Files, Report, beside, endpoint, installed, printed, restarted};
use support_cluster::World;

/// All that a gRPC client is led through; the member that it calls is not the one that is told of the revocation.
fn judge(name: &'static str, client: impl FnOnce(&World) -> Client) {
    let mut report = Report::new(name);
    let world = World::new();
    let client = client(&world);
    let mut nodes = world.voters(3);
    let (pay, target) = (Files::issue(&world, &nodes[0], "pay"), endpoint(&nodes[1], "client"));
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
    restarted(&mut nodes[1]);
    let said = running.goes_on();
    said.says("before", &["0801"]);
    // The member stopped while the stream was open.
    said.says("stopped", &["UNAVAILABLE"]);
    said.says("after", &["0801"]);
    report.tries("revocation");
    let running = client.begins("watch", "watching", &target, &pay);
    nodes[0].ask(&["cert", "revoke", &pay.key_id]).ok();
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

#[test]
#[ignore = "run by cargo xtask interop"]
fn grpc_java_calls_and_is_answered_in_its_own_terms() {
    judge("grpc-java", |_| {
        let jars: Vec<String> = JARS.iter().map(|jar| format!("/usr/share/java/{jar}.jar")).collect();
        let libraries = format!("-Djava.library.path={}", installed("jni"));
        Client::new(&["java", &libraries, "-cp", &jars.join(":"), &beside("grpc_client.java")], &[])
    });
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn grpc_js_calls_and_is_answered_in_its_own_terms() {
    judge("grpc-js", |_| Client::new(&["node", &beside("client.mjs")], &["grpc"]));
}

#[test]
#[ignore = "run by cargo xtask interop"]
fn grpc_go_calls_and_is_answered_in_its_own_terms() {
    judge("grpc-go", |world| {
        let built = world.path("grpc-go");
        let built = built.to_str().unwrap();
        // Debian's libraries are sources in a tree of their own, without modules.
        let mut go = Command::new("go");
        go.args(["build", "-o", built, &beside("grpc_client.go")]);
        printed(go.envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode"), ("GOFLAGS", "")]));
        Client::new(&[built], &[])
    });
}
