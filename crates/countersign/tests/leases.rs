//! Leases and barriers between real members: who serves, who denies, and what an eviction returns.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use support::cluster_of;

#[tokio::test(flavor = "multi_thread")]
async fn every_member_holds_a_lease_and_serves_by_it() {
    let nodes = cluster_of(3).await;
    let client = nodes[0].client("pay").await;
    for node in &nodes {
        node.settled(3).await;
        assert!(node.member().fresh().is_ok());
        let mut whoami = client.connect(node).await.unwrap();
        assert!(whoami.ask().await.unwrap().contains("client/pay"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_a_quorum_denies_once_its_lease_has_run_out() {
    let mut nodes = cluster_of(3).await;
    let client = nodes[0].client("pay").await;
    let left = nodes.remove(0);
    left.settled(3).await;
    let mut whoami = client.connect(&left).await.unwrap();
    whoami.ask().await.unwrap();
    for node in nodes {
        node.stop().await;
    }
    left.until(|status| status.lease_millis_left.is_none()).await;
    let denied = whoami.ask().await.unwrap_err();
    assert_eq!(denied.code(), tonic::Code::Unavailable);
    assert!(left.member().fresh().is_err() && !left.status().await.ready);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_returns_a_receipt_of_every_member() {
    let nodes = cluster_of(3).await;
    for node in &nodes {
        node.settled(3).await;
    }
    let changed = nodes[0].evict("n3").await;
    let enforcement = changed.enforcement.unwrap();
    assert!(enforcement.complete, "{enforcement:?}");
    let (gone, members): (Vec<_>, Vec<_>) = enforcement.members.iter().partition(|m| m.name.contains("evicted"));
    let names: Vec<&str> = members.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["n1", "n2"]);
    // It had a lease, and may serve by it if it has not learned.
    assert!(gone.iter().all(|m| m.lease_ends_millis.is_some()));
    for member in members {
        assert_eq!((member.state.as_str(), member.receipt.is_some()), ("enforced", true), "{member:?}");
    }
    let closed: u64 = enforcement.members.iter().filter_map(|m| m.receipt.as_ref()).map(|r| r.connections_closed).sum();
    assert!(closed > 0, "{enforcement:?}");
}
