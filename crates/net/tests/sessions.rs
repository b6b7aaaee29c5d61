//! What the users of a stream are promised of its session, whatever protocol it is under.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use countersign_core::id::NodeId;
use countersign_net::{Expected, Protection, Session, dial_enroll};
use rig::Cluster;

/// Both ends of one connection under each protocol.
async fn sessions(cluster: &Cluster) -> Vec<(Box<dyn Session>, Box<dyn Session>)> {
    let mut server = cluster.serve(1).await;
    let dialer = cluster.dialer(&cluster.nodes[&2]);
    let peer = dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    let service = dialer.dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
    let pinned = dial_enroll(&server.dialed(), cluster.authority.id()).await.unwrap();
    vec![
        (Box::new(peer), Box::new(server.peers.recv().await.unwrap())),
        (Box::new(service), Box::new(server.client().await)),
        (Box::new(pinned), Box::new(server.enrollments.recv().await.unwrap())),
    ]
}

#[tokio::test]
async fn both_ends_hold_the_same_binding_and_no_other_connection_or_label_has_it() {
    let cluster = Cluster::new();
    let mut bindings = Vec::new();
    for (dialed, accepted) in sessions(&cluster).await {
        for label in [&b"EXPORTER-one"[..], b"EXPORTER-two"] {
            let binding = dialed.channel_binding(label).unwrap();
            assert_eq!(binding, accepted.channel_binding(label).unwrap());
            assert!(!bindings.contains(&binding));
            bindings.push(binding);
        }
    }
    assert_eq!(bindings.len(), 6);
}

#[tokio::test]
async fn every_session_is_protected_by_tls_with_the_hybrid_key_exchange() {
    for (dialed, accepted) in sessions(&Cluster::new()).await {
        for session in [dialed, accepted] {
            assert_eq!(session.protection(), Protection::Tls { key_exchange: Some("X25519MLKEM768") });
        }
    }
}
