//! Revocation between running processes: which connections are cut, which calls are denied, what is returned, and which
//! members are waited for.

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
use support_cluster::{Node, World};

/// How far each member is with the revocation that a command returned.
fn standing(answer: &Value) -> Vec<(String, String)> {
    let members = answer["enforcement"]["members"].as_array().unwrap();
    let word = |m: &Value, field: &str| m[field].as_str().unwrap().to_owned();
    members.iter().map(|m| (word(m, "name"), word(m, "state"))).collect()
}

fn is(node: &str, state: &str) -> (String, String) {
    (node.to_owned(), state.to_owned())
}

#[test]
fn a_request_that_waited_at_a_paused_member_is_denied_when_it_resumes() {
    let world = World::new();
    let nodes = world.voters_leased(3, None);
    let client = Client::issue(&nodes[0], &world.path("out"), "pay");
    // Not the leader: else the others must elect another first, which is tested elsewhere.
    let leader = nodes[0].status()["raft"]["leader"].as_u64().unwrap();
    let paused = nodes.iter().rev().find(|n| n.status()["node"].as_u64() != Some(leader)).unwrap();
    let asked = nodes.iter().find(|n| n.name != paused.name).unwrap();
    let mut open = client.connect(&paused.client_address()).unwrap();
    client.ask(&mut open).unwrap();
    paused.freeze();
    let waiting = client.runtime.spawn(async move { open.ask().await });
    let revoked = asked.ask(&["cert", "revoke", "client/pay"]).ok().json();
    assert_eq!(revoked["enforcement"]["complete"], true, "{revoked}");
    assert!(standing(&revoked).contains(&is(&paused.name, "lapsed")), "{revoked}");
    paused.signal(Signal::CONT);
    let answer = client.runtime.block_on(waiting).unwrap();
    assert!(answer.is_err(), "served {answer:?} at {}, {revoked}\n{}", paused.name, paused.log());
    paused.until_ready();
    assert!(client.connect(&paused.client_address()).is_err());
}

#[test]
fn a_member_cut_off_from_its_peers_denies_when_its_lease_ends_and_the_revocation_waits_for_that() {
    let Some(wires) = Wires::lay(3) else { return };
    let world = World::new();
    let nodes = world.voters_leased(3, Some(&wires));
    let client = Client::issue(&nodes[0], &world.path("out"), "pay");
    let other = Client::issue(&nodes[0], &world.path("out"), "other");
    let clients = format!("{}:7003", wires.aside(3));
    nodes[2].until(|s| s["generation"] == nodes[0].status()["generation"]);
    let (mut open, mut others) = (client.connect(&clients).unwrap(), other.connect(&clients).unwrap());
    client.ask(&mut open).unwrap();
    wires.cut(3);
    let revoked = nodes[0].ask(&["cert", "revoke", "client/pay"]).ok().json();
    assert_eq!(revoked["enforcement"]["complete"], true, "{revoked}");
    assert!(standing(&revoked).contains(&is("n3", "lapsed")), "{revoked}");
    // The node knows nothing of the revocation, but that it has heard nothing lately it knows.
    assert!(client.ask(&mut open).is_err());
    assert!(other.ask(&mut others).is_err(), "it serves no client");
    assert_eq!(nodes[2].status()["lease_millis_left"], Value::Null);
    wires.mend(3);
    nodes[2].until_ready();
    let mut again = other.connect(&clients).unwrap();
    other.ask(&mut again).unwrap();
    assert!(client.connect(&clients).is_err());
}

#[test]
fn a_member_evicted_while_it_was_cut_off_comes_back_to_closed_doors() {
    let Some(wires) = Wires::lay(3) else { return };
    let world = World::new();
    let nodes = world.voters_leased(3, Some(&wires));
    wires.cut(3);
    let evicted = nodes[0].ask(&["node", "evict", "n3", "--keep-authority"]).ok().json();
    assert_eq!(evicted["enforcement"]["complete"], true, "{evicted}");
    for name in ["n1", "n2"] {
        assert!(standing(&evicted).contains(&is(name, "enforced")), "{evicted}");
    }
    wires.mend(3);
    nodes[2].until(|s| s["ready"] == false);
    nodes[0].until(|_| nodes[0].log().contains("was evicted") || nodes[1].log().contains("was evicted"));
    assert_eq!(nodes[0].status()["members"].as_array().unwrap().len(), 2);
}

#[test]
fn the_leader_can_be_evicted_and_the_last_voter_cannot() {
    let world = World::new();
    let nodes = world.voters_leased(3, None);
    let leader = nodes[0].status()["raft"]["leader"].as_u64().unwrap();
    let leading = nodes.iter().position(|n| n.status()["node"].as_u64() == Some(leader)).unwrap();
    let rest: Vec<&Node> = nodes.iter().enumerate().filter(|(i, _)| *i != leading).map(|(_, n)| n).collect();
    let evicted = rest[0].ask(&["node", "evict", &nodes[leading].name, "--keep-authority"]).ok().json();
    assert_eq!(evicted["enforcement"]["complete"], true, "{evicted}");
    for node in &rest {
        assert!(standing(&evicted).contains(&is(&node.name, "enforced")), "{evicted}");
        node.until_settled(2);
    }
    let generation = |node: &Node| node.status()["generation"].clone();
    let before = generation(rest[0]);
    let again = rest[0].ask(&["node", "evict", &nodes[leading].name, "--keep-authority"]);
    assert!(again.code == 1 && again.stderr.contains("evicted before"), "{again:?}");
    let unknown = rest[0].ask(&["node", "evict", "absent", "--keep-authority"]);
    assert!(unknown.code == 1 && unknown.stderr.contains("absent"), "{unknown:?}");
    assert_eq!(generation(rest[0]), before, "nothing changed");
    rest[0].ask(&["node", "evict", &rest[1].name, "--keep-authority"]).ok();
    let last = rest[0].ask(&["node", "evict", &rest[0].name, "--keep-authority"]);
    assert!(last.code == 1, "{last:?}");
    rest[0].until_ready();
}

#[test]
fn a_revocation_waits_for_a_member_that_is_evicted_meanwhile() {
    let Some(wires) = Wires::lay(3) else { return };
    let world = World::new();
    let nodes = world.voters_leased(3, Some(&wires));
    let client = Client::issue(&nodes[0], &world.path("out"), "pay");
    let clients = format!("{}:7003", wires.aside(3));
    nodes[2].until(|s| s["generation"] == nodes[0].status()["generation"]);
    let mut open = client.connect(&clients).unwrap();
    client.ask(&mut open).unwrap();
    let before = nodes[1].status()["generation"].as_u64();
    wires.cut(3);
    let (served, revoked) = std::thread::scope(|scope| {
        let revoking = scope.spawn(|| {
            let revoked = nodes[0].ask(&["cert", "revoke", "client/pay"]);
            (client.ask(&mut open), revoked)
        });
        // Committed before the eviction: an earlier evicted node is no member that a revocation could wait for.
        nodes[1].until(|s| s["generation"].as_u64() > before);
        let evicted = nodes[1].ask(&["node", "evict", "n3", "--keep-authority"]);
        assert!(evicted.code == 0, "{evicted:?}");
        revoking.join().unwrap()
    });
    assert_eq!(revoked.ok().json()["enforcement"]["complete"], true);
    // It went on by its lease, and knew of nothing; the answer came when that was over.
    assert!(served.is_err(), "{served:?}");
}
