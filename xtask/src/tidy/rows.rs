//! The tables of paths in these rules name what there is. A row whose path has gone would
//! allow something to a file that is written later.

use std::collections::BTreeSet;

use super::{Finding, scans, source, symbols, words};

pub(crate) fn check(paths: &BTreeSet<String>) -> Vec<Finding> {
    let tables = [
        ("source", source::paths().collect::<Vec<_>>()),
        ("scans", scans::paths().collect()),
        ("symbols", symbols::paths().collect()),
        ("words", words::paths().collect()),
    ];
    tables.iter().flat_map(|(table, rows)| gone(table, rows, paths)).collect()
}

fn gone(table: &str, rows: &[&str], paths: &BTreeSet<String>) -> Vec<Finding> {
    // As the rules match: a row is a path, or the beginning of paths.
    let is_there = |row: &str| paths.range(row.to_owned()..).next().is_some_and(|path| path.starts_with(row));
    let gone = rows.iter().filter(|row| !is_there(row));
    let place = format!("xtask/src/tidy/{table}.rs");
    gone.map(|row| Finding::new(&place, 0, format!("no file is at `{row}`: take the row out"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_whose_path_has_gone_is_found() {
        let paths = BTreeSet::from(["crates/core/src/peer/mod.rs", "docs/a.md"].map(str::to_owned));
        let rows = ["", "crates/core/src/", "crates/core/src/peer", "docs/a.md", "crates/core/src/handshake/", "z"];
        let found: Vec<String> = gone("source", &rows, &paths).iter().map(ToString::to_string).collect();
        let what = |row| format!("xtask/src/tidy/source.rs: no file is at `{row}`: take the row out");
        assert_eq!(found, [what("crates/core/src/handshake/"), what("z")]);
    }
}
