//! Certificates of clients that are revoked, by key and by principal: refused on every member, on open connections too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use countersign_api::admin::{CertificateRevoked, Problem};
use countersign_core::peer::Refusal;
use countersign_net::DialCause;
use support::{Client, Node, cluster_of};

async fn revoke(node: &Node, path: &str) -> CertificateRevoked {
    let (status, body) = node.ask("DELETE", path, String::new()).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

async fn refused(node: &Node, path: &str, status: u16, code: &str) {
    let (answered, body) = node.ask("DELETE", path, String::new()).await;
    let problem: Problem = serde_json::from_str(&body).unwrap();
    assert_eq!((answered, problem.code.as_str()), (status, code), "{path}: {body}");
    assert!(problem.next.is_some_and(|next| !next.is_empty()), "{path}: {body}");
}

/// Each member says by receipt that it enforces it.
fn with_receipts(revoked: &CertificateRevoked, members: usize) {
    let enforcement = &revoked.enforcement;
    assert!(enforcement.complete, "{enforcement:?}");
    assert_eq!(enforcement.members.len(), members);
    for member in &enforcement.members {
        assert!(member.state == "enforced" && member.receipt.is_some(), "{member:?}");
    }
}

fn closed(revoked: &CertificateRevoked) -> Vec<u64> {
    let receipts = revoked.enforcement.members.iter().map(|member| member.receipt.as_ref().unwrap());
    receipts.map(|receipt| receipt.connections_closed).collect()
}

async fn is_refused(client: &Client, node: &Node, expected: Refusal) {
    let error = client.connect(node).await.map(drop).unwrap_err();
    assert!(matches!(error.cause, DialCause::Refused { code } if code.refusal() == Some(expected)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_cut_off_on_every_member_before_the_answer() {
    let nodes = cluster_of(3).await;
    let (pay, other) = (nodes[0].client("pay").await, nodes[0].client("other").await);
    let mut open = Vec::new();
    for node in &nodes {
        node.settled(3).await;
        let mut calls = [pay.connect(node).await.unwrap(), other.connect(node).await.unwrap()];
        for call in &mut calls {
            call.ask().await.unwrap();
        }
        open.push(calls);
    }
    // On another member than the one that issued it.
    let path = format!("/v1/certificates/{}", pay.key);
    let revoked = revoke(&nodes[1], &path).await;
    with_receipts(&revoked, 3);
    assert_eq!(closed(&revoked), [1, 1, 1]);
    assert_eq!((revoked.keys, revoked.key.as_deref()), (1, Some(pay.key.as_str())));
    assert!(revoked.principal.as_deref().unwrap().ends_with("/client/pay"));
    // From here on nothing is waited for: the answer said that it is in force.
    for (node, [pay_call, other_call]) in nodes.iter().zip(&mut open) {
        pay_call.ask().await.unwrap_err();
        is_refused(&pay, node, Refusal::KeyRevoked).await;
        other_call.ask().await.unwrap();
        other.connect(node).await.unwrap();
    }
    // Repeated: nothing changes, and the answer is as good.
    let again = revoke(&nodes[2], &path).await;
    assert!(again.keys == 0 && again.enforcement.complete, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_principal_loses_all_its_keys_and_one_issued_later_counts() {
    let nodes = cluster_of(3).await;
    let (first, second) = (nodes[0].client("pay").await, nodes[0].client("pay").await);
    let other = nodes[0].client("payments").await;
    let mut open = Vec::new();
    for node in &nodes {
        node.settled(3).await;
        for client in [&first, &second] {
            let mut call = client.connect(node).await.unwrap();
            call.ask().await.unwrap();
            open.push(call);
        }
    }
    let revoked = revoke(&nodes[2], "/v1/principals/client/pay").await;
    with_receipts(&revoked, 3);
    assert_eq!((revoked.keys, closed(&revoked), &revoked.key), (2, vec![2, 2, 2], &None));
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
    let again = revoke(&nodes[0], "/v1/principals/client/pay").await;
    assert_eq!((again.keys, again.enforcement.complete), (1, true));
    is_refused(&later, &nodes[1], Refusal::KeyRevoked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nobodys_certificate_is_refused_and_changes_nothing() {
    let nodes = cluster_of(1).await;
    let node = &nodes[0];
    node.client("pay").await;
    let before = node.member().view();
    let leaf = before.members[&node.member().node()].leaf.key;
    let identity = before.members[&node.member().node()].keys.identity.id();
    for (path, status, code) in [
        ("/v1/principals/client/nobody".to_owned(), 404, "unknown-principal"),
        ("/v1/principals/admin/pay".to_owned(), 404, "unknown-principal"),
        ("/v1/principals/node/1".to_owned(), 409, "of-a-node"),
        ("/v1/principals/node/77".to_owned(), 409, "of-a-node"),
        ("/v1/principals/king/pay".to_owned(), 400, "invalid"),
        ("/v1/principals/client/PAY".to_owned(), 400, "invalid"),
        ("/v1/principals/client/pay%00".to_owned(), 400, "invalid"),
        (format!("/v1/certificates/{}", "ab".repeat(32)), 404, "unknown-key"),
        ("/v1/certificates/abcd".to_owned(), 400, "invalid"),
        (format!("/v1/certificates/{leaf}"), 409, "of-a-node"),
        (format!("/v1/certificates/{identity}"), 409, "of-a-node"),
    ] {
        refused(node, &path, status, code).await;
    }
    let after = node.member().view();
    assert_eq!((after.generation, &after.revoked_keys), (before.generation, &before.revoked_keys));
}
