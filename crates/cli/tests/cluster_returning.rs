//! Voters whose store is lost, emptied or older than what they promised: they never vote as if they had it, no
//! revocation is undone, and the printed command brings them back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::fs;
use std::time::Instant;

use serde_json::Value;
use support_cluster::client::Client;
use support_cluster::losses::{assert_agreed, assert_lost, copy, refused, replace, until_back};
use support_cluster::{Node, PATIENCE, World, pause};

fn pay(world: &World, node: &Node) -> Client {
    Client::issue(node, &world.path("out"), "pay")
}

#[test]
fn wiped_voter_comes_back_by_the_printed_command_and_undoes_nothing() {
    let world = World::new();
    let mut nodes = world.voters_leased(3, None);
    let client = pay(&world, &nodes[0]);
    // One voter is down while a client is revoked.
    nodes[2].stop();
    nodes[0].ask(&["cert", "revoke", "client/pay"]).ok();
    nodes[1].stop();
    let whole = world.path("whole");
    copy(&nodes[1].data, &whole);
    for (way, name) in [("removed", "store"), ("its record removed", "store.confirmed")] {
        let path = nodes[1].data.join(name);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        assert_lost(&mut nodes[1], way);
        replace(&nodes[1], &whole);
    }
    let store = nodes[1].data.join("store");
    fs::remove_dir_all(&store).unwrap();
    fs::create_dir(&store).unwrap();
    assert_lost(&mut nodes[1], "emptied");
    // The stale voter first, then the wiped one, with the leader down: neither leads, nothing is served.
    nodes[0].stop();
    nodes[2].start(&[]);
    let (code, said) = refused(&mut nodes[1], &["--return-as-learner"]);
    assert!(code == 3 || code == 1, "{code} {said}");
    assert_ne!(nodes[2].ask(&["status"]).ok().json()["ready"], true);
    // The one that knows comes back; the command that was printed goes on where it stopped.
    nodes[0].start(&[]);
    nodes[0].until_ready();
    nodes[2].until_ready();
    nodes[1].start(&["--return-as-learner"]);
    let [first, wiped, stale] = &nodes[..] else { panic!("three") };
    until_back(&[first, stale, wiped], "n2");
    assert_agreed(&[first, wiped, stale], &client);
    assert!(wiped.data.join("replaced").is_dir(), "the old store is kept");
    // Restarted with the flag, it stays the voter that it is.
    nodes[1].stop();
    nodes[1].start(&["--return-as-learner"]);
    nodes[1].until(|s| s["ready"] == true && s["members"][1]["role"] == "voter");
}

#[test]
fn older_copy_of_a_voter_does_not_count_and_comes_back() {
    let world = World::new();
    let mut nodes = world.voters_leased(3, None);
    let client = pay(&world, &nodes[0]);
    let leader = nodes[0].status()["raft"]["leader"].as_u64().unwrap();
    let victim = nodes.iter().position(|node| node.status()["node"].as_u64() != Some(leader)).unwrap();
    let name = nodes[victim].name.clone();
    nodes[victim].stop();
    let older = world.path("older");
    copy(&nodes[victim].data, &older);
    nodes[victim].start(&[]);
    nodes[victim].until_ready();
    let asked = &nodes[(victim + 1) % 3];
    asked.ask(&["cert", "revoke", "client/pay"]).ok();
    for _ in 0..3 {
        asked.ask(&["token", "create"]).ok();
    }
    let generation = asked.status()["generation"].as_u64();
    nodes[victim].until(|status| status["generation"].as_u64() >= generation);
    // An older copy of the store alone, and of all but the member file and the record beside it: the member sees it by
    // itself.
    nodes[victim].stop();
    let newer = world.path("newer");
    copy(&nodes[victim].data, &newer);
    for kept in [&["store"][..], &["store", "view.bin", "keys", "leaf.pem"]] {
        for part in kept {
            let (from, to) = (older.join(part), nodes[victim].data.join(part));
            if from.is_dir() {
                fs::remove_dir_all(&to).unwrap();
                copy(&from, &to);
            } else {
                fs::copy(from, to).unwrap();
            }
        }
        assert_lost(&mut nodes[victim], "an older copy of the store");
        replace(&nodes[victim], &newer);
    }
    // Of the whole directory: only the others can tell.
    replace(&nodes[victim], &older);
    nodes[victim].start(&[]);
    let others: Vec<&Node> = nodes.iter().filter(|node| node.name != name).collect();
    let told = |status: &Value| status["warnings"].to_string().contains("was rolled back");
    let begun = Instant::now();
    while !others.iter().any(|node| told(&node.status())) {
        assert!(begun.elapsed() < PATIENCE, "no member noticed the older copy:\n{}", nodes[victim].log());
        pause();
    }
    nodes[victim].until(|s| s["ready"] == false && s["warnings"].to_string().contains("--return-as-learner"));
    // It knows nothing of the revocation, and has no lease to serve a client by.
    let served = client.connect(&nodes[victim].client_address()).is_ok_and(|mut open| client.ask(&mut open).is_ok());
    assert!(!served, "{}", nodes[victim].log());
    nodes[victim].stop();
    nodes[victim].start(&["--return-as-learner"]);
    let all: Vec<&Node> = nodes.iter().collect();
    until_back(&all, &name);
    assert_agreed(&all, &client);
}

