//! What goes wrong around a process: clocks, disks, lost nodes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::path::{Path, PathBuf};
use std::process::Command;

use support_cluster::{World, run, run_with};

/// The library that lies about the time to one process, where it is installed.
fn faketime() -> Option<String> {
    let candidates = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    ];
    let found = candidates.into_iter().find(|path| Path::new(path).exists()).map(str::to_owned);
    if found.is_none() {
        println!("skipped: libfaketime is not installed");
        assert!(std::env::var_os("CI").is_none(), "the gate installs faketime");
    }
    found
}

#[test]
fn a_joiner_whose_clock_is_a_day_off_joins_and_is_told() {
    let Some(library) = faketime() else { return };
    let world = World::new();
    let founder = world.founder();
    for (name, offset) in [("ahead", "+24h"), ("behind", "-24h")] {
        let lie = [("LD_PRELOAD", library.as_str()), ("FAKETIME", offset), ("DONT_FAKE_MONOTONIC", "1")];
        let token = founder.token(&["--role", "learner"]);
        let flag = world.token_file(name, &token);
        let mut node = world.node(name);
        node.start_with(&["--join-token", &flag, "--join-addr", &founder.address()], &lie);
        // A member, converged on both sides, that serves no client until its clock is right, and says so.
        let converged = |s: &serde_json::Value| {
            s["members"].as_array().unwrap().iter().any(|m| m["name"] == name && m["converged"] == true)
        };
        founder.until(converged);
        let status = node.until(|s| converged(s) && s["warnings"].to_string().contains("clock is"));
        assert_eq!(status["ready"], false);
        assert!(node.log().contains("clock is wrong"), "{}", node.log());
        // Refused within the time limit, with the skew: not a silent hang.
        let spent = world.path(&format!("{name}-spent"));
        let said = run_with(
            &[
                "server",
                "--data",
                spent.to_str().unwrap(),
                "--name",
                "spent",
                "--cluster-addr",
                "127.0.0.1:0",
                "--join-token",
                &flag,
                "--join-addr",
                &founder.address(),
            ],
            &lie,
        );
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.stderr.contains("no uses left") && said.stderr.contains("clock"), "{said:?}");
        assert!(node.stop().success());
    }
}

struct Mounted(PathBuf);

impl Mounted {
    /// A disk of 32 MiB; none where the machine forbids mounting.
    fn small(at: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]).arg(&at).output();
        if done.is_ok_and(|output| output.status.success()) {
            return Some(Self(at));
        }
        println!("skipped: this machine forbids mounting a small disk");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_ends_the_process_and_loses_nothing_that_was_acknowledged() {
    let world = World::new();
    let Some(disk) = Mounted::small(world.path("disk")) else { return };
    // Its log is on another disk: it has to say why it ends.
    let mut node = world.node("n1");
    node.data = world.path("disk/n1");
    node.start(&["--bootstrap", "--cluster-name", "test"]);
    node.until_ready();
    let filler = disk.0.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    let mut acknowledged = 0;
    while node.ended().is_none() {
        acknowledged += usize::from(node.ask(&["token", "create"]).code == 0);
        assert!(acknowledged < 10_000, "a full disk was never noticed");
    }
    assert_eq!(node.ended().unwrap().code(), Some(3), "{}", node.log());
    assert!(node.log().contains("try: "), "{}", node.log());
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    node.kill();
    node.start(&[]);
    node.until_ready();
    let kept = node.ask(&["token", "list"]).ok().json().as_array().unwrap().len();
    // One more may have been stored without its answer; the cluster token is there from the start.
    assert!((acknowledged + 1..=acknowledged + 2).contains(&kept), "{kept} of {acknowledged} and one");
    node.kill();
}

#[test]
fn a_full_disk_during_the_bootstrap_is_told_and_the_same_command_finishes_later() {
    let world = World::new();
    let Some(disk) = Mounted::small(world.path("disk")) else { return };
    let filler = disk.0.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    let data = disk.0.join("n1");
    let data = data.to_str().unwrap();
    let command = ["server", "--data", data, "--name", "n1", "--bootstrap", "--cluster-addr", "127.0.0.1:0"];
    let said = run(&command);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.stderr.contains("try: "), "{said:?}");
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    let mut node = world.node("disk/n1");
    node.name = "n1".to_owned();
    node.start(&["--bootstrap"]);
    node.until_ready();
    node.kill();
}

#[test]
fn without_a_quorum_nothing_changes_and_the_answer_says_why() {
    let world = World::new();
    let mut nodes = world.voters(3);
    nodes[1].kill();
    nodes[2].kill();
    let generation = nodes[0].status()["generation"].clone();
    let said = nodes[0].ask(&["node", "evict", "n3", "--keep-authority"]);
    assert!(said.code == 3 || said.code == 1, "{said:?}");
    assert!(said.stderr.contains("try"), "{said:?}");
    assert_eq!(nodes[0].status()["generation"], generation);
    nodes[1].start(&[]);
    nodes[2].start(&[]);
    nodes[0].until(|s| s["ready"] == true && s["members"].as_array().is_some_and(|m| m.len() >= 2));
}

#[test]
fn an_eviction_is_in_force_at_the_first_handshake_after_a_restart() {
    let world = World::new();
    let mut nodes = world.voters(3);
    let mut evicted = nodes.pop().unwrap();
    nodes[0].ask(&["node", "evict", "n3", "--keep-authority"]).ok();
    nodes[1].until(|s| s["members"].as_array().unwrap().len() == 2);
    // Only one member is left running, alone, restarted; the evicted node is the first to dial it.
    nodes[0].kill();
    nodes[1].kill();
    nodes[1].start(&[]);
    nodes[1].until(|s| s["members"].as_array().unwrap().len() == 2);
    evicted.kill();
    let (leaf, key) = (evicted.data.join("leaf.pem"), evicted.data.join("keys/leaf.key"));
    let dialed = Command::new("openssl")
        .args(["s_client", "-connect", &nodes[1].address(), "-tls1_3", "-alpn", "countersign/1 peer"])
        .args(["-cert", leaf.to_str().unwrap(), "-key", key.to_str().unwrap()])
        .stdin(std::process::Stdio::null())
        .output();
    if dialed.is_err() {
        println!("skipped: no openssl");
        assert!(std::env::var_os("CI").is_none(), "the gate installs openssl");
        return;
    }
    nodes[1].until(|_| nodes[1].log().contains("was evicted"));
}
