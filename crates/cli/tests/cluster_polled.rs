//! Members that are asked without end while everything changes go on applying: none of them waits on itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use countersign::endpoints_for_testing;
use support_cluster::{Node, World, http, run};

const CLIENTS: usize = 16;
/// How long everything is asked while everything changes.
const TROUBLE: Duration = Duration::from_secs(60);

/// Paths that any operator of a host may read, without parameters.
fn readable() -> Vec<&'static str> {
    let rows = endpoints_for_testing().into_iter();
    let paths: Vec<_> =
        rows.filter(|(method, path, _)| method == "GET" && !path.contains('{')).map(|row| row.1).collect();
    assert!(paths.contains(&"/v1/status") && paths.contains(&"/metrics") && paths.len() > 8, "{paths:?}");
    paths
}

/// One of many clients: each asks every member for everything, each beginning elsewhere.
fn poll(client: usize, sockets: &[PathBuf], over: &AtomicBool, answered: &AtomicU64) {
    let paths = readable();
    let mut turn = client;
    while !over.load(Ordering::Relaxed) {
        let (socket, path) = (&sockets[turn % sockets.len()], paths[(turn / sockets.len()) % paths.len()]);
        if http::on_socket(socket, "GET", path).is_some() {
            answered.fetch_add(1, Ordering::Relaxed);
        }
        if turn.is_multiple_of(500) {
            let data = socket.parent().unwrap().to_str().unwrap();
            run(&["status", "--data", data, "--json"]);
        }
        turn += 1;
    }
}

/// Changes tokens and rules, asked of each member in its turn. On a loaded machine leadership may change meanwhile, and
/// an answer be lost: how many changes were made is returned.
fn change(nodes: &[Node], round: usize) -> usize {
    let asked = &nodes[round % nodes.len()];
    let name = format!("t{}", round / 2);
    let rule = ["--principal", "client/pay", "--action", "read", "--topic", &name];
    let verb = if round.is_multiple_of(2) { "add" } else { "remove" };
    let rules = asked.ask(&[&["acl", verb], &rule[..]].concat());
    let tokens = asked.ask(&["token", "create", "--ttl", "1m"]);
    [rules, tokens].iter().filter(|said| said.code == 0).count()
}

#[test]
fn members_that_are_polled_while_everything_changes_never_stand_still() {
    let world = World::new();
    // Certificates that live for seconds: renewals go on all the while.
    let settings = [("COUNTERSIGN_PKI_NODE_TTL", "8s")];
    let mut founder = world.node("n1");
    founder.start_with(&["--bootstrap", "--cluster-name", "test"], &settings);
    founder.until_ready();
    let token = founder.token(&["--role", "voter"]);
    let mut second = world.node("n2");
    world.join(&mut second, &token, &founder.address());
    let nodes = vec![founder, second];
    nodes[0].until_settled(2);
    // A learner joins in the midst of it, polled from the moment that it listens.
    let mut learner = world.node("n3");
    let token = world.token_file("n3", &nodes[0].token(&[]));
    let sockets: Vec<PathBuf> = nodes.iter().chain([&learner]).map(|node| node.data.join("admin.sock")).collect();
    let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (sockets, over, answered) = (&sockets, &over, &answered);
            scope.spawn(move || poll(client, sockets, over, answered));
        }
        // Ends the clients, however this ends.
        let _ends = Ends(&over);
        let begun = Instant::now();
        let (mut round, mut changes) = (0, 0);
        while begun.elapsed() < TROUBLE {
            changes += change(&nodes, round);
            if round == 2 {
                learner.start(&["--join-token", &token, "--join-addr", &nodes[1].address()]);
            }
            round += 1;
        }
        assert!(changes > 8, "{changes} changes");
    });
    let answered = answered.into_inner();
    assert!(answered > 1000, "{answered} answers");
    // Each has applied everything, and is the process that it was.
    let generation = nodes[0].until_settled(3)["generation"].as_u64().unwrap();
    for node in nodes.iter().chain([&learner]) {
        node.until(|status| status["ready"] == true && status["generation"].as_u64() >= Some(generation));
        assert!(!node.log().contains("stands still"), "{}", node.log());
    }
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
