//! Which files may read a whole table of the trust state. A command, a check, a request and what follows each change of
//! the view take time by what they ask for, not by what is on record: they ask an index of the table.

use super::Finding;
use super::files::TextFile;
use super::mask::{code_of, find_words, line_at};
use super::source::{is_definition, is_tests, test_items};

/// Crates that hold tables of the trust state and are not tests of it.
const WITHIN: [&str; 10] = [
    "crates/core/src/",
    "crates/pki/src/",
    "crates/net/src/",
    "crates/raft/src/",
    "crates/api/src/",
    "crates/guard/src/",
    "crates/node/src/",
    "crates/control/src/",
    "crates/admin/src/",
    "crates/countersign/src/",
];

/// The files that may, each with its reason. Commands are none of them, and no task that runs with each view may be.
const MAY_SCAN: [(&str, &str); 23] = [
    ("crates/core/src/trust/tables/attestations.rs", "writes a whole table as a list"),
    ("crates/core/src/trust/tables/evictions.rs", "makes the indexes of a table that was read"),
    ("crates/core/src/trust/tables/groups.rs", "makes the indexes of a table that was read"),
    ("crates/core/src/trust/tables/members.rs", "makes the indexes of a table that was read"),
    ("crates/core/src/trust/tables/principals.rs", "makes the indexes of a table that was read"),
    ("crates/core/src/trust/tables/tokens.rs", "makes the indexes of a table that was read"),
    ("crates/core/src/trust/invariants.rs", "checks the whole state, in tests and in the simulation"),
    ("crates/core/src/authz/lint.rs", "an operator asks what is wrong with all rules"),
    ("crates/core/src/authz/policy.rs", "lists the rules"),
    ("crates/core/src/lease/barrier.rs", "a barrier is over all members"),
    ("crates/core/src/member/membership.rs", "compares with Raft's own list of all members"),
    ("crates/node/src/node.rs", "once, at the start"),
    ("crates/node/src/start_error.rs", "once, at the start"),
    ("crates/node/src/identity/store_return/ask.rs", "once, when a member returns: asks one after the other"),
    ("crates/node/src/trust/store_warnings.rs", "lists warnings for an operator"),
    ("crates/control/src/health.rs", "lists members for an operator"),
    ("crates/control/src/hosts.rs", "lists members for an operator"),
    ("crates/control/src/metrics.rs", "counts members that are not reached, for a scraper"),
    ("crates/control/src/others.rs", "asks all other members for an operator"),
    ("crates/control/src/target.rs", "lists the names that there are in place of an unknown one"),
    ("crates/control/src/tokens.rs", "lists tokens for an operator"),
    ("crates/admin/src/certificates.rs", "lists certificates for an operator"),
    ("crates/core/src/table.rs", "has the call"),
];

/// The paths of the table.
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    MAY_SCAN.iter().map(|(path, _)| *path).chain(WITHIN)
}

pub(crate) fn check(file: &TextFile) -> Vec<Finding> {
    let within = file.is_rust() && WITHIN.iter().any(|path| file.path.starts_with(path));
    if !within || is_tests(file) || MAY_SCAN.iter().any(|(path, _)| *path == file.path) {
        return Vec::new();
    }
    let code = code_of(&file.text);
    let tests = test_items(&code);
    // A call without arguments, or the bare name of the function. Others have functions of this name with arguments.
    let bare = |at: &usize| {
        let after = code.get(at + "scan".len()..).unwrap_or_default();
        after.starts_with("()") || !after.starts_with('(')
    };
    let scans = find_words(&code, "scan").filter(bare).filter(|at| !is_definition(&code, *at));
    let ranges = code.match_indices("range(..)").map(|(at, _)| at);
    let found = scans.chain(ranges).filter(|at| !tests.iter().any(|test| test.contains(at)));
    let what = "reads a whole table of the state: ask an index of the table, or say in the table of `scans` why not";
    found.map(|at| Finding::new(&file.path, line_at(&code, at), what)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<usize> {
        check(&TextFile::for_testing(path, text)).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn whole_table_is_read_by_listed_files_and_tests_alone() {
        let text = "fn f(view: &View) { view.members.scan().values() }";
        for (path, allowed) in [
            ("crates/core/src/trust/command/levels.rs", false),
            ("crates/core/src/trust/statement.rs", false),
            ("crates/core/src/lease/manager.rs", false),
            ("crates/node/src/tasks/membership.rs", false),
            ("crates/node/src/identity/view_file.rs", false),
            ("crates/core/src/trust/invariants.rs", true),
            ("crates/core/src/trust/tests/levels.rs", true),
            ("crates/core/tests/apply_properties.rs", true),
            ("crates/control/src/health.rs", true),
            ("crates/sim/src/ledger.rs", true),
        ] {
            assert_eq!(findings(path, text).is_empty(), allowed, "{path}");
        }
    }

    #[test]
    fn call_is_found_however_it_is_written() {
        let path = "crates/node/src/a.rs";
        for bad in ["view.members\n    .scan()", "map(Table::scan)", "view.evicted.range(..)"] {
            assert_eq!(findings(path, &format!("fn f() {{ {bad} }}")).len(), 1, "{bad}");
        }
        for good in ["journal.scan(path)", "fn scan() {}", "ids.range(..level)", "// .scan()", "rescan()"] {
            assert!(findings(path, good).is_empty(), "{good}");
        }
        assert_eq!(findings(path, "#[cfg(test)]\nmod tests {\n    fn f() { a.scan() }\n}\nfn g() { a.scan() }"), [5]);
    }
}
