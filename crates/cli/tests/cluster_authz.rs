//! Rules between running processes: what a member serves once a rule was taken away, though it was paused, cut off,
//! deposed, or started again from old state.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use rustix::process::Signal;
use serde_json::Value;
use support_cluster::client::Client;
use support_cluster::partition::Wires;
use support_cluster::{Node, SHORT_LEASE, World};

const CALL: &str = "service:countersign.v1.Whoami/Whoami";

/// Denies a client the one service that is served to all, and returns what the members said.
fn deny(node: &Node, client: &str) -> Value {
    let denied =
        node.ask(&["acl", "add", "--principal", client, "--action", "write", "--resource", CALL, "--deny", "--wait"]);
    let denied = denied.ok().json();
    assert_eq!(denied["enforcement"]["complete"], true, "{denied}");
    denied
}

fn allow_again(node: &Node, client: &str) {
    node.ask(&["acl", "remove", "--principal", client, "--action", "write", "--resource", CALL, "--deny", "--wait"])
        .ok();
}

fn state(answer: &Value, name: &str) -> String {
    let members = answer["enforcement"]["members"].as_array().unwrap();
    members.iter().find(|m| m["name"] == name).unwrap()["state"].as_str().unwrap().to_owned()
}

fn leader(nodes: &[Node]) -> usize {
    let leader = nodes[0].status()["raft"]["leader"].as_u64().unwrap();
    nodes.iter().position(|node| node.status()["node"].as_u64() == Some(leader)).unwrap()
}

#[test]
fn a_client_that_asks_all_the_time_is_denied_on_every_member_once_the_denial_returns_and_served_once_it_is_lifted() {
    let world = World::new();
    let nodes = world.voters_leased(3, None);
    let (pay, shop) =
        (Client::issue(&nodes[0], &world.path("out"), "pay"), Client::issue(&nodes[0], &world.path("out"), "shop"));
    for round in 0..3 {
        let mut opened: Vec<_> = nodes
            .iter()
            .map(|n| (pay.connect(&n.client_address()).unwrap(), shop.connect(&n.client_address()).unwrap()))
            .collect();
        for (pays, shops) in &mut opened {
            pay.ask(pays).unwrap();
            shop.ask(shops).unwrap();
        }
        deny(&nodes[round], "client/pay");
        for (pays, shops) in &mut opened {
            // On connections that stay open: a rule is about an action, not about a connection.
            assert_eq!(pay.ask(pays).unwrap_err().code(), tonic::Code::PermissionDenied);
            shop.ask(shops).unwrap();
        }
        allow_again(&nodes[round], "client/pay");
        for (pays, _) in &mut opened {
            pay.ask(pays).unwrap();
        }
    }
}

#[test]
fn a_request_that_waited_at_a_paused_member_is_denied_by_the_rule_that_came_meanwhile() {
    let world = World::new();
    let nodes = world.voters_leased(3, None);
    let pay = Client::issue(&nodes[0], &world.path("out"), "pay");
    let leader = leader(&nodes);
    let paused = (0..3).rev().find(|at| *at != leader).unwrap();
    let mut open = pay.connect(&nodes[paused].client_address()).unwrap();
    pay.ask(&mut open).unwrap();
    nodes[paused].freeze();
    let waiting = pay.runtime.spawn(async move { (open.ask().await, open) });
    let denied = deny(&nodes[leader], "client/pay");
    assert_eq!(state(&denied, &nodes[paused].name), "lapsed", "{denied}");
    nodes[paused].signal(Signal::CONT);
    let (answer, _open) = pay.runtime.block_on(waiting).unwrap();
    assert!(answer.is_err(), "served {answer:?}, {denied}\n{}", nodes[paused].log());
    nodes[paused].until_ready();
    let mut again = pay.connect(&nodes[paused].client_address()).unwrap();
    assert_eq!(pay.ask(&mut again).unwrap_err().code(), tonic::Code::PermissionDenied);
}

#[test]
fn a_cut_off_member_serves_no_client_after_a_denial() {
    let Some(wires) = Wires::lay(3) else { return };
    let world = World::new();
    let mut nodes = world.voters_leased(3, Some(&wires));
    let pay = Client::issue(&nodes[0], &world.path("out"), "pay");
    let aside = format!("{}:7001", wires.aside(3));
    let clients = format!("{}:7003", wires.aside(3));
    nodes[2].until(|s| s["generation"] == nodes[0].status()["generation"]);
    let mut open = pay.connect(&clients).unwrap();
    pay.ask(&mut open).unwrap();
    wires.cut(3);
    let denied = deny(&nodes[0], "client/pay");
    assert_eq!(state(&denied, "n3"), "lapsed", "{denied}");
    assert!(pay.ask(&mut open).is_err(), "it knows nothing of the rule, but that it has heard nothing lately it knows");
    // Its own state, which lets the client in, is older than the rule: it starts without a lease, and gets none.
    nodes[2].kill();
    let advertised = format!("{}:7001", wires.address(3));
    let addresses = ["--cluster-addr", "0.0.0.0:7001", "--advertise-addr", &advertised, "--advertise-addr", &aside];
    nodes[2].start_with(&addresses, &SHORT_LEASE);
    nodes[2].until(|s| s["lease_millis_left"].is_null());
    let check = ["acl", "check", "--principal", "client/pay", "--action", "write", "--resource", CALL];
    assert_eq!(nodes[2].ask(&check).code, 0, "by its own rules it would be served");
    let served = pay.connect(&clients).map(|mut open| pay.ask(&mut open));
    assert!(!matches!(served, Ok(Ok(_))), "{served:?}");
    wires.mend(3);
    nodes[2].until_ready();
    assert_eq!(nodes[2].ask(&check).code, 1);
    let mut again = pay.connect(&clients).unwrap();
    assert_eq!(pay.ask(&mut again).unwrap_err().code(), tonic::Code::PermissionDenied);
}

#[test]
fn a_leader_deposed_unknowingly_serves_no_client_after_a_denial() {
    let Some(wires) = Wires::lay(3) else { return };
    let world = World::new();
    let nodes = world.voters_leased(3, Some(&wires));
    let pay = Client::issue(&nodes[0], &world.path("out"), "pay");
    let old = leader(&nodes);
    let number = u8::try_from(old + 1).unwrap();
    let clients = format!("{}:7003", wires.aside(number));
    let mut open = pay.connect(&clients).unwrap();
    nodes[old].until(|s| s["generation"] == nodes[(old + 1) % 3].status()["generation"]);
    pay.ask(&mut open).unwrap();
    wires.cut(number);
    let other = &nodes[(old + 1) % 3];
    let before = nodes[old].status()["node"].clone();
    other.until(|s| s["ready"] == true && !s["raft"]["leader"].is_null() && s["raft"]["leader"] != before);
    let denied = deny(other, "client/pay");
    assert_eq!(state(&denied, &nodes[old].name), "lapsed", "{denied}");
    assert!(pay.ask(&mut open).is_err(), "{denied}\n{}", nodes[old].log());
    wires.mend(number);
    nodes[old].until_ready();
    let mut again = pay.connect(&clients).unwrap();
    assert_eq!(pay.ask(&mut again).unwrap_err().code(), tonic::Code::PermissionDenied);
}
