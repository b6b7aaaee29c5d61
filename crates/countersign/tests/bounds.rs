//! What a member's connection lets it send to another: asked of a real member over a real connection.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use countersign::channel_over;
use countersign_api::cluster::raft_client::RaftClient;
use countersign_api::cluster::snapshots_client::SnapshotsClient;
use countersign_api::cluster::{RaftReply, RaftRequest};
use countersign_core::codec;
use countersign_core::trust::member::Suffrage;
use countersign_raft::{RaftRpc, Refusal};
use support::Node;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// A connection of the member `from` to `to`, on the peer protocol.
async fn connected(from: &Node, to: &Node) -> Channel {
    let stream = from.member().dialer().dial_peer(&to.address(), to.member().node()).await.unwrap();
    channel_over(&Endpoint::from_static("http://member"), stream)
}

fn request(kind: RaftRpc, len: usize) -> RaftRequest {
    RaftRequest { group: 0, kind: codec::encode(&kind).unwrap().into(), body: vec![0; len].into() }
}

async fn call(channel: &Channel, kind: RaftRpc, len: usize) -> Result<RaftReply, Status> {
    RaftClient::new(channel.clone()).call(request(kind, len)).await.map(tonic::Response::into_inner)
}

async fn install(channel: &Channel, kind: RaftRpc, len: usize) -> Result<RaftReply, Status> {
    SnapshotsClient::new(channel.clone()).install(request(kind, len)).await.map(tonic::Response::into_inner)
}

/// What the group says to bytes that are no request: they reached it.
fn reached(answer: &Result<RaftReply, Status>) -> bool {
    answer.as_ref().is_ok_and(|reply| codec::decode::<Refusal>(&reply.refused) == Ok(Refusal::Invalid))
}

#[tokio::test(flavor = "multi_thread")]
async fn learner_is_refused_before_its_raft_messages_are_read() {
    let founder = Node::bootstrap("n1").await;
    let token = founder.token(Suffrage::Learner, 1).await;
    let learner = Node::join("n2", &token, &founder).await.unwrap();
    let up = connected(&learner, &founder).await;
    // Far more than the connection's window: an answer comes only if the member does not wait for the rest.
    for len in [0, 32 * 1024 * 1024] {
        assert_eq!(call(&up, RaftRpc::Append, len).await.unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(install(&up, RaftRpc::Snapshot, len).await.unwrap_err().code(), Code::PermissionDenied);
    }

    let down = connected(&founder, &learner).await;
    let (ordinary, snapshot) = (RaftRpc::MESSAGE_LEN_MAX, RaftRpc::Snapshot.len_max());
    assert!(reached(&call(&down, RaftRpc::Append, ordinary).await));
    assert!(reached(&install(&down, RaftRpc::Snapshot, ordinary + 4096).await));
    assert!(reached(&install(&down, RaftRpc::Snapshot, snapshot).await));
    for past in
        [call(&down, RaftRpc::Append, ordinary + 4096).await, install(&down, RaftRpc::Snapshot, snapshot + 4096).await]
    {
        assert_eq!(past.unwrap_err().code(), Code::OutOfRange);
    }
    // Neither service takes what belongs to the other: the longer limit is for snapshots alone.
    assert_eq!(call(&down, RaftRpc::Snapshot, 1).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(install(&down, RaftRpc::Append, 1).await.unwrap_err().code(), Code::InvalidArgument);
}
