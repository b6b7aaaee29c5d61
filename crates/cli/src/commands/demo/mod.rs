//! `countersign demo`: the main job in one command. Real server processes on loopback, joined by one-time tokens, then
//! the attacks, each of which must be refused. Every row is checked; the exit code is 0 only if every one agrees.
//!
//! Everything is asked through the binary's own commands, as an operator would.

mod authz;
mod cluster;
mod hostile;
mod man_in_the_middle;
mod revocation;
mod story;
mod table;

use std::path::PathBuf;

use clap::Args;

use crate::failure::{Exit, Failure};
use cluster::Cluster;
use table::Table;

/// `countersign demo`
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(3..=7))]
    nodes: u16,
    /// Keep data and logs in this new or empty directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Tells the story; an error if a row does not agree, or if it could not be told to its end.
pub(crate) fn run(args: &DemoArgs, json: bool) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::unreachable(error, "look at the limits of this session"))?;
    let told = runtime.block_on(async {
        let mut table = Table::new(json);
        let mut cluster = Cluster::new(args.keep.as_deref())?;
        let told = tokio::select! {
            told = story::tell(&mut cluster, &mut table, args.nodes) => told,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        };
        cluster.stop();
        if told.is_err() {
            cluster.show_logs();
        }
        told.map(|()| table)
    });
    let table = told.map_err(|error| {
        Failure::unreachable(
            format!("the demo could not be told to its end: {error:#}"),
            "countersign demo --keep DIR, then read the logs in DIR",
        )
    })?;
    match table.end() {
        0 => Ok(()),
        disagree => Err(Failure::new(
            Exit::Refused,
            format!("{disagree} rows do not agree"),
            "countersign demo --keep DIR, then read the logs in DIR",
        )),
    }
}
