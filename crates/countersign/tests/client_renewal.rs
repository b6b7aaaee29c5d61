//! Clients renew over their own connections: the next certificate while the one in use counts, and never past it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod ghost;
mod support;

use countersign::{Client, ClientDialer, RenewError, RenewedCertificate, VOTERS, channel_over, channel_to};
use countersign_api::cluster::certificates_client::CertificatesClient;
use countersign_api::cluster::members_client::MembersClient;
use countersign_api::cluster::whoami_client::WhoamiClient;
use countersign_api::cluster::{ProposeRequest, RenewRequest};
use countersign_core::codec;
use countersign_core::id::RequestId;
use countersign_core::limits::CSR_LEN_MAX;
use countersign_core::principal::Role;
use countersign_core::trust::author::{Actor, Claim};
use countersign_core::trust::command::{Command, RenewPrincipal};
use countersign_core::trust::member::Suffrage;
use countersign_net::Expected;
use countersign_pki::csr::create_csr;
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use ghost::Ghost;
use support::{Node, cluster_of, connect};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

fn key() -> KeyPair {
    KeyPair::generate(KeyAlgorithm::default()).unwrap()
}

async fn certificates(client: &ClientDialer, node: &Node) -> CertificatesClient<Channel> {
    CertificatesClient::new(connect(client, &node.client_address()).await.unwrap())
}

async fn renew(client: &ClientDialer, node: &Node) -> Result<RenewedCertificate, RenewError> {
    Client::new(client.clone()).renew(&[node.client_address()], &key()).await
}

async fn asks(client: &ClientDialer, node: &Node) -> String {
    let mut whoami = WhoamiClient::new(connect(client, &node.client_address()).await.unwrap());
    whoami.whoami(countersign_api::cluster::WhoamiRequest {}).await.unwrap().into_inner().principal
}

fn code(error: RenewError) -> (Code, String) {
    match error {
        RenewError::Member(status) => (status.code(), status.message().to_owned()),
        other => panic!("{other:?}"),
    }
}

