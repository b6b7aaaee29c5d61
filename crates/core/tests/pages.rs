//! What the pages in `docs/` say of core: refusal codes, limits and test vectors are compared with the code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use countersign_core::id::AuthorityId;
use countersign_core::peer::Refusal;
use countersign_core::secret::Secret;
use countersign_core::trust::join_token::JoinToken;

const PROTOCOL: &str = include_str!("../../../docs/PROTOCOL.md");
const AUDIT: &str = include_str!("../../../docs/AUDIT.md");
const OPERATING: &str = include_str!("../../../docs/OPERATING.md");
const LIMITS: &str = include_str!("../src/limits.rs");

/// The cells of the table below a heading, without its first two lines.
fn table<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, section) = page.split_once(&format!("\n{heading}\n")).expect("the heading exists");
    let lines = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_table_of_refusals_is_the_codes() {
    let documented: Vec<Vec<String>> =
        table(PROTOCOL, "### Refusals").iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect();
    let known: Vec<Vec<String>> = Refusal::ALL
        .iter()
        .map(|refusal| vec![refusal.code().to_string(), format!("`{}`", refusal.label()), refusal.to_string()])
        .collect();
    assert_eq!(documented, known);
}

#[test]
fn the_test_vector_of_a_join_token_is_what_the_code_makes() {
    let token = JoinToken::new(Secret::new([7; 32]), AuthorityId([9; 32]));
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let vector = format!(
        "token       {}\npublic key  {}\ntoken id    {}\n",
        token.reveal(),
        hex(&token.key().public().0),
        token.id()
    );
    assert!(PROTOCOL.contains(&format!("```text\n{vector}```")), "expected:\n{vector}");
}

/// `64 * 1024` and `10_000`, as `limits.rs` writes them.
fn value(expression: &str) -> u64 {
    expression.split('*').map(|factor| factor.trim().replace('_', "").parse::<u64>().expect("a number")).product()
}

#[test]
fn the_table_of_limits_is_the_code() {
    let known: BTreeMap<String, u64> = LIMITS
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.trim_end_matches(';').split_once(": "))
        .map(|(name, rest)| (format!("`{name}`"), value(rest.split_once('=').expect("a value").1)))
        .collect();
    let documented: BTreeMap<String, u64> =
        table(OPERATING, "## Limits").iter().map(|row| (row[0].to_owned(), value(row[1]))).collect();
    assert!(known.len() > 20, "limits.rs was read: {known:?}");
    assert_eq!(documented, known);
}

/// Rust sources below a directory.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// Tests have names of many words, which is how they are told from other words in backticks.
fn is_test_name(span: &str) -> bool {
    span.matches('_').count() >= 3 && span.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[test]
fn the_tests_that_pages_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    sources(&root.join("crates"), &mut files);
    let code: String = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let mut pages = vec![root.join("docs/ARCHITECTURE.md")];
    pages.extend(std::fs::read_dir(root.join("docs/adr")).unwrap().map(|entry| entry.unwrap().path()));
    let mut named = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for span in text.split('`').skip(1).step_by(2).filter(|span| is_test_name(span)) {
            named += 1;
            assert!(code.contains(&format!("fn {span}(")), "{}: there is no test `{span}`", page.display());
        }
    }
    assert!(named > 20, "names were read: {named}");
}

/// `node.evicted` is the name of an event; `number` and `node/N` are none.
fn is_event_name(text: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    text.split_once('.').is_some_and(|(subject, verb)| word(subject) && word(verb))
}

/// The names in backticks in the first column of the table of events, and the names in the code of commands. The event
/// of a test alone is on no page.
#[test]
fn the_table_of_events_is_the_code() {
    let lines = AUDIT.lines().skip_while(|line| !line.starts_with("| event |"));
    let cells = lines.take_while(|line| line.starts_with('|')).skip(2).filter_map(|line| line.split('|').nth(1));
    let spans = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let documented: BTreeSet<String> = spans.map(str::to_owned).collect();
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/trust/command"), &mut files);
    let mut known = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for event in text.split("\n    fn event(").skip(1) {
            let body = event.split("\n    }").next().unwrap();
            let names: Vec<_> = body.split('"').skip(1).step_by(2).filter(|text| is_event_name(text)).collect();
            assert!(!names.is_empty() || body.starts_with("&self, draft: &Draft<'_>) -> Account;"), "{file:?}: {body}");
            known.extend(names.into_iter().map(str::to_owned));
        }
    }
    assert!(known.remove("note.kept"), "the event of a test was read");
    assert!(known.len() > 25, "events were read: {known:?}");
    assert_eq!(documented, known);
}
