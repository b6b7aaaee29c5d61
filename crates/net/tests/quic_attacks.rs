//! Attacks on the client port over QUIC, by callers that are unknown, refused, or known and greedy. Each test is one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::limits::CONNECTIONS_PER_PRINCIPAL_MAX;
use countersign_core::peer::Refusal;
use countersign_net::quic_limits::{HELD_MAX, INCOMING_LEN_MAX};
use countersign_net::{AcceptorLimits, ClientAcceptor};
use quinn::{ConnectionError, TransportConfig};
use rig::quic::{Port, client, config, ended, loopback, told};
use rig::raw::Raw;
use rig::{Cluster, NOW, until};
use tokio::net::{TcpListener, UdpSocket};

const CLIENT: &[u8] = b"countersign/1 client";

/// Streams that were allowed before the judgement would let a revoked caller leave a window of bytes at each attempt.
#[tokio::test]
async fn refused_caller_opens_no_stream_and_leaves_no_bytes() {
    let mut cluster = Cluster::new();
    let mut port = Port::of(&cluster);
    let key = cluster.client.id();
    port.endpoint.publish(cluster.next(|view| _ = view.revoked_keys.insert(key)), NOW).unwrap();
    let raw = Raw::of(&cluster.client, &[CLIENT]);
    for _ in 0..8 {
        match port.connect(&raw).await {
            Ok(connection) => {
                let error = connection.open_bi().await.map(drop).expect_err("a stream was opened");
                assert_eq!(told(&error), (0x106, true), "{error:?}");
            }
            Err(error) => assert_eq!(told(&error), (0x106, true), "{error:?}"),
        }
        assert_eq!(port.refused().await.refusal, Refusal::KeyRevoked);
    }
}

/// `explain` finds records by their id: a caller that chose one would hide the record of another under its own.
#[tokio::test]
async fn caller_does_not_choose_the_failure_id_of_its_record() {
    let mut cluster = Cluster::new();
    let mut port = Port::of(&cluster);
    let chosen = "00000000000000aa";
    let evicted = cluster.nodes.remove(&3).unwrap();
    port.endpoint.publish(cluster.evict(3), NOW).unwrap();
    let name = format!("{chosen}.1.east.internal");
    for caller in [Raw::of(&evicted, &[CLIENT]), Raw::new(&[CLIENT]), Raw::new(&[b"h3"])] {
        let caller = caller.named(&name);
        if let Ok(connection) = port.connect(&caller).await {
            ended(&connection).await;
        }
        assert_ne!(port.refused().await.failure_id.to_string(), chosen);
    }
}

#[tokio::test]
async fn drafts_of_quic_are_not_spoken() {
    let cluster = Cluster::new();
    let port = Port::of(&cluster);
    let raw = Raw::of(&cluster.client, &[CLIENT]);
    for (version, spoken) in [(1, true), (0xff00_001d, false), (0xff00_0022, false)] {
        let mut config = config(&raw);
        config.version(version);
        let connected = client().connect_with(config, port.address, &raw.name).unwrap().await;
        match connected {
            Ok(_) => assert!(spoken, "{version:#x}"),
            Err(error) => assert!(!spoken && error == ConnectionError::VersionMismatch, "{version:#x}: {error:?}"),
        }
    }
}

/// The first flight of a caller: all datagrams before it hears anything.
async fn first_flight(raw: &Raw) -> Vec<Vec<u8>> {
    let captured = UdpSocket::bind(loopback()).await.unwrap();
    let connecting = client().connect_with(config(raw), captured.local_addr().unwrap(), &raw.name).unwrap();
    let trying = tokio::spawn(connecting);
    let (mut flight, mut datagram) = (Vec::new(), [0; 2048]);
    // A ClientHello with a key of X25519MLKEM768 takes two.
    for _ in 0..2 {
        let (len, _) = captured.recv_from(&mut datagram).await.unwrap();
        flight.push(datagram[..len].to_vec());
    }
    trying.abort();
    flight
}

/// Whether the datagram is a Retry (RFC 9000 section 17.2.5).
fn is_retry(datagram: &[u8]) -> bool {
    datagram[0] & 0xf0 == 0xf0
}

