//! Attacks of unauthenticated callers on the port: none costs much, and each is logged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::{FailureId, NodeId};
use countersign_core::peer::Refusal;
use countersign_net::frame::FirstFrame;
use countersign_net::{AcceptorLimits, Alpn, DialCause, Trust};
use rig::raw::{Raw, alert, first_frame};
use rig::{Cluster, ManualClock, Server, authority, issue, node_principal, until, wish};
use rustls::{AlertDescription, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const ID: FailureId = FailureId([0, 0, 0, 0, 0, 0, 0, 0xaa]);

fn limits(change: impl FnOnce(&mut AcceptorLimits)) -> AcceptorLimits {
    let mut limits = AcceptorLimits::default();
    change(&mut limits);
    limits
}

/// The bytes of a ClientHello that goes no further.
fn client_hello(raw: &Raw) -> Vec<u8> {
    let name = rustls_pki_types::ServerName::try_from(raw.name.clone()).unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(raw.config.clone()), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn exactly_one_known_protocol_is_answered() {
    let mut server = Cluster::new().serve(1).await;
    let (peer, enroll) = (Alpn::Peer.id(), Alpn::Enroll.id());
    let offers: [&[&[u8]]; 5] = [&[], &[b"h2"], &[peer, b"h2"], &[enroll, peer], &[b"countersign/2 peer"]];
    for offer in offers {
        let error = Raw::new(offer).answer(server.address).await.unwrap_err();
        assert_eq!(alert(&error), Some(AlertDescription::NoApplicationProtocol), "{offer:?}");
        let record = server.refused().await;
        assert_eq!((record.refusal, record.failure_id, record.alpn), (Refusal::Protocol, ID, None), "{offer:?}");
    }
}

#[tokio::test]
async fn only_enrollment_goes_without_a_certificate() {
    let mut server = Cluster::new().serve(1).await;
    let error = Raw::new(&[Alpn::Peer.id()]).answer(server.address).await.unwrap_err();
    assert_eq!(alert(&error), Some(AlertDescription::CertificateRequired));
    let record = server.refused().await;
    assert_eq!((record.refusal, record.failure_id, record.alpn), (Refusal::Handshake, ID, Some(Alpn::Peer)));
    assert_eq!(record.principal, None);
    assert!(matches!(Raw::new(&[Alpn::Enroll.id()]).answer(server.address).await, Ok(FirstFrame::Welcome { .. })));
    server.enrollments.recv().await.unwrap();
    assert!(server.peers.try_recv().is_err());
}

/// One alert for every reason; the reasons are in the log.
#[tokio::test]
async fn a_refused_certificate_is_not_told_why() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let (own, other) = (&cluster.nodes[&2], &cluster.nodes[&3]);
    let foreign = issue(&authority(Some(rig::CLUSTER)), &wish(node_principal(2)));
    let mut appended = foreign.chain.clone();
    appended.push(cluster.authority.certificate().to_vec());
    let garbage = vec![vec![0x30, 0x03, 0x02, 0x01, 0x01]];
    let long = vec![own.chain[0].clone(); 7];
    let cases = [
        ("a chain without its key", &own.chain, &other.key),
        ("a foreign authority", &foreign.chain, &foreign.key),
        ("a foreign leaf and the real authority appended", &appended, &foreign.key),
        ("no certificate at all in it", &garbage, &own.key),
        ("more certificates than a chain may have", &long, &own.key),
    ];
    let mut details = Vec::new();
    for (claim, chain, key) in cases {
        let raw = Raw::new(&[Alpn::Peer.id()]).showing(chain, key);
        let error = raw.answer(server.address).await.unwrap_err();
        assert_eq!(alert(&error), Some(AlertDescription::AccessDenied), "{claim}");
        let record = server.refused().await;
        assert_eq!((record.refusal, record.failure_id), (Refusal::Handshake, ID), "{claim}");
        details.push(record.detail.unwrap());
    }
    assert!(details[4].contains("7 certificates"), "{details:?}");
    details.dedup();
    assert!(details.len() >= 4, "{details:?}");
}

#[tokio::test]
async fn tls12_is_not_spoken() {
    let mut server = Cluster::new().serve(1).await;
    // A ClientHello of TLS 1.2: no supported_versions, ECDHE-ECDSA-AES128-GCM, X25519, our protocol.
    let alpn = Alpn::Peer.id();
    let mut protocol = vec![u8::try_from(alpn.len()).unwrap()];
    protocol.extend(alpn);
    let mut extensions = Vec::new();
    for (kind, list) in [(10u16, vec![0, 29]), (13, vec![4, 3]), (16, protocol)] {
        let mut body = u16::try_from(list.len()).unwrap().to_be_bytes().to_vec();
        body.extend(list);
        extensions.extend(kind.to_be_bytes());
        extensions.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        extensions.extend(body);
    }
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    hello.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    hello.extend(extensions);
    let mut record = vec![22, 3, 1];
    record.extend(u16::try_from(hello.len() + 4).unwrap().to_be_bytes());
    record.extend([1, 0]);
    record.extend(u16::try_from(hello.len()).unwrap().to_be_bytes());
    record.extend(hello);

    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 70], "a fatal protocol_version alert and nothing else");
    let record = server.refused().await;
    assert_eq!((record.refusal, record.alpn), (Refusal::Handshake, Some(Alpn::Peer)));
}

