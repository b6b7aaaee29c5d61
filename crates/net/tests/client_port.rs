//! The client port from outside: what is offered, who is accepted, and what becomes of a caller that is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::limits::CONNECTIONS_PER_PRINCIPAL_MAX;
use countersign_core::peer::Refusal;
use countersign_net::{AcceptorLimits, ClientAcceptor, ClientConnection, Endpoint, HttpVersion, RefusalRecord};
use rig::raw::{Raw, alert};
use rig::{Cluster, Identity, ManualClock, NOW, Sink, client_principal, node_principal, until, wish};
use rustls::{AlertDescription, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::task::JoinHandle;

/// A client port that runs, and what comes out of it.
struct Port {
    endpoint: Endpoint,
    acceptor: Arc<ClientAcceptor>,
    address: SocketAddr,
    refusals: UnboundedReceiver<RefusalRecord>,
    connections: Receiver<ClientConnection>,
    task: JoinHandle<()>,
}

impl Port {
    async fn of(cluster: &Cluster) -> Self {
        Self::with(cluster, AcceptorLimits::default()).await
    }

    async fn with(cluster: &Cluster, limits: AcceptorLimits) -> Self {
        let (sink, refusals) = Sink::new();
        let trust = cluster.trust(cluster.nodes[&1].credential());
        let endpoint = Endpoint::new(trust, ManualClock::new(), sink);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let acceptor = Arc::new(ClientAcceptor::on(listener, endpoint.clone(), limits));
        let (address, connections) = (acceptor.local_addr().unwrap(), acceptor.connections(16));
        let running = Arc::clone(&acceptor);
        let task = tokio::spawn(async move { match running.run().await {} });
        Self { endpoint, acceptor, address, refusals, connections, task }
    }

    async fn refused(&mut self) -> RefusalRecord {
        tokio::time::timeout(Duration::from_secs(60), self.refusals.recv()).await.expect("no refusal").unwrap()
    }

    async fn next(&mut self) -> ClientConnection {
        tokio::time::timeout(Duration::from_secs(60), self.connections.recv()).await.expect("no connection").unwrap()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn as_of(who: &Identity, offers: &[&[u8]]) -> Raw {
    Raw::new(offers).showing(&who.chain, &who.key)
}

#[tokio::test]
async fn http_is_spoken_as_it_is_offered_and_without_an_offer_it_is_http_1() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster).await;
    let offers: [(&[&[u8]], HttpVersion); 5] = [
        (&[], HttpVersion::Http1),
        (&[b"http/1.1"], HttpVersion::Http1),
        (&[b"h2"], HttpVersion::Http2),
        (&[b"http/1.1", b"h2"], HttpVersion::Http2),
        (&[b"h3", b"acme-tls/1", b"http/1.1"], HttpVersion::Http1),
    ];
    for (offer, expected) in offers {
        // A stock client names the host that it dials, if any.
        let mut tls = as_of(&cluster.client, offer).named("localhost").connect(port.address).await.unwrap();
        let ClientConnection::Accepted { mut stream, http, local } = port.next().await else { panic!("{offer:?}") };
        assert_eq!((http, local), (expected, port.address), "{offer:?}");
        assert_eq!(stream.peer().principal().role, client_principal("pay").role);
        // No byte of ours comes first, and each end's bytes reach the other.
        tls.write_all(b"GET").await.unwrap();
        let mut got = [0; 3];
        stream.read_exact(&mut got).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!((&got, tls.read_u8().await.unwrap()), (b"GET", b'x'));
    }
}

#[tokio::test]
async fn offers_without_http_or_with_a_private_protocol_are_refused_before_a_certificate_is_asked_for() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster).await;
    let private: Vec<&[u8]> = vec![b"countersign/1 enroll", b"countersign/1 peer", b"countersign/1 client"];
    let alone = private.iter().map(|id| vec![*id]);
    let with_h2 = private.iter().map(|id| vec![&b"h2"[..], *id]);
    let others: [Vec<&[u8]>; 3] = [vec![b"h3"], vec![b"http/1.0"], vec![b"kafka"]];
    for offer in alone.chain(with_h2).chain(others) {
        let error = as_of(&cluster.client, &offer).connect(port.address).await.unwrap_err();
        assert_eq!(alert(&error), Some(AlertDescription::NoApplicationProtocol), "{offer:?}");
        let record = port.refused().await;
        assert_eq!((record.refusal, record.principal), (Refusal::Protocol, None), "{offer:?}");
    }
    assert!(port.connections.try_recv().is_err());
}