#[test]
fn second_copy_of_a_living_member_is_not_taken_back() {
    let world = World::new();
    let nodes = world.voters_leased(3, None);
    let mut second = world.node("second");
    copy(&nodes[2].data, &second.data);
    fs::remove_dir_all(second.data.join("store")).unwrap();
    let (code, said) = refused(&mut second, &["--return-as-learner"]);
    assert!(code == 1 && said.contains("n3 is alive at"), "{code} {said}");
    let status = nodes[2].until_ready();
    assert_eq!(status["members"][2]["role"], "voter", "{status}");
}

#[test]
fn without_a_majority_of_others_the_return_is_refused_by_name() {
    let world = World::new();
    let mut nodes = world.voters_leased(2, None);
    nodes[1].stop();
    fs::remove_dir_all(nodes[1].data.join("store")).unwrap();
    assert_lost(&mut nodes[1], "removed");
    let (code, said) = refused(&mut nodes[1], &["--return-as-learner"]);
    assert!(code == 1 && said.contains("one of 2 voters") && said.contains("not in this version"), "{code} {said}");
    // Without its keys it proves nothing.
    fs::remove_dir_all(nodes[1].data.join("keys")).unwrap();
    let (code, said) = refused(&mut nodes[1], &["--return-as-learner"]);
    assert!(code == 3 && said.contains("keys/") && said.contains("evict this node"), "{code} {said}");
}

#[test]
fn node_that_lost_its_certificate_or_the_key_of_it_gets_another_by_the_printed_command() {
    let world = World::new();
    let mut nodes = world.voters_leased(3, None);
    let client = pay(&world, &nodes[0]);
    nodes[0].ask(&["cert", "revoke", "client/pay"]).ok();
    let votes = |status: &Value| status["ready"] == true && status["members"][1]["role"] == "voter";
    nodes[1].stop();
    let whole = world.path("whole");
    copy(&nodes[1].data, &whole);
    for part in ["leaf.pem", "keys/leaf.key"] {
        replace(&nodes[1], &whole);
        fs::remove_file(nodes[1].data.join(part)).unwrap();
        assert_lost(&mut nodes[1], part);
    }
    nodes[1].start(&["--return-as-learner"]);
    nodes[1].until(votes);
    // Once there is another, it stands with its key in one file.
    nodes[1].stop();
    fs::remove_file(nodes[1].data.join("keys/renewed-leaf.pem")).unwrap();
    assert_lost(&mut nodes[1], "renewed");
    nodes[1].start(&["--return-as-learner"]);
    nodes[1].until(votes);
    // With the store gone as well, it comes back with both.
    nodes[1].stop();
    fs::remove_file(nodes[1].data.join("keys/renewed-leaf.pem")).unwrap();
    fs::remove_dir_all(nodes[1].data.join("store")).unwrap();
    assert_lost(&mut nodes[1], "certificate and store");
    nodes[1].start(&["--return-as-learner"]);
    let [first, back, last] = &nodes[..] else { panic!("three") };
    until_back(&[first, last, back], "n2");
    assert_agreed(&[first, back, last], &client);
    // Its sealing key is recorded and cannot be replaced: the printed way is another.
    nodes[1].stop();
    fs::remove_file(nodes[1].data.join("keys/sealing.key")).unwrap();
    let (code, said) = refused(&mut nodes[1], &[]);
    assert!(code == 3 && said.contains("keys/sealing.key") && said.contains("evict this node"), "{code} {said}");
}

