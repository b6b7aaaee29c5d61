//! The text files of the repository: what git tracks, and what it would track once added.
//!
//! Never reads ignored files: a data directory in the checkout is no source.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A text file. The path is relative to the root, with `/`.
pub(crate) struct TextFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl TextFile {
    #[cfg(test)]
    pub(crate) fn for_testing(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub(crate) fn is_page(&self) -> bool {
        self.path.ends_with(".md")
    }
}

/// The repository as the rules see it.
pub(crate) struct Tree {
    /// Files that are UTF-8 text.
    pub(crate) texts: Vec<TextFile>,
    /// Every file, pictures and archives too.
    pub(crate) paths: BTreeSet<String>,
}

pub(crate) fn read(root: &Path) -> Result<Tree> {
    let (mut texts, mut paths) = (Vec::new(), BTreeSet::new());
    for path in list(root)? {
        let full = root.join(&path);
        // Deleted but still in the index, or a symbolic link to a directory.
        if !full.is_file() {
            continue;
        }
        paths.insert(path.clone());
        let bytes = fs::read(&full).with_context(|| format!("cannot read `{path}`"))?;
        if let Ok(text) = String::from_utf8(bytes)
            && !text.contains('\0')
        {
            texts.push(TextFile { path, text });
        }
    }
    Ok(Tree { texts, paths })
}

fn list(root: &Path) -> Result<Vec<String>> {
    // An unpacked archive holds nothing but sources.
    if !root.join(".git").exists() {
        let mut paths = Vec::new();
        walk(root, "", &mut paths)?;
        return Ok(paths);
    }
    let output = Command::new("git")
        // A checkout may belong to another user than the one who checks it.
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("cannot start git")?;
    if !output.status.success() {
        bail!("`git ls-files` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let listed = String::from_utf8(output.stdout).context("a path is not UTF-8")?;
    Ok(listed.split_terminator('\0').map(str::to_owned).collect())
}

fn walk(root: &Path, folder: &str, paths: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a path is not UTF-8")?;
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        match entry.file_type()? {
            kind if kind.is_dir() && name != "target" => walk(root, &path, paths)?,
            kind if kind.is_file() => paths.push(path),
            _ => {}
        }
    }
    Ok(())
}
