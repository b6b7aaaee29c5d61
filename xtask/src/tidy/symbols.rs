//! Names that pages give in backticks exist: a page must not outlive what it describes.
//!
//! Checked are `Type::method` and CamelCase names, by a search for the words in manifests, schemas and the code of Rust
//! sources. So a name from a dependency counts where our code uses it. Checked are also paths from the root: of files,
//! such as `docs/PAGE.md`, and of folders, such as `crates/NAME/`.

use std::collections::BTreeSet;

use super::Finding;
use super::files::{TextFile, Tree};
use super::markdown::Page;
use super::mask::{code_of, is_word};

/// Records of the past.
const HISTORY: [&str; 2] = ["CHANGELOG.md", "docs/adr/"];

/// The paths of the tables.
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    HISTORY.into_iter()
}

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let known = known_words(&tree.texts);
    let mut findings = Vec::new();
    for file in tree.texts.iter().filter(|file| file.is_page() && !is_history(file)) {
        for (line, span) in Page::parse(&file.text).spans {
            if is_path(tree, &span) && !is_there(tree, &span) {
                findings.push(Finding::new(&file.path, line, format!("no such file or folder: `{span}`")));
            }
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

/// Whether a span names a file or folder: it ends with an extension of letters, or begins with a folder of the root.
fn is_path(tree: &Tree, span: &str) -> bool {
    let path = span.trim_end_matches('/');
    let is_part = |part: &str| !part.is_empty() && part.chars().all(|c| is_word(c) || c == '-' || c == '.');
    let is_extension = |end: &str| end.starts_with(|c: char| c.is_ascii_alphabetic());
    let Some((folder, _)) = span.split_once('/') else { return false };
    let name = path.rsplit('/').next().unwrap_or_default();
    let has_extension = name.rsplit_once('.').is_some_and(|(stem, end)| !stem.is_empty() && is_extension(end));
    path.split('/').all(is_part) && (has_extension || is_folder(tree, folder))
}

fn is_there(tree: &Tree, span: &str) -> bool {
    let path = span.trim_end_matches('/');
    is_folder(tree, path) || tree.paths.contains(span)
}

fn is_folder(tree: &Tree, path: &str) -> bool {
    let within = format!("{path}/");
    tree.paths.range(within.clone()..).next().is_some_and(|first| first.starts_with(&within))
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

    fn tree(path: &str, page: &str) -> Tree {
        let texts = vec![
            TextFile::for_testing(path, page),
            TextFile::for_testing(
                "crates/core/src/a.rs",
                "// Forgotten::name\nimpl TrustState { fn apply() {} }\nuse tokio::sync::watch;",
            ),
            TextFile::for_testing("a.proto", "message JoinRequest {}"),
            TextFile::for_testing("Cargo.toml", "serde_json = \"1\""),
        ];
        let pictures = ["docs/a.png".to_owned()];
        let paths = texts.iter().map(|file| file.path.clone()).chain(pictures).collect();
        Tree { texts, paths }
    }

    fn findings(page: &str) -> usize {
        check(&tree("docs/a.md", page)).len()
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
    fn page_that_names_a_missing_path_is_refused() {
        for page in ["`docs/a.md`", "`docs/a.png`", "`crates/core/src/a.rs`", "`crates/core/`", "`crates`", "`docs/`"] {
            assert_eq!(findings(page), 0, "{page}");
        }
        for page in ["`docs/b.md`", "`src/a.rs`", "`crates/core/src/b.rs`", "`core/src/a.rs`", "`docs/a.md.b`"] {
            assert_eq!(findings(page), 1, "{page}");
        }
        for page in ["`crates/core/src/b`", "`crates/core/sr/`", "`crates/cor`", "`docs/a.md/`"] {
            assert_eq!(findings(page), 1, "{page}");
        }
        for page in ["`/a.json`", "`~/a.toml`", "`$DIR/a.txt`", "`http/1.1`", "`cat a/b.c`", "`a/b`", "`x/{id}.rs`"] {
            assert_eq!(findings(page), 0, "{page}");
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
        let gone = |path| check(&tree(path, "`TrustView` `docs/b.md`")).len();
        assert_eq!((gone("CHANGELOG.md"), gone("docs/adr/0001-x.md"), gone("README.md")), (0, 0, 2));
    }
}
