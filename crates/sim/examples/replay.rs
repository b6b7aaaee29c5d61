//! Runs one seed again: `cargo run -p countersign-sim --example replay -- SEED STEPS`. Prints what happened, or the
//! violation and the events before it.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut numbers = env::args().skip(1).map(|arg| arg.parse::<u64>());
    let (Some(Ok(seed)), Some(Ok(steps)), None) = (numbers.next(), numbers.next(), numbers.next()) else {
        eprintln!("usage: replay SEED STEPS");
        return ExitCode::from(2);
    };
    match countersign_sim::run(seed, u32::try_from(steps).unwrap_or(u32::MAX)) {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            eprintln!("{violation}");
            ExitCode::FAILURE
        }
    }
}
