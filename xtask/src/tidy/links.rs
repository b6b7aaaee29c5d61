//! Relative links of pages lead to a file or folder of the repository, and to a heading where they name one.

use super::Finding;
use super::files::Tree;
use super::markdown::Page;
use super::mask::line_at;

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.texts.iter().filter(|file| file.is_page()) {
        let page = Page::parse(&file.text);
        for (line, target) in targets(&page.prose) {
            if !resolves(tree, &file.path, &page, target) {
                findings.push(Finding::new(&file.path, line, format!("link leads nowhere: `{target}`")));
            }
        }
    }
    findings
}

/// Targets of `[text](target)`, `![text](target "title")` and `[name]: target`.
fn targets(prose: &str) -> Vec<(usize, &str)> {
    let mut targets = Vec::new();
    for (at, opening) in prose.match_indices("](") {
        let inner = prose.get(at + opening.len()..).and_then(|rest| rest.split_once(')'));
        if let Some(target) = inner.and_then(|(inner, _)| inner.split_whitespace().next()) {
            targets.push((line_at(prose, at), target));
        }
    }
    for (line, text) in prose.lines().enumerate() {
        let definition = text.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        if let Some(target) = definition.and_then(|(_, rest)| rest.split_whitespace().next()) {
            targets.push((line + 1, target));
        }
    }
    targets
}

fn resolves(tree: &Tree, from: &str, page: &Page, target: &str) -> bool {
    let target = target.trim_start_matches('<').trim_end_matches('>');
    if target.contains("://") || target.starts_with("mailto:") {
        return true;
    }
    let (path, heading) = target.split_once('#').map_or((target, None), |(path, heading)| (path, Some(heading)));
    if path.is_empty() {
        return heading.is_some_and(|heading| has_heading(page, heading));
    }
    let Some(path) = join(from, path) else { return false };
    let other = tree.texts.iter().find(|file| file.path == path);
    match (other, heading) {
        (Some(file), Some(heading)) if file.is_page() => has_heading(&Page::parse(&file.text), heading),
        _ => tree.paths.contains(&path) || is_folder(tree, &path),
    }
}

fn has_heading(page: &Page, heading: &str) -> bool {
    page.anchors.iter().any(|anchor| anchor == heading)
}

fn is_folder(tree: &Tree, path: &str) -> bool {
    let inside = format!("{}/", path.trim_end_matches('/'));
    path.is_empty() || tree.paths.iter().any(|file| file.starts_with(&inside))
}

/// `target` as seen from the page `from`; none if it leaves the repository.
fn join(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = if target.starts_with('/') { Vec::new() } else { from.split('/').collect() };
    if !target.starts_with('/') {
        parts.pop();
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::files::TextFile;

    fn tree(page: &str) -> Tree {
        let texts = vec![
            TextFile::for_testing("docs/a.md", page),
            TextFile::for_testing("docs/adr/b.md", "# The heading\n"),
            TextFile::for_testing("LICENSE", ""),
        ];
        let pictures = ["docs/c.png".to_owned()];
        let paths = texts.iter().map(|file| file.path.clone()).chain(pictures).collect();
        Tree { texts, paths }
    }

    #[test]
    fn links_to_files_folders_and_headings_resolve() {
        for link in [
            "adr/b.md",
            "./adr/b.md#the-heading",
            "../LICENSE",
            "adr",
            "adr/",
            "c.png",
            "/docs/c.png",
            "..",
            "#top",
            "https://example.org/x#y",
            "mailto:a@example.org",
            "<adr/b.md>",
            "adr/b.md \"a title\"",
        ] {
            assert_eq!(check(&tree(&format!("# Top\n[x]({link})"))), [], "{link}");
            assert_eq!(check(&tree(&format!("# Top\n[x][y]\n\n[y]: {link}"))), [], "{link}");
        }
    }

    #[test]
    fn links_that_lead_nowhere_are_found_with_their_line() {
        for link in ["b.md", "adr/b.md#another", "#bottom", "../../LICENSE", "docs/a.md", "ad", "../LICENSE/x"] {
            let lines: Vec<_> = check(&tree(&format!("# Top\n\n![x]({link})"))).iter().map(|f| f.line).collect();
            assert_eq!(lines, [3], "{link}");
        }
    }

    #[test]
    fn links_within_code_are_not_links() {
        assert_eq!(check(&tree("`[x](y)`\n```\n[x](y)\n```\n")), []);
    }
}
