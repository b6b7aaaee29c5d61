//! Reading committed entries: in pages, at the end, below what is purged, and never what is not committed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::time::Duration;

use countersign_core::id::GroupId;
use countersign_raft::{CommittedEntry, Group, GroupConfig, GroupState, LogReadError, ProposeError, limits};
use support::*;

const DATA: GroupId = GroupId(7);

/// A member alone in its group.
async fn alone(config: GroupConfig) -> (Roster, Member, Group) {
    let roster = Roster::default();
    roster.set(DATA, &[1]);
    let mut member = Member::new(1, &Net::default(), &roster);
    let group = member.start(DATA, config).await;
    group.initialize(&ids(&[1])).await.unwrap();
    until(&group, "it leads", |s| s.state == GroupState::Leader).await;
    (roster, member, group)
}

fn command(n: u64) -> Vec<u8> {
    format!("command {n}").into_bytes()
}

/// Proposes so many commands one by one; returns the index of each.
async fn propose(group: &Group, count: u64) -> Vec<u64> {
    let mut indexes = Vec::new();
    for n in 0..count {
        indexes.push(group.propose(command(n)).await.unwrap().position.index);
    }
    indexes
}

/// All entries from `from` on, in pages of `max_bytes`, and how many pages it took.
async fn pages(group: &Group, mut from: u64, max_bytes: usize) -> (Vec<CommittedEntry>, usize) {
    let (mut all, mut pages) = (Vec::new(), 0);
    loop {
        let page = group.read(from, max_bytes).await.unwrap();
        let Some(last) = page.last() else { return (all, pages) };
        assert_eq!(page[0].position.index, from);
        from = last.position.index + 1;
        all.extend(page);
        pages += 1;
    }
}

