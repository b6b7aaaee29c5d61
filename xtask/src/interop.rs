//! `cargo xtask interop`: stock clients that are slow to install judge a live cluster. It installs what is missing,
//! says by which commands, runs the tests `interop_*` of the binary, and shows what each client tried and what came of
//! it.
//!
//! It must not hide a client: a program that is missing fails its test, and each test gives a row.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::cargo;

/// A command or file that must be there, and the Debian package that has it.
const NEEDED: [(&str, &str); 18] = [
    ("javac", "default-jdk-headless"),
    ("/usr/share/java/grpc-netty.jar", "libgrpc-java"),
    ("/usr/share/java/guava.jar", "libguava-java"),
    ("/usr/share/java/netty-handler.jar", "libnetty-java"),
    ("/usr/share/java/netty-tcnative.jar", "libnetty-tcnative-java"),
    ("/usr/share/java/opencensus-api.jar", "libopencensus-java"),
    ("/usr/share/java/perfmark-api.jar", "libperfmark-java"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("go", "golang-go"),
    ("/usr/share/gocode/src/google.golang.org/grpc", "golang-google-grpc-dev"),
    ("python3", "python3"),
    ("/usr/share/doc/python3-venv", "python3-venv"),
    ("chromium", "chromium"),
    ("certutil", "libnss3-tools"),
    ("openssl", "openssl"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
];

/// Where each program says which one it is.
const VERSIONS: [(&str, &str); 7] = [
    ("java", "-version"),
    ("node", "--version"),
    ("npm", "--version"),
    ("go", "version"),
    ("chromium", "--version"),
    ("prometheus", "--version"),
    ("openssl", "version"),
];

/// The tests, each a file of its own.
const TESTS: [&str; 4] = ["interop_grpc", "interop_http", "interop_browser", "interop_scrape"];

/// The columns of a row after the word that begins it: client, version, what it tried, verdict.
type Row = [String; 4];

pub(crate) fn run(root: &Path) -> Result<()> {
    let begun = Instant::now();
    install_packages()?;
    let (stacks, installed) = (root.join("crates/cli/tests/stacks"), root.join("target/interop"));
    install_node(&stacks.join("node"), &installed.join("node"))?;
    install_python(&stacks.join("requirements.txt"), &installed.join("python"))?;
    install_tcnative(&installed.join("jni"))?;
    for (program, flag) in VERSIONS {
        let output = Command::new(program).arg(flag).output().with_context(|| format!("cannot start {program}"))?;
        let said = [output.stdout, output.stderr].concat();
        println!("{program}: {}", String::from_utf8_lossy(&said).lines().next().unwrap_or_default());
    }
    let (passed, rows) = test(root)?;
    show(&rows);
    println!("{} clients in {} seconds", rows.len(), begun.elapsed().as_secs());
    if !passed || rows.is_empty() || rows.iter().any(|[.., verdict]| verdict != "ok") {
        bail!("not every client was served as it should be");
    }
    Ok(())
}

/// Runs a command that is shown first.
fn shown(command: &mut Command) -> Result<()> {
    println!("+ {command:?}");
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed");
    }
    Ok(())
}

fn is_there(needed: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    needed.starts_with('/') && Path::new(needed).exists()
        || !needed.starts_with('/') && std::env::split_paths(&paths).any(|path| path.join(needed).is_file())
}

fn install_packages() -> Result<()> {
    let mut missing: Vec<&str> =
        NEEDED.iter().filter(|(needed, _)| !is_there(needed)).map(|(_, package)| *package).collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let mut install = Command::new("apt-get");
    install.args(["install", "-qq", "-y", "--no-install-recommends"]).args(&missing);
    shown(Command::new("apt-get").args(["update", "-qq"]))
        .and_then(|()| shown(install.env("DEBIAN_FRONTEND", "noninteractive")))
        .with_context(|| format!("as root: apt-get install --no-install-recommends {}", missing.join(" ")))
}

/// Whether `directory` was filled from the files of this text.
fn is_from(directory: &Path, lock: &str) -> bool {
    fs::read_to_string(directory.join("locked")).is_ok_and(|found| found == lock)
}

/// An empty directory; the earlier one goes.
fn emptied(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    Ok(fs::create_dir_all(directory)?)
}

fn install_node(stack: &Path, to: &Path) -> Result<()> {
    let lock = fs::read_to_string(stack.join("package-lock.json"))?;
    if is_from(to, &lock) {
        return Ok(());
    }
    emptied(to)?;
    for name in ["package.json", "package-lock.json"] {
        fs::copy(stack.join(name), to.join(name))?;
    }
    shown(Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(to))?;
    Ok(fs::write(to.join("locked"), lock)?)
}

fn install_python(requirements: &Path, to: &Path) -> Result<()> {
    let lock = fs::read_to_string(requirements)?;
    if is_from(to, &lock) {
        return Ok(());
    }
    emptied(to)?;
    shown(Command::new("python3").args(["-m", "venv"]).arg(to))?;
    let mut pip = Command::new(to.join("bin/pip"));
    shown(pip.args(["install", "-q", "--no-deps", "--require-hashes", "-r"]).arg(requirements))?;
    Ok(fs::write(to.join("locked"), lock)?)
}

/// Debian's library of netty-tcnative has another name than Netty looks for, and looks at its own name when it is
/// loaded: a link does not do.
fn install_tcnative(to: &Path) -> Result<()> {
    let found = fs::read_dir("/usr/lib")?.filter_map(|entry| Some(entry.ok()?.path().join("jni/libnetty-tcnative.so")));
    let library: PathBuf = found.into_iter().find(|path| path.is_file()).context("no libnetty-tcnative.so")?;
    fs::create_dir_all(to)?;
    fs::copy(library, to.join("libnetty_tcnative.so"))?;
    Ok(())
}

/// Whether all tests passed, and the rows that they wrote.
fn test(root: &Path) -> Result<(bool, Vec<Row>)> {
    let mut args = vec!["test", "--locked", "-p", "countersign-cli", "--no-fail-fast"];
    for test in TESTS {
        args.extend(["--test", test]);
    }
    args.extend(["--", "--ignored", "--nocapture", "--test-threads", "2"]);
    let mut child = cargo::command(root, &args).stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let mut rows = Vec::new();
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let line = line?;
        match line.strip_prefix("interop\t").map(|row| row.split('\t').map(str::to_owned).collect::<Vec<_>>()) {
            Some(row) => rows.push(Row::try_from(row).map_err(|row| anyhow::anyhow!("no row: {row:?}"))?),
            None => println!("{line}"),
        }
    }
    Ok((child.wait()?.success(), rows))
}

fn show(rows: &[Row]) {
    let titles: Row = ["client", "version", "tried", "verdict"].map(str::to_owned);
    println!();
    for row in [&titles].into_iter().chain(rows) {
        let [client, version, tried, verdict] = row;
        let width = |of: fn(&Row) -> &str| rows.iter().map(|row| of(row).len()).max().unwrap_or(0);
        let (first, second, third) = (width(|r| &r[0]), width(|r| &r[1]), width(|r| &r[2]));
        println!("{client:first$}  {version:second$}  {tried:third$}  {verdict}");
    }
}
