//! Which crate may use which. A crate exists where it lets the compiler forbid something; here stands what it forbids.

use super::Finding;
use super::metadata::{Built, Metadata, Package};

/// Each crate of ours, and the crates of ours that it may depend on, in tests too. Any other edge fails.
const EDGES: [(&str, &[&str]); 13] = [
    ("countersign-core", &[]),
    ("countersign-pki", &["countersign-core"]),
    ("countersign-net", &["countersign-core", "countersign-pki"]),
    ("countersign-raft", &["countersign-core"]),
    ("countersign-api", &["countersign-core"]),
    ("countersign-guard", &["countersign-core", "countersign-api"]),
    (
        "countersign-node",
        &[
            "countersign-core",
            "countersign-pki",
            "countersign-net",
            "countersign-raft",
            "countersign-api",
            "countersign-guard",
        ],
    ),
    (
        "countersign-control",
        &[
            "countersign-core",
            "countersign-pki",
            "countersign-net",
            "countersign-raft",
            "countersign-api",
            "countersign-guard",
            "countersign-node",
        ],
    ),
    (
        "countersign-admin",
        &[
            "countersign-core",
            "countersign-pki",
            "countersign-net",
            "countersign-api",
            "countersign-guard",
            "countersign-node",
            "countersign-control",
        ],
    ),
    (
        "countersign",
        &[
            "countersign-core",
            "countersign-pki",
            "countersign-net",
            "countersign-raft",
            "countersign-api",
            "countersign-guard",
            "countersign-node",
            "countersign-control",
            "countersign-admin",
        ],
    ),
    (
        "countersign-cli",
        &[
            "countersign",
            "countersign-core",
            "countersign-pki",
            "countersign-net",
            "countersign-raft",
            "countersign-api",
            "countersign-guard",
        ],
    ),
    ("countersign-sim", &["countersign-core", "countersign-pki"]),
    ("xtask", &[]),
];

/// What core may name: hashes, signatures, encodings. Nothing that does IO, waits, or draws randomness.
const CORE_USES: [&str; 13] = [
    "blake3",
    "data-encoding",
    "ed25519-dalek",
    "ipnet",
    "p256",
    "postcard",
    "rpds",
    "serde",
    "sha2",
    "subtle",
    "thiserror",
    "x25519-dalek",
    "zeroize",
];

/// What must not reach core through others either.
const CORE_NEVER: [&str; 8] = ["async-std", "futures-core", "getrandom", "mio", "rand", "rustls", "smol", "tokio"];

/// Crates that are built nowhere: a second TLS stack, or a second set of primitives under ours.
const BANNED: [&str; 5] = ["native-tls", "openssl", "openssl-sys", "ring", "boring"];

pub(crate) fn check_edges(metadata: &Metadata) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in metadata.packages.iter().filter(|p| p.is_ours()) {
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == package.name) else {
            findings.push(Finding::new(&package.name, 0, "is not in the table of crates: say what it may depend on"));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.source.is_none()) {
            if !allowed.contains(&dependency.name.as_str()) {
                let what = format!("may not depend on `{}`", dependency.name);
                findings.push(Finding::new(&package.name, 0, what));
            }
        }
    }
    findings
}

pub(crate) fn check_core(metadata: &Metadata, built: &Built) -> Vec<Finding> {
    let core = |p: &&Package| p.is_ours() && p.name == "countersign-core";
    let named = metadata.packages.iter().filter(core).flat_map(|p| &p.dependencies);
    let unknown = named.filter(|d| d.kind.as_deref() != Some("dev") && !CORE_USES.contains(&d.name.as_str()));
    let unknown = unknown.map(|d| format!("may not depend on `{}`", d.name));
    let reached = built.iter().filter(|(name, _)| CORE_NEVER.contains(&name.as_str()));
    let reached = reached.map(|(name, _)| format!("reaches `{name}` through its dependencies"));
    unknown.chain(reached).map(|what| Finding::new("countersign-core", 0, what)).collect()
}

pub(crate) fn check_banned(built: &Built) -> Vec<Finding> {
    let banned = built.iter().filter(|(name, _)| BANNED.contains(&name.as_str()));
    let mut findings: Vec<Finding> = banned
        .map(|(name, version)| {
            let why = format!("{version} is built; find who asks with `cargo tree -i {name} --workspace`");
            Finding::new(name, 0, why)
        })
        .collect();
    let stacks = built.iter().filter(|(name, _)| name == "rustls").count();
    if stacks != 1 {
        findings.push(Finding::new("rustls", 0, format!("is built in {stacks} versions, expected exactly one")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::metadata::Dependency;

    /// One package of ours with dependencies written `name`, `ours:name` or `dev:name`.
    fn package(name: &str, dependencies: &[&str]) -> Metadata {
        let dependency = |text: &&str| {
            let (mark, name) = text.split_once(':').unwrap_or(("", text));
            Dependency {
                name: name.to_owned(),
                kind: (mark == "dev").then(|| "dev".to_owned()),
                source: (mark != "ours").then(|| "registry".to_owned()),
            }
        };
        let dependencies = dependencies.iter().map(dependency).collect();
        let package =
            Package { name: name.to_owned(), version: "0.1.0".to_owned(), source: None, license: None, dependencies };
        Metadata { packages: vec![package] }
    }

    fn built(crates: &[(&str, &str)]) -> Built {
        crates.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect()
    }

    #[test]
    fn only_edges_in_the_table_pass() {
        for (name, dependency, findings) in [
            ("countersign-net", "ours:countersign-pki", 0),
            ("countersign-net", "tokio", 0),
            ("countersign-net", "ours:countersign-raft", 1),
            ("countersign-core", "ours:countersign-sim", 1),
            ("countersign-raft", "ours:countersign-net", 1),
            ("countersign-cli", "ours:countersign", 0),
            ("countersign", "ours:countersign-cli", 1),
            ("xtask", "ours:countersign-core", 1),
        ] {
            assert_eq!(check_edges(&package(name, &[dependency])).len(), findings, "{name} -> {dependency}");
        }
    }

    #[test]
    fn a_crate_that_the_table_does_not_know_fails() {
        assert_eq!(check_edges(&package("countersign-new", &[])).len(), 1);
    }

    #[test]
    fn core_names_nothing_outside_its_list_but_for_tests() {
        let check = |dependency: &str| check_core(&package("countersign-core", &[dependency]), &Built::new()).len();
        assert_eq!((check("blake3"), check("dev:proptest"), check("rand"), check("rustls")), (0, 0, 1, 1));
    }

    #[test]
    fn core_reaches_no_randomness_or_runtime_through_others() {
        let check = |name| check_core(&package("countersign-core", &[]), &built(&[(name, "1.0.0")])).len();
        assert_eq!((check("rand_core"), check("getrandom"), check("tokio")), (0, 1, 1));
    }

    #[test]
    fn a_second_tls_stack_or_two_versions_of_one_fail() {
        let rustls = ("rustls", "0.23.46");
        for (crates, findings) in [
            (vec![rustls], 0),
            (vec![], 1),
            (vec![rustls, ("rustls", "0.24.0")], 1),
            (vec![rustls, ("ring", "0.17.14")], 1),
            (vec![rustls, ("openssl-sys", "0.9.0"), ("native-tls", "0.2.0")], 2),
        ] {
            assert_eq!(check_banned(&built(&crates)).len(), findings, "{crates:?}");
        }
    }
}
