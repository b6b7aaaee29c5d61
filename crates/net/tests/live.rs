//! Trust reaches the connections that are open, and the handshakes that are under way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use std::sync::Arc;

use countersign_core::id::{Generation, NodeId};
use countersign_core::peer::{Refusal, Scope};
use countersign_core::time::{UnixMillis, Validity};
use countersign_core::trust::member::Member;
use countersign_core::trust::view::{AuthorityPhase, View};
use countersign_net::frame::FirstFrame;
use countersign_net::stream::ClosedByTrust;
use countersign_net::{Alpn, ClientStream, DialCause, Dialer, Endpoint, Expected, PublishError, Registry};
use rig::raw::{Raw, first_frame};
use rig::{Cluster, ManualClock, NOW, Sink, Wish, client_principal, node_principal, until, valid, wish};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// The stream says that trust closed it, to a reader and to a writer.
async fn is_closed(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), refusal: Refusal) {
    let errors = [stream.read_u8().await.map(drop), stream.write_all(b"x").await, stream.flush().await];
    for outcome in errors {
        let error = outcome.unwrap_err();
        let reason = error.get_ref().and_then(|e| e.downcast_ref::<ClosedByTrust>());
        assert_eq!(reason, Some(&ClosedByTrust(refusal)), "{error:?}");
    }
}

fn principals(registry: &Registry) -> Vec<String> {
    let mut all: Vec<_> = registry.connections().iter().map(|c| c.principal.role.to_string()).collect();
    all.sort();
    all
}

#[tokio::test]
async fn an_eviction_closes_the_evicted_members_connections_and_no_others() {
    let mut cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let two = cluster.dialer(&cluster.nodes[&2]);
    let three = cluster.dialer(&cluster.nodes[&3]);
    let pay = cluster.dialer(&cluster.client);
    let mut dialed_two = two.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    let mut accepted_two = server.peers.recv().await.unwrap();
    let mut service_two = two.dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
    let accepted_service_two = server.client().await;
    let mut dialed_three = three.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    let mut accepted_three = server.peers.recv().await.unwrap();
    let _pay = pay.dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
    let _accepted_pay = server.client().await;
    let registry = server.endpoint.registry().clone();
    assert_eq!(principals(&registry), ["client/pay", "node/2", "node/2", "node/3"]);

    // Bytes that arrived before the eviction are not read after it.
    dialed_two.write_all(b"append entries").await.unwrap();
    dialed_two.flush().await.unwrap();
    let closed_two = accepted_two.closed();
    let reading = tokio::spawn(is_closed_while_reading(accepted_service_two));
    let closed = server.endpoint.publish(cluster.evict(2), NOW).unwrap();
    assert_eq!(closed.len(), 2);
    for one in closed {
        assert_eq!(
            (one.principal, one.key, one.refusal),
            (node_principal(2), cluster.nodes[&2].id(), Refusal::Evicted)
        );
    }
    assert_eq!(closed_two.await, Refusal::Evicted);
    is_closed(&mut accepted_two, Refusal::Evicted).await;
    assert_eq!(reading.await.unwrap(), Refusal::Evicted);
    // The evicted member sees its connections end.
    let mut rest = Vec::new();
    let _ = dialed_two.read_to_end(&mut rest).await;
    let _ = service_two.read_to_end(&mut rest).await;
    assert!(rest.is_empty());

    assert_eq!(principals(&registry), ["client/pay", "node/3"]);
    dialed_three.write_all(b"x").await.unwrap();
    dialed_three.flush().await.unwrap();
    assert_eq!(accepted_three.read_u8().await.unwrap(), b'x');
    let error = two.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
    assert!(
        matches!(error.cause, DialCause::Refused { code } if code.refusal() == Some(Refusal::Evicted)),
        "{error:?}"
    );
}

/// A reader that waits when the connection is closed is woken.
async fn is_closed_while_reading(mut stream: ClientStream) -> Refusal {
    let error = stream.read_u8().await.unwrap_err();
    error.get_ref().and_then(|e| e.downcast_ref::<ClosedByTrust>()).unwrap().0
}

#[tokio::test]
async fn a_dialed_connection_is_closed_as_well() {
    let mut cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let (endpoint, _) = cluster.endpoint(&cluster.nodes[&2]);
    let mut dialed = Dialer::new(endpoint.clone()).dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    let _accepted = server.peers.recv().await.unwrap();
    assert!(endpoint.registry().connections()[0].dialed);
    endpoint.publish(cluster.evict(1), NOW).unwrap();
    is_closed(&mut dialed, Refusal::Evicted).await;
    assert_eq!(endpoint.registry().count(), 0);
}

