//! What leases cost, and how soon an eviction has closed the last connection, in simulated time:
//! `cargo run --release -p countersign-sim --example lease_cost`.

use std::process::ExitCode;

use countersign_sim::{LeaseBroken, eviction_millis, lease_cost};

/// Members, in the clusters whose costs are compared, and in the one whose member is evicted.
const SIZES: [u64; 3] = [3, 30, 300];
const MEMBERS: u64 = 100;
/// Revocations in a burst, ten a second; evictions, each in a cluster of its own.
const BURST: u32 = 50;
const EVICTIONS: u64 = 100;

fn table() -> Result<(), LeaseBroken> {
    println!("leases of 10 s; messages per member per second, requests, acknowledgements and answers together");
    println!("| members | steady | {BURST} revocations, 10/s | leases granted per second |");
    println!("|---|---|---|---|");
    for members in SIZES {
        let cost = lease_cost(1, members, BURST)?;
        println!("| {members} | {:.2} | {:.2} | {:.1} |", cost.steady, cost.burst, cost.grants);
    }
    let mut millis = (0..EVICTIONS).map(|seed| eviction_millis(seed, MEMBERS)).collect::<Result<Vec<_>, _>>()?;
    millis.sort_unstable();
    let at = |percent: usize| millis.get((millis.len() * percent / 100).min(millis.len() - 1)).copied().unwrap_or(0);
    println!(
        "{EVICTIONS} evictions among {MEMBERS} members, messages of 1 to 20 ms: from commit to the last connection \
         closed p50 {} ms, p99 {} ms",
        at(50),
        at(99)
    );
    Ok(())
}

fn main() -> ExitCode {
    match table() {
        Ok(()) => ExitCode::SUCCESS,
        Err(broken) => {
            eprintln!("{broken}");
            ExitCode::FAILURE
        }
    }
}
