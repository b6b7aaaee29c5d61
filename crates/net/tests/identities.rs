//! Who gets in: every kind of identity against every protocol, from both ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use countersign_core::id::{ClusterId, NodeId};
use countersign_core::name::{Address, Host, HostName};
use countersign_core::peer::Refusal;
use countersign_core::principal::{Principal, Role, TrustDomain};
use countersign_core::time::Validity;
use countersign_net::{AcceptorLimits, DialCause, DialError, Expected, Protection, Session};
use rig::{
    Cluster, Identity, ManualClock, NOW, Server, Wish, authority, client_principal, issue, node_principal, wish,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_member_reaches_a_member_and_each_knows_the_other() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let dialer = cluster.dialer(&cluster.nodes[&2]);
    let mut dialed = dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    let mut accepted = server.peers.recv().await.unwrap();
    assert_eq!(accepted.peer().principal(), &node_principal(2));
    assert_eq!(accepted.peer().key(), cluster.nodes[&2].id());
    assert_eq!(dialed.peer().principal(), &node_principal(1));
    assert_eq!(dialed.protection(), Protection::Tls { key_exchange: Some("X25519MLKEM768") });
    assert_eq!(accepted.protection(), Protection::Tls { key_exchange: Some("X25519MLKEM768") });

    dialed.write_all(b"ping").await.unwrap();
    dialed.flush().await.unwrap();
    let mut got = [0; 4];
    accepted.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"ping");
    // More than an unauthenticated caller may ever send.
    let bulk = vec![7; 1 << 20];
    let (sent, received) = tokio::join!(
        async {
            accepted.write_all(&bulk).await.unwrap();
            accepted.shutdown().await
        },
        async {
            let mut all = Vec::new();
            dialed.read_to_end(&mut all).await.map(|_| all)
        }
    );
    sent.unwrap();
    assert_eq!(received.unwrap(), bulk);
}

#[tokio::test]
async fn a_known_client_is_served_but_is_no_peer() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let dialer = cluster.dialer(&cluster.client);
    let stream = dialer.dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
    assert_eq!(stream.peer().principal(), &node_principal(1));
    assert_eq!(server.client().await.peer().principal(), &client_principal("pay"));
    let error = dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
    refused(&mut server, &error, Refusal::NotANode).await;
}

