//! Real processes: made, joined, stopped and killed at any point, started again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::time::Duration;

use support_cluster::{World, run};

#[test]
fn three_processes_join_and_the_bootstrap_node_may_be_gone_when_a_fourth_does() {
    let world = World::new();
    let mut nodes = world.voters(3);
    let founder = nodes[0].status();
    nodes[0].kill();
    let token = nodes[1].token(&["--role", "learner"]);
    let mut fourth = world.node("n4");
    world.join(&mut fourth, &token, &nodes[2].address());
    // Killed without a word, it finds its place again.
    nodes[0].start(&[]);
    let again = nodes[0].until_settled(4);
    assert_eq!(founder["cluster_id"], again["cluster_id"]);
    assert!(again["generation"].as_u64() > founder["generation"].as_u64());
}

#[test]
fn a_whole_cluster_is_killed_and_forms_again_with_the_same_flags_on_every_boot() {
    let world = World::new();
    let mut nodes = world.voters(3);
    for node in &mut nodes {
        node.kill();
    }
    // The same unit file on every boot: bootstrap and join flags are ignored on a directory that holds the cluster.
    let token = world.token_file("used", "cst_spent:00");
    for (i, node) in nodes.iter_mut().enumerate().rev() {
        if i == 0 {
            node.start(&["--bootstrap", "--cluster-name", "test"]);
        } else {
            node.start(&["--join-token", &token, "--join-addr", "127.0.0.1:1"]);
        }
    }
    for node in &nodes {
        node.until_settled(3);
    }
    for node in &mut nodes {
        assert!(node.stop().success(), "{}", node.log());
    }
}

#[test]
fn a_start_tells_what_it_waits_for_and_when_that_is_over() {
    let world = World::new();
    let founder = world.founder();
    let mut node = world.node("n2");
    world.join(&mut node, &founder.token(&["--role", "voter"]), &founder.address());
    node.until(|_| node.log().contains("converged as a voter"));
    let log = node.log();
    let waits = log.find("waiting to be admitted").unwrap_or_else(|| panic!("{log}"));
    assert!(waits < log.find("has joined").unwrap() && !log.contains("making the cluster"), "{log}");
    // Lines of the log, nothing that moves.
    assert!(!log.contains('\u{1b}') && !log.contains('\r'), "{log}");
    assert!(founder.log().contains("making the cluster"), "{}", founder.log());
}

#[test]
fn leadership_is_handed_over_on_sigterm() {
    let world = World::new();
    let mut nodes = world.voters(3);
    let leader = nodes[0].status()["raft"]["leader"].as_u64().unwrap();
    let at = nodes.iter().position(|n| n.name == format!("n{leader}")).unwrap();
    let mut leader = nodes.remove(at);
    let term = nodes[0].status()["raft"]["term"].as_u64().unwrap();
    assert!(leader.stop().success());
    for node in &nodes {
        let status = node.until(|s| s["raft"]["leader"].is_u64() && s["ready"] == true);
        assert!(status["raft"]["term"].as_u64().unwrap() > term);
    }
}

#[test]
fn a_bootstrap_killed_at_any_point_is_finished_by_the_same_command() {
    let world = World::new();
    let flags = ["--bootstrap", "--cluster-name", "test"];
    let mut killed_early = 0;
    for step in 0..12 {
        let mut node = world.node(&format!("b{step}"));
        node.start(&flags);
        // why: the point of the kill is what varies; every one must do
        std::thread::sleep(Duration::from_millis(7 * step));
        node.kill();
        let finished = node.data.join("member.json").exists();
        killed_early += usize::from(!finished);
        node.start(&flags);
        let status = node.until_ready();
        assert_eq!(status["members"].as_array().unwrap().len(), 1, "killed after {} ms", 7 * step);
        node.kill();
    }
    assert!(killed_early > 0, "no kill came before the bootstrap was done");
}

