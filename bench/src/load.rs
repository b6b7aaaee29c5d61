//! Many callers at once, over mutual TLS with certificates of clients: what a cluster does for them while it is
//! operated.
//!
//! Each connection asks `Whoami` again and again, one call at a time. A lost connection is made again, on the next
//! server. Lost connections and failed calls are counted by kind. Renew, evict, revoke or stop members meanwhile, and
//! read what callers saw.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use countersign_core::name::Address;
use tokio::task::JoinSet;

use crate::caller::{Caller, Failed};
use crate::servers;

pub(crate) const USAGE: &str = "\
usage: cargo xtask load [--connections N] [--secs S] [--server HOST:PORT… --identity FILE --identity-key FILE --ca FILE]

  --connections N   callers at once [default: 64]
  --secs S          how long [default: 10]
  --server ADDR     the cluster port of a member, can be repeated; without one, three members are started here
  --identity, --identity-key, --ca
                    with --server: a client's certificate, as `countersign cert issue --client NAME` writes it
  --binary PATH     the `countersign` to start, instead of building one

Members that are started here read COUNTERSIGN_ variables: COUNTERSIGN_PKI_NODE_TTL=20s lets them renew under load.";

struct Options {
    connections: usize,
    secs: u64,
    servers: Vec<Address>,
    identity: Option<(PathBuf, PathBuf, PathBuf)>,
    binary: Option<PathBuf>,
}

fn options(args: &[String]) -> Result<Options> {
    let mut options = Options { connections: 64, secs: 10, servers: vec![], identity: None, binary: None };
    let mut files: BTreeMap<&str, PathBuf> = BTreeMap::new();
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        let mut value = || args.next().with_context(|| format!("`{flag}` needs a value\n{USAGE}"));
        match flag.as_str() {
            "--connections" => options.connections = value()?.parse().context("--connections is a number")?,
            "--secs" => options.secs = value()?.parse().context("--secs is a number")?,
            "--server" => options.servers.push(Address::parse(value()?).context("--server is HOST:PORT")?),
            "--binary" => options.binary = Some(value()?.into()),
            "--identity" | "--identity-key" | "--ca" => drop(files.insert(flag, value()?.into())),
            _ => bail!("no flag `{flag}`\n{USAGE}"),
        }
    }
    ensure!(options.connections > 0 && options.secs > 0, "nothing to do\n{USAGE}");
    match (files.remove("--identity"), files.remove("--identity-key"), files.remove("--ca")) {
        (Some(chain), Some(key), Some(ca)) => options.identity = Some((chain, key, ca)),
        (None, None, None) => {}
        _ => bail!("--identity, --identity-key and --ca belong together\n{USAGE}"),
    }
    ensure!(
        options.servers.is_empty() == options.identity.is_none(),
        "--server and --identity belong together\n{USAGE}"
    );
    Ok(options)
}

/// `load` with its flags.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    let options = options(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (callers, addresses, _servers) = match &options.identity {
            Some((chain, key, ca)) => (vec![Caller::load(chain, key, ca)?], options.servers.clone(), vec![]),
            None => {
                let binary = options.binary.clone().map_or_else(|| servers::build(root), Ok)?;
                let servers = servers::three(&binary).await?;
                let first = servers.first().context("no server")?;
                let mut callers = Vec::new();
                // A certificate may have so many connections at a member and no more.
                for number in 0..options.connections.div_ceil(PER_CALLER) {
                    callers.push(Caller::issue(&first.socket(), &format!("load-{number}")).await?);
                }
                let mut addresses = Vec::new();
                for server in &servers {
                    addresses.push(server.client_address()?);
                    eprintln!("member at {}: --data {}", server.client_address()?, server.data().display());
                }
                (callers, addresses, servers)
            }
        };
        let load = Load::begin(&callers, &addresses, options.connections);
        for second in 1..=options.secs {
            // why: the load goes on for as long as was asked
            tokio::time::sleep(Duration::from_secs(1)).await;
            if second % 10 == 0 {
                eprintln!("{second} s …");
            }
        }
        println!("{}", load.end().await?);
        Ok(())
    })
}

