//! Attacks on running processes. Each is refused, and where a refusal has an id, both ends know it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use support_cluster::{BINARY, World, run, run_with};

#[test]
fn the_demo_agrees_with_itself() {
    let said = run(&["demo", "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    let told = said.json();
    assert_eq!(told["agrees"], true);
    assert!(told["rows"].as_array().unwrap().len() >= 14, "{told}");
}

#[test]
fn a_token_with_one_use_admits_one_of_many_processes_that_join_at_once_through_different_nodes() {
    let world = World::new();
    let nodes = world.voters(3);
    let token = nodes[0].token(&["--role", "learner", "--uses", "1"]);
    let mut joiners: Vec<_> = (0..5)
        .map(|i| {
            let mut node = world.node(&format!("x{i}"));
            let flag = world.token_file(&node.name, &token);
            node.start(&["--join-token", &flag, "--join-addr", &nodes[i % 3].address()]);
            node
        })
        .collect();
    let begun = std::time::Instant::now();
    loop {
        let ended = joiners.iter_mut().filter_map(|j| j.ended()).count();
        let admitted = joiners.iter().filter(|j| j.data.join("member.json").exists()).count();
        if ended + admitted == joiners.len() {
            assert_eq!(admitted, 1);
            break;
        }
        assert!(begun.elapsed() < support_cluster::PATIENCE);
        support_cluster::pause();
    }
    for joiner in &mut joiners {
        if joiner.ended().is_some() {
            assert!(joiner.log().contains("no uses left"), "{}", joiner.log());
        }
    }
    assert_eq!(nodes[1].until_settled(4)["members"].as_array().unwrap().len(), 4);
}

#[test]
fn an_expired_token_is_refused_by_every_member_and_after_a_change_of_leader() {
    let world = World::new();
    let mut nodes = world.voters(3);
    let token = nodes[0].token(&["--ttl", "1s", "--role", "learner"]);
    nodes[0].until(|_| {
        let list = nodes[0].ask(&["token", "list"]).ok().json();
        list.as_array().unwrap().iter().any(|t| t["state"] == "expired")
    });
    for (i, node) in nodes.iter().enumerate() {
        let said = world.join_to_end(&format!("late{i}"), &token, &node.address());
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.stderr.contains("expired") && said.stderr.contains("try: "), "{said:?}");
    }
    let leader = nodes[0].status()["raft"]["leader"].as_u64().unwrap();
    let at = nodes.iter().position(|n| n.name == format!("n{leader}")).unwrap();
    nodes.remove(at).kill();
    nodes[0].until(|s| s["ready"] == true && s["raft"]["leader"].as_u64().is_some_and(|l| l != leader));
    let said = world.join_to_end("later", &token, &nodes[0].address());
    assert!(said.code == 1 && said.stderr.contains("expired"), "{said:?}");
}

#[test]
fn a_mistyped_token_is_caught_before_any_network() {
    let world = World::new();
    let founder = world.founder();
    let token = founder.token(&[]);
    let secret = token.split(':').next().unwrap();
    let mut typo = token.clone();
    typo.replace_range(10..11, if &token[10..11] == "a" { "b" } else { "a" });
    // There is no listener on port 1: a join that tried would say so.
    let said = world.join_to_end("n2", &typo, "127.0.0.1:1");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("mistyped") && said.stderr.contains("try: "), "{said:?}");
    assert!(!said.stderr.contains(&secret[8..]), "{said:?}");
    assert!(!world.path("n2").join("member.json").exists());
}

