//! `countersign security`: files that others accept, and that no command loses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use countersign_core::time::UnixMillis;
use countersign_pki::pem::certificates_from_pem;
use countersign_pki::verify::{Bundle, Usage, VerifiedChain, verify_chain};
use rig::Home;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Verifies a chain file as a member does.
fn verified(home: &Home, ca: &str, file: &str, usage: Usage) -> VerifiedChain {
    let pem = |path: &str| certificates_from_pem(&std::fs::read_to_string(home.join(path)).unwrap()).unwrap();
    let authority = pem(ca);
    let bundle = Bundle::new(authority.iter().map(AsRef::as_ref)).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    verify_chain(&bundle, &pem(file), usage, Some(UnixMillis::from_secs(now))).unwrap()
}

/// What OpenSSL says about a chain, where it is installed.
fn openssl_accepts(home: &Home, ca: &str, file: &str, purpose: &str) -> Option<bool> {
    let args = ["verify", "-x509_strict", "-CAfile", ca, "-purpose", purpose, file];
    let output = Command::new("openssl").args(args).current_dir(home.path()).output().ok()?;
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Some(output.status.success())
}

#[test]
fn an_authority_signs_brokers_and_clients_that_verify_everywhere() {
    let home = Home::new();
    let made = home.run(&["security", "ca", "create", "--trust-domain", "east.internal", "--json"]).ok().json();
    assert_eq!(made["principal"], "spiffe://east.internal");
    let broker = ["security", "certs", "create-broker", "--host", "b1.example.org", "--host", "b1", "--ip", "10.0.0.1"];
    home.run(&[&broker[..], &["--ip=::1"]].concat()).ok();
    home.run(&["security", "certs", "create-client", "--principal", "payment-service-producer"]).ok();

    let chain = verified(&home, "ca.pem", "broker.pem", Usage::Server);
    let parts = chain.claims();
    assert_eq!(parts.principal.to_string(), "spiffe://east.internal/broker/b1.example.org");
    let hosts: Vec<String> = chain.hosts().iter().map(ToString::to_string).collect();
    for host in ["b1.example.org", "b1", "10.0.0.1", "::1"] {
        assert!(hosts.iter().any(|h| h == host), "{host} is not in {hosts:?}");
    }
    let chain = verified(&home, "ca.pem", "payment-service-producer.pem", Usage::Client);
    let principal = chain.claims().principal.to_string();
    assert_eq!(principal, "spiffe://east.internal/client/payment-service-producer");
    for (file, purpose, accepted) in [
        ("broker.pem", "sslserver", true),
        ("payment-service-producer.pem", "sslclient", true),
        ("payment-service-producer.pem", "sslserver", false),
    ] {
        match openssl_accepts(&home, "ca.pem", file, purpose) {
            Some(verdict) => assert_eq!(verdict, accepted, "{file} as {purpose}"),
            None => println!("skipped: openssl is not installed"),
        }
    }
    for key in ["ca.key", "broker.key", "payment-service-producer.key"] {
        assert_eq!(mode(&home.join(key)), 0o600, "{key}");
    }
}

#[test]
fn an_existing_file_is_an_error_and_force_replaces_it() {
    let home = Home::new();
    home.run(&["security", "ca", "create"]).ok();
    let read = |name: &str| std::fs::read(home.join(name)).unwrap();
    let before = (read("ca.pem"), read("ca.key"));
    home.run(&["security", "ca", "create"]).failed(2, "`./ca.pem` exists already");
    // Half a pair is not completed by a new key.
    std::fs::remove_file(home.join("ca.pem")).unwrap();
    home.run(&["security", "ca", "create"]).failed(2, "`./ca.key` exists already");
    assert_eq!(read("ca.key"), before.1);
    home.run(&["security", "ca", "create", "--force"]).ok();
    assert_ne!((read("ca.pem"), read("ca.key")), before);
    assert_eq!(mode(&home.join("ca.key")), 0o600);
}

#[test]
fn directories_and_lifetimes_are_those_asked_for() {
    let home = Home::new();
    home.run(&["security", "ca", "create", "--out", "authority/one", "--ttl", "1h"]).ok();
    let client =
        ["security", "certs", "create-client", "--principal", "a", "--ca", "authority/one", "--out", "c", "--json"];
    let long = home.run(&client).ok().json();
    // No certificate outlives its authority.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(long["not_after"].as_u64().unwrap() <= now + 3600);
    verified(&home, "authority/one/ca.pem", "c/a.pem", Usage::Client);
    let short = home.run(&[&client[..], &["--ttl=10m", "--force"]].concat()).ok().json();
    assert!(short["not_after"].as_u64().unwrap() <= now + 700);
}

#[test]
fn what_makes_no_certificate_is_refused() {
    let home = Home::new();
    let client = |extra: &[&str]| home.run(&[&["security", "certs", "create-client"], extra].concat());
    client(&["--principal", "a"]).failed(2, "`./ca.pem`");
    home.run(&["security", "ca", "create", "--trust-domain", "one"]).ok();
    for name in ["../a", "A", "a b", "", "a/b", "a\u{0}b"] {
        if !name.contains('\0') {
            client(&["--principal", name]).failed(2, "--principal");
        }
    }
    client(&[]).failed(2, "--principal");
    client(&["--principal", "a", "--trust-domain", "other"]).failed(2, "trust domain `one`");
    client(&["--principal", "a", "--ttl", "90"]).failed(2, "--ttl");
    home.run(&["security", "certs", "create-broker", "--ip", "10.0.0.1"]).failed(2, "--host");
    home.run(&["security", "certs", "create-broker", "--host", "b", "--ip", "10.0.0"]).failed(2, "--ip");
    std::fs::set_permissions(home.join("ca.key"), PermissionsExt::from_mode(0o644)).unwrap();
    client(&["--principal", "a"]).failed(2, "can be read by others");
    std::fs::set_permissions(home.join("ca.key"), PermissionsExt::from_mode(0o600)).unwrap();
    home.run(&["security", "ca", "create", "--out", "other"]).ok();
    std::fs::copy(home.join("other/ca.key"), home.join("ca.key")).unwrap();
    client(&["--principal", "a"]).failed(2, "do not belong together");
    assert!(!home.join("a.key").exists() && !home.join("a.pem").exists());
}
