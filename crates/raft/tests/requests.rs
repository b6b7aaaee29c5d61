//! Who may send what: several groups on one transport, and requests that must be refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::codec;
use countersign_core::id::{GroupId, NodeId, StoreId};
use countersign_raft::{GroupState, HubError, Implausible, RaftRpc, Refusal, limits};
use serde::Serialize;
use support::*;

const PAIR: GroupId = GroupId(7);
const WIDE: GroupId = GroupId(8);

// The wire form of the requests, written down apart from the code that decodes them.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Leader {
    term: u64,
    node: u64,
}

#[derive(Serialize, Clone, Copy)]
struct Ballot {
    leader: Leader,
    elected: bool,
}

#[derive(Serialize, Clone, Copy)]
struct At {
    leader: Leader,
    index: u64,
}

fn ballot(term: u64, node: u64, elected: bool) -> Ballot {
    Ballot { leader: Leader { term, node }, elected }
}

fn at(term: u64, node: u64, index: u64) -> At {
    At { leader: Leader { term, node }, index }
}

fn vote(term: u64, candidate: u64) -> Vec<u8> {
    vote_from(candidate, first_store(id(candidate)), term, 1 << 40)
}

fn vote_from(candidate: u64, store: StoreId, term: u64, last: u64) -> Vec<u8> {
    codec::encode(&(store, (ballot(term, candidate, false), Some(at(term, candidate, last))))).unwrap()
}

fn heartbeat(term: u64, leader: u64) -> Vec<u8> {
    let body = (ballot(term, leader, true), None::<At>, Vec::<()>::new(), None::<At>);
    codec::encode(&(first_store(id(leader)), body)).unwrap()
}

fn snapshot(term: u64, leader: u64, members: &[u64], data: &[u8]) -> Vec<u8> {
    let last = Some(at(term, leader, 1 << 40));
    let voters: BTreeSet<u64> = members.iter().copied().collect();
    let nodes: BTreeMap<u64, ()> = members.iter().map(|id| (*id, ())).collect();
    let body = (ballot(term, leader, true), (last, (last, (vec![voters], nodes)), "id"), data);
    codec::encode(&(first_store(id(leader)), body)).unwrap()
}

fn timeout_now(term: u64, leader: u64) -> Vec<u8> {
    codec::encode(&(first_store(id(leader)), ballot(term, leader, true))).unwrap()
}

