//! Authorization: a guard's sessions beside a table written by hand, and beside other libraries that decide.
//!
//! Every contender answers the same questions about the same rules, in turns. Nothing here is shipped, and nothing
//! shipped may lean on it: the evidence by which its peers are known is asserted, not verified.

mod asked;
mod casbin;
mod cedar;
mod floor;
mod instructions;
mod known;
mod memory;
mod policy;
mod questions;
mod speed;
mod table;
mod world;

use anyhow::{Context, Result, bail};

use crate::report::Report;

/// How many rules there are, in each column of a table.
const RULES: [usize; 4] = [10, 1_000, 100_000, 600_000];

/// The row `authz`.
pub(crate) fn run() -> Result<Report> {
    speed::run()
}

/// The row `policy`.
pub(crate) fn policy() -> Result<Report> {
    policy::run()
}

/// The row `instructions`.
pub(crate) fn instructions() -> Result<Report> {
    instructions::run()
}

/// A process of its own, started by a row: `memory RULES`, or `count HOW RULES TIMES`.
pub(crate) fn child(arguments: &[String]) -> Result<()> {
    match arguments {
        [task, rules] if task == "memory" => memory::child(rules.parse()?),
        [task, how, rules, times] if task == "count" => instructions::child(how, rules.parse()?, times.parse()?),
        _ => bail!("started by hand: expected memory RULES or count HOW RULES TIMES"),
    }
}

/// Starts this program again as [`child`], after `before`; what it printed, and what it complained of.
fn start(before: &[&str], arguments: &[&str]) -> Result<(String, String)> {
    let own = std::env::current_exe()?;
    let own = own.to_str().context("a path that is no text")?;
    let words = [before, &[own, "authz-child"], arguments].concat();
    let (program, rest) = words.split_first().context("no program")?;
    let output = std::process::Command::new(program).args(rest).output()?;
    let (said, complaint) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    if output.status.success() { Ok((said, complaint)) } else { bail!("{arguments:?}: {complaint}") }
}
