//! What Countersign costs, beside what it is built on and what it competes with.
//!
//! `cargo xtask load` drives a cluster and prints what its callers saw. `cargo xtask bench` measures every row and
//! rewrites `docs/BENCHMARKS.md`; `cargo xtask bench ROW…` measures some and only prints. Contenders of one row take
//! turns in one run: their ratio counts, not their absolute figures. Nothing here passes or fails by time.

mod admin;
mod authz;
mod bare;
mod bytes;
mod caller;
mod calls;
mod cluster;
mod commits;
mod enrollments;
mod etcd;
mod evictions;
mod handshakes;
mod isolation;
mod joiner;
mod load;
mod machine;
mod memory;
mod page;
mod pairs;
mod peer_io;
mod renewals;
mod replicas;
mod report;
mod rounds;
mod scale;
mod servers;

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::report::Report;

const USAGE: &str = "\
usage: cargo xtask bench [--binary PATH] [ROW…]

  handshakes    members' handshakes over TCP and QUIC, beside bare rustls and quinn
  bytes         bytes through authenticated streams, beside bare rustls and quinn
  calls         guarded calls on the client port, beside the same handler without a guard
  memory        what idle connections and attacks make a member hold
  commits       trust commands committed by three processes, beside etcd
  enrollments   members admitted by one leader
  evictions     from `evict` and `revoke` to the last connection closed on every member, under load
  renewals      certificates of nodes renewed by one leader
  authz         authorizations by handle and by name, beside a table by hand, HashMap, moka, casbin and Cedar
  policy        changes of rules and compiling them, and what they weigh
  scale         what one command costs as principals and members grow
  isolation     small proposals to the trust group beside a loaded data group
  instructions  instructions of an authorization, if valgrind is installed

  --binary PATH   the `countersign` to start, instead of building one
Without a row: all of them, and docs/BENCHMARKS.md is rewritten.";

const ROWS: [&str; 13] = [
    "handshakes",
    "bytes",
    "calls",
    "memory",
    "commits",
    "enrollments",
    "evictions",
    "renewals",
    "authz",
    "policy",
    "scale",
    "isolation",
    "instructions",
];

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("bench has no parent directory")?;
    let given: Vec<String> = env::args().skip(1).collect();
    if let [first, rest @ ..] = given.as_slice()
        && first == "load"
    {
        return load::run(root, rest);
    }
    if let [first, rest @ ..] = given.as_slice()
        && first == "authz-child"
    {
        return authz::child(rest);
    }
    let mut rows = Vec::new();
    let mut binary = None;
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--binary" => binary = Some(PathBuf::from(args.next().context(USAGE)?)),
            row if ROWS.contains(&row) => rows.push(arg),
            _ => bail!("no row `{arg}`\n{USAGE}"),
        }
    }
    let all = rows.is_empty();
    if all {
        rows = ROWS.map(str::to_owned).to_vec();
    }
    let needs_binary =
        rows.iter().any(|row| ["commits", "enrollments", "evictions", "renewals", "memory"].contains(&row.as_str()));
    let binary = match binary {
        None if needs_binary => servers::build(root)?,
        given => given.unwrap_or_default(),
    };
    let mut report = Report::default();
    for row in &rows {
        eprintln!("{row} …");
        let measured = match row.as_str() {
            "handshakes" => handshakes::run(),
            "bytes" => bytes::run(),
            "calls" => calls::run(),
            "memory" => memory::run(&binary),
            "commits" => commits::run(&binary),
            "evictions" => evictions::run(&binary),
            "renewals" => renewals::run(&binary),
            "authz" => authz::run(),
            "policy" => authz::policy(),
            "scale" => scale::run(),
            "isolation" => isolation::run(),
            "instructions" => authz::instructions(),
            _ => enrollments::run(&binary),
        };
        report.add(measured.with_context(|| format!("row `{row}`"))?);
    }
    println!("{}", report.table());
    if all {
        let path = root.join("docs/BENCHMARKS.md");
        std::fs::write(&path, page::render(&report, &machine::describe(root)?))?;
        eprintln!("written: docs/BENCHMARKS.md");
    }
    Ok(())
}
