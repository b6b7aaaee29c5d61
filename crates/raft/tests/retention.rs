//! Groups whose log entries are their data: what is deleted, what a restart applies, and what a member that lags
//! receives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use countersign_core::codec;
use countersign_core::group::GroupMembers;
use countersign_core::id::GroupId;
use countersign_raft::{ApplyError, Group, GroupConfig, GroupMachine, GroupState, LogPosition, RestoreError};
use support::*;

const DATA: GroupId = GroupId(7);

/// What a shelf is: the floor, and the entries from there on with their commands.
type Content = (u64, BTreeMap<u64, Vec<Vec<u8>>>);

/// A shelf, and how many commands were applied to it since it was made.
#[derive(Clone, Default)]
struct Seen {
    content: Arc<Mutex<Content>>,
    applied: Arc<AtomicU64>,
}

/// Keeps the commands of the entries from its floor on; `trim n` moves the floor to entry `n`.
struct Shelf {
    content: Content,
    seen: Seen,
}

impl GroupMachine for Shelf {
    fn apply(&mut self, at: LogPosition, _: &GroupMembers, command: &[u8]) -> Result<Vec<u8>, ApplyError> {
        self.seen.applied.fetch_add(1, Ordering::Relaxed);
        let (floor, entries) = &mut self.content;
        match std::str::from_utf8(command).unwrap().strip_prefix("trim ") {
            Some(index) => {
                *floor = index.parse::<u64>().unwrap().clamp(*floor, at.index);
                *entries = entries.split_off(floor);
            }
            None => entries.entry(at.index).or_default().push(command.to_vec()),
        }
        Ok(at.index.to_string().into_bytes())
    }

    fn snapshot(&self) -> Vec<u8> {
        codec::encode(&self.content).unwrap()
    }

    fn retention_floor(&self) -> Option<u64> {
        Some(self.content.0)
    }

    fn base(&self) -> Vec<u8> {
        codec::encode(&Content::from((self.content.0, BTreeMap::new()))).unwrap()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.content = codec::decode(bytes).map_err(RestoreError::new)?;
        Ok(())
    }

    fn applied_batch(&mut self, _: Option<LogPosition>) {
        self.seen.content.lock().unwrap().clone_from(&self.content);
    }
}

/// A checkpoint every twenty entries; `keep` must say nothing here.
fn small() -> GroupConfig {
    GroupConfig { snapshot_after: 20, keep: 1000, ..config() }
}

async fn start(member: &mut Member) -> (Group, Seen) {
    let seen = Seen::default();
    member.bulk();
    let shelf = Shelf { content: Content::default(), seen: seen.clone() };
    (member.groups.start(DATA, Box::new(shelf), small()).await.unwrap(), seen)
}

/// A member alone in its group.
async fn alone() -> (Roster, Member, Group, Seen) {
    let roster = Roster::default();
    roster.set(DATA, &[1]);
    let mut member = Member::new(1, &Net::default(), &roster);
    let (group, seen) = start(&mut member).await;
    group.initialize(&ids(&[1])).await.unwrap();
    until(&group, "it leads", |s| s.state == GroupState::Leader).await;
    (roster, member, group, seen)
}

async fn three() -> (Net, Roster, Vec<Member>, Vec<Seen>) {
    let (net, roster) = (Net::seeded(1), Roster::default());
    roster.set(DATA, &[1, 2, 3]);
    let (mut members, mut seen) = (Vec::new(), Vec::new());
    for number in 1..=3 {
        let mut member = Member::new(number, &net, &roster);
        seen.push(start(&mut member).await.1);
        members.push(member);
    }
    members[0].group(DATA).initialize(&ids(&[1, 2, 3])).await.unwrap();
    leader(&members, DATA).await;
    (net, roster, members, seen)
}

/// Proposes so many commands one by one; returns the index of the last.
async fn propose(group: &Group, count: u64) -> u64 {
    let mut last = 0;
    for n in 0..count {
        last = group.propose(format!("{n}").into_bytes()).await.unwrap().position.index;
    }
    last
}

async fn trim(group: &Group, index: u64) {
    group.propose(format!("trim {index}").into_bytes()).await.unwrap();
}

async fn purged(group: &Group, floor: u64) {
    until(group, "its log is purged to the floor", |s| s.purged.is_some_and(|p| p.index >= floor - 1)).await;
}