/// The cluster port does not speak HTTP, however it is offered.
#[tokio::test]
async fn attack_client_of_the_client_port_is_led_to_the_cluster_port() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let offers: [&[&[u8]]; 5] = [&[], &[b"h2"], &[b"http/1.1"], &[b"h2", b"http/1.1"], &[b"countersign/1 client"]];
    for offer in offers {
        let error = as_of(&cluster.client, offer).connect(server.address).await.unwrap_err();
        assert_eq!(alert(&error), Some(AlertDescription::NoApplicationProtocol), "{offer:?}");
        assert_eq!(server.refused().await.refusal, Refusal::Protocol);
    }
}

#[tokio::test]
async fn every_principal_of_the_cluster_is_accepted() {
    let mut cluster = Cluster::new();
    let node = cluster.nodes.remove(&2).unwrap();
    let mut port = Port::of(&cluster).await;
    for (who, role) in [(&cluster.client, client_principal("pay").role), (&node, node_principal(2).role)] {
        let _tls = as_of(who, &[b"h2"]).connect(port.address).await.unwrap();
        let ClientConnection::Accepted { stream, .. } = port.next().await else { panic!("{role}") };
        assert_eq!(stream.peer().principal().role, role);
    }
}

#[tokio::test]
async fn callers_without_a_certificate_of_an_authority_here_do_not_end_the_handshake() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster).await;
    let foreign = Cluster::new();
    // No certificate; one of another cluster; one whose key the caller does not hold.
    let strangers = [
        Raw::new(&[b"h2"]),
        as_of(&foreign.client, &[b"h2"]),
        Raw::new(&[b"h2"]).showing(&cluster.client.chain, &foreign.client.key),
    ];
    for stranger in strangers {
        // TLS 1.3 lets the client think that it is done: the alert comes with the first read.
        let ended = match stranger.connect(port.address).await {
            Ok(mut tls) => tls.read_u8().await.map(drop),
            Err(error) => Err(error),
        };
        assert!(alert(&ended.unwrap_err()).is_some());
        assert_eq!(port.refused().await.refusal, Refusal::Handshake);
    }
    assert!(port.connections.try_recv().is_err());
}

/// What a caller proves is believed; what the cluster says of it is told where it can be read: in an answer.
#[tokio::test]
async fn known_authority_and_no_right_to_come_is_handed_over_as_refused_with_the_reason() {
    let mut cluster = Cluster::new();
    let evicted = cluster.nodes.remove(&3).unwrap();
    let unknown = cluster.issue(&wish(client_principal("shop")));
    let mut port = Port::of(&cluster).await;
    let key = cluster.client.id();
    port.endpoint.publish(cluster.evict(3), NOW).unwrap();
    port.endpoint.publish(cluster.next(|view| assert!(view.revoked_keys.insert(key))), NOW).unwrap();
    for (who, expected) in
        [(&evicted, Refusal::Evicted), (&unknown, Refusal::PrincipalUnknown), (&cluster.client, Refusal::KeyRevoked)]
    {
        let mut tls = as_of(who, &[b"http/1.1"]).connect(port.address).await.unwrap();
        let ClientConnection::Refused { mut stream, http, refusal, failure_id, .. } = port.next().await else {
            panic!("{expected} was accepted")
        };
        assert_eq!((refusal, http), (expected, HttpVersion::Http1));
        let record = port.refused().await;
        assert_eq!((record.refusal, record.failure_id), (expected, failure_id));
        assert!(record.principal.is_some(), "what it proved is on record");
        // It can ask, and be told.
        tls.write_all(b"?").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'?');
        stream.write_all(b"no").await.unwrap();
        let mut told = [0; 2];
        tls.read_exact(&mut told).await.unwrap();
        assert_eq!(&told, b"no");
        assert_eq!(port.endpoint.registry().count(), 0);
    }
}

