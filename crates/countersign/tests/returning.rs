//! Members that their peers refuse: the evicted one stops serving, the one with old data comes back, and no other
//! member does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod ghost;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use countersign::{LeaseLength, channel_over};
use countersign_api::cluster::enrollment_client::EnrollmentClient;
use countersign_api::cluster::{ReturnReply, ReturnRequest as Asked};
use countersign_core::codec;
use countersign_core::enroll::returning::{ReturnChannel, ReturnRequest};
use countersign_core::id::NodeId;
use countersign_core::key::SecretKey;
use countersign_core::secret::Secret;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::Refused;
use countersign_net::{RecognizedServer, Unrecognized, dial_return};
use countersign_pki::csr::create_csr;
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use ghost::{Ghost, Liar};
use support::{Lifetimes, Node, cluster_living, cluster_of};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

async fn evicted(node: &Node) {
    node.until(|_| node.member().is_evicted()).await;
    assert!(node.member().fresh().is_err(), "no lease counts any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn evicted_node_learns_it_and_serves_no_client() {
    let nodes = cluster_living(3, Lifetimes { lease: LeaseLength::from_secs(60).unwrap(), ..Default::default() }).await;
    for node in &nodes {
        node.converged(3).await;
    }
    let client = nodes[0].client("pay").await;
    // Known where it was issued; the others follow.
    nodes[2].until(|_| !nodes[2].member().view().principals.is_empty()).await;
    let mut open = client.connect(&nodes[2]).await.unwrap();
    open.ask().await.unwrap();
    nodes[0].evict("n3").await;
    evicted(&nodes[2]).await;
    // Long before its lease would have run out.
    open.ask().await.unwrap_err();
    assert!(!nodes[0].member().is_evicted() && !nodes[1].member().is_evicted());
    nodes[0].converged(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_evicted_while_off_learns_it_at_start() {
    let mut nodes = cluster_of(3).await;
    for node in &nodes {
        node.converged(3).await;
    }
    let (data, name) = nodes.pop().unwrap().stop().await;
    nodes[0].evict("n3").await;
    let back = Node::open(data, name).await;
    evicted(&back).await;
    assert!(!back.member().view().evicted.contains_key(&NodeId(3)), "its own log never told it");
    nodes[0].converged(2).await;
}

/// A leaf that was renewed since is superseded: every peer refuses it.
#[tokio::test(flavor = "multi_thread")]
async fn member_restored_from_an_old_copy_comes_back_by_itself() {
    let short = Lifetimes { node_ttl_secs: 12, ..Lifetimes::default() };
    let mut nodes = cluster_living(2, short).await;
    let token = nodes[0].token(Suffrage::Learner, 1).await;
    let learner = Node::join("n3", &token, &nodes[0]).await.unwrap();
    nodes.push(learner);
    for node in &nodes {
        node.converged(3).await;
    }
    let third = nodes.pop().unwrap();
    let (data, name) = third.stop().await;
    let old = ghost::copy(data.path());
    let renewals = |node: &Node| node.member().view().members[&NodeId(3)].leaf.renewal;
    let before = renewals(&nodes[0]);
    let third = Node::open(data, name.clone()).await;
    third.until(|_| renewals(&nodes[0]) >= before + 2).await;
    third.stop().await;

    let ghost = Ghost::of(old.path(), &nodes[0]);
    ghost.dialer().dial_peer(&nodes[0].address(), NodeId(1)).await.unwrap_err();
    let before = renewals(&nodes[0]);
    let restored = Node::open(old, name).await;
    restored.converged(3).await;
    nodes[0].until(|_| renewals(&nodes[0]) > before).await;
    assert!(!restored.member().is_evicted());
    // What it was given survives it.
    let restored = restored.restart().await;
    restored.converged(3).await;
}

/// A connection on which a return may be asked for.
struct Way {
    client: EnrollmentClient<Channel>,
    server: RecognizedServer,
}

impl Way {
    async fn to(node: &Node) -> Self {
        let (stream, unrecognized) = dial_return(&node.address()).await.unwrap();
        let view = node.member().view();
        let server = unrecognized.recognize(view.cluster, &view.attestation.authorities, &BTreeSet::new()).unwrap();
        Self { client: EnrollmentClient::new(channel_over(&Endpoint::from_static("http://member"), stream)), server }
    }

    async fn ask(&mut self, request: &ReturnRequest, key: &KeyPair) -> Result<ReturnReply, Status> {
        let request = codec::encode(request).unwrap().into();
        let asked = Asked { request, csr: create_csr(key).unwrap().into(), ..Asked::default() };
        Ok(self.client.r#return(asked).await?.into_inner())
    }
}

/// Everything that a return is bound to, and each of it wrong in its turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_return_is_of_one_member_for_one_connection() {
    let mut nodes = cluster_of(3).await;
    for node in &nodes {
        node.converged(3).await;
    }
    let (data, _) = nodes.pop().unwrap().stop().await;
    let third = Ghost::of(data.path(), &nodes[0]);
    let cluster = nodes[0].member().view().cluster;
    let key = KeyPair::generate(KeyAlgorithm::default()).unwrap();
    let sign = |identity: &SecretKey, node: u64, renewal, channel| {
        ReturnRequest::sign(identity, (cluster, NodeId(node)), (key.id(), renewal), channel)
    };
    let own = |channel| sign(&third.identity, 3, 1, channel);
    let mut way = Way::to(&nodes[0]).await;
    let here = way.server.channel();
    let another = Way::to(&nodes[0]).await.server.channel();
    assert_ne!(here.exporter, another.exporter);
    let elsewhere = Way::to(&nodes[1]).await.server.channel();
    let other_key = SecretKey::from_seed(Secret::new([7; 32]));
    let forged = ReturnRequest { channel: here, ..own(another) };
    for (request, claim) in [
        (own(another), "replayed from another connection"),
        (own(elsewhere), "relayed from another server"),
        (own(ReturnChannel { leaf: elsewhere.leaf, ..here }), "made for another server"),
        (forged, "replayed, and said to be for this connection"),
        (sign(&other_key, 3, 1, here), "another key's"),
        (sign(&third.identity, 2, 1, here), "for another member"),
    ] {
        let refused = way.ask(&request, &key).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{claim}: {refused}");
    }
    let other_key = KeyPair::generate(KeyAlgorithm::default()).unwrap();
    let refused = way.ask(&own(here), &other_key).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "a certificate for another key than was signed");
    let told = |reply: ReturnReply| codec::decode::<Refused>(&reply.refused).unwrap();
    let wrong = told(way.ask(&sign(&third.identity, 3, 9, here), &key).await.unwrap());
    assert_eq!(wrong, Refused::RenewalOutOfOrder { node: NodeId(3), next: 1 });
    assert_eq!(nodes[0].member().view().members[&NodeId(3)].renewal(), 0, "nothing came of it");

    let answered = way.ask(&own(here), &key).await.unwrap();
    assert_eq!((answered.chain.len(), answered.refused.len()), (2, 0));
    let again = way.ask(&own(here), &key).await.unwrap();
    assert_eq!(again.chain, answered.chain, "an answer that was lost is given again");

    nodes[0].evict("n3").await;
    let mut way = Way::to(&nodes[0]).await;
    let refused = told(way.ask(&own(way.server.channel()), &key).await.unwrap());
    assert_eq!(refused, Refused::AlreadyEvicted(NodeId(3)));
}

/// What a member that was away does not sign anything for.
#[tokio::test(flavor = "multi_thread")]
async fn server_is_recognized_by_the_attestations_alone() {
    let (node, other) = (Node::bootstrap("n1").await, Node::bootstrap("n1").await);
    let (view, foreign) = (node.member().view(), other.member().view());
    let none = BTreeSet::new();
    let (_, unrecognized) = dial_return(&node.address()).await.unwrap();
    let trusted = &view.attestation.authorities;
    unrecognized.recognize(view.cluster, trusted, &none).unwrap();
    let refused = |outcome: Result<RecognizedServer, Unrecognized>| outcome.unwrap_err();
    refused(unrecognized.recognize(view.cluster, &foreign.attestation.authorities, &none));
    refused(unrecognized.recognize(view.cluster, &BTreeSet::new(), &none));
    refused(unrecognized.recognize(foreign.cluster, trusted, &none));
    refused(unrecognized.recognize(view.cluster, trusted, &BTreeSet::from([NodeId(1)])));
}

/// The word of one member, without the signatures of a majority of the voters, changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn eviction_claim_without_voter_signatures_stops_no_member() {
    let mut nodes = cluster_of(3).await;
    for node in &nodes {
        node.converged(3).await;
    }
    let client = nodes[0].client("pay").await;
    let (data, _) = nodes.remove(0).stop().await;
    // The leader of the other two speaks to it all the time.
    let mut liar = Liar::serve(data.path(), &nodes[0]).await;
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, liar.asked.wait_for(|asked| *asked >= 2)).await.unwrap().unwrap();
    for node in &nodes {
        node.converged(3).await;
        assert!(!node.member().is_evicted());
        client.connect(node).await.unwrap().ask().await.unwrap();
    }
}