fn content(seen: &Seen) -> Content {
    seen.content.lock().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_is_purged_at_the_floor_and_nowhere_else() {
    let (_, _member, group, seen) = alone().await;
    let last = propose(&group, 100).await;
    // Checkpoints came by, and nothing was deleted: no floor was set.
    assert_eq!((group.status().purged, group.status().snapshot), (None, None));
    for floor in [1, 30, 31, last] {
        trim(&group, floor).await;
        purged(&group, floor).await;
        let status = group.status();
        assert_eq!(status.purged.map(|p| p.index), Some(floor - 1));
        assert_eq!(status.snapshot, status.purged);
        assert_eq!(content(&seen).0, floor);
    }
    // Nothing left but the trim itself.
    trim(&group, u64::MAX).await;
    let last = group.status().last_log.unwrap();
    purged(&group, last).await;
    propose(&group, 3).await;
    assert_eq!(content(&seen).1.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_applies_what_came_after_the_checkpoint_alone() {
    let (roster, mut member, group, mut seen) = alone().await;
    propose(&group, 90).await;
    trim(&group, 10).await;
    purged(&group, 10).await;
    for round in 0..3 {
        let group = member.group(DATA);
        propose(&group, 5).await;
        let expected = content(&seen);
        assert!(expected.1.len() > 80);
        let image = if round == 1 { member.shutdown().await } else { member.crash().await };
        member = Member::open(1, image, &Net::default(), &roster);
        let group;
        (group, seen) = start(&mut member).await;
        until(&group, "it leads", |s| s.state == GroupState::Leader).await;
        group.ensure_linearizable().await.unwrap();
        assert_eq!(content(&seen), expected);
        let applied = seen.applied.load(Ordering::Relaxed);
        assert!(applied < 30, "{applied} commands of {} were applied again", expected.1.len());
        assert_eq!(group.status().purged.map(|p| p.index), Some(9));
    }
}

/// Whatever the moment of the crash, no entry is gone that the checkpoint does not hold, and none from the floor on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_at_any_moment_leaves_all_entries_from_the_floor_on() {
    let (roster, member, group, seen) = alone().await;
    // A checkpoint below every floor.
    propose(&group, 30).await;
    for round in 1..8 {
        let last = propose(&group, 15).await;
        trim(&group, last - 5).await;
        let before = content(&seen);
        // At once, and after the purge.
        if round % 2 == 0 {
            purged(&group, last - 5).await;
        }
        let image = tempfile::tempdir().unwrap();
        copy(member.dir.path(), image.path());
        let mut back = Member::open(1, image, &Net::default(), &roster);
        let (group, found) = start(&mut back).await;
        until(&group, "it leads", |s| s.state == GroupState::Leader).await;
        group.ensure_linearizable().await.unwrap();
        assert_eq!(content(&found), before, "{round}");
        // Entries that the crash kept from being purged are purged now.
        purged(&group, last - 5).await;
        back.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_agree_on_the_floor_and_one_that_lags_begins_there() {
    let (net, roster, mut members, seen) = three().await;
    let at = leader(&members, DATA).await;
    let (lead, lagging) = (members[at].group(DATA), (at + 1) % 3);
    // It has a checkpoint of its own before it lags.
    propose(&lead, 30).await;
    level(&members, DATA).await;
    net.isolate(members[lagging].id, &[1, 2, 3], true);
    let last = propose(&lead, 60).await;
    let floor = last - 10;
    trim(&lead, floor).await;
    purged(&lead, floor).await;
    let applied = seen[lagging].applied.load(Ordering::Relaxed);
    net.isolate(members[lagging].id, &[1, 2, 3], false);
    level(&members, DATA).await;
    for (member, seen) in members.iter().zip(&seen) {
        purged(&member.group(DATA), floor).await;
        assert_eq!(member.group(DATA).status().purged.map(|p| p.index), Some(floor - 1));
        assert_eq!(content(seen).0, floor);
    }
    assert_eq!(content(&seen[lagging]), content(&seen[at]));
    assert_eq!(content(&seen[at]).1.len(), 11);
    let received = seen[lagging].applied.load(Ordering::Relaxed) - applied;
    assert!(received < 15, "entries that are deleted were not sent, and it applied {received}");

    // Its restart begins from there, and asks no other member. One more, so that what came before is known to be
    // committed.
    let expected = content(&seen[lagging]);
    propose(&lead, 1).await;
    level(&members, DATA).await;
    let back = members.remove(lagging);
    let number = back.id.0;
    let mut back = Member::open(number, back.crash().await, &Net::default(), &roster);
    let (group, found) = start(&mut back).await;
    assert_eq!(group.status().purged.map(|p| p.index), Some(floor - 1));
    let found = content(&found);
    assert_eq!(found.0, expected.0);
    assert_eq!(found.1.iter().take(11).collect::<Vec<_>>(), expected.1.iter().collect::<Vec<_>>());
}

/// Members changed after the floor: a member that begins at the floor learns who they are from the entries after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newcomer_begins_at_the_floor_with_the_members_of_then() {
    let (net, roster, members, _) = three().await;
    let at = leader(&members, DATA).await;
    let lead = members[at].group(DATA);
    let floor = propose(&lead, 30).await;
    roster.set(DATA, &[1, 2, 3, 4]);
    // The leader restarts with a checkpoint that holds the change, so that nothing but the checkpoint tells who was
    // before.
    lead.add_learner(id(4)).await.unwrap();
    trim(&lead, floor).await;
    purged(&lead, floor).await;
    propose(&lead, 30).await;
    let mut members = members;
    let old = members.remove(at);
    let number = old.id.0;
    let mut back = Member::open(number, old.crash().await, &net, &roster);
    start(&mut back).await;
    members.push(back);
    leader(&members, DATA).await;
    let lead = &members[leader(&members, DATA).await];
    if lead.id != id(number) {
        level(&members, DATA).await;
        lead.group(DATA).step_down_to(id(number)).await.unwrap();
    }
    let lead = members[2].group(DATA);
    trim(&lead, floor + 1).await;
    purged(&lead, floor + 1).await;

    let mut fourth = Member::new(4, &net, &roster);
    let (group, seen) = start(&mut fourth).await;
    let upto = lead.ensure_linearizable().await.unwrap();
    let status = until(&group, "it has caught up", |s| s.applied >= upto).await;
    assert_eq!((status.voters, status.learners), (ids(&[1, 2, 3]), ids(&[4])));
    assert_eq!(status.purged.map(|p| p.index), Some(floor));
    assert_eq!(content(&seen).0, floor + 1);
    // Also after a restart that asks no other member.
    let mut back = Member::open(4, fourth.crash().await, &Net::default(), &roster);
    let (group, found) = start(&mut back).await;
    let status = group.status();
    assert_eq!((status.voters, status.learners), (ids(&[1, 2, 3]), ids(&[4])));
    assert_eq!(content(&found).0, floor + 1);
}
