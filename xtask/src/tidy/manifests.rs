//! Each package takes the workspace's lints: one that forgot would be checked by none.

use super::Finding;
use super::files::TextFile;

pub(crate) fn check(file: &TextFile) -> Option<Finding> {
    let folder = file.path.strip_suffix("/Cargo.toml")?;
    if folder != "xtask" && !folder.starts_with("crates/") {
        return None;
    }
    let what = match file.text.parse::<toml::Table>() {
        Ok(manifest) if takes_lints(&manifest) => return None,
        Ok(_) => "does not take the workspace's lints: add `lints.workspace = true`".to_owned(),
        Err(error) => error.message().to_owned(),
    };
    Some(Finding::new(&file.path, 0, what))
}

fn takes_lints(manifest: &toml::Table) -> bool {
    let workspace = manifest.get("lints").and_then(|lints| lints.get("workspace"));
    workspace.and_then(toml::Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_the_lints_fails() {
        let check = |path, text| check(&TextFile::for_testing(path, text)).is_some();
        assert!(!check("crates/a/Cargo.toml", "[lints]\nworkspace = true"));
        assert!(check("crates/a/Cargo.toml", "[package]\nname = \"a\""));
        assert!(check("crates/a/Cargo.toml", "[lints]\nworkspace = false"));
        assert!(check("xtask/Cargo.toml", "[lints.rust]\nunsafe_code = \"allow\""));
        assert!(check("crates/a/Cargo.toml", "not toml"));
        assert!(!check("Cargo.toml", "[workspace]"));
    }
}