/// Each packet with a forged source costs a line of the log, and one of the places where `explain` looks.
#[tokio::test]
async fn forged_sources_fill_the_log_so_far_and_no_further() {
    let cluster = Cluster::new();
    let told_max = 5;
    let limits = AcceptorLimits { failures_per_source_minute: told_max, ..AcceptorLimits::default() };
    let mut port = Port::with(&cluster, limits, 16);
    let mut forged = 0;
    let mut from_another_source = async |port: &Port| {
        forged += 1;
        let source = UdpSocket::bind(SocketAddr::from(([127, 0, 1, forged], 0))).await.unwrap();
        for datagram in first_flight(&Raw::new(&[b"h3"])).await {
            source.send_to(&datagram, port.address).await.unwrap();
        }
        let mut answer = [0; 2048];
        let len = source.recv(&mut answer).await.unwrap();
        is_retry(&answer[..len])
    };
    for _ in 0..told_max {
        assert!(!from_another_source(&port).await);
        assert_eq!(port.refused().await.refusal, Refusal::Protocol);
    }
    for _ in 0..2 * told_max {
        assert!(from_another_source(&port).await, "a source that may be forged is asked to answer");
    }
    assert!(port.refusals.try_recv().is_err());
    // A caller that answers is served.
    port.connect(&Raw::of(&cluster.client, &[CLIENT])).await.unwrap();
    port.next().await;
}

/// Carries datagrams both ways, each `delay` late.
async fn slow_path(server: SocketAddr, delay: Duration) -> SocketAddr {
    let (front, back) = (UdpSocket::bind(loopback()).await.unwrap(), UdpSocket::bind(loopback()).await.unwrap());
    let address = front.local_addr().unwrap();
    let (front, back) = (Arc::new(front), Arc::new(back));
    tokio::spawn(async move {
        let (mut there, mut here, mut client) = ([0; 2048], [0; 2048], None);
        loop {
            let (packet, to, from) = tokio::select! {
                Ok((len, source)) = front.recv_from(&mut there) => {
                    client = Some(source);
                    (there[..len].to_vec(), server, Arc::clone(&back))
                }
                Ok((len, _)) = back.recv_from(&mut here) => (here[..len].to_vec(), client.unwrap(), Arc::clone(&front)),
            };
            tokio::spawn(async move {
                // why: the clock is paused, and this moves it
                tokio::time::sleep(delay).await;
                from.send_to(&packet, to).await.unwrap();
            });
        }
    });
    address
}

