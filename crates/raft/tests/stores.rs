//! The two stores of a member: a data group needs the bulk store, and what befalls that store leaves the trust group
//! alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use countersign_core::codec;
use countersign_core::id::{GroupId, StoreId};
use countersign_raft::{
    BulkStoreError, GroupState, HubError, OpenError, RaftRpc, Refusal, StartError, Store, StoreFault, StoreKind,
};
use support::*;

const DATA: GroupId = GroupId(7);

const OTHER: StoreId = StoreId([99; 16]);

async fn propose(member: &Member, group: GroupId, numbers: std::ops::Range<u32>) {
    for n in numbers {
        member.group(group).propose(n.to_string().into_bytes()).await.unwrap();
    }
}

/// Three members of the trust group and of a data group.
async fn both() -> (Net, Roster, Vec<Member>) {
    let (net, roster) = (Net::seeded(1), Roster::default());
    let mut members = trio(&net, &roster, TRUST, &config()).await;
    roster.set(DATA, &[1, 2, 3]);
    for member in &mut members {
        member.start(DATA, config()).await;
    }
    members[0].group(DATA).initialize(&ids(&[1, 2, 3])).await.unwrap();
    leader(&members, DATA).await;
    (net, roster, members)
}

#[tokio::test]
async fn data_group_needs_a_bulk_store_and_the_trust_group_does_not() {
    let (net, roster) = (Net::default(), Roster::default());
    roster.set(TRUST, &[1]);
    roster.set(DATA, &[1]);
    let mut member = Member::new(1, &net, &roster);
    member.start(TRUST, config()).await;
    assert!(!member.dir.path().join("bulk").exists());
    let refused = member.groups.start(DATA, Recorder::publishing().0, config()).await.unwrap_err();
    assert!(matches!(refused, StartError::NoStore(DATA)), "{refused}");
    // The trust store, which is open, does not pass for one.
    let wrong = countersign_raft::StorePlace {
        path: place(1, member.dir.path()).path,
        record: place(1, member.dir.path()).record,
        binding: bulk_place(1, member.dir.path(), OTHER).binding,
    };
    let refused = member.groups.open_bulk(&wrong).unwrap_err();
    assert!(matches!(refused, BulkStoreError::Open(OpenError::Locked { .. })), "{refused}");
    let group = member.start(DATA, config()).await;
    group.initialize(&ids(&[1])).await.unwrap();
    until(&group, "it leads", |s| s.state == GroupState::Leader).await;
    propose(&member, DATA, 0..3).await;
    let again = member.groups.open_bulk(&bulk_place(1, member.dir.path(), first_bulk_store(id(1))));
    assert!(matches!(again.unwrap_err(), BulkStoreError::AlreadyOpen));
    // Each is in files of its own: the trust store knows nothing of the data group.
    let dir = member.shutdown().await;
    std::fs::remove_dir_all(dir.path().join("bulk")).unwrap();
    let missing = bulk_place(1, dir.path(), first_bulk_store(id(1)));
    let mut back = Member::open(1, dir, &net, &roster);
    back.start(TRUST, config()).await;
    let refused = back.groups.open_bulk(&missing).unwrap_err();
    let BulkStoreError::Open(lost) = refused else { panic!("{refused}") };
    assert!(matches!(lost, OpenError::Missing { .. }) && lost.is_loss(), "{lost}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_store_that_fails_stops_data_groups_alone() {
    let (_net, _roster, members) = both().await;
    let at = leader(&members, DATA).await;
    propose(&members[at], DATA, 0..3).await;
    members[at].bulk.as_ref().unwrap().fail_writes_for_testing();
    assert!(members[at].group(DATA).propose(b"lost".to_vec()).await.is_err());
    until(&members[at].group(DATA), "it stopped", |s| s.state == GroupState::Stopped).await;
    assert!(!members[at].store.failed());
    let lead = leader(&members, TRUST).await;
    propose(&members[lead], TRUST, 0..3).await;
    level(&members, TRUST).await;
    assert_eq!(members[at].journal(TRUST).len(), 3);
    assert!(members[at].group(TRUST).running().is_ok());
}

/// The bulk store of one member is lost and another is made; its trust store stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_bulk_store_counts_in_no_group_before_it_is_on_record() {
    let (net, roster, mut members) = both().await;
    let at = leader(&members, DATA).await;
    propose(&members[at], DATA, 0..10).await;
    level(&members, DATA).await;
    let lost = members.remove((at + 1) % 3);
    let number = lost.id.0;
    let dir = lost.shutdown().await;
    std::fs::remove_dir_all(dir.path().join("bulk")).unwrap();
    std::fs::remove_file(dir.path().join("bulk-record")).unwrap();
    let new = bulk_place(number, dir.path(), OTHER);
    Store::create(&new, StoreId([5; 16])).unwrap();

    let mut back = Member::with_bulk(number, dir, &new, &net, &roster);
    back.start(TRUST, config()).await;
    back.start(DATA, config()).await;
    members.push(back);
    // In the trust group nothing has changed: it takes part, votes and leads.
    let lead = leader(&members, TRUST).await;
    if members[lead].id != id(number) {
        level(&members, TRUST).await;
        members[lead].group(TRUST).step_down_to(id(number)).await.unwrap();
    }
    let back = &members[2];
    propose(back, TRUST, 0..2).await;
    level(&members, TRUST).await;
    // In the data group it is refused by name, votes for no one, and receives nothing.
    let expected = StoreFault::Other { node: id(number), expected: first_bulk_store(id(number)), got: OTHER };
    let waited = async {
        while !roster.faults_of(DATA).contains(&expected) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), waited).await.expect("it was not refused");
    assert_eq!(roster.faults_of(TRUST), []);
    let term = back.group(DATA).status().term + 5;
    let lead = leader(&members[..2], DATA).await;
    let candidacy =
        |node: u64, store| codec::encode(&(store, (((term, node), false), Some(((term, node), 1_u64 << 40))))).unwrap();
    let body = candidacy(number, OTHER);
    let refused = members[lead].groups.handle(id(number), DATA, RaftRpc::Vote, &body).await.unwrap_err();
    assert!(matches!(refused, HubError::Store { .. }), "{refused}");
    assert_eq!(refused.refusal(), Refusal::OtherStore);
    let other = members[lead].id;
    let refused = back.groups.handle(other, DATA, RaftRpc::Vote, &candidacy(other.0, first_bulk_store(other))).await;
    assert!(matches!(refused, Err(HubError::NoVote { group: DATA })), "{refused:?}");
    // Once it is on record it counts, and receives what the others have.
    roster.bind_of(StoreKind::Bulk, id(number), OTHER);
    propose(&members[leader(&members[..2], DATA).await], DATA, 10..12).await;
    level(&members, DATA).await;
    assert_eq!(members[2].journal(DATA).len(), 12);
}
