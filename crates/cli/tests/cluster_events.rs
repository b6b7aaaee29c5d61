//! Changes by running processes: each names its author, in the same line on every member, once, over kills and
//! restarts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::time::Instant;

use countersign_core::trust::chain::{Head, Line};
use serde_json::{Value, json};
use support_cluster::{Node, PATIENCE, Said, World, http, pause, run};

const HTTPS: [&str; 2] = ["--https-addr", "127.0.0.1:0"];

/// Three voters, each with an HTTPS port, whose certificates are renewed every few seconds.
fn voters(world: &World) -> Vec<Node> {
    let mut founder = world.node("n1");
    let settings = [("COUNTERSIGN_PKI_NODE_TTL", "12s")];
    founder.start_with(&[&["--bootstrap", "--cluster-name", "test"], &HTTPS[..]].concat(), &settings);
    founder.until_ready();
    let mut nodes = vec![founder];
    for i in 2..=3 {
        let mut node = world.node(&format!("n{i}"));
        let file = world.token_file(&node.name, &nodes[0].token(&["--role", "voter"]));
        node.start(&[&["--join-token", &file, "--join-addr", &nodes[0].address()], &HTTPS[..]].concat());
        node.until_ready();
        nodes.push(node);
        for node in &nodes {
            node.until_settled(nodes.len());
        }
    }
    nodes
}

/// A member that does not lead, by its place in the list.
fn follower(nodes: &[Node]) -> usize {
    let leader = nodes[0].until(|status| status["raft"]["leader"].is_u64())["raft"]["leader"].as_u64().unwrap();
    usize::from(leader == 1)
}

/// Runs a command as the admin `ada` over a member's HTTPS port.
fn as_ada(world: &World, node: &Node, command: &[&str]) -> Said {
    let endpoints: Value = serde_json::from_slice(&std::fs::read(node.data.join("endpoints.json")).unwrap()).unwrap();
    let file = |name: &str| world.path("ada").join(name).to_str().unwrap().to_owned();
    let (identity, key, ca) = (file("ada.pem"), file("ada.key"), file("ca.pem"));
    let flags = ["--server", endpoints["https"].as_str().unwrap(), "--identity", &identity];
    run(&[command, &flags, &["--identity-key", &key, "--ca", &ca, "--json"]].concat())
}

/// Deletes a token on a member's socket: the number that the answer's header names, and the answer's body.
fn delete_token(node: &Node, token: &str) -> (String, Value) {
    let socket = node.data.join("admin.sock");
    let answer = http::on_socket(&socket, "DELETE", &format!("/v1/tokens/{token}")).unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    (id, serde_json::from_slice(answer.body()).unwrap())
}

fn events_file(node: &Node) -> String {
    std::fs::read_to_string(node.data.join("events.jsonl")).unwrap_or_default()
}

