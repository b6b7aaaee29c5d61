//! A rolling update by running processes: members of two levels side by side, replaced in any order under load, taken
//! back, raised past a learner that is off, and stopped by name where the binary is too old.
//!
//! There is one build, so the members are this test itself as child processes, each told which level it knows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use countersign::{ClusterToken, LeaseLength, Member, NewCluster, Settings, Start};
use countersign_core::name::{Address, Name};
use countersign_core::trust::command::{FEATURE_LEVEL, LEVEL_FOR_TESTING};
use countersign_core::trust::join_token::JoinToken;
use countersign_raft::GroupStopped;
use support_cluster::{Node, PATIENCE, Said, World, pause};

/// Tells a child what it is.
const CHILD: &str = "COUNTERSIGN_TEST_MEMBER";
const OLD: u32 = FEATURE_LEVEL;
const NEW: u32 = LEVEL_FOR_TESTING;

/// A member's process, and its directory to ask the binary about.
struct Running {
    node: Node,
    process: Option<(Child, ChildStdin, BufReader<ChildStdout>)>,
    level: u32,
}

impl Running {
    /// Runs the member of this name at `level`; with `join` it joins if it has not yet, without it founds.
    fn start(world: &World, name: &str, level: u32, join: Option<(&str, &str)>) -> Self {
        let mut member = Self { node: world.node(name), process: None, level };
        member.spawn(world, level, join);
        member.node.until_ready();
        member
    }

