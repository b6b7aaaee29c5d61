//! Members whose states differ: the alarm, what it names, what it outlives, and what ends it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use countersign::{CommandError, ControlError, LeaseLength, Start, Started};
use countersign_api::admin::{DifferingStatus, Status};
use countersign_core::id::NodeId;
use countersign_core::limits::DIGEST_EVERY;
use countersign_core::name::Name;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::Refused;
use support::{Lifetimes, Node, cluster_living};
use tempfile::TempDir;

/// Short, so that a lease that is not renewed ends soon.
fn lifetimes() -> Lifetimes {
    Lifetimes { lease: LeaseLength::from_secs(2).unwrap(), ..Lifetimes::default() }
}

/// Writes entries until each of `nodes` has applied one past the next index at which states are digested.
async fn past_next_digest(nodes: &[&Node]) {
    let applied = |status: &Status| status.raft.applied_index;
    let next = (applied(&nodes[0].status().await) / DIGEST_EVERY + 1) * DIGEST_EVERY;
    let mut on = false;
    while applied(&nodes[0].status().await) <= next {
        for _ in 0..16 {
            nodes[0].control().set_level_auto(on).await.unwrap();
            on = !on;
        }
    }
    for node in nodes {
        node.until(|status| applied(status) > next).await;
    }
}

fn is_silenced(status: &Status) -> bool {
    status.lease_millis_left.is_none() && !status.ready
}

fn serves(status: &Status) -> bool {
    status.lease_millis_left.is_some() && status.differing.is_empty()
}

fn of<'a>(status: &'a Status, node: &Node) -> Option<&'a DifferingStatus> {
    status.differing.iter().find(|said| said.node == node.member().node().0)
}

