//! `server --check`, on configurations as people write them, and what a start with them says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use std::path::{Path, PathBuf};

use rig::Home;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Each fixture, lines that its effective configuration must hold, and what a start refuses it for.
const FIXTURES: [(&str, &[&str], &str); 4] = [
    (
        "client-port-tls.toml",
        &["[network.tls]", "ca_cert_path = \"/path/to/ca.pem\" #", "[acl]", "cache_ttl_secs = 300 #"],
        "`[network.tls] enabled` is not available in this version",
    ),
    (
        "cluster-authentication.toml",
        &[
            "[cluster.authentication]",
            "mode = \"mtls_ucan\" #",
            "generate_certs_if_missing = true #",
            "token_secret = \"(not shown)\" #",
            "execute_gpu_task = [\"Worker[gpu=true]\"]",
            "pin_content = [\"Master\", \"Worker\"]",
        ],
        "is not available in this version",
    ),
    (
        "pre-shared-key.toml",
        &["[cluster.auth]", "shared_secret = \"(not shown)\" #", "integrity = \"sealed\" # default"],
        "`[cluster.auth] enabled` is not available in this version",
    ),
    (
        "mapped-certificates.toml",
        &["principal_mapping = ", "enforce = \"observe\" #", "node_ttl = \"1d\" #", "skew_secs = 60 #"],
        "is not available in this version",
    ),
];

#[test]
fn written_configurations_are_valid_and_what_is_not_there_yet_is_refused_by_name() {
    for (name, lines, refusal) in FIXTURES {
        let home = Home::new();
        let file = fixture(name);
        let file = file.to_str().unwrap();
        let checked = home.run(&["server", "--check", "--config", file]).ok();
        for line in lines {
            assert!(checked.stdout.contains(line), "{name}: no {line} in\n{}", checked.stdout);
        }
        assert!(checked.stdout.contains("# note: ") && checked.stdout.contains(refusal), "{name}:\n{}", checked.stdout);
        let started =
            home.run(&["server", "--config", file, "--data", "d"]).failed(2, "is not available in this version");
        assert!(!home.join("d").exists(), "{name}: a refused start leaves nothing behind");
        for output in [checked.stdout, checked.stderr, started.stderr] {
            for secret in ["canary-of-the-shared-secret", "LOAD_FROM_ENV"] {
                assert!(!output.contains(secret), "{name}: {output}");
            }
        }
    }
}

