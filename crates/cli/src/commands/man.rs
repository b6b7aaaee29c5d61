//! `countersign man`: from the same definitions as the command line itself.

use crate::args::{self, Man};
use crate::failure::{Failure, chain};
use crate::output::print;

pub(super) fn run(args: &Man) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::usage(
            format!("manual pages cannot be written: {}", chain(&error)),
            "choose another directory with --out",
        )
    };
    match &args.out {
        Some(directory) => {
            std::fs::create_dir_all(directory).map_err(failed)?;
            clap_mangen::generate_to(args::command(), directory).map_err(failed)
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(args::command()).render(&mut page).map_err(failed)?;
            print(&String::from_utf8_lossy(&page))
        }
    }
}