#[tokio::test]
async fn refused_caller_that_asks_nothing_is_cut_in_time() {
    assert_eq!(AcceptorLimits::default().refused.as_secs(), 10);
    let cluster = Cluster::new();
    let unknown = cluster.issue(&wish(client_principal("shop")));
    let refused = Duration::from_millis(300);
    let mut port = Port::with(&cluster, AcceptorLimits { refused, ..AcceptorLimits::default() }).await;
    let _tls = as_of(&unknown, &[b"h2"]).connect(port.address).await.unwrap();
    let ClientConnection::Refused { mut stream, .. } = port.next().await else { panic!("accepted") };
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(stream.write(b"x").await.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(stream.shutdown().await.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}

/// Certificates that are refused prove that their holders had one, and nothing else: none of them may fill the port.
#[tokio::test]
async fn attack_refused_certificates_take_all_places() {
    let cluster = Cluster::new();
    let unknown = cluster.issue(&wish(client_principal("shop")));
    for (all, of_source) in [(2, 8), (64, 2)] {
        let limits = AcceptorLimits { refused_in_flight: all, refused_per_source: of_source, ..Default::default() };
        let mut port = Port::with(&cluster, limits).await;
        let mut open = Vec::new();
        for _ in 0..2 {
            let tls = as_of(&unknown, &[b"h2"]).connect(port.address).await.unwrap();
            let ClientConnection::Refused { stream, .. } = port.next().await else { panic!("accepted") };
            open.push((tls, stream));
        }
        // They hold no place of a handshake, and one more is cut untold.
        until(|| port.acceptor.handshakes_in_flight() == 0).await;
        let mut past = as_of(&unknown, &[b"h2"]).connect(port.address).await.unwrap();
        let cut = tokio::time::timeout(Duration::from_secs(60), past.read_u8()).await.expect("it is kept");
        assert!(cut.is_err());
        assert_eq!(port.refused().await.refusal, Refusal::PrincipalUnknown);
        let _pay = as_of(&cluster.client, &[b"h2"]).connect(port.address).await.unwrap();
        assert!(matches!(port.next().await, ClientConnection::Accepted { .. }), "others are served");
        open.clear();
        let _again = as_of(&unknown, &[b"h2"]).connect(port.address).await.unwrap();
        assert!(matches!(port.next().await, ClientConnection::Refused { .. }), "a place was given back");
    }
}

/// A source that was refused often gets in while half the places are free, and no longer.
#[tokio::test]
async fn refused_callers_are_charged_to_their_source() {
    let cluster = Cluster::new();
    let unknown = cluster.issue(&wish(client_principal("shop")));
    let limits = AcceptorLimits { handshakes_in_flight: 2, failures_per_source_minute: 3, ..Default::default() };
    let mut port = Port::with(&cluster, limits).await;
    for _ in 0..3 {
        let _tls = as_of(&unknown, &[b"h2"]).connect(port.address).await.unwrap();
        assert!(matches!(port.next().await, ClientConnection::Refused { .. }));
        port.refused().await;
    }
    until(|| port.acceptor.handshakes_in_flight() == 0).await;
    let _silent = TcpStream::connect(port.address).await.unwrap();
    until(|| port.acceptor.handshakes_in_flight() == 1).await;
    as_of(&cluster.client, &[b"h2"]).connect(port.address).await.unwrap_err();
    assert_eq!(port.refused().await.refusal, Refusal::Overloaded);
}

#[tokio::test]
async fn stranger_whose_handshake_failed_holds_its_place_until_it_is_cut() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster).await;
    let mut socket = TcpStream::connect(port.address).await.unwrap();
    Raw::new(&[b"h3"]).handshake(&mut socket).await.unwrap_err();
    assert_eq!(port.refused().await.refusal, Refusal::Protocol);
    assert_eq!(port.acceptor.handshakes_in_flight(), 1);
    until(|| port.acceptor.handshakes_in_flight() == 0).await;
}

/// Whether there is room for a principal is for those to know who are let in.
#[tokio::test]
async fn revoked_key_is_told_so_although_its_principal_has_no_room() {
    let mut cluster = Cluster::new();
    let revoked = cluster.issue(&wish(client_principal("pay")));
    let mut port = Port::of(&cluster).await;
    let pay = as_of(&cluster.client, &[b"h2"]);
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_PER_PRINCIPAL_MAX {
        let tls = pay.connect(port.address).await.unwrap();
        open.push((tls, port.next().await));
    }
    let key = revoked.id();
    port.endpoint.publish(cluster.next(|view| assert!(view.revoked_keys.insert(key))), NOW).unwrap();
    let _tls = as_of(&revoked, &[b"h2"]).connect(port.address).await.unwrap();
    let ClientConnection::Refused { refusal, .. } = port.next().await else { panic!("accepted") };
    assert_eq!(refusal, Refusal::KeyRevoked);
}

