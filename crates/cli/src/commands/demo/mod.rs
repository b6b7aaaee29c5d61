//! `countersign demo`: the main job in one command. Real server processes on loopback, joined by one-time tokens, then the
//! attacks, each of which must be refused. Every row is checked; the exit code is 0 only if every one agrees.
//!
//! Everything is asked through the binary's own commands, as an operator would.

mod cluster;
mod hostile;
mod man_in_the_middle;
mod story;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

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

/// Tells the story; 0 if every row agrees, 1 if one does not, 3 if it could not be told to its end.
pub(crate) fn run(args: &DemoArgs, json: bool) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
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
    match told {
        Ok(table) => table.end(),
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: the demo could not be told to its end: {error:#}");
    eprintln!("try: countersign demo --keep DIR, then read the logs in DIR");
    ExitCode::from(3)
}
