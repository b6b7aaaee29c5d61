//! How long an answer takes: by handle and by name, granted and not, by one thread and two, while rules change and do
//! not.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;

use super::asked::{Asked, Changing, Pass, nanos};
use super::questions::{FEW, MANY, QUESTIONS, by_handle, by_handle_denied, by_name, fresh};
use super::table::{Table, digits};
use super::world::{Clocks, World, Writer, build, exact_topics, other_topics, prefixed_topics};
use super::{RULES, casbin, cedar, floor, known};
use crate::report::{Line, Report, Target};
use crate::rounds::{Contender, interleave};

const ROUNDS: usize = 61;
const SAMPLE: Duration = Duration::from_micros(200);
/// Of two threads: long enough that starting them does not count.
const SAMPLE_OF_TWO: Duration = Duration::from_millis(1);
const ROUNDS_OF_CHANGE: usize = 15;
/// A few changes long.
const SAMPLE_OF_CHANGE: Duration = Duration::from_millis(30);
/// Between changes: a hundred a second.
const PAUSE: Duration = Duration::from_millis(10);
/// The most rules that casbin is asked with: it goes through all that it has.
const CASBIN_MAX: usize = 1_000;
const CEDAR_MAX: usize = 100_000;

const FLOOR: &str = "floor: a table by hand, 16 resources";
const HANDLE: &str = "by handle, 16 resources, granted";
const EXACT: &str = "by name, named by a rule, granted";
const PREFIXED: &str = "by name, under a prefix alone, granted";
const CASBIN: &str = "casbin, cached";
const CEDAR: &str = "Cedar";
const FRESH: &str = "making a `Fresh`";

/// Contenders with their names.
type Named = Vec<(String, Asked)>;

pub(crate) fn run() -> Result<Report> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<Report> {
    let (mut one, mut two, mut changing) = (Table::default(), Table::default(), Table::default());
    let mut rates = Vec::new();
    for rules in RULES {
        eprintln!("  {rules} rules …");
        let (world, writer) = build(rules, Clocks::Real)?;
        let mut contenders = alone(&world, rules)?;
        contenders.extend(peers(&world, rules).await?);
        take_turns(contenders, ROUNDS, rules, &mut one).await?;
        take_turns(in_twos(&world, rules)?, ROUNDS, rules, &mut two).await?;
        let contenders = disturbed(&world, rules, writer)?;
        let changed = take_turns(contenders, ROUNDS_OF_CHANGE, rules, &mut changing).await?;
        rates.extend(changed.last().map(|rate| format!("{} at {rules} rules", digits(*rate))));
    }
    let sections = vec![
        one.section("Nanoseconds an answer, one thread:"),
        two.section("Nanoseconds an answer, each of two threads with a session of its own:"),
        changing.section(
            "Nanoseconds an answer, while a third thread changes a rule of another principal, or no thread does:",
        ),
    ];
    Ok(Report { lines: lines(&one), notes: notes(&rates), sections })
}

/// Lets them take turns and puts their medians down; the rates of change of those that had any.
async fn take_turns(mut contenders: Named, rounds: usize, rules: usize, table: &mut Table) -> Result<Vec<f64>> {
    let mut turns: Vec<&mut dyn Contender> = Vec::new();
    for (_, asked) in &mut contenders {
        turns.push(asked);
    }
    let medians = interleave(&mut turns, rounds).await?;
    for ((name, _), median) in contenders.iter().zip(medians) {
        table.put(name, rules, nanos(median));
    }
    Ok(contenders.iter().filter_map(|(_, asked)| asked.changing.as_ref().map(Changing::rate)).collect())
}

fn single(name: &str, pass: Pass) -> (String, Asked) {
    (name.to_owned(), Asked::new(vec![pass], SAMPLE))
}

fn alone(world: &World, rules: usize) -> Result<Named> {
    let name = |names, granted| by_name(world, names, QUESTIONS, granted);
    Ok(vec![
        single(FLOOR, floor::ask(&world.guard, FEW, QUESTIONS)?),
        single(HANDLE, by_handle(world, rules, FEW, QUESTIONS)?),
        single("floor, 1000 resources", floor::ask(&world.guard, MANY, QUESTIONS)?),
        single("by handle, 1000 resources, granted", by_handle(world, rules, MANY, QUESTIONS)?),
        single("by handle, denied", by_handle_denied(world)?),
        single(EXACT, name(exact_topics(rules), true)?),
        single(PREFIXED, name(prefixed_topics(FEW), true)?),
        single("by name, under no rule, denied", name(other_topics(FEW), false)?),
        single(FRESH, fresh(world)?),
    ])
}

async fn peers(world: &World, rules: usize) -> Result<Named> {
    let (guard, names) = (&world.guard, exact_topics(rules));
    let (map, cache) = (known::map(world), known::cache(world));
    let mut peers = vec![
        single("HashMap of (String, String, Action), keys at hand", known::ask_map(guard, &map, &names)?),
        single("HashMap of (String, String, Action), keys made", known::ask_map_by_new_keys(guard, &map, &names)?),
        single("moka with a time to live, keys at hand", known::ask_cache(guard, &cache, &names)?),
    ];
    if rules <= CASBIN_MAX {
        peers.push(single(CASBIN, casbin::ask_cached(world, &names).await?));
        peers.push(single("casbin, uncached", casbin::ask_uncached(world, &names).await?));
    }
    if rules <= CEDAR_MAX {
        let name = names.first().map_or("", String::as_str);
        peers.push(single(CEDAR, cedar::ask(world, name)?));
    }
    Ok(peers)
}

