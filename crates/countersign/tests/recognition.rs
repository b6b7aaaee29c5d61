//! Cluster recognition before belief: which peers a member that was away believes. A cold cluster does not wait for
//! itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "ghost/mod.rs"]
mod ghost;
mod support;

use countersign::{LeaseLength, channel_over};
use countersign_api::cluster::enrollment_client::EnrollmentClient;
use countersign_api::cluster::raft_client::RaftClient;
use countersign_api::cluster::{EnrollRequest, RaftReply, RaftRequest, ReturnRequest, ViewRequest};
use countersign_core::codec;
use countersign_core::limits::ENROLLMENT_REQUESTS_MAX;
use countersign_core::peer::Refusal as PeerRefusal;
use countersign_net::{DialCause, DialError, dial_return};
use countersign_raft::RaftRpc;
use support::{Lifetimes, Node, cluster_living, cluster_of};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

fn brief() -> Lifetimes {
    Lifetimes { lease: LeaseLength::from_secs(2).unwrap(), ..Lifetimes::default() }
}

async fn dial(from: &Node, to: &Node) -> Result<Channel, DialError> {
    let stream = from.member().dialer().dial_peer(&to.address(), to.member().node()).await?;
    Ok(channel_over(&Endpoint::from_static("http://member"), stream))
}

/// Asks for a vote in a term far ahead, with a log to match: what Raft alone grants to any voter.
async fn stand(channel: &Channel, candidate: &Node, term: u64) -> Result<RaftReply, Status> {
    let leader = (term, candidate.member().node().0);
    let view = candidate.member().view();
    let store = view.members[&candidate.member().node()].store;
    let body = codec::encode(&(store, ((leader, false), Some((leader, 100_000_u64))))).unwrap();
    let kind = codec::encode(&RaftRpc::Vote).unwrap();
    let request = RaftRequest { group: 0, kind: kind.into(), body: body.into() };
    RaftClient::new(channel.clone()).call(request).await.map(tonic::Response::into_inner)
}

fn believed(answer: &Result<RaftReply, Status>) -> bool {
    answer.as_ref().is_ok_and(|reply| reply.refused.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn evicted_voter_captures_no_member_that_was_down() {
    let mut nodes = cluster_living(4, brief()).await;
    let away = nodes.pop().unwrap().stop().await;
    // What the voter will have kept: its state from before.
    let (data, name) = nodes.pop().unwrap().stop().await;
    let kept = ghost::copy(data.path());
    nodes.push(Node::open(data, name.clone()).await);
    nodes[0].until(|s| s.ready && s.raft.leader.is_some()).await;
    nodes[0].evict("n3").await;
    let mut stopped = Vec::new();
    for node in nodes {
        stopped.push(node.stop().await);
    }

    let away = Node::open(away.0, away.1).await;
    let evicted = Node::open(kept, name).await;
    let term = away.status().await.raft.term;
    let channel = dial(&evicted, &away).await.expect("no member has told it yet");
    let refused = stand(&channel, &evicted, term + 50).await;
    assert!(!believed(&refused), "{refused:?}");
    // The two of them are not enough to show each other what the cluster is.
    let status = away.status().await;
    assert!(status.raft.term < term + 50 && !status.ready, "{status:?}");

    // One more is: of four voters, one that knows.
    let (data, name) = stopped.remove(0);
    let knowing = Node::open(data, name).await;
    knowing.until(|s| s.ready && s.members.len() == 3).await;
    away.until(|s| s.ready && s.members.len() == 3 && s.evicted.len() == 1).await;
    let refused = dial(&evicted, &away).await.unwrap_err();
    assert!(
        matches!(&refused.cause, DialCause::Refused { code } if code.refusal() == Some(PeerRefusal::Evicted)),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn member_believes_a_voter_again_after_cluster_recognition() {
    // The control of the test above: the same request, of a voter that is none too many, after recognition.
    let nodes = cluster_of(3).await;
    for node in &nodes {
        node.converged(3).await;
    }
    let channel = dial(&nodes[1], &nodes[2]).await.unwrap();
    let answered = stand(&channel, &nodes[1], 1).await;
    assert!(believed(&answered), "{answered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthenticated_connection_carries_a_limited_number_of_requests() {
    let founder = Node::bootstrap("n1").await;
    let connect = async || {
        let (stream, _) = dial_return(&founder.address()).await.unwrap();
        EnrollmentClient::new(channel_over(&Endpoint::from_static("http://member"), stream))
    };
    let nonce = ViewRequest { nonce: vec![1; 32].into(), known: 0 };
    let mut caller = connect().await;
    for turn in 0..ENROLLMENT_REQUESTS_MAX {
        // With a nonce or without: each counts.
        let asked = if turn % 2 == 0 { nonce.clone() } else { ViewRequest::default() };
        let reply = caller.view(asked).await.unwrap().into_inner();
        assert_eq!(reply.signature.len(), if turn % 2 == 0 { 64 } else { 0 });
    }
    for asked in [nonce.clone(), ViewRequest::default()] {
        assert_eq!(caller.view(asked).await.unwrap_err().code(), Code::ResourceExhausted);
    }
    let refused = [
        caller.enroll(EnrollRequest::default()).await.unwrap_err(),
        caller.r#return(ReturnRequest::default()).await.unwrap_err(),
    ];
    assert!(refused.iter().all(|status| status.code() == Code::ResourceExhausted), "{refused:?}");
    connect().await.view(nonce).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_cluster_does_not_wait_for_itself() {
    let mut nodes = cluster_living(3, brief()).await;
    let mut stopped = Vec::new();
    for node in nodes.drain(..) {
        stopped.push(node.stop().await);
    }
    // One alone recognizes nothing; two of three do, with the third down.
    let (data, name) = stopped.remove(0);
    let first = Node::open(data, name).await;
    let (data, name) = stopped.remove(0);
    let second = Node::open(data, name).await;
    for node in [&first, &second] {
        node.until(|status| status.ready).await;
    }
    // Every lease lapses while no leader is there to renew it; then all go on.
    let held = second.stop().await;
    first.until(|status| status.lease_millis_left.is_none()).await;
    assert!(first.member().fresh().is_err());
    let second = Node::open(held.0, held.1).await;
    let (data, name) = stopped.remove(0);
    let third = Node::open(data, name).await;
    for node in [&first, &second, &third] {
        node.converged(3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_one_recognizes_itself() {
    let founder = Node::bootstrap_living("n1", brief()).await;
    founder.until(|status| status.ready).await;
    let founder = founder.restart().await;
    founder.until(|status| status.ready).await;
    founder.token(countersign_core::trust::member::Suffrage::Voter, 1).await;
}
