//! Snapshots: for members that are too far behind, and for a log that must not grow without bound.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::time::Duration;

use countersign_raft::{GroupConfig, limits};
use support::*;

/// Little log, and patience: entries and snapshots here are long, and no election is looked for.
fn small() -> GroupConfig {
    GroupConfig {
        snapshot_after: 20,
        keep: 5,
        heartbeat: Duration::from_millis(500),
        election_min: Duration::from_secs(2),
        election_max: Duration::from_secs(4),
        deadline: Duration::from_secs(20),
    }
}

async fn propose_each(member: &Member, from: u32, to: u32) {
    for n in from..to {
        member.group(TRUST).propose(format!("{n}").into_bytes()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_too_far_behind_gets_a_snapshot_and_keeps_it() {
    let (net, roster) = (Net::seeded(1), Roster::default());
    let members = trio(&net, &roster, TRUST, &small()).await;
    let at = leader(&members, TRUST).await;
    let (lead, lagging) = (members[at].group(TRUST), &members[(at + 1) % 3]);
    net.isolate(lagging.id, &[1, 2, 3], true);
    propose_each(&members[at], 0, 100).await;
    until(&lead, "its log is purged", |s| s.purged.is_some_and(|p| p.index > 20)).await;
    assert!(lagging.journal(TRUST).len() < 5);
    net.isolate(lagging.id, &[1, 2, 3], false);
    level(&members, TRUST).await;
    assert_eq!(lagging.journal(TRUST).len(), 100);
    let status = until(&lagging.group(TRUST), "it has the snapshot", |s| s.snapshot.is_some()).await;
    assert!(status.snapshot.unwrap().index > 20);

    // A restart begins from the snapshot that was installed.
    let mut members = members;
    let lagging = members.remove((at + 1) % 3);
    let number = lagging.id.0;
    let image = lagging.crash().await;
    let alone = Net::default();
    let mut back = Member::open(number, image, &alone, &roster);
    let group = back.start(TRUST, small()).await;
    assert!(group.status().snapshot.unwrap().index > 20);
    assert!(back.journal(TRUST).len() > 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_purged_only_behind_a_durable_snapshot() {
    let (net, roster) = (Net::seeded(2), Roster::default());
    roster.set(TRUST, &[1]);
    let mut member = Member::new(1, &net, &roster);
    let group = member.start(TRUST, small()).await;
    group.initialize(&ids(&[1])).await.unwrap();
    leader(std::slice::from_ref(&member), TRUST).await;
    for round in 0..5 {
        propose_each(&member, round * 30, round * 30 + 30).await;
        group.snapshot_now().await.unwrap();
        // Whatever the moment of the crash, the log's front is gone only if the snapshot holds it.
        let image = tempfile::tempdir().unwrap();
        copy(member.dir.path(), image.path());
        let alone = Net::default();
        let mut back = Member::open(1, image, &alone, &roster);
        let after = back.start(TRUST, small()).await.status();
        let expected: Vec<Vec<u8>> = (0..round * 30 + 30).map(|n| format!("{n}").into_bytes()).collect();
        let found = back.journal(TRUST);
        assert!(expected.starts_with(&found), "{} of {}", found.len(), expected.len());
        assert!(after.last_log.unwrap() >= u64::from(round * 30 + 30), "no entry that was answered is gone");
        back.shutdown().await;
    }
    until(&group, "purged", |s| s.purged.is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_snapshot_travels_whole() {
    let (net, roster) = (Net::seeded(3), Roster::default());
    let members = trio(&net, &roster, TRUST, &small()).await;
    let at = leader(&members, TRUST).await;
    let lagging = &members[(at + 1) % 3];
    net.isolate(lagging.id, &[1, 2, 3], true);
    for n in 0..8_u8 {
        members[at].group(TRUST).propose(vec![n; limits::ENTRY_LEN_MAX]).await.unwrap();
    }
    propose_each(&members[at], 0, 40).await;
    until(&members[at].group(TRUST), "its log is purged", |s| s.purged.is_some_and(|p| p.index > 9)).await;
    net.isolate(lagging.id, &[1, 2, 3], false);
    level(&members, TRUST).await;
    assert_eq!(lagging.journal(TRUST), members[at].journal(TRUST));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_that_names_a_removed_member_is_made_again() {
    let (net, roster) = (Net::seeded(4), Roster::default());
    let mut members = trio(&net, &roster, TRUST, &small()).await;
    roster.set(TRUST, &[1, 2, 3, 4]);
    let mut fourth = Member::new(4, &net, &roster);
    fourth.start(TRUST, small()).await;
    let at = leader(&members, TRUST).await;
    let lead = members[at].group(TRUST);
    lead.add_learner(id(4)).await.unwrap();
    let lagging = members.remove((at + 1) % 3);
    let at = members.iter().position(|m| m.id == members[at.min(1)].id).unwrap();
    net.isolate(lagging.id, &[1, 2, 3, 4], true);
    let at = if members[at].group(TRUST).status().leader == Some(members[at].id) { at } else { 1 - at };
    propose_each(&members[at], 0, 60).await;
    until(&lead, "a snapshot with four members", |s| s.purged.is_some_and(|p| p.index > 20)).await;
    // The fourth leaves; the last snapshot still names it, and the lagging member knows that it is gone.
    lead.remove(id(4)).await.unwrap();
    roster.set(TRUST, &[1, 2, 3]);
    fourth.shutdown().await;
    net.isolate(lagging.id, &[1, 2, 3, 4], false);
    members.push(lagging);
    level(&members, TRUST).await;
    assert_eq!(members[2].journal(TRUST).len(), 60);
    assert!(net.refused().iter().any(|refused| refused.contains("names node 4")), "{:?}", net.refused());
}
