//! A change of rules is tried on what was asked of late, of whichever member, on whichever port.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign::PolicyPlan;
use countersign_core::authz::{Effect, Flip};
use support::rules::policy;
use support::{Node, cluster_of};

/// The requests that would be denied under a policy without rules, and the members that did not tell theirs.
async fn flips(node: &Node) -> (BTreeSet<String>, Vec<String>) {
    let nothing = Arc::new(policy(&[], []));
    let PolicyPlan { flips, unheard, .. } = node.control().plan_policy(nothing, None, ()).await.unwrap();
    let shown = |Flip { request, before, after }: &Flip| {
        assert_eq!((before.effect, after.effect), (Effect::Allow, Effect::Deny));
        format!("{} {} {}", request.principal, request.action, request.name)
    };
    (flips.iter().map(shown).collect(), unheard)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_of_any_member_on_any_port_would_flip() {
    let mut nodes = cluster_of(3).await;
    assert_eq!(flips(&nodes[0]).await, (BTreeSet::new(), vec![]));

    let client = nodes[0].client("pay").await;
    nodes[1].knows(1).await;
    client.connect(&nodes[1]).await.unwrap().ask().await.unwrap();
    let ada = nodes[0].issue("admin/ada").await;
    assert_eq!(nodes[2].over_https(&ada, "GET", "/v1/status", "").await.status, 200);
    let whoami = "client/pay write countersign.v1.Whoami/Whoami";
    let both = BTreeSet::from([whoami.to_owned(), "admin/ada describe test".to_owned()]);
    for node in &nodes {
        assert_eq!(flips(node).await, (both.clone(), vec![]));
    }
    // The member that is not there is named, and what was asked of the others is known.
    nodes.pop().unwrap().stop().await;
    assert_eq!(flips(&nodes[0]).await, (BTreeSet::from([whoami.to_owned()]), vec!["n3".to_owned()]));
}