/// A client that confirms late has its bytes kept for long after the end: places that were free at once would let it
/// leave a window of bytes for each of many connections.
#[tokio::test(start_paused = true)]
async fn connections_that_have_ended_count_until_their_bytes_are_freed() {
    let cluster = Cluster::new();
    let mut port = Port::with(&cluster, AcceptorLimits::default(), HELD_MAX);
    let path = slow_path(port.address, Duration::from_secs(1)).await;
    let (raw, endpoint) = (Raw::of(&cluster.client, &[CLIENT]), client());
    let config = config(&raw);
    let connect = || endpoint.connect_with(config.clone(), path, &raw.name).unwrap();
    for _ in 0..HELD_MAX / CONNECTIONS_PER_PRINCIPAL_MAX {
        let mut open = tokio::task::JoinSet::new();
        for _ in 0..CONNECTIONS_PER_PRINCIPAL_MAX {
            open.spawn(connect());
            // why: the clock is paused, and this leaves room for the datagrams of each
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut accepted = Vec::new();
        for _ in 0..CONNECTIONS_PER_PRINCIPAL_MAX {
            accepted.push(port.next().await);
        }
        let open = open.join_all().await;
        for connection in open {
            connection.unwrap().close(0u32.into(), b"");
        }
        for connection in accepted {
            connection.accept().await.err().unwrap();
        }
        assert_eq!(port.endpoint.registry().count(), 0);
    }
    let error = match connect().await {
        Ok(connection) => ended(&connection).await,
        Err(error) => error,
    };
    assert_eq!(told(&error), (0x117, true), "{error:?}");
    assert_eq!(port.refused().await.refusal, Refusal::Connections);
    // why: the clock is paused, and this moves it
    tokio::time::sleep(Duration::from_secs(120)).await;
    connect().await.unwrap();
    port.next().await;
}

/// One certificate must not have 64 connections over each of the two.
#[tokio::test]
async fn connections_over_tcp_and_quic_share_the_places_of_a_principal() {
    let cluster = Cluster::new();
    let mut port = Port::with(&cluster, AcceptorLimits::default(), CONNECTIONS_PER_PRINCIPAL_MAX);
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let tcp = ClientAcceptor::on(listener, port.endpoint.clone(), AcceptorLimits::default());
    let (address, mut accepted) = (tcp.local_addr().unwrap(), tcp.connections(1));
    let running = tokio::spawn(async move { match tcp.run().await {} });
    let _over_tcp = Raw::of(&cluster.client, &[b"h2"]).connect(address).await.unwrap();
    let first = accepted.recv().await.unwrap();
    let raw = Raw::of(&cluster.client, &[CLIENT]);
    let mut open = Vec::new();
    for _ in 1..CONNECTIONS_PER_PRINCIPAL_MAX {
        open.push((port.connect(&raw).await.unwrap(), port.next().await));
    }
    port.is_refused(&raw, Refusal::Connections, 0x117).await;
    drop(first);
    open.push((port.connect(&raw).await.unwrap(), port.next().await));
    running.abort();
}

/// What the transport says before the application knows the caller.
#[tokio::test(start_paused = true)]
async fn attempts_without_a_place_and_past_the_deadline_end_with_codes_of_the_transport() {
    let cluster = Cluster::new();
    let limits = AcceptorLimits { handshakes_in_flight: 1, ..AcceptorLimits::default() };
    let mut port = Port::with(&cluster, limits, 1);
    let raw = Raw::of(&cluster.client, &[CLIENT]);
    let half = &first_flight(&raw).await[0];
    let holder = UdpSocket::bind(loopback()).await.unwrap();
    holder.send_to(half, port.address).await.unwrap();
    until(|| port.acceptor.handshakes_in_flight() == 1).await;
    let error = port.connect(&raw).await.unwrap_err();
    assert_eq!(told(&error), (0x2, false), "{error:?}");
    assert_eq!(port.refused().await.refusal, Refusal::Overloaded);
    assert_eq!(port.refused().await.refusal, Refusal::Deadline);
    let path = slow_path(port.address, Duration::from_secs(6)).await;
    let mut patient = TransportConfig::default();
    patient.initial_rtt(Duration::from_secs(20)).max_idle_timeout(None);
    let mut config = config(&raw);
    config.transport_config(Arc::new(patient));
    // TLS 1.3 lets the client think that it is done.
    let error = match client().connect_with(config, path, &raw.name).unwrap().await {
        Ok(connection) => ended(&connection).await,
        Err(error) => error,
    };
    assert_eq!(told(&error), (0xc, false), "{error:?}");
    assert_eq!(port.refused().await.refusal, Refusal::Deadline);
}

/// The entry in the registry may be the last that holds a connection, whose place is then given up under no other lock.
#[tokio::test(start_paused = true)]
async fn client_that_is_long_gone_locks_nothing_when_it_is_let_go() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster);
    let connection = port.connect(&Raw::of(&cluster.client, &[CLIENT])).await.unwrap();
    let accepted = port.next().await;
    connection.close(0u32.into(), b"");
    accepted.accept().await.err().unwrap();
    // why: the clock is paused, and this lets quinn forget the connection
    tokio::time::sleep(Duration::from_secs(120)).await;
    drop(accepted);
    assert_eq!(port.endpoint.registry().count(), 0);
    port.connect(&Raw::of(&cluster.client, &[CLIENT])).await.unwrap();
    port.next().await;
}

/// Whether a caller whose second datagram comes after `before` bytes, while the acceptor looks at nothing, is answered
/// without sending anything twice.
async fn is_kept_after(before: u64) -> bool {
    let cluster = Cluster::new();
    let mut port = Port::idle(&cluster, AcceptorLimits::default(), 1);
    let flight = first_flight(&Raw::new(&[b"h3"])).await;
    let source = UdpSocket::bind(loopback()).await.unwrap();
    source.send_to(&flight[0], port.address).await.unwrap();
    // The first again, and again: it names the same connection, and says nothing new. What is behind it is no packet.
    let (before, first) = (usize::try_from(before).unwrap(), flight[0].len());
    let (many, rest) = (before / first, before % first);
    for i in 0..many {
        let mut filler = flight[0].clone();
        filler.resize(first + rest / many + usize::from(i < rest % many), 0);
        source.send_to(&filler, port.address).await.unwrap();
    }
    source.send_to(&flight[1], port.address).await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    port.run();
    // The protocol that it offers is unknown: a whole ClientHello is refused at once.
    tokio::time::timeout(Duration::from_secs(2), port.refused()).await.is_ok()
}

#[tokio::test]
async fn so_many_bytes_are_kept_of_a_connection_that_was_not_looked_at() {
    let len = first_flight(&Raw::new(&[b"h3"])).await[1].len() as u64;
    assert!(is_kept_after(INCOMING_LEN_MAX - len).await);
    assert!(!is_kept_after(INCOMING_LEN_MAX - len + 1).await);
}
