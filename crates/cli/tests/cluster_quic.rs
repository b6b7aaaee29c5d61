//! Clients over QUIC at a live cluster: aioquic, with nothing but a certificate, its key, the certificate of the
//! authority, and what `docs/PROTOCOL.md` says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use support_cluster::{Node, World, authority_pem, run};

/// Where `.ci/run` puts the Python libraries of the tests.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/python/bin/python");

/// The rule that allows an echo.
const ECHO: [&str; 6] =
    ["--principal", "client/pay", "--action", "write", "--resource", "service:countersign.v1.Echo/Echo"];

/// A client with its files.
struct Client {
    files: [String; 3],
    key_id: String,
}

impl Client {
    fn issue(world: &World, node: &Node, name: &str) -> Self {
        let out = world.path("issued");
        let made = node.ask(&["cert", "issue", "--client", name, "--out", out.to_str().unwrap()]).ok().json();
        let authorities = world.path("authorities.pem");
        std::fs::write(&authorities, authority_pem(&node.data)).unwrap();
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        let files = [out.join(format!("{name}.pem")), out.join(format!("{name}.key")), authorities].map(path);
        Self { files, key_id: made["key"].as_str().unwrap().to_owned() }
    }

    fn command(&self, what: &str, target: &str) -> Command {
        let mut command = Command::new(PYTHON);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stacks/quic.py");
        command.args([script, what, target]).args(&self.files);
        command
    }

    /// What the client said. One that fails is a failure.
    fn says(&self, what: &str, target: &str) -> String {
        let output = self.command(what, target).output().unwrap_or_else(|error| panic!("{error}; .ci/run installs it"));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{what}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }
}

fn client_port(node: &Node) -> String {
    let endpoints = std::fs::read(node.data.join("endpoints.json")).unwrap();
    let endpoints: serde_json::Value = serde_json::from_slice(&endpoints).unwrap();
    endpoints["client"].as_str().unwrap().to_owned()
}

/// The line that begins with this word.
fn line<'a>(lines: &'a str, word: &str) -> &'a str {
    let found = lines.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no `{word}` in\n{lines}"))
}

#[test]
fn aioquic_asks_and_is_answered_as_the_page_says() {
    let world = World::new();
    let nodes = world.voters(3);
    let pay = Client::issue(&world, &nodes[0], "pay");
    // No rule allows an echo yet, and a denied caller learns no more than that.
    let said = pay.says("ask", &client_port(&nodes[0]));
    assert!(line(&said, "whoami").ends_with("/client/pay"), "{said}");
    for denied in ["echo", "nothing", "too-large", "short", "longest"] {
        assert!(line(&said, denied).starts_with("denied"), "{denied}: {said}");
    }
    assert!(line(&said, "echo").starts_with("denied denied (generation "), "{said}");
    nodes[0].ask(&[&["acl", "add"], &ECHO[..], &["--wait"]].concat()).ok();
    for node in &nodes {
        let said = pay.says("ask", &client_port(node));
        for whoami in ["whoami", "open", "more"] {
            let answer = line(&said, whoami);
            assert!(answer.starts_with("ok spiffe://") && answer.ends_with("/client/pay"), "{whoami}: {said}");
        }
        assert_eq!((line(&said, "echo"), line(&said, "nothing")), ("ok hello", "ok "), "{said}");
        assert_eq!((line(&said, "longest"), line(&said, "many")), ("ok 65536 True", "200"), "{said}");
        assert!(line(&said, "too-large").starts_with("too-large 65537 bytes"), "{said}");
        for malformed in ["kind", "empty", "short"] {
            assert!(line(&said, malformed).starts_with("malformed"), "{malformed}: {said}");
        }
    }
}

#[test]
fn request_that_comes_slowly_is_reset_after_ten_seconds_and_holds_up_no_other() {
    let world = World::new();
    let node = world.founder();
    let pay = Client::issue(&world, &node, "pay");
    node.ask(&[&["acl", "add"], &ECHO[..], &["--wait"]].concat()).ok();
    let said = pay.says("slow", &client_port(&node));
    let slow: Vec<&str> = line(&said, "slow").split(' ').collect();
    assert_eq!(slow[..2], ["reset", "0x112"], "{said}");
    assert!((10..20).contains(&slow[2].parse::<u64>().unwrap()), "{said}");
    assert_eq!((line(&said, "meanwhile"), line(&said, "after")), ("ok", "ok"), "{said}");
}

#[test]
fn answer_that_is_left_unread_is_reset_after_ten_seconds() {
    let world = World::new();
    let node = world.founder();
    let pay = Client::issue(&world, &node, "pay");
    node.ask(&[&["acl", "add"], &ECHO[..], &["--wait"]].concat()).ok();
    let said = pay.says("unread", &client_port(&node));
    let never: Vec<&str> = line(&said, "never").split(' ').collect();
    assert_eq!(never[..2], ["reset", "0x112"], "{said}");
    assert!((10..20).contains(&never[2].parse::<u64>().unwrap()), "{said}");
    assert_eq!(line(&said, "late"), "ok True", "{said}");
}

