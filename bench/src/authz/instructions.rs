//! Instructions of one answer, counted by callgrind: where time is too noisy, they are not.

use anyhow::{Context, Result, bail};

use super::asked::Pass;
use super::questions::{FEW, MANY, by_handle, by_name};
use super::table::Table;
use super::world::{Clocks, World, build, exact_topics, other_topics, prefixed_topics};
use super::{floor, start};
use crate::report::Report;

/// A process is counted twice; what more questions cost more is what they cost.
const TIMES: [u32; 2] = [20_000, 220_000];
const RULES: [usize; 2] = [10, 100_000];
const WAYS: [(&str, &str); 6] = [
    ("floor", "floor: a table by hand"),
    ("handle", "by handle, 16 resources, granted"),
    ("handles", "by handle, 1000 resources, granted"),
    ("name", "by name, named by a rule, granted"),
    ("prefix", "by name, under a prefix alone, granted"),
    ("nothing", "by name, under no rule, denied"),
];

pub(crate) fn run() -> Result<Report> {
    if std::process::Command::new("valgrind").arg("--version").output().is_err() {
        let notes = vec!["Instructions: not counted, valgrind is not installed.".to_owned()];
        return Ok(Report { notes, ..Report::default() });
    }
    let mut table = Table::default();
    for rules in RULES {
        for (how, work) in WAYS {
            eprintln!("  {work}, {rules} rules …");
            let [few, many] = TIMES;
            let more = f64::from(many - few);
            let counted = counted(how, rules, many)? - counted(how, rules, few)?;
            table.put(work, rules, counted / more);
        }
    }
    let notes = vec![format!(
        "Instructions: callgrind over a process of its own that answers {} questions more than another. The few of the \
         loop are counted with them.",
        TIMES[1] - TIMES[0]
    )];
    Ok(Report { notes, sections: vec![table.section("Instructions an answer:")], ..Report::default() })
}

fn counted(how: &str, rules: usize, times: u32) -> Result<f64> {
    let valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*count_these*"];
    let (_, complaint) = start(&valgrind, &["count", how, &rules.to_string(), &times.to_string()])?;
    let collected =
        complaint.lines().find_map(|line| line.split_once("Collected : ")).context("callgrind said nothing")?;
    Ok(collected.1.trim().parse()?)
}

/// Answers about `times` questions, and nothing else that depends on how many.
pub(crate) fn child(how: &str, rules: usize, times: usize) -> Result<()> {
    let (world, _writer) = build(rules, Clocks::Still)?;
    count_these(&mut asked(&world, how, rules, times)?)
}

/// The counted function, by this name.
#[inline(never)]
fn count_these(pass: &mut Pass) -> Result<()> {
    pass().map(drop)
}

fn asked(world: &World, how: &str, rules: usize, times: usize) -> Result<Pass> {
    match how {
        "floor" => floor::ask(&world.guard, FEW, times),
        "handle" => by_handle(world, rules, FEW, times),
        "handles" => by_handle(world, rules, MANY, times),
        "name" => by_name(world, exact_topics(rules), times, true),
        "prefix" => by_name(world, prefixed_topics(FEW), times, true),
        "nothing" => by_name(world, other_topics(FEW), times, false),
        _ => bail!("nothing is asked `{how}`"),
    }
}
