//! The gate. Reads and builds, never changes a file: cargo runs with `--locked`, formatting is only compared.
//!
//! Cheap steps come first, and the first failure ends it, so that a wrong comma is known within seconds.

use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{cargo, tidy};

type Step = (&'static str, fn(&Path) -> Result<()>);

const STEPS: [Step; 7] = [
    ("suites", suites),
    ("format", format),
    ("tidy", tidy::run),
    ("wasm", wasm),
    ("clippy", clippy),
    ("tests", tests),
    ("docs", docs),
];

pub(crate) fn run(root: &Path) -> Result<()> {
    let whole = Instant::now();
    for (name, step) in STEPS {
        println!("==> {name}");
        let start = Instant::now();
        step(root)
            .with_context(|| format!("verify: step `{name}` failed after {:.1} s", start.elapsed().as_secs_f64()))?;
        println!("    {name}: {:.1} s", start.elapsed().as_secs_f64());
    }
    println!("verify: all {} steps passed in {:.1} s", STEPS.len(), whole.elapsed().as_secs_f64());
    Ok(())
}

/// Where published suites lie, if anywhere. Absolute, since each test has a working directory of its own.
fn suites_path(root: &Path) -> Option<String> {
    env::var_os("COUNTERSIGN_SUITES").map(|path| root.join(path).display().to_string())
}

/// Tests of published suites say `skipped` where the variable is unset; a wrong path must not pass for that.
fn suites(root: &Path) -> Result<()> {
    match suites_path(root) {
        None => println!("    COUNTERSIGN_SUITES is not set: tests of published suites are skipped"),
        Some(path) if Path::new(&path).is_dir() => println!("    {path}"),
        Some(path) => bail!("COUNTERSIGN_SUITES names no directory: `{path}`"),
    }
    Ok(())
}

fn format(root: &Path) -> Result<()> {
    cargo::run(root, &["fmt", "--all", "--", "--check"], &[]).context("run `cargo xtask fix`")
}

/// Core builds where there is no operating system: whatever it needed of one would show here.
fn wasm(root: &Path) -> Result<()> {
    const TARGET: &str = "wasm32-unknown-unknown";
    let sysroot = Command::new("rustc").current_dir(root).args(["--print", "sysroot"]).output()?;
    let sysroot = String::from_utf8(sysroot.stdout)?;
    if !Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("lib").is_dir() {
        println!("    skipped: `rustup target add {TARGET}` installs what it needs");
        return Ok(());
    }
    cargo::run(root, &["check", "--locked", "-p", "countersign-core", "--target", TARGET], &[])
}

fn clippy(root: &Path) -> Result<()> {
    cargo::run(root, &["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])
}

fn tests(root: &Path) -> Result<()> {
    let suites = suites_path(root);
    let vars: Vec<_> = suites.iter().map(|path| ("COUNTERSIGN_SUITES", path.as_str())).collect();
    cargo::run(root, &["test", "--locked", "--workspace", "--no-fail-fast"], &vars)
}

/// Libraries only: the binary's pages would be written over those of the library of the same name.
fn docs(root: &Path) -> Result<()> {
    let args = ["doc", "--locked", "--workspace", "--lib", "--no-deps"];
    cargo::run(root, &args, &[("RUSTDOCFLAGS", "-D warnings")])
}
