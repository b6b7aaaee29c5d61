//! Commands committed by three members, everything fsynced, with many clients at once.
//!
//! The command is the cheapest that changes the trust state: a join token is made, then revoked; each is one entry's
//! part, decided in the state machine. etcd puts 256 bytes. Beside the whole way through the admin socket stands the
//! way of a proposal alone, so that one can see where the time goes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use countersign_api::admin::TokenCreated;
use countersign_core::trust::member::Suffrage;
use countersign_raft::Group;
use tokio::task::JoinSet;

use crate::admin::AdminClient;
use crate::etcd::{self, Etcd, EtcdClient};
use crate::replicas;
use crate::report::{Line, Report, Target};
use crate::rounds::{Contender, Sampling, interleave};
use crate::servers::{self, token};

const CLIENTS: usize = 64;
/// etcd's clients share connections, as its own benchmark has them do.
const CONNECTIONS: usize = 8;
const ROUNDS: usize = 7;
const SAMPLE: Duration = Duration::from_secs(3);
const VALUE_LEN: usize = 256;

/// A clock and a counter that the clients of one sample share.
#[derive(Clone)]
struct Sample {
    begun: Instant,
    done: Arc<AtomicU64>,
}

impl Sample {
    fn begin() -> Self {
        Self { begun: Instant::now(), done: Arc::default() }
    }

    fn goes_on(&self) -> bool {
        self.begun.elapsed() < SAMPLE
    }

    fn count(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for every client; their rate.
    async fn end(self, mut clients: JoinSet<Result<()>>) -> Result<f64> {
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        let done = u32::try_from(self.done.load(Ordering::Relaxed))?;
        Ok(f64::from(done) / self.begun.elapsed().as_secs_f64())
    }
}

struct Processes(PathBuf);

impl Contender for Processes {
    fn sample(&mut self) -> Sampling<'_> {
        Box::pin(async move {
            let mut connected = Vec::new();
            for _ in 0..CLIENTS {
                connected.push(AdminClient::connect(&self.0).await?);
            }
            let (sample, mut clients) = (Sample::begin(), JoinSet::new());
            for mut client in connected {
                let sample = sample.clone();
                clients.spawn(async move {
                    while sample.goes_on() {
                        let made: TokenCreated = client.post("/v1/tokens", &token(Suffrage::Learner, 1)).await?;
                        sample.count();
                        client.delete(&format!("/v1/tokens/{}", made.id)).await?;
                        sample.count();
                    }
                    Ok(())
                });
            }
            sample.end(clients).await
        })
    }
}

/// The same socket, asked only for what costs it least: each client revokes one token, again and again.
struct Revocations(PathBuf);

impl Contender for Revocations {
    fn sample(&mut self) -> Sampling<'_> {
        Box::pin(async move {
            let mut connected = Vec::new();
            for _ in 0..CLIENTS {
                let mut client = AdminClient::connect(&self.0).await?;
                let made: TokenCreated = client.post("/v1/tokens", &token(Suffrage::Learner, 1)).await?;
                connected.push((client, format!("/v1/tokens/{}", made.id)));
            }
            let (sample, mut clients) = (Sample::begin(), JoinSet::new());
            for (mut client, path) in connected {
                let sample = sample.clone();
                clients.spawn(async move {
                    while sample.goes_on() {
                        client.delete(&path).await?;
                        sample.count();
                    }
                    Ok(())
                });
            }
            sample.end(clients).await
        })
    }
}

struct Puts(Vec<EtcdClient>);

impl Contender for Puts {
    fn sample(&mut self) -> Sampling<'_> {
        Box::pin(async move {
            let (sample, mut clients) = (Sample::begin(), JoinSet::new());
            for (number, client) in self.0.iter().cycle().take(CLIENTS).cloned().enumerate() {
                let sample = sample.clone();
                clients.spawn(async move {
                    let value = Bytes::from(vec![0x5a; VALUE_LEN]);
                    for round in 0_u64.. {
                        if !sample.goes_on() {
                            break;
                        }
                        client.put(format!("key-{number}-{}", round % 64).into_bytes(), value.clone()).await?;
                        sample.count();
                    }
                    Ok(())
                });
            }
            sample.end(clients).await
        })
    }
}

struct Proposals(Group);

impl Contender for Proposals {
    fn sample(&mut self) -> Sampling<'_> {
        Box::pin(async move {
            let (sample, mut clients) = (Sample::begin(), JoinSet::new());
            for number in 0..CLIENTS {
                let (sample, group) = (sample.clone(), self.0.clone());
                clients.spawn(async move {
                    for round in 0_u64.. {
                        if !sample.goes_on() {
                            break;
                        }
                        let mut command = format!("key-{number}-{}", round % 64).into_bytes();
                        command.resize(VALUE_LEN, 0x5a);
                        group.propose(command).await?;
                        sample.count();
                    }
                    Ok(())
                });
            }
            sample.end(clients).await
        })
    }
}

pub(crate) fn run(binary: &Path) -> Result<Report> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(measure(binary))
}

async fn measure(binary: &Path) -> Result<Report> {
    let servers = servers::three(binary).await?;
    let socket = servers.first().context("no server")?.socket();
    let replicas = replicas::three().await?;
    let (mut ours, mut revocations) = (Processes(socket.clone()), Revocations(socket));
    let mut proposals = Proposals(replicas.leader());
    let mut report = Report::default();
    let version = etcd::version();
    let medians = match &version {
        Some(_) => {
            let etcd = Etcd::start()?;
            let mut puts = Puts(etcd.leader(CONNECTIONS).await?);
            interleave(&mut [&mut ours, &mut revocations, &mut proposals, &mut puts], ROUNDS).await?
        }
        None => {
            report.notes.push("etcd is not installed here, so nothing was compared with it.".to_owned());
            interleave(&mut [&mut ours, &mut revocations, &mut proposals], ROUNDS).await?
        }
    };
    let [ours, revocations, proposals, theirs @ ..] = medians.as_slice() else { return Ok(report) };
    let theirs = theirs.first().copied();
    let (unit, peer) = ("commands/s", "etcd, 3 processes, no TLS");
    for (work, ours, target) in [
        ("join tokens made and revoked, 3 processes, through the admin socket", ours, Target::Ratio(3.0)),
        ("join tokens revoked again, which changes nothing: the same way, less work", revocations, Target::None),
        ("256-byte proposals without HTTP, 3 replicas in one process over mutual TLS", proposals, Target::None),
    ] {
        report.lines.push(Line { work, unit, peer, theirs, ours: *ours, target });
    }
    if let Some(version) = version {
        report.notes.push(format!(
            "Commits: {CLIENTS} clients on each side. Making a token and revoking it are one trust command each, over \
             HTTP with connections kept open; the peer is etcd {version}, {VALUE_LEN}-byte puts over gRPC on \
             {CONNECTIONS} connections to its leader. The first line against the last shows what HTTP, JSON, drawing a \
             token's key and more processes on the same cores cost."
        ));
    }
    Ok(report)
}
