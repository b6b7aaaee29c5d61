//! Names that pages give in backticks exist: a page must not outlive what it describes.
//!
//! Checked are paths (`Type::method`) and CamelCase names, by a search for the words in manifests, schemas and the code
//! of Rust sources. So a name from a dependency counts where our code uses it.

use std::collections::BTreeSet;

use super::Finding;
use super::files::TextFile;
use super::markdown::Page;
use super::mask::{code_of, is_word};

/// Records of the past.
const HISTORY: [&str; 2] = ["CHANGELOG.md", "docs/adr/"];

/// The paths of the tables.
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    HISTORY.into_iter()
}

pub(crate) fn check(files: &[TextFile]) -> Vec<Finding> {
    let known = known_words(files);
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_page() && !is_history(file)) {
        for (line, span) in Page::parse(&file.text).spans {
            let missing = symbol(&span).into_iter().find(|word| !known.contains(*word));
            if let Some(word) = missing {
                findings.push(Finding::new(&file.path, line, format!("`{span}`: the sources know no `{word}`")));
            }
        }
    }
    findings
}

fn is_history(file: &TextFile) -> bool {
    HISTORY.iter().any(|path| file.path.starts_with(path))
}

fn known_words(files: &[TextFile]) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for file in files {
        let text = match file.path.rsplit_once('.').map(|(_, end)| end) {
            Some("rs") => code_of(&file.text),
            Some("proto" | "toml") => file.text.clone(),
            _ => continue,
        };
        words.extend(text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).map(str::to_owned));
    }
    words
}

/// The words that a span claims to exist; none if it is no name of ours, such as a command or a path of files.
fn symbol(span: &str) -> Vec<&str> {
    // `Secret<N>`, `judge()`, `f(x)`, `format!` and `&Fresh` name what stands before.
    let name = span.trim_start_matches('&');
    let name = name.split(['<', '(', '!', '{', ' ']).next().unwrap_or_default();
    let words: Vec<&str> = name.split("::").collect();
    let is_name = words.iter().all(|word| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
        && words.iter().all(|word| word.chars().all(is_word));
    if is_name && (words.len() > 1 || is_camel_case(name)) { words } else { Vec::new() }
}

/// Two words at least, so that `Leader` or `RFC` is prose.
fn is_camel_case(word: &str) -> bool {
    let humps =
        word.chars().zip(word.chars().skip(1)).filter(|(a, b)| a.is_ascii_uppercase() && b.is_ascii_lowercase());
    word.starts_with(|c: char| c.is_ascii_uppercase()) && !word.contains('_') && humps.count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(page: &str) -> usize {
        let files = [
            TextFile::for_testing("docs/a.md", page),
            TextFile::for_testing(
                "a.rs",
                "// Forgotten::name\nimpl TrustState { fn apply() {} }\nuse tokio::sync::watch;",
            ),
            TextFile::for_testing("a.proto", "message JoinRequest {}"),
            TextFile::for_testing("Cargo.toml", "serde_json = \"1\""),
        ];
        check(&files).len()
    }

    #[test]
    fn names_that_exist_pass() {
        for page in [
            "`TrustState::apply`",
            "`TrustState`",
            "`TrustState::apply()`",
            "`&TrustState`",
            "`tokio::sync::watch`",
            "`JoinRequest`",
            "`serde_json`",
            "`TrustState<'a>`",
        ] {
            assert_eq!(findings(page), 0, "{page}");
        }
    }

    #[test]
    fn names_that_do_not_exist_are_found() {
        for page in ["`TrustState::judge`", "`TrustView`", "`Forgotten::name`", "`tokio::net`", "`TrustView { a }`"] {
            assert_eq!(findings(page), 1, "{page}");
        }
    }

    #[test]
    fn what_is_no_name_of_code_is_left_alone() {
        for page in ["`cargo xtask`", "`a/b::c`", "`Leader`", "`RFC`", "`--join-addr`", "`::1`", "TrustView", "`a.b`"] {
            assert_eq!(findings(page), 0, "{page}");
        }
    }

    #[test]
    fn history_may_name_what_is_gone() {
        let gone = |path| check(&[TextFile::for_testing(path, "`TrustView`")]).len();
        assert_eq!((gone("CHANGELOG.md"), gone("docs/adr/0001-x.md"), gone("README.md")), (0, 0, 1));
    }
}
