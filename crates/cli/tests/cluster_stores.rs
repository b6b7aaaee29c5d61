//! A member whose store is gone, another's or an older copy never votes as if it had it: it does not start, names the
//! way back, and the others go on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use countersign_core::codec;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::view::View;
use support_cluster::{Node, PATIENCE, World, pause, run};

/// A start that must end by itself with 3, and what it said at its end.
fn refused(node: &mut Node, flags: &[&str]) -> String {
    let before = node.log().len();
    node.start(flags);
    let begun = Instant::now();
    let ended = loop {
        if let Some(ended) = node.ended() {
            break ended;
        }
        assert!(begun.elapsed() < PATIENCE, "{} has started:\n{}", node.name, &node.log()[before..]);
        pause();
    };
    node.kill();
    let said = node.log()[before..].to_owned();
    assert_eq!(ended.code(), Some(3), "{said}");
    said
}

/// The same of `--check`, which changes nothing and says the same.
fn refused_and_checked(node: &mut Node, flags: &[&str]) -> String {
    let data = node.data.to_str().unwrap().to_owned();
    let name = node.name.clone();
    let check = ["server", "--check", "--data", &data, "--name", &name, "--cluster-addr", "127.0.0.1:0"];
    let checked = run(&[&check[..], flags].concat());
    assert_eq!(checked.code, 3, "{checked:?}");
    let said = refused(node, flags);
    assert!(said.ends_with(&checked.stderr), "start: {said}\ncheck: {}", checked.stderr);
    said
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

fn replace(what: &Path, by: &Path) {
    fs::remove_dir_all(what).unwrap();
    copy(by, what);
}

fn goes_on(nodes: &[Node]) {
    for node in nodes {
        node.until_ready();
        node.token(&[]);
    }
}

#[test]
fn a_voter_without_its_store_does_not_start_and_the_others_go_on() {
    let world = World::new();
    let mut nodes = world.voters(3);
    // Another member's store, as it is when that member is down.
    nodes[1].stop();
    copy(&nodes[1].data.join("store"), &world.path("others-store"));
    nodes[1].start(&[]);
    nodes[1].until_ready();
    let mut lost = nodes.pop().unwrap();
    lost.stop();
    copy(&lost.data.join("store"), &world.path("older-store"));
    lost.start(&[]);
    lost.until_ready();
    goes_on(&nodes);
    // The later writes must have reached it: else the copy is no older one.
    let count = |status: &serde_json::Value| status["changes"]["count"].as_u64();
    let newest = count(&nodes[0].status());
    lost.until(|status| count(status) >= newest);
    lost.stop();
    let good = world.path("good");
    copy(&lost.data, &good);

    let data = lost.data.clone();
    let store = data.join("store");
    let way = format!("try: countersign server --return-as-learner --data {}\n", data.display());
    let older = world.path("older-store");
    let others = world.path("others-store");
    let ways: [(&str, &dyn Fn(), &str); 7] = [
        ("removed", &|| fs::remove_dir_all(&store).unwrap(), "there is no store in"),
        (
            "emptied",
            &|| {
                fs::remove_dir_all(&store).unwrap();
                fs::create_dir(&store).unwrap();
            },
            "there is no store in",
        ),
        ("another's", &|| replace(&store, &others), "is the store of node 2 of cluster"),
        ("an older copy", &|| replace(&store, &older), "has lost confirmed writes"),
        ("without its tables", &|| fs::remove_dir_all(store.join("tables")).unwrap(), "is damaged"),
        ("without its mark", &|| fs::remove_file(store.join("confirmed")).unwrap(), "is missing, the record"),
        ("without its record", &|| fs::remove_file(data.join("store.confirmed")).unwrap(), "is missing, the record"),
    ];
    for (what, destroy, reason) in ways {
        destroy();
        let said = refused_and_checked(&mut lost, &[]);
        assert!(said.contains(reason), "{what}: {said}");
        assert!(said.contains("error: this member's store cannot be used: "), "{what}: {said}");
        assert!(said.ends_with(&way), "{what}: {said}");
        goes_on(&nodes);
        replace(&data, &good);
    }

    // Without the file that names its member, it can found no cluster and join none.
    fs::remove_file(data.join("member.json")).unwrap();
    let token = world.token_file("again", &nodes[0].token(&[]));
    let address = nodes[0].address();
    for flags in [&[][..], &["--bootstrap"], &["--join-token", &token, "--join-addr", &address]] {
        let said = refused_and_checked(&mut lost, flags);
        assert!(said.contains("but no `member.json`") && said.contains("try: put member.json back"), "{said}");
        assert!(!data.join("member.json").exists() && !data.join("bootstrap.bin").exists(), "{flags:?}");
        assert!(!data.join("join.json").exists(), "{flags:?}");
    }
    goes_on(&nodes);
    assert_eq!(nodes[0].status()["members"].as_array().unwrap().len(), 3);

    // With all of it, it is who it was.
    replace(&data, &good);
    lost.start(&[]);
    lost.until_settled(3);
}

#[test]
fn the_only_voter_without_its_store_is_told_that_this_version_cannot_recover_it() {
    let world = World::new();
    let mut node = world.founder();
    node.stop();
    fs::remove_dir_all(node.data.join("store")).unwrap();
    for flags in [&[][..], &["--bootstrap"]] {
        let said = refused_and_checked(&mut node, flags);
        assert!(said.contains("there is no store in") && said.contains("is not in this version"), "{said}");
        assert!(!said.contains("--return-as-learner"), "{said}");
        assert!(!node.data.join("store").exists());
    }
}

#[test]
fn a_founder_that_lost_its_store_knows_who_joined_since() {
    let world = World::new();
    let mut nodes = world.voters(2);
    let mut founder = nodes.remove(0);
    // It writes down the members of the cluster, so that it knows which to ask.
    let voters = || {
        let view: View = codec::decode(&fs::read(founder.data.join("view.bin")).unwrap()).unwrap();
        view.members.scan().values().filter(|member| member.suffrage == Suffrage::Voter).count()
    };
    let begun = Instant::now();
    while voters() < 2 {
        assert!(begun.elapsed() < PATIENCE, "the founder does not write down who joined");
        pause();
    }
    founder.kill();
    fs::remove_dir_all(founder.data.join("store")).unwrap();
    let said = refused_and_checked(&mut founder, &["--bootstrap"]);
    assert!(said.contains("--return-as-learner"), "{said}");
}