fn commands(entries: &[CommittedEntry]) -> Vec<Vec<u8>> {
    entries.iter().flat_map(|entry| &entry.commands).map(|command| command.to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_reads_the_same_entries_in_pages_of_any_size() {
    let (net, roster) = (Net::seeded(1), Roster::default());
    let members = trio(&net, &roster, DATA, &config()).await;
    let lead = members[leader(&members, DATA).await].group(DATA);
    let indexes = propose(&lead, 40).await;
    level(&members, DATA).await;
    let (all, one_page) = pages(&lead, 0, usize::MAX).await;
    assert_eq!(one_page, 1);
    assert_eq!(commands(&all), (0..40).map(command).collect::<Vec<_>>());
    assert_eq!(all.iter().map(|entry| entry.position.index).collect::<Vec<_>>(), (0..=indexes[39]).collect::<Vec<_>>());
    for member in &members {
        let group = member.group(DATA);
        // One entry is returned however small the page is.
        for (max_bytes, fewest, most) in [(0, all.len(), all.len()), (1, all.len(), all.len()), (200, 3, all.len() - 1)]
        {
            let (found, pages) = pages(&group, 0, max_bytes).await;
            assert_eq!(found, all);
            assert!((fewest..=most).contains(&pages), "{pages} pages of {max_bytes} bytes");
        }
        assert_eq!(group.read(indexes[5], 0).await.unwrap()[0].commands, [command(5)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_at_the_end_is_empty_and_past_it_an_error() {
    let (_, _member, group) = alone(config()).await;
    let next = propose(&group, 3).await[2] + 1;
    assert_eq!(group.read(next, usize::MAX).await.unwrap(), []);
    for from in [next + 1, u64::MAX] {
        assert!(matches!(group.read(from, 1).await, Err(LogReadError::PastEnd { next: n }) if n == next));
    }
    // Nothing is committed before a group begins.
    let fresh = Member::new(2, &Net::default(), &Roster::default()).start(DATA, config()).await;
    assert_eq!(*fresh.watch_committed().borrow(), None);
    assert_eq!(fresh.read(0, 1).await.unwrap(), []);
    assert!(matches!(fresh.read(1, 1).await, Err(LogReadError::PastEnd { next: 0 })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_below_what_is_purged_names_the_first_entry() {
    let (roster, member, group) = alone(GroupConfig { snapshot_after: 20, keep: 5, ..config() }).await;
    propose(&group, 60).await;
    let purged = until(&group, "it is purged", |s| s.purged.is_some_and(|p| p.index > 20)).await.purged.unwrap();
    let first = purged.index + 1;
    for from in [0, first - 1] {
        let refused = group.read(from, usize::MAX).await;
        assert!(matches!(refused, Err(LogReadError::Purged { first: f }) if f >= first), "{refused:?}");
    }
    let group_now = group.status().purged.unwrap().index + 1;
    assert_eq!(group.read(group_now, 1).await.unwrap()[0].position.index, group_now);
    // As after a restart, from disk alone.
    let mut back = Member::open(1, member.shutdown().await, &Net::default(), &roster);
    let group = back.start(DATA, GroupConfig { snapshot_after: 1000, ..config() }).await;
    let first = group.status().purged.unwrap().index + 1;
    assert!(matches!(group.read(first - 1, 1).await, Err(LogReadError::Purged { first: f }) if f == first));
    let (found, _) = pages(&group, first, 100).await;
    assert_eq!(found[0].position.index, first);
    let tail: Vec<_> = (0..60).map(command).collect();
    assert!(tail.ends_with(&commands(&found)), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_committed_is_not_read() {
    let (net, roster) = (Net::seeded(2), Roster::default());
    let impatient = GroupConfig { deadline: Duration::from_secs(1), ..config() };
    let members = trio(&net, &roster, DATA, &impatient).await;
    let at = leader(&members, DATA).await;
    let group = members[at].group(DATA);
    let next = propose(&group, 3).await[2] + 1;
    net.isolate(members[at].id, &[1, 2, 3], true);
    assert_eq!(group.propose(b"not committed".to_vec()).await, Err(ProposeError::Unknown));
    assert!(group.status().last_log >= Some(next), "it stands in the log");
    assert_eq!(group.read(next, usize::MAX).await.unwrap(), []);
    assert!(matches!(group.read(next + 1, usize::MAX).await, Err(LogReadError::PastEnd { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_that_waits_hears_of_the_next_entry_on_every_member() {
    let (net, roster) = (Net::seeded(3), Roster::default());
    let members = trio(&net, &roster, DATA, &config()).await;
    let lead = members[leader(&members, DATA).await].group(DATA);
    let next = propose(&lead, 1).await[0] + 1;
    let waiting: Vec<_> = members
        .iter()
        .map(|member| {
            let group = member.group(DATA);
            tokio::spawn(async move {
                group.watch_committed().wait_for(|last| *last >= Some(next)).await.unwrap();
                group.read(next, usize::MAX).await.unwrap()
            })
        })
        .collect();
    lead.propose(b"awaited".to_vec()).await.unwrap();
    for reader in waiting {
        let found = tokio::time::timeout(Duration::from_secs(60), reader).await.unwrap().unwrap();
        assert_eq!(found[0].commands, [b"awaited".to_vec()]);
    }
    // A reader that waits for an entry that never comes is told that the group is gone.
    let mut watch = lead.watch_committed();
    lead.shutdown().await;
    let ended = tokio::time::timeout(Duration::from_secs(60), watch.wait_for(|last| *last > Some(u64::MAX - 1))).await;
    assert!(ended.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_read_is_bounded_and_reads_on_from_disk_into_memory() {
    let (_, _member, group) = alone(config()).await;
    let mut first = None;
    for n in 0..10_u8 {
        let at = group.propose(vec![n; limits::ENTRY_LEN_MAX]).await.unwrap().position.index;
        first.get_or_insert(at);
    }
    let first = first.unwrap();
    let page = group.read(first, usize::MAX).await.unwrap();
    // Four and their framing are more than the limit.
    assert_eq!(page.len(), limits::READ_BYTES_MAX / limits::ENTRY_LEN_MAX - 1);
    let (all, _) = pages(&group, first, usize::MAX).await;
    assert_eq!(commands(&all), (0..10_u8).map(|n| vec![n; limits::ENTRY_LEN_MAX]).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_group_is_read_no_more() {
    let (_, member, group) = alone(config()).await;
    // More than stays in memory.
    for n in 0..5_u8 {
        group.propose(vec![n; limits::ENTRY_LEN_MAX]).await.unwrap();
    }
    member.groups.remove(DATA).await.unwrap();
    assert!(matches!(group.read(1, 1).await, Err(LogReadError::Stopped(_))));
}
