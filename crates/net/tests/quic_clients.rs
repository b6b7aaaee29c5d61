//! The client port over QUIC from outside: what is offered, who is accepted, and with which code a refusal or an end by
//! trust closes a connection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use countersign_core::peer::Refusal;
use countersign_net::frame::RefusalCode;
use countersign_net::stream::ClosedByTrust;
use countersign_net::{AcceptorLimits, DialCause, Expected, QuicDialer, QuicPurpose};
use rig::quic::{Port, ended, loopback, told};
use rig::raw::Raw;
use rig::{Cluster, DAY, NOW, client_principal, dialed, node_principal, wish};
use rustls::AlertDescription;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CLIENT: &[u8] = b"countersign/1 client";

#[tokio::test]
async fn every_principal_of_the_cluster_is_accepted_and_no_byte_of_ours_comes_first() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster);
    let node = (&cluster.nodes[&2], node_principal(2));
    for (who, principal) in [(&cluster.client, client_principal("pay")), node] {
        let connection = port.connect(&Raw::of(who, &[CLIENT])).await.unwrap();
        let accepted = port.next().await;
        assert_eq!(accepted.peer().principal(), &principal);
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(b"ask").await.unwrap();
        let mut stream = accepted.accept().await.unwrap();
        let mut got = [0; 3];
        stream.read_exact(&mut got).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        let mut first = [0];
        recv.read_exact(&mut first).await.unwrap();
        assert_eq!((&got, &first), (b"ask", b"x"));
        // What was written arrives before the stream is left.
        stream.write_all(b"end").await.unwrap();
        let ending = tokio::spawn(async move { recv.read_to_end(16).await.unwrap() });
        stream.deliver().await.unwrap();
        assert_eq!(ending.await.unwrap(), b"end");
    }
}

/// The alert travels as the error code 0x100 and its number (RFC 9001 section 4.8).
#[tokio::test]
async fn offers_of_anything_but_the_one_protocol_are_refused_before_a_certificate_is_asked_for() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster);
    let one: [&[&[u8]]; 5] = [&[b"h3"], &[b"h2"], &[b"countersign/1 peer"], &[b"countersign/1 service"], &[b"kafka"]];
    let several: [&[&[u8]]; 4] = [&[], &[CLIENT, b"h3"], &[b"h3", CLIENT], &[CLIENT, CLIENT]];
    let one = one.map(|offer| (offer, AlertDescription::NoApplicationProtocol));
    let several = several.map(|offer| (offer, AlertDescription::AccessDenied));
    for (offer, expected) in one.into_iter().chain(several) {
        let error = port.connect(&Raw::of(&cluster.client, offer)).await.unwrap_err();
        assert_eq!(told(&error), (0x100 + u64::from(u8::from(expected)), false), "{offer:?}: {error:?}");
        let record = port.refused().await;
        assert_eq!((record.refusal, record.principal), (Refusal::Protocol, None), "{offer:?}");
    }
    assert!(port.connections.try_recv().is_err());
}

#[tokio::test]
async fn callers_without_a_certificate_of_an_authority_here_do_not_end_the_handshake() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster);
    let foreign = Cluster::new();
    let stolen = Raw::new(&[CLIENT]).showing(&cluster.client.chain, &foreign.client.key);
    for (claim, stranger) in [
        ("none", Raw::new(&[CLIENT])),
        ("of another cluster", Raw::of(&foreign.client, &[CLIENT])),
        ("the key of another", stolen),
    ] {
        // TLS 1.3 lets the client think that it is done.
        let error = match port.connect(&stranger).await {
            Ok(connection) => ended(&connection).await,
            Err(error) => error,
        };
        let (code, by_application) = told(&error);
        assert!((0x101..0x200).contains(&code) && !by_application, "{claim}: {error:?}");
        assert_eq!(port.refused().await.refusal, Refusal::Handshake, "{claim}");
    }
    assert!(port.connections.try_recv().is_err());
}

#[tokio::test]
async fn refusals_close_the_connection_with_their_code_their_reason_and_the_failure_id() {
    let mut cluster = Cluster::new();
    let evicted = cluster.nodes.remove(&3).unwrap();
    let unknown = cluster.issue(&wish(client_principal("shop")));
    let port = &mut Port::with(&cluster, AcceptorLimits::default(), 1);
    port.endpoint.publish(cluster.evict(3), NOW).unwrap();
    for (who, expected, code) in [(&evicted, Refusal::Evicted, 0x107), (&unknown, Refusal::PrincipalUnknown, 0x10e)] {
        port.is_refused(&Raw::of(who, &[CLIENT]), expected, code).await;
    }
    // The queue has one place.
    let pay = Raw::of(&cluster.client, &[CLIENT]);
    let _waiting = port.connect(&pay).await.unwrap();
    port.until_waiting(1).await;
    port.is_refused(&pay, Refusal::Overloaded, 0x111).await;
    port.connections.close();
    port.is_refused(&pay, Refusal::NotReady, 0x113).await;
    port.connections.try_recv().unwrap();
    let key = cluster.client.id();
    port.endpoint.publish(cluster.next(|view| _ = view.revoked_keys.insert(key)), NOW).unwrap();
    port.is_refused(&pay, Refusal::KeyRevoked, 0x106).await;
    port.clock.set(NOW.plus_secs(2 * DAY));
    let two = Raw::of(&cluster.nodes[&2], &[CLIENT]);
    port.is_refused(&two, Refusal::Expired, 0x105).await;
    assert_eq!(port.endpoint.registry().count(), 0);
}