/// 64 streams on each of 64 connections would be sixteen times what the same certificate may ask for over TCP.
#[test]
fn client_with_many_streams_has_so_many_requests_under_way_and_no_more() {
    let world = World::new();
    let node = world.founder();
    let (pay, shop) = (Client::issue(&world, &node, "pay"), Client::issue(&world, &node, "shop"));
    node.ask(&[&["acl", "add"], &ECHO[..], &["--wait"]].concat()).ok();
    let target = client_port(&node);
    let said = pay.says("greedy", &target);
    assert_eq!(line(&said, "past"), "busy 256 requests of client/pay are under way here", "{said}");
    assert_eq!((line(&said, "held"), line(&said, "after")), ("ok", "ok"), "{said}");
    assert!(shop.says("ask", &target).contains("whoami ok"));
}

/// A caller that was allowed to begin and sends the rest after the rule was removed.
#[test]
fn request_whose_rule_ends_while_its_bytes_come_is_denied() {
    let world = World::new();
    let node = world.founder();
    let (pay, target) = (Client::issue(&world, &node, "pay"), client_port(&node));
    node.ask(&[&["acl", "add"], &ECHO[..], &["--wait"]].concat()).ok();
    let mut child = pay.command("overtaken", &target).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut lines = String::new();
    output.read_line(&mut lines).unwrap();
    node.ask(&[&["acl", "remove"], &ECHO[..], &["--wait"]].concat()).ok();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    output.read_to_string(&mut lines).unwrap();
    assert!(child.wait().unwrap().success(), "{lines}");
    assert_eq!(line(&lines, "answer"), "denied", "{lines}");
}

/// A request may take ten seconds to come and its answer ten to go. A member that stops waits for ten in all.
#[test]
fn client_that_asks_late_and_reads_nothing_does_not_hold_up_a_stop() {
    let world = World::new();
    let mut node = world.founder();
    let (pay, target) = (Client::issue(&world, &node, "pay"), client_port(&node));
    node.ask(&[&["acl", "add"], &ECHO[..], &["--wait"]].concat()).ok();
    let mut child = pay.command("stopping", &target).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut lines = String::new();
    output.read_line(&mut lines).unwrap();
    let begun = Instant::now();
    assert!(node.stop().success());
    let took = begun.elapsed().as_secs();
    output.read_line(&mut lines).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!((8..14).contains(&took), "stopped after {took} s");
    assert_eq!(line(&lines, "cut").trim(), "application 0x0", "{lines}");
}

#[test]
fn revocation_closes_the_connection_with_code_and_reason_and_the_next_one_too() {
    let world = World::new();
    let node = world.founder();
    let (pay, target) = (Client::issue(&world, &node, "pay"), client_port(&node));
    let mut child = pay.command("watch", &target).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    output.read_line(&mut first).unwrap();
    assert_eq!(first.trim(), "watching");
    node.ask(&["cert", "revoke", &pay.key_id]).ok();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    assert_eq!(line(&rest, "cut"), "application 0x106 key is revoked", "{rest}");
    let again = line(&rest, "again");
    assert!(again.starts_with("application 0x106 key is revoked (failure "), "{rest}");
    let failure = again.rsplit("failure ").next().unwrap().trim_end_matches(')');
    let explained = run(&["explain", failure, "--data", node.data.to_str().unwrap()]);
    assert!(explained.code == 0 && explained.stdout.contains("revoked"), "{explained:?}");
}

#[test]
fn member_that_stops_closes_its_connections_without_a_refusal() {
    let world = World::new();
    let mut node = world.founder();
    let (pay, target) = (Client::issue(&world, &node, "pay"), client_port(&node));
    let mut child = pay.command("watch", &target).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut lines = String::new();
    output.read_line(&mut lines).unwrap();
    assert!(node.stop().success());
    output.read_line(&mut lines).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(line(&lines, "cut").trim(), "application 0x0", "{lines}");
}

#[test]
fn strangers_end_with_the_alerts_of_the_page() {
    let world = World::new();
    let node = world.founder();
    let said = Client::issue(&world, &node, "pay").says("strangers", &client_port(&node));
    // `certificate_required` (116) and `no_application_protocol` (120).
    assert!(line(&said, "bare").starts_with("transport 0x174 "), "{said}");
    assert!(line(&said, "h3").starts_with("transport 0x178 "), "{said}");
}

#[test]
fn udp_port_in_use_is_told_as_a_tcp_port_is_and_without_a_client_port_there_is_none() {
    let world = World::new();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut node = world.node("n1");
    node.start(&["--bootstrap", "--cluster-name", "test", "--client-addr", &address]);
    let said = node.until_ended();
    for expected in ["cannot listen on", &address, "UDP", "in use", "--client-addr"] {
        assert!(said.contains(expected), "no {expected}: {said}");
    }
    drop(taken);
    // Without a client port neither number is bound: another process may have both.
    let mut other = world.node("n2");
    other.start(&["--bootstrap", "--cluster-name", "test", "--client-addr", "none"]);
    other.until_ready();
    let sockets = std::fs::read_to_string(format!("/proc/{}/net/udp", other.pid())).unwrap();
    let held = held_sockets(other.pid());
    let udp = sockets.lines().skip(1).filter_map(|line| line.split_whitespace().nth(9));
    let own: Vec<&str> = udp.filter(|inode| held.contains(&format!("socket:[{inode}]"))).collect();
    assert!(own.is_empty(), "{own:?}");
}

/// What the descriptors of a process lead to.
fn held_sockets(pid: u32) -> Vec<String> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.map(|link| link.to_string_lossy().into_owned()).collect()
}
