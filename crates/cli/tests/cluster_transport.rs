//! The ports of running processes, seen with tools of others and by callers that should not get in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response};
use support_cluster::{Node, World, authority_pem, http, run};

fn openssl() -> bool {
    let there = Command::new("openssl").arg("version").output().is_ok_and(|o| o.status.success());
    if !there {
        println!("skipped: no openssl");
        assert!(std::env::var_os("CI").is_none(), "the gate installs openssl");
    }
    there
}

/// What `openssl s_client` says when it dials with these flags and hangs up.
fn s_client(address: &str, flags: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", address])
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn issue(node: &Node, out: &Path, kind: &str, name: &str) {
    node.ask(&["cert", "issue", kind, name, "--out", out.to_str().unwrap()]).ok();
}

#[test]
fn tls_1_2_is_refused() {
    if !openssl() {
        return;
    }
    let world = World::new();
    let node = world.founder();
    let said = s_client(&node.address(), &["-tls1_2", "-alpn", "countersign/1 enroll"]);
    assert!(said.contains("alert"), "{said}");
    assert!(!said.contains("BEGIN CERTIFICATE"), "{said}");
}

#[test]
fn a_client_hello_names_exactly_one_protocol_of_ours_or_sees_no_certificate() {
    if !openssl() {
        return;
    }
    let world = World::new();
    let node = world.founder();
    for flags in [
        &["-tls1_3"][..],
        &["-tls1_3", "-alpn", "h2"],
        &["-tls1_3", "-alpn", "countersign/1 enroll,countersign/1 peer"],
        &["-tls1_3", "-alpn", "countersign/1 enroll,h2"],
        &["-tls1_3", "-alpn", "countersign/2 enroll"],
    ] {
        let said = s_client(&node.address(), flags);
        assert!(!said.contains("BEGIN CERTIFICATE"), "{flags:?}: {said}");
    }
    let said = s_client(&node.address(), &["-tls1_3", "-alpn", "countersign/1 enroll"]);
    assert!(said.contains("BEGIN CERTIFICATE"), "{said}");
}

#[test]
fn no_session_is_ever_resumed_on_the_client_port() {
    if !openssl() {
        return;
    }
    let world = World::new();
    let node = world.founder();
    let out = world.path("certificates");
    issue(&node, &out, "--client", "pay");
    let (cert, key) = (out.join("pay.pem"), out.join("pay.key"));
    let flags = ["-tls1_3", "-alpn", "h2", "-cert", cert.to_str().unwrap(), "-key", key.to_str().unwrap()];
    let said = s_client(&node.client_address(), &flags);
    assert!(said.contains("ALPN protocol: h2"), "{said}");
    assert!(!said.contains("New Session Ticket arrived") && !said.contains("Reused, TLS"), "{said}");
}

#[test]
fn the_ca_key_is_in_clear_nowhere_on_disk() {
    let world = World::new();
    let ca = world.path("ca");
    run(&["security", "ca", "create", "--trust-domain", "east.internal", "--out", ca.to_str().unwrap()]).ok();
    let mut node = world.node("n1");
    node.start(&["--bootstrap", "--ca", ca.to_str().unwrap()]);
    node.until_ready();
    let token = node.token(&["--role", "voter"]);
    let mut second = world.node("n2");
    world.join(&mut second, &token, &node.address());
    second.until_settled(2);
    node.kill();
    second.kill();
    let pem = std::fs::read_to_string(ca.join("ca.key")).unwrap();
    let base64 = pem.lines().nth(1).unwrap().to_owned();
    // The private key of a P-256 key in PKCS#8 follows the version of its `ECPrivateKey` (RFC 5915 §3).
    let der = decode(&pem.lines().filter(|l| !l.starts_with('-')).collect::<String>());
    let at = der.windows(5).position(|w| w == [0x02, 0x01, 0x01, 0x04, 0x20]).expect("a P-256 key") + 5;
    let seed = der[at..at + 32].to_vec();
    let hex: String = seed.iter().map(|b| format!("{b:02x}")).collect();
    let mut searched = 0;
    for data in [&node.data, &second.data] {
        for file in walk(data) {
            let bytes = std::fs::read(&file).unwrap_or_default();
            searched += bytes.len();
            for canary in [seed.as_slice(), base64.as_bytes(), hex.as_bytes()] {
                assert!(!bytes.windows(canary.len()).any(|w| w == canary), "{}", file.display());
            }
        }
    }
    assert!(searched > 1000, "nothing was searched");
}

fn decode(base64: &str) -> Vec<u8> {
    let mut child = Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(base64.as_bytes()).unwrap();
    child.wait_with_output().unwrap().stdout
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn clients_made_offline_under_an_imported_authority_are_served_and_admins_are_not() {
    if !openssl() {
        return;
    }
    let world = World::new();
    let ca = world.path("ca");
    let dir = ca.to_str().unwrap();
    run(&["security", "ca", "create", "--trust-domain", "east.internal", "--out", dir]).ok();
    run(&["security", "certs", "create-client", "--principal", "pay", "--ca", dir, "--out", dir]).ok();
    let mut node = world.node("n1");
    node.start(&["--bootstrap", "--ca", dir]);
    let status = node.until_ready();
    assert_eq!(
        (status["trust_domain"].as_str(), status["authority"]["imported"].as_bool()),
        (Some("east.internal"), Some(true))
    );
    let (cert, key) = (ca.join("pay.pem"), ca.join("pay.key"));
    let credential = ["-cert", cert.to_str().unwrap(), "-key", key.to_str().unwrap()];
    let said = s_client(&node.client_address(), &[&["-tls1_3", "-alpn", "h2"][..], &credential].concat());
    assert!(said.contains("BEGIN CERTIFICATE") && !said.contains("alert"), "{said}");
}

#[test]
fn the_https_port_takes_an_admin_certificate_and_nothing_else() {
    let world = World::new();
    let mut node = world.node("n1");
    node.start(&["--bootstrap", "--cluster-name", "test", "--https-addr", "127.0.0.1:0"]);
    node.until_ready();
    let endpoints: serde_json::Value =
        serde_json::from_slice(&std::fs::read(node.data.join("endpoints.json")).unwrap()).unwrap();
    let https = endpoints["https"].as_str().unwrap().to_owned();
    let out = world.path("certificates");
    issue(&node, &out, "--admin", "root");
    issue(&node, &out, "--client", "pay");
    let ca = world.path("ca.pem");
    std::fs::write(&ca, authority_pem(&node.data)).unwrap();
    let ask = |name: &str, command: &[&str]| {
        let (cert, key) = (out.join(format!("{name}.pem")), out.join(format!("{name}.key")));
        let target = [
            "--server",
            &https,
            "--identity",
            cert.to_str().unwrap(),
            "--identity-key",
            key.to_str().unwrap(),
            "--ca",
            ca.to_str().unwrap(),
            "--json",
        ];
        run(&[command, &target[..]].concat())
    };
    let status = ask("root", &["status"]).ok().json();
    assert_eq!(status["name"], "n1");
    ask("root", &["token", "create"]).ok();
    let refused = ask("pay", &["status"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("may not describe cluster"), "{refused:?}");
    // Revoked, the admin is no principal.
    let list = node.ask(&["cert", "list"]).ok().json();
    let list = list.as_array().unwrap();
    let root = list.iter().find(|c| c["principal"].as_str().unwrap().ends_with("/admin/root")).unwrap();
    node.ask(&["cert", "revoke", root["key"].as_str().unwrap()]).ok();
    let refused = ask("root", &["status"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("revoked"), "{refused:?}");
}

#[test]
fn headers_in_which_a_proxy_claims_a_certificate_are_not_believed() {
    if !openssl() {
        return;
    }
    let world = World::new();
    let mut node = world.node("n1");
    node.start(&["--bootstrap", "--cluster-name", "test", "--https-addr", "127.0.0.1:0"]);
    node.until_ready();
    let endpoints: serde_json::Value =
        serde_json::from_slice(&std::fs::read(node.data.join("endpoints.json")).unwrap()).unwrap();
    let https = endpoints["https"].as_str().unwrap().to_owned();
    for (path, headers, expected) in [
        ("/healthz", &[][..], 200),
        ("/metrics", &[], 200),
        ("/v1/status", &[], 401),
        (
            "/v1/status",
            &[("x-forwarded-client-cert", "URI=spiffe://x/admin/root"), ("x-ssl-client-verify", "SUCCESS")],
            401,
        ),
        ("/v1/tokens", &[("authorization", "Bearer admin")], 401),
        ("/v1/nowhere", &[], 401),
    ] {
        let mut request = http::request("GET", path);
        request.headers_mut().insert("host", https.parse().unwrap());
        request.headers_mut().extend(
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))),
        );
        let answer = http::runtime().block_on(over_openssl(&https, request)).unwrap();
        assert_eq!(answer.status(), expected, "{path}: {answer:?}");
    }
}

/// The answer to a request that the command `openssl` carries, without a certificate.
async fn over_openssl(address: &str, request: Request<Empty<Bytes>>) -> Option<Response<Bytes>> {
    let mut client = tokio::process::Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let stream = tokio::io::join(client.stdout.take().unwrap(), client.stdin.take().unwrap());
    http::exchanged(stream, request).await
}

#[test]
fn a_crowd_of_silent_callers_leaves_the_members_alone() {
    let world = World::new();
    let nodes = world.voters(3);
    let address = nodes[0].address();
    // More than the places for handshakes; each says nothing, or half a word.
    let crowd: Vec<TcpStream> = (0..300)
        .filter_map(|i| {
            let mut stream = TcpStream::connect(&address).ok()?;
            if i % 2 == 0 {
                let _ = stream.write_all(&[0x16, 0x03, 0x01, 0x40, 0x00]);
            }
            Some(stream)
        })
        .collect();
    assert!(crowd.len() > 100);
    let token = nodes[1].token(&["--role", "learner"]);
    let mut fourth = world.node("n4");
    world.join(&mut fourth, &token, &nodes[1].address());
    nodes[0].until_settled(4);
    drop(crowd);
}
