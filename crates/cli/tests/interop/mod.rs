//! Stock clients that the gate does not run, since they are slow to install: how one is started, led through its
//! trials, and reported. A program that is missing is a failure.

#![allow(dead_code, unreachable_pub)] // each test file uses its own part

pub mod app;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::support_cluster::{Node, PATIENCE, World};

/// Where `cargo xtask interop` puts what the package managers of languages install.
pub const INSTALLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/interop");

/// A program of `tests/stacks`.
pub fn beside(name: &str) -> String {
    format!("{}/tests/stacks/{name}", env!("CARGO_MANIFEST_DIR"))
}

pub fn installed(name: &str) -> String {
    format!("{INSTALLED}/{name}")
}

/// What a program printed. One that fails is a failure.
pub fn printed(command: &mut Command) -> String {
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; cargo xtask interop installs it"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A client's certificate, its key and the authority, in the files that the cluster wrote.
pub struct Files {
    pub certificate: String,
    pub key: String,
    pub authorities: String,
    pub key_id: String,
}

impl Files {
    pub fn issue(world: &World, node: &Node, name: &str) -> Self {
        let out = world.path("issued");
        let made = node.ask(&["cert", "issue", "--client", name, "--out", out.to_str().unwrap()]).ok().json();
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        Self {
            certificate: path(out.join(format!("{name}.pem"))),
            key: path(out.join(format!("{name}.key"))),
            authorities: path(out.join("ca.pem")),
            key_id: made["key"].as_str().unwrap().to_owned(),
        }
    }
}

pub fn endpoint(node: &Node, which: &str) -> String {
    let endpoints = std::fs::read(node.data.join("endpoints.json")).unwrap();
    let endpoints: serde_json::Value = serde_json::from_slice(&endpoints).unwrap();
    endpoints[which].as_str().unwrap_or_else(|| panic!("no {which} in {endpoints}")).to_owned()
}

/// A stock client: a program that takes what to try (`calls`, `watch`, `restart`), the target, certificate, key and
/// authorities, then `last`, and prints a line for each thing that it tried.
pub struct Client {
    pub program: Vec<String>,
    pub last: &'static [&'static str],
    pub environment: Vec<(&'static str, String)>,
}

impl Client {
    pub fn new(program: &[&str], last: &'static [&'static str]) -> Self {
        let program = program.iter().map(|&word| word.to_owned()).collect();
        Self { program, last, environment: vec![("INTEROP_NODE", installed("node"))] }
    }

    fn command(&self, what: &str, target: &str, files: &Files) -> Command {
        // A program that hangs is ended, and fails.
        let mut command = Command::new("timeout");
        command.arg(PATIENCE.as_secs().to_string()).args(&self.program).args([
            what,
            target,
            &files.certificate,
            &files.key,
            &files.authorities,
        ]);
        command.args(self.last).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to its end.
    pub fn tries(&self, target: &str, files: &Files) -> Lines {
        Lines(printed(&mut self.command("calls", target, files)))
    }

    /// Starts it and returns when it has said `word`.
    pub fn begins(&self, what: &str, word: &str, target: &str, files: &Files) -> Running {
        let mut command = self.command(what, target, files);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}; cargo xtask interop installs it"));
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut running = Running { input: child.stdin.take(), child, output, said: String::new() };
        while !running.said.lines().any(|line| line.split(' ').next() == Some(word)) {
            let read = running.output.read_line(&mut running.said).unwrap();
            assert!(read > 0, "{command:?} said no `{word}`: {}", running.said);
        }
        running
    }
}

/// A client that stays.
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    said: String,
}

impl Running {
    /// Has it go on, and waits for its end.
    pub fn goes_on(mut self) -> Lines {
        // A client that ended says why in what it wrote.
        let _ = writeln!(self.input.take().unwrap());
        self.ends()
    }

    /// Waits for its end.
    pub fn ends(mut self) -> Lines {
        self.output.read_to_string(&mut self.said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{}", self.said);
        Lines(self.said.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        ended(&mut self.child);
    }
}

/// Ends a program under `timeout`, which hands the signal on and ends with it.
pub fn ended(child: &mut Child) {
    // One that has been waited for has no process any more.
    if let Ok(None) = child.try_wait() {
        let id = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = child.wait();
    }
}

/// What a client said.
#[derive(Debug)]
pub struct Lines(pub String);

impl Lines {
    /// What follows this word in the last line that begins with it.
    pub fn of(&self, word: &str) -> &str {
        let found = self.0.lines().rev().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no `{word}` in\n{}", self.0))
    }

    /// The line of this word must say one of `any`.
    #[track_caller]
    pub fn says(&self, word: &str, any: &[&str]) {
        let said = self.of(word).to_lowercase().replace('_', "");
        let holds = |expected: &&str| said.contains(&expected.to_lowercase().replace('_', ""));
        assert!(any.iter().any(holds), "`{word}` does not say {any:?}:\n{}", self.0);
    }
}

/// A row of the table that `cargo xtask interop` shows. Dropped in a panic it says that the last trial failed.
pub struct Report {
    client: &'static str,
    version: String,
    tried: Vec<&'static str>,
}

impl Report {
    pub fn new(client: &'static str) -> Self {
        Self { client, version: "?".to_owned(), tried: Vec::new() }
    }

    pub fn version(&mut self, version: &str) {
        version.trim().clone_into(&mut self.version);
    }

    pub fn tries(&mut self, what: &'static str) {
        self.tried.push(what);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let mut row = format!("interop\t{}\t{}\t{}\t", self.client, self.version, self.tried.join(", "));
        match self.tried.last() {
            Some(last) if std::thread::panicking() => write!(row, "FAILED at {last}").unwrap(),
            None => row.push_str("FAILED at the start"),
            Some(_) => row.push_str("ok"),
        }
        println!("\n{row}");
    }
}

/// A member at the ports that it had.
pub fn restarted(node: &mut Node) {
    let (cluster, client) = (node.address(), endpoint(node, "client"));
    assert!(node.stop().success(), "{}", node.log());
    node.start(&["--cluster-addr", &cluster, "--client-addr", &client]);
    node.until_ready();
}

pub fn allow(node: &Node, client: &str, resource: &str) {
    let rule = ["--principal", client, "--action", "read", "--resource", resource];
    node.ask(&[&["acl", "add"], &rule[..], &["--wait"]].concat()).ok();
}
