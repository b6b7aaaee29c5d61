//! What a dialer says about the other end when that is no member.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::{AuthorityId, NodeId};
use countersign_core::name::Address;
use countersign_core::peer::Refusal;
use countersign_core::principal::TrustDomain;
use countersign_core::time::UnixMillis;
use countersign_net::dial_error::Foreign;
use countersign_net::{Alpn, ClientDialer, DialCause, Endpoint, Protection, ServedBy, Session, Trust, dial_enroll};
use countersign_pki::verify::Bundle;
use rig::{
    Cluster, DAY, ManualClock, NOW, Sink, Wish, authority, client_principal, dialed, domain, issue, node_principal,
    wish,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Listens once and does `serve` with the connection.
async fn listener<F, R>(serve: F) -> Address
where
    F: FnOnce(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = dialed(listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        serve(socket).await;
    });
    address
}

/// A member's certificate behind `protocols`, answering with `answer`.
async fn tls_server(cluster: &Cluster, protocols: &[&[u8]], answer: &'static [u8]) -> Address {
    let node = &cluster.nodes[&1];
    let key = PrivateKeyDer::try_from(node.key.to_pkcs8().unwrap().expose().to_vec()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(node.chain.iter().cloned().map(CertificateDer::from).collect(), key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    listener(move |socket| async move {
        if let Ok(mut tls) = TlsAcceptor::from(Arc::new(config)).accept(socket).await {
            let _ = tls.write_all(answer).await;
            let _ = tls.shutdown().await;
            let _ = tls.read_to_end(&mut Vec::new()).await;
        }
    })
    .await
}

#[tokio::test]
async fn what_is_no_member_is_named_for_what_it_is() {
    let cluster = Cluster::new();
    let dialer = cluster.dialer(&cluster.nodes[&2]).with_deadline(Duration::from_millis(500));
    let dial = |address: Address| {
        let dialer = &dialer;
        async move {
            let error = dialer.dial_peer(&address, NodeId(1)).await.unwrap_err();
            assert!(error.to_string().contains(&address.to_string()) && error.to_string().contains("failure id"));
            error.cause
        }
    };

    let unserved = dialed(TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
    assert!(matches!(dial(unserved).await, DialCause::Connect(_)));

    let hangs_up = listener(|socket| async { drop(socket) }).await;
    assert!(matches!(dial(hangs_up).await, DialCause::Closed(_)));

    let http = listener(|mut socket| async move {
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    });
    assert!(matches!(dial(http.await).await, DialCause::NotCountersign(Foreign::Tls(_))));

    let no_protocol = tls_server(&cluster, &[], b"").await;
    assert!(matches!(dial(no_protocol).await, DialCause::NotCountersign(Foreign::Protocol)));
    let other_protocol = tls_server(&cluster, &[b"h2"], b"").await;
    assert!(matches!(dial(other_protocol).await, DialCause::NotCountersign(Foreign::Protocol)));
    let no_frame = tls_server(&cluster, &[Alpn::Peer.id()], b"220 mail ready\r\n").await;
    assert!(matches!(dial(no_frame).await, DialCause::NotCountersign(Foreign::FirstFrame(_))));
    let cut_short = tls_server(&cluster, &[Alpn::Peer.id()], &[1, 1, 0]).await;
    assert!(matches!(dial(cut_short).await, DialCause::Closed(_)));
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let cluster = Cluster::new();
    let silent = listener(|mut socket| async move {
        let _ = socket.read_to_end(&mut Vec::new()).await;
    });
    let dialer = cluster.dialer(&cluster.nodes[&2]).with_deadline(Duration::from_millis(20));
    let error = dialer.dial_peer(&silent.await, NodeId(1)).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Deadline { millis: 20 }), "{error:?}");
}

#[tokio::test]
async fn a_proxy_that_ends_tls_is_told_from_the_cluster() {
    let cluster = Cluster::new();
    let proxy = issue(&authority(None), &wish(node_principal(1)));
    let mut server = cluster.serve(1).await;
    server.endpoint.publish_credential(proxy.credential());
    let dialer = cluster.dialer(&cluster.nodes[&2]);
    let error = dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Untrusted(_)), "{error:?}");
    assert!(error.cause.to_string().contains("proxy"));
    assert_eq!(Some(server.refused().await.failure_id), error.failure_id);
    let error = dial_enroll(&server.dialed(), AuthorityId([1; 32])).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Pin { .. }), "{error:?}");
}

#[tokio::test]
async fn a_member_without_a_certificate_cannot_dial() {
    let cluster = Cluster::new();
    let trust = Trust { credential: None, ..cluster.trust(cluster.nodes[&2].credential()) };
    let dialer = countersign_net::Dialer::new(Endpoint::new(trust, ManualClock::new(), Sink::new().0));
    let server = cluster.serve(1).await;
    let error = dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::NoCredential), "{error:?}");
}

fn outside(cluster: &Cluster, domain: TrustDomain, now: UnixMillis) -> ClientDialer {
    let bundle = Bundle::new([cluster.authority.certificate()]).unwrap();
    let clock = ManualClock::new();
    clock.set(now);
    ClientDialer::new(Arc::new(bundle), domain, cluster.client.credential(), Arc::new(clock))
}

#[tokio::test]
async fn a_client_outside_the_cluster_is_served_by_the_host_it_dialed() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let mut stream = outside(&cluster, domain(), NOW).dial(&server.client_port()).await.unwrap();
    assert_eq!(stream.server(), &ServedBy::Issued(node_principal(1)));
    assert_eq!(stream.protection(), Protection::Tls { key_exchange: Some("X25519MLKEM768") });
    let mut accepted = server.client().await;
    assert_eq!(accepted.peer().principal(), &client_principal("pay"));
    accepted.write_all(b"hello").await.unwrap();
    let mut got = [0; 5];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello");
}

#[tokio::test]
async fn an_external_client_refuses_a_server_that_should_not_serve_it() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let west = TrustDomain::parse("west.internal").unwrap();
    for (client, expected) in [
        (outside(&cluster, west, NOW), Refusal::TrustDomain),
        (outside(&cluster, domain(), NOW.plus_secs(2 * DAY)), Refusal::Expired),
        (outside(&cluster, domain(), NOW.minus_secs(120)), Refusal::NotYetValid),
    ] {
        let error = client.dial(&server.client_port()).await.unwrap_err();
        assert!(matches!(error.cause, DialCause::Judged(refusal) if refusal == expected), "{error:?}");
        assert_eq!((error.failure_id, server.refused().await.refusal), (None, Refusal::Handshake));
    }
    // Another client, with a certificate of the same authority, must not pass for a server.
    server.endpoint.publish_credential(cluster.client.credential());
    let error = outside(&cluster, domain(), NOW).dial(&server.client_port()).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Untrusted(_)), "{error:?}");
    // An authority that is not in the bundle is refused too.
    let outsider = issue(&authority(None), &Wish { endorsed: Some((1, 1)), ..wish(node_principal(1)) });
    server.endpoint.publish_credential(outsider.credential());
    let error = outside(&cluster, domain(), NOW).dial(&server.client_port()).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Untrusted(_)), "{error:?}");
}
