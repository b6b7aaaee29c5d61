//! Stores that are not what they should be: made again, copied, or older than what the member acknowledged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use countersign_core::codec;
use countersign_core::id::StoreId;
use countersign_raft::{GroupState, HubError, RaftRpc, Refusal, StoreFault};
use support::*;

const OTHER: StoreId = StoreId([99; 16]);

/// Three members with some commands, and the place of one that follows.
async fn running() -> (Net, Roster, Vec<Member>, usize) {
    let (net, roster) = (Net::seeded(1), Roster::default());
    let members = trio(&net, &roster, TRUST, &config()).await;
    let lead = leader(&members, TRUST).await;
    propose(&members[lead], 0..10).await;
    level(&members, TRUST).await;
    (net, roster, members, (lead + 1) % 3)
}

async fn propose(member: &Member, numbers: std::ops::Range<u32>) {
    for n in numbers {
        member.group(TRUST).propose(n.to_string().into_bytes()).await.unwrap();
    }
}

/// Waits until something was refused for a store, and returns the first.
async fn fault(roster: &Roster) -> StoreFault {
    let waited = async {
        loop {
            if let Some(fault) = roster.faults().first() {
                return *fault;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), waited).await.expect("nothing was refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_copies_of_a_member_one_counts() {
    let (net, roster, mut members, follower) = running().await;
    let original = members.remove(follower);
    let number = original.id.0;
    // A second copy with a store of its own takes over the number's connections; the original goes on beside it.
    let copy_dir = tempfile::tempdir().unwrap();
    copy(original.dir.path(), copy_dir.path());
    let mut second = Member::copied(number, OTHER, copy_dir, &net, &roster);
    second.start(TRUST, config()).await;
    let expected = StoreFault::Other { node: id(number), expected: first_store(id(number)), got: OTHER };
    assert_eq!(fault(&roster).await, expected);
    // It makes no quorum: with the third down, nothing is committed, though it answers every message.
    let lead = leader(&members, TRUST).await;
    let third = members.remove(1 - lead);
    let third_number = third.id.0;
    let third_dir = third.shutdown().await;
    let lone = members.remove(0);
    assert!(lone.group(TRUST).propose(b"not counted".to_vec()).await.is_err());
    // Nor does it vote or stand: neither of the two leads, however long they try.
    until(&lone.group(TRUST), "it loses its leadership or keeps it without effect", |_| true).await;
    assert!(lone.group(TRUST).ensure_linearizable().await.is_err());
    assert_ne!(second.group(TRUST).status().state, GroupState::Leader);
    // The original counts at once.
    net.attach(original.id, original.groups.clone());
    let members = vec![lone, original];
    let lead = leader(&members, TRUST).await;
    propose(&members[lead], 10..12).await;
    assert!(second.journal(TRUST).len() <= 11);
    second.groups.shutdown().await;
    let mut third = Member::open(third_number, third_dir, &net, &roster);
    third.start(TRUST, config()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voter_with_an_empty_store_under_its_number_elects_no_leader() {
    let (net, roster, mut members, follower) = running().await;
    // One voter is down while something is committed; then the two that have it are gone: one stopped, one wiped.
    let stale = members.remove(follower);
    let stale_number = stale.id.0;
    let stale_dir = stale.shutdown().await;
    let lead = leader(&members, TRUST).await;
    propose(&members[lead], 10..20).await;
    level(&members, TRUST).await;
    let wiped = members.remove(1 - lead);
    let wiped_number = wiped.id.0;
    wiped.shutdown().await;
    let knowing = members.remove(0);
    let knowing_number = knowing.id.0;
    let knowing_dir = knowing.shutdown().await;

    let mut stale = Member::open(stale_number, stale_dir, &net, &roster);
    stale.start(TRUST, config()).await;
    let mut wiped = Member::copied(wiped_number, OTHER, tempfile::tempdir().unwrap(), &net, &roster);
    wiped.start(TRUST, config()).await;
    // The stale voter stands and stands; the wiped one answers, and its votes count for nothing.
    let terms = stale.group(TRUST).status().term + 3;
    until(&stale.group(TRUST), "it stands again and again", |s| s.term >= terms).await;
    assert_ne!(stale.group(TRUST).status().state, GroupState::Leader);
    assert_eq!(stale.journal(TRUST).len(), 10);
    let mut knowing = Member::open(knowing_number, knowing_dir, &net, &roster);
    knowing.start(TRUST, config()).await;
    let members = vec![stale, knowing];
    leader(&members, TRUST).await;
    level(&members, TRUST).await;
    assert!(members.iter().all(|member| member.journal(TRUST).len() == 20), "nothing committed was lost");
    wiped.groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_copy_of_a_voter_is_refused_and_told() {
    let (net, roster, mut members, follower) = running().await;
    let original = members.remove(follower);
    let number = original.id.0;
    let older = tempfile::tempdir().unwrap();
    copy(original.dir.path(), older.path());
    members.insert(follower, original);
    let lead = leader(&members, TRUST).await;
    propose(&members[lead], 10..40).await;
    level(&members, TRUST).await;
    // One more, so that what came before is known to be committed by all.
    members.remove(follower).shutdown().await;
    let mut restored = Member::open(number, older, &net, &roster);
    restored.start(TRUST, config()).await;
    let found = fault(&roster).await;
    assert!(matches!(found, StoreFault::Log { .. } | StoreFault::Vote { .. }), "{found}");
    assert_eq!(found.node(), id(number));
    let lead = leader(&members, TRUST).await;
    assert!(members[lead].group(TRUST).is_rolled_back(id(number), first_store(id(number))));
    // Its candidacy is refused by name, so that it learns why no member follows it. The same holds once it was sent
    // all entries again.
    let term = members[lead].group(TRUST).status().term + 1;
    for (store, last, refusal) in [
        (first_store(id(number)), 5, Refusal::RolledBack),
        (first_store(id(number)), 1 << 20, Refusal::RolledBack),
        (OTHER, 1 << 20, Refusal::OtherStore),
    ] {
        let body = codec::encode(&(store, (((term, number), false), Some(((term, number), last as u64))))).unwrap();
        let refused = members[lead].groups.handle(id(number), TRUST, RaftRpc::Vote, &body).await.unwrap_err();
        assert!(matches!(refused, HubError::Store { .. }), "{refused}");
        assert_eq!(refused.refusal(), refusal);
    }
    // The leader's memory of it outlives the leader's process.
    let leader_member = members.remove(lead);
    let leader_number = leader_member.id.0;
    let mut again = Member::open(leader_number, leader_member.crash().await, &net, &roster);
    again.start(TRUST, config()).await;
    assert!(again.group(TRUST).is_rolled_back(id(number), first_store(id(number))));
    // With a new store on record it counts.
    restored.shutdown().await;
    roster.bind(id(number), OTHER);
    let mut returned = Member::copied(number, OTHER, tempfile::tempdir().unwrap(), &net, &roster);
    returned.start(TRUST, config()).await;
    members.push(again);
    members.push(returned);
    level(&members, TRUST).await;
    assert!(members.iter().all(|member| member.journal(TRUST).len() == 40));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_after_an_acknowledgement_is_no_rollback() {
    let (net, roster, mut members, _) = running().await;
    for round in 0..6 {
        let lead = leader(&members, TRUST).await;
        let number = 100 * (round + 1);
        let group = members[lead].group(TRUST);
        let proposing = tokio::spawn(async move {
            for n in number..number + 40 {
                let _ = group.propose(n.to_string().into_bytes()).await;
            }
        });
        // A follower, or the leader itself, ends in the middle and comes back as it was on disk.
        let victim = (lead + round as usize) % 3;
        let crashed = members.remove(victim);
        let id = crashed.id.0;
        let mut back = Member::open(id, crashed.crash().await, &net, &roster);
        back.start(TRUST, config()).await;
        members.insert(victim, back);
        proposing.await.unwrap();
        level(&members, TRUST).await;
    }
    assert_eq!(roster.faults(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machine_learns_the_members_that_the_log_had_at_each_entry() {
    let (net, roster) = (Net::seeded(1), Roster::default());
    roster.set(TRUST, &[1, 2]);
    let mut members = vec![Member::new(1, &net, &roster), Member::new(2, &net, &roster)];
    for member in &mut members {
        member.start(TRUST, config()).await;
    }
    let group = members[0].group(TRUST);
    group.initialize(&ids(&[1])).await.unwrap();
    until(&group, "it leads", |s| s.state == GroupState::Leader).await;
    let call = async || String::from_utf8(group.propose(ROLL_CALL.to_vec()).await.unwrap().outcome).unwrap();
    assert_eq!(call().await, "{NodeId(1)} {}");
    group.add_learner(id(2)).await.unwrap();
    assert_eq!(call().await, "{NodeId(1)} {NodeId(2)}");
    group.set_voters(&ids(&[1, 2]), true).await.unwrap();
    assert_eq!(call().await, "{NodeId(1), NodeId(2)} {}");
    group.set_voters(&ids(&[1]), true).await.unwrap();
    assert_eq!(call().await, "{NodeId(1)} {NodeId(2)}");
    group.remove(id(2)).await.unwrap();
    assert_eq!(call().await, "{NodeId(1)} {}");
    // Also after a restart from a snapshot, which holds no entry of a change.
    group.snapshot_now().await.unwrap();
    until(&group, "a snapshot", |s| s.snapshot >= s.applied).await;
    let dir = members.remove(0).shutdown().await;
    let mut back = Member::open(1, dir, &net, &roster);
    let group = back.start(TRUST, config()).await;
    until(&group, "it leads", |s| s.state == GroupState::Leader).await;
    let outcome = group.propose(ROLL_CALL.to_vec()).await.unwrap().outcome;
    assert_eq!(String::from_utf8(outcome).unwrap(), "{NodeId(1)} {}");
}

/// Until it hears of its successor, it sends its own entries where others are committed by now: Raft tells it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deposed_leader_with_entries_of_its_own_is_accused_of_nothing() {
    let (net, roster, mut members, _) = running().await;
    let deposed = members.remove(leader(&members, TRUST).await);
    let others: Vec<u64> = members.iter().map(|member| member.id.0).collect();
    net.isolate(deposed.id, &others, true);
    // Written and never committed.
    let lost = deposed.group(TRUST);
    let lost = tokio::spawn(async move { lost.propose(b"lost".to_vec()).await });
    let successor = leader(&members, TRUST).await;
    propose(&members[successor], 10..20).await;
    net.isolate(deposed.id, &others, false);
    members.push(deposed);
    level(&members, TRUST).await;
    assert_eq!(roster.faults(), []);
    assert!(!members[2].journal(TRUST).contains(&b"lost".to_vec()));
    let _ = lost.await.unwrap();
}

/// Two voters were restored from older copies, or were down: they elect a leader and commit other entries in place of
/// those that the third has committed. It keeps what it has, whatever the leader sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_that_lacks_what_is_committed_is_not_followed() {
    let (net, roster, mut members, follower) = running().await;
    let stale = members.remove(follower);
    let lead = leader(&members, TRUST).await;
    let knows = members.remove(lead);
    let restored = members.remove(0);
    let (restored_number, stale_number) = (restored.id.0, stale.id.0);
    // One is down, and the other one's directory is copied, before something is committed.
    let stale_dir = stale.shutdown().await;
    let older = tempfile::tempdir().unwrap();
    copy(restored.dir.path(), older.path());
    propose(&knows, 100..110).await;
    let kept = knows.journal(TRUST);
    let (knows_number, knows_dir) = (knows.id.0, knows.shutdown().await);
    drop(restored.shutdown().await);
    let mut back =
        [Member::open(restored_number, older, &net, &roster), Member::open(stale_number, stale_dir, &net, &roster)];
    for member in &mut back {
        member.start(TRUST, config()).await;
    }
    let lead = leader(&back, TRUST).await;
    propose(&back[lead], 200..205).await;
    let mut knows = Member::open(knows_number, knows_dir, &net, &roster);
    knows.start(TRUST, config()).await;
    let conflict = |fault: &StoreFault| matches!(fault, StoreFault::Conflict { .. });
    let waited = async {
        while !roster.faults().iter().any(conflict) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), waited).await.expect("nothing was refused");
    assert_eq!(knows.journal(TRUST), kept, "nothing was taken in place of what is committed");
    assert_eq!(knows.group(TRUST).running().map_err(|stopped| stopped.to_string()), Ok(()));
}
