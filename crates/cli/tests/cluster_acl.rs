//! Rules on three members as processes: a change that was waited for is in force on each, also where one of them stands
//! still.
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
use support_cluster::{Node, World};

const RULE: [&str; 6] = ["--principal", "client/pay", "--action", "read", "--topic", "t"];

fn acl(verb: &str, more: &[&str]) -> Vec<String> {
    ["acl", verb].iter().chain(&RULE).chain(more).map(|word| (*word).to_owned()).collect()
}

fn ask(node: &Node, words: &[String]) -> support_cluster::Said {
    node.ask(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_rule_that_was_waited_for_counts_on_every_member_at_once() {
    let world = World::new();
    let nodes = world.voters(3);
    for round in 0..3 {
        // Asked of each in its turn: two of them are followers.
        let asked = &nodes[round];
        let added = ask(asked, &acl("add", &["--wait"])).ok().json();
        assert!(added["enforcement"]["complete"] == true && added["put"] == 1, "{added}");
        for node in &nodes {
            ask(node, &acl("check", &[])).ok();
        }
        let removed = ask(asked, &acl("remove", &["--wait"])).ok().json();
        assert_eq!(removed["enforcement"]["members"].as_array().unwrap().len(), 3, "{removed}");
        for node in &nodes {
            let said = ask(node, &acl("check", &[]));
            assert!(said.code == 1 && said.json()["allowed"] == false, "{said:?}");
        }
    }
    // Not waited for, and asked for by its generation.
    let added = ask(&nodes[0], &acl("add", &[])).ok().json();
    let generation = added["generation"].to_string();
    for node in &nodes {
        ask(node, &acl("check", &["--min-generation", &generation])).ok();
    }
}

#[test]
fn a_removal_waits_for_a_member_that_stands_still_until_its_lease_has_run_out() {
    let world = World::new();
    let nodes = world.voters(3);
    ask(&nodes[0], &acl("add", &["--wait"])).ok();
    nodes[2].freeze();
    let removed = ask(&nodes[0], &acl("remove", &["--wait"])).ok().json();
    nodes[2].signal(Signal::CONT);
    let states: Vec<_> = removed["enforcement"]["members"].as_array().unwrap().iter().map(|m| &m["state"]).collect();
    assert_eq!(states, ["enforced", "enforced", "lapsed"], "{removed}");
    // It hears of the removal before it has a lease to decide by; its own operator is not asked for one.
    let generation = removed["generation"].to_string();
    let said = ask(&nodes[2], &acl("check", &["--min-generation", &generation]));
    assert!(said.code == 1 && said.json()["allowed"] == false, "{said:?}");
}
