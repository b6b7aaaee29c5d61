//! Runs the real binary in an empty home, with nothing of this machine's environment.
#![allow(dead_code)] // each test file uses its own part

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

/// What a command left behind.
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {} {}", self.stdout, self.stderr))
    }

    /// The command did what was asked.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// The command failed with this code, one `error:` line that holds `reason` and one `try:` line.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, reason: &str) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        let lines: Vec<&str> = self.stderr.lines().filter(|line| !line.starts_with('{')).collect();
        let [error, next] = lines.as_slice() else { panic!("not an error and a try: {}", self.stderr) };
        assert!(error.starts_with("error: ") && error.contains(reason), "{error}");
        assert!(next.starts_with("try: ") && next.len() > "try: x".len(), "{next}");
        self
    }
}

/// A home of its own.
pub(crate) struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The binary, with this home as its working directory too.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args(args).env_clear().env("HOME", self.path()).env("PATH", std::env::var_os("PATH").unwrap());
        command.current_dir(self.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        done(self.command(args))
    }

    pub(crate) fn run_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Done {
        let mut command = self.command(args);
        command.envs(variables.iter().copied());
        done(command)
    }

    pub(crate) fn run_on(&self, args: &[&str], input: &[u8]) -> Done {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // A command that fails early closes the pipe; that is for its exit code to tell.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let done = finished(child);
        writer.join().unwrap();
        done
    }

    /// Starts a server and waits until it says that it is up; the answer is what it said.
    pub(crate) fn server(&self, args: &[&str]) -> Server {
        self.server_with(args, &[])
    }

    pub(crate) fn server_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Server {
        let args = [&["server", "--json", "--cluster-addr", "127.0.0.1:0"], args].concat();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.join("log")).unwrap();
        let mut child = self.command(&args).envs(variables.iter().copied()).stderr(log).spawn().unwrap();
        let watchdog = Watchdog::over(&child);
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| {
            panic!("{error}: {line}\n{}", std::fs::read_to_string(self.join("log")).unwrap());
        });
        drop(watchdog);
        Server { child, ready, _stdout: stdout }
    }
}

fn done(mut command: Command) -> Done {
    finished(command.spawn().unwrap())
}

/// The time that a command may take; one that should have been refused would otherwise run on.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

fn finished(child: Child) -> Done {
    let watchdog = Watchdog::over(&child);
    let output = child.wait_with_output().unwrap();
    drop(watchdog);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Kills a process that takes too long, so that its test fails and does not hang.
struct Watchdog {
    over: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    fn over(child: &Child) -> Self {
        let pid = child.id().to_string();
        let (over, watched) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            if watched.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-KILL", &pid]).status();
            }
        });
        Self { over: Some(over), thread: Some(thread) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.over.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// What it said once it was up.
    pub(crate) ready: Value,
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Server {
    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> Option<i32> {
        let _watchdog = Watchdog::over(&self.child);
        self.child.wait().unwrap().code()
    }

    /// Stops it as an operator does.
    pub(crate) fn stop(self) {
        self.signal("TERM");
        assert_eq!(self.ended(), Some(0));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
