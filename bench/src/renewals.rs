//! Certificates renewed by one leader: an endorsement checked, a command committed, a certificate signed.
//!
//! The members live in this process and never start to serve. Each is admitted, connects, and renews once: that much is
//! counted. On a cluster of a day's certificates, each member renews about once in sixteen hours.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use countersign_core::name::Address;
use countersign_core::trust::join_token::JoinToken;
use countersign_core::trust::member::Suffrage;
use tokio::task::JoinSet;

use crate::joiner::{Admitted, Attempt, Joiner};
use crate::report::{Line, Report, Target};
use crate::rounds::median;
use crate::servers::Server;

const ROUNDS: usize = 5;
const MEMBERS: usize = 256;
/// Each of them has one renewal under way.
const AT_ONCE: usize = 32;

pub(crate) fn run(binary: &Path) -> Result<Report> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(measure(binary))
}

async fn measure(binary: &Path) -> Result<Report> {
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        rates.push(renew(binary).await?);
    }
    let work = "certificates of nodes renewed by one leader";
    let line = Line { work, unit: "renewals/s", peer: "none", theirs: None, ours: median(rates), target: Target::None };
    let note = format!(
        "Renewals: {MEMBERS} members a round, connected before, {AT_ONCE} at once; a fresh cluster of one each time, \
         whose leader goes on to look for members that never serve."
    );
    Ok(Report { lines: vec![line], notes: vec![note], ..Report::default() })
}

async fn renew(binary: &Path) -> Result<f64> {
    let leader = Server::found(binary).await?;
    let created = leader.token(Suffrage::Learner, u32::try_from(MEMBERS)?).await?;
    let (token, sponsor) = (JoinToken::parse(&created.token)?, Address::parse(&created.join_addr)?);
    let mut members: Vec<Admitted> = Vec::new();
    for number in 0..MEMBERS {
        let joiner = Joiner::new(&format!("j{number}"), Address::parse("127.0.0.1:1")?)?;
        let Attempt::Admitted(enrollment) = joiner.attempt(&token, &sponsor).await? else {
            anyhow::bail!("a joiner that came alone was turned away");
        };
        members.push(joiner.connect(*enrollment, &sponsor).await?);
    }
    let share = MEMBERS / AT_ONCE;
    let begun = Instant::now();
    let mut crowd = JoinSet::new();
    while !members.is_empty() {
        let some = members.split_off(members.len().saturating_sub(share));
        crowd.spawn(async move {
            for mut member in some {
                member.renew().await.context("a renewal failed")?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = crowd.join_next().await {
        ended??;
    }
    Ok(f64::from(u32::try_from(MEMBERS)?) / begun.elapsed().as_secs_f64())
}
