//! The admin commands against one member: by its socket, and by its HTTPS port with an admin's certificate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use std::os::unix::fs::PermissionsExt;

use countersign_core::trust::join_token::JoinToken;
use rig::Home;
use serde_json::Value;

#[test]
fn tokens_are_made_listed_and_ended() {
    let home = Home::new();
    let server = home.server(&["--data", "d", "--name", "n1", "--bootstrap"]);
    let run = |args: &[&str]| home.run(&[args, &["--data", "d"]].concat());
    let plain = run(&["token", "create"]).ok().stdout;
    assert_eq!(plain.lines().count(), 1, "the token alone, for a pipe: {plain}");
    let id = JoinToken::parse(&plain).unwrap().id().to_string();
    let learner = [
        "token",
        "create",
        "--json",
        "--role=learner",
        "--ttl",
        "7d",
        "--uses",
        "3",
        "--name",
        "n9",
        "--label",
        "role=Worker",
    ];
    let made = run(&[&learner[..], &["--label", "gpu=true", "--label=zone=a"]].concat()).ok().json();
    assert_eq!((made["uses"].as_u64(), made["role"].as_str()), (Some(3), Some("learner")));
    let listed = |id: &str| -> Value {
        let list = run(&["token", "list", "--json"]).ok().json();
        list.as_array().unwrap().iter().find(|t| t["id"] == id).cloned().unwrap()
    };
    let default = listed(&id);
    assert_eq!((default["role"].as_str(), default["uses"].as_u64()), (Some("voter"), Some(1)));
    assert_eq!(listed(made["id"].as_str().unwrap())["name"], "n9");
    run(&["token", "revoke", &id]).ok();
    assert_eq!(listed(&id)["state"], "revoked");
    let rotated = run(&["token", "rotate", "--json"]).ok().json();
    assert!(JoinToken::parse(rotated["token"].as_str().unwrap()).is_ok());
    let list = run(&["token", "list"]).ok().stdout;
    assert!(list.starts_with("ID\tSTATE\t") && !list.contains("cst_"), "{list}");
    run(&["token", "revoke", "0011223344556677"]).failed(1, "");
    let secret = made["token"].as_str().unwrap();
    let done = run(&["token", "revoke", secret]).failed(2, "not a token id");
    assert!(!done.stderr.contains(secret.split(':').next().unwrap()), "{}", done.stderr);
    for bad in [&["--ttl", "30"][..], &["--uses", "0"], &["--name", "A"], &["--label", "gpu"], &["--role", "king"]] {
        run(&[&["token", "create"], bad].concat()).failed(2, bad[0]);
    }
    server.stop();
}

#[test]
fn refused_changes_exit_with_1_and_mistyped_names_with_2() {
    let home = Home::new();
    let server = home.server(&["--data", "d", "--name", "n1", "--bootstrap"]);
    let run = |args: &[&str]| home.run(&[args, &["--data", "d"]].concat());
    run(&["node", "evict", "n1", "--keep-authority"]).failed(1, "n1");
    run(&["node", "demote", "n1", "--keep-authority"]).failed(1, "");
    run(&["node", "promote", "n2"]).failed(1, "`n2`");
    run(&["explain", "0011223344556677"]).failed(1, "0011223344556677");
    for bad in ["../status", "a b", "%2e", "N1", ""] {
        run(&["node", "promote", bad]).failed(2, "no name and no number of a node");
    }
    run(&["explain", "zz"]).failed(2, "`zz`");
    run(&["cert", "revoke", "aa"]).failed(2, "`aa`");
    let list = run(&["node", "list", "--json"]).ok().json();
    assert_eq!((list[0]["name"].as_str(), list[0]["this"].as_bool()), (Some("n1"), Some(true)));
    let error: Value = serde_json::from_str(&run(&["node", "promote", "n2", "--json"]).stderr).unwrap();
    assert_eq!(error["exit"], 1);
    assert!(error["error"].is_string() && error["try"].is_string());
    server.stop();
}

/// A certificate for the HTTPS port that its operator made, under an authority of its own.
fn operators(home: &Home, authority: &str, host: &str, key: &str) {
    home.run(&["security", "ca", "create", "--out", authority]).ok();
    let made = ["--ca", authority, "--out", authority, "--host", host, "--key", key];
    home.run(&[&["security", "certs", "create-broker"], &made[..]].concat()).ok();
}