    fn spawn(&mut self, world: &World, level: u32, join: Option<(&str, &str)>) {
        let data = self.node.data.to_str().unwrap();
        let mut told = vec![data.to_owned(), self.node.name.clone(), level.to_string()];
        told.extend(join.into_iter().flat_map(|(token, sponsor)| [token.to_owned(), sponsor.to_owned()]));
        let log =
            File::options().create(true).append(true).open(world.path(&format!("{}.log", self.node.name))).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "three_members_are_replaced_in_every_order_and_a_release_can_be_taken_back",
                "--nocapture",
            ])
            .env(CHILD, told.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        (self.level, self.process) = (level, Some((child, input, BufReader::new(output))));
    }

    /// Has the child do something and returns what it answered.
    fn say(&mut self, word: &str) -> String {
        let (_, input, output) = self.process.as_mut().unwrap();
        writeln!(input, "{word}").unwrap();
        for line in output.lines() {
            let line = line.unwrap();
            if let Some(answer) = line.strip_prefix("answer: ") {
                return answer.to_owned();
            }
        }
        panic!("{} said nothing to `{word}`:\n{}", self.node.name, self.node.log());
    }

    /// Waits until the process has ended by itself.
    fn ended(&mut self) -> ExitStatus {
        // Its pipes stay open for as long as it runs: an end of its input is no reason to stop.
        let (mut child, _input, _output) = self.process.take().unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if begun.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("{} does not end:\n{}", self.node.name, self.node.log());
            }
            pause();
        }
    }

    /// Stops the process and starts it at `level`, as an update or its taking back does.
    fn replace(&mut self, world: &World, level: u32) {
        self.say("stop");
        assert!(self.ended().success(), "{}", self.node.log());
        self.spawn(world, level, None);
        self.node.until_ready();
    }

    fn notes(&mut self) -> String {
        self.say("notes")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some((child, _, _)) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// In a child: is a member until it is told to stop.
fn be_a_member_if_told() {
    let Ok(told) = std::env::var(CHILD) else { return };
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let code = runtime.block_on(serve(told.split(' ').collect()));
    std::process::exit(code);
}

async fn serve(told: Vec<&str>) -> i32 {
    let mut settings = Settings::new(told[0], "127.0.0.1:0".parse().unwrap());
    settings.name = Some(Name::parse(told[1]).unwrap());
    settings.level_for_testing = Some(told[2].parse().unwrap());
    settings.lease = LeaseLength::from_secs(2).unwrap();
    let start = match told.get(3..5) {
        Some([token, sponsor]) => {
            Start::Join { token: JoinToken::parse(token).unwrap(), sponsor: Address::parse(sponsor).unwrap() }
        }
        _ if std::path::Path::new(told[0]).join("member.json").exists() => Start::Existing,
        _ => Start::Bootstrap(NewCluster {
            name: Name::parse("test").unwrap(),
            trust_domain: None,
            token: Some(ClusterToken::default()),
            authority: None,
            policy: Default::default(),
        }),
    };
    let member = match Member::start(settings, start).await {
        Ok((member, _)) => member,
        Err(error) => {
            eprintln!("not started: {}", chain(&error));
            return 3;
        }
    };
    let words = tokio::task::spawn_blocking({
        let (member, runtime) = (member.clone(), tokio::runtime::Handle::current());
        move || {
            for word in std::io::stdin().lines() {
                let word = word.unwrap();
                let answer = match word.split_once(' ') {
                    Some(("note", note)) => {
                        match runtime.block_on(member.node_for_testing().note_for_testing(note.to_owned())) {
                            Ok(()) => "noted".to_owned(),
                            Err(error) => format!("refused: {}", chain(&*error)),
                        }
                    }
                    _ if word == "notes" => member.node_for_testing().notes_for_testing().join(","),
                    _ => {
                        runtime.block_on(member.shutdown());
                        "stopped".to_owned()
                    }
                };
                println!("answer: {answer}");
                if answer == "stopped" {
                    break;
                }
            }
        }
    });
    tokio::pin!(words);
    tokio::select! {
        _ = &mut words => 0,
        stopped = member.failed() => {
            if matches!(stopped, GroupStopped::Shutdown) {
                words.await.unwrap();
                return 0;
            }
            eprintln!("stopped: {}", chain(&stopped));
            4
        }
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// `n` voters at the old level.
fn voters(world: &World, n: usize) -> Vec<Running> {
    let mut members = vec![Running::start(world, "n1", OLD, None)];
    for i in 2..=n {
        let token = members[0].node.token(&["--role", "voter"]);
        let sponsor = members[0].node.address();
        members.push(Running::start(world, &format!("n{i}"), OLD, Some((&token, &sponsor))));
        for member in &members {
            member.node.until_settled(i);
        }
    }
    members
}

fn leader(members: &[Running]) -> usize {
    let status = members[0].node.until(|status| status["raft"]["leader"].is_u64());
    let leader = status["raft"]["leader"].as_u64().unwrap();
    let of = |member: &Running| member.node.status()["node"].as_u64();
    members.iter().position(|member| of(member) == Some(leader)).unwrap()
}

/// Goes on making tokens at a member that is not being replaced; each must be made.
fn load(nodes: &[&Node], down: &AtomicUsize, over: &AtomicBool, made: &AtomicUsize) {
    let mut turn = 0;
    while !over.load(Ordering::Relaxed) {
        let at = turn % nodes.len();
        turn += 1;
        if at == down.load(Ordering::SeqCst) {
            continue;
        }
        let said: Said = nodes[at].ask(&["token", "create", "--ttl", "1m"]);
        // One that is stopped while it answers may fail.
        if said.code != 0 && at != down.load(Ordering::SeqCst) {
            panic!("{}: {said:?}\n{}", nodes[at].name, nodes[at].log());
        }
        made.fetch_add(usize::from(said.code == 0), Ordering::Relaxed);
    }
}

/// Replaces all members in this order while tokens are made.
fn roll(world: &World, members: &mut [Running], order: &[usize], level: u32) {
    let (down, over, made) = (AtomicUsize::new(usize::MAX), AtomicBool::new(false), AtomicUsize::new(0));
    let names: Vec<Node> = members.iter().map(|member| world.node(&member.node.name)).collect();
    let nodes: Vec<&Node> = names.iter().collect();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| load(&nodes, &down, &over, &made));
        let replaced = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for at in order {
                down.store(*at, Ordering::SeqCst);
                members[*at].replace(world, level);
                down.store(usize::MAX, Ordering::SeqCst);
                let before = made.load(Ordering::Relaxed);
                let begun = Instant::now();
                while made.load(Ordering::Relaxed) < before + 3 && !asked.is_finished() {
                    assert!(begun.elapsed() < PATIENCE, "nothing is made any more");
                    pause();
                }
            }
        }));
        over.store(true, Ordering::Relaxed);
        asked.join().unwrap();
        replaced.unwrap();
    });
}

/// The leader first, or last, and the others around it.
fn order(members: &[Running], first: bool) -> Vec<usize> {
    let leader = leader(members);
    let others = (0..members.len()).filter(|at| *at != leader);
    if first { [leader].into_iter().chain(others).collect() } else { others.chain([leader]).collect() }
}

