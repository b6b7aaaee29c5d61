//! Which parts of a data directory lead to what: each combination of the store, its mark, `member.json`, the keys, the
//! view and the certificate, there or not, for a founder, a voter, a learner and the only voter, by the real binary.
//!
//! The outcome is a committed table: `COUNTERSIGN_BLESS=1 cargo test -p countersign-cli --test data_directory` writes
//! it again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support_cluster::{BINARY, World, run};

const GOLDEN: &str = include_str!("golden/data_directory.txt");

/// The parts, each with its letter. The record beside `member.json` goes with that.
const PARTS: [(char, &[&str]); 6] = [
    ('s', &["store/tables", "store/lock", "data-store"]),
    ('c', &["store/confirmed"]),
    ('m', &["member.json", "store.confirmed", "data-store.confirmed"]),
    ('k', &["keys"]),
    ('v', &["view.bin"]),
    ('l', &["leaf.pem"]),
];

/// A member that was stopped, and how it is started.
struct Kind {
    name: &'static str,
    data: PathBuf,
    flags: Vec<String>,
}

/// How a start ends: what stands in the table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Outcome {
    exit: i32,
    text: String,
}

fn kinds(world: &World) -> Vec<Kind> {
    let mut only = world.node("only");
    only.start(&["--bootstrap", "--cluster-name", "lone"]);
    only.until_ready();
    only.stop();
    let mut nodes = world.voters(2);
    let sponsor = nodes[0].address();
    let mut learner = world.node("n3");
    let token = nodes[0].token(&["--role", "learner"]);
    world.join(&mut learner, &token, &sponsor);
    learner.until_settled(3);
    nodes[0].until_settled(3);
    let bootstrap = vec!["--bootstrap".to_owned()];
    let join = |name: &str| {
        let file = format!("@{}", world.path(&format!("{name}.token")).display());
        vec!["--join-token".to_owned(), file, "--join-addr".to_owned(), sponsor.clone()]
    };
    let (voter_flags, learner_flags) = (join("n2"), join("n3"));
    nodes.push(learner);
    for node in &mut nodes {
        node.stop();
    }
    let kind = |name, node: &str, flags| Kind { name, data: world.path(node), flags };
    vec![
        kind("the founder of a cluster with other voters, started with --bootstrap", "n1", bootstrap.clone()),
        kind("a voter, started with the flags of its join", "n2", voter_flags),
        kind("a learner, started with the flags of its join", "n3", learner_flags),
        kind("the only voter of its cluster, started with --bootstrap", "only", bootstrap),
    ]
}

/// A copy of the directory with the parts that `there` has set.
fn lay_out(kind: &Kind, there: usize, at: &Path) {
    let _ = fs::remove_dir_all(at);
    assert!(Command::new("cp").arg("-a").arg(&kind.data).arg(at).status().unwrap().success());
    let _ = fs::remove_file(at.join("cluster-token"));
    for (place, (_, files)) in PARTS.iter().enumerate() {
        for file in files.iter().filter(|_| there & (1 << place) == 0) {
            let path = at.join(file);
            if path.is_dir() { fs::remove_dir_all(&path).unwrap() } else { fs::remove_file(&path).unwrap() }
        }
    }
    // Empty directories are no part of a member.
    let _ = fs::remove_dir(at.join("store"));
}

fn letters(there: usize) -> String {
    let letter =
        |(place, (letter, _)): (usize, &(char, &[&str]))| if there & (1 << place) == 0 { '-' } else { *letter };
    PARTS.iter().enumerate().map(letter).collect()
}

/// The error and what to try, without what differs from run to run.
fn told(stderr: &str, at: &Path) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.starts_with('{')).collect();
    let [error, next] = lines.as_slice() else { panic!("not an error and a try: {stderr}") };
    assert!(error.starts_with("error: ") && next.starts_with("try: "), "{stderr}");
    let mut text = format!("{error}\n    {next}").replace(at.to_str().unwrap(), "DATA");
    // Which parts are left stands in the row itself.
    if let (Some(from), Some(to)) = (text.find(" holds "), text.find(" of a member, but")) {
        text.replace_range(from + " holds ".len()..to, "…");
    }
    text
}

fn arguments<'a>(kind: &'a Kind, at: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["server", "--data", at, "--name", "n9", "--cluster-addr", "127.0.0.1:0"];
    arguments.extend(kind.flags.iter().map(String::as_str));
    arguments
}

