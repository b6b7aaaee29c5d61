//! What an operator is shown of leases, lifetimes and revocations: receipts in a table, which members are waited for,
//! and how commands end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use serde_json::Value;
use support_cluster::{Node, Said, World, run};

/// As text, as a person or a pipe reads it.
fn told(node: &Node, command: &[&str]) -> Said {
    run(&[command, &["--data", node.data.to_str().unwrap()]].concat())
}

fn issue(world: &World, node: &Node, flags: &[&str]) -> Value {
    let out = world.path("certificates");
    node.ask(&[&["cert", "issue", "--force", "--out", out.to_str().unwrap()], flags].concat()).ok().json()
}

#[test]
fn receipts_of_every_member_are_shown_and_a_repetition_is_as_good() {
    let world = World::new();
    let nodes = world.voters(3);
    let key = issue(&world, &nodes[0], &["--client", "pay"])["key"].as_str().unwrap().to_owned();
    issue(&world, &nodes[0], &["--client", "pay"]);
    let revoked = told(&nodes[1], &["cert", "revoke", &key]).ok();
    let lines: Vec<&str> = revoked.stdout.lines().collect();
    assert!(lines[0].starts_with(&format!("key {key} of spiffe://")) && lines[0].contains("/client/pay is refused"));
    assert_eq!(lines[1], "MEMBER\tSTATE\tCONNECTIONS CLOSED\tAT\tSIGNED");
    for (line, name) in lines[2..].iter().zip(["n1", "n2", "n3"]) {
        let cells: Vec<&str> = line.split('\t').collect();
        assert_eq!(cells[..3], [name, "refuses it", "0"], "{line}");
        assert!(cells[3].contains('T') && cells[3].ends_with("ago)"), "{line}");
        assert_eq!(cells[4].chars().count(), 17, "{line}");
    }
    assert_eq!(lines.len(), 5, "{lines:?}");
    let again = told(&nodes[2], &["cert", "revoke", &key]).ok();
    assert!(again.stdout.contains("as before"), "{}", again.stdout);
    // By principal: the rest of its keys, and by JSON everything that was signed.
    let all = nodes[2].ask(&["cert", "revoke", "client/pay"]).ok().json();
    assert_eq!((all["keys"].as_u64(), all["enforcement"]["complete"].as_bool()), (Some(2), Some(true)));
    for member in all["enforcement"]["members"].as_array().unwrap() {
        assert_eq!(member["receipt"]["signature"].as_str().unwrap().len(), 128, "{member}");
        assert_eq!(member["receipt"]["boot"].as_str().unwrap().len(), 32, "{member}");
    }
    let status = told(&nodes[0], &["status"]).ok().stdout;
    for expected in ["lease:\t", " s left of 10\n", "renews:\t20", "certificate expires:\t20"] {
        assert!(status.contains(expected), "no `{expected}` in\n{status}");
    }
}

#[test]
fn a_member_that_is_gone_is_named_with_the_end_of_its_lease_and_by_status_until_it_is_back() {
    let world = World::new();
    let mut nodes = vec![world.node("n1")];
    nodes[0].start_with(&["--bootstrap", "--cluster-name", "test"], &[("COUNTERSIGN_TRUST_LEASE_SECS", "2")]);
    nodes[0].until_ready();
    for name in ["n2", "n3"] {
        let token = nodes[0].token(&["--role", "voter"]);
        let mut node = world.node(name);
        world.join(&mut node, &token, &nodes[0].address());
        nodes.push(node);
        let members = nodes.len();
        nodes.iter().for_each(|node| drop(node.until_settled(members)));
    }
    // The founder's lease is everybody's.
    assert_eq!(nodes[2].status()["lease_secs"], 2);
    issue(&world, &nodes[0], &["--client", "pay"]);
    nodes[2].kill();
    nodes[0].until(|status| status["ready"] == true);
    let revoked = told(&nodes[0], &["cert", "revoke", "client/pay"]).ok();
    let absent: Vec<&str> = revoked.stdout.lines().filter(|line| line.starts_with("n3\t")).collect();
    assert_eq!(absent.len(), 1, "{}", revoked.stdout);
    assert!(absent[0].contains("its lease has run out, it serves no client") && absent[0].ends_with('…'), "{absent:?}");
    let status = nodes[0].until(|status| status["waiting_for"].as_array().is_some_and(|list| !list.is_empty()));
    assert_eq!(
        (status["waiting_for"][0]["name"].as_str(), status["waiting_for"][0]["node"].as_u64()),
        (Some("n3"), Some(3))
    );
    let text = told(&nodes[1], &["status"]).ok().stdout;
    assert!(text.contains("waiting for: n3 (3)") && text.contains("it serves no client since"), "{text}");
    nodes[2].start(&[]);
    nodes[0].until(|status| status["waiting_for"].as_array().is_some_and(Vec::is_empty));
}

