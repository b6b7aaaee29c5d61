//! A program that embeds a member administers its cluster by functions, without HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use countersign::{CommandError, ControlError, Leaving};
use countersign_core::id::NodeId;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::Refused;
use support::cluster_of;

#[tokio::test(flavor = "multi_thread")]
async fn embedder_demotes_promotes_and_evicts_by_functions() {
    let nodes = cluster_of(3).await;
    let control = nodes[0].control();
    let [n1, n2, n3] = ["n1", "n2", "3"].map(|text| control.find(text).unwrap());
    assert_eq!((n1, n2, n3), (NodeId(1), NodeId(2), NodeId(3)));

    // A voter takes its copy of the CA key along: without a word about that, nothing happens.
    let refused = control.demote(n3, false).await.unwrap_err();
    assert!(matches!(refused, ControlError::Command(CommandError::Refused(Refused::KeepAuthority(_)))), "{refused}");
    control.demote(n3, true).await.unwrap();
    let suffrage = || nodes[0].member().view().members[&n3].suffrage;
    assert_eq!(suffrage(), Suffrage::Learner);
    control.promote(n3).await.unwrap();
    control.promote(n3).await.unwrap();
    assert_eq!(suffrage(), Suffrage::Voter);
    nodes[0].converged(3).await;

    let how = Leaving { keep_authority: true, ..Leaving::default() };
    assert!(matches!(control.evict(n1, how).await.unwrap_err(), ControlError::EvictsItself(_)));
    let evicted = control.evict(n3, how).await.unwrap();
    let barrier = evicted.barrier.unwrap();
    assert!(barrier.passed && barrier.generation == evicted.generation, "{barrier:?}");
    assert!(nodes[0].member().view().evicted.contains_key(&n3));
    let again = control.evict(n3, how).await.unwrap_err();
    assert!(matches!(again, ControlError::Command(CommandError::Refused(Refused::AlreadyEvicted(_)))), "{again}");

    // Its author is the user of the process.
    let events = std::fs::read_to_string(nodes[0].data.path().join("events.jsonl")).unwrap();
    let evictions: Vec<&str> = events.lines().filter(|line| line.contains("node.evicted")).collect();
    let by = format!("\"by\":\"uid/{}\"", rustix::process::getuid().as_raw());
    assert!(evictions.len() == 1 && evictions[0].contains(&by), "{evictions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantine_by_function_works_without_a_leader() {
    let nodes = cluster_of(2).await;
    let control = nodes[0].control();
    let unknown = control.find("n9").unwrap_err();
    assert!(matches!(&unknown, ControlError::UnknownNode { known, .. } if known.len() == 2), "{unknown}");
    assert!(matches!(control.quarantine(NodeId(1)).unwrap_err(), ControlError::QuarantinesItself(_)));
    let n2 = control.find("n2").unwrap();
    assert!(control.quarantine(n2).unwrap() > 0);
    let refused = nodes[0].member().dialer().dial_peer(&nodes[1].address(), n2).await;
    assert!(refused.is_err());
    // The rest is no majority without it: refused by name, and nothing is changed.
    let gone = control.demote(n2, true).await.unwrap_err();
    assert!(matches!(&gone, ControlError::NoQuorum { unreached, .. } if unreached.len() == 1), "{gone}");
    control.lift_quarantine(n2).unwrap();
    nodes[1].converged(2).await;
}
