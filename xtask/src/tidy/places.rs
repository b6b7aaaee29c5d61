//! No committed file names a directory of the machine that it was written on.

use super::Finding;
use super::files::TextFile;
use super::mask::line_at;

/// Directories at a file system's root that belong to one machine or one person.
const PRIVATE: [&str; 4] = ["farm", "home", "root", "work"];

pub(crate) fn check(file: &TextFile) -> Vec<Finding> {
    let found = |directory: &&str| {
        let path = format!("/{directory}/");
        let starts: Vec<usize> = file.text.match_indices(&path).map(|(at, _)| at).collect();
        let absolute = starts.into_iter().filter(|at| starts_path(&file.text, *at));
        let what = format!("a path of one machine: `{path}`");
        absolute.map(|at| Finding::new(&file.path, line_at(&file.text, at), what.clone())).collect::<Vec<_>>()
    };
    PRIVATE.iter().flat_map(found).collect()
}

/// Whether the slash at `at` begins an absolute path, and does not continue a relative one or a URL's.
fn starts_path(text: &str, at: usize) -> bool {
    let before = text.get(..at).and_then(|before| before.chars().next_back());
    !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '}' | ')'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_private_paths_fail_and_others_pass() {
        // Written so that this file itself passes.
        let (work, home) = ("/work", "/home");
        for (text, findings) in [
            (format!("cd {work}/main"), 1),
            (format!("`{home}/alice` and\n\"{work}/x\""), 2),
            (format!("file://{home}/alice"), 1),
            (format!("https://example.org{work}/x"), 0),
            (format!("..{work}/x, ${{HOME}}{work}/, a{home}/"), 0),
            (format!("{work}shop, /network/"), 0),
        ] {
            let file = TextFile::for_testing("a.md", &text);
            assert_eq!(check(&file).len(), findings, "{text}");
        }
    }

    #[test]
    fn the_line_is_named() {
        let text = format!("a\nb {}/x\n", "/root");
        let lines: Vec<_> = check(&TextFile::for_testing("a.sh", &text)).iter().map(|f| f.line).collect();
        assert_eq!(lines, [2]);
    }
}
