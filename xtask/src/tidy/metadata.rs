//! The packages as cargo knows them: their dependencies, and the crates that are built. Reads; judges nothing.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cargo;

/// The part of `cargo metadata` that the rules need: every package that could be resolved, on any platform.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
}

#[derive(Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// None for a package of this repository.
    pub(crate) source: Option<String>,
    /// An SPDX expression.
    pub(crate) license: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
}

impl Package {
    pub(crate) const fn is_ours(&self) -> bool {
        self.source.is_none()
    }
}

#[derive(Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `dev`, `build`, or none for an ordinary one.
    pub(crate) kind: Option<String>,
    /// None for a package of this repository.
    pub(crate) source: Option<String>,
}

/// Name and version of a crate that is built.
pub(crate) type Built = BTreeSet<(String, String)>;

/// The platforms that members run on. Elsewhere dependencies bring crates that are never built here: quinn asks for
/// `ring` on wasm32.
const TARGETS: [&str; 4] =
    ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "x86_64-unknown-linux-musl", "aarch64-apple-darwin"];

pub(crate) fn read(root: &Path) -> Result<Metadata> {
    let json = cargo::output(root, &["metadata", "--locked", "--format-version", "1"])?;
    serde_json::from_str(&json).context("`cargo metadata` wrote something else than expected")
}

/// The crates that the whole workspace builds, tests and build scripts included. `cargo tree` and not `cargo metadata`,
/// which lists optional dependencies that no feature turns on.
pub(crate) fn built(root: &Path) -> Result<Built> {
    tree(root, &["--workspace", "--all-features", "--edges", "normal,build,dev"])
}

/// The crates that core alone builds, without its tests.
pub(crate) fn built_by_core(root: &Path) -> Result<Built> {
    tree(root, &["--package", "countersign-core", "--edges", "normal,build"])
}

fn tree(root: &Path, which: &[&str]) -> Result<Built> {
    let mut args = vec!["tree", "--locked", "--prefix", "none", "--format", "{p}"];
    args.extend(which);
    args.extend(TARGETS.iter().flat_map(|target| ["--target", target]));
    Ok(parse_tree(&cargo::output(root, &args)?))
}

/// Lines such as `rustls v0.23.46 (*)`.
fn parse_tree(text: &str) -> Built {
    let crate_of = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.trim_start_matches('v').to_owned()))
    };
    text.lines().filter_map(crate_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_lines_are_names_and_versions() {
        let built = parse_tree("a v1.0.0 (proc-macro)\nb v0.2.0-rc.1 (*)\n\na v1.0.0\n");
        let expected = [("a", "1.0.0"), ("b", "0.2.0-rc.1")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(built, Built::from(expected));
    }
}
