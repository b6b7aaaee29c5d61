//! The same refusals and the same closings over QUIC.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::{FailureId, NodeId};
use countersign_core::name::Address;
use countersign_core::peer::Refusal;
use countersign_net::dial_error::Foreign;
use countersign_net::stream::ClosedByTrust;
use countersign_net::{
    AcceptorLimits, DialCause, Endpoint, Expected, QuicAcceptor, QuicBindError, QuicConnection, QuicDialer,
    QuicPurpose, QuicStream, RefusalRecord, Trust,
};
use quinn::ConnectionError;
use quinn::crypto::rustls::QuicClientConfig;
use rig::raw::Raw;
use rig::{Cluster, Identity, ManualClock, NOW, Sink, Wish, authority, dialed, issue, node_principal, until, wish};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::task::{JoinHandle, JoinSet};

const ID: FailureId = FailureId([0, 0, 0, 0, 0, 0, 0, 0xaa]);

struct Server {
    endpoint: Endpoint,
    acceptor: Arc<QuicAcceptor>,
    address: SocketAddr,
    connections: Receiver<QuicConnection>,
    refusals: UnboundedReceiver<RefusalRecord>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn serve(cluster: &Cluster, purpose: QuicPurpose, limits: AcceptorLimits) -> Server {
    let (endpoint, refusals) = cluster.endpoint(&cluster.nodes[&1]);
    let acceptor = Arc::new(QuicAcceptor::bind(loopback(), endpoint.clone(), purpose, limits).unwrap());
    let (address, connections) = (acceptor.local_addr().unwrap(), acceptor.connections(16));
    let running = Arc::clone(&acceptor);
    let task = tokio::spawn(async move { match running.run().await {} });
    Server { endpoint, acceptor, address, connections, refusals, task }
}

fn dialer(cluster: &Cluster, who: &Identity) -> QuicDialer {
    QuicDialer::bind(loopback(), cluster.endpoint(who).0).unwrap()
}

fn limits(change: impl FnOnce(&mut AcceptorLimits)) -> AcceptorLimits {
    let mut limits = AcceptorLimits::default();
    change(&mut limits);
    limits
}

/// How the connection of a stream ended.
async fn lost(mut stream: QuicStream) -> ConnectionError {
    let error = stream.read_u8().await.unwrap_err();
    match error.get_ref().and_then(|e| e.downcast_ref::<quinn::ReadError>()) {
        Some(quinn::ReadError::ConnectionLost(how)) => how.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_member_reaches_a_member_and_an_eviction_ends_it() {
    let mut cluster = Cluster::new();
    let mut server = serve(&cluster, QuicPurpose::Peer, AcceptorLimits::default());
    let two = dialer(&cluster, &cluster.nodes[&2]);
    let address = dialed(server.address);
    let connection = two.dial(&address, QuicPurpose::Peer, Expected::Node(NodeId(1))).await.unwrap();
    let accepted = server.connections.recv().await.unwrap();
    assert_eq!(accepted.peer().principal(), &node_principal(2));
    assert_eq!(connection.peer().principal(), &node_principal(1));

    let mut out = connection.open().await.unwrap();
    out.write_all(b"ping").await.unwrap();
    let mut stream = accepted.accept().await.unwrap();
    let mut got = [0; 2];
    stream.read_exact(&mut got).await.unwrap();
    // Two more bytes have arrived; after the eviction they are not read.
    let closed = accepted.closed();
    assert_eq!(server.endpoint.publish(cluster.evict(2), NOW).unwrap().len(), 1);
    assert_eq!(closed.await, Refusal::Evicted);
    for error in [stream.read_u8().await.unwrap_err(), stream.write_all(b"x").await.unwrap_err()] {
        let reason = error.get_ref().and_then(|e| e.downcast_ref::<ClosedByTrust>());
        assert_eq!(reason, Some(&ClosedByTrust(Refusal::Evicted)), "{error:?}");
    }
    // Told, not timed out.
    assert!(matches!(lost(out).await, ConnectionError::ApplicationClosed(_)));
    assert_eq!(server.endpoint.registry().count(), 0);

    let error = two.dial(&address, QuicPurpose::Peer, Expected::Node(NodeId(1))).await.unwrap_err();
    assert!(
        matches!(error.cause, DialCause::Refused { code } if code.refusal() == Some(Refusal::Evicted)),
        "{error:?}"
    );
    assert_eq!(Some(server.refusals.recv().await.unwrap().failure_id), error.failure_id);
}

#[tokio::test]
async fn a_dropped_connection_leaves_the_registry_and_takes_its_streams_along() {
    let cluster = Cluster::new();
    let mut server = serve(&cluster, QuicPurpose::Peer, AcceptorLimits::default());
    let (two, expected) = (dialer(&cluster, &cluster.nodes[&2]), Expected::Node(NodeId(1)));
    let connection = two.dial(&dialed(server.address), QuicPurpose::Peer, expected).await.unwrap();
    let accepted = server.connections.recv().await.unwrap();
    let mut out = connection.open().await.unwrap();
    out.write_all(b"x").await.unwrap();
    let mut stream = accepted.accept().await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    drop(accepted);
    assert_eq!(server.endpoint.registry().count(), 0);
    assert_eq!(lost(stream).await, ConnectionError::LocallyClosed);
    assert!(matches!(lost(out).await, ConnectionError::ApplicationClosed(_)));
}

#[tokio::test]
async fn both_ends_know_the_refusal_and_its_id() {
    let cluster = Cluster::new();
    let endorsed = |renewal| Wish { endorsed: Some((2, renewal)), ..wish(node_principal(2)) };
    let mut server = serve(&cluster, QuicPurpose::Peer, AcceptorLimits::default());
    let foreign = issue(&authority(Some(rig::CLUSTER)), &endorsed(2));
    let stolen = cluster.issue(&wish(node_principal(2)));
    let old = cluster.issue(&endorsed(0));
    for (claim, who, expected) in [
        ("a client", &cluster.client, Refusal::NotANode),
        ("a stolen CA key", &stolen, Refusal::KeyUnknown),
        ("an earlier renewal", &old, Refusal::Superseded),
        ("a foreign authority", &foreign, Refusal::Handshake),
    ] {
        let (dialer, address) = (dialer(&cluster, who), dialed(server.address));
        let error = dialer.dial(&address, QuicPurpose::Peer, Expected::Node(NodeId(1))).await.unwrap_err();
        let record = server.refusals.recv().await.unwrap();
        assert_eq!((record.refusal, Some(record.failure_id)), (expected, error.failure_id), "{claim}");
        match error.cause {
            DialCause::Refused { code } => assert_eq!(code.refusal(), Some(expected), "{claim}"),
            DialCause::Alert { alert: 49 } => assert_eq!(expected, Refusal::Handshake, "{claim}"),
            other => panic!("{claim}: {other:?}"),
        }
    }
    // The dialer refuses: another node than the one dialed.
    let two = dialer(&cluster, &cluster.nodes[&2]);
    let error = two.dial(&dialed(server.address), QuicPurpose::Peer, Expected::Node(NodeId(3))).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Judged(Refusal::WrongNode)), "{error:?}");
    assert_eq!(Some(server.refusals.recv().await.unwrap().failure_id), error.failure_id);
    // The port has another purpose.
    let error = two.dial(&dialed(server.address), QuicPurpose::Client, Expected::Host).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::NotCountersign(Foreign::Protocol)), "{error:?}");
    assert_eq!(server.refusals.recv().await.unwrap().refusal, Refusal::Protocol);
}