fn in_twos(world: &World, rules: usize) -> Result<Named> {
    let (guard, names) = (&world.guard, exact_topics(rules));
    let (map, cache) = (known::map(world), known::cache(world));
    let two = |name: &str, make: &dyn Fn() -> Result<Pass>| -> Result<(String, Asked)> {
        Ok((name.to_owned(), Asked::new(vec![make()?, make()?], SAMPLE_OF_TWO)))
    };
    Ok(vec![
        two(FLOOR, &|| floor::ask(guard, FEW, QUESTIONS))?,
        two(HANDLE, &|| by_handle(world, rules, FEW, QUESTIONS))?,
        two("by handle, 1000 resources, granted", &|| by_handle(world, rules, MANY, QUESTIONS))?,
        two("by handle, denied", &|| by_handle_denied(world))?,
        two(EXACT, &|| by_name(world, exact_topics(rules), QUESTIONS, true))?,
        two(PREFIXED, &|| by_name(world, prefixed_topics(FEW), QUESTIONS, true))?,
        two("by name, under no rule, denied", &|| by_name(world, other_topics(FEW), QUESTIONS, false))?,
        two("HashMap, keys at hand", &|| known::ask_map(guard, &map, &names))?,
        two("moka, keys at hand", &|| known::ask_cache(guard, &cache, &names))?,
    ])
}

/// The same questions without changes, with a hundred a second, and with as many as there can be.
fn disturbed(world: &World, rules: usize, writer: Writer) -> Result<Named> {
    let writer = Arc::new(Mutex::new(writer));
    let by_handle = || by_handle(world, rules, FEW, QUESTIONS);
    let by_name = || by_name(world, exact_topics(rules), QUESTIONS, true);
    let mut contenders = Vec::new();
    for (changes, pause) in [("no change", None), ("100 changes/s", Some(PAUSE)), ("changes without pause", None)] {
        for threads in [1, 2] {
            for (how, make) in [("by handle", &by_handle as &dyn Fn() -> Result<Pass>), ("by name", &by_name)] {
                let passes: Result<Vec<Pass>> = (0..threads).map(|_| make()).collect();
                let mut asked = Asked::new(passes?, SAMPLE_OF_CHANGE);
                if changes != "no change" {
                    asked = asked.while_changing(Changing::new(Arc::clone(&writer), pause));
                }
                let plural = if threads == 1 { "" } else { "s" };
                contenders.push((format!("{how}, {threads} thread{plural}, {changes}"), asked));
            }
        }
    }
    Ok(contenders)
}

fn lines(one: &Table) -> Vec<Line> {
    let line = |work, peer, theirs, ours, target| Line { work, unit: "ns", peer, theirs, ours, target };
    let at = |work: &str, rules| one.figure(work, rules);
    let mut lines = Vec::new();
    for (rules, work) in [
        (10, "authorized by handle, 10 rules"),
        (100_000, "authorized by handle, 100k rules"),
        (600_000, "authorized by handle, 600k rules"),
    ] {
        let (theirs, ours) = (Some(at(FLOOR, rules)), at(HANDLE, rules));
        lines.push(line(work, "a session's table by hand", theirs, ours, Target::Times(1.5)));
    }
    lines.push(line("making a `Fresh`: one reading of the clock", "none", None, at(FRESH, 1_000), Target::None));
    for (rules, work) in [
        (10, "authorized by name, 10 rules"),
        (100_000, "authorized by name, 100k rules"),
        (600_000, "authorized by name, 600k rules"),
    ] {
        lines.push(line(work, "none", None, at(EXACT, rules), Target::AtMost(25.0)));
    }
    let prefixed = "authorized by name under a prefix, 600k rules";
    lines.push(line(prefixed, "none", None, at(PREFIXED, 600_000), Target::AtMost(25.0)));
    for (peer, times) in [(CASBIN, 10.0), (CEDAR, 1000.0)] {
        let (work, theirs) = ("authorized by name, 1000 rules", Some(at(peer, 1_000)));
        lines.push(line(work, peer, theirs, at(EXACT, 1_000), Target::Faster(times)));
    }
    lines
}

fn notes(rates: &[String]) -> Vec<String> {
    vec![format!(
        "Authorizations: one principal out of a hundredth as many as there are rules, four groups of rules about it \
         (everybody, a prefix, its role, itself). {QUESTIONS} questions under one `Fresh`, all answers counted and \
         compared with what they should be. A denial carries the rule that decided, so it is decided in full. casbin \
         is asked up to {CASBIN_MAX} rules and Cedar up to {CEDAR_MAX}: both go through all. What the map and moka \
         hold is filled beforehand and never forgotten. Changes without pause, by one thread, each of one rule of a \
         principal that asks nothing: a second, beside two threads that ask by name, {}.",
        rates.join(", ")
    )]
}