#[test]
fn operator_s_certificate_serves_the_port_and_its_replacement_too() {
    let home = Home::new();
    operators(&home, "first", "localhost", "p256");
    operators(&home, "second", "localhost", "ed25519");
    operators(&home, "elsewhere", "n1.example.org", "p256");
    let take = |authority: &str| {
        for (from, to) in [("broker.pem", "https.pem"), ("broker.key", "https.key")] {
            std::fs::copy(home.join(&format!("{authority}/{from}")), home.join(&format!("{to}.new"))).unwrap();
            std::fs::rename(home.join(&format!("{to}.new")), home.join(to)).unwrap();
        }
    };
    take("first");
    let files = ["--https-addr", "127.0.0.1:0", "--https-cert", "https.pem", "--https-key", "https.key"];
    let server = home.server(&[&["--data", "d", "--name", "n1", "--bootstrap"], &files[..]].concat());
    let https = server.ready["https_addr"].as_str().unwrap();
    let port = https.rsplit_once(':').unwrap().1;
    home.run(&["cert", "issue", "--data", "d", "--admin", "root", "--out", "c"]).ok();
    let ask = |host: &str, ca: &str| {
        let server = format!("{host}:{port}");
        let identity = ["--identity", "c/root.pem", "--identity-key", "c/root.key"];
        home.run(&[&["status", "--server", &server, "--ca", ca], &identity[..]].concat())
    };
    ask("localhost", "first/ca.pem").ok();
    // The cluster's authority does not verify this certificate, and the certificate names no other host.
    ask("localhost", "c/ca.pem").failed(3, "authority");
    ask("127.0.0.1", "first/ca.pem").failed(3, "dialed host");
    take("second");
    ask("localhost", "second/ca.pem").ok();
    ask("localhost", "first/ca.pem").failed(3, "authority");
    // Half a replacement replaces nothing.
    std::fs::copy(home.join("elsewhere/broker.pem"), home.join("https.pem")).unwrap();
    ask("localhost", "second/ca.pem").ok();
    take("elsewhere");
    ask("localhost", "elsewhere/ca.pem").failed(3, "dialed host");
    // A client's certificate does not serve, though it is the authority's.
    for file in ["pem", "key"] {
        std::fs::copy(home.join(&format!("c/root.{file}")), home.join(&format!("https.{file}"))).unwrap();
    }
    ask("localhost", "c/ca.pem").failed(3, "");
    server.stop();
}

#[test]
fn an_admin_s_certificate_administers_over_https_and_a_client_s_does_not() {
    let home = Home::new();
    let server = home.server(&["--data", "d", "--name", "n1", "--bootstrap", "--https-addr", "127.0.0.1:0"]);
    let https = server.ready["https_addr"].as_str().unwrap().to_owned();
    for (flag, name) in [("--admin", "root"), ("--client", "pay")] {
        home.run(&["cert", "issue", "--data", "d", flag, name, "--out", "c", "--ttl", "1h"]).ok();
        let mode = std::fs::metadata(home.join(&format!("c/{name}.key"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    home.run(&["cert", "issue", "--data", "d", "--client", "pay", "--out", "c"]).failed(2, "exists already");
    home.run(&["cert", "issue", "--data", "d", "--client", "../pay", "--out", "c"]).failed(2, "`--client ../pay`");
    home.run(&["cert", "issue", "--data", "d", "--out", "c"]).failed(2, "--client");
    home.run(&["cert", "issue", "--data", "d", "--client", "a", "--admin", "b"]).failed(2, "--admin");

    let remote = |name: &str, ca: &str| {
        let (certificate, key) = (format!("c/{name}.pem"), format!("c/{name}.key"));
        let args =
            ["status", "--json", "--server", &https, "--identity", &certificate, "--identity-key", &key, "--ca", ca];
        home.run(&args)
    };
    assert_eq!(remote("root", "c/ca.pem").ok().json()["name"], "n1");
    let refused = remote("pay", "c/ca.pem");
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    // Another authority is not believed, whatever answers at the address.
    home.run(&["security", "ca", "create", "--out", "other"]).ok();
    assert_eq!(remote("root", "other/ca.pem").code, Some(3));

    // The certificate is for 127.0.0.1, not for another name of the same host.
    let port = https.rsplit_once(':').unwrap().1;
    let identity = ["--identity", "c/root.pem", "--identity-key", "c/root.key", "--ca", "c/ca.pem"];
    let named = format!("localhost:{port}");
    home.run(&[&["status", "--server", &named], &identity[..]].concat()).failed(3, "dialed host");

    home.run(&["status", "--server", &https]).failed(2, "`--identity` is missing");
    home.run(&["status", "--data", "d", "--server", &https]).failed(2, "exclude each other");
    home.run(&["status", "--data", "d", "--remember"]).failed(2, "`--remember`");
    home.run(&[&["status", "--server", &https, "--remember"], &identity[..]].concat()).ok();
    assert!(std::fs::read_to_string(home.join(".config/countersign/context.toml")).unwrap().contains(&https));
    assert_eq!(home.run(&["status", "--json"]).ok().json()["name"], "n1");
    // A setting given prevails over a remembered one.
    home.run(&["status", "--data", "absent"]).failed(3, "`absent`");

    let list = home.run(&["cert", "list", "--json"]).ok().json();
    let pay = list.as_array().unwrap().iter().find(|c| c["principal"].as_str().unwrap().ends_with("/client/pay"));
    home.run(&["cert", "revoke", pay.unwrap()["key"].as_str().unwrap()]).ok();
    server.stop();
}