#[tokio::test]
async fn an_entry_vanishes_with_its_stream() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let dialer = cluster.dialer(&cluster.nodes[&2]);
    for _ in 0..3 {
        let _dialed = dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
        let accepted = server.peers.recv().await.unwrap();
        assert_eq!(server.endpoint.registry().count(), 1);
        drop(accepted);
        assert_eq!(server.endpoint.registry().count(), 0);
    }
}

#[tokio::test]
async fn a_revoked_key_a_tainted_authority_and_a_removed_client_end_their_connections() {
    for (claim, refusal) in [(0, Refusal::KeyRevoked), (1, Refusal::Authority), (2, Refusal::PrincipalUnknown)] {
        let mut cluster = Cluster::new();
        let mut server = cluster.serve(1).await;
        let pay = cluster.dialer(&cluster.client);
        let _dialed = pay.dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
        let mut accepted = server.client().await;
        let key = cluster.client.id();
        let view = cluster.next(|view| match claim {
            0 => drop(view.revoked_keys.insert(key)),
            1 => view.authorities.values_mut().for_each(|a| a.phase = AuthorityPhase::Tainted),
            _ => view.principals = Default::default(),
        });
        assert_eq!(server.endpoint.publish(view, NOW).unwrap().len(), 1);
        is_closed(&mut accepted, refusal).await;
    }
}

/// The new certificate may be on its way over the very connection that its record would close.
#[tokio::test]
async fn a_renewal_does_not_cut_the_connection_that_it_travels_on() {
    let mut cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let two = cluster.dialer(&cluster.nodes[&2]);
    let mut dialed = two.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    let mut accepted = server.peers.recv().await.unwrap();
    let renewed = cluster.issue(&Wish { endorsed: Some((2, 2)), ..wish(node_principal(2)) });
    let view = cluster.next(|view| {
        let next = |member: &mut Member| (member.leaf.key, member.leaf.renewal) = (renewed.id(), 2);
        view.members.update(&NodeId(2), next).unwrap();
    });
    assert_eq!(server.endpoint.publish(view, NOW).unwrap(), []);
    accepted.write_all(b"certificate").await.unwrap();
    accepted.flush().await.unwrap();
    let mut got = [0; 11];
    dialed.read_exact(&mut got).await.unwrap();
    // A new handshake with the old leaf is refused.
    let error = two.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Refused { code } if code.refusal() == Some(Refusal::Superseded)));
}

#[tokio::test]
async fn a_handshake_under_way_when_its_member_is_evicted_is_refused() {
    let mut cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let two = &cluster.nodes[&2];
    let raw = Raw::new(&[Alpn::Peer.id()]).showing(&two.chain, &two.key);
    let socket = TcpStream::connect(server.address).await.unwrap();
    // The ClientHello has been answered, the client's certificate is not sent yet.
    let (gate, opened) = tokio::sync::oneshot::channel();
    let client = tokio::spawn(async move {
        let mut tls = raw.handshake(Gated { socket, gate: Some(opened) }).await?;
        first_frame(&mut tls).await
    });
    until(|| server.acceptor.handshakes_in_flight() == 1).await;
    server.endpoint.publish(cluster.evict(2), NOW).unwrap();
    gate.send(()).unwrap();
    match client.await.unwrap().unwrap() {
        FirstFrame::Refused { code, failure_id } => {
            assert_eq!(code.refusal(), Some(Refusal::Evicted));
            let record = server.refused().await;
            assert_eq!((record.refusal, record.failure_id), (Refusal::Evicted, failure_id));
        }
        welcome => panic!("{welcome:?}"),
    }
}

/// A socket that reads nothing until it may.
struct Gated {
    socket: TcpStream,
    gate: Option<tokio::sync::oneshot::Receiver<()>>,
}

mod gated {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::Gated;

    impl AsyncRead for Gated {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            // Nothing is read, so nothing can be answered, until the gate opens.
            if let Some(gate) = &mut self.gate {
                match Pin::new(gate).poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(_) => self.gate = None,
                }
            }
            Pin::new(&mut self.socket).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Gated {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.socket).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.socket).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.socket).poll_shutdown(cx)
        }
    }
}