/// A QUIC client that does as it is told.
async fn raw(raw: Raw, address: SocketAddr) -> Result<quinn::Connection, ConnectionError> {
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(raw.config).unwrap()));
    let endpoint = quinn::Endpoint::client(loopback()).unwrap();
    endpoint.connect_with(config, address, &raw.name).unwrap().await
}

#[tokio::test]
async fn the_reason_of_a_refused_certificate_is_not_on_the_wire() {
    let cluster = Cluster::new();
    let mut server = serve(&cluster, QuicPurpose::Peer, AcceptorLimits::default());
    let foreign = issue(&authority(None), &wish(node_principal(2)));
    let client = Raw::new(&[b"countersign/1 peer"]).showing(&foreign.chain, &foreign.key);
    let connection = raw(client, server.address).await.unwrap();
    let told = match connection.closed().await {
        ConnectionError::ConnectionClosed(close) => String::from_utf8(close.reason.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(told, "invalid peer certificate: ApplicationVerificationFailure");
    let record = server.refusals.recv().await.unwrap();
    assert_eq!(record.failure_id, ID);
    assert!(record.detail.is_some_and(|detail| !detail.contains("ApplicationVerificationFailure")));
}

#[tokio::test]
async fn two_protocols_are_refused_though_one_is_ours() {
    let cluster = Cluster::new();
    let mut server = serve(&cluster, QuicPurpose::Peer, AcceptorLimits::default());
    let two = &cluster.nodes[&2];
    let client = Raw::new(&[b"countersign/1 peer", b"h3"]).showing(&two.chain, &two.key);
    raw(client, server.address).await.unwrap_err();
    let record = server.refusals.recv().await.unwrap();
    assert_eq!((record.refusal, record.failure_id, record.alpn), (Refusal::Protocol, ID, None));
}

/// 0-RTT would run before the certificate is seen: there is no ticket to start it with.
#[tokio::test]
async fn no_session_is_resumed_and_nothing_is_sent_early() {
    let cluster = Cluster::new();
    let mut server = serve(&cluster, QuicPurpose::Peer, AcceptorLimits::default());
    let two = &cluster.nodes[&2];
    let client = Raw::new(&[b"countersign/1 peer"]).showing(&two.chain, &two.key).resuming();
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client.config).unwrap()));
    let endpoint = quinn::Endpoint::client(loopback()).unwrap();
    for _ in 0..2 {
        let connecting = endpoint.connect_with(config.clone(), server.address, &client.name).unwrap();
        // What the server forbids itself, a hostile client will try.
        #[allow(clippy::disallowed_methods)]
        let connecting = connecting.into_0rtt().map(drop).expect_err("a ticket was issued");
        let connection = connecting.await.unwrap();
        let mut welcome = connection.accept_uni().await.unwrap();
        assert_eq!(welcome.read_to_end(64).await.unwrap().len(), 12);
        let _accepted = server.connections.recv().await.unwrap();
    }
}

