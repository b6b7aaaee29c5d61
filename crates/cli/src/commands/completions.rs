//! `countersign completions`: from the same definitions as the command line itself.

use crate::args::{self, Completions};
use crate::failure::Failure;
use crate::output::print;

pub(super) fn run(args: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "countersign", &mut script);
    print(&String::from_utf8_lossy(&script))
}