fn outcome(kind: &Kind, there: usize, at: &Path) -> Outcome {
    lay_out(kind, there, at);
    let arguments = arguments(kind, at.to_str().unwrap());
    let checked = run(&[&arguments[..], &["--check"]].concat());
    if checked.code == 0 {
        let has_member = there & 0b100 != 0;
        let text = if has_member { "starts" } else { "holds no member: founds or joins, as the flags say" };
        if has_member || kind.flags.len() == 1 {
            starts(&arguments);
        }
        return Outcome { exit: 0, text: text.to_owned() };
    }
    // The start says the same as the check, and has changed nothing that would make the next one another.
    let started = run(&arguments);
    assert_eq!(
        (started.code, told(&started.stderr, at)),
        (checked.code, told(&checked.stderr, at)),
        "{}",
        letters(there)
    );
    let again = run(&arguments);
    assert_eq!((again.code, told(&again.stderr, at)), (started.code, told(&started.stderr, at)), "{}", letters(there));
    Outcome { exit: started.code, text: told(&started.stderr, at) }
}

/// Starts a server, waits until it says that it is up, and kills it.
fn starts(arguments: &[&str]) {
    use std::io::BufRead;
    let mut child = Command::new(BINARY)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let line = std::io::BufReader::new(child.stdout.take().unwrap()).lines().next();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.is_some_and(|line| line.unwrap().contains(" listens on ")), "it did not come up: {arguments:?}");
}

/// The fewest patterns, largest first, that cover exactly these combinations; `*` is for there or not.
fn patterns(mut left: BTreeSet<usize>) -> Vec<String> {
    let all = left.clone();
    let mut cubes: Vec<(usize, usize)> = (0..64).flat_map(|free| (0..64).map(move |fixed| (free, fixed))).collect();
    cubes.retain(|(free, fixed)| free & fixed == 0);
    cubes.sort_by_key(|(free, fixed)| (std::cmp::Reverse(free.count_ones()), std::cmp::Reverse(*fixed)));
    let mut found = Vec::new();
    for (free, fixed) in cubes {
        let within: Vec<usize> = (0..64).filter(|there| there & !free == fixed).collect();
        if within.iter().all(|there| all.contains(there)) && within.iter().any(|there| left.contains(there)) {
            left.retain(|there| !within.contains(there));
            let part = |(place, letter): (usize, char)| if free & (1 << place) == 0 { letter } else { '*' };
            found.push(letters(fixed).chars().enumerate().map(part).collect());
        }
    }
    found
}

#[test]
fn each_combination_of_parts_has_the_outcome_of_the_table() {
    let world = World::new();
    let mut table = String::from(
        "# s: store, c: store/confirmed, m: member.json and store.confirmed, k: keys, v: view.bin, l: leaf.pem\n# a \
         letter: there; -: not there; *: either. The first pattern that fits is as good as any other: they agree.\n",
    );
    let kinds = kinds(&world);
    let columns = std::thread::scope(|scope| {
        let column = |kind| {
            let world = &world;
            move || -> Vec<Outcome> {
                let at = world.path(&format!("laid-out-{}", std::ptr::from_ref::<Kind>(kind) as usize));
                (0..64).map(|there| outcome(kind, there, &at)).collect()
            }
        };
        let running: Vec<_> = kinds.iter().map(|kind| scope.spawn(column(kind))).collect();
        running.into_iter().map(|column| column.join().unwrap()).collect::<Vec<_>>()
    });
    for (kind, column) in kinds.iter().zip(columns) {
        writeln!(table, "\n{}", kind.name).unwrap();
        let mut outcomes: BTreeMap<Outcome, BTreeSet<usize>> = BTreeMap::new();
        for (there, outcome) in column.into_iter().enumerate() {
            outcomes.entry(outcome).or_default().insert(there);
        }
        for (Outcome { exit, text }, there) in outcomes {
            writeln!(table, "  {}\n    exit {exit}: {text}", patterns(there).join(" ")).unwrap();
        }
    }
    if std::env::var_os("COUNTERSIGN_BLESS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data_directory.txt");
        fs::write(path, &table).unwrap();
        return;
    }
    assert_eq!(table, GOLDEN, "write it again with COUNTERSIGN_BLESS=1, and look at what changed");
}
