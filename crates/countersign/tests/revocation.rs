//! Certificates of clients that are revoked, by key and by principal: refused on every member, on open connections too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use countersign::{CommandError, ControlError, REFUSAL, RevokedCertificates};
use countersign_core::id::KeyId;
use countersign_core::peer::Refusal;
use countersign_core::principal::Role;
use countersign_core::receipt::Answer;
use countersign_core::trust::outcome::Refused;
use support::{Client, Node, cluster_of};

async fn revoke_principal(node: &Node, role: &str) -> Result<RevokedCertificates, ControlError> {
    node.control().revoke_principal(Role::parse(role).unwrap()).await
}

fn is_complete(revoked: &RevokedCertificates) -> bool {
    revoked.barrier.as_ref().is_some_and(|barrier| barrier.passed)
}

/// How many connections each member closed: each says by receipt that it enforces the revocation.
fn closed(revoked: &RevokedCertificates) -> Vec<u64> {
    assert!(is_complete(revoked), "{revoked:?}");
    let answers = revoked.barrier.iter().flat_map(|barrier| barrier.answers.values());
    let closed = answers.map(|answer| match answer {
        Answer::Enforced(Some(receipt)) => receipt.closed,
        Answer::Enforced(None) | Answer::Absent(_) => panic!("{revoked:?}"),
    });
    closed.collect()
}

async fn is_refused(client: &Client, node: &Node, expected: Refusal) {
    let error = client.connect(node).await.map(drop).unwrap_err();
    assert_eq!(error.metadata().get(REFUSAL).unwrap(), expected.label(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_cut_off_on_every_member_before_the_answer() {
    let nodes = cluster_of(3).await;
    let (pay, other) = (nodes[0].client("pay").await, nodes[0].client("other").await);
    let mut open = Vec::new();
    for node in &nodes {
        node.converged(3).await;
        let mut calls = [pay.connect(node).await.unwrap(), other.connect(node).await.unwrap()];
        for call in &mut calls {
            call.ask().await.unwrap();
        }
        open.push(calls);
    }
    // On another member than the one that issued it.
    let revoked = nodes[1].control().revoke_key(pay.key).await.unwrap();
    assert_eq!((revoked.keys, closed(&revoked)), (1, vec![1, 1, 1]));
    assert!(revoked.principal.unwrap().to_string().ends_with("/client/pay"));
    // From here on nothing is waited for: the answer said that it is in force.
    for (node, [pay_call, other_call]) in nodes.iter().zip(&mut open) {
        pay_call.ask().await.unwrap_err();
        is_refused(&pay, node, Refusal::KeyRevoked).await;
        other_call.ask().await.unwrap();
        other.connect(node).await.unwrap();
    }
    // Repeated: nothing changes, and the answer is as good.
    let again = nodes[2].control().revoke_key(pay.key).await.unwrap();
    assert!(again.keys == 0 && is_complete(&again), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_principal_loses_all_keys_but_not_later_ones() {
    let nodes = cluster_of(3).await;
    let (first, second) = (nodes[0].client("pay").await, nodes[0].client("pay").await);
    let other = nodes[0].client("payments").await;
    let mut open = Vec::new();
    for node in &nodes {
        node.converged(3).await;
        for client in [&first, &second] {
            let mut call = client.connect(node).await.unwrap();
            call.ask().await.unwrap();
            open.push(call);
        }
    }
    let revoked = revoke_principal(&nodes[2], "client/pay").await.unwrap();
    assert_eq!((revoked.keys, closed(&revoked)), (2, vec![2, 2, 2]));
    for call in &mut open {
        call.ask().await.unwrap_err();
    }
    let later = nodes[1].client("pay").await;
    for node in &nodes {
        is_refused(&first, node, Refusal::KeyRevoked).await;
        is_refused(&second, node, Refusal::KeyRevoked).await;
        other.connect(node).await.unwrap().ask().await.unwrap();
    }
    // The member that issued it has applied it; the others may be a moment behind.
    assert!(later.connect(&nodes[1]).await.unwrap().ask().await.unwrap().contains("client/pay"));
    // What was revoked before stays so when the principal is revoked once more.
    let again = revoke_principal(&nodes[0], "client/pay").await.unwrap();
    assert!(again.keys == 1 && is_complete(&again), "{again:?}");
    is_refused(&later, &nodes[1], Refusal::KeyRevoked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_certificate_is_refused_and_changes_nothing() {
    let nodes = cluster_of(1).await;
    let node = &nodes[0];
    node.client("pay").await;
    let before = node.member().view();
    let leaf = before.members[&node.member().node()].leaf.key;
    let identity = before.members[&node.member().node()].keys.identity.id();
    for role in ["client/absent", "admin/pay"] {
        let refused = revoke_principal(node, role).await.unwrap_err();
        assert!(
            matches!(refused, ControlError::Command(CommandError::Refused(Refused::NoSuchPrincipal(_)))),
            "{refused:?}"
        );
    }
    for role in ["node/1", "node/77"] {
        let refused = revoke_principal(node, role).await.unwrap_err();
        assert!(matches!(refused, ControlError::CertificateOfNode { .. }), "{refused:?}");
    }
    let unknown = node.control().revoke_key(KeyId([0xab; 32])).await.unwrap_err();
    assert!(matches!(unknown, ControlError::UnknownKey(_)), "{unknown:?}");
    for key in [leaf, identity] {
        let refused = node.control().revoke_key(key).await.unwrap_err();
        assert!(matches!(&refused, ControlError::CertificateOfNode { node } if node == "n1"), "{refused:?}");
    }
    let after = node.member().view();
    assert_eq!((after.generation, &after.revoked_keys), (before.generation, &before.revoked_keys));
}