fn states_differ(node: &Node) -> String {
    let metrics = node.member().health().metrics();
    metrics.lines().find(|line| line.starts_with("countersign_states_differ")).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn voters_with_differing_states_get_no_leases() {
    let nodes = cluster_living(3, lifetimes()).await;
    let revoked = nodes[0].issue("client/gone").await.key;
    nodes[0].revoke(revoked).await;
    let [n1, n2, n3] = nodes.try_into().map_err(drop).unwrap();
    past_next_digest(&[&n1, &n2, &n3]).await;
    for node in [&n1, &n2, &n3] {
        node.until(serves).await;
        assert_eq!(states_differ(node), "countersign_states_differ 0");
    }

    // What one holds, also on its disk, loses a revocation. Nothing tells until the next digest.
    n3.member().node_for_testing().forget_key_for_testing(revoked).await.unwrap();
    past_next_digest(&[&n1, &n2, &n3]).await;
    for node in [&n1, &n2, &n3] {
        let told = |status: &Status| {
            let holds = [&n1, &n2].iter().any(|right| of(status, right).is_some_and(|said| !said.holds.is_empty()));
            is_silenced(status) && holds && of(status, &n3).is_some_and(|said| !said.lacks.is_empty())
        };
        node.until(told).await;
        let status = node.status().await;
        let wrong = of(&status, &n3).unwrap();
        assert!(wrong.lacks[0].contains(&revoked.to_string()) && wrong.holds.is_empty(), "{status:#?}");
        assert!(
            status
                .differing
                .iter()
                .all(|said| said.index == wrong.index && said.index.is_some_and(|index| index % DIGEST_EVERY == 0))
        );
        assert!(status.differing.iter().filter(|said| said.node != 3).all(|said| said.digest != wrong.digest));
        let said = status.warnings.join("\n");
        assert!(said.contains("states of voters differ at log index") && said.contains("lacked by n3"), "{said}");
        assert!(node.member().fresh().is_err());
        assert_eq!(states_differ(node), "countersign_states_differ 1");
    }

    // It outlives a restart of all others, while the voter that differs is off and says nothing.
    let (data, name) = n3.stop().await;
    let (first, second) = (n1.stop().await, n2.stop().await);
    let (n1, n2) = (Node::open(first.0, first.1).await, Node::open(second.0, second.1).await);
    for node in [&n1, &n2] {
        node.until(|status| status.raft.leader.is_some() && is_silenced(status) && !status.differing.is_empty()).await;
    }

    // An operator goes on without it.
    for node in [&n1, &n2] {
        node.control().quarantine(NodeId(3)).unwrap();
    }
    for node in [&n1, &n2] {
        node.until(|status| serves(status) && status.ready).await;
    }

    // Counted again, it raises the alarm again, and being started again does not mend it.
    for node in [&n1, &n2] {
        node.control().lift_quarantine(NodeId(3)).unwrap();
    }
    let n3 = Node::open(data, name).await;
    for node in [&n1, &n2, &n3] {
        node.until(|status| is_silenced(status) && of(status, &n3).is_some()).await;
    }

    // The way that is printed: demoted, it keeps no member from serving, and it comes back with a new store.
    assert!(
        n1.status()
            .await
            .warnings
            .iter()
            .any(|line| line.contains("node demote") && line.contains("--return-as-learner"))
    );
    n1.control().demote(NodeId(3), true).await.unwrap();
    past_next_digest(&[&n1, &n2, &n3]).await;
    for node in [&n1, &n2] {
        node.until(|status| serves(status) && status.ready).await;
    }
    n3.until(|status| is_silenced(status) && of(status, &n3).is_some()).await;
    let (data, name) = n3.stop().await;
    let n3 = come_back(data, &name).await;
    assert_eq!(n3.started, Started::Returned);
    n3.until(|status| serves(status) && status.ready).await;
    n1.control().promote(NodeId(3)).await.unwrap();
    past_next_digest(&[&n1, &n2, &n3]).await;
    for node in [&n1, &n2, &n3] {
        node.until(|status| serves(status) && status.ready).await;
        assert_eq!(states_differ(node), "countersign_states_differ 0");
    }
    assert!(n3.member().view().revoked_keys.contains(&revoked));
}

/// A process that has just ended counts as alive for the length of a lease.
async fn come_back(data: TempDir, name: &Name) -> Node {
    let start = || Start::ReturnAsLearner { hints: vec![] };
    Node::start(data, name, start()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn differing_learner_loses_its_lease_and_is_not_promoted() {
    // Long: what ends the lease is what the leader says, not the time.
    let lease = LeaseLength::from_secs(120).unwrap();
    let n1 = Node::bootstrap_living("n1", Lifetimes { lease, ..Lifetimes::default() }).await;
    let token = n1.token(Suffrage::Learner, 1).await;
    let n2 = Node::join("n2", &token, &n1).await.unwrap();
    let revoked = n1.issue("client/gone").await.key;
    n1.revoke(revoked).await;
    for node in [&n1, &n2] {
        node.converged(2).await;
    }
    n2.until(serves).await;
    n2.member().node_for_testing().forget_key_for_testing(revoked).await.unwrap();
    past_next_digest(&[&n1, &n2]).await;
    n2.until(|status| is_silenced(status) && of(status, &n2).is_some()).await;
    assert!(n2.status().await.warnings.iter().any(|line| line.contains("--return-as-learner")));
    let status = n1.status().await;
    assert!(serves(&status) && status.ready, "{status:#?}");
    assert!(status.warnings.iter().any(|line| line.contains("the state of n2 differs")), "{status:#?}");
    let refused = n1.control().promote(NodeId(2)).await.unwrap_err();
    assert!(
        matches!(refused, ControlError::Command(CommandError::Refused(Refused::StateDiffers { node: NodeId(2), .. }))),
        "{refused:?}"
    );
    assert!(n1.member().fresh().is_ok());

    // It stays so over a restart, and ends by the way that is printed.
    let n2 = n2.restart().await;
    past_next_digest(&[&n1, &n2]).await;
    n2.until(|status| is_silenced(status) && of(status, &n2).is_some()).await;
    let (data, name) = n2.stop().await;
    let refused = Node::start(data, &name, Start::ReturnAsLearner { hints: vec![] }).await.err().unwrap();
    assert!(format!("{refused:?}").contains("Alive"), "its lease may still count elsewhere: {refused:?}");
}
