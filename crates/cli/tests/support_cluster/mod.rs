//! The real binary as server processes on ephemeral loopback ports, and its own commands to ask them.

#![allow(dead_code, unreachable_pub)]

pub mod client;
pub mod http;
pub mod losses;
pub mod partition;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use partition::Wires;
use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything takes on a loaded machine; only a failure waits so long.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The setting of a cluster whose leases last two seconds.
pub const SHORT_LEASE: [(&str, &str); 1] = [("COUNTERSIGN_TRUST_LEASE_SECS", "2")];

pub const BINARY: &str = env!("CARGO_BIN_EXE_countersign");

/// A directory for everything, removed in the end.
pub struct World {
    pub dir: TempDir,
}

/// One node: its data directory, and its process while it runs.
pub struct Node {
    pub name: String,
    pub data: PathBuf,
    /// The network namespace that it runs in, if not this process's.
    pub namespace: Option<String>,
    log: PathBuf,
    child: Option<Child>,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

/// Runs the binary to its end.
pub fn run(arguments: &[&str]) -> Said {
    run_with(arguments, &[])
}

/// Runs the binary to its end with additional environment variables.
pub fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Said {
    let output = Command::new(BINARY)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl World {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn node(&self, name: &str) -> Node {
        Node {
            name: name.to_owned(),
            data: self.path(name),
            namespace: None,
            log: self.path(&format!("{name}.log")),
            child: None,
        }
    }

    /// A founded cluster of one.
    pub fn founder(&self) -> Node {
        let mut node = self.node("n1");
        node.start(&["--bootstrap", "--cluster-name", "test"]);
        node.until_ready();
        node
    }

    /// `n` voters, each of which holds the CA key.
    pub fn voters(&self, n: usize) -> Vec<Node> {
        let mut nodes = vec![self.founder()];
        for i in 2..=n {
            let token = nodes[0].token(&["--role", "voter"]);
            let mut node = self.node(&format!("n{i}"));
            self.join(&mut node, &token, &nodes[0].address());
            nodes.push(node);
            for node in &nodes {
                node.until_settled(i);
            }
        }
        nodes
    }

    /// `n` voters whose leases last two seconds; with wires, each in its namespace, reached by peers and aside.
    pub fn voters_leased(&self, n: u8, wires: Option<&Wires>) -> Vec<Node> {
        let mut nodes: Vec<Node> = Vec::new();
        for i in 1..=n {
            let mut node = self.node(&format!("n{i}"));
            let mut flags: Vec<String> = match nodes.first() {
                None => vec!["--bootstrap".into(), "--cluster-name".into(), "test".into()],
                Some(first) => {
                    // Its peers do not reach it aside: no voter finds it there, so its token says that it is.
                    let aside = wires.map(|wires| vec!["--host".to_owned(), wires.aside(i)]).unwrap_or_default();
                    let aside: Vec<&str> = aside.iter().map(String::as_str).collect();
                    let token = first.token(&[["--role", "voter"].as_slice(), &aside].concat());
                    let sponsor = first.status()["members"][0]["addresses"][0].as_str().unwrap().to_owned();
                    vec!["--join-token".into(), self.token_file(&node.name, &token), "--join-addr".into(), sponsor]
                }
            };
            if let Some(wires) = wires {
                node.namespace = Some(wires.namespace(i));
                flags.extend(["--cluster-addr".into(), "0.0.0.0:7001".into()]);
                for address in [wires.address(i), wires.aside(i)] {
                    flags.extend(["--advertise-addr".into(), format!("{address}:7001")]);
                }
            }
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            node.start_with(&flags, &SHORT_LEASE);
            node.until_ready();
            nodes.push(node);
            for node in &nodes {
                node.until_settled(nodes.len());
            }
        }
        nodes
    }

    /// Joins and waits until the node is ready.
    pub fn join(&self, node: &mut Node, token: &str, sponsor: &str) {
        let flag = self.token_file(&node.name, token);
        node.start(&["--join-token", &flag, "--join-addr", sponsor]);
        node.until_ready();
    }

    /// A join that is expected to end by itself: what it said.
    pub fn join_to_end(&self, name: &str, token: &str, sponsor: &str) -> Said {
        let (data, flag) = (self.path(name), self.token_file(name, token));
        run(&[
            "server",
            "--data",
            data.to_str().unwrap(),
            "--name",
            name,
            "--cluster-addr",
            "127.0.0.1:0",
            "--join-token",
            &flag,
            "--join-addr",
            sponsor,
        ])
    }

    /// A token is given by file, never in the arguments.
    pub fn token_file(&self, name: &str, token: &str) -> String {
        let file = self.path(&format!("{name}.token"));
        std::fs::write(&file, token).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        format!("@{}", file.display())
    }
}

impl Node {
    /// Starts the server process.
    pub fn start(&mut self, flags: &[&str]) {
        self.start_with(flags, &[]);
    }

    pub fn start_with(&mut self, flags: &[&str], environment: &[(&str, &str)]) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = match &self.namespace {
            None => Command::new(BINARY),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, BINARY]);
                command
            }
        };
        command.arg("server").arg("--data").arg(&self.data).args(["--name", &self.name]);
        if !flags.contains(&"--cluster-addr") {
            command.args(["--cluster-addr", "127.0.0.1:0"]);
        }
        let child = command
            .args(flags)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("the binary runs");
        self.child = Some(child);
    }

    /// Ends the process without a word to it (SIGKILL).
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks the process to end (SIGTERM) and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        let mut child = self.child.take().expect("runs");
        let begun = Instant::now();
        loop {
            if let Some(ended) = child.try_wait().unwrap() {
                return ended;
            }
            assert!(begun.elapsed() < PATIENCE, "{} does not stop:\n{}", self.name, self.log());
            pause();
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("runs").id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Stops the process where it is (SIGSTOP), and returns when every thread of it stands still: the signal stops one,
    /// which stops the others, and until then they go on.
    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
        let tasks = format!("/proc/{}/task", self.pid());
        let stopped = |task: &Path| {
            let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        };
        let begun = Instant::now();
        while !std::fs::read_dir(&tasks).unwrap().all(|task| stopped(&task.unwrap().path())) {
            assert!(begun.elapsed() < PATIENCE, "{} does not stand still", self.name);
            pause();
        }
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().unwrap())
    }

    /// Waits until the process has ended by itself; what it said.
    pub fn until_ended(&mut self) -> String {
        let begun = Instant::now();
        while self.ended().is_none() {
            assert!(begun.elapsed() < PATIENCE, "{} does not end:\n{}", self.name, self.log());
            pause();
        }
        self.child = None;
        self.log()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs a command against this node's socket.
    pub fn ask(&self, command: &[&str]) -> Said {
        let data = self.data.to_str().unwrap();
        run(&[command, &["--data", data, "--json"]].concat())
    }

    pub fn status(&self) -> Value {
        self.ask(&["status"]).ok().json()
    }

    /// A join token, one voter within half an hour unless flags say otherwise.
    pub fn token(&self, flags: &[&str]) -> String {
        let created = self.ask(&[&["token", "create"], flags].concat()).ok().json();
        created["token"].as_str().unwrap().to_owned()
    }

    /// Its cluster port.
    pub fn address(&self) -> String {
        self.port("cluster")
    }

    /// Its client port.
    pub fn client_address(&self) -> String {
        self.port("client")
    }

    fn port(&self, port: &str) -> String {
        let endpoints = std::fs::read(self.data.join("endpoints.json")).unwrap();
        let endpoints: Value = serde_json::from_slice(&endpoints).unwrap();
        endpoints[port].as_str().unwrap().to_owned()
    }

    pub fn until(&self, reached: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let said = self.ask(&["status"]);
            if said.code == 0 && reached(&said.json()) {
                return said.json();
            }
            assert!(begun.elapsed() < PATIENCE, "{}: {said:?}\n{}", self.name, self.log());
            pause();
        }
    }

    pub fn until_ready(&self) -> Value {
        self.until(|status| status["ready"] == true)
    }

    /// Until the node sees `members` members, all converged, each voter holding the CA key.
    pub fn until_settled(&self, members: usize) -> Value {
        self.until(|status| {
            let list = status["members"].as_array().unwrap();
            let converged =
                |m: &Value| m["converged"] == true && (m["role"] == "learner" || m["holds_authority"] == true);
            status["ready"] == true && list.len() == members && list.iter().all(converged)
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn pause() {
    // why: another process does not tell when it is ready
    std::thread::sleep(Duration::from_millis(50));
}

/// The chain that a node shows: a renewed one stands beside its key.
pub fn chain_pem(data: &Path) -> String {
    let renewed = std::fs::read_to_string(data.join("keys/renewed-leaf.pem"));
    let pem = renewed.or_else(|_| std::fs::read_to_string(data.join("leaf.pem"))).unwrap();
    pem[pem.find("-----BEGIN CERTIFICATE-----").unwrap()..].to_owned()
}

/// The authority's certificate: the last of a node's chain.
pub fn authority_pem(data: &Path) -> String {
    let chain = chain_pem(data);
    chain[chain.rfind("-----BEGIN CERTIFICATE-----").unwrap()..].to_owned()
}
