//! Certificates that renew themselves: under load, across restarts, at any point of a stop.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use countersign::LeaseLength;
use support::{Lifetimes, Node, cluster_living};

const SHORT: Lifetimes = Lifetimes { node_ttl_secs: 12, lease: LeaseLength::DEFAULT, cache_ttl_secs: 300 };

fn renewal(node: &Node) -> u64 {
    node.member().view().members[&node.member().node()].leaf.renewal
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_renew_without_a_restart_and_without_interruption() {
    let nodes = cluster_living(3, SHORT).await;
    let client = nodes[0].client("pay").await;
    let before: Vec<u64> = nodes.iter().map(renewal).collect();
    for (node, before) in nodes.iter().zip(before) {
        let view = || node.member().view();
        node.until(|_| renewal(node) >= before + 2).await;
        assert!(view().members.scan().values().all(|m| m.leaf.validity.not_after > m.leaf.validity.not_before));
        // On a new connection, whose certificate the client verifies.
        let mut whoami = client.connect(node).await.unwrap();
        whoami.ask().await.unwrap();
        assert!(node.status().await.ready);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_member_restarts_with_its_renewed_certificate() {
    let founder = Node::bootstrap_living("n1", SHORT).await;
    founder.until(|_| renewal(&founder) >= 1).await;
    let founder = founder.restart().await;
    let number = renewal(&founder);
    assert!(number >= 1);
    founder.until(|_| renewal(&founder) > number).await;
    assert!(!founder.data.path().join("keys/leaf.key").exists() && !founder.data.path().join("leaf.pem").exists());
}