#[test]
fn what_cannot_be_revoked_is_refused_by_name() {
    let world = World::new();
    let node = world.founder();
    issue(&world, &node, &["--client", "pay"]);
    let generation = node.status()["generation"].clone();
    for (what, code, expected) in [
        ("client/absent", 1, "there is no certificate for `client/absent`"),
        ("broker/pay", 1, "`broker/pay`"),
        ("node/1", 2, "a node is evicted"),
        ("client/PAY", 2, "`client/PAY` is no SHA-256"),
        ("pay", 2, "`pay` is no SHA-256"),
        ("../status", 2, "`../status` is no SHA-256"),
        (&"ab".repeat(32), 1, "is on record"),
        ("ab", 2, "`ab` is no SHA-256"),
    ] {
        let said = told(&node, &["cert", "revoke", what]);
        assert_eq!(said.code, code, "{what}: {said:?}");
        assert!(said.stderr.contains(expected) && said.stderr.contains("try: "), "{what}: {said:?}");
    }
    let leaf = node.ask(&["cert", "list"]).ok().json()[0]["key"].as_str().unwrap().to_owned();
    let said = told(&node, &["cert", "revoke", &leaf]);
    assert!(said.code == 1 && said.stderr.contains("try: `countersign node evict n1`"), "{said:?}");
    assert_eq!(node.status()["generation"], generation);
}

#[test]
fn lifetimes_are_those_of_the_configuration_at_the_bootstrap_and_stay() {
    let world = World::new();
    let mut node = world.node("n1");
    let variables = [("COUNTERSIGN_PKI_CLIENT_TTL", "2h"), ("COUNTERSIGN_PKI_NODE_TTL", "1h")];
    node.start_with(&["--bootstrap", "--cluster-name", "test"], &variables);
    let status = node.until_ready();
    let life = |status: &Value| {
        let at = |field: &str| status["certificate"][field].as_u64().unwrap();
        // Backdated by the skew bound.
        at("not_after") - at("not_before") - 60
    };
    assert_eq!(life(&status), 3600);
    let status = node.until(|status| status["certificate"]["renews_at"].is_u64());
    let renews = status["certificate"]["renews_at"].as_u64().unwrap();
    let ends = status["certificate"]["not_after"].as_u64().unwrap();
    assert!((ends - 1800 - 1..=ends - 720 + 1).contains(&(renews)), "{status}");
    let left = |issued: Value| issued["not_after"].as_u64().unwrap().abs_diff(ends - 3600);
    assert!(left(issue(&world, &node, &["--client", "usual"])).abs_diff(7200) < 600);
    assert!(left(issue(&world, &node, &["--client", "short", "--ttl", "10m"])).abs_diff(600) < 600);
    // Other values on a restart: said once, and nothing is refused.
    node.stop();
    node.start_with(&[], &[("COUNTERSIGN_PKI_NODE_TTL", "5m"), ("COUNTERSIGN_TRUST_LEASE_SECS", "300")]);
    let status = node.until_ready();
    assert_eq!((life(&status), status["lease_secs"].as_u64()), (3600, Some(10)));
    let noted = |log: &str| log.matches("`[trust] lease_secs` is 5m here and 10s in this cluster").count();
    node.until(|_| noted(&node.log()) == 1);
    assert!(node.log().contains("`[pki] node_ttl` is 5m here and 1h in this cluster"));
}

#[test]
fn a_quarantine_is_of_one_member_alone_until_it_is_lifted() {
    let world = World::new();
    let nodes = world.voters(3);
    let closed = told(&nodes[0], &["node", "quarantine", "n3"]).ok();
    assert!(closed.stdout.starts_with("n3 (3) is refused by this member alone, connections closed: "), "{closed:?}");
    nodes[0].until(|status| status["warnings"].to_string().contains("n3 is in quarantine here"));
    // Repeated it is as it was; no other member hears of it, and nothing is committed.
    nodes[0].ask(&["node", "quarantine", "3"]).ok();
    for node in &nodes[1..] {
        assert!(!node.status()["warnings"].to_string().contains("n3 is in quarantine"));
    }
    assert!(nodes[1].status()["evicted"].as_array().unwrap().is_empty());
    for (args, code, expected) in [
        (&["n9"][..], 1, "`n9`"),
        (&["n1"], 1, "n1"),
        (&["../n3"], 2, "no name and no number of a node"),
        (&["n9", "--lift"], 1, "`n9`"),
    ] {
        let said = told(&nodes[0], &[&["node", "quarantine"], args].concat());
        assert!(said.code == code && said.stderr.contains(expected) && said.stderr.contains("try: "), "{said:?}");
    }
    let said = run(&["node", "quarantine", "n3", "--server", "127.0.0.1:1"]);
    assert!(said.code == 2 && said.stderr.contains("of the member on its own host alone"), "{said:?}");
    let lifted = told(&nodes[0], &["node", "quarantine", "n3", "--lift"]).ok();
    assert!(lifted.stdout.starts_with("n3 (3) is let in again"), "{lifted:?}");
    nodes[0].until(|status| !status["warnings"].to_string().contains("n3 is in quarantine"));
    nodes[2].until_settled(3);
}
