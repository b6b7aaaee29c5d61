//! Where and with what it was measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// Lines of `name: value`, for the page.
pub(crate) fn describe(root: &Path) -> Result<Vec<(&'static str, String)>> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let kib: u64 = kib.trim().trim_end_matches("kB").trim().parse().unwrap_or(0);
    let cores = std::thread::available_parallelism()?;
    Ok(vec![
        ("machine", format!("{}, {cores} cores, {} GiB", model.trim_start_matches([' ', '\t', ':']), kib >> 20)),
        ("kernel", format!("Linux {}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim())),
        ("compiler", said(root, "rustc", &["--version"])?),
        ("commit", said(root, "git", &["rev-parse", "--short", "HEAD"])?),
        ("date", said(root, "date", &["-u", "+%F"])?),
        ("command", "`cargo xtask bench`".to_owned()),
    ])
}

fn said(root: &Path, program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).current_dir(root).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
