//! Leases and barriers between real members: who serves, who denies, and what an eviction returns.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use countersign_core::id::NodeId;
use countersign_core::receipt::Answer;
use support::cluster_of;

#[tokio::test(flavor = "multi_thread")]
async fn every_member_holds_a_lease_and_serves_by_it() {
    let nodes = cluster_of(3).await;
    let client = nodes[0].client("pay").await;
    for node in &nodes {
        node.converged(3).await;
        assert!(node.member().fresh().is_ok());
        let mut whoami = client.connect(node).await.unwrap();
        assert!(whoami.ask().await.unwrap().contains("client/pay"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn member_without_a_quorum_denies_after_its_lease() {
    let mut nodes = cluster_of(3).await;
    let client = nodes[0].client("pay").await;
    let left = nodes.remove(0);
    left.converged(3).await;
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
        node.converged(3).await;
    }
    let barrier = nodes[0].evict("n3").await.barrier.unwrap();
    assert!(barrier.passed, "{barrier:?}");
    let mut closed = 0;
    for node in [NodeId(1), NodeId(2)] {
        let Answer::Enforced(Some(receipt)) = &barrier.answers[&node] else { panic!("{barrier:?}") };
        assert_eq!((receipt.member, receipt.generation), (node, barrier.generation));
        closed += receipt.closed;
    }
    assert!(closed > 0, "{barrier:?}");
    // The evicted member had a lease, and may serve by it if it has not learned of its eviction.
    let others = barrier.answers.iter().filter(|(node, _)| node.0 > 2);
    assert!(others.into_iter().all(|(node, answer)| node.0 == 3 && matches!(answer, Answer::Absent(_))), "{barrier:?}");
}