/// The whole lines of a member's events file.
fn events(node: &Node) -> Vec<Value> {
    let text = events_file(node);
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// The first event of this name and author, once the member has written it.
fn event(node: &Node, name: &str, by: &str, more: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let wanted = |event: &Value| event["event"] == name && event["author"]["by"] == by && more(event);
        if let Some(found) = events(node).into_iter().find(wanted) {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{}: no {name} by {by} in:\n{}", node.name, events_file(node));
        pause();
    }
}

/// Every line follows from the one before, from the first on: none is missing, none is there twice.
fn follow(node: &Node) {
    let text = events_file(node);
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut before = Head::default();
    for (line, number) in whole.lines().zip(1..) {
        let event = Line::parse(line).unwrap_or_else(|| panic!("{}: {line}", node.name));
        assert!(event.number == number && event.follows(before), "{}: {line}", node.name);
        before = event.head;
    }
}

/// The files of all members are equal up to `number`.
fn equal_up_to(nodes: &[Node], number: u64) {
    let until = |node: &Node| {
        let begun = Instant::now();
        while (events(node).len() as u64) < number {
            assert!(begun.elapsed() < PATIENCE, "{} has {} events", node.name, events(node).len());
            pause();
        }
        let first: Vec<String> =
            events_file(node).lines().take(usize::try_from(number).unwrap()).map(str::to_owned).collect();
        first
    };
    let of_first = until(&nodes[0]);
    for node in &nodes[1..] {
        assert_eq!(until(node), of_first, "{}", node.name);
    }
}

#[test]
fn every_change_names_its_author_alike_on_every_member() {
    let world = World::new();
    let mut nodes = voters(&world);
    let operator = format!("uid/{}", rustix::process::geteuid().as_raw());
    nodes[0].ask(&["cert", "issue", "--admin", "ada", "--out", world.path("ada").to_str().unwrap()]).ok();
    let at = follower(&nodes);
    let node = nodes[at].status()["node"].as_u64().unwrap();

    // An admin over HTTPS, and the operator of the host on the socket, both at a member that forwards to the leader.
    let token = as_ada(&world, &nodes[at], &["token", "create"]).ok().json()["id"].as_str().unwrap().to_owned();
    let created = event(&nodes[at], "token.created", "admin/ada", |event| event["details"]["token"] == token.as_str());
    assert_eq!((&created["author"]["taken_by"], &created["author"]["source"]), (&json!(node), &json!("127.0.0.1")));
    nodes[at].ask(&["acl", "add", "--principal", "client/pay", "--action", "read", "--topic", "orders"]).ok();
    let ruled = event(&nodes[at], "policy.changed", &operator, |_| true);
    assert_eq!((&ruled["author"]["taken_by"], &ruled["author"]["source"]), (&json!(node), &Value::Null));
    assert_eq!(ruled["details"]["rules"][0]["principal"], "client/pay");
    // The answer names the request as the event does; so does a problem.
    let (request, _) = delete_token(&nodes[at], &token);
    let revoked = event(&nodes[at], "token.revoked", &operator, |event| event["details"]["token"] == token.as_str());
    assert_eq!(revoked["author"]["request"], request.as_str());
    let (request, problem) = delete_token(&nodes[at], "0011223344556677");
    assert_eq!((&problem["code"], &problem["request"]), (&json!("unknown-token"), &json!(request)));
    // A member's own work, and a join by its token.
    let renewed = event(&nodes[at], "leaf.renewed", "node/2", |_| true);
    assert_eq!((&renewed["author"]["taken_by"], &renewed["details"]["node"]), (&json!(2), &json!(2)));
    let by_token = |event: &&Value| event["event"] == "node.admitted" && event["details"]["node"] == 3;
    let admitted = events(&nodes[at]).iter().find(by_token).cloned().unwrap();
    let joined_by = admitted["details"]["token"].as_str().unwrap();
    assert_eq!(admitted["author"]["by"], format!("token/{joined_by}"));
    assert_eq!((&admitted["author"]["taken_by"], &admitted["author"]["source"]), (&json!(1), &json!("127.0.0.1")));

    lists_name(&nodes[at], &operator, joined_by);

    let last = [&created, &ruled, &revoked, &renewed, &admitted].map(|event| event["number"].as_u64().unwrap());
    let last = last.into_iter().max().unwrap();
    equal_up_to(&nodes, last);
    for node in &nodes {
        follow(node);
        let told =
            node.log().lines().filter(|line| line.contains("policy.changed") && line.contains(&operator)).count();
        assert_eq!(told, 1, "{}: a change is one line of the log:\n{}", node.name, node.log());
    }
    // Killed, and started again: entries since the last snapshot are applied again, and written and told once.
    for round in 0..3 {
        nodes[2].kill();
        nodes[0].ask(&["token", "create"]).ok();
        nodes[2].start(&HTTPS);
        nodes[2].until_ready();
        let newest = events(&nodes[0]).last().unwrap()["number"].as_u64().unwrap();
        equal_up_to(&nodes, newest);
        follow(&nodes[2]);
        let told = nodes[2].log().lines().filter(|line| line.contains("policy.changed")).count();
        assert_eq!(told, 1, "round {round}: told again");
    }
}

/// Tokens, certificates, members and rules, as the commands list them.
fn lists_name(node: &Node, operator: &str, joined_by: &str) {
    let list = |command: &[&str]| node.ask(command).ok().json();
    let tokens = list(&["token", "list"]);
    let by_ada = |token: &Value| token["made"]["by"] == "admin/ada" && token["made"]["at_millis"].as_u64() > Some(0);
    assert!(tokens.as_array().unwrap().iter().any(by_ada), "{tokens}");
    let members = list(&["node", "list"]);
    let third = members.as_array().unwrap().iter().find(|member| member["node"] == 3).unwrap();
    assert_eq!((&third["admitted_by"], &third["token_made"]["by"]), (&json!(joined_by), &json!(operator)), "{third}");
    let certificates = list(&["cert", "list"]);
    let ada =
        certificates.as_array().unwrap().iter().find(|c| c["principal"].as_str().unwrap().ends_with("/admin/ada"));
    let issued = &ada.unwrap()["issued"];
    assert_eq!((&issued["made"]["by"], &issued["made"]["taken_by"]), (&json!(operator), &json!(1)), "{issued}");
    let authority = node.status()["authority"]["fingerprint"].clone();
    assert!(issued["authority"] == authority && authority.is_string(), "{issued}");
    let rules = list(&["acl", "list"]);
    let made = |id: &str| rules["made"][id]["by"].as_str().unwrap_or_else(|| panic!("{id}: {rules}")).to_owned();
    for rule in rules["policy"]["rule"].as_array().unwrap() {
        let by = if rule["principal"] == "client/pay" { operator } else { "node/1" };
        assert_eq!(made(rule["id"].as_str().unwrap()), by, "{rules}");
    }
}
