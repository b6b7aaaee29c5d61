//! A change of the rules, from the decision to the first answer by it; compiling all of them; and what rules and
//! sessions weigh.

use std::time::{Duration, Instant};

use anyhow::Result;
use countersign_guard::{Action, Kind, Session};

use super::table::Table;
use super::world::{Clocks, World, Writer, build, exact_topics, guard, principals};
use super::{RULES, memory};
use crate::report::{Line, Report, Target};
use crate::rounds::median;

const CHANGES: usize = 400;
const COMPILATIONS: usize = 5;
const LARGE: usize = 100_000;

pub(crate) fn run() -> Result<Report> {
    let (mut table, mut cells, mut weights) = (Table::default(), Table::default(), Table::default());
    for rules in RULES {
        eprintln!("  {rules} rules …");
        let (world, mut writer) = build(rules, Clocks::Real)?;
        changes(&world, &mut writer, rules, &mut table)?;
        compilation(&world, rules, &mut cells)?;
        memory::weigh(rules, &mut weights)?;
    }
    let line = |work, unit, ours, target| Line { work, unit, peer: "none", theirs: None, ours, target };
    let total = |share| table.figure(&format!("all of these, {share}"), LARGE);
    let lines = vec![
        line("rule changed to first answer by it, 100k rules, p50", "us", total("p50"), Target::AtMost(1000.0)),
        line("rule changed to first answer by it, 100k rules, p99", "us", total("p99"), Target::AtMost(1000.0)),
        line("all groups compiled, 100k rules", "ns a rule", cells.figure(CELL, LARGE), Target::AtMost(150.0)),
        line("all groups compiled, 600k rules", "ns a rule", cells.figure(CELL, 600_000), Target::AtMost(150.0)),
    ];
    let sections = vec![
        table.section("Microseconds from a change of one rule to the first answer of a session by it:"),
        cells.section("Compiling what every principal needs:"),
        weights.section("Bytes:"),
    ];
    Ok(Report { lines, notes: vec![note()], sections })
}

fn note() -> String {
    format!(
        "Rules: {CHANGES} changes, each of one rule of one principal, which has a hundred. What all principals need is \
         compiled by opening a session for each, {COMPILATIONS} times; what sessions cost whose rules are compiled \
         already is taken off. Bytes are resident memory of a process that does nothing else, before and after."
    )
}

const CELL: &str = "ns a rule";

/// Two sessions ask after each change: one of the principal whose rule it is, one of another.
fn changes(world: &World, writer: &mut Writer, rules: usize, table: &mut Table) -> Result<()> {
    let (own, other) = (world.session(principals(rules) - 1)?, world.session(0)?);
    let names = exact_topics(rules);
    let name = names.first().map_or("", String::as_str);
    let [mut applied, mut published, mut of_own, mut of_other, mut all] = [const { Vec::new() }; 5];
    for _ in 0..CHANGES {
        let cost = writer.change()?;
        let first = |session: &Session| -> Result<Duration> {
            let fresh = world.guard.fresh()?;
            let begun = Instant::now();
            // Whatever the answer is, it is by the new rules.
            let answered = session.authorize_named(&fresh, Action::Describe, &Kind::TOPIC, name).is_ok();
            let spent = begun.elapsed();
            anyhow::ensure!(answered || rules < 10, "denied");
            Ok(spent)
        };
        let (first_of_own, first_of_other) = (first(&own)?, first(&other)?);
        applied.push(micros(cost.applied));
        published.push(micros(cost.published));
        of_own.push(micros(first_of_own));
        of_other.push(micros(first_of_other));
        all.push(micros(cost.applied + cost.published + first_of_own));
    }
    for (work, mut samples) in [
        ("rules changed (`Policy::changed_by`)", applied),
        ("put in force (`Publisher::publish`)", published),
        ("first answer of a session that it is about", of_own),
        ("all of these", all),
        ("first answer of another session", of_other),
    ] {
        samples.sort_by(f64::total_cmp);
        for (share, at) in [("p50", samples.len() / 2), ("p99", samples.len() * 99 / 100)] {
            table.put(&format!("{work}, {share}"), rules, samples.get(at).copied().unwrap_or(f64::NAN));
        }
    }
    Ok(())
}

fn compilation(world: &World, rules: usize, table: &mut Table) -> Result<()> {
    let peers: Result<Vec<_>> = (0..principals(rules)).map(|number| world.peer(number)).collect();
    let (peers, mut spent) = (peers?, Vec::new());
    for _ in 0..COMPILATIONS {
        let (guard, _publisher) = guard(&world.view, Clocks::Real)?;
        let open = || -> Result<f64> {
            let begun = Instant::now();
            for peer in &peers {
                drop(guard.session(peer, None)?);
            }
            Ok(begun.elapsed().as_secs_f64())
        };
        let (compiling, compiled) = (open()?, open()?);
        spent.push(compiling - compiled);
    }
    let all = median(spent);
    table.put(CELL, rules, all * 1e9 / f64::from(u32::try_from(rules)?));
    table.put("ms in all", rules, all * 1e3);
    Ok(())
}

fn micros(spent: Duration) -> f64 {
    spent.as_secs_f64() * 1e6
}
