//! What may be written where in Rust sources. Reads code only: comments and strings are free.

use std::ops::Range;

use super::Finding;
use super::files::TextFile;
use super::mask::{code_of, find_words, is_word, line_at};

/// Lines of a source file. Longer ones hold two ideas.
const LINES_MAX: usize = 500;

/// A word that must not be written in files whose paths begin with one of `within`.
struct Forbidden {
    word: &'static str,
    within: &'static [&'static str],
    why: &'static str,
}

const EVERYWHERE: &[&str] = &[""];
/// What others run; tests may do what an attacker would.
const SHIPPED: &[&str] = &[
    "crates/core/src/",
    "crates/pki/src/",
    "crates/net/src/",
    "crates/raft/src/",
    "crates/api/src/",
    "crates/node/src/",
    "crates/control/src/",
    "crates/admin/src/",
    "crates/countersign/src/",
    "crates/countersign/examples/",
    "crates/cli/src/",
];
/// Shipped code around core, which has the one kind of lock that all of it uses.
const SHELLS: &[&str] = &[
    "crates/pki/src/",
    "crates/net/src/",
    "crates/raft/src/",
    "crates/api/src/",
    "crates/guard/src/",
    "crates/node/src/",
    "crates/control/src/",
    "crates/admin/src/",
    "crates/countersign/src/",
    "crates/cli/src/",
];
/// Decides, and does nothing else.
const CORE: &[&str] = &["crates/core/src/"];
/// Handlers: they read a request, call one use case, and write the answer.
const HANDLERS: &[&str] = &["crates/admin/src/"];
/// Must be the same from the same seed.
const REPLAYED: &[&str] = &["crates/core/src/", "crates/sim/"];

const fn forbid(word: &'static str, within: &'static [&'static str], why: &'static str) -> Forbidden {
    Forbidden { word, within, why }
}

const FORBIDDEN: [Forbidden; 27] = [
    forbid("Command::", HANDLERS, "a handler holds no steps of its own: call a function of `countersign-control`"),
    forbid("_client::", HANDLERS, "a handler asks no other member: call a function of `countersign-control`"),
    forbid("Proposer", HANDLERS, "a handler proposes nothing: call a function of `countersign-control`"),
    forbid("into_0rtt", SHIPPED, "on a server it can send before the client is authenticated"),
    forbid(
        "RwLock",
        SHELLS,
        "a reader that waits behind a writer can wait on itself: use `Locked`, and share snapshots",
    ),
    forbid("PoisonError", SHELLS, "comes with a lock that no order is checked of: use `Locked`"),
    forbid("#[ignore", EVERYWHERE, "a test that does not run claims a property without a check"),
    forbid("todo!", EVERYWHERE, "unfinished code stays out"),
    forbid("unimplemented!", EVERYWHERE, "unfinished code stays out"),
    forbid("dbg!", EVERYWHERE, "a leftover of debugging"),
    forbid("HashMap", REPLAYED, "its order differs between runs: use `BTreeMap`"),
    forbid("HashSet", REPLAYED, "its order differs between runs: use `BTreeSet`"),
    forbid("SystemTime", REPLAYED, "time is an argument"),
    forbid("Instant", REPLAYED, "time is an argument"),
    forbid("getrandom", REPLAYED, "randomness comes from the caller's seed"),
    forbid("thread_rng", REPLAYED, "randomness comes from the caller's seed"),
    forbid("OsRng", REPLAYED, "randomness comes from the caller's seed"),
    forbid("tokio", REPLAYED, "nothing here waits"),
    forbid("async", REPLAYED, "nothing here waits"),
    forbid("thread::", REPLAYED, "threads run in another order each time"),
    forbid("TcpStream", REPLAYED, "no sockets here"),
    forbid("TcpListener", REPLAYED, "no sockets here"),
    forbid("UdpSocket", REPLAYED, "no sockets here"),
    forbid("fs::", CORE, "core does no IO"),
    forbid("env::", CORE, "core does no IO"),
    forbid("process::", CORE, "core does no IO"),
    forbid("println!", CORE, "core does no IO"),
];

/// Where a forbidden word is what the file is for.
const EXEMPT: [(&str, &str); 5] = [
    // `cargo xtask interop` runs them: their programs are slow to install.
    ("#[ignore", "crates/cli/tests/interop_browser.rs"),
    ("#[ignore", "crates/cli/tests/interop_grpc.rs"),
    ("#[ignore", "crates/cli/tests/interop_http.rs"),
    ("#[ignore", "crates/cli/tests/interop_scrape.rs"),
    // Two threads that wait for each other must not go on as if nothing were wrong: only a process can end.
    ("process::", "crates/core/src/locked.rs"),
];

/// Where a proof may be asserted (`CertificateProof::asserted`): where a certificate was verified, where a test or the
/// simulation acts as that verifier, and in the tests of core. Anywhere else the caller would make a proof without a
/// check.
const MAY_ASSERT: [&str; 4] = ["crates/pki/src/", "crates/guard/tests/", "crates/sim/", "bench/src/authz/"];

/// The paths of the tables.
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    let within = FORBIDDEN.iter().flat_map(|rule| rule.within.iter().copied());
    let mut paths: Vec<&str> = within.chain(EXEMPT.iter().map(|(_, path)| *path)).chain(MAY_ASSERT).collect();
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter()
}

