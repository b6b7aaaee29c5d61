//! Clusters of three: election, replication, crashes, partitions, hand-over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::collections::BTreeSet;

use countersign_raft::{GroupState, MembershipError, ProposeError, ReadError, TransferError};
use support::*;

fn commands(from: u32, to: u32) -> Vec<Vec<u8>> {
    (from..to).map(|n| format!("command {n}").into_bytes()).collect()
}

/// Proposes all at once, as many clients would; returns what the machine made of them.
async fn propose_all(member: &Member, commands: &[Vec<u8>]) -> BTreeSet<Vec<u8>> {
    let mut proposing = tokio::task::JoinSet::new();
    for command in commands.iter().cloned() {
        let group = member.group(TRUST);
        proposing.spawn(async move { group.propose(command).await.unwrap().outcome });
    }
    proposing.join_all().await.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_commands_survive_the_crash_of_every_member() {
    let (net, roster) = (Net::seeded(1), Roster::default());
    let mut members = trio(&net, &roster, TRUST, &config()).await;
    let at = leader(&members, TRUST).await;
    let outcomes = propose_all(&members[at], &commands(0, 1000)).await;
    assert_eq!(outcomes.len(), 1000, "each command got an outcome of its own");
    level(&members, TRUST).await;
    let journal = members[at].journal(TRUST);
    assert_eq!(journal.iter().collect::<BTreeSet<_>>(), commands(0, 1000).iter().collect());
    let entries = members[at].group(TRUST).status().last_log.unwrap();
    assert!(entries < 500, "commands share entries: {entries} entries for 1000 commands");

    let mut images = Vec::new();
    for member in std::mem::take(&mut members) {
        assert_eq!(member.journal(TRUST), journal);
        images.push((member.id.0, member.crash().await));
    }
    // In another order than they began.
    images.rotate_left(1);
    for (number, image) in images {
        let mut member = Member::open(number, image, &net, &roster);
        member.start(TRUST, config()).await;
        members.push(member);
    }
    let at = leader(&members, TRUST).await;
    assert_eq!(propose_all(&members[at], &commands(1000, 1001)).await, [b"1001".to_vec()].into());
    level(&members, TRUST).await;
    for member in &members {
        let after = member.journal(TRUST);
        assert_eq!((&after[..1000], after.len()), (&journal[..], 1001));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_crashed_alone_catches_up() {
    let (net, roster) = (Net::seeded(2), Roster::default());
    let mut members = trio(&net, &roster, TRUST, &config()).await;
    let at = leader(&members, TRUST).await;
    propose_all(&members[at], &commands(0, 10)).await;
    let victim = members.remove((at + 1) % 3);
    let number = victim.id.0;
    let image = victim.crash().await;
    let at = leader(&members, TRUST).await;
    propose_all(&members[at], &commands(10, 20)).await;
    let mut back = Member::open(number, image, &net, &roster);
    back.start(TRUST, config()).await;
    members.push(back);
    level(&members, TRUST).await;
    assert_eq!(members[2].journal(TRUST), members[at].journal(TRUST));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lossy_network_loses_no_answered_command_and_applies_none_twice() {
    let (net, roster) = (Net::seeded(3), Roster::default());
    let members = trio(&net, &roster, TRUST, &config()).await;
    leader(&members, TRUST).await;
    net.lose(10);
    let mut answered = Vec::new();
    let mut unknown = BTreeSet::new();
    let mut at = 0;
    for command in commands(0, 60) {
        loop {
            match members[at].group(TRUST).propose(command.clone()).await {
                Ok(_) => {
                    answered.push(command);
                    break;
                }
                Err(ProposeError::NotLeader { leader }) => {
                    at = leader.map_or((at + 1) % 3, |leader| leader.0 as usize - 1);
                    tokio::task::yield_now().await;
                }
                Err(ProposeError::Unknown) => {
                    unknown.insert(command);
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    net.lose(0);
    let at = leader(&members, TRUST).await;
    members[at].group(TRUST).propose(b"last".to_vec()).await.unwrap();
    level(&members, TRUST).await;
    let journal = members[at].journal(TRUST);
    let kept: Vec<_> = journal.iter().filter(|c| !unknown.contains(*c) && *c != b"last").cloned().collect();
    assert_eq!(kept, answered);
    assert_eq!(journal.iter().collect::<BTreeSet<_>>().len(), journal.len(), "nothing twice");
    for member in &members {
        assert_eq!(member.journal(TRUST), journal);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolated_leader_answers_unknown_and_later_learns_the_outcome() {
    let (net, roster) = (Net::seeded(4), Roster::default());
    let mut members = trio(&net, &roster, TRUST, &config()).await;
    let at = leader(&members, TRUST).await;
    propose_all(&members[at], &commands(0, 1)).await;
    let old = members.remove(at);
    net.isolate(old.id, &[1, 2, 3], true);
    let lost = old.group(TRUST).propose(b"lost".to_vec()).await;
    assert_eq!(lost, Err(ProposeError::Unknown));
    assert!(matches!(old.group(TRUST).ensure_linearizable().await, Err(ReadError::NoQuorum)));

    let new = leader(&members, TRUST).await;
    propose_all(&members[new], &commands(1, 2)).await;
    // A second entry waits on the old leader when it hears of the new one, and is cut off: it never took effect.
    let waiting = tokio::spawn({
        let group = old.group(TRUST);
        async move { group.propose(b"cut off".to_vec()).await }
    });
    let before = old.group(TRUST).status().last_log;
    until(&old.group(TRUST), "the entry is in its log", |status| status.last_log > before).await;
    net.isolate(old.id, &[1, 2, 3], false);
    assert!(matches!(waiting.await.unwrap(), Err(ProposeError::NotLeader { .. })));
    members.push(old);
    level(&members, TRUST).await;
    for member in &members {
        assert_eq!(member.journal(TRUST), commands(0, 2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_refuses_and_names_the_leader() {
    let (net, roster) = (Net::seeded(5), Roster::default());
    let members = trio(&net, &roster, TRUST, &config()).await;
    let at = leader(&members, TRUST).await;
    let follower = members[(at + 1) % 3].group(TRUST);
    until(&follower, "it follows", |status| status.leader == Some(members[at].id)).await;
    let leader = Some(members[at].id);
    assert_eq!(follower.propose(b"x".to_vec()).await, Err(ProposeError::NotLeader { leader }));
    assert!(matches!(follower.ensure_linearizable().await, Err(ReadError::NotLeader { leader: l }) if l == leader));
    assert!(matches!(follower.remove(id(3)).await, Err(MembershipError::NotLeader { leader: l }) if l == leader));
    assert!(matches!(follower.step_down_to(members[at].id).await, Err(TransferError::NotLeader)));
    let group = members[at].group(TRUST);
    assert!(group.ensure_linearizable().await.unwrap().is_some());

    let max = countersign_raft::limits::ENTRY_LEN_MAX;
    assert!(group.propose(vec![7; max]).await.is_ok());
    assert_eq!(group.propose(vec![7; max + 1]).await, Err(ProposeError::TooLarge { got: max + 1, max }));
    level(&members, TRUST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_to_the_target_and_nothing_is_lost() {
    let (net, roster) = (Net::seeded(6), Roster::default());
    // Five, so that the old leader's vote and the successor's own are not enough.
    let members = founded(&net, &roster, TRUST, &config(), &[1, 2, 3, 4, 5]).await;
    let at = leader(&members, TRUST).await;
    propose_all(&members[at], &commands(0, 5)).await;
    let (old, target) = (members[at].group(TRUST), &members[(at + 2) % 5]);
    assert!(matches!(old.step_down_to(members[at].id).await, Err(TransferError::NotVoter(_))));
    assert!(matches!(old.step_down_to(id(9)).await, Err(TransferError::NotVoter(_))));
    let term = old.status().term;
    let (handed_over, twice) = tokio::join!(old.step_down_to(target.id), old.step_down_to(target.id));
    handed_over.unwrap();
    assert!(matches!(twice, Err(TransferError::InProgress)));
    let status = until(&target.group(TRUST), "it leads", |status| status.state == GroupState::Leader).await;
    assert_eq!(status.term, term + 1, "at the first attempt");
    propose_all(target, &commands(5, 6)).await;
    level(&members, TRUST).await;
    assert_eq!(members[at].journal(TRUST).len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_successor_is_gone_leads_on() {
    let (net, roster) = (Net::seeded(7), Roster::default());
    let members = trio(&net, &roster, TRUST, &config()).await;
    let at = leader(&members, TRUST).await;
    let target = members[(at + 1) % 3].id;
    net.isolate(target, &[1, 2, 3], true);
    let group = members[at].group(TRUST);
    propose_all(&members[at], &commands(0, 1)).await;
    assert!(matches!(group.step_down_to(target).await, Err(TransferError::Behind(_))));
    propose_all(&members[at], &commands(1, 2)).await;
    assert_eq!(group.status().state, GroupState::Leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_come_and_go_one_by_one() {
    let (net, roster) = (Net::seeded(8), Roster::default());
    let mut members = trio(&net, &roster, TRUST, &config()).await;
    let at = leader(&members, TRUST).await;
    let group = members[at].group(TRUST);
    propose_all(&members[at], &commands(0, 3)).await;
    assert!(matches!(group.add_learner(id(4)).await, Err(MembershipError::NotAssigned(n)) if n == id(4)));
    roster.set(TRUST, &[1, 2, 3, 4]);
    assert!(
        matches!(group.set_voters(&ids(&[1, 2, 3, 4]), true).await, Err(MembershipError::NotLearner(n)) if n == id(4))
    );
    let mut fourth = Member::new(4, &net, &roster);
    fourth.start(TRUST, config()).await;
    members.push(fourth);
    group.add_learner(id(4)).await.unwrap();
    until(&group, "the learner caught up", |s| s.matched.get(&id(4)).is_some_and(|m| m.is_some() && *m == s.last_log))
        .await;
    assert_eq!(group.status().learners, ids(&[4]));
    group.set_voters(&ids(&[1, 2, 3, 4]), true).await.unwrap();
    until(&members[3].group(TRUST), "it votes", |s| s.voters == ids(&[1, 2, 3, 4])).await;

    let gone = members[(at + 1) % 3].id;
    group.remove(gone).await.unwrap();
    let status = until(&group, "one is gone", |s| !s.voters.contains(&gone)).await;
    assert!(status.learners.is_empty() && status.voters.len() == 3);
    propose_all(&members[at], &commands(3, 4)).await;
    assert_eq!(propose_all(&members[at], &commands(4, 5)).await, [b"5".to_vec()].into());
    for number in status.voters.iter().filter(|n| **n != members[at].id).skip(1) {
        group.remove(*number).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_cut_off_holds_only_so_much_and_answers_everyone() {
    let (net, roster) = (Net::seeded(10), Roster::default());
    let impatient = countersign_raft::GroupConfig { deadline: std::time::Duration::from_secs(1), ..config() };
    let members = trio(&net, &roster, TRUST, &impatient).await;
    let at = leader(&members, TRUST).await;
    net.isolate(members[at].id, &[1, 2, 3], true);
    let mut proposing = tokio::task::JoinSet::new();
    // One is under way, as many wait as may, and the rest are too many.
    let many = countersign_raft::limits::PROPOSAL_BYTES_MAX / countersign_raft::limits::ENTRY_LEN_MAX + 10;
    for _ in 0..many {
        let group = members[at].group(TRUST);
        proposing.spawn(async move { group.propose(vec![7; countersign_raft::limits::ENTRY_LEN_MAX]).await });
    }
    let began = std::time::Instant::now();
    let answers = proposing.join_all().await;
    let count = |error| answers.iter().filter(|answer| **answer == Err(error)).count();
    assert!(count(ProposeError::Unknown) >= 1 && count(ProposeError::Overloaded) >= 9, "{answers:?}");
    assert_eq!(count(ProposeError::Unknown) + count(ProposeError::Overloaded), many);
    println!("all were answered after {:?}", began.elapsed());
    net.isolate(members[at].id, &[1, 2, 3], false);
    level(&members, TRUST).await;
}

#[tokio::test]
async fn a_group_keeps_its_last_voter() {
    let (net, roster) = (Net::seeded(9), Roster::default());
    roster.set(TRUST, &[1]);
    let mut member = Member::new(1, &net, &roster);
    let group = member.start(TRUST, config()).await;
    group.initialize(&ids(&[1])).await.unwrap();
    until(&group, "it leads", |s| s.state == GroupState::Leader).await;
    assert!(matches!(group.remove(id(1)).await, Err(MembershipError::NoVoter)));
    assert!(group.initialize(&ids(&[1])).await.is_err());
    assert!(member.groups.start(TRUST, Recorder::publishing().0, config()).await.is_err());
}
