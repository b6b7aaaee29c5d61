//! What rules and sessions weigh, in a process that does nothing else.

use anyhow::{Context, Result};
use countersign_core::authz::Policy;

use super::start;
use super::table::Table;
use super::world::{Clocks, principals, rule, with};

const SESSIONS: usize = 10_000;
/// Below this many rules, pages are larger than the rules that are weighed.
const RULES_MIN: usize = 100_000;
const WEIGHED: [&str; 4] = ["a rule, in memory", "a rule, in a snapshot", "a rule, compiled", "a session"];

pub(crate) fn weigh(rules: usize, table: &mut Table) -> Result<()> {
    if rules < RULES_MIN {
        return Ok(());
    }
    let (said, _) = start(&[], &["memory", &rules.to_string()])?;
    for (work, figure) in WEIGHED.iter().zip(said.split_whitespace()) {
        table.put(work, rules, figure.parse()?);
    }
    Ok(())
}

/// Prints the figures in the order of [`WEIGHED`].
pub(crate) fn child(rules: usize) -> Result<()> {
    let count = f64::from(u32::try_from(rules)?);
    let before = resident()?;
    let mut refused = None;
    let made = (0..rules).map_while(|number| rule(number).map_err(|error| refused = Some(error)).ok());
    let policy = Policy::of(["admin/*".parse()?], made);
    let rule = (resident()? - before) / count;
    if let Some(error) = refused {
        return Err(error);
    }
    let stored = f64::from(u32::try_from(postcard::to_allocvec(&policy)?.len())?) / count;
    let (world, _writer) = with(rules, policy, Clocks::Real)?;
    let peers: Result<Vec<_>> = (0..principals(rules)).map(|number| world.peer(number)).collect();
    let peers = peers?;
    let before = resident()?;
    for peer in &peers {
        drop(world.guard.session(peer, None)?);
    }
    let compiled = (resident()? - before) / count;
    let before = resident()?;
    let sessions: Result<Vec<_>> =
        peers.iter().cycle().take(SESSIONS).map(|peer| Ok(world.guard.session(peer, None)?)).collect();
    let sessions = sessions?;
    let session = (resident()? - before) / f64::from(u32::try_from(sessions.len())?);
    println!("{rule} {stored} {compiled} {session}");
    Ok(())
}

/// Bytes of this process that are in memory.
fn resident() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0)
}