/// The worst moment: the judgement has read the old view, the new one is published, the judgement ends. The clock is
/// asked in between, so the test publishes there.
#[tokio::test]
async fn a_view_published_between_reading_trust_and_judging_still_refuses() {
    let mut cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let two = cluster.dialer(&cluster.nodes[&2]);
    server.clock.when_asked(publish_once_registered(&server.endpoint, cluster.evict(2)));
    let error = two.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Closed(_)), "{error:?}");
    let record = server.refused().await;
    assert_eq!((record.refusal, Some(record.failure_id)), (Refusal::Evicted, error.failure_id));
    assert_eq!(server.endpoint.registry().count(), 0);
    assert!(server.peers.try_recv().is_err());
}

fn publish_once_registered(endpoint: &Endpoint, view: Arc<View>) -> impl FnMut() -> bool + Send + 'static {
    let endpoint = endpoint.clone();
    move || {
        let registered = endpoint.registry().count() == 1;
        if registered {
            assert_eq!(endpoint.publish(Arc::clone(&view), NOW).unwrap().len(), 1);
        }
        registered
    }
}

#[tokio::test]
async fn the_same_race_at_the_dialer_refuses_as_well() {
    let mut cluster = Cluster::new();
    let server = cluster.serve(1).await;
    let clock = ManualClock::new();
    let trust = cluster.trust(cluster.nodes[&2].credential());
    let endpoint = Endpoint::new(trust, clock.clone(), Sink::new().0);
    clock.when_asked(publish_once_registered(&endpoint, cluster.evict(1)));
    let error = Dialer::new(endpoint.clone()).dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Judged(Refusal::Evicted)), "{error:?}");
    assert_eq!(endpoint.registry().count(), 0);
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let two = cluster.dialer(&cluster.nodes[&2]);
    let _dialed = two.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    let mut accepted = server.peers.recv().await.unwrap();
    let end = valid().not_after;
    assert_eq!(accepted.peer().not_after(), end);
    let registry = server.endpoint.registry();
    assert_eq!(registry.expire(UnixMillis(end.0 + 999)), [], "the last second counts");
    let closed = registry.expire(end.plus_secs(1));
    assert_eq!(closed.iter().map(|c| c.refusal).collect::<Vec<_>>(), [Refusal::Expired]);
    is_closed(&mut accepted, Refusal::Expired).await;
}

#[tokio::test]
async fn connection_ends_with_its_record_where_that_ends_before_the_certificate() {
    let mut cluster = Cluster::new();
    let (end, role) = (NOW.plus_secs(5), client_principal("pay").role);
    cluster.next(|view| {
        view.principals.update(&role, |keys| keys.values_mut().for_each(|issued| issued.not_after = end));
    });
    assert!(end < valid().not_after);
    let mut server = cluster.serve(1).await;
    let pay = cluster.dialer(&cluster.client);
    let _dialed = pay.dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
    let mut accepted = server.client().await;
    let registry = server.endpoint.registry();
    assert_eq!(registry.connections()[0].not_after, end);
    assert_eq!(registry.expire(UnixMillis(end.0 + 999)), [], "the last second counts");
    assert_eq!(registry.expire(end.plus_secs(1)).len(), 1);
    is_closed(&mut accepted, Refusal::Expired).await;
}

/// No test code calls it: the acceptor's own task does.
#[tokio::test]
async fn expiry_needs_no_call() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let long = cluster.dialer(&cluster.nodes[&3]);
    let _long = long.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    let _stays = server.peers.recv().await.unwrap();
    // Valid for ten milliseconds more.
    let validity = Validity { not_before: NOW.minus_secs(60), not_after: NOW };
    let short = cluster.issue(&Wish { validity, endorsed: Some((2, 2)), principal: node_principal(2) });
    server.clock.set(UnixMillis(NOW.0 + 990));
    let _short = cluster.dialer(&short).dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    let accepted = server.peers.recv().await.unwrap();
    server.clock.set(NOW.plus_secs(1));
    assert_eq!(accepted.closed().await, Refusal::Expired);
    assert_eq!(principals(server.endpoint.registry()), ["node/3"]);
}

