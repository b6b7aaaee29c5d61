//! Members admitted by one leader: pinned TLS, a token's signature checked, a command committed, a certificate signed.
//!
//! The joiners live in this process, with keys of their own, and never start to serve. A leader that admits them goes
//! on to look for them, as it would for nodes that crashed right after. Past the limit on enrollments in flight they
//! are turned away and come again, as a node's own start does. The count then shows that none is lost.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use countersign_core::limits::ENROLLMENTS_IN_FLIGHT_MAX;
use countersign_core::name::Address;
use countersign_core::trust::join_token::JoinToken;
use countersign_core::trust::member::Suffrage;
use tokio::task::JoinSet;

use crate::joiner::{Attempt, Joiner};
use crate::report::{Line, Report, Target};
use crate::rounds::median;
use crate::servers::Server;

const ROUNDS: usize = 5;
const JOINERS: usize = 256;
/// As a node's own start has it.
const RETRY: Duration = Duration::from_millis(500);

/// How one crowd of joiners fared.
struct Crowd {
    rate: f64,
    turned_away: u32,
}

pub(crate) fn run(binary: &Path) -> Result<Report> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(measure(binary))
}

async fn measure(binary: &Path) -> Result<Report> {
    let (below, past) = (ENROLLMENTS_IN_FLIGHT_MAX / 2, ENROLLMENTS_IN_FLIGHT_MAX * 2);
    let (mut rates, mut crowded, mut turned_away) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        rates.push(enroll(binary, below).await?.rate);
        let crowd = enroll(binary, past).await?;
        crowded.push(crowd.rate);
        turned_away += crowd.turned_away;
    }
    let line = |work, ours, target| Line { work, unit: "members/s", peer: "none", theirs: None, ours, target };
    Ok(Report {
        lines: vec![
            line("enrollments on one leader, as many at once as half its limit", median(rates), Target::Rate(500.0)),
            line("the same, twice its limit at once: turned away and come again", median(crowded), Target::None),
        ],
        notes: vec![format!(
            "Enrollments: {JOINERS} joiners a round, a fresh cluster of one each time, {below} at once and then {past} \
             at once, where the limit is {ENROLLMENTS_IN_FLIGHT_MAX}. Past it {turned_away} attempts were turned away \
             over {ROUNDS} rounds; those joiners came again after {} ms, and every one was admitted. Joiners share the \
             cores with the leader, and all come from one address.",
            RETRY.as_millis()
        )],
        ..Report::default()
    })
}

/// A fresh leader admits all joiners, `at_once` of them at a time.
async fn enroll(binary: &Path, at_once: usize) -> Result<Crowd> {
    let leader = Server::found(binary).await?;
    let created = leader.token(Suffrage::Learner, u32::try_from(JOINERS)?).await?;
    let token = Arc::new(JoinToken::parse(&created.token)?);
    let sponsor = Address::parse(&created.join_addr)?;
    let joiners = joiners()?;
    let (next, turned_away) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU32::new(0)));
    let begun = Instant::now();
    let mut crowd = JoinSet::new();
    for _ in 0..at_once {
        let (joiners, next, turned_away) = (Arc::clone(&joiners), Arc::clone(&next), Arc::clone(&turned_away));
        let (token, sponsor) = (Arc::clone(&token), sponsor.clone());
        crowd.spawn(async move {
            while let Some(joiner) = joiners.get(next.fetch_add(1, Ordering::Relaxed)) {
                while let Attempt::Later = joiner.attempt(&token, &sponsor).await? {
                    turned_away.fetch_add(1, Ordering::Relaxed);
                    // why: nothing on this host tells when the sponsor has a place
                    tokio::time::sleep(RETRY).await;
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = crowd.join_next().await {
        ended??;
    }
    let spent = begun.elapsed();
    let members = leader.status().await?.members.len();
    ensure!(members == JOINERS + 1, "{members} members, expected {}", JOINERS + 1);
    let rate = f64::from(u32::try_from(JOINERS)?) / spent.as_secs_f64();
    Ok(Crowd { rate, turned_away: turned_away.load(Ordering::Relaxed) })
}

/// Keys are drawn before anything is counted. No joiner serves at its address.
fn joiners() -> Result<Arc<Vec<Joiner>>> {
    let address = Address::parse("127.0.0.1:1")?;
    let joiners = (0..JOINERS).map(|number| Joiner::new(&format!("j{number}"), address.clone()));
    Ok(Arc::new(joiners.collect::<Result<_>>()?))
}
