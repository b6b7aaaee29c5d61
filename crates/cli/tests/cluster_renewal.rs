//! Renewal by running processes: killed at any point of it, off past every expiry, with a client calling all the while.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use support_cluster::client::Client;
use support_cluster::{Node, PATIENCE, World, pause};

/// `n` voters whose certificates live `secs` seconds.
fn voters(world: &World, n: u8, secs: u64) -> Vec<Node> {
    let ttl = format!("{secs}s");
    let settings = [("COUNTERSIGN_PKI_NODE_TTL", ttl.as_str()), ("COUNTERSIGN_TRUST_LEASE_SECS", "2")];
    let mut founder = world.node("n1");
    founder.start_with(&["--bootstrap", "--cluster-name", "test"], &settings);
    founder.until_ready();
    let mut nodes = vec![founder];
    for i in 2..=n {
        let token = nodes[0].token(&["--role", "voter"]);
        let mut node = world.node(&format!("n{i}"));
        world.join(&mut node, &token, &nodes[0].address());
        nodes.push(node);
        for node in &nodes {
            node.until_settled(nodes.len());
        }
    }
    nodes
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// When each member's certificate ends, as `node` sees it.
fn ends(node: &Node) -> Vec<u64> {
    let status = node.status();
    status["members"].as_array().unwrap().iter().map(|m| m["certificate_not_after"].as_u64().unwrap()).collect()
}

fn until_renewed(node: &Node, before: &[u64]) {
    node.until(|status| {
        let ends = status["members"].as_array().unwrap().iter().map(|m| m["certificate_not_after"].as_u64().unwrap());
        ends.zip(before).all(|(now, before)| now > *before)
    });
}

#[test]
fn a_node_killed_at_any_point_of_its_renewal_comes_back_with_a_certificate_that_counts() {
    let world = World::new();
    let mut nodes = voters(&world, 3, 6);
    let client = Client::issue(&nodes[0], &world.path("out"), "pay");
    // Points all over a renewal, which takes some milliseconds between three and five seconds after the last one.
    for round in 0..8_u64 {
        let victim = 1 + (round % 2) as usize;
        let not_after = ends(&nodes[0])[victim];
        // When its renewal is recorded, another certificate is on its way: kill within the next milliseconds.
        let begun = Instant::now();
        while !nodes[victim].data.join("keys/next-leaf.key").exists() && begun.elapsed() < Duration::from_secs(8) {
            // why: the file appears when the node's renewal begins, and nothing tells of it
            std::thread::sleep(Duration::from_millis(1));
        }
        // why: one of many points of the renewal that has just begun
        std::thread::sleep(Duration::from_millis(round * 3));
        nodes[victim].kill();
        nodes[victim].start(&[]);
        nodes[victim].until_ready();
        assert!(not_after <= ends(&nodes[0])[victim]);
        let mut open = client.connect(&nodes[victim].client_address()).unwrap();
        client.ask(&mut open).unwrap();
    }
    let before = ends(&nodes[0]);
    until_renewed(&nodes[0], &before);
}

#[test]
fn a_cluster_off_past_every_expiry_forms_again_by_itself() {
    let world = World::new();
    let mut nodes = voters(&world, 3, 5);
    for node in &mut nodes {
        node.kill();
    }
    let off = Instant::now();
    while off.elapsed() < Duration::from_secs(8) {
        pause();
    }
    for node in &mut nodes {
        node.start(&[]);
    }
    for node in &nodes {
        let status = node.until_ready();
        assert_eq!(status["members"].as_array().unwrap().len(), 3);
    }
    let begun = Instant::now();
    while ends(&nodes[0]).iter().any(|end| *end < now()) {
        assert!(begun.elapsed() < PATIENCE, "{:?} at {}", ends(&nodes[0]), now());
        pause();
    }
    let client = Client::issue(&nodes[0], &world.path("out"), "pay");
    for node in &nodes {
        let mut open = client.connect(&node.client_address()).unwrap();
        client.ask(&mut open).unwrap();
    }
}

#[test]
fn a_node_that_was_off_past_its_expiry_comes_back_to_a_cluster_that_went_on() {
    let world = World::new();
    let mut nodes = voters(&world, 3, 5);
    nodes[2].kill();
    let off = Instant::now();
    while off.elapsed() < Duration::from_secs(8) {
        pause();
    }
    let renewed: Vec<Value> = nodes[..2].iter().map(|n| n.status()["ready"].clone()).collect();
    assert_eq!(renewed, [true, true]);
    nodes[2].start(&[]);
    nodes[2].until_ready();
    nodes[2].until(|status| status["certificate"]["not_after"].as_u64().unwrap() > now());
}