fn request(csr: Vec<u8>) -> RenewRequest {
    RenewRequest { csr: csr.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_renews_over_its_own_connection_and_the_old_certificate_goes_on() {
    let nodes = cluster_of(2).await;
    for node in &nodes {
        node.converged(2).await;
    }
    let client = nodes[0].client("pay").await;
    // At a member that may not lead: it passes the command on, and the leader signs.
    let follower = nodes.iter().find(|node| node.member().node().0 == 2).unwrap();
    follower.knows(1).await;
    let renewed = renew(&client.dialer, follower).await.unwrap();
    assert_eq!(renewed.chain.len(), 2);
    for node in &nodes {
        node.knows(2).await;
        assert!(asks(renewed.client.dialer(), node).await.ends_with("/client/pay"));
        assert!(asks(&client.dialer, node).await.ends_with("/client/pay"), "the old one goes on");
    }
    // As long as the one in use, from now.
    let view = nodes[0].member().view();
    let ends: Vec<u64> = view.principals.scan().values().flatten().map(|(_, issued)| issued.not_after.secs()).collect();
    assert!(ends.len() == 2 && ends[0].abs_diff(ends[1]) < 60, "{ends:?}");
    // Not yet once more, with the renewed one: that would be a third of this line.
    let early = renew(renewed.client.dialer(), &nodes[0]).await.unwrap_err();
    assert_eq!(code(early).0, Code::ResourceExhausted);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_client_renews_nothing() {
    let node = Node::bootstrap("n1").await;
    node.converged(1).await;
    let client = node.client("pay").await;
    let mut open = certificates(&client.dialer, &node).await;
    node.revoke(client.key).await;
    let csr = create_csr(&key()).unwrap();
    open.renew(request(csr)).await.unwrap_err();
    let error = renew(&client.dialer, &node).await.unwrap_err();
    assert_eq!(code(error).0, Code::PermissionDenied);
    let view = node.member().view();
    assert_eq!(view.principals.scan().values().flatten().count(), 1, "nothing was issued");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_is_bounded_and_reads_nothing_but_a_key() {
    let node = Node::bootstrap("n1").await;
    node.converged(1).await;
    let client = node.client("pay").await;
    let mut open = certificates(&client.dialer, &node).await;
    for (csr, claim) in [(vec![], "nothing"), (b"garbage".to_vec(), "garbage"), (vec![0; CSR_LEN_MAX + 1], "long")] {
        assert_eq!(open.renew(request(csr)).await.unwrap_err().code(), Code::InvalidArgument, "{claim}");
    }
    // Another principal's name in the CSR would mean nothing: the caller's counts. One key in use has one successor, so
    // that who stole it does not take the places of all the others.
    let csr = create_csr(&key()).unwrap();
    let first = open.renew(request(csr.clone())).await.unwrap().into_inner();
    let last = node.member().view().generation;
    let past = open.renew(request(create_csr(&key()).unwrap())).await.unwrap_err();
    assert_eq!(past.code(), Code::ResourceExhausted, "{past}");
    assert_eq!(open.renew(request(csr)).await.unwrap().into_inner(), first, "whose answer was lost asks again");
    assert_eq!(node.member().view().generation, last);
    let view = node.member().view();
    assert_eq!(view.principals.scan().values().flatten().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_refused_and_a_learner_names_the_voters() {
    let (node, learner) = with_learner().await;
    let client = node.client("pay").await;
    learner.knows(1).await;
    // What any program is told.
    let mut asked = certificates(&client.dialer, &learner).await;
    let told = asked.renew(request(create_csr(&key()).unwrap())).await.unwrap_err();
    assert_eq!(told.code(), Code::FailedPrecondition);
    let voter = node.client_address().to_string();
    assert!(told.message().contains("ask a voter") && told.message().contains(&voter), "{told}");
    assert_eq!(told.metadata().get(VOTERS).unwrap(), &voter);
    // The library goes there.
    let renewed = renew(&client.dialer, &learner).await.unwrap();
    assert!(asks(renewed.client.dialer(), &node).await.ends_with("/client/pay"));

    let address = node.client_address();
    let stream = learner.member().dialer().dial_client_port(&address, Expected::Host).await.unwrap();
    let mut as_node = CertificatesClient::new(channel_to(&address, stream).unwrap());
    let refused = as_node.renew(request(create_csr(&key()).unwrap())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
}

/// A voter and a learner, which both know the voter's client port.
async fn with_learner() -> (Node, Node) {
    let node = Node::bootstrap("n1").await;
    node.converged(1).await;
    let token = node.token(Suffrage::Learner, 1).await;
    let learner = Node::join("n2", &token, &node).await.unwrap();
    for of in [&node, &learner] {
        of.converged(2).await;
        let knows = || of.member().node_for_testing().state.read().client_ports_of_voters().count() == 1;
        of.until(|_| knows()).await;
    }
    (node, learner)
}

/// The keys of a learner, and the key of a client that it serves: it asks for a certificate in that client's name.
#[tokio::test(flavor = "multi_thread")]
async fn attack_learner_forges_the_renewal_of_a_client() {
    let (node, learner) = with_learner().await;
    let client = node.client("pay").await;
    learner.knows(1).await;
    let thief = Ghost::of(learner.data.path(), &node);
    let stream = thief.dialer().dial_peer(&node.address(), node.member().node()).await.unwrap();
    let mut members = MembersClient::new(channel_over(&Endpoint::from_static("http://member"), stream));
    let (role, spki) = (Role::parse("client/pay").unwrap(), key().spki());
    let command =
        Command::RenewPrincipal(RenewPrincipal { role: role.clone(), in_use: client.key, spki: spki.clone() });
    for actor in [Actor::Principal(role), Actor::Principal(Role::Node(thief.node))] {
        let claim = Claim { actor, source: None, request: RequestId([1; 16]) };
        let asked = ProposeRequest {
            command: command.encode().unwrap().into(),
            spki: spki.clone().into(),
            claim: codec::encode(&claim).unwrap().into(),
        };
        let refused = members.propose(asked).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "not a voter"), "{claim:?}");
    }
    assert_eq!(node.member().view().principals.scan().values().flatten().count(), 1, "nothing was issued");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_lease_nothing_is_renewed() {
    let mut nodes = cluster_of(2).await;
    let left = nodes.remove(0);
    left.converged(2).await;
    let client = left.client("pay").await;
    let mut open = certificates(&client.dialer, &left).await;
    nodes.remove(0).stop().await;
    left.until(|status| status.lease_millis_left.is_none()).await;
    let denied = open.renew(request(create_csr(&key()).unwrap())).await.unwrap_err();
    // It is told why, unless its connection was closed before it asked.
    assert!(matches!(denied.code(), Code::Unavailable | Code::Cancelled | Code::Unknown), "{denied:?}");
    assert_eq!(left.member().view().principals.scan().values().flatten().count(), 1, "nothing was issued");
}