/// The dialer was told this refusal, and the acceptor logged it under the same id.
async fn refused(server: &mut Server, error: &DialError, expected: Refusal) {
    let record = server.refused().await;
    assert_eq!(record.refusal, expected, "{record:?} {error:?}");
    assert_eq!(Some(record.failure_id), error.failure_id);
    match &error.cause {
        DialCause::Refused { code } => assert_eq!(code.refusal(), Some(expected)),
        DialCause::Alert { .. } => assert_eq!(expected, Refusal::Handshake),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn callers_that_are_no_members_are_refused_and_told_so() {
    use Refusal as R;
    let mut cluster = Cluster::new();
    let endorsed = |id, by, renewal| Wish { endorsed: Some((by, renewal)), ..wish(node_principal(id)) };
    let between = |from: i64, to: i64| {
        let at = |secs: i64| NOW.plus_secs(1_000_000).minus_secs(u64::try_from(1_000_000 - secs).unwrap());
        Wish { validity: Validity { not_before: at(from), not_after: at(to) }, ..endorsed(2, 2, 2) }
    };
    let broker = Role::Broker(HostName::parse("b1.example.org").unwrap());
    let foreign_domain = TrustDomain::parse("west-08080808.internal").unwrap();
    let west = |role| Principal { trust_domain: foreign_domain.clone(), role };

    let cases: Vec<(&str, Identity, Option<R>)> = vec![
        ("the next renewal, endorsed", cluster.issue(&endorsed(2, 2, 2)), None),
        ("the same renewal number again", cluster.issue(&endorsed(2, 2, 1)), Some(R::Superseded)),
        ("an earlier renewal", cluster.issue(&endorsed(2, 2, 0)), Some(R::Superseded)),
        ("no endorsement: a stolen CA key", cluster.issue(&wish(node_principal(2))), Some(R::KeyUnknown)),
        ("another member's endorsement", cluster.issue(&endorsed(2, 3, 2)), Some(R::Endorsement)),
        ("a member that never was", cluster.issue(&endorsed(9, 9, 1)), Some(R::NotAMember)),
        ("expired yesterday: recovers, no more", cluster.issue(&between(-86_400, -1)), None),
        ("valid tomorrow", cluster.issue(&between(1, 86_400)), Some(R::NotYetValid)),
        ("a client", cluster.issue(&wish(client_principal("pay"))), Some(R::NotANode)),
        ("a broker", cluster.issue(&wish(Principal { role: broker, ..node_principal(1) })), Some(R::NotANode)),
        (
            "another trust domain, same authority",
            cluster.issue(&wish(west(Role::Node(NodeId(2))))),
            Some(R::TrustDomain),
        ),
        ("a foreign authority", issue(&authority(Some(rig::CLUSTER)), &endorsed(2, 2, 2)), Some(R::Handshake)),
    ];
    // The dialers keep this view; node 3 is evicted from the server's only.
    let evicted = cluster.issue(&endorsed(3, 3, 2));
    let dialers: Vec<_> = cases.iter().map(|(_, who, _)| cluster.dialer(who)).collect();
    let evicted_dialer = cluster.dialer(&evicted);
    cluster.evict(3);

    let mut server = cluster.serve(1).await;
    for ((claim, _, expected), dialer) in cases.iter().zip(dialers) {
        let outcome = dialer.dial_peer(&server.dialed(), NodeId(1)).await;
        match (outcome, expected) {
            (Ok(_), None) => drop(server.peers.recv().await.unwrap()),
            (Err(error), Some(refusal)) => refused(&mut server, &error, *refusal).await,
            (outcome, _) => panic!("{claim}: {outcome:?}"),
        }
    }
    let error = evicted_dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
    refused(&mut server, &error, R::Evicted).await;
    assert!(server.peers.try_recv().is_err());
}

#[tokio::test]
async fn a_revoked_key_is_refused_whatever_certificate_carries_it() {
    let mut cluster = Cluster::new();
    let dialer = cluster.dialer(&cluster.nodes[&2]);
    let client = cluster.dialer(&cluster.client);
    let keys = [cluster.nodes[&2].id(), cluster.client.id()];
    cluster.next(|view| view.revoked_keys.extend(keys));
    let mut server = cluster.serve(1).await;
    let error = dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
    refused(&mut server, &error, Refusal::KeyRevoked).await;
    let _dialed = client.dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
    assert_eq!(server.refused_client().await, Refusal::KeyRevoked);
}

/// Two clusters under one authority: each refuses the other's certificates.
#[tokio::test]
async fn an_authority_of_another_cluster_is_refused() {
    let mut cluster = Cluster::new();
    let other = authority(Some(ClusterId([8; 16])));
    cluster.view.authorities.insert(other.id(), rig::record(&other, true));
    let intruder = issue(&other, &Wish { endorsed: Some((2, 2)), ..wish(node_principal(2)) });
    let dialer = cluster.dialer(&intruder);
    let mut server = cluster.serve(1).await;
    let error = dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
    refused(&mut server, &error, Refusal::Cluster).await;
}

#[tokio::test]
async fn an_unknown_admin_and_an_unrecorded_client_key_are_refused() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let admin = Principal { role: Role::parse("admin/root").unwrap(), ..node_principal(1) };
    for principal in [admin, client_principal("pay"), client_principal("unknown")] {
        let who = cluster.issue(&wish(principal));
        let _dialed = cluster.dialer(&who).dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
        assert_eq!(server.refused_client().await, Refusal::PrincipalUnknown);
    }
}

/// The dialer refuses, within TLS; the acceptor logs the failed handshake under the dialer's id.
#[tokio::test]
async fn a_dialer_refuses_a_server_that_it_did_not_dial() {
    let mut cluster = Cluster::new();
    let mut old = cluster.dialer(&cluster.nodes[&2]);
    let outsider = authority(Some(rig::CLUSTER));
    let impostor = issue(&outsider, &Wish { endorsed: Some((1, 2)), ..wish(node_principal(1)) });
    let mut server = cluster.serve(1).await;

    let error = old.dial_peer(&server.dialed(), NodeId(3)).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Judged(Refusal::WrongNode)), "{error:?}");
    let record = server.refused().await;
    assert_eq!((record.refusal, Some(record.failure_id)), (Refusal::Handshake, error.failure_id));

    // A server under another authority; its own view trusts that one.
    let mut foreign = Cluster::new();
    foreign.view.authorities.insert(outsider.id(), rig::record(&outsider, false));
    let impostor = Server::start(foreign.trust(impostor.credential()), Default::default(), server.clock.clone());
    let mut impostor = impostor.await;
    let error = old.dial_peer(&impostor.dialed(), NodeId(1)).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Untrusted(_)), "{error:?}");
    assert_eq!(Some(impostor.refused().await.failure_id), error.failure_id);

    // A client's certificate, issued by the right authority, at a server.
    let pay = cluster.serve(1).await;
    pay.endpoint.publish_credential(cluster.client.credential());
    let error = old.dial_client_port(&pay.client_port(), Expected::Host).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Untrusted(_)), "{error:?}");

    // An evicted server.
    cluster.evict(1);
    old = cluster.dialer(&cluster.nodes[&2]);
    let error = old.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Judged(Refusal::Evicted)), "{error:?}");
}

