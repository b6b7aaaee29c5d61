//! Quarantine: what one member refuses by itself; and evictions that are hard: of the leader, of the last, without a
//! quorum.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use countersign::{CommandError, ControlError};
use countersign_core::peer::Refusal;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::Refused;
use countersign_net::{DialCause, DialError};
use support::{Node, cluster_of};

/// Has one member refuse another, by its name or number. Returns how many connections were closed.
fn quarantine(on: &Node, text: &str) -> Result<usize, ControlError> {
    let control = on.control();
    control.quarantine(control.find(text)?)
}

fn lift(on: &Node, text: &str) -> Result<usize, ControlError> {
    let control = on.control();
    control.lift_quarantine(control.find(text)?)
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
        node.converged(nodes.len()).await;
    }
    let leader = nodes[0].status().await.raft.leader.unwrap();
    let at = nodes.iter().position(|node| node.member().node().0 == leader).unwrap();
    (nodes.remove(at), nodes)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_evict_a_leader_that_does_not_yield() {
    let (leader, others) = by_leadership(cluster_of(3).await).await;
    let name = leader.status().await.name;
    let mut closed = 0;
    for other in &others {
        closed += quarantine(other, &name).unwrap();
        assert_eq!(refusal(&leader, other).await, Some(Refusal::Quarantined));
        assert_eq!(refusal(other, &leader).await, Some(Refusal::Quarantined), "both ways");
        assert!(other.status().await.warnings.iter().any(|w| w.contains("quarantine")));
    }
    assert!(closed > 0);
    let old = leader.member().node().0;
    others[0].until(|status| status.ready && status.raft.leader.is_some_and(|id| id != old)).await;
    assert!(others[1].evict(&name).await.barrier.unwrap().passed);
    assert_eq!(refusal(&leader, &others[0]).await, Some(Refusal::Evicted));
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantine_needs_no_other_member_and_outlives_a_restart() {
    let mut nodes = cluster_of(3).await;
    let third = nodes.pop().unwrap();
    let second = nodes.pop().unwrap().stop().await;
    let first = nodes.pop().unwrap();
    // Without a quorum, by number as well as by name.
    let third_id = third.member().node().0.to_string();
    quarantine(&first, &third_id).unwrap();
    let first = first.restart().await;
    assert_eq!(refusal(&third, &first).await, Some(Refusal::Quarantined));
    lift(&first, "n3").unwrap();
    dial(&third, &first).await.unwrap();
    let first = first.restart().await;
    dial(&third, &first).await.unwrap();
    let second = Node::open(second.0, second.1).await;
    for node in [&first, &second, &third] {
        node.converged(3).await;
    }

    for refused in [quarantine(&first, "absent"), quarantine(&first, "99"), lift(&first, "absent")] {
        assert!(matches!(refused, Err(ControlError::UnknownNode { .. })), "{refused:?}");
    }
    let itself = quarantine(&first, "n1");
    assert!(matches!(itself, Err(ControlError::QuarantinesItself(_))), "{itself:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_is_evicted_on_another_voter_and_only_once() {
    let (leader, others) = by_leadership(cluster_of(3).await).await;
    let name = leader.status().await.name;
    assert!(others[0].evict(&name).await.barrier.unwrap().passed);
    others[1].until(|s| s.members.len() == 2 && s.raft.leader.is_some()).await;
    let generation = others[0].status().await.generation;
    let gone = others[0].try_evict(&name).await.unwrap_err();
    assert!(matches!(gone, ControlError::Command(CommandError::Refused(Refused::AlreadyEvicted(_)))), "{gone:?}");
    let unknown = others[0].try_evict("absent").await.unwrap_err();
    assert!(matches!(unknown, ControlError::UnknownNode { .. }), "{unknown:?}");
    let itself = others[0].try_evict(others[0].member().name().as_str()).await.unwrap_err();
    assert!(matches!(itself, ControlError::EvictsItself(_)), "{itself:?}");
    assert_eq!(others[0].status().await.generation, generation, "nothing changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_voter_is_not_evicted() {
    let founder = Node::bootstrap("n1").await;
    let token = founder.token(Suffrage::Learner, 1).await;
    let learner = Node::join("n2", &token, &founder).await.unwrap();
    founder.converged(2).await;
    let generation = founder.status().await.generation;
    let last = founder.control().demote(founder.member().node(), true).await.unwrap_err();
    assert!(matches!(last, ControlError::Command(CommandError::Refused(Refused::LastVoter(_)))), "{last:?}");
    let refused = learner.try_evict("n1").await.unwrap_err();
    assert!(matches!(refused, ControlError::Command(CommandError::NotPermitted(_))), "{refused:?}");
    assert_eq!(founder.status().await.generation, generation);
}

#[tokio::test(flavor = "multi_thread")]
async fn uncommitted_eviction_changes_nothing_and_names_unreached_members() {
    let mut nodes = cluster_of(3).await;
    for node in &nodes {
        node.converged(3).await;
    }
    // The one to be evicted lives, one that would have to stay does not: the two that live elect, and could demote it,
    // but could not remove it.
    let (data, name) = nodes.remove(1).stop().await;
    nodes[0].until(|status| status.ready).await;
    let generation = nodes[0].status().await.generation;
    let refused = nodes[0].try_evict("n3").await.unwrap_err();
    let ControlError::NoQuorum { node, unreached } = &refused else { panic!("{refused:?}") };
    assert!(node.as_str() == "n3" && unreached.len() == 1 && unreached[0].starts_with("n2"), "{refused:?}");
    assert_eq!(nodes[0].status().await.generation, generation, "nothing changed");
    assert!(nodes[0].status().await.members.iter().all(|m| m.converged));
    // The dead one can go.
    drop((data, name));
    nodes[0].evict("n2").await;
}
