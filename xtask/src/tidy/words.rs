//! Plain English: no word that hides who acts, and no line that is too wide to read.
//!
//! Reads comments, strings, names and pages alike. It knows words, not grammar: a sentence that passes may be bad.

use super::Finding;
use super::files::TextFile;
use super::source::is_generated;

/// Words for an unnamed actor, and old words for "again", "alone" and "permanently".
const WORDS: [&str; 7] = ["whoever", "whom", "whomever", "somebody", "nobody", "anew", "unaided"];

/// Two words that are one of these.
const PAIR: [&str; 2] = ["for", "ever"];

/// Columns of a line of Rust, as rustfmt has it for code.
const COLUMNS_MAX: usize = 120;

/// Files written by people whose words are checked.
const READ: [&str; 5] = [".json", ".md", ".proto", ".rs", ".toml"];

/// This file, which must hold the words.
const RULE: &str = "xtask/src/tidy/words.rs";

/// The paths of the tables.
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    [RULE].into_iter()
}

pub(crate) fn check(file: &TextFile) -> Vec<Finding> {
    if is_generated(file) {
        return Vec::new();
    }
    let mut found = Vec::new();
    if file.path != RULE && READ.iter().any(|end| file.path.ends_with(end)) {
        found.extend(hidden_actors(&file.text));
    }
    if file.is_rust() {
        found.extend(wide_lines(&file.text));
    }
    found.into_iter().map(|(line, what)| Finding::new(&file.path, line, what)).collect()
}

fn hidden_actors(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut before = String::new();
    for (line, word) in words(text) {
        if WORDS.contains(&word.as_str()) {
            found.push((line, format!("`{word}`: name the actor, such as the leader, the member or the caller")));
        }
        if [before.as_str(), word.as_str()] == PAIR {
            found.push((line, format!("`{} {}`: say `permanently`, or what ends it", PAIR[0], PAIR[1])));
        }
        before = word;
    }
    found
}

/// The words of a text in lower case, each with its line. Names are taken apart: `led_again` and `LedAgain` are two.
fn words(text: &str) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut word = String::new();
        let mut after_lower = false;
        for c in line.chars().chain([' ']) {
            if !word.is_empty() && (!c.is_alphabetic() || after_lower && c.is_uppercase()) {
                words.push((number + 1, std::mem::take(&mut word)));
            }
            if c.is_alphabetic() {
                word.extend(c.to_lowercase());
            }
            after_lower = c.is_lowercase();
        }
    }
    words
}

fn wide_lines(text: &str) -> Vec<(usize, String)> {
    let columns = text.lines().map(|line| line.chars().count()).enumerate();
    let wide = columns.filter(|(_, columns)| *columns > COLUMNS_MAX);
    wide.map(|(at, columns)| (at + 1, format!("has {columns} columns, at most {COLUMNS_MAX} are allowed"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<usize> {
        check(&TextFile::for_testing(path, text)).iter().map(|f| f.line).collect()
    }

    #[test]
    fn hidden_actors_are_found_in_comments_strings_names_and_pages() {
        for (path, text) in [
            ("crates/net/src/a.rs", "//! Nobody's business.\n"),
            ("crates/net/src/a.rs", "let text = \"served by whoever asks\";"),
            ("crates/net/src/a.rs", "fn a_member_serves_nobody() {}"),
            ("crates/net/src/a.rs", "enum WayBack { JoinAnew }"),
            ("crates/net/src/a.rs", "const JOIN_ANEW: u8 = 0;"),
            ("crates/api/proto/a.proto", "// to whom it answers"),
            ("bench/Cargo.toml", "# for somebody else"),
            ("docs/a.md", "It goes on *unaided*."),
            ("README.md", "ask whomever"),
        ] {
            assert_eq!(findings(path, text), [1], "{text}");
        }
    }

    #[test]
    fn a_pair_of_words_is_found_over_a_line_break_and_in_a_name() {
        assert_eq!(findings("docs/a.md", "Refused for\never."), [2]);
        assert_eq!(findings("crates/net/src/a.rs", "// Refused for\n// ever."), [2]);
        assert_eq!(findings("crates/net/src/a.rs", "fn refused_for_ever() {}"), [1]);
        assert!(findings("docs/a.md", "Once for all; did it ever end?").is_empty());
    }

    #[test]
    fn plain_words_and_other_files_pass() {
        for text in ["// The member has a new key.", "let newest = bodies;", "// Everybody who asks, whose key it is."]
        {
            assert!(findings("crates/net/src/a.rs", text).is_empty(), "{text}");
        }
        assert!(findings("LICENSE-MIT", "persons to whom the Software is furnished").is_empty());
        assert!(findings("crates/net/src/a.rs", "// @generated\n// nobody").is_empty());
    }

    #[test]
    fn lines_of_rust_have_120_columns_at_most() {
        let line = |columns: usize| format!("// {}", "é".repeat(columns - 3));
        assert!(findings("crates/net/src/a.rs", &line(120)).is_empty());
        assert_eq!(findings("crates/net/src/a.rs", &format!("\n{}", line(121))), [2]);
        assert!(findings("docs/a.md", &line(121)).is_empty());
    }
}