pub(crate) fn check(file: &TextFile) -> Vec<Finding> {
    let mut found = Vec::new();
    if is_limited(file) && file.text.lines().count() > LINES_MAX {
        found.push((0, format!("has {} lines, at most {LINES_MAX} are allowed", file.text.lines().count())));
    }
    if file.is_rust() && !is_generated(file) {
        let code = code_of(&file.text);
        if !begins_with_docs(&file.text) {
            found.push((1, "begins without `//!`: say what this file is, and what it must never do".to_owned()));
        }
        found.extend(forbidden_words(file, &code));
        found.extend(assertions(file, &code));
        found.extend(sleeps(file, &code));
    }
    found.into_iter().map(|(line, what)| Finding::new(&file.path, line, what)).collect()
}

pub(super) fn is_generated(file: &TextFile) -> bool {
    file.path.contains("/generated/") || file.text.lines().take(3).any(|line| line.contains("@generated"))
}

/// Written by hand and read by people; data and golden files may be as long as they are.
fn is_limited(file: &TextFile) -> bool {
    let written = [".rs", ".proto", ".sh", ".py", ".js", ".css", ".html"].iter().any(|end| file.path.ends_with(end));
    written && !file.path.contains("/golden/") && !is_generated(file)
}

/// Inner attributes may stand before the docs, as rustc allows.
fn begins_with_docs(text: &str) -> bool {
    let mut within_attribute = false;
    for line in text.lines().map(str::trim) {
        within_attribute |= line.starts_with("#![");
        if within_attribute {
            within_attribute = !line.ends_with(']');
        } else if !line.is_empty() {
            return line.starts_with("//!");
        }
    }
    false
}

fn forbidden_words(file: &TextFile, code: &str) -> Vec<(usize, String)> {
    let exempt = |rule: &Forbidden| EXEMPT.contains(&(rule.word, file.path.as_str()));
    let applies = |rule: &Forbidden| rule.within.iter().any(|path| file.path.starts_with(path)) && !exempt(rule);
    let rules = FORBIDDEN.iter().filter(|rule| applies(rule));
    let found = |rule: &'static Forbidden| {
        find_words(code, rule.word).map(|at| (line_at(code, at), format!("`{}`: {}", rule.word, rule.why)))
    };
    rules.flat_map(found).collect()
}

fn assertions(file: &TextFile, code: &str) -> Vec<(usize, String)> {
    let in_core = file.path.starts_with("crates/core/src/");
    if in_core && is_tests(file) || MAY_ASSERT.iter().any(|path| file.path.starts_with(path)) {
        return Vec::new();
    }
    let tests = if in_core { test_items(code) } else { Vec::new() };
    // The bare word, so that an alias of the type or a method reference does not hide it.
    let calls = find_words(code, "asserted").filter(|at| !is_definition(code, *at));
    let calls = calls.filter(|at| !tests.iter().any(|test| test.contains(at)));
    let what = "`asserted`: only a verifier or a test of core may assert a proof";
    calls.map(|at| (line_at(code, at), what.to_owned())).collect()
}

/// A timed sleep needs its reason in the comment above it: `// why: …`.
fn sleeps(file: &TextFile, code: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    let has_reason = |line: usize| {
        let above = lines.iter().take(line - 1).rev().take_while(|line| line.starts_with("//"));
        above.into_iter().any(|line| line.starts_with("// why:"))
    };
    let is_import = |line: usize| lines.get(line - 1).is_some_and(|line| line.starts_with("use "));
    let timed = ["sleep", "sleep_until"].iter().flat_map(|word| find_words(code, word));
    let timed = timed.filter(|at| !is_definition(code, *at)).map(|at| line_at(code, at));
    let bare = timed.filter(|line| !is_import(*line) && !has_reason(*line));
    bare.map(|line| (line, "a timed sleep without `// why:` above it".to_owned())).collect()
}

/// Whether a file of a crate's `src` holds nothing but tests.
pub(super) fn is_tests(file: &TextFile) -> bool {
    file.path.ends_with("/tests.rs") || file.path.contains("/tests/")
}

pub(super) fn is_definition(code: &str, at: usize) -> bool {
    let before = code.get(..at).unwrap_or_default().trim_end();
    before.ends_with("fn") && !before.trim_end_matches("fn").ends_with(is_word)
}

/// Byte ranges of items behind `#[cfg(test)]`.
pub(super) fn test_items(code: &str) -> Vec<Range<usize>> {
    let item = |(start, _): (usize, &str)| start..item_end(code, start);
    code.match_indices("#[cfg(test)]").map(item).collect()
}

