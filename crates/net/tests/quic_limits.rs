//! What a client may take of a member over one QUIC connection: each limit, and one past it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use countersign_net::quic_limits::{
    CONNECTION_WINDOW, IDLE_MILLIS_MAX, INCOMING_MAX, KEEPALIVE_MILLIS, SEND_WINDOW, STREAM_WINDOW, STREAMS_MAX,
};
use countersign_net::{AcceptorLimits, QuicConnection};
use quinn::{ConnectionError, IdleTimeout, SendDatagramError, TransportConfig, VarInt};
use rig::quic::{Port, client, config, loopback};
use rig::raw::Raw;
use rig::{Cluster, until};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::UdpSocket;
use tokio::time::Instant;

const CLIENT: &[u8] = b"countersign/1 client";

/// What a future answers without waiting. The tests have one thread: until they wait, no packet comes or goes.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

/// A client that bounds nothing itself, and the connection at the member's end.
async fn connected(port: &mut Port, cluster: &Cluster) -> (quinn::Connection, QuicConnection) {
    let raw = Raw::of(&cluster.client, &[CLIENT]);
    let connection = client().connect_with(unbounded(&raw), port.address, &raw.name).unwrap().await.unwrap();
    (connection, port.next().await)
}

fn unbounded(raw: &Raw) -> quinn::ClientConfig {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(Duration::from_secs(3600)).unwrap();
    transport.stream_receive_window(VarInt::from_u32(1 << 30)).receive_window(VarInt::from_u32(1 << 30));
    transport.max_idle_timeout(Some(idle));
    let mut config = config(raw);
    config.transport_config(Arc::new(transport));
    config
}

/// Writes until no more is taken; how many bytes that were.
fn fill(stream: &mut quinn::SendStream) -> usize {
    let mut all = 0;
    while let Some(written) = at_once(stream.write(&[0; 1000])) {
        all += written.unwrap();
    }
    all
}

#[tokio::test]
async fn client_has_so_many_streams_open_and_one_more_waits_until_one_has_ended() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster);
    let (connection, accepted) = connected(&mut port, &cluster).await;
    // The member allows streams once it has judged the client.
    let mut open = vec![connection.open_bi().await.unwrap()];
    open.extend((1..STREAMS_MAX).map(|_| at_once(connection.open_bi()).expect("room").unwrap()));
    let mut answered = Vec::new();
    assert!(at_once(connection.open_bi()).is_none());
    // The member makes room for several at a time.
    for (send, _) in open.iter_mut().take(STREAMS_MAX as usize / 4) {
        send.write_all(b"x").await.unwrap();
        send.finish().unwrap();
        let mut stream = accepted.accept().await.unwrap();
        assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 1);
        assert!(at_once(connection.open_bi()).is_none(), "no stream has ended both ways");
        answered.push(stream);
    }
    for mut stream in answered {
        stream.deliver().await.unwrap();
    }
    connection.open_bi().await.unwrap();
    // None of them is one-way.
    assert!(at_once(connection.open_uni()).is_none());
}

#[tokio::test]
async fn client_sends_a_window_of_one_stream_ahead_and_a_window_of_all() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster);
    let (connection, _accepted) = connected(&mut port, &cluster).await;
    let mut all = 0;
    let streams = CONNECTION_WINDOW / STREAM_WINDOW;
    let mut open = Vec::new();
    for _ in 0..streams {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        let sent = fill(&mut send);
        assert_eq!(sent, STREAM_WINDOW as usize);
        all += sent;
        open.push((send, recv));
    }
    assert_eq!(all, CONNECTION_WINDOW as usize);
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    assert_eq!(fill(&mut send), 0);
}

#[tokio::test]
async fn member_keeps_a_send_window_of_what_the_client_has_not_confirmed() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster);
    let (connection, accepted) = connected(&mut port, &cluster).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let mut stream = accepted.accept().await.unwrap();
    let (mut kept, chunk) = (0, [0; 1000]);
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(written) = AsyncWrite::poll_write(Pin::new(&mut stream), &mut context, &chunk) {
        kept += written.unwrap() as u64;
    }
    assert_eq!(kept, SEND_WINDOW);
}

#[tokio::test]
async fn datagrams_are_not_taken() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster);
    let (connection, _accepted) = connected(&mut port, &cluster).await;
    assert_eq!(connection.max_datagram_size(), None);
    let sent = connection.send_datagram(bytes::Bytes::from_static(b"x"));
    assert_eq!(sent, Err(SendDatagramError::UnsupportedByPeer));
}

