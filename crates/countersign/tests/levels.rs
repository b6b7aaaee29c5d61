//! Attack: a message of a level that does not exist, on every port, before and after authentication. It is answered,
//! and changes nothing: only a committed entry, a snapshot or a file of its own can stop a member.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod ghost;
mod support;

use countersign_api::cluster::enrollment_client::EnrollmentClient;
use countersign_api::cluster::leases_client::LeasesClient;
use countersign_api::cluster::members_client::MembersClient;
use countersign_api::cluster::raft_client::RaftClient;
use countersign_api::cluster::snapshots_client::SnapshotsClient;
use countersign_api::cluster::{
    EnrollRequest, LeaseRequest, ProposeRequest, RaftRequest, ReturnRequest, RevocationsRequest,
};
use countersign_core::codec;
use countersign_core::id::{NodeId, RequestId};
use countersign_core::trust::author::Claim;
use countersign_core::trust::command::{Command, RaiseLevel};
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::{Outcome, Refused};
use countersign_net::dial_enroll;
use countersign_raft::RaftRpc;
use support::{Lifetimes, cluster_living};
use tonic::{Code, Status};

const ABSURD: u32 = u32::MAX;

/// Bytes that need a level that no member knows.
fn absurd() -> bytes::Bytes {
    codec::encode_at(ABSURD, &"anything").unwrap().into()
}

fn refused<T: core::fmt::Debug>(what: &str, answer: Result<T, Status>) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{what}: {status}");
    assert!(status.message().contains("unsupported level 4294967295"), "{what}: {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn message_of_an_absurd_level_is_answered_and_changes_nothing() {
    let nodes = cluster_living(3, Lifetimes::default()).await;
    let leader = nodes.iter().find(|node| node.member().node().0 == 1).unwrap();
    leader.settled(3).await;
    let before = leader.member().view();
    let endpoint = tonic::transport::Endpoint::from_static("http://member");

    // Before authentication: all that a caller without a certificate may send.
    let token = leader.token(Suffrage::Learner, 1).await.parse();
    let stream = dial_enroll(&leader.address(), token.pin()).await.unwrap();
    let mut enroll = EnrollmentClient::new(countersign::channel_over(&endpoint, stream));
    refused("enroll", enroll.enroll(EnrollRequest { request: absurd(), ..EnrollRequest::default() }).await);
    refused("return", enroll.r#return(ReturnRequest { request: absurd(), ..ReturnRequest::default() }).await);

    // After it: a voter's certificate and identity.
    let thief = ghost::Ghost::of(nodes[2].data.path(), leader);
    let stream = thief.dialer().dial_peer(&leader.address(), leader.member().node()).await.unwrap();
    let channel = countersign::channel_over(&endpoint, stream);
    let mut members = MembersClient::new(channel.clone());
    let claim: bytes::Bytes = codec::encode(&Claim::of_member(thief.node, RequestId([1; 16]))).unwrap().into();
    let raise = Command::RaiseLevel(RaiseLevel { level: ABSURD, without: Default::default(), by_itself: false });
    let propose = |command: bytes::Bytes, claim| ProposeRequest { command, claim, ..ProposeRequest::default() };
    refused("command", members.propose(propose(absurd(), claim.clone())).await);
    // It is read by all, and refused: no member knows the level.
    let answer = members.propose(propose(raise.encode().unwrap().into(), claim)).await.unwrap().into_inner();
    let outcome: Outcome = codec::decode(&answer.outcome).unwrap();
    assert!(matches!(outcome, Outcome::Refused(Refused::AboveLevel { needed: ABSURD, .. })), "{outcome:?}");
    refused("claim", members.propose(propose(absurd(), absurd())).await);
    let store = before.members[&thief.node].store.0.to_vec().into();
    let lease = LeaseRequest { receipts: vec![absurd()], store, boot: vec![1; 16].into(), ..LeaseRequest::default() };
    let digest = LeaseRequest { receipts: vec![], digest: absurd(), ..lease.clone() };
    refused("digest", LeasesClient::new(channel.clone()).lease(digest).await);
    refused("revocations", members.revocations(RevocationsRequest { after: absurd() }).await);
    refused("lease", LeasesClient::new(channel.clone()).lease(lease).await);
    let raft = |kind: &RaftRpc| RaftRequest {
        kind: codec::encode(kind).unwrap().into(),
        body: absurd(),
        ..RaftRequest::default()
    };
    refused(
        "kind",
        RaftClient::new(channel.clone()).call(RaftRequest { kind: absurd(), ..raft(&RaftRpc::Vote) }).await,
    );
    for kind in [RaftRpc::Vote, RaftRpc::Append, RaftRpc::TimeoutNow] {
        let answer = RaftClient::new(channel.clone()).call(raft(&kind)).await.unwrap().into_inner();
        assert!(!answer.refused.is_empty() && answer.body.is_empty(), "{kind:?}");
    }
    let answer = SnapshotsClient::new(channel).install(raft(&RaftRpc::Snapshot)).await.unwrap().into_inner();
    assert!(!answer.refused.is_empty());

    // Everything is as it was, and goes on.
    assert_eq!(leader.member().view().generation, before.generation);
    for node in &nodes {
        node.converged(3).await;
        assert!(node.member().view().members.contains_key(&NodeId(3)));
    }
}