#[tokio::test]
async fn caller_that_sends_without_end_before_it_is_refused_is_cut_at_the_limit() {
    let cluster = Cluster::new();
    let unknown = cluster.issue(&wish(client_principal("shop")));
    let limits = AcceptorLimits { preauth_bytes: 16 * 1024, ..AcceptorLimits::default() };
    let mut port = Port::with(&cluster, limits).await;
    let mut tls = as_of(&unknown, &[b"h2"]).connect(port.address).await.unwrap();
    let ClientConnection::Refused { mut stream, .. } = port.next().await else { panic!("accepted") };
    let sending = tokio::spawn(async move { while tls.write_all(&[0; 1024]).await.is_ok() {} });
    let mut got = 0;
    let mut buffer = [0; 1024];
    let ended = loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break Ok(()),
            Ok(read) => got += read,
            Err(error) => break Err(error),
        }
    };
    assert!(ended.is_err() && got <= 16 * 1024, "{ended:?} after {got} bytes");
    drop(stream);
    sending.await.unwrap();
}

#[tokio::test]
async fn revocation_ends_an_open_connection() {
    let mut cluster = Cluster::new();
    let mut port = Port::of(&cluster).await;
    let mut tls = as_of(&cluster.client, &[b"h2"]).connect(port.address).await.unwrap();
    let ClientConnection::Accepted { mut stream, .. } = port.next().await else { panic!("refused") };
    let key = cluster.client.id();
    port.endpoint.publish(cluster.next(|view| assert!(view.revoked_keys.insert(key))), NOW).unwrap();
    assert!(stream.read_u8().await.is_err() && tls.read_u8().await.is_err());
    assert_eq!(port.endpoint.registry().count(), 0);
}

#[tokio::test]
async fn no_session_is_resumed_on_the_client_port() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster).await;
    let raw = as_of(&cluster.client, &[b"h2"]).resuming();
    for _ in 0..3 {
        let mut tls = raw.connect(port.address).await.unwrap();
        let ClientConnection::Accepted { mut stream, .. } = port.next().await else { panic!("refused") };
        stream.write_all(b"x").await.unwrap();
        assert_eq!(tls.read_u8().await.unwrap(), b'x');
        let connection = tls.get_ref().1;
        assert_eq!((connection.tls13_tickets_received(), connection.handshake_kind()), (0, Some(HandshakeKind::Full)));
        assert!(!connection.is_early_data_accepted());
    }
}

#[tokio::test]
async fn silent_callers_take_the_places_of_handshakes_and_no_more() {
    let cluster = Cluster::new();
    let limits = AcceptorLimits { handshakes_in_flight: 2, ..AcceptorLimits::default() };
    let mut port = Port::with(&cluster, limits).await;
    let silent = [TcpStream::connect(port.address).await.unwrap(), TcpStream::connect(port.address).await.unwrap()];
    until(|| port.acceptor.handshakes_in_flight() == 2).await;
    as_of(&cluster.client, &[b"h2"]).connect(port.address).await.unwrap_err();
    assert_eq!(port.refused().await.refusal, Refusal::Overloaded);
    drop(silent);
    until(|| port.acceptor.handshakes_in_flight() == 0).await;
    as_of(&cluster.client, &[b"h2"]).connect(port.address).await.unwrap();
    assert!(matches!(port.next().await, ClientConnection::Accepted { .. }));
}

#[tokio::test]
async fn one_principal_has_a_bounded_number_of_connections_and_is_told_so() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster).await;
    let pay = as_of(&cluster.client, &[b"h2"]);
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_PER_PRINCIPAL_MAX {
        let tls = pay.connect(port.address).await.unwrap();
        let ClientConnection::Accepted { stream, .. } = port.next().await else { panic!("{}", open.len()) };
        open.push((tls, stream));
    }
    let _past = pay.connect(port.address).await.unwrap();
    let ClientConnection::Refused { refusal, principal, .. } = port.next().await else { panic!("one too many") };
    assert_eq!((refusal, principal), (Refusal::Connections, client_principal("pay")));
    // Others have room, and a place that is given up is taken again.
    let _node = as_of(&cluster.nodes[&2], &[b"h2"]).connect(port.address).await.unwrap();
    assert!(matches!(port.next().await, ClientConnection::Accepted { .. }));
    open.pop();
    let _again = pay.connect(port.address).await.unwrap();
    assert!(matches!(port.next().await, ClientConnection::Accepted { .. }));
}