#[tokio::test]
async fn plain_text_is_refused() {
    let mut server = Cluster::new().serve(1).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert_eq!(server.refused().await.refusal, Refusal::Handshake);
}

#[tokio::test]
async fn an_unauthenticated_caller_may_send_so_many_bytes() {
    let mut server = Cluster::new().serve(1).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    // A ClientHello that claims to be 60 000 bytes long, in records of 16 KiB.
    let mut flood = vec![1, 0, 0xea, 0x60];
    flood.resize(32 * 1024, 0);
    for chunk in flood.chunks(16 * 1024) {
        let mut record = vec![22, 3, 1];
        record.extend(u16::try_from(chunk.len()).unwrap().to_be_bytes());
        record.extend(chunk);
        // The server may have hung up already.
        let _ = socket.write_all(&record).await;
    }
    let record = server.refused().await;
    assert_eq!(record.refusal, Refusal::Handshake);
    assert!(record.detail.unwrap().contains("24576 bytes before authentication"));
}

#[tokio::test]
async fn a_stalled_handshake_ends_at_its_deadline() {
    let limits = limits(|l| l.handshake = Duration::from_millis(30));
    let mut server = Cluster::new().serve_with(1, limits).await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    let record = server.refused().await;
    assert_eq!((record.refusal, record.alpn), (Refusal::Deadline, None));
    // One that stalls later is logged under the id that it gave.
    let mut halfway = TcpStream::connect(server.address).await.unwrap();
    halfway.write_all(&client_hello(&Raw::new(&[Alpn::Peer.id()]))).await.unwrap();
    let record = server.refused().await;
    assert_eq!((record.refusal, record.failure_id, record.alpn), (Refusal::Deadline, ID, Some(Alpn::Peer)));
    until(|| server.acceptor.handshakes_in_flight() == 0).await;
}

#[tokio::test]
async fn handshakes_under_way_are_bounded() {
    let cluster = Cluster::new();
    let mut server = cluster.serve_with(1, limits(|l| l.handshakes_in_flight = 2)).await;
    let stalled =
        [TcpStream::connect(server.address).await.unwrap(), TcpStream::connect(server.address).await.unwrap()];
    until(|| server.acceptor.handshakes_in_flight() == 2).await;
    let dialer = cluster.dialer(&cluster.nodes[&2]);
    let error = dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Closed(_)), "{error:?}");
    assert_eq!(server.refused().await.refusal, Refusal::Overloaded);
    drop(stalled);
    until(|| server.acceptor.handshakes_in_flight() == 0).await;
    dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
}

#[tokio::test]
async fn a_crowd_of_joiners_leaves_the_members_their_places() {
    let cluster = Cluster::new();
    let change = |l: &mut AcceptorLimits| (l.enrollments_in_flight, l.handshakes_in_flight) = (1, 1);
    let mut server = cluster.serve_with(1, limits(change)).await;
    let enroll = Raw::new(&[Alpn::Enroll.id()]);
    let mut first = enroll.connect(server.address).await.unwrap();
    first_frame(&mut first).await.unwrap();
    let held = server.enrollments.recv().await.unwrap();
    assert_eq!(server.acceptor.enrollments_in_flight(), 1);
    until(|| server.acceptor.handshakes_in_flight() == 0).await;

    let error = enroll.answer(server.address).await.unwrap_err();
    assert_eq!(alert(&error), Some(AlertDescription::InternalError));
    let record = server.refused().await;
    assert_eq!((record.refusal, record.alpn, record.failure_id), (Refusal::Overloaded, Some(Alpn::Enroll), ID));
    until(|| server.acceptor.handshakes_in_flight() == 0).await;
    cluster.dialer(&cluster.nodes[&2]).dial_peer(&server.dialed(), NodeId(1)).await.unwrap();

    drop(held);
    until(|| server.acceptor.enrollments_in_flight() == 0 && server.acceptor.handshakes_in_flight() == 0).await;
    // A joiner that stalls within its handshake holds no member's place either.
    let mut stalled = TcpStream::connect(server.address).await.unwrap();
    stalled.write_all(&client_hello(&enroll)).await.unwrap();
    until(|| server.acceptor.enrollments_in_flight() == 1).await;
    assert_eq!(server.acceptor.handshakes_in_flight(), 0);
    drop(stalled);
    until(|| server.acceptor.enrollments_in_flight() == 0).await;
    enroll.answer(server.address).await.unwrap();
}