#[test]
fn a_join_killed_at_any_point_is_finished_by_the_same_command_and_spends_one_use() {
    let world = World::new();
    let founder = world.founder();
    let sponsor = founder.address();
    let mut killed_early = 0;
    for step in 0..10 {
        let name = format!("j{step}");
        let token = founder.token(&["--role", "learner", "--uses", "1"]);
        let flag = world.token_file(&name, &token);
        let flags = ["--join-token", &flag, "--join-addr", &sponsor];
        let mut node = world.node(&name);
        node.start(&flags);
        // why: the point of the kill is what varies; every one must do
        std::thread::sleep(Duration::from_millis(10 * step));
        node.kill();
        killed_early += usize::from(!node.data.join("member.json").exists());
        node.start(&flags);
        node.until_ready();
        node.kill();
    }
    assert!(killed_early > 0, "no kill came before the join was done");
    assert_eq!(founder.status()["members"].as_array().unwrap().len(), 11);
}

#[test]
fn two_servers_do_not_share_a_directory() {
    let world = World::new();
    let founder = world.founder();
    let said = run(&["server", "--data", founder.data.to_str().unwrap(), "--cluster-addr", "127.0.0.1:0"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.stderr.contains("in use") && said.stderr.contains("try: "), "{said:?}");
    founder.until_ready();
}

#[test]
fn a_port_in_use_costs_nothing() {
    let world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = world.path("n1");
    let command =
        ["server", "--data", data.to_str().unwrap(), "--name", "n1", "--bootstrap", "--cluster-addr", &address];
    let said = run(&command);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.stderr.contains(&address) && said.stderr.contains("try: "), "{said:?}");
    assert!(!data.join("bootstrap.bin").exists());
}

#[test]
fn a_foreign_directory_is_left_alone() {
    let world = World::new();
    let data = world.path("home");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("thesis.tex"), "years").unwrap();
    let said = run(&["server", "--data", data.to_str().unwrap(), "--bootstrap", "--cluster-addr", "127.0.0.1:0"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.stderr.contains("thesis.tex") && said.stderr.contains("try: "), "{said:?}");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1);
}

#[test]
fn a_key_that_others_can_read_is_refused_and_named() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let mut founder = world.founder();
    founder.kill();
    let key = founder.data.join("keys/identity.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = run(&["server", "--data", founder.data.to_str().unwrap(), "--cluster-addr", "127.0.0.1:0"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.stderr.contains("identity.key") && said.stderr.contains("try: chmod"), "{said:?}");
}

#[test]
fn a_joining_node_that_finds_no_files_makes_no_authority() {
    let world = World::new();
    // There is no listener: the join fails, and its remains hold no cluster.
    let data = world.path("n2");
    let founder = world.founder();
    let token = founder.token(&[]);
    let flag = world.token_file("n2", &token);
    let mut node = world.node("n2");
    node.start(&["--join-token", &flag, "--join-addr", "127.0.0.1:1"]);
    let begun = std::time::Instant::now();
    while !data.join("join.json").exists() {
        assert!(begun.elapsed() < support_cluster::PATIENCE, "{}", node.log());
        support_cluster::pause();
    }
    node.kill();
    assert!(!data.join("member.json").exists() && !data.join("bootstrap.bin").exists());
    // Without its join flags it does not start as something else.
    let said = run(&["server", "--data", data.to_str().unwrap(), "--cluster-addr", "127.0.0.1:0"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.stderr.contains("not finished") && said.stderr.contains("--join-token"), "{said:?}");
    // With them, it finishes.
    node.start(&["--join-token", &flag, "--join-addr", &founder.address()]);
    node.until_ready();
}

#[test]
fn a_server_without_flags_is_one_member_on_loopback_and_says_so() {
    let world = World::new();
    let mut node = world.node("solo");
    node.start(&[]);
    let status = node.until_ready();
    assert_eq!(status["members"].as_array().unwrap().len(), 1);
    assert!(node.address().starts_with("127.0.0.1:"), "{}", node.address());
    assert!(node.log().contains("loopback"), "{}", node.log());
    assert!(!node.data.join("cluster-token").exists());
}
