//! Running cargo: the same cargo that started this task, in the repository's root.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A command of cargo in the repository's root, without input.
pub(crate) fn command(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root).stdin(Stdio::null());
    command
}

/// Runs cargo with its output shown; fails if it does.
pub(crate) fn run(root: &Path, args: &[&str], vars: &[(&str, &str)]) -> Result<()> {
    let status = command(root, args).envs(vars.iter().copied()).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("`cargo {}` failed", args.join(" "));
    }
    Ok(())
}

/// Runs cargo and returns what it wrote to standard output.
pub(crate) fn output(root: &Path, args: &[&str]) -> Result<String> {
    let output = command(root, args).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`cargo {}` failed", args.join(" "));
    }
    Ok(String::from_utf8(output.stdout)?)
}