#[tokio::test]
async fn a_joiner_that_says_nothing_loses_its_place() {
    let mut server = Cluster::new().serve_with(1, limits(|l| l.enrollment = Duration::from_millis(30))).await;
    let mut joiner = Raw::new(&[Alpn::Enroll.id()]).connect(server.address).await.unwrap();
    first_frame(&mut joiner).await.unwrap();
    let mut stream = server.enrollments.recv().await.unwrap();
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    drop(stream);
    assert_eq!(server.acceptor.enrollments_in_flight(), 0);
}

#[tokio::test]
async fn one_source_may_fail_so_often_and_success_is_free() {
    let cluster = Cluster::new();
    let change = |l: &mut AcceptorLimits| (l.failures_per_source_minute, l.handshakes_in_flight) = (2, 2);
    let mut server = cluster.serve_with(1, limits(change)).await;
    let dialer = cluster.dialer(&cluster.nodes[&2]);
    for _ in 0..5 {
        dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
        until(|| server.acceptor.handshakes_in_flight() == 0).await;
    }
    for _ in 0..2 {
        Raw::new(&[]).answer(server.address).await.unwrap_err();
        assert_eq!(server.refused().await.refusal, Refusal::Protocol);
    }
    until(|| server.acceptor.handshakes_in_flight() == 0).await;
    // Half the places are free: a member behind the same address is let in, and its success pays for no failure.
    for _ in 0..5 {
        dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
        until(|| server.acceptor.handshakes_in_flight() == 0).await;
    }
    // Another source makes places scarce.
    let elsewhere = TcpSocket::new_v4().unwrap();
    elsewhere.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let stalled = elsewhere.connect(server.address).await.unwrap();
    until(|| server.acceptor.handshakes_in_flight() == 1).await;
    for repeated in [false, true] {
        let error = dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
        assert!(matches!(error.cause, DialCause::Closed(_)), "{error:?}");
        let record = server.refused().await;
        assert_eq!((record.refusal, record.repeated), (Refusal::Overloaded, repeated));
    }
    drop(stalled);
    until(|| server.acceptor.handshakes_in_flight() == 0).await;
    dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
}

#[tokio::test]
async fn one_source_holds_its_share_of_the_enrollments_and_each_is_counted() {
    let cluster = Cluster::new();
    let change = |l: &mut AcceptorLimits| {
        (l.enrollments_in_flight, l.enrollments_per_source) = (3, 2);
        (l.handshakes_in_flight, l.failures_per_source_minute) = (2, 4);
    };
    let mut server = cluster.serve_with(1, limits(change)).await;
    let enroll = Raw::new(&[Alpn::Enroll.id()]);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut joiner = enroll.connect(server.address).await.unwrap();
        first_frame(&mut joiner).await.unwrap();
        held.push((server.enrollments.recv().await.unwrap(), joiner));
    }
    // The third place is there, but not for this source.
    assert_eq!(alert(&enroll.answer(server.address).await.unwrap_err()), Some(AlertDescription::InternalError));
    assert_eq!((server.refused().await.refusal, server.acceptor.enrollments_in_flight()), (Refusal::Overloaded, 2));
    drop(held.pop());
    until(|| server.acceptor.enrollments_in_flight() == 1 && server.acceptor.handshakes_in_flight() == 0).await;
    enroll.answer(server.address).await.unwrap();
    until(|| server.acceptor.handshakes_in_flight() == 0).await;

    // Four attempts, whether served or turned away, are what this source has; a fifth is refused where places are
    // scarce.
    let _stalled = TcpStream::connect(server.address).await.unwrap();
    until(|| server.acceptor.handshakes_in_flight() == 1).await;
    enroll.answer(server.address).await.unwrap_err();
    assert_eq!(server.refused().await.alpn, None, "before a byte was read");
}

/// On a resumed session the certificate would not be verified again: there are no sessions to resume.
#[tokio::test]
async fn no_session_is_ever_resumed() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    for alpn in Alpn::ALL {
        let raw = Raw::new(&[alpn.id()]).showing(&cluster.nodes[&2].chain, &cluster.nodes[&2].key).resuming();
        for _ in 0..3 {
            let mut tls = raw.connect(server.address).await.unwrap();
            first_frame(&mut tls).await.unwrap();
            match alpn {
                Alpn::Enroll => server.enrollments.recv().await.unwrap().write_all(b"x").await.unwrap(),
                Alpn::Peer => server.peers.recv().await.unwrap().write_all(b"x").await.unwrap(),
                Alpn::Client => unreachable!("the cluster port does not speak it"),
            }
            assert_eq!(tls.read_u8().await.unwrap(), b'x');
            assert_eq!(tls.get_ref().1.tls13_tickets_received(), 0);
            assert_eq!(tls.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
            assert!(!tls.get_ref().1.is_early_data_accepted());
        }
    }
}