/// Where the item that begins at `start` ends: at its `;`, or at the brace that closes its first one.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b';' if depth == 0 => return at,
            b'{' => depth += 1,
            b'}' if depth <= 1 => return at,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<usize> {
        check(&TextFile::for_testing(path, &format!("//! A file.\n{text}"))).iter().map(|f| f.line).collect()
    }

    #[test]
    fn words_forbidden_everywhere_are_found_in_code_only() {
        let path = "crates/net/tests/a.rs";
        for bad in ["todo!()", "dbg!(x);", "#[ignore = \"slow\"]"] {
            assert!(!findings(path, bad).is_empty(), "{bad}");
            assert!(findings(path, &format!("// {bad}\nlet s = r#\"{bad}\"#;")).is_empty(), "{bad}");
        }
        assert!(findings(path, "#[ignored]\nlet todo = 1;").is_empty());
        assert!(findings(path, "c.into_0rtt()").is_empty(), "a hostile client of a test");
        assert!(!findings("crates/net/src/a.rs", "//! a\nc.into_0rtt()").is_empty());
    }

    #[test]
    fn core_holds_no_clock_no_randomness_no_io() {
        for bad in [
            "use std::collections::HashMap;",
            "let now = SystemTime::now();",
            "use std::time::Instant;",
            "std::fs::read(p)",
            "getrandom::fill(b)",
            "async fn f() {}",
            "use std::net::TcpStream;",
        ] {
            assert_eq!(findings("crates/core/src/a.rs", bad), [2], "{bad}");
            assert!(findings("crates/net/src/a.rs", bad).is_empty(), "{bad}");
        }
        assert_eq!(findings("crates/sim/src/a.rs", "let t = Instant::now();\nlet seed = std::env::var(s);"), [2]);
        assert!(findings("crates/core/src/a.rs", "use std::net::IpAddr;\nuse std::collections::BTreeMap;").is_empty());
    }

    #[test]
    fn proof_is_asserted_by_verifiers_and_tests_of_core_alone() {
        let call = "let proof = CertificateProof::asserted(claims);";
        for (path, allowed) in [
            ("crates/pki/src/verify.rs", true),
            ("crates/core/src/handshake/session.rs", false),
            ("crates/core/tests/judge.rs", false),
            ("crates/core/src/peer/tests.rs", true),
            ("crates/sim/src/lib.rs", true),
            ("crates/core/src/peer.rs", false),
            ("crates/core/src/handshakes.rs", false),
            ("crates/net/src/tests.rs", false),
            ("crates/net/tests/live.rs", false),
            ("crates/countersign/src/lib.rs", false),
        ] {
            assert_eq!(findings(path, call).is_empty(), allowed, "{path}");
        }
        assert!(findings("crates/core/src/peer.rs", "pub const fn asserted(parts: P) -> Self {}").is_empty());
        assert_eq!(findings("crates/net/src/a.rs", "use E as X;\nparts.map(X::asserted)"), [3]);
    }

    #[test]
    fn proof_may_be_asserted_within_cfg_test_and_not_after_it() {
        let text = "#[cfg(test)]\nmod tests {\n    fn f() { E::asserted(p); }\n}\nfn g() { E::asserted(p); }";
        assert_eq!(findings("crates/core/src/peer.rs", text), [6]);
        let text = "#[cfg(test)]\nmod tests;\nfn g() { E::asserted(p); }";
        assert_eq!(findings("crates/core/src/peer.rs", text), [4]);
    }

    #[test]
    fn a_timed_sleep_says_why() {
        let path = "crates/net/src/a.rs";
        assert_eq!(findings(path, "tokio::time::sleep(d).await;"), [2]);
        assert_eq!(findings(path, "// a moment\nsleep_until(t).await;"), [3]);
        assert!(findings(path, "// why: the peer asked to wait\n// so long\ntokio::time::sleep(d).await;").is_empty());
        assert!(findings(path, "use tokio::time::sleep;\nfn sleep(d: D) {}").is_empty());
    }

    #[test]
    fn every_file_begins_with_what_it_is() {
        let begins = |text| check(&TextFile::for_testing("crates/net/src/a.rs", text)).is_empty();
        assert!(begins("//! A file.\n"));
        assert!(begins("#![allow(\n    missing_docs,\n)]\n\n//! A file.\n"));
        assert!(begins("// @generated by prost\nuse a;\n"));
        assert!(!begins("use a;\n//! Late.\n"));
        assert!(!begins("// A file.\n"));
        assert!(!begins("#![allow(missing_docs)]\nuse a;\n"));
        assert!(!begins(""));
    }

    #[test]
    fn files_of_more_than_500_lines_fail_unless_data_or_generated() {
        let long = |path, lines: usize| {
            let text = format!("//! A file.\n{}", "\n".repeat(lines - 1));
            !check(&TextFile::for_testing(path, &text)).is_empty()
        };
        assert!(!long("crates/net/src/a.rs", 500));
        assert!(long("crates/net/src/a.rs", 501));
        assert!(long("crates/api/proto/a.proto", 501));
        assert!(!long("crates/net/src/generated/a.rs", 501));
        assert!(!long("crates/net/tests/golden/a.html", 501));
        assert!(!long("Cargo.lock", 501));
    }
}
