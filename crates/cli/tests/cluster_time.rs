//! One wrong clock, on the leader or on another voter, ten years ahead or behind: it harms no other member.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support_cluster::{Node, World};

/// The library that lies about the time to one process, where it is installed.
fn faketime() -> Option<&'static str> {
    let candidates = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    ];
    let found = candidates.into_iter().find(|path| Path::new(path).exists());
    if found.is_none() {
        println!("skipped: libfaketime is not installed");
        assert!(std::env::var_os("CI").is_none(), "the gate installs faketime");
    }
    found
}

/// Where the clock of the node `name` is set while it runs.
fn clock(world: &World, name: &str) -> PathBuf {
    world.path(&format!("{name}.clock"))
}

fn set(world: &World, node: &Node, offset: &str) {
    std::fs::write(clock(world, &node.name), offset).unwrap();
}

fn start(world: &World, node: &mut Node, library: &str, flags: &[&str]) {
    let file = clock(world, &node.name);
    let lie = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    node.start_with(flags, &lie);
}

/// Voters, the clock of each of which can be set.
fn voters(world: &World, library: &str, count: usize) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for i in 1..=count {
        let mut node = world.node(&format!("n{i}"));
        set(world, &node, "+0");
        match nodes.first() {
            None => start(world, &mut node, library, &["--bootstrap", "--cluster-name", "test"]),
            Some(founder) => {
                let flag = world.token_file(&node.name, &founder.token(&["--role", "voter"]));
                start(world, &mut node, library, &["--join-token", &flag, "--join-addr", &founder.address()]);
            }
        }
        node.until_ready();
        nodes.push(node);
        for node in &nodes {
            node.until_settled(i);
        }
    }
    nodes
}

fn warns_of_clock(status: &Value) -> bool {
    status["warnings"].as_array().unwrap().iter().any(|w| w.as_str().unwrap().contains("host's clock is"))
}

fn check(who_leads: bool, offset: &str) {
    let Some(library) = faketime() else { return };
    let world = World::new();
    let nodes = voters(&world, library, 3);
    let leader = nodes[0].status()["raft"]["leader"].clone();
    let (wrong, right): (Vec<&Node>, Vec<&Node>) = {
        let at = nodes.iter().position(|n| (n.status()["node"] == leader) == who_leads).unwrap();
        (vec![&nodes[at]], nodes.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, n)| n).collect())
    };
    let wrong = wrong[0];
    let own = wrong.status()["node"].clone();
    set(&world, wrong, offset);

    // It denies clients and says why.
    wrong.until(|s| s["lease_millis_left"].is_null() && s["ready"] == false && warns_of_clock(s));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for node in &right {
        // No other member is harmed: another leads, leases go on, no certificate has ended.
        let status = node.until(|s| s["ready"] == true && !s["raft"]["leader"].is_null() && s["raft"]["leader"] != own);
        assert!(!warns_of_clock(&status), "{status:#}");
        for member in status["members"].as_array().unwrap() {
            let ends = member["certificate_not_after"].as_u64().unwrap();
            assert!(ends > now && ends < now + 2 * 86_400, "{member:#}");
        }
        assert!(status["warnings"].as_array().unwrap().iter().all(|w| !w.as_str().unwrap().contains("expire")));
        // Commands go on, with the right time: this token is of half an hour from now.
        let token = node.ask(&["token", "create"]).ok().json();
        let ends = token["not_after"].as_u64().unwrap();
        assert!(ends.abs_diff(now + 1800) < 300, "{token:#}");
    }
    // Set right, it serves again.
    set(&world, wrong, "+0");
    wrong.until(|s| s["ready"] == true && !warns_of_clock(s));
    for node in &right {
        node.until_settled(3);
    }
}

#[test]
fn a_leader_ten_years_ahead_hands_over_and_harms_no_member() {
    check(true, "+3650d");
}

#[test]
fn a_leader_ten_years_behind_hands_over_and_harms_no_member() {
    check(true, "-3650d");
}

#[test]
fn a_voter_ten_years_ahead_denies_and_harms_no_member() {
    check(false, "+3650d");
}

#[test]
fn a_voter_ten_years_behind_denies_and_harms_no_member() {
    check(false, "-3650d");
}

/// A cluster of `count` that is started again more than a year later knows the time, and its certificates are renewed.
fn check_off_for_a_year(count: usize) {
    let Some(library) = faketime() else { return };
    let world = World::new();
    let mut nodes = voters(&world, library, count);
    for node in &mut nodes {
        node.kill();
        set(&world, node, "+400d");
    }
    for node in &mut nodes {
        start(&world, node, library, &[]);
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 400 * 86_400;
    for node in &nodes {
        let status = node.until_settled(count);
        assert!(!warns_of_clock(&status), "{status:#}");
        let token = node.ask(&["token", "create"]).ok().json();
        assert!(token["not_after"].as_u64().unwrap().abs_diff(now + 1800) < 300, "{token:#}");
    }
    nodes[0].until(|s| {
        let ends = |m: &Value| m["certificate_not_after"].as_u64().unwrap();
        s["ready"] == true && s["members"].as_array().unwrap().iter().all(|m| ends(m) > now)
    });
}

#[test]
fn a_cluster_off_for_a_year_goes_on_by_itself() {
    check_off_for_a_year(3);
}

#[test]
fn a_cluster_of_one_off_for_a_year_goes_on_by_itself() {
    check_off_for_a_year(1);
}