#[test]
fn clients_that_keys_shut_out_are_named_by_check_and_start() {
    let home = Home::new();
    for kind in ["p256", "ed25519"] {
        home.run(&["security", "ca", "create", "--key", kind, "--out", kind]).ok();
    }
    let openssl = |arguments: &str| {
        let mut command = std::process::Command::new("openssl");
        let ended = command.args(arguments.split_whitespace()).current_dir(home.path()).output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -subj /CN=corporate -keyout rsa.key -out rsa.pem");
    openssl("req -x509 -newkey ed25519 -nodes -subj /CN=n1 -keyout leaf.key -out leaf.pem");
    let (authority, leaf) =
        ("the authority has an Ed25519 key: browsers", "this member's certificate has an Ed25519 key");
    let files =
        |cert| ["--inter-broker-tls-enabled", "--inter-broker-tls-cert", cert, "--inter-broker-tls-key", "leaf.key"];
    let rsa = ["--inter-broker-tls-ca", "rsa.pem"];
    for (flags, key, expected) in [
        (vec!["--bootstrap"], "p256", vec![]),
        (vec!["--bootstrap", "--ca", "p256"], "p256", vec![]),
        (vec!["--bootstrap"], "ed25519", vec![authority, leaf]),
        (vec!["--bootstrap", "--ca", "ed25519"], "p256", vec![authority]),
        (vec!["--bootstrap", "--ca", "p256"], "ed25519", vec![leaf]),
        ([&files("leaf.pem")[..], &rsa].concat(), "p256", vec!["the authority has an RSA key: clients whose", leaf]),
    ] {
        let check = [&["server", "--check"], &flags[..]].concat();
        let checked = home.run_with(&check, &[("COUNTERSIGN_PKI_KEY", key)]).ok();
        let told: Vec<&str> = checked.stdout.lines().filter(|line| line.contains("cannot connect")).collect();
        assert_eq!(told.len(), expected.len(), "{flags:?} {key}: {}", checked.stdout);
        for (line, expected) in told.iter().zip(expected) {
            assert!(line.starts_with("# note: ") && line.contains(expected), "{line}");
        }
    }
    home.run_with(&["server", "--check"], &[("COUNTERSIGN_PKI_KEY", "rsa")]).failed(2, "COUNTERSIGN_PKI_KEY");
    let server = home.server_with(&["--data", "d", "--bootstrap"], &[("COUNTERSIGN_PKI_KEY", "ed25519")]);
    let log = std::fs::read_to_string(home.join("log")).unwrap();
    assert!(log.contains(authority) && log.contains(leaf), "{log}");
    server.stop();
}

#[test]
fn a_joining_node_s_configuration_is_valid_and_shows_where_its_token_is() {
    let home = Home::new();
    let checked = home.run(&["server", "--check", "--config", fixture("join.toml").to_str().unwrap()]).ok();
    assert!(checked.stdout.contains("join_token = \"@/run/secrets/join-token\" #"), "{}", checked.stdout);
    assert!(!checked.stdout.contains("note:"), "{}", checked.stdout);
}

#[test]
fn files_that_are_not_there_are_noted_and_refuse_the_start() {
    let home = Home::new();
    let file = fixture("inter-broker-tls.toml");
    let file = file.to_str().unwrap();
    let checked = home.run(&["server", "--check", "--config", file]).ok();
    for line in ["cert = \"/path/to/broker.crt\" #", "ca = \"/path/to/cluster-ca.crt\" #"] {
        assert!(checked.stdout.contains(line), "{}", checked.stdout);
    }
    let note = "# note: `[cluster.inter_broker_tls] key` is `/path/to/broker.key`";
    assert!(checked.stdout.contains(note), "{}", checked.stdout);
    let args = ["server", "--data", "d", "--name", "n1", "--cluster-addr", "127.0.0.1:0", "--config", file];
    home.run(&args).failed(3, "`/path/to/");
    let text = "[cluster.authentication]\nenabled = true\ngenerate_certs_if_missing = true\nca_cert_path = 'a'\n\
                node_cert_path = 'b'\nnode_key_path = 'c'\n";
    std::fs::write(home.join("c.toml"), text).unwrap();
    let generate = "`[cluster.authentication] generate_certs_if_missing` is not available in this version";
    home.run(&["server", "--data", "e", "--config", "c.toml"]).failed(2, generate);
    assert!(!home.join("e").exists());
}

#[test]
fn the_effective_configuration_is_a_configuration() {
    for (name, ..) in FIXTURES {
        let home = Home::new();
        let first = home.run(&["server", "--check", "--config", fixture(name).to_str().unwrap()]).ok();
        std::fs::write(home.join("again.toml"), &first.stdout).unwrap();
        let again = home.run(&["server", "--check", "--config", "again.toml"]).ok();
        let values = |text: &str| -> Vec<String> {
            text.lines().filter(|l| !l.starts_with('#')).map(|l| l.split(" # ").next().unwrap().to_owned()).collect()
        };
        assert_eq!(values(&again.stdout), values(&first.stdout), "{name}");
    }
}

#[test]
fn flags_prevail_over_variables_and_variables_over_the_file() {
    let home = Home::new();
    std::fs::write(home.join("c.toml"), "name = 'file'\ncluster_name = 'file'\ntrust_domain = 'file'\n").unwrap();
    let args = ["server", "--check", "--json", "--config", "c.toml", "--name", "flag"];
    let variables = [("COUNTERSIGN_NAME", "variable"), ("COUNTERSIGN_CLUSTER_NAME", "variable")];
    let json = home.run_with(&args, &variables).ok().json();
    for (key, value, source) in [
        ("name", "flag", "--name"),
        ("cluster_name", "variable", "COUNTERSIGN_CLUSTER_NAME"),
        ("trust_domain", "file", "c.toml"),
        ("cluster_addr", "127.0.0.1:7100", "default"),
    ] {
        assert_eq!((json["config"][key].as_str(), json["sources"][key].as_str()), (Some(value), Some(source)), "{key}");
    }
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_nearest() {
    let home = Home::new();
    for (text, expected) in [
        ("[cluster.auth]\nshared_secrt = 'x'", "cluster.auth.shared_secret"),
        ("[cluster.authentification]\nenabled = true", "[cluster.authentication]"),
        ("boostrap = true", "bootstrap"),
    ] {
        std::fs::write(home.join("c.toml"), text).unwrap();
        for check in [&["--check"][..], &[]] {
            let done = home
                .run(&[&["server", "--data", "d", "--config", "c.toml"], check].concat())
                .failed(2, "is not a setting");
            assert!(done.stderr.contains(&format!("`{expected}`")), "{}", done.stderr);
        }
    }
    home.run_with(&["server", "--check"], &[("COUNTERSIGN_CLUSTER_ADR", "x")]).failed(2, "`COUNTERSIGN_CLUSTER_ADR`");
    let done = home.run(&["server", "--data", "d", "--boostrap"]).failed(2, "--boostrap");
    assert!(done.stderr.contains("`--bootstrap`"), "{}", done.stderr);
    home.run(&["server", "--data", "d", "--config", "absent.toml"]).failed(2, "`absent.toml`");
}

#[test]
fn inter_broker_flags_are_all_there_or_the_missing_one_is_named() {
    let home = Home::new();
    let flags = ["--inter-broker-tls-cert", "--inter-broker-tls-key", "--inter-broker-tls-ca"];
    for missing in flags {
        let mut args = vec!["server", "--inter-broker-tls-enabled=true", "--data", "d"];
        flags.iter().filter(|flag| **flag != missing).for_each(|flag| args.extend([flag, "x.pem"]));
        for enabled in ["--inter-broker-tls-enabled=true", "--inter-broker-tls-enabled"] {
            args[1] = enabled;
            let done = home.run(&args).failed(2, "is given without");
            assert!(done.stderr.contains(&format!("without `{missing}`")), "{}", done.stderr);
        }
        // A file without the switch is no silent nothing either.
        home.run(&["server", "--data", "d", missing, "x.pem"]).failed(2, "without `--inter-broker-tls-enabled`");
    }
    let all = ["server", "--check", "--inter-broker-tls-enabled", "true", flags[0], "a", flags[1], "b", flags[2], "c"];
    home.run(&all).ok();
}
