//! `countersign server` as a process: what it refuses before it opens anything, and one member's life.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;

use countersign_core::id::AuthorityId;
use countersign_core::secret::Secret;
use countersign_core::trust::join_token::JoinToken;
use rig::{DEADLINE, Home};

fn token() -> String {
    JoinToken::new(Secret::new([7; 32]), AuthorityId([9; 32])).reveal()
}

#[test]
fn a_mistyped_token_is_caught_before_any_network_and_never_repeated() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let sponsor = listener.local_addr().unwrap().to_string();
    let right = token();
    let secret: String = right.chars().skip(4).take(16).collect();
    let swapped = right.replacen(secret.as_str(), &secret.chars().rev().collect::<String>(), 1);
    let cut: String = right.chars().take(70).collect();
    for wrong in [swapped.as_str(), &cut, &right.replace(':', ""), "cst_", "x", " "] {
        std::fs::write(home.join("token"), wrong).unwrap();
        for way in [wrong, "@token"] {
            let args = ["server", "--data", "d", "--join-token", way, "--join-addr", &sponsor];
            let done = home.run(&args).failed(2, "");
            for part in [secret.clone(), secret.chars().rev().collect()] {
                assert!(!done.stderr.contains(&part), "{}", done.stderr);
            }
        }
        let args = ["server", "--data", "d", "--join-addr", &sponsor];
        home.run_with(&args, &[("COUNTERSIGN_JOIN_TOKEN", wrong)]).failed(2, "");
    }
    let stdin = home.run_on(&["server", "--data", "d", "--join-token", "-", "--join-addr", &sponsor], cut.as_bytes());
    stdin.failed(2, "");
    // As an argument of its own, a token is not repeated either.
    let done = home.run(&["server", "--data", "d", &right]).failed(2, "unexpected argument");
    assert!(!done.stderr.contains(&secret), "{}", done.stderr);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "an address was dialed");
    assert!(!home.join("d").exists(), "nothing was made");
}

#[test]
fn without_a_word_about_how_to_start_nothing_is_offered_to_the_network() {
    let home = Home::new();
    for args in [&["--cluster-addr", "0.0.0.0:0"][..], &["--cluster-addr", "[::]:0"], &["--advertise-addr", "n1:7100"]]
    {
        home.run(&[&["server", "--data", "d"], args].concat()).failed(2, "is not loopback");
        assert!(!home.join("d").exists());
    }
    let token = token();
    let variables = [("COUNTERSIGN_JOIN_TOKEN", token.as_str())];
    home.run_with(&["server", "--data", "d", "--join-addr", "192.0.2.1:7100"], &variables).failed(2, "other host");
}

#[test]
fn an_occupied_directory_is_refused_and_left_alone() {
    let home = Home::new();
    std::fs::create_dir(home.join("d")).unwrap();
    std::fs::write(home.join("d/thesis.tex"), "years of work").unwrap();
    for flag in ["--bootstrap", "--bootstrap=false"] {
        let args = ["server", "--data", "d", "--name", "n1", "--cluster-addr", "127.0.0.1:0", flag];
        home.run(&args).failed(3, "`thesis.tex`");
    }
    assert_eq!(std::fs::read_dir(home.join("d")).unwrap().count(), 1);
}

#[test]
fn one_member_bootstraps_answers_stops_and_goes_on() {
    let home = Home::new();
    let server = home.server(&["--data", "d", "--name", "n1", "--bootstrap", "--cluster-name", "east"]);
    let ready = server.ready.clone();
    assert_eq!(
        (ready["started"].as_str(), ready["name"].as_str(), ready["cluster"].as_str()),
        (Some("founded"), Some("n1"), Some("east"))
    );
    let path = std::path::Path::new(ready["token_file"].as_str().unwrap());
    let token = std::fs::read_to_string(home.path().join(path)).unwrap();
    let token = JoinToken::parse(&token).unwrap();
    assert_eq!(ready["authority"].as_str().unwrap(), token.pin().to_string());
    let command = ready["join_command"].as_str().unwrap();
    assert!(
        command.contains("--join-token @/") && command.ends_with(ready["advertise"][0].as_str().unwrap()),
        "{command}"
    );
    assert!(!command.contains("0.0.0.0") && !command.contains("cst_"), "{command}");

    // It listens, and has its lease a moment later.
    let begun = std::time::Instant::now();
    let status = loop {
        let status = home.run(&["status", "--json", "--data", "d"]).ok().json();
        if status["ready"] == true {
            break status;
        }
        assert!(begun.elapsed().as_secs() < 60, "{status}");
    };
    assert_eq!(status["cluster_id"].as_str(), ready["cluster_id"].as_str());
    home.run(&["server", "--data", "d", "--cluster-addr", "127.0.0.1:0"]).failed(3, "in use by another process");
    server.signal("HUP");
    home.run(&["status", "--data", "d"]).ok();
    server.stop();
    home.run(&["status", "--data", "d"]).failed(3, "no member answers in `d`");

    // The flags of the first start, and a token that is not even one, do no harm to a member.
    for again in
        [&["--bootstrap", "--name", "n1"][..], &["--join-token", "mistyped", "--join-addr", "192.0.2.1:1"], &[]]
    {
        let server = home.server(&[&["--data", "d"], again].concat());
        assert_eq!((&server.ready["started"], &server.ready["cluster_id"]), (&"again".into(), &ready["cluster_id"]));
        assert_eq!(server.ready["join_command"], serde_json::Value::Null);
        server.stop();
    }
    home.run(&["server", "--data", "d", "--cluster-name", "west", "--bootstrap"])
        .failed(2, "belongs to cluster `east`");
}

