//! Server processes of this very binary, each with its directory, its log, and its end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// Longer than anything takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Cluster {
    root: PathBuf,
    /// Removed in the end, unless it is to be kept.
    temporary: bool,
    running: Vec<(String, Child)>,
}

/// What a command of the binary answered.
pub(super) struct Answer {
    pub(super) code: i32,
    pub(super) json: Value,
    pub(super) stderr: String,
}

impl Cluster {
    pub(super) fn new(keep: Option<&Path>) -> anyhow::Result<Self> {
        let root = match keep {
            Some(dir) => dir.to_owned(),
            None => {
                let mut random = [0; 8];
                getrandom::fill(&mut random).context("no randomness")?;
                std::env::temp_dir().join(format!("countersign-demo-{}", data_encoding::HEXLOWER.encode(&random)))
            }
        };
        std::fs::create_dir_all(&root).with_context(|| format!("cannot create `{}`", root.display()))?;
        let empty = std::fs::read_dir(&root)?.next().is_none();
        ensure!(empty, "directory `{}` is not empty", root.display());
        Ok(Self { root, temporary: keep.is_none(), running: Vec::new() })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn data(&self, node: &str) -> PathBuf {
        self.root.join(node)
    }

    /// Starts `countersign server` for a node and waits until it answers on its admin socket, or has ended.
    pub(super) async fn start(&mut self, node: &str, flags: &[&str]) -> anyhow::Result<()> {
        self.start_with(node, flags, &[]).await
    }

    /// With settings, as environment variables.
    pub(super) async fn start_with(
        &mut self,
        node: &str,
        flags: &[&str],
        settings: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.root.join(format!("{node}.log")))?;
        let child = Command::new(std::env::current_exe()?)
            .arg("server")
            .arg("--data")
            .arg(self.data(node))
            .args(["--name", node, "--cluster-addr", "127.0.0.1:0"])
            .args(flags)
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start a server")?;
        self.running.push((node.to_owned(), child));
        let begun = Instant::now();
        loop {
            if self.has_ended(node)? {
                let log = std::fs::read_to_string(self.root.join(format!("{node}.log"))).unwrap_or_default();
                let why = log.lines().rev().find_map(|line| line.strip_prefix("error: "));
                bail!("{}", why.unwrap_or("it ended without a word"));
            }
            if self.ask(node, &["status"]).await.is_ok_and(|answer| answer.code == 0) {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "server {node} does not answer");
            pause().await;
        }
    }

    /// Whether the process has ended by itself; it is forgotten then.
    fn has_ended(&mut self, node: &str) -> anyhow::Result<bool> {
        let Some((_, child)) = self.running.iter_mut().find(|(name, _)| name == node) else { return Ok(true) };
        let ended = child.try_wait()?.is_some();
        if ended {
            self.running.retain(|(name, _)| name != node);
        }
        Ok(ended)
    }

    /// Runs `countersign … --json` against a node.
    pub(super) async fn ask(&self, node: &str, command: &[&str]) -> anyhow::Result<Answer> {
        let output = tokio::process::Command::new(std::env::current_exe()?)
            .args(command)
            .arg("--data")
            .arg(self.data(node))
            .arg("--json")
            .stdin(Stdio::null())
            .output()
            .await?;
        Ok(Answer {
            code: output.status.code().unwrap_or(-1),
            json: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// As [`Cluster::ask`], for a command that must succeed.
    pub(super) async fn must(&self, node: &str, command: &[&str]) -> anyhow::Result<Value> {
        let answer = self.ask(node, command).await?;
        ensure!(answer.code == 0, "`countersign {}` failed: {}", command.join(" "), answer.stderr);
        Ok(answer.json)
    }

    /// The cluster port of a node.
    pub(super) fn address(&self, node: &str) -> anyhow::Result<String> {
        self.port(node, "cluster")
    }

    /// The client port of a node.
    pub(super) fn client_address(&self, node: &str) -> anyhow::Result<String> {
        self.port(node, "client")
    }

    fn port(&self, node: &str, port: &str) -> anyhow::Result<String> {
        let endpoints = std::fs::read(self.data(node).join("endpoints.json"))?;
        let endpoints: Value = serde_json::from_slice(&endpoints)?;
        let address = endpoints.get(port).and_then(Value::as_str).context("no address in endpoints.json")?;
        Ok(address.to_owned())
    }

    /// Waits until a node's status is as wanted.
    pub(super) async fn until(&self, node: &str, reached: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let begun = Instant::now();
        loop {
            let status = self.ask(node, &["status"]).await?.json;
            if reached(&status) {
                return Ok(status);
            }
            ensure!(begun.elapsed() < PATIENCE, "{node} is not as expected: {status}");
            pause().await;
        }
    }

    /// Stops a process where it is (SIGSTOP), and returns when every thread of it stands still: the signal stops one,
    /// which stops the others, and until then they go on.
    pub(super) async fn pause(&self, node: &str) -> anyhow::Result<()> {
        self.signal(node, rustix::process::Signal::STOP)?;
        let (_, child) = self.running.iter().find(|(name, _)| name == node).context("not running")?;
        let tasks = format!("/proc/{}/task", child.id());
        let begun = Instant::now();
        while !all_stopped(Path::new(&tasks))? {
            ensure!(begun.elapsed() < PATIENCE, "{node} does not stand still");
            pause().await;
        }
        Ok(())
    }

    /// Lets it go on (SIGCONT).
    pub(super) fn resume(&self, node: &str) -> anyhow::Result<()> {
        self.signal(node, rustix::process::Signal::CONT)
    }

    fn signal(&self, node: &str, signal: rustix::process::Signal) -> anyhow::Result<()> {
        let (_, child) = self.running.iter().find(|(name, _)| name == node).context("not running")?;
        let id = i32::try_from(child.id())?;
        let pid = rustix::process::Pid::from_raw(id).context("no process")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Ends a process without a word to it (SIGKILL).
    pub(super) fn kill(&mut self, node: &str) -> anyhow::Result<()> {
        let at = self.running.iter().position(|(name, _)| name == node).context("not running")?;
        let (_, mut child) = self.running.swap_remove(at);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Ends every process.
    pub(super) fn stop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
        }
        for (_, mut child) in self.running.drain(..) {
            let _ = child.wait();
        }
    }

    /// The end of every log, for a reader that wants to know why.
    pub(super) fn show_logs(&self) {
        for entry in std::fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|e| e == "log") {
                let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- {}", entry.file_name().to_string_lossy());
                for line in lines.iter().skip(lines.len().saturating_sub(20)) {
                    eprintln!("{line}");
                }
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }
}

fn all_stopped(tasks: &Path) -> anyhow::Result<bool> {
    for task in std::fs::read_dir(tasks)? {
        let stat = std::fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
        // The state follows the name, which is in parentheses (proc_pid_stat(5)).
        if !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')) {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn pause() {
    // why: another process does not tell when it is ready
    tokio::time::sleep(Duration::from_millis(50)).await;
}
