//! Quarantine: what one member refuses by itself; and evictions that are hard: of the leader, of the last, without a quorum.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use countersign_api::admin::{NodeQuarantined, NodeRemove, Problem};
use countersign_core::peer::Refusal;
use countersign_net::{DialCause, DialError};
use support::{Node, cluster_of};

async fn quarantine(node: &Node, whom: &str) -> NodeQuarantined {
    let (status, body) = node.ask("POST", &format!("/v1/nodes/{whom}/quarantine"), "{}".to_owned()).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

async fn refused(node: &Node, method: &str, path: &str, body: &str) -> (u16, Problem) {
    let (status, body) = node.ask(method, path, body.to_owned()).await;
    assert_ne!(status, 200, "{body}");
    (status, serde_json::from_str(&body).unwrap())
}

async fn not_evicted(node: &Node, whom: &str) -> (u16, Problem) {
    let how = serde_json::to_string(&NodeRemove { compromised: false, keep_authority: true }).unwrap();
    refused(node, "POST", &format!("/v1/nodes/{whom}/evict"), &how).await
}

async fn dial(from: &Node, to: &Node) -> Result<(), DialError> {
    from.member().dialer().dial_peer(&to.address(), to.member().node()).await.map(drop)
}

/// How `to` refuses `from`.
async fn refusal(from: &Node, to: &Node) -> Option<Refusal> {
    match dial(from, to).await.unwrap_err().cause {
        DialCause::Refused { code } => code.refusal(),
        DialCause::Judged(refusal) => Some(refusal),
        other => panic!("{other:?}"),
    }
}

/// The leader, and the others.
async fn by_leadership(mut nodes: Vec<Node>) -> (Node, Vec<Node>) {
    for node in &nodes {
        node.settled(nodes.len()).await;
    }
    let leader = nodes[0].status().await.raft.leader.unwrap();
    let at = nodes.iter().position(|node| node.member().node().0 == leader).unwrap();
    (nodes.remove(at), nodes)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_refuse_a_leader_that_does_not_yield_elect_among_themselves_and_evict_it() {
    let (leader, others) = by_leadership(cluster_of(3).await).await;
    let name = leader.status().await.name;
    let mut closed = 0;
    for other in &others {
        let done = quarantine(other, &name).await;
        assert!(done.quarantined && done.name == name, "{done:?}");
        closed += done.connections_closed;
        assert_eq!(refusal(&leader, other).await, Some(Refusal::Quarantined));
        assert_eq!(refusal(other, &leader).await, Some(Refusal::Quarantined), "both ways");
        assert!(other.status().await.warnings.iter().any(|w| w.contains("quarantine")));
    }
    assert!(closed > 0);
    let old = leader.member().node().0;
    others[0].until(|status| status.ready && status.raft.leader.is_some_and(|id| id != old)).await;
    let evicted = others[1].evict(&name).await;
    assert!(evicted.enforcement.unwrap().complete);
    assert_eq!(refusal(&leader, &others[0]).await, Some(Refusal::Evicted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantine_needs_nobody_else_outlives_a_restart_and_ends_when_it_is_lifted() {
    let mut nodes = cluster_of(3).await;
    let third = nodes.pop().unwrap();
    let second = nodes.pop().unwrap().stop().await;
    let first = nodes.pop().unwrap();
    // Without a quorum, by number as well as by name.
    let third_id = third.member().node().0.to_string();
    quarantine(&first, &third_id).await;
    let first = first.restart().await;
    assert_eq!(refusal(&third, &first).await, Some(Refusal::Quarantined));
    let (status, body) = first.ask("DELETE", "/v1/nodes/n3/quarantine", String::new()).await;
    assert_eq!(status, 200, "{body}");
    dial(&third, &first).await.unwrap();
    let first = first.restart().await;
    dial(&third, &first).await.unwrap();
    let second = Node::open(second.0, second.1).await;
    for node in [&first, &second, &third] {
        node.settled(3).await;
    }

    for (method, path, status, code) in [
        ("POST", "/v1/nodes/nobody/quarantine", 404, "unknown-node"),
        ("POST", "/v1/nodes/99/quarantine", 404, "unknown-node"),
        ("DELETE", "/v1/nodes/nobody/quarantine", 404, "unknown-node"),
        ("POST", "/v1/nodes/n1/quarantine", 409, "quarantines-itself"),
    ] {
        let (got, problem) = refused(&first, method, path, "{}").await;
        assert_eq!((got, problem.code.as_str()), (status, code), "{problem:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_is_evicted_on_another_voter_and_nobody_twice() {
    let (leader, others) = by_leadership(cluster_of(3).await).await;
    let name = leader.status().await.name;
    let evicted = others[0].evict(&name).await;
    assert!(evicted.enforcement.unwrap().complete);
    others[1].until(|s| s.members.len() == 2 && s.raft.leader.is_some()).await;
    let generation = others[0].status().await.generation;
    let (status, problem) = not_evicted(&others[0], &name).await;
    assert_eq!((status, problem.code.as_str()), (409, "already-evicted"), "{problem:?}");
    let (status, problem) = not_evicted(&others[0], "nobody").await;
    assert_eq!((status, problem.code.as_str()), (404, "unknown-node"), "{problem:?}");
    let own = others[0].status().await.name;
    let (status, problem) = not_evicted(&others[0], &own).await;
    assert_eq!((status, problem.code.as_str()), (409, "evicts-itself"), "{problem:?}");
    assert_eq!(others[0].status().await.generation, generation, "nothing changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_voter_is_not_evicted() {
    let founder = Node::bootstrap("n1").await;
    let token = founder.token(countersign_core::trust::member::Suffrage::Learner, 1).await;
    let learner = Node::join("n2", &token, &founder).await.unwrap();
    founder.settled(2).await;
    let generation = founder.status().await.generation;
    let body = serde_json::to_string(&NodeRemove { compromised: false, keep_authority: true }).unwrap();
    let (status, problem) = refused(&founder, "POST", "/v1/nodes/n1/demote", &body).await;
    assert_eq!((status, problem.code.as_str()), (409, "last-voter"), "{problem:?}");
    let (status, problem) = not_evicted(&learner, "n1").await;
    assert!(status == 403 || status == 409, "{problem:?}");
    assert_eq!(founder.status().await.generation, generation);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_that_cannot_commit_changes_nothing_and_names_who_is_not_reached() {
    let mut nodes = cluster_of(3).await;
    for node in &nodes {
        node.settled(3).await;
    }
    // The one to be evicted lives, one that would have to stay does not: the two that live elect, and could demote it, but
    // could not remove it.
    let (data, name) = nodes.remove(1).stop().await;
    nodes[0].until(|status| status.ready).await;
    let generation = nodes[0].status().await.generation;
    let (status, problem) = not_evicted(&nodes[0], "n3").await;
    assert_eq!((status, problem.code.as_str()), (503, "no-quorum"), "{problem:?}");
    assert!(problem.message.contains("n2") && !problem.message.contains("without n1"), "{problem:?}");
    assert_eq!(nodes[0].status().await.generation, generation, "nothing changed");
    assert!(nodes[0].status().await.members.iter().all(|m| m.settled));
    // The dead one can go.
    drop((data, name));
    nodes[0].evict("n2").await;
}
