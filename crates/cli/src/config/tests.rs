//! What a configuration is judged to be, case by case.

use std::path::Path;

use countersign::{ClusterToken, LeaseLength};
use countersign_core::trust::member::Suffrage;

use crate::config::checked::{CheckError, Mode, ServerConfig, Settings};
use crate::config::layer::{Layer, LayerError, merged, of_file};

fn read(text: &str) -> Result<Layer, LayerError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    of_file(&path)
}

fn settings(text: &str) -> Settings {
    Settings(merged([read(text).unwrap()]))
}

fn check(text: &str) -> Result<ServerConfig, CheckError> {
    ServerConfig::check(&settings(text))
}

fn error(text: &str) -> String {
    check(text).map(|config| panic!("{text}: {config:?}")).unwrap_err().to_string()
}

const BROKER_TLS: &str = "[cluster.inter_broker_tls]\n";

#[test]
fn every_permutation_of_missing_files_is_refused_with_what_is_missing() {
    let sections = [
        (BROKER_TLS, ["cert", "key", "ca"]),
        ("[cluster.authentication]\n", ["node_cert_path", "node_key_path", "ca_cert_path"]),
        ("[network.tls]\n", ["server_cert_path", "server_key_path", "ca_cert_path"]),
    ];
    for (section, keys) in sections {
        for given in 0..16_u32 {
            let has = |bit: u32| given & (1 << bit) != 0;
            let enabled = if has(3) { "enabled = true\n" } else { "" };
            let files: Vec<_> =
                keys.iter().zip(0..).filter(|(_, bit)| has(*bit)).map(|(key, _)| format!("{key} = '/x'")).collect();
            let text = format!("{section}{enabled}{}", files.join("\n"));
            let whole = files.len() == 3 && has(3);
            let nothing = given == 0;
            // Without any file, `mtls` is what a cluster does anyway.
            let own = section.contains("authentication") && files.is_empty();
            match check(&text) {
                Ok(_) => assert!(whole || nothing || own, "{text}"),
                Err(error) => {
                    assert!(!(whole || nothing || own), "{text}: {error}");
                    let error = error.to_string();
                    let missing = if has(3) {
                        keys.iter().zip(0..).find(|(_, bit)| !has(*bit)).map(|(key, _)| *key).unwrap()
                    } else {
                        "enabled"
                    };
                    let missing = if section == BROKER_TLS {
                        format!("`--inter-broker-tls-{missing}`")
                    } else {
                        format!("{missing}`")
                    };
                    assert!(error.split_once("without").unwrap().1.contains(&missing), "{text}: {error}");
                }
            }
        }
    }
}

#[test]
fn the_bootstrap_s_token_is_bounded_as_any_other() {
    let token = |lines: &str| check(&format!("[cluster.token]\n{lines}"));
    let holds = |uses, ttl_secs, suffrage| ClusterToken { uses, ttl_secs, suffrage };
    assert_eq!(check("").unwrap().cluster_token, ClusterToken::default());
    assert_eq!(ClusterToken::default(), holds(32, 7 * 86_400, Suffrage::Learner));
    let said = "uses = 10000\nttl = '366d'\nrole = 'voter'";
    assert_eq!(token(said).unwrap().cluster_token, holds(10_000, 366 * 86_400, Suffrage::Voter));
    for (line, expected) in [
        ("uses = 0", "`[cluster.token] uses` is 0: expected 1 to 10000"),
        ("uses = 10001", "`[cluster.token] uses` is 10001: expected 1 to 10000"),
        ("uses = 4294967297", "`[cluster.token] uses` is 4294967297: expected 1 to 10000"),
        ("ttl = '367d'", "`[cluster.token] ttl` is 367d: expected at most 366d"),
    ] {
        assert_eq!(token(line).unwrap_err().to_string(), expected);
    }
}

