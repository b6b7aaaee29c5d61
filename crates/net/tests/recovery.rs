//! Expiry ends service, not recovery: the rights of a connection once a member's certificate has ended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use std::sync::Arc;

use countersign_core::id::NodeId;
use countersign_core::peer::{Refusal, Scope};
use countersign_core::time::{UnixMillis, Validity};
use countersign_core::trust::member::Member;
use countersign_core::trust::view::{AuthorityPhase, View};
use countersign_net::{
    AcceptorLimits, ClosedConnection, DialCause, DialError, Dialer, Endpoint, Expected, PeerStream, QuicAcceptor,
    QuicDialer, QuicPurpose,
};
use rig::{Cluster, Identity, ManualClock, NOW, Server, Sink, Wish, node_principal, wish};

const ENDED: Validity = Validity { not_before: NOW.minus_secs(7200), not_after: NOW.minus_secs(3600) };

/// A cluster whose nodes 1 and 2 have certificates that ended an hour ago; both are on record. Node 3's is valid.
fn expired() -> Cluster {
    let mut cluster = Cluster::new();
    for id in [1, 2] {
        let leaf = cluster.issue(&Wish { validity: ENDED, endorsed: Some((id, 1)), principal: node_principal(id) });
        let ended = |member: &mut Member| (member.leaf.key, member.leaf.validity) = (leaf.id(), ENDED);
        cluster.view.members.update(&NodeId(id), ended).unwrap();
        cluster.nodes.insert(id, leaf);
    }
    cluster
}

fn endpoint(cluster: &Cluster, who: &Identity) -> Endpoint {
    Endpoint::new(cluster.trust(who.credential()), ManualClock::new(), Sink::new().0)
}

/// Node 2's connection to node 1, as both ends have it.
async fn connected(cluster: &Cluster) -> (Server, Endpoint, PeerStream, PeerStream) {
    let mut server = cluster.serve(1).await;
    let two = endpoint(cluster, &cluster.nodes[&2]);
    let dialed = Dialer::new(two.clone()).dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    let accepted = server.peers.recv().await.unwrap();
    (server, two, dialed, accepted)
}

fn told(error: &DialError) -> Option<Refusal> {
    match error.cause {
        DialCause::Refused { code } => code.refusal(),
        DialCause::Judged(refusal) => Some(refusal),
        _ => None,
    }
}

#[tokio::test]
async fn each_end_knows_what_the_other_may_ask_for() {
    let cluster = expired();
    for (dialing, serving, seen_by_server, seen_by_dialer) in [
        (2, 1, Scope::Recovery, Scope::Recovery),
        (3, 1, Scope::Full, Scope::Recovery),
        (2, 3, Scope::Recovery, Scope::Full),
    ] {
        let mut server = cluster.serve(serving).await;
        let dialer = cluster.dialer(&cluster.nodes[&dialing]);
        let dialed = dialer.dial_peer(&server.dialed(), NodeId(serving)).await.unwrap();
        let accepted = server.peers.recv().await.unwrap();
        let scopes = (accepted.peer().scope(), dialed.peer().scope());
        assert_eq!(scopes, (seen_by_server, seen_by_dialer), "node {dialing} to node {serving}");
        assert_eq!(server.endpoint.registry().connections()[0].scope, seen_by_server);
    }
}

/// Nothing but the time may be wrong with it, and only where members speak to members.
#[tokio::test]
async fn a_certificate_with_another_fault_than_its_age_recovers_nothing() {
    use Refusal as R;
    let mut cluster = expired();
    let old = |endorsed| Wish { validity: ENDED, endorsed, principal: node_principal(2) };
    let cases = [
        ("an earlier renewal", cluster.issue(&old(Some((2, 0)))), R::Superseded),
        ("no endorsement", cluster.issue(&old(None)), R::KeyUnknown),
        ("another's endorsement", cluster.issue(&old(Some((3, 2)))), R::Endorsement),
        ("evicted", cluster.issue(&Wish { principal: node_principal(3), ..old(Some((3, 2))) }), R::Evicted),
        ("never admitted", cluster.issue(&Wish { principal: node_principal(9), ..old(Some((9, 2))) }), R::NotAMember),
    ];
    let dialers: Vec<Dialer> = cases.iter().map(|(_, who, _)| cluster.dialer(who)).collect();
    cluster.evict(3);
    let mut server = cluster.serve(1).await;
    for ((claim, _, refusal), dialer) in cases.iter().zip(dialers) {
        let error = dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
        assert_eq!(told(&error), Some(*refusal), "{claim}");
        assert_eq!(server.refused().await.refusal, *refusal, "{claim}");
    }
    assert!(server.peers.try_recv().is_err());
}

#[tokio::test]
async fn an_expired_certificate_neither_serves_nor_is_served() {
    let cluster = expired();
    let (mut one, mut three) = (cluster.serve(1).await, cluster.serve(3).await);
    let two = cluster.dialer(&cluster.nodes[&2]);
    let _dialed = two.dial_client_port(&three.client_port(), Expected::Host).await.unwrap();
    assert_eq!(three.refused_client().await, Refusal::Expired, "an expired caller");
    let from_three = cluster.dialer(&cluster.nodes[&3]);
    for expected in [Expected::Host, Expected::Node(NodeId(1))] {
        let error = from_three.dial_client_port(&one.client_port(), expected).await.unwrap_err();
        assert!(matches!(error.cause, DialCause::Judged(Refusal::Expired)), "an expired server: {error:?}");
    }
    assert!(one.clients.try_recv().is_err());
}