#[tokio::test]
async fn an_attempt_without_a_proper_id_gets_one() {
    let mut server = Cluster::new().serve(1).await;
    let mut seen = Vec::new();
    for name in ["localhost", "00000000000000az.x.internal", "127.0.0.1"] {
        Raw::new(&[b"h2"]).named(name).answer(server.address).await.unwrap_err();
        let record = server.refused().await;
        assert!(record.failure_id != ID && record.failure_id != FailureId([0; 8]), "{name}");
        assert!(!seen.contains(&record.failure_id), "{name}");
        seen.push(record.failure_id);
    }
}

#[tokio::test]
async fn what_is_not_served_is_refused_as_not_ready() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let dialer = cluster.dialer(&cluster.nodes[&2]);
    let told = |cause: &DialCause| match cause {
        DialCause::Refused { code } => code.refusal(),
        _ => None,
    };
    // The queue is closed.
    server.peers.close();
    let error = dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
    assert_eq!(told(&error.cause), Some(Refusal::NotReady));
    assert_eq!(Some(server.refused().await.failure_id), error.failure_id);
    // The queue is full.
    server.peers = server.acceptor.routes().peers(1);
    let _waiting = dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    let error = dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
    assert_eq!(told(&error.cause), Some(Refusal::Overloaded));
    assert_eq!(Some(server.refused().await.failure_id), error.failure_id);
    assert_eq!(server.endpoint.registry().count(), 1, "only the one that waits");
}

#[tokio::test]
async fn a_member_without_a_certificate_does_not_answer() {
    let cluster = Cluster::new();
    let trust = Trust { credential: None, ..cluster.trust(cluster.nodes[&1].credential()) };
    let mut server = Server::start(trust, AcceptorLimits::default(), ManualClock::new()).await;
    let error = cluster.dialer(&cluster.nodes[&2]).dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Alert { alert: 80 }), "{error:?}");
    let record = server.refused().await;
    assert_eq!((record.refusal, Some(record.failure_id)), (Refusal::NotReady, error.failure_id));
}

/// While places are free a source past its budget is let in. It fills no log: what it fails at is counted.
#[tokio::test]
async fn attack_source_past_its_budget_fills_the_log_with_failures() {
    let mut cluster = Cluster::new();
    let change = |l: &mut AcceptorLimits| {
        l.failures_per_source_minute = 2;
        l.handshake = Duration::from_millis(300);
    };
    let mut server = cluster.serve_with(1, limits(change)).await;
    let evicted = cluster.evict(3);
    server.endpoint.publish(evicted, rig::NOW).unwrap();
    let (member, gone) = (&cluster.nodes[&2], &cluster.nodes[&3]);
    // On each port: no protocol of ours, a stall, and a certificate that counts no more.
    for port in [server.address, server.client_address] {
        let _stalled = [TcpStream::connect(port).await.unwrap(), TcpStream::connect(port).await.unwrap()];
        for _ in 0..2 {
            let record = server.refused().await;
            assert_eq!((record.refusal, record.repeated), (Refusal::Deadline, false), "{port}");
        }
        for _ in 0..3 {
            Raw::new(&[b"smtp"]).answer(port).await.unwrap_err();
            let record = server.refused().await;
            assert_eq!((record.refusal, record.repeated), (Refusal::Protocol, true), "{port}");
        }
        let _silent = TcpStream::connect(port).await.unwrap();
        let record = server.refused().await;
        assert_eq!((record.refusal, record.repeated), (Refusal::Deadline, true), "{port}");
    }
    let told = Raw::of(gone, &[Alpn::Peer.id()]).answer(server.address).await.unwrap();
    assert!(matches!(told, FirstFrame::Refused { .. }), "{told:?}");
    let record = server.refused().await;
    assert_eq!((record.refusal, record.repeated), (Refusal::Evicted, true));
    let _refused = Raw::of(gone, &[b"h2"]).connect(server.client_address).await.unwrap();
    let record = server.refused().await;
    assert_eq!((record.refusal, record.repeated), (Refusal::Evicted, true));
    // What a joiner is refused later is known to be one more failure, too.
    Raw::new(&[Alpn::Enroll.id()]).answer(server.address).await.unwrap();
    assert!(server.enrollments.recv().await.unwrap().repeated());
    // A member behind the same address is served.
    let mut served = Raw::of(member, &[Alpn::Peer.id()]).connect(server.address).await.unwrap();
    assert!(matches!(first_frame(&mut served).await, Ok(FirstFrame::Welcome { .. })));
}