#[test]
fn a_member_alone_says_so_and_makes_no_token() {
    let home = Home::new();
    let server = home.server(&["--data", "d", "--name", "n1"]);
    assert_eq!(server.ready["token_file"], serde_json::Value::Null);
    assert!(!home.join("d/cluster-token").exists());
    assert!(server.ready["cluster_addr"].as_str().unwrap().starts_with("127.0.0.1:"));
    server.signal("INT");
    assert_eq!(server.ended(), Some(0));
}

#[test]
fn a_cluster_starts_on_an_authority_made_offline() {
    let home = Home::new();
    let made =
        home.run(&["security", "ca", "create", "--trust-domain", "east.internal", "--out", "ca", "--json"]).ok().json();
    let server = home.server(&["--data", "d", "--name", "n1", "--bootstrap", "--ca", "ca"]);
    assert_eq!(server.ready["authority"], made["authority"]);
    assert_eq!(server.ready["trust_domain"], "east.internal");
    server.stop();
    home.run(&["server", "--data", "e", "--bootstrap", "--ca", "absent"]).failed(2, "`absent/ca.pem`");
}

#[test]
fn a_supervisor_is_told_and_the_token_is_in_no_log() {
    let home = Home::new();
    let supervisor = UnixDatagram::bind(home.join("notify")).unwrap();
    supervisor.set_read_timeout(Some(DEADLINE)).unwrap();
    let told = || {
        let mut message = [0; 256];
        let len = supervisor.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..len]).into_owned()
    };
    let path = home.join("notify");
    let notify = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let server = home.server_with(&["--data", "d", "--name", "n1", "--bootstrap", "--log", "trace"], &notify);
    assert!(told().contains("READY=1"));
    let made = home.run(&["token", "create", "--data", "d"]).ok().stdout;
    server.signal("TERM");
    assert!(told().contains("STOPPING=1"));
    assert_eq!(server.ended(), Some(0));
    let log = std::fs::read_to_string(home.join("log")).unwrap();
    assert!(log.lines().count() > 10 && log.lines().all(|line| line.starts_with('{')), "JSON lines off a terminal");
    for token in [made, std::fs::read_to_string(home.join("d/cluster-token")).unwrap()] {
        let secret: String = token.trim_start_matches("cst_").chars().take(16).collect();
        assert!(!log.contains(&secret), "a token's secret is in the log");
    }
}

#[test]
fn a_socket_s_path_may_be_longer_than_a_socket_s_address() {
    let home = Home::new();
    let deep = format!("{}/{}", "a".repeat(100), "b".repeat(100));
    let server = home.server(&["--data", &deep, "--name", "n1"]);
    assert_eq!(home.run(&["status", "--json", "--data", &deep]).ok().json()["name"], "n1");
    server.stop();
}

#[test]
fn the_bootstrap_s_token_is_as_the_configuration_says() {
    let home = Home::new();
    std::fs::write(home.join("c.toml"), "[cluster.token]\nuses = 2\nttl = '1h'\n").unwrap();
    let args = ["--data", "d", "--name", "n1", "--bootstrap", "--config", "c.toml"];
    let server = home.server_with(&args, &[("COUNTERSIGN_CLUSTER_TOKEN_ROLE", "voter")]);
    let list = home.run(&["token", "list", "--data", "d", "--json"]).ok().json();
    let [token] = list.as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!((token["uses"].as_u64(), token["role"].as_str()), (Some(2), Some("voter")));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!((1..=3600).contains(&(token["not_after"].as_u64().unwrap() - now)), "{token}");
    server.stop();
    let past = [&args[..], &["--data", "e"]].concat();
    let variable = [("COUNTERSIGN_CLUSTER_TOKEN_USES", "10001")];
    let refused = home.run_with(&[&["server"], &past[2..]].concat(), &variable);
    refused.failed(2, "`COUNTERSIGN_CLUSTER_TOKEN_USES` is 10001: expected 1 to 10000");
    assert!(!home.join("e").exists());
}