#[tokio::test]
async fn trust_that_ends_closes_the_connection_with_its_code_and_its_reason() {
    type End = fn(&mut Cluster, &Port);
    let ends: [(&str, End, Refusal, u64); 5] = [
        (
            "revocation",
            |cluster, port| {
                let key = cluster.client.id();
                port.endpoint.publish(cluster.next(|view| _ = view.revoked_keys.insert(key)), NOW).unwrap();
            },
            Refusal::KeyRevoked,
            0x106,
        ),
        (
            "principal",
            |cluster, port| {
                let role = client_principal("pay").role;
                port.endpoint.registry().close_principal(&client_principal("pay"), Refusal::PrincipalRevoked);
                port.endpoint.publish(cluster.next(|view| _ = view.principals.remove(&role)), NOW).unwrap();
            },
            Refusal::PrincipalRevoked,
            0x114,
        ),
        (
            "unknown",
            |cluster, port| {
                let role = client_principal("pay").role;
                port.endpoint.publish(cluster.next(|view| _ = view.principals.remove(&role)), NOW).unwrap();
            },
            Refusal::PrincipalUnknown,
            0x10e,
        ),
        ("expiry", |_, port| drop(port.endpoint.registry().expire(NOW.plus_secs(2 * DAY))), Refusal::Expired, 0x105),
        ("lease", |_, port| drop(port.endpoint.registry().close_services(Refusal::NoLease)), Refusal::NoLease, 0x116),
    ];
    for (what, end, expected, code) in ends {
        let mut cluster = Cluster::new();
        let mut port = Port::of(&cluster);
        let connection = port.connect(&Raw::of(&cluster.client, &[CLIENT])).await.unwrap();
        let accepted = port.next().await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(b"xy").await.unwrap();
        let mut stream = accepted.accept().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        end(&mut cluster, &port);
        // At once: the byte that arrived before is not handed out.
        let error = stream.read_u8().await.unwrap_err();
        let reason = error.get_ref().and_then(|e| e.downcast_ref::<ClosedByTrust>());
        assert_eq!(reason, Some(&ClosedByTrust(expected)), "{what}");
        assert_eq!(accepted.closed().await, expected);
        let error = ended(&connection).await;
        assert_eq!(told(&error), (code, true), "{what}: {error:?}");
        assert_eq!(rig::quic::phrase(&error), expected.to_string(), "{what}");
        assert_eq!(port.endpoint.registry().count(), 0, "{what}");
    }
}

#[tokio::test]
async fn members_dialer_reaches_the_port_and_is_told_of_a_refusal() {
    let mut cluster = Cluster::new();
    let mut port = Port::of(&cluster);
    let two = QuicDialer::bind(loopback(), cluster.endpoint(&cluster.nodes[&2]).0).unwrap();
    let address = dialed(port.address);
    let connection = two.dial(&address, QuicPurpose::Client, Expected::Node(countersign_core::id::NodeId(1))).await;
    let _connection = connection.unwrap();
    assert_eq!(port.next().await.peer().principal(), &node_principal(2));
    // Another purpose is another protocol.
    let error =
        two.dial(&address, QuicPurpose::Peer, Expected::Node(countersign_core::id::NodeId(1))).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::NotCountersign(_)), "{error:?}");
    assert_eq!(port.refused().await.refusal, Refusal::Protocol);
    port.endpoint.publish(cluster.evict(2), NOW).unwrap();
    // The handshake may be over for the dialer before it is refused.
    match two.dial(&address, QuicPurpose::Client, Expected::Host).await {
        Ok(connection) => {
            let error = connection.accept().await.err().unwrap();
            let lost = error.get_ref().and_then(|e| e.downcast_ref::<quinn::ConnectionError>()).unwrap();
            assert_eq!(told(lost), (0x107, true));
        }
        Err(error) => assert!(matches!(error.cause, DialCause::Refused { code: RefusalCode(7) }), "{error:?}"),
    }
    assert_eq!(port.refused().await.refusal, Refusal::Evicted);
}

/// Nothing would be asked of a resumed session's certificate, and early data runs before there is one.
#[tokio::test]
async fn no_session_is_resumed_and_nothing_is_sent_early() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster);
    let config = Raw::of(&cluster.client, &[CLIENT]).resuming();
    let client = rig::quic::client();
    for _ in 0..2 {
        let connecting = client.connect_with(rig::quic::config(&config), port.address, &config.name).unwrap();
        // What the server forbids itself, a hostile client will try.
        #[allow(clippy::disallowed_methods)]
        let connecting = connecting.into_0rtt().map(drop).expect_err("a ticket was issued");
        let connection = connecting.await.unwrap();
        let accepted = port.next().await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        accepted.accept().await.unwrap();
    }
}