#[test]
fn a_wrong_address_and_another_service_there_are_told_apart() {
    let world = World::new();
    let founder = world.founder();
    let token = founder.token(&[]);
    let web = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = web.local_addr().unwrap().to_string();
    let answering = std::thread::spawn(move || {
        while let Ok((mut socket, _)) = web.accept() {
            let mut hello = [0; 512];
            let _ = socket.read(&mut hello);
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let said = world.join_to_end("n2", &token, &address);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.stderr.contains("does not speak countersign") && said.stderr.contains("try: "), "{said:?}");
    drop(answering);
}

#[test]
fn a_proxy_that_ends_tls_is_recognized_and_told_nothing() {
    let world = World::new();
    let founder = world.founder();
    let token = founder.token(&[]);
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: no openssl");
        return;
    }
    let (cert, key) = (world.path("proxy.pem"), world.path("proxy.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=proxy", "-days", "1", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut proxy = Command::new("openssl")
        .args([
            "s_server",
            "-quiet",
            "-tls1_3",
            "-alpn",
            "countersign/1 enroll",
            "-accept",
            &format!("127.0.0.1:{port}"),
        ])
        .arg("-cert")
        .arg(&cert)
        .arg("-key")
        .arg(&key)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        support_cluster::pause();
    }
    let said = world.join_to_end("n2", &token, &format!("127.0.0.1:{port}"));
    let _ = proxy.kill();
    let mut told = Vec::new();
    proxy.stdout.take().unwrap().read_to_end(&mut told).unwrap();
    let _ = proxy.wait();
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.stderr.contains("proxy") && said.stderr.contains("try: "), "{said:?}");
    assert!(told.is_empty(), "{} bytes were told", told.len());
}

#[test]
fn no_secret_appears_in_any_output_at_trace_level() {
    let world = World::new();
    let trace = [("COUNTERSIGN_LOG", "trace")];
    let mut founder = world.node("n1");
    founder.start_with(&["--bootstrap", "--cluster-name", "test"], &trace);
    founder.until_ready();
    let token = founder.token(&["--role", "voter"]);
    let mut second = world.node("n2");
    let flag = world.token_file("n2", &token);
    second.start_with(&["--join-token", &flag, "--join-addr", &founder.address()], &trace);
    second.until_settled(2);
    let spent = run_with(
        &[
            "server",
            "--data",
            world.path("n3").to_str().unwrap(),
            "--name",
            "n3",
            "--cluster-addr",
            "127.0.0.1:0",
            "--join-token",
            &flag,
            "--join-addr",
            &founder.address(),
        ],
        &trace,
    );
    assert_eq!(spent.code, 1, "{spent:?}");
    let status = run_with(&["status", "--data", founder.data.to_str().unwrap()], &trace);
    let mut canaries = vec![token.split(':').next().unwrap()["cst_".len()..].to_owned()];
    let cluster_token = std::fs::read_to_string(founder.data.join("cluster-token")).unwrap();
    canaries.push(cluster_token.split(':').next().unwrap()["cst_".len()..].to_owned());
    for node in [&founder, &second] {
        for key in ["identity", "sealing", "ucan"] {
            canaries
                .push(std::fs::read_to_string(node.data.join(format!("keys/{key}.key"))).unwrap().trim().to_owned());
        }
        let pem = std::fs::read_to_string(node.data.join("keys/leaf.key")).unwrap();
        canaries.push(pem.lines().nth(1).unwrap().to_owned());
    }
    // What a canary would look like were it printed as bytes, too.
    let as_bytes: Vec<String> = canaries
        .iter()
        .filter(|c| c.len() == 64 && c.bytes().all(|b| b.is_ascii_hexdigit()))
        .map(|hex| {
            let bytes: Vec<u8> = (0..8).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
            format!("{bytes:?}").trim_matches(['[', ']']).to_owned()
        })
        .collect();
    let outputs = [founder.log(), second.log(), spent.stdout, spent.stderr, status.stdout, status.stderr];
    assert!(outputs[0].contains("TRACE"), "nothing was traced, so nothing was searched");
    for output in &outputs {
        for canary in canaries.iter().chain(&as_bytes) {
            assert!(!output.contains(canary.as_str()), "a secret was printed: {canary}");
        }
    }
    // The events, which a reader of the log may see, hold none either.
    for node in [&founder, &second] {
        let events = std::fs::read_to_string(node.data.join("events.jsonl")).unwrap();
        assert!(events.contains("node.admitted"), "no event, so nothing was searched");
        for canary in canaries.iter().chain(&as_bytes) {
            assert!(!events.contains(canary.as_str()), "an event holds a secret: {canary}");
        }
    }
    // The files beside the keys hold none either: the log, its snapshots, the refusals.
    let secret = token.split(':').next().unwrap()["cst_".len()..].to_owned();
    for node in [&founder, &second] {
        for file in walk(&node.data) {
            let bytes = std::fs::read(&file).unwrap_or_default();
            assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{}", file.display());
        }
    }
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn an_admin_command_of_a_learner_does_not_administer() {
    let world = World::new();
    let founder = world.founder();
    let token = founder.token(&["--role", "learner"]);
    let mut learner = world.node("n2");
    world.join(&mut learner, &token, &founder.address());
    for command in [&["token", "create"][..], &["node", "evict", "n1"], &["node", "promote", "n2"]] {
        let said = learner.ask(command);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.stderr.contains("not a voter") || said.stdout.contains("not a voter"), "{said:?}");
    }
    // A learner may sponsor: the token's signature is what admits.
    let token = founder.token(&["--role", "learner"]);
    let mut third = world.node("n3");
    world.join(&mut third, &token, &learner.address());
    let _ = BINARY;
}

#[test]
fn bad_input_is_answered_and_changes_nothing() {
    let world = World::new();
    let founder = world.founder();
    let before = founder.status()["generation"].clone();
    for (command, code, word) in [
        (&["node", "evict", "n9", "--keep-authority"][..], 1, "no node"),
        (&["node", "evict", "n1", "--keep-authority"], 1, "itself"),
        (&["node", "demote", "n1", "--keep-authority"], 1, "last voter"),
        (&["token", "revoke", "zz"], 2, "not a token id"),
        (&["token", "revoke", "0011223344556677"], 1, "no join token"),
        (&["explain", "0011223344556677"], 1, "not on record"),
        (&["cert", "issue", "--client", "Not A Name"], 2, "name"),
        (&["token", "create", "--uses", "100000"], 1, "limit"),
    ] {
        let said = founder.ask(command);
        assert_eq!(said.code, code, "{command:?}: {said:?}");
        let text = format!("{}{}", said.stdout, said.stderr);
        assert!(text.contains(word) && text.contains("try"), "{command:?}: {said:?}");
    }
    assert_eq!(founder.status()["generation"], before);
}