#[tokio::test]
async fn one_source_may_fail_so_often() {
    let cluster = Cluster::new();
    for stalled in [0, 2] {
        let change = |l: &mut AcceptorLimits| (l.failures_per_source_minute, l.handshakes_in_flight) = (2, 4);
        let mut server = serve(&cluster, QuicPurpose::Peer, limits(change));
        let (mut relays, mut clients) = (JoinSet::new(), JoinSet::new());
        for _ in 0..stalled {
            let address = first_flight_only(server.address, &mut relays).await;
            clients.spawn(raw(Raw::new(&[b"countersign/1 peer"]), address));
        }
        until(|| server.acceptor.handshakes_in_flight() == stalled).await;
        let address = dialed(server.address);
        let pay = dialer(&cluster, &cluster.client);
        for _ in 0..2 {
            pay.dial(&address, QuicPurpose::Peer, Expected::Node(NodeId(1))).await.unwrap_err();
            assert_eq!(server.refusals.recv().await.unwrap().refusal, Refusal::NotANode);
        }
        until(|| server.acceptor.handshakes_in_flight() == stalled).await;
        let two = dialer(&cluster, &cluster.nodes[&2]);
        let met = two.dial(&address, QuicPurpose::Peer, Expected::Node(NodeId(1))).await;
        if stalled == 0 {
            met.expect("half the places are free");
            continue;
        }
        let error = met.unwrap_err();
        assert!(matches!(error.cause, DialCause::Closed(_)), "{error:?}");
        assert_eq!(server.refusals.recv().await.unwrap().refusal, Refusal::Overloaded);
    }
}

/// A relay that passes the client's first flight on, and then nothing more.
async fn first_flight_only(server: SocketAddr, relays: &mut JoinSet<()>) -> SocketAddr {
    let front = UdpSocket::bind(loopback()).await.unwrap();
    let back = UdpSocket::bind(loopback()).await.unwrap();
    let address = front.local_addr().unwrap();
    relays.spawn(async move {
        let mut packet = [0; 2048];
        loop {
            let (len, _) = front.recv_from(&mut packet).await.unwrap();
            back.send_to(&packet[..len], server).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_stalled_handshake_ends_at_its_deadline() {
    let cluster = Cluster::new();
    let mut server = serve(&cluster, QuicPurpose::Peer, limits(|l| l.handshake = Duration::from_millis(30)));
    let mut relays = JoinSet::new();
    let address = first_flight_only(server.address, &mut relays).await;
    let client = tokio::spawn(raw(Raw::new(&[b"countersign/1 peer"]), address));
    let record = server.refusals.recv().await.unwrap();
    assert_eq!(record.refusal, Refusal::Deadline);
    client.abort();
}

#[tokio::test]
async fn a_port_without_service_or_listener_is_not_reached() {
    let cluster = Cluster::new();
    let mut server = serve(&cluster, QuicPurpose::Peer, AcceptorLimits::default());
    server.connections.close();
    let two = dialer(&cluster, &cluster.nodes[&2]);
    let error = two.dial(&dialed(server.address), QuicPurpose::Peer, Expected::Node(NodeId(1))).await.unwrap_err();
    assert!(
        matches!(error.cause, DialCause::Refused { code } if code.refusal() == Some(Refusal::NotReady)),
        "{error:?}"
    );
    assert_eq!(server.refusals.recv().await.unwrap().refusal, Refusal::NotReady);
    assert_eq!(server.endpoint.registry().count(), 0);

    let silent = UdpSocket::bind(loopback()).await.unwrap();
    let address: Address = dialed(silent.local_addr().unwrap());
    let hasty = two.with_deadline(Duration::from_millis(20));
    let error = hasty.dial(&address, QuicPurpose::Peer, Expected::Node(NodeId(1))).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Deadline { millis: 20 }), "{error:?}");
    drop(Arc::clone(&server.acceptor));
}

#[tokio::test]
async fn without_a_certificate_no_port_is_opened() {
    let cluster = Cluster::new();
    let trust = Trust { credential: None, ..cluster.trust(cluster.nodes[&1].credential()) };
    let endpoint = Endpoint::new(trust, ManualClock::new(), Sink::new().0);
    let bound = QuicAcceptor::bind(loopback(), endpoint, QuicPurpose::Peer, AcceptorLimits::default());
    assert!(matches!(bound.map(drop), Err(QuicBindError::NoCredential)));
}
