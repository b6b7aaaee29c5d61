//! The rules that no compiler knows: which crate may use which, what may be written where, what pages may claim.
//!
//! Each rule is a pure function from what was read to findings, with tests of its own; only `files` and this file do
//! IO.

use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};

mod crates;
mod files;
mod licences;
mod links;
mod manifests;
mod markdown;
mod mask;
mod metadata;
mod places;
mod rows;
mod scans;
mod source;
mod symbols;
mod words;

/// Something that must not be so, and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// A path in the repository, or the name of a crate.
    place: String,
    /// Counted from 1; 0 where there is none.
    line: usize,
    what: String,
}

impl Finding {
    fn new(place: &str, line: usize, what: impl Into<String>) -> Self {
        Self { place: place.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.place, self.what),
            line => write!(f, "{}:{line}: {}", self.place, self.what),
        }
    }
}

/// Prints every finding, and fails if there is one.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = files::read(root)?;
    let (metadata, built) = (metadata::read(root)?, metadata::built(root)?);

    let mut findings = Vec::new();
    findings.extend(crates::check_edges(&metadata));
    findings.extend(crates::check_core(&metadata, &metadata::built_by_core(root)?));
    findings.extend(crates::check_banned(&built));
    findings.extend(licences::check(&metadata));
    findings.extend(tree.texts.iter().filter_map(manifests::check));
    findings.extend(tree.texts.iter().flat_map(places::check));
    findings.extend(tree.texts.iter().flat_map(source::check));
    findings.extend(tree.texts.iter().flat_map(scans::check));
    findings.extend(tree.texts.iter().flat_map(words::check));
    findings.extend(rows::check(&tree.paths));
    findings.extend(links::check(&tree));
    findings.extend(symbols::check(&tree));

    findings.sort();
    for finding in &findings {
        println!("    {finding}");
    }
    match findings.len() {
        0 => {
            println!("    {} files and {} crates are tidy", tree.texts.len(), metadata.packages.len());
            Ok(())
        }
        count => bail!("tidy: {count} findings"),
    }
}