/// The protocol behind a QUIC port is the embedder's.
#[tokio::test]
async fn recovery_is_on_the_cluster_port_alone() {
    let cluster = expired();
    let served = endpoint(&cluster, &cluster.nodes[&3]);
    let on = "127.0.0.1:0".parse().unwrap();
    let acceptor = QuicAcceptor::bind(on, served, QuicPurpose::Peer, AcceptorLimits::default()).unwrap();
    let (address, _accepted) = (rig::dialed(acceptor.local_addr().unwrap()), acceptor.connections(16));
    let _running = tokio::spawn(async move { match acceptor.run().await {} });
    let dialer = QuicDialer::bind(on, endpoint(&cluster, &cluster.nodes[&2])).unwrap();
    let error = dialer.dial(&address, QuicPurpose::Peer, Expected::Node(NodeId(3))).await.unwrap_err();
    assert_eq!(told(&error), Some(Refusal::Expired), "{error:?}");
}

/// A connection of full scope ends with its certificate. A member that dials again gets less scope, and that stays.
#[tokio::test]
async fn expiry_ends_what_was_of_full_scope_and_nothing_that_recovers() {
    let cluster = Cluster::new();
    let (server, _, _dialed, full) = connected(&cluster).await;
    assert_eq!(full.peer().scope(), Scope::Full);
    let later = full.peer().not_after().plus_secs(1);
    let registry = server.endpoint.registry();
    assert_eq!(registry.expire(later).len(), 1);
    assert_eq!(full.closed().await, Refusal::Expired);

    let cluster = expired();
    let (server, two, dialed, accepted) = connected(&cluster).await;
    for end in [&server.endpoint, &two] {
        assert_eq!(end.registry().expire(UnixMillis(u64::MAX)), []);
        assert_eq!(end.registry().count(), 1);
    }
    assert_eq!((dialed.peer().scope(), accepted.peer().scope()), (Scope::Recovery, Scope::Recovery));
}

/// A view published after the end of a certificate, before the connection was closed: the same as its end.
#[tokio::test]
async fn a_new_view_leaves_no_full_scope_to_an_expired_certificate() {
    let mut cluster = Cluster::new();
    let (server, _, _dialed, accepted) = connected(&cluster).await;
    let later = accepted.peer().not_after().plus_secs(1);
    let closed = server.endpoint.publish(cluster.next(|_| {}), later).unwrap();
    assert_eq!(closed.iter().map(|c| c.refusal).collect::<Vec<_>>(), [Refusal::Expired]);
}

#[tokio::test]
async fn a_connection_in_recovery_ends_when_its_member_is_refused() {
    type Change = fn(&mut View);
    let cases: [(&str, Change, Option<Refusal>); 6] = [
        ("nothing about it", |_| {}, None),
        ("another is evicted", |view| rig::evict(view, 3), None),
        ("evicted", |view| rig::evict(view, 2), Some(Refusal::Evicted)),
        (
            "renewed since: it has the next certificate, and dials with it",
            |view| {
                let next = |member: &mut Member| (member.leaf.key.0, member.leaf.renewal) = ([9; 32], 2);
                view.members.update(&NodeId(2), next).unwrap();
            },
            Some(Refusal::Superseded),
        ),
        (
            "its key is revoked",
            |view| view.revoked_keys.extend([view.members[&NodeId(2)].leaf.key]),
            Some(Refusal::KeyRevoked),
        ),
        (
            "its authority is tainted",
            |view| view.authorities.values_mut().for_each(|a| a.phase = AuthorityPhase::Tainted),
            Some(Refusal::Authority),
        ),
    ];
    for (claim, change, refusal) in cases {
        let mut cluster = expired();
        let (server, _, _dialed, accepted) = connected(&cluster).await;
        let view: Arc<View> = cluster.next(change);
        let closed = server.endpoint.publish(view, NOW).unwrap();
        let of_two = |closed: &ClosedConnection| (closed.principal == node_principal(2)).then_some(closed.refusal);
        assert_eq!(closed.iter().find_map(of_two), refusal, "{claim}");
        if let Some(refusal) = refusal {
            assert_eq!(accepted.closed().await, refusal, "{claim}");
        }
    }
}

/// The dialer's end of it: the server has renewed, and the connection to its old certificate makes way.
#[tokio::test]
async fn a_dialer_does_not_keep_a_server_in_recovery_that_has_renewed() {
    let mut cluster = expired();
    let (mut server, two, dialed, _accepted) = connected(&cluster).await;
    let renewed = cluster.issue(&Wish { endorsed: Some((1, 2)), ..wish(node_principal(1)) });
    let (key, validity) = (renewed.id(), rig::valid());
    let view = cluster.next(|view| {
        let next = |member: &mut Member| {
            (member.leaf.key, member.leaf.renewal, member.leaf.validity) = (key, 2, validity);
        };
        view.members.update(&NodeId(1), next).unwrap();
    });
    server.endpoint.publish_credential(renewed.credential());
    assert_eq!(two.publish(view, NOW).unwrap().len(), 1);
    assert_eq!(dialed.closed().await, Refusal::Superseded);
    let again = Dialer::new(two).dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    assert_eq!(again.peer().scope(), Scope::Full);
    drop(server.peers.recv().await);
}