#[test]
fn leases_and_lifetimes_are_bounded() {
    let unsaid = check("").unwrap();
    assert_eq!((unsaid.lease, unsaid.node_ttl_secs, unsaid.client_ttl_secs), (LeaseLength::DEFAULT, 86_400, 7_776_000));
    assert_eq!((unsaid.said.lease, unsaid.said.node_ttl_secs), (None, None));
    for secs in [1, 10, 300, 3600] {
        let config = check(&format!("[trust]\nlease_secs = {secs}")).unwrap();
        assert_eq!((config.lease.millis(), config.said.lease), (secs * 1000, Some(config.lease)));
    }
    let short = check("[pki]\nnode_ttl = '5s'\nclient_ttl = '1s'").unwrap();
    assert_eq!((short.node_ttl_secs, short.said.node_ttl_secs, short.client_ttl_secs), (5, Some(5), 1));
    for (text, expected) in [
        ("[trust]\nlease_secs = 0", "`[trust] lease_secs` is 0: expected 1 to 3600"),
        ("[trust]\nlease_secs = 3601", "`[trust] lease_secs` is 3601: expected 1 to 3600"),
        ("[trust]\nlease_secs = 4294967306", "`[trust] lease_secs` is 4294967306: expected 1 to 3600"),
        ("[pki]\nclient_ttl = '11y'", "`[pki] client_ttl` is 11y: expected at most 316224000 seconds"),
    ] {
        assert_eq!(error(text), expected);
    }
    for text in
        ["[trust]\nlease_secs = -1", "[trust]\nlease_secs = '10s'", "[pki]\nnode_ttl = '0s'", "[pki]\nclient_ttl = 90"]
    {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn what_tasks_require_is_parsed_and_what_does_not_parse_is_told_with_its_column() {
    let section = "[cluster.authentication]\nenabled = true\n[cluster.authentication.required_capabilities]\n";
    let config = check(&format!("{section}run = ['Worker[gpu=true]', 'Master']\npin = 'Worker'")).unwrap();
    let read: Vec<String> = config.requirements.iter().map(|r| format!("{}: {:?}", r.task, r.any_of.len())).collect();
    assert_eq!(read, ["pin: 1", "run: 2"]);
    assert!(config.unavailable.is_empty());
    assert!(check("").unwrap().requirements.is_empty());
    let written = "`[cluster.authentication] required_capabilities`: ";
    for (text, expected) in [
        ("run = ['Worker[']", "task `run`: `Worker[`: column 8"),
        ("run = ['Worker', '*']", "task `run`: `*`: column 1"),
        ("run = []", "required capability of task `run` has no role"),
        ("'' = ['Worker']", "required capability of task `` has no role, or no name"),
    ] {
        let error = error(&format!("{section}{text}"));
        assert!(error.starts_with(&format!("{written}{expected}")), "{error}");
    }
}

#[test]
fn what_a_guard_may_keep_is_bounded() {
    assert_eq!(check("").unwrap().cache_ttl_secs, 300);
    for secs in [1, 86_400] {
        assert_eq!(check(&format!("[acl]\ncache_ttl_secs = {secs}")).unwrap().cache_ttl_secs, secs);
    }
    for secs in [0, 86_401] {
        let expected = format!("`[acl] cache_ttl_secs` is {secs}: expected 1 to 86400");
        assert_eq!(error(&format!("[acl]\ncache_ttl_secs = {secs}")), expected);
    }
}

#[test]
fn what_is_not_available_is_named_as_it_was_written() {
    for (text, expected) in [
        ("[cluster.auth]\nenabled = true\nshared_secret = 'x'", "`[cluster.auth] enabled`"),
        (
            "[network.tls]\nenabled = true\nca_cert_path = 'a'\nserver_cert_path = 'b'\nserver_key_path = 'c'",
            "`[network.tls] enabled`",
        ),
        ("certificates = 'shared'", "`certificates` = shared"),
        ("repin = 'aa'", "`repin`"),
        ("[cluster.authentication]\nenabled = true\nmode = 'ucan'", "`[cluster.authentication] mode` = ucan"),
        ("[cluster.authentication]\nenabled = true\nmode = 'mtls_ucan'", "`[cluster.authentication] mode` = mtls_ucan"),
        ("[cluster.authentication]\nenabled = true\nenforce = 'warn'", "`[cluster.authentication] enforce` = warn"),
        ("[trust]\nskew_secs = 300", "`[trust] skew_secs` = 300"),
        ("[pki]\nca_ttl = '5y'", "`[pki] ca_ttl` = 5y"),
        ("[pki]\nshared_ttl = '5y'", "`[pki] shared_ttl`"),
    ] {
        assert_eq!(check(text).unwrap().unavailable, [expected], "{text}");
    }
    for text in [
        "",
        "certificates = 'per-node'",
        "[cluster.auth]\nenabled = false\nshared_secret = 'x'",
        "[cluster.authentication]\nenabled = true\nmode = 'mtls'\nenforce = 'enforce'",
        "[trust]\nskew_secs = 60",
        "[cluster.inter_broker_tls]\nenabled = true\ncert = 'a'\nkey = 'b'\nca = 'c'",
        "[pki]\nnode_ttl = '24h'\nclient_ttl = '7d'\nca_ttl = '10y'",
        "[trust]\nlease_secs = 300",
    ] {
        assert!(check(text).unwrap().unavailable.is_empty(), "{text}");
    }
}

#[test]
fn a_start_is_of_one_kind() {
    let token = "join_token = '@/t'\n";
    assert!(matches!(check("").unwrap().mode, Mode::Alone));
    assert!(matches!(check("bootstrap = false").unwrap().mode, Mode::Alone));
    assert!(matches!(check("bootstrap = true").unwrap().mode, Mode::Bootstrap));
    assert!(matches!(check(&format!("{token}join_addr = 'n1:7100'")).unwrap().mode, Mode::Join { .. }));
    for (text, expected) in [
        (format!("{token}join_addr = 'n1:1'\nbootstrap = true"), "`bootstrap` and `join_token` exclude each other"),
        ("join_addr = 'n1:1'\nbootstrap = true".to_owned(), "`bootstrap` and `join_addr` exclude each other"),
        (token.to_owned(), "`join_token` is given without `--join-addr`"),
        ("join_addr = 'n1:7100'".to_owned(), "`join_addr` is given without `--join-token`"),
        ("ca = '/x'".to_owned(), "`ca` is given without `--bootstrap`"),
        ("https_cert = '/x'".to_owned(), "`https_cert` is given without `--https-addr`"),
        ("https_addr = '[::1]:0'\nhttps_cert = '/x'".to_owned(), "`https_cert` is given without `--https-key`"),
        ("https_addr = '[::1]:0'\nhttps_key = '/x'".to_owned(), "`https_key` is given without `--https-cert`"),
    ] {
        assert_eq!(error(&text), expected);
    }
}

#[test]
fn sections_that_contradict_each_other_are_refused() {
    let auth = "[cluster.auth]\nenabled = true\nshared_secret = 'x'\n";
    let files = "[cluster.inter_broker_tls]\nenabled = true\ncert = 'a'\nkey = 'b'\nca = 'c'\n";
    let authentication =
        "[cluster.authentication]\nenabled = true\nnode_cert_path = 'a'\nnode_key_path = 'b'\nca_cert_path = 'c'\n";
    for (one, other) in [(auth, files), (auth, authentication), (files, authentication)] {
        assert!(error(&format!("{one}{other}")).ends_with("exclude each other"), "{one}{other}");
    }
    assert_eq!(
        error("[cluster.auth]\nenabled = true"),
        "`[cluster.auth] enabled` is given without `--cluster-auth-shared-secret`"
    );
}

#[test]
fn names_and_addresses_are_refused_by_the_key_that_holds_them() {
    for (text, expected) in [
        ("name = 'Node 1'", "`name` is `Node 1`"),
        ("cluster_name = 'a.b'", "`cluster_name` is `a.b`"),
        ("trust_domain = 'A'", "`trust_domain` is `A`"),
        ("cluster_addr = '7100'", "`cluster_addr` is `7100`"),
        ("cluster_addr = '0.0.0.0:99999'", "`cluster_addr` is `0.0.0.0:99999`"),
        ("https_addr = '::1:1'", "`https_addr` is `::1:1`"),
        ("advertise_addr = ['n1:7100', 'n1']", "`advertise_addr` is `n1`"),
        ("join_token = '@t'\njoin_addr = 'n1'", "`join_addr` is `n1`"),
        ("log = '=x=y='", "`log` is not a log filter"),
    ] {
        let error = error(text);
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn a_whole_configuration_is_read_as_it_is_written() {
    let config = check(
        "data = '/d'\nname = 'n1'\ncluster_addr = 'localhost:7100'\nadvertise_addr = 'n1.example.org:7100'\n\
         https_addr = '[::]:0'\n[pki]\nnode_ttl = '24h'",
    )
    .unwrap();
    assert_eq!((config.data.as_path(), config.node_ttl_secs), (Path::new("/d"), 86_400));
    assert_eq!(config.cluster_addr.to_string(), "localhost:7100");
    assert_eq!(config.advertise.iter().map(ToString::to_string).collect::<Vec<_>>(), ["n1.example.org:7100"]);
    assert_eq!(config.https_addr.unwrap().resolve().unwrap(), "[::]:0".parse().unwrap());
    assert_eq!(check("").unwrap().node_ttl_secs, countersign::NODE_TTL_SECS);
    assert_eq!(check("").unwrap().cluster_addr.to_string(), "127.0.0.1:7100");
}

#[test]
fn files_and_mapping_rules_go_together() {
    let files = "[cluster.inter_broker_tls]\nenabled = true\ncert = '/a'\nkey = '/b'\nca = '/c'\n";
    let authentication = "[cluster.authentication]\nenabled = true\n";
    let paths = "node_cert_path = '/a'\nnode_key_path = '/b'\nca_cert_path = '/c'\n";
    let rules = "principal_mapping = ['uri', 'cn:(.*)=node/$1']\n";
    for text in [
        files.to_owned(),
        format!("{files}{authentication}{rules}"),
        format!("{authentication}{paths}"),
        format!("{authentication}{paths}{rules}"),
    ] {
        let files = check(&text).unwrap().files.unwrap();
        let paths = [files.cert, files.key, files.ca];
        assert_eq!(paths.each_ref().map(|path| path.to_str().unwrap()), ["/a", "/b", "/c"]);
    }
    assert!(check(authentication).unwrap().files.is_none());
    let without = "`[cluster.authentication] principal_mapping` is given without";
    assert!(error(&format!("{authentication}{rules}")).starts_with(without));
    let king = format!("{authentication}{paths}principal_mapping = 'cn:(.*)=root/$1'");
    assert!(error(&king).starts_with("principal mapping: rule"));
    assert_eq!(
        error(&format!("bootstrap = true\nca = '/ca'\n{files}")),
        "`ca` and `[cluster.inter_broker_tls] cert` exclude each other"
    );
}

#[test]
fn limits_of_clients_are_bounded_and_named() {
    let default = check("").unwrap().client_limits;
    assert_eq!((default.connections, default.requests, default.streams, default.unread_bytes), (64, 256, 128, 524_288));
    for (key, least, most) in [
        ("connections_per_client", 1, 4096),
        ("requests_per_client", 1, 65_536),
        ("streams_per_connection", 1, 4096),
        ("unread_bytes_per_connection", 65_535, 16_777_216_u64),
    ] {
        for taken in [least, most] {
            assert!(check(&format!("[limits]\n{key} = {taken}")).is_ok(), "{key} {taken}");
        }
        for refused in [least - 1, most + 1] {
            let expected = format!("`[limits] {key}` is {refused}: expected {least} to {most}");
            assert_eq!(error(&format!("[limits]\n{key} = {refused}")), expected);
        }
    }
    assert_eq!(check("[limits]\nrequests_per_client = 7").unwrap().client_limits.requests, 7);
}

#[test]
fn names_of_the_https_port_are_hosts_with_or_without_a_port() {
    let config = check("[https]\nnames = ['console.example', 'lb.example:443', '[2001:db8::1]:7101']").unwrap();
    let names: Vec<String> = config.https_names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["console.example", "lb.example:443", "[2001:db8::1]:7101"]);
    for wrong in ["", "https://console.example", "a b", "console.example:0", "console.example:x", "*.example"] {
        let error = error(&format!("[https]\nnames = ['{wrong}']"));
        assert!(error.contains("expected HOST or HOST:PORT"), "{wrong}: {error}");
    }
}
