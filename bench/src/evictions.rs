//! From `evict`, and from the revocation of a client, to the last connection closed on every live member, with callers
//! at work meanwhile.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use countersign_api::admin::{CertificateRevoked, Enforcement, NodeChanged, NodeRemove};
use countersign_core::name::Address;
use countersign_core::trust::member::Suffrage;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use crate::admin::AdminClient;
use crate::caller::Caller;
use crate::load::Load;
use crate::report::{Line, Report, Target};
use crate::servers::{self, Server};

const ROUNDS: usize = 100;
const CALLERS: usize = 24;

pub(crate) fn run(binary: &Path) -> Result<Report> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(measure(binary))
}

async fn measure(binary: &Path) -> Result<Report> {
    let servers = servers::three(binary).await?;
    let leader = servers.first().context("no server")?;
    let addresses: Vec<Address> = servers.iter().map(Server::client_address).collect::<Result<_>>()?;
    let load = Load::begin(&[Caller::issue(&leader.socket(), "load").await?], &addresses, CALLERS);
    let (mut evicted, mut answered, mut revoked) = (vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        let (last, answer) = evict(binary, leader, round).await?;
        evicted.push(last);
        answered.push(answer);
        revoked.push(revoke(leader, &addresses, round).await?);
        eprint!(".");
    }
    eprintln!();
    let seen = load.end().await?;
    let mut report = Report::default();
    for (work, samples, targets) in [
        ("node evicted: last connection closed on every member", evicted, [Target::None, Target::AtMost(100.0)]),
        ("the same, until `evict` answers with every receipt", answered, [Target::None, Target::None]),
        ("client revoked: last connection closed on every member", revoked, [Target::None, Target::AtMost(100.0)]),
    ] {
        let mut samples: Vec<f64> = samples;
        samples.sort_by(f64::total_cmp);
        for ((unit, share), target) in [("ms, p50", 0.5), ("ms, p99", 0.99)].into_iter().zip(targets) {
            let ours = ranked(&samples, share);
            report.lines.push(Line { work, unit, peer: "none", theirs: None, ours, target });
        }
    }
    report.notes.push(format!(
        "Evictions: {ROUNDS} of each, three processes on loopback that {CALLERS} callers keep busy with {:.0} calls/s \
         meanwhile ({} of those calls or connections failed).",
        seen.rate(),
        seen.failures()
    ));
    Ok(report)
}

/// The nearest rank: so large a share of the samples is no larger.
fn ranked(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

fn now_millis() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

fn in_force(enforcement: &Enforcement) -> Result<()> {
    ensure!(enforcement.complete, "not in force everywhere: {enforcement:?}");
    Ok(())
}

/// A learner that is admitted, and evicted as soon as it has converged: milliseconds until its last connection was
/// closed by the receipts' clock, which is this host's, and until the answer.
async fn evict(binary: &Path, leader: &Server, round: usize) -> Result<(f64, f64)> {
    let name = format!("learner-{round}");
    let learner = Server::join(binary, &name, Suffrage::Learner, leader).await?;
    leader.until_member(&name).await?;
    let mut admin = AdminClient::connect(&leader.socket()).await?;
    let (begun, at) = (Instant::now(), now_millis()?);
    let path = format!("/v1/nodes/{name}/evict");
    let changed: NodeChanged = admin.post(&path, &NodeRemove::default()).await?;
    let answered = begun.elapsed();
    drop(learner);
    let enforcement = changed.enforcement.context("an eviction without an account of it")?;
    in_force(&enforcement)?;
    let closed = enforcement.members.iter().filter_map(|member| member.receipt.as_ref());
    let last = closed.map(|receipt| receipt.at_millis).max().context("no receipt")?;
    Ok((last.saturating_sub(at) as f64, answered.as_secs_f64() * 1000.0))
}

/// A client with a connection to each member: milliseconds until the last of them is closed.
async fn revoke(leader: &Server, addresses: &[Address], round: usize) -> Result<f64> {
    let name = format!("pay-{round}");
    let caller = Caller::issue(&leader.socket(), &name).await?;
    let mut open = JoinSet::new();
    for address in addresses {
        let mut stream = connected(&caller, address).await?;
        open.spawn(async move {
            let mut rest = Vec::new();
            // However it ends, it is over.
            let _ = stream.read_to_end(&mut rest).await;
            Instant::now()
        });
    }
    let mut admin = AdminClient::connect(&leader.socket()).await?;
    let begun = Instant::now();
    let revoked: CertificateRevoked = admin.delete_to(&format!("/v1/principals/client/{name}")).await?;
    in_force(&revoked.enforcement)?;
    let mut last = Duration::ZERO;
    while let Some(closed) = open.join_next().await {
        last = last.max(closed?.duration_since(begun));
    }
    Ok(last.as_secs_f64() * 1000.0)
}

/// A member may not have applied yet that the certificate was issued. It says so in its answer to a call.
async fn connected(caller: &Caller, address: &Address) -> Result<countersign_net::ServerStream> {
    let mut last = None;
    for _ in 0..50 {
        let asked = match caller.connect(address).await {
            Ok(mut connection) => connection.ask().await,
            Err(failed) => Err(failed),
        };
        match asked {
            Ok(()) => return Ok(caller.dial(address).await?),
            Err(failed) => last = Some(failed.kind),
        }
        // why: nothing tells a client when a member has caught up
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(anyhow!(last.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_is_a_sample_and_of_none_it_is_no_number() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| ranked(&samples, share)), [50.0, 99.0, 100.0]);
        assert_eq!(ranked(&[7.0], 0.5).to_bits(), 7.0_f64.to_bits());
        assert!(ranked(&[], 0.5).is_nan());
    }
}