/// A relay, until it is told to lose everything.
async fn relay(server: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let (front, back) = (UdpSocket::bind(loopback()).await.unwrap(), UdpSocket::bind(loopback()).await.unwrap());
    let (address, cut) = (front.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let is_cut = Arc::clone(&cut);
    tokio::spawn(async move {
        let (mut there, mut here, mut client) = ([0; 2048], [0; 2048], None);
        loop {
            let (packet, to, from) = tokio::select! {
                Ok((len, source)) = front.recv_from(&mut there) => {
                    client = Some(source);
                    (&there[..len], server, &back)
                }
                Ok((len, _)) = back.recv_from(&mut here) => (&here[..len], client.unwrap(), &front),
            };
            if !is_cut.load(Ordering::Relaxed) {
                from.send_to(packet, to).await.unwrap();
            }
        }
    });
    (address, cut)
}

#[tokio::test(start_paused = true)]
async fn silent_client_is_asked_whether_it_is_there_and_ends_when_it_does_not_answer() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster);
    let (address, cut) = relay(port.address).await;
    let raw = Raw::of(&cluster.client, &[CLIENT]);
    let connection = client().connect_with(unbounded(&raw), address, &raw.name).unwrap().await.unwrap();
    let accepted = port.next().await;
    // It answers and says nothing by itself.
    let before = connection.stats().udp_rx.datagrams;
    // why: the clock is paused, and this moves it
    tokio::time::sleep(Duration::from_millis(10 * u64::from(IDLE_MILLIS_MAX))).await;
    let asked = connection.stats().udp_rx.datagrams - before;
    assert!(asked >= 10 * u64::from(IDLE_MILLIS_MAX) / KEEPALIVE_MILLIS - 1, "asked {asked} times");
    assert!(connection.close_reason().is_none());
    cut.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    let error = accepted.accept().await.err().unwrap();
    let silent = begun.elapsed().as_millis();
    let error = error.get_ref().and_then(|error| error.downcast_ref::<ConnectionError>());
    assert_eq!(error, Some(&ConnectionError::TimedOut));
    let bounds = u128::from(IDLE_MILLIS_MAX - KEEPALIVE_MILLIS as u32 - 1000)..=u128::from(IDLE_MILLIS_MAX) + 1000;
    assert!(bounds.contains(&silent), "after {silent} ms");
}

/// Rules may name the address that a client connects from, so a connection stays where it began.
#[tokio::test(start_paused = true)]
async fn client_that_moves_to_another_address_is_not_heard_there() {
    let cluster = Cluster::new();
    let mut port = Port::of(&cluster);
    let raw = Raw::of(&cluster.client, &[CLIENT]);
    let endpoint = client();
    let connection = endpoint.connect_with(unbounded(&raw), port.address, &raw.name).unwrap().await.unwrap();
    let accepted = port.next().await;
    let remote = accepted.remote();
    endpoint.rebind(std::net::UdpSocket::bind(loopback()).unwrap()).unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    let error = accepted.accept().await.err().unwrap();
    let error = error.get_ref().and_then(|error| error.downcast_ref::<ConnectionError>());
    assert_eq!(error, Some(&ConnectionError::TimedOut));
    assert_eq!(accepted.remote(), remote);
}

/// The clock is paused: a client that was not heard does not say it again before the test waits.
#[tokio::test(start_paused = true)]
async fn so_many_connections_wait_for_the_acceptor_and_one_more_is_not_heard() {
    let cluster = Cluster::new();
    let mut limits = AcceptorLimits { handshakes_in_flight: 4 * INCOMING_MAX, ..AcceptorLimits::default() };
    limits.failures_per_source_minute = u32::MAX;
    let mut port = Port::idle(&cluster, limits, 1);
    // Each shows no certificate, and so is refused.
    let raw = Raw::new(&[CLIENT]);
    let (endpoint, config) = (client(), unbounded(&raw));
    let mut connecting = tokio::task::JoinSet::new();
    for _ in 0..=INCOMING_MAX {
        let attempt = endpoint.connect_with(config.clone(), port.address, &raw.name).unwrap();
        connecting.spawn(async move { attempt.await.map(drop) });
        settle(20).await;
    }
    port.run();
    let heard = || port.acceptor.handshakes_in_flight() + port.refusals.len();
    until(|| heard() >= INCOMING_MAX).await;
    settle(1000).await;
    assert_eq!(heard(), INCOMING_MAX);
    for _ in 0..=INCOMING_MAX {
        port.refused().await;
    }
}

/// Lets the other tasks run, and no time pass.
async fn settle(times: usize) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}
