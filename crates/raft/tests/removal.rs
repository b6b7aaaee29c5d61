//! A data group that is removed: it leaves no records, and its id never comes back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use countersign_core::id::GroupId;
use countersign_raft::{Group, GroupConfig, GroupState, RemoveError, StartError};
use support::*;

const GONE: GroupId = GroupId(7);
const STAYS: GroupId = GroupId(8);

/// A member alone in its groups, both with ten commands.
async fn alone(net: &Net, roster: &Roster) -> Member {
    let mut member = Member::new(1, net, roster);
    for group in [TRUST, GONE, STAYS] {
        roster.set(group, &[1]);
        let group = member.start(group, GroupConfig { snapshot_after: 4, keep: 1, ..config() }).await;
        group.initialize(&ids(&[1])).await.unwrap();
        until(&group, "it leads", |s| s.state == GroupState::Leader).await;
        propose(&group, 0..10).await;
    }
    member
}

async fn propose(group: &Group, numbers: std::ops::Range<u32>) {
    for n in numbers {
        group.propose(n.to_string().into_bytes()).await.unwrap();
    }
}

async fn start(member: &Member, group: GroupId) -> Result<Group, StartError> {
    member.groups.start(group, Recorder::publishing().0, config()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_group_never_runs_here_again_and_others_go_on() {
    let (net, roster) = (Net::default(), Roster::default());
    let mut member = alone(&net, &roster).await;
    let handle = member.group(GONE);
    assert!(matches!(member.groups.remove(TRUST).await, Err(RemoveError::Trust)));
    let (first, second) = tokio::join!(member.groups.remove(GONE), member.groups.remove(GONE));
    first.unwrap();
    assert!(matches!(second, Err(RemoveError::Busy(GONE))), "{second:?}");
    assert!(handle.running().is_err() && member.groups.group(GONE).is_none());
    assert!(matches!(start(&member, GONE).await, Err(StartError::Removed(GONE))));
    // Once more, and one that never ran here.
    member.groups.remove(GONE).await.unwrap();
    member.groups.remove(GroupId(9)).await.unwrap();
    propose(&member.group(STAYS), 10..12).await;
    propose(&member.group(TRUST), 10..12).await;

    member = Member::open(1, member.crash().await, &net, &roster);
    let group = member.start(STAYS, config()).await;
    until(&group, "it leads", |s| s.state == GroupState::Leader).await;
    group.ensure_linearizable().await.unwrap();
    assert_eq!(member.journal(STAYS).len(), 12);
    for removed in [GONE, GroupId(9)] {
        assert!(matches!(start(&member, removed).await, Err(StartError::Removed(group)) if group == removed));
    }
}

#[tokio::test]
async fn group_cannot_be_removed_without_its_store() {
    let (net, roster) = (Net::default(), Roster::default());
    let member = Member::new(1, &net, &roster);
    assert!(matches!(member.groups.remove(GONE).await, Err(RemoveError::NoStore(GONE))));
}