#[tokio::test]
async fn a_service_is_dialed_by_a_host_that_its_certificate_holds() {
    let cluster = Cluster::new();
    let trust = cluster.trust(cluster.nodes[&1].credential());
    let mut server = Server::start_on("0.0.0.0:0", trust, AcceptorLimits::default(), ManualClock::new()).await;
    let dialer = cluster.dialer(&cluster.client);
    let port = server.client_address.port();
    for host in ["127.0.0.1", "localhost"] {
        dialer.dial_client_port(&Address { host: Host::parse(host).unwrap(), port }, Expected::Host).await.unwrap();
        server.client().await;
    }
    // The same machine under another name: reached, but the certificate is not for it.
    let other = Address { host: Host::parse("127.0.0.2").unwrap(), port };
    let error = dialer.dial_client_port(&other, Expected::Host).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Host), "{error:?}");
    assert_eq!((error.failure_id, server.refused().await.refusal), (None, Refusal::Handshake));
    // A member that is dialed by its number may be reached at any address.
    dialer.dial_client_port(&other, Expected::Node(NodeId(1))).await.unwrap();
}

#[tokio::test]
async fn one_certificate_opens_a_bounded_number_of_connections() {
    let cluster = Cluster::new();
    let client = cluster.dialer(&cluster.client);
    let mut server = cluster.serve(1).await;
    let mut open = Vec::new();
    for _ in 0..countersign_core::limits::CONNECTIONS_PER_PRINCIPAL_MAX {
        let dialed = client.dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
        open.push((dialed, server.client().await));
    }
    let _dialed = client.dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
    assert_eq!(server.refused_client().await, Refusal::Connections);
    // A member's own connections are not counted with it.
    let member = cluster.dialer(&cluster.nodes[&2]);
    member.dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
}

#[tokio::test]
async fn all_services_together_open_a_bounded_number_of_connections() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    server.endpoint.registry().bound_services_for_testing(2);
    let (client, member) = (cluster.dialer(&cluster.client), cluster.dialer(&cluster.nodes[&2]));
    let mut open = Vec::new();
    for dialer in [&client, &member] {
        let dialed = dialer.dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
        open.push((dialed, server.client().await));
    }
    for dialer in [&client, &member] {
        let _dialed = dialer.dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
        assert_eq!(server.refused_client().await, Refusal::Overloaded);
    }
    // What members say to each other has room all the same, and a place that is given up is another's.
    member.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    open.pop();
    client.dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
}
