//! Expiry ends service, not recovery: a cluster that was off past every expiry, and one member that was.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod ghost;
mod support;

use std::time::Duration;

use countersign::LeaseLength;
use countersign_api::cluster::members_client::MembersClient;
use countersign_api::cluster::raft_client::RaftClient;
use countersign_api::cluster::{AdminAddressRequest, ProposeRequest, RaftRequest};
use countersign_core::codec;
use countersign_core::id::RequestId;
use countersign_core::peer::Scope;
use countersign_core::time::UnixMillis;
use countersign_core::trust::author::Claim;
use countersign_core::trust::command::{AdoptLeaf, Command, ReportFeatureLevel};
use countersign_net::{Clock, SystemClock};
use support::{Lifetimes, Node, cluster_living};
use tonic::Code;

const SHORT: Lifetimes = Lifetimes { node_ttl_secs: 8, lease: LeaseLength::DEFAULT, cache_ttl_secs: 300 };

/// Waits until every certificate in the view of `node` has ended.
async fn past(ends: UnixMillis) {
    loop {
        let now: UnixMillis = SystemClock.now();
        if now.secs() > ends.secs() {
            return;
        }
        // why: a certificate ends by the passing of time alone
        tokio::time::sleep(Duration::from_millis(ends.0 - now.0 + 1000)).await;
    }
}

fn last_end(node: &Node) -> UnixMillis {
    let view = node.member().view();
    let leaves = view.members.scan().values().flat_map(|m| [Some(&m.leaf), m.renewed.as_ref().map(|r| &r.leaf)]);
    leaves.flatten().map(|leaf| leaf.validity.not_after).max().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_off_past_every_expiry_forms_again_by_itself() {
    let mut nodes = cluster_living(3, SHORT).await;
    let client = nodes[0].client("pay").await;
    let mut stopped = Vec::new();
    let mut ends = UnixMillis(0);
    for node in nodes.drain(..) {
        ends = ends.max(last_end(&node));
        stopped.push(node.stop().await);
    }
    past(ends).await;
    for (data, name) in stopped {
        nodes.push(Node::open(data, name).await);
    }
    for node in &nodes {
        node.converged(3).await;
        let mut whoami = client.connect(node).await.unwrap();
        assert!(whoami.ask().await.unwrap().contains("client/pay"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_member_renews_and_is_served_nothing_else() {
    let mut nodes = cluster_living(3, SHORT).await;
    let away = nodes.pop().unwrap();
    let ends = last_end(&away);
    let (data, name) = away.stop().await;
    // What it had, to ask with what it may not.
    let stale = ghost::copy(data.path());
    past(ends).await;
    for node in &nodes {
        node.converged(3).await;
    }
    let leader = nodes.iter().find(|n| n.member().node().0 == 1).unwrap();
    let thief = ghost::Ghost::of(stale.path(), leader);
    let stream = thief.dialer().dial_peer(&leader.address(), leader.member().node()).await.unwrap();
    assert_eq!(stream.peer().scope(), Scope::Full, "the server's certificate is in force");
    let endpoint = tonic::transport::Endpoint::from_static("http://member");
    let channel = countersign::channel_over(&endpoint, stream);
    let mut members = MembersClient::new(channel.clone());
    let refused = members.admin_address(AdminAddressRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("has expired"), "{refused}");
    let others = Command::AdoptLeaf(AdoptLeaf { node: leader.member().node(), renewal: 9 });
    let level = Command::ReportFeatureLevel(ReportFeatureLevel {
        node: thief.node,
        level: countersign_core::trust::command::FEATURE_LEVEL - 1,
    });
    for command in [others, level] {
        let claim = codec::encode(&Claim::of_member(thief.node, RequestId([1; 16]))).unwrap().into();
        let request = ProposeRequest { command: command.encode().unwrap().into(), claim, ..Default::default() };
        let refused = members.propose(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{command:?}");
        assert!(refused.message().contains("has expired"), "{refused}");
    }
    let other_group = RaftRequest { group: 7, ..RaftRequest::default() };
    let refused = RaftClient::new(channel).call(other_group).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("has expired"), "{refused}");
    // The member itself comes back.
    let back = Node::open(data, name).await;
    back.converged(3).await;
}
