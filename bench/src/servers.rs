//! `countersign server` as real processes on loopback, each with a data directory that ends with it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use countersign_api::admin::{MemberStatus, Status, TokenCreate, TokenCreated};
use countersign_core::name::Address;
use countersign_core::trust::member::Suffrage;
use tempfile::TempDir;

use crate::admin::AdminClient;

/// Longer than anything takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Builds the binary of this repository as it is packaged.
pub(crate) fn build(root: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = ["build", "--profile", "dist", "--package", "countersign-cli"];
    let status = Command::new(cargo).args(build).current_dir(root).status().context("cannot start cargo")?;
    ensure!(status.success(), "cannot build the binary");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("dist/countersign"))
}

/// One server process; it is killed when this is dropped.
pub(crate) struct Server {
    data: TempDir,
    log: PathBuf,
    child: Child,
}

impl Server {
    /// A cluster of one.
    pub(crate) async fn found(binary: &Path) -> Result<Self> {
        Self::start(binary, "n1", &["--bootstrap".to_owned()]).await
    }

    /// A member of `sponsor`'s cluster.
    pub(crate) async fn join(binary: &Path, name: &str, suffrage: Suffrage, sponsor: &Self) -> Result<Self> {
        let created = sponsor.token(suffrage, 1).await?;
        let file = sponsor.data.path().join(format!("{name}.token"));
        let mut written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
        written.write_all(created.token.as_bytes())?;
        let token = format!("@{}", file.display());
        let flags = ["--join-token".to_owned(), token, "--join-addr".to_owned(), created.join_addr];
        Self::start(binary, name, &flags).await
    }

    async fn start(binary: &Path, name: &str, flags: &[String]) -> Result<Self> {
        let data = TempDir::new()?;
        let log = data.path().join("server.log");
        let output = File::create(&log)?;
        let child = Command::new(binary)
            .args(["server", "--name", name, "--cluster-addr", "127.0.0.1:0", "--data"])
            .arg(data.path().join("data"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start `{}`", binary.display()))?;
        let server = Self { data, log, child };
        server.until(|status| status.ready).await?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.data().join("admin.sock")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// Its client port.
    pub(crate) fn client_address(&self) -> Result<Address> {
        let endpoints: serde_json::Value = serde_json::from_slice(&std::fs::read(self.data().join("endpoints.json"))?)?;
        Ok(Address::parse(endpoints.get("client").and_then(|client| client.as_str()).context("no client port")?)?)
    }

    pub(crate) async fn status(&self) -> Result<Status> {
        AdminClient::connect(&self.socket()).await?.get("/v1/status").await
    }

    /// A join token that admits `uses` members.
    pub(crate) async fn token(&self, suffrage: Suffrage, uses: u32) -> Result<TokenCreated> {
        AdminClient::connect(&self.socket()).await?.post("/v1/tokens", &token(suffrage, uses)).await
    }

    /// Until this server sees `members` voters that can all sign.
    pub(crate) async fn until_settled(&self, members: usize) -> Result<()> {
        let converged = |m: &MemberStatus| m.converged && m.holds_authority;
        self.until(|status| status.members.len() == members && status.members.iter().all(converged)).await
    }

    /// Until this server counts the member of this name in.
    pub(crate) async fn until_member(&self, name: &str) -> Result<()> {
        self.until(|status| status.members.iter().any(|m| m.name == name && m.converged)).await
    }

    async fn until(&self, reached: impl Fn(&Status) -> bool) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if self.status().await.is_ok_and(|status| reached(&status)) {
                return Ok(());
            }
            // why: another process does not tell when it is ready
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        bail!("waited in vain for a server; its log:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default())
    }
}

pub(crate) fn token(suffrage: Suffrage, uses: u32) -> TokenCreate {
    TokenCreate { role: suffrage, ttl_secs: 3600, uses, name: None, hosts: vec![], labels: Default::default() }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three voters, each of which can sign; the leader first.
pub(crate) async fn three(binary: &Path) -> Result<Vec<Server>> {
    let mut servers = vec![Server::found(binary).await?];
    for (count, name) in [(2, "n2"), (3, "n3")] {
        let Some(founder) = servers.first() else { bail!("no founder") };
        let joined = Server::join(binary, name, Suffrage::Voter, founder).await?;
        servers.push(joined);
        for server in &servers {
            server.until_settled(count).await?;
        }
    }
    let mut leader = None;
    for (at, server) in servers.iter().enumerate() {
        if server.status().await?.raft.state == "leader" {
            leader = Some(at);
        }
    }
    servers.swap(0, leader.context("no leader")?);
    Ok(servers)
}
