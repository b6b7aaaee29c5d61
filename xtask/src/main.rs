//! The project's own tasks: `cargo xtask verify | fix | tidy | soak | interop | bench | load`.
//!
//! `verify` and `tidy` only read; `fix` is the one task that changes files. Nothing here ships to users.
//! Read `verify` for the gate, `tidy` for the rules that no compiler knows.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

mod cargo;
mod interop;
mod spdx;
mod tidy;
mod verify;

const USAGE: &str = "\
usage: cargo xtask <task>

  verify          the gate: format, tidy, clippy, tests, docs; changes nothing
  fix             format, and apply what clippy can
  tidy            only the rules that no compiler knows; seconds
  soak            what is too long for the gate: the benchmarks compile, every restore drill; ten minutes
  interop         stock clients that are slow to install judge a live cluster; installs them; five minutes
  bench [args]    build and run the benchmarks of bench/
  load [args]     many callers on a cluster: calls per second, latencies, errors by kind";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = root()?;
    let args: Vec<String> = env::args().skip(1).collect();
    let (task, rest) = args.split_first().context(USAGE)?;
    if !["bench", "load"].contains(&task.as_str()) && !rest.is_empty() {
        bail!("`{task}` takes no arguments\n{USAGE}");
    }
    match task.as_str() {
        "verify" => verify::run(&root),
        "fix" => fix(&root),
        "tidy" => tidy::run(&root),
        "soak" => soak(&root),
        "interop" => interop::run(&root),
        "bench" => bench(&root, &[], rest),
        "load" => bench(&root, &["load"], rest),
        _ => bail!("no task `{task}`\n{USAGE}"),
    }
}

/// The repository: where this package's own directory lies.
fn root() -> Result<PathBuf> {
    let package = env::var_os("CARGO_MANIFEST_DIR").context("start it as `cargo xtask`")?;
    Ok(Path::new(&package).parent().context("xtask has no parent directory")?.to_owned())
}

fn fix(root: &Path) -> Result<()> {
    cargo::run(root, &["clippy", "--fix", "--allow-dirty", "--workspace", "--all-targets"], &[])?;
    // Last, since what clippy writes is not formatted.
    cargo::run(root, &["fmt", "--all"], &[])
}

/// What is too long for the gate: the tests of which it runs a part, in full, and whether the benchmarks still compile.
/// Their peers take minutes to build.
fn soak(root: &Path) -> Result<()> {
    cargo::run(root, &["check", "--locked", "--manifest-path", "bench/Cargo.toml"], &[])?;
    let test = ["test", "--locked", "-p", "countersign-cli", "--test", "cluster_drills", "--", "--nocapture"];
    cargo::run(root, &test, &[("COUNTERSIGN_DRILLS", "every")])
}

fn bench(root: &Path, task: &[&str], args: &[String]) -> Result<()> {
    if !root.join("bench/Cargo.toml").is_file() {
        bail!("no benchmarks: bench/Cargo.toml does not exist");
    }
    let mut command = vec!["run", "--profile", "dist", "--manifest-path", "bench/Cargo.toml", "--"];
    command.extend(task);
    command.extend(args.iter().map(String::as_str));
    cargo::run(root, &command, &[])
}