/// Three members; all in the trust group and in `WIDE`, the first two alone in `PAIR`.
async fn cluster() -> (Net, Roster, Vec<Member>) {
    let (net, roster) = (Net::seeded(1), Roster::default());
    let mut members = trio(&net, &roster, TRUST, &config()).await;
    roster.set(PAIR, &[1, 2]);
    roster.set(WIDE, &[1, 2, 3]);
    for member in &mut members {
        member.start(WIDE, config()).await;
        if member.id != id(3) {
            member.start(PAIR, config()).await;
        }
    }
    members[1].group(WIDE).initialize(&ids(&[1, 2, 3])).await.unwrap();
    members[1].group(PAIR).initialize(&ids(&[1, 2])).await.unwrap();
    leader(&members, TRUST).await;
    leader(&members, WIDE).await;
    leader(&members[..2], PAIR).await;
    (net, roster, members)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_share_a_transport_and_a_store_and_nothing_else() {
    let (net, _, members) = cluster().await;
    for group in [TRUST, WIDE, PAIR] {
        let of_it = if group == PAIR { &members[..2] } else { &members[..] };
        let lead = &of_it[leader(of_it, group).await];
        for n in 0..3 {
            lead.group(group).propose(format!("{group} {n}").into_bytes()).await.unwrap();
        }
        level(of_it, group).await;
        let expected: Vec<Vec<u8>> = (0..3).map(|n| format!("{group} {n}").into_bytes()).collect();
        assert!(of_it.iter().all(|member| member.journal(group) == expected));
    }
    assert_eq!(net.refused(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_that_is_not_assigned_is_refused_with_every_request() {
    let (_net, roster, members) = cluster().await;
    let first = &members[0].groups;
    let before = members[0].group(PAIR).status();
    let requests = |node: u64| {
        [
            (RaftRpc::Vote, vote(99, node)),
            (RaftRpc::Append, heartbeat(99, node)),
            (RaftRpc::Snapshot, snapshot(99, node, &[1, 2], b"")),
            (RaftRpc::TimeoutNow, timeout_now(99, node)),
        ]
    };
    for (kind, body) in requests(3) {
        let error = first.handle(id(3), PAIR, kind, &body).await.unwrap_err();
        assert!(matches!(error, HubError::NotAssigned { peer: NodeId(3), .. }), "{kind:?}: {error}");
        assert_eq!(error.refusal(), Refusal::NotAssigned);
        // In the name of one who is: the connection tells otherwise.
        let error = first.handle(id(3), PAIR, kind, &requests(2)[kind as usize].1).await.unwrap_err();
        assert!(matches!(error, HubError::NotAssigned { .. }), "{kind:?}: {error}");
    }
    // One that runs here but whose assignment is not known, one that is assigned but does not run here, and neither.
    roster.forget(WIDE);
    roster.set(GroupId(9), &[1, 2, 3]);
    for group in [WIDE, GroupId(9), GroupId(10)] {
        for (kind, body) in requests(3) {
            let error = first.handle(id(3), group, kind, &body).await.unwrap_err();
            assert!(matches!(error, HubError::NotYet { .. }), "{kind:?}: {error}");
        }
    }
    assert_eq!(members[0].group(PAIR).status().term, before.term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_speaks_in_anothers_name_is_refused() {
    let (_net, _, members) = cluster().await;
    let before = members[0].group(WIDE).status();
    for (kind, body) in [
        (RaftRpc::Vote, vote(99, 2)),
        (RaftRpc::Append, heartbeat(99, 2)),
        (RaftRpc::Snapshot, snapshot(99, 2, &[1, 2], b"")),
        (RaftRpc::TimeoutNow, timeout_now(99, 2)),
    ] {
        let error = members[0].groups.handle(id(3), WIDE, kind, &body).await.unwrap_err();
        assert!(
            matches!(error, HubError::WrongSender { peer: NodeId(3), claimed: NodeId(2), .. }),
            "{kind:?}: {error}"
        );
        assert_eq!(error.refusal(), Refusal::Invalid);
    }
    let after = members[0].group(WIDE).status();
    assert_eq!((after.term, after.leader), (before.term, before.leader));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_member_sends_is_refused_and_harms_nothing() {
    let (_net, _, members) = cluster().await;
    let first = &members[0].groups;
    let refuse = async |kind: RaftRpc, body: &[u8]| first.handle(id(3), WIDE, kind, body).await.unwrap_err();

    for kind in [RaftRpc::Vote, RaftRpc::Append, RaftRpc::Snapshot, RaftRpc::TimeoutNow] {
        assert!(matches!(refuse(kind, &[]).await, HubError::Malformed(_)));
        assert!(matches!(refuse(kind, &[2, 0, 0]).await, HubError::Malformed(_)));
        assert!(matches!(refuse(kind, &vec![0; kind.len_max()]).await, HubError::Malformed(_)));
        let error = refuse(kind, &vec![0; kind.len_max() + 1]).await;
        assert!(matches!(error, HubError::TooLarge { got, max } if got == max + 1), "{error}");
    }
    let mut trailing = vote(99, 3);
    trailing.push(0);
    assert!(matches!(refuse(RaftRpc::Vote, &trailing).await, HubError::Malformed(_)));
    // A term so far ahead that the next election would overflow it.
    for body in [vote(u64::MAX, 3), vote(limits::TERM_JUMP_MAX * 2, 3)] {
        assert!(matches!(refuse(RaftRpc::Vote, &body).await, HubError::Implausible(Implausible::Term { .. })));
    }
    let error = refuse(RaftRpc::Append, &heartbeat(u64::MAX, 3)).await;
    assert!(matches!(error, HubError::Implausible(Implausible::Term { .. })));
    // Not the leader, or not of this term.
    let status = members[0].group(WIDE).status();
    let other = if status.leader == Some(id(3)) { 2 } else { 3 };
    let error = first.handle(id(other), WIDE, RaftRpc::TimeoutNow, &timeout_now(status.term, other)).await;
    assert!(matches!(error.unwrap_err(), HubError::NotLeader { .. }));

    let lead = &members[leader(&members, WIDE).await];
    lead.group(WIDE).propose(b"still here".to_vec()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_brings_an_outsider_is_refused() {
    let (_net, roster, members) = cluster().await;
    roster.set(WIDE, &[1, 2, 3, 4]);
    let term = members[0].group(WIDE).status().term + 1;
    for (group, outsider) in [(WIDE, 5), (TRUST, 4)] {
        let body = snapshot(term, 3, &[1, 2, 3, outsider], b"");
        let error = members[0].groups.handle(id(3), group, RaftRpc::Snapshot, &body).await.unwrap_err();
        assert!(matches!(error, HubError::Outsider { member, .. } if member == id(outsider)), "{error}");
        assert_eq!(error.refusal(), Refusal::Outsider);
    }
    for (members_of_it, expected) in [(&[][..], Implausible::Membership)] {
        let body = snapshot(term, 3, members_of_it, b"");
        let error = members[0].groups.handle(id(3), WIDE, RaftRpc::Snapshot, &body).await.unwrap_err();
        assert!(matches!(error, HubError::Implausible(e) if e == expected), "{error}");
    }
    // Within the assignment it is accepted: the test above would pass if every snapshot were refused.
    let data = codec::encode(&vec![b"from the snapshot".to_vec()]).unwrap();
    let body = snapshot(term, 3, &[1, 2, 3, 4], &data);
    members[0].groups.handle(id(3), WIDE, RaftRpc::Snapshot, &body).await.unwrap();
    assert_eq!(members[0].journal(WIDE), [b"from the snapshot".to_vec()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_refuses_a_snapshot_stops_its_group_alone() {
    let (_net, _, mut members) = cluster().await;
    let term = members[0].group(WIDE).status().term + 1;
    let body = snapshot(term, 3, &[1, 2, 3], b"not what the machine wrote");
    let error = members[0].groups.handle(id(3), WIDE, RaftRpc::Snapshot, &body).await.unwrap_err();
    assert!(matches!(error, HubError::Stopped { .. }), "{error}");
    until(&members[0].group(WIDE), "it stopped", |s| s.state == GroupState::Stopped).await;
    assert!(members[0].group(WIDE).running().is_err());
    assert!(members[0].group(TRUST).running().is_ok());
    assert!(members[0].group(PAIR).running().is_ok());
    // It left nothing behind that the next start would stumble over.
    members[0].groups.stop(WIDE).await;
    members[0].start(WIDE, config()).await;
    assert!(members[0].group(WIDE).running().is_ok());
}