/// Connections of one certificate: within the limit of a member for one principal, wherever they all end up.
pub(crate) const PER_CALLER: usize = 48;

/// Callers under way.
pub(crate) struct Load {
    begun: Instant,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Seen>,
}

/// What one caller, or all of them, saw.
#[derive(Default)]
pub(crate) struct Seen {
    micros: Vec<u32>,
    failed: BTreeMap<String, u64>,
    elapsed: Duration,
}

impl Load {
    /// `connections` of them, by turns at each address and by each caller.
    pub(crate) fn begin(callers: &[Caller], addresses: &[Address], connections: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for (at, caller) in callers.iter().cycle().take(connections).enumerate() {
            let mut addresses = addresses.to_vec();
            let count = addresses.len().max(1);
            addresses.rotate_left(at % count);
            tasks.spawn(call(caller.clone(), addresses, Arc::clone(&stop)));
        }
        Self { begun: Instant::now(), stop, tasks }
    }

    /// Stops them, and adds up.
    pub(crate) async fn end(mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let elapsed = self.begun.elapsed();
        let mut all = Seen { elapsed, ..Seen::default() };
        while let Some(seen) = self.tasks.join_next().await {
            let seen = seen?;
            all.micros.extend(seen.micros);
            for (kind, count) in seen.failed {
                *all.failed.entry(kind).or_default() += count;
            }
        }
        all.micros.sort_unstable();
        Ok(all)
    }
}

/// One connection after another, one call after another.
async fn call(caller: Caller, addresses: Vec<Address>, stop: Arc<AtomicBool>) -> Seen {
    /// A server that refuses is not asked in a loop.
    const PAUSE: Duration = Duration::from_millis(100);
    let mut seen = Seen::default();
    for address in addresses.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let failed: Failed = match caller.connect(address).await {
            Err(failed) => failed,
            Ok(mut connection) => loop {
                if stop.load(Ordering::Relaxed) {
                    return seen;
                }
                let begun = Instant::now();
                match connection.ask().await {
                    Ok(()) => seen.micros.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX)),
                    Err(failed) => break failed,
                }
            },
        };
        *seen.failed.entry(failed.kind).or_default() += 1;
        // why: as a program that is refused would
        tokio::time::sleep(PAUSE).await;
    }
    seen
}

impl Seen {
    pub(crate) fn rate(&self) -> f64 {
        self.micros.len() as f64 / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    fn percentile(&self, share: f64) -> f64 {
        let at = (self.micros.len() as f64 * share) as usize;
        let at = at.min(self.micros.len().saturating_sub(1));
        self.micros.get(at).map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
    }

    /// Failed calls and connections.
    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| self.percentile(share));
        let max = self.percentile(1.0);
        writeln!(f, "{} calls in {:.1} s: {:.0} calls/s", self.micros.len(), self.elapsed.as_secs_f64(), self.rate())?;
        writeln!(f, "latency in ms: p50 {p50:.2}, p99 {p99:.2}, p99.9 {p999:.2}, max {max:.2}")?;
        write!(f, "failed: {}", self.failures())?;
        for (kind, count) in &self.failed {
            write!(f, "\n  {count:>8}  {kind}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(args: &[&str]) -> Result<Options> {
        options(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_that_belong_together_are_asked_for_together() {
        let files = ["--identity", "a", "--identity-key", "b", "--ca", "c"];
        assert_eq!(given(&[]).unwrap().connections, 64);
        assert!(given(&[&["--server", "127.0.0.1:1"], &files[..]].concat()).is_ok());
        for bad in [
            &["--server", "127.0.0.1:1"][..],
            &files,
            &["--identity", "a"],
            &["--connections", "0"],
            &["--secs", "x"],
            &["--secs"],
            &["--server", "here"],
            &["--speed", "1"],
        ] {
            assert!(given(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn percentiles_are_of_sorted_calls() {
        let seen = Seen { micros: (1..=1000).map(|n| n * 1000).collect(), ..Seen::default() };
        assert_eq!([0.5, 0.99, 1.0].map(|share| seen.percentile(share)), [501.0, 991.0, 1000.0]);
        assert!(Seen::default().percentile(0.5).is_nan());
    }
}