/// Waits until so many members are on record that do not know the new level.
fn until_behind(node: &Node, count: usize) {
    let begun = Instant::now();
    loop {
        let shown = node.ask(&["cluster", "level"]).ok().json();
        if shown["levels"].as_array().unwrap().iter().filter(|member| member["level"] != NEW).count() == count {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{shown}");
        pause();
    }
}

#[test]
fn three_members_are_replaced_in_every_order_and_a_release_can_be_taken_back() {
    be_a_member_if_told();
    let world = World::new();
    let mut members = voters(&world, 3);
    // An update, its taking back, and so on: nothing of the new level is written before the level rises.
    for (round, order) in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].iter().enumerate() {
        let level = if round % 2 == 0 { NEW } else { OLD };
        roll(&world, &mut members, order, level);
        let mixed = members[round % 3].say("note early");
        assert!(mixed.starts_with("refused: ") && mixed.contains(&format!("level {NEW} is needed")), "{mixed}");
    }
    roll(&world, &mut members, &[1, 0, 2], NEW);
    // All are new; but the level has not risen.
    until_behind(&members[0].node, 0);
    let [first, rest @ ..] = &mut members[..] else { panic!() };
    assert!(first.say("note early").contains(&format!("the cluster is at level {OLD}")));
    first.node.ask(&["cluster", "level", "--raise"]).ok();
    assert_eq!(first.say("note one"), "noted");
    for member in rest {
        let begun = Instant::now();
        while member.notes() != "one" {
            assert!(begun.elapsed() < PATIENCE, "{}", member.node.log());
            pause();
        }
    }
    // Too late to take it back: the old binary refuses by name, also on what it has in its own log.
    members[2].say("stop");
    members[2].ended();
    members[2].spawn(&world, OLD, None);
    assert!(!members[2].ended().success());
    assert!(
        members[2].node.log().contains(&format!("level {NEW} is needed, this binary knows level {OLD}")),
        "{}",
        members[2].node.log()
    );
    members[2].spawn(&world, NEW, None);
    members[2].node.until_ready();
    assert_eq!(members[2].notes(), "one");
}

#[test]
fn five_members_are_replaced_leader_first_and_leader_last() {
    let world = World::new();
    let mut members = voters(&world, 5);
    let first = order(&members, true);
    roll(&world, &mut members, &first, NEW);
    let last = order(&members, false);
    roll(&world, &mut members, &last, OLD);
}

#[test]
fn learner_that_is_off_holds_nothing_up_and_stops_by_name_until_it_is_updated() {
    let world = World::new();
    let mut members = voters(&world, 3);
    let (token, sponsor) = (members[0].node.token(&["--role", "learner"]), members[0].node.address());
    let mut learner = Running::start(&world, "n4", OLD, Some((&token, &sponsor)));
    learner.say("stop");
    learner.ended();
    let order = order(&members, true);
    roll(&world, &mut members, &order, NEW);
    let node = &members[0].node;
    until_behind(node, 1);
    // Also while it runs: a raise that is refused stops no member that knows less.
    learner.spawn(&world, OLD, None);
    learner.node.until_ready();
    let refused = node.ask(&["cluster", "level", "--raise"]);
    assert!(refused.code == 1 && refused.stderr.contains("n4"), "{refused:?}");
    let generation = node.until_ready()["generation"].as_u64();
    learner.node.until(|status| status["ready"] == true && status["generation"].as_u64() >= generation);
    learner.say("stop");
    learner.ended();
    let refused = node.ask(&["cluster", "level", "--raise", "--without", "n2"]);
    assert!(refused.code == 1 && refused.stderr.contains("votes"), "{refused:?}");
    node.ask(&["cluster", "level", "--raise", "--without", "n4"]).ok();
    assert_eq!(members[1].say("note one"), "noted");
    // Off until now, it meets the new level and stops; it skips nothing.
    learner.spawn(&world, OLD, None);
    assert!(!learner.ended().success());
    assert!(
        learner.node.log().contains(&format!("level {NEW} is needed, this binary knows level {OLD}")),
        "{}",
        learner.node.log()
    );
    learner.spawn(&world, NEW, None);
    learner.node.until_ready();
    assert_eq!(learner.notes(), "one");
    // A joiner whose binary is too old keeps its token.
    let token = members[0].node.token(&["--role", "learner"]);
    let mut joiner = Running { node: world.node("n5"), process: None, level: OLD };
    joiner.spawn(&world, OLD, Some((&token, &sponsor_of(&members))));
    assert_eq!(joiner.ended().code(), Some(3));
    assert!(joiner.node.log().contains(&format!("the cluster is at level {NEW}")), "{}", joiner.node.log());
    joiner.spawn(&world, NEW, Some((&token, &sponsor_of(&members))));
    joiner.node.until_ready();
}

fn sponsor_of(members: &[Running]) -> String {
    members[0].node.address()
}