/// No rule can tell here: the two that are alive know nothing of the revocation. It must come out when the third is
/// back.
#[test]
fn only_a_voter_that_remembers_tells_an_older_copy() {
    let world = World::new();
    let mut nodes = world.voters_leased(3, None);
    let client = pay(&world, &nodes[0]);
    nodes[1].stop();
    let older = world.path("older");
    copy(&nodes[1].data, &older);
    nodes[2].stop();
    nodes[1].start(&[]);
    nodes[1].until_ready();
    nodes[0].ask(&["cert", "revoke", "client/pay"]).ok();
    nodes[0].kill();
    nodes[1].stop();
    replace(&nodes[1], &older);
    for node in &mut nodes[1..] {
        node.start(&[]);
    }
    for node in &nodes[1..] {
        node.until_ready();
    }
    // The third has the revocation, committed. It does not follow them, and from then on no member serves.
    nodes[0].start(&[]);
    let told = |status: &Value| {
        let lacks = |node: &Value| node["node"] == 1 && node["holds"].to_string().contains("revocation of client/pay");
        status["ready"] == false
            && status["lease_millis_left"].is_null()
            && status["differing"].as_array().unwrap().iter().any(lacks)
    };
    for node in &nodes[1..] {
        let status = node.until(told);
        let said = status["warnings"].to_string();
        assert!(said.contains("n1 holds committed entries") && said.contains("held by n1"), "{said}");
    }
    let lacks = |status: &Value| status["warnings"].to_string().contains("leads without log entry");
    let status = nodes[0].until(lacks);
    assert!(status["ready"] == false && status["lease_millis_left"].is_null(), "{status}");
    // The way that is printed: what only the third holds is done again, and the third comes back.
    let leader = nodes[1].status()["raft"]["leader"].as_u64().unwrap();
    let leader = usize::try_from(leader).unwrap() - 1;
    nodes[leader].ask(&["cert", "revoke", "client/pay"]).ok();
    nodes[0].stop();
    nodes[0].start(&["--return-as-learner"]);
    let [back, second, third] = &nodes[..] else { panic!("three") };
    until_back(&[second, third, back], "n1");
    assert_agreed(&[second, third, back], &client);
}

/// The copy has the keys, the certificate and the store id of a member that runs.
#[test]
fn attack_second_process_with_a_copy_of_a_running_member_is_named_and_one_of_the_two_serves() {
    let world = World::new();
    let mut nodes = world.voters_leased(3, None);
    nodes[2].stop();
    let mut second = world.node("second");
    copy(&nodes[2].data, &second.data);
    nodes[2].start(&[]);
    nodes[2].until_ready();
    second.start(&[]);
    second.until(|_| true);
    let leased = |node: &Node| node.status()["lease_millis_left"].is_u64();
    let told =
        |node: &Node| node.status()["warnings"].to_string().contains("another process runs with this node's keys");
    let begun = Instant::now();
    while !(told(&nodes[2]) != told(&second) && leased(&nodes[2]) != leased(&second)) {
        assert!(begun.elapsed() < PATIENCE, "both serve, or none:\n{}\n{}", nodes[2].log(), second.log());
        pause();
    }
    let leader = nodes[..2].iter().find(|node| node.status()["raft"]["state"] == "leader").unwrap_or(&nodes[0]);
    leader.until(|status| {
        let said = status["warnings"].to_string();
        said.contains("two processes run as n3") || said.contains("n3 was rolled back")
    });
    second.kill();
    nodes[2].until_ready();
}