#[test]
fn a_tainted_authority_is_in_no_bundle() {
    let mut cluster = Cluster::new();
    let ids = |cluster: &Cluster| cluster.trust(cluster.nodes[&1].credential()).bundle.ids().collect::<Vec<_>>();
    assert_eq!(ids(&cluster), [cluster.authority.id()]);
    for (phase, trusted) in [(AuthorityPhase::Prepared, 1), (AuthorityPhase::Tainted, 0)] {
        cluster.next(|view| view.authorities.values_mut().for_each(|a| a.phase = phase));
        assert_eq!(ids(&cluster).len(), trusted, "{phase:?}");
    }
}

#[tokio::test]
async fn trust_never_goes_back() {
    let mut cluster = Cluster::new();
    let server = cluster.serve(1).await;
    let old = Arc::new(cluster.view.clone());
    let generations = server.endpoint.trust().generations();
    server.endpoint.publish(cluster.evict(2), NOW.plus_secs(100)).unwrap();
    assert_eq!(*generations.borrow(), Generation(6));
    let error = server.endpoint.publish(old, NOW).unwrap_err();
    assert!(
        matches!(error, PublishError::Stale(stale) if (stale.got, stale.current) == (Generation(5), Generation(6)))
    );
    assert!(server.endpoint.trust().load().view.evicted.contains_key(&NodeId(2)));
    // The time that it has seen does not go back either.
    server.endpoint.publish(cluster.next(|_| {}), NOW).unwrap();
    assert_eq!(server.endpoint.now(), NOW.plus_secs(100));
}

/// The last applied time counts where the local clock is behind it.
#[tokio::test]
async fn a_slow_clock_does_not_revive_what_the_cluster_knows_to_be_expired() {
    let mut cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    server.clock.set(NOW);
    server.endpoint.publish(cluster.next(|_| {}), valid().not_after.plus_secs(1)).unwrap();
    let pay = cluster.dialer(&cluster.client);
    let _dialed = pay.dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
    assert_eq!(server.refused_client().await, Refusal::Expired);
    let _two = cluster.dialer(&cluster.nodes[&2]).dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    assert_eq!(server.peers.recv().await.unwrap().peer().scope(), Scope::Recovery);
}

#[tokio::test]
async fn closing_a_principal_closes_all_that_it_has_open() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let two = cluster.dialer(&cluster.nodes[&2]);
    let _a = two.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    let _b = two.dial_client_port(&server.client_port(), Expected::Node(NodeId(1))).await.unwrap();
    let mut peer = server.peers.recv().await.unwrap();
    let mut service = server.client().await;
    let closed = server.endpoint.registry().close_principal(&node_principal(2), Refusal::KeyRevoked);
    assert_eq!(closed.len(), 2);
    is_closed(&mut peer, Refusal::KeyRevoked).await;
    is_closed(&mut service, Refusal::KeyRevoked).await;
}

#[tokio::test]
async fn a_new_credential_is_shown_from_the_next_handshake_on() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let two = cluster.dialer(&cluster.nodes[&2]);
    let renewed = cluster.issue(&Wish { endorsed: Some((1, 2)), ..wish(node_principal(1)) });
    let before = two.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    let _open = server.peers.recv().await.unwrap();
    server.endpoint.publish_credential(renewed.credential());
    let after = two.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    assert_eq!(before.peer().key(), cluster.nodes[&1].id());
    assert_eq!(after.peer().key(), renewed.id());
}

/// The memory of verified chains spares the path, never the key, the time or the membership.
#[tokio::test]
async fn a_remembered_chain_is_proven_and_judged_again() {
    let mut cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let two = cluster.dialer(&cluster.nodes[&2]);
    let told = |error: countersign_net::DialError| match error.cause {
        DialCause::Refused { code } => code.refusal(),
        other => panic!("{other:?}"),
    };
    two.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    two.dial_peer(&server.dialed(), NodeId(1)).await.unwrap();

    // The same chain without its key.
    let thief = Raw::new(&[Alpn::Peer.id()]).showing(&cluster.nodes[&2].chain, &cluster.nodes[&3].key);
    thief.answer(server.address).await.unwrap_err();
    assert_eq!(server.refused().await.refusal, Refusal::Handshake);
    // After its validity.
    server.clock.set(valid().not_after.plus_secs(1));
    let _dialed = two.dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
    assert_eq!(server.refused_client().await, Refusal::Expired);
    // Without its member, in a view of the same generation: memory has no say in it.
    server.clock.set(NOW);
    rig::evict(&mut cluster.view, 2);
    server.endpoint.publish(Arc::new(cluster.view.clone()), NOW).unwrap();
    let error = two.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
    assert_eq!(told(error), Some(Refusal::Evicted));
}
