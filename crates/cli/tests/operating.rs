//! The operating page does what it says: its `sh run` blocks are executed in order with the real binary, and its tables
//! of refusals and metrics are those of the code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use countersign_core::peer::Refusal;

const PAGE: &str = include_str!("../../../docs/OPERATING.md");
const METRICS: &str = include_str!("../../control/src/metrics.rs");
/// What all blocks together may take; one of them waits for something that does not happen.
const DEADLINE: Duration = Duration::from_secs(180);

/// The blocks to be run, each behind a line that tells where in the page it is.
fn script() -> String {
    let mut script = String::from(
        "set -euo pipefail\n# The servers that the page leaves running.\n\
         trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT\n",
    );
    let mut running = false;
    for (line, text) in PAGE.lines().enumerate() {
        match text {
            "```sh run" => {
                running = true;
                script.push_str(&format!("echo '== docs/OPERATING.md:{}' >&2\n", line + 1));
            }
            "```" => running = false,
            text if running => script.push_str(&format!("{text}\n")),
            _ => {}
        }
    }
    assert!(!running, "a block of the page is not closed");
    script
}

fn run(script: &str, work: &Path) -> (ExitStatus, String) {
    let binary = Path::new(env!("CARGO_BIN_EXE_countersign")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let told = work.join("told");
    let out = File::create(&told).unwrap();
    let mut bash = Command::new("bash")
        .args(["-c", script])
        .env_clear()
        .envs([("PATH", path.as_str()), ("LC_ALL", "C")])
        .envs([("WORK", work), ("HOME", work), ("TMPDIR", work)])
        .stdin(Stdio::null())
        .stderr(out.try_clone().unwrap())
        .stdout(out)
        // A group of its own: what it started ends with it, whatever becomes of the trap.
        .process_group(0)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + DEADLINE;
    let ended = loop {
        if let Some(ended) = bash.try_wait().unwrap() {
            break ended;
        }
        if Instant::now() > deadline {
            let group = format!("-{}", bash.id());
            Command::new("kill").args(["-KILL", "--", &group]).status().unwrap();
            bash.wait().unwrap();
            let told = std::fs::read_to_string(&told).unwrap();
            panic!("the page's commands take more than {DEADLINE:?}:\n{told}");
        }
        // why: a child offers nothing else to wait for with a limit
        std::thread::sleep(Duration::from_millis(50));
    };
    (ended, std::fs::read_to_string(&told).unwrap())
}

#[test]
fn the_commands_of_the_page_run_as_they_stand() {
    let script = script();
    assert!(script.matches("== docs/OPERATING.md:").count() >= 10, "blocks were found:\n{script}");
    let work = tempfile::tempdir().unwrap();
    let (ended, told) = run(&script, work.path());
    assert!(ended.success(), "{ended}:\n{told}");
    // Told, not only survived.
    for expected in [
        "cluster `east` is made",
        "has joined",
        "n4 (4) is evicted",
        "client/pay-1 is refused with its 2 keys",
        "join token has no uses left",
    ] {
        assert!(told.contains(expected) || logs(work.path()).contains(expected), "`{expected}` is not in:\n{told}");
    }
}

/// What the servers printed into files.
fn logs(work: &Path) -> String {
    let files = std::fs::read_dir(work).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "out"))
        .map(|p| std::fs::read_to_string(p).unwrap())
        .collect()
}

#[test]
fn a_block_that_fails_is_noticed() {
    let work = tempfile::tempdir().unwrap();
    let (ended, told) =
        run("set -euo pipefail\ncountersign status --data \"$WORK/nothing\"\necho not reached\n", work.path());
    assert_eq!(ended.code(), Some(3), "{told}");
    assert!(!told.contains("not reached"));
}

#[test]
fn the_table_of_reasons_gives_the_binarys_advice() {
    for refusal in Refusal::ALL {
        let row = format!("| `{}` | {} |", refusal.label(), countersign::advice(refusal));
        assert!(PAGE.lines().any(|line| line == row), "missing: {row}");
    }
}

#[test]
fn the_table_of_metrics_is_what_a_member_serves() {
    let literals = |text: &str| -> Vec<String> { text.split('"').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut served: Vec<String> = METRICS
        .split("gauge(")
        .filter(|call| call.trim_start().starts_with("&mut registry,"))
        .map(|call| format!("countersign_{}", literals(call)[0]))
        .collect();
    let counters = METRICS.split("counter(").filter(|call| call.trim_start().starts_with("&mut registry,"));
    served.extend(counters.map(|call| format!("countersign_{}_total", literals(call)[0])));
    served.push("countersign_refusals_total".to_owned());
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `countersign_"));
    let documented: Vec<String> = rows.map(|row| format!("countersign_{}", row.split('`').next().unwrap())).collect();
    assert!(served.len() > 5, "{served:?}");
    assert_eq!(documented, served);
}
