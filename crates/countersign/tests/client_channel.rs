//! A program outside the cluster, by what it is given: files in PEM, and client ports of members.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use countersign::{Client, ClientFilesError, KeyPair, REFUSAL, RenewError, Services, Settings, Start, StartError};
use countersign_api::cluster::WhoamiRequest;
use countersign_api::cluster::whoami_client::WhoamiClient;
use countersign_control::{IssuedCertificate, NewCertificate};
use countersign_core::principal::Role;
use countersign_pki::key::KeyAlgorithm;
use countersign_pki::pem::certificate_pem;
use support::{Node, cluster_of, new_cluster};
use tonic::Code;

/// Certificate, key and authority of a new client.
async fn files(node: &Node) -> [String; 3] {
    let key = KeyPair::generate(KeyAlgorithm::default()).unwrap();
    let wanted = NewCertificate { role: Role::parse("client/pay").unwrap(), spki: key.spki(), ttl_secs: Some(600) };
    let IssuedCertificate { leaf, authority, .. } = node.control().issue_certificate(wanted).await.unwrap();
    [certificate_pem(&leaf), key.to_pem().unwrap().expose().to_owned(), certificate_pem(&authority)]
}

#[tokio::test(flavor = "multi_thread")]
async fn channel_calls_the_next_member_once_one_is_lost() {
    let mut nodes = cluster_of(3).await;
    let [certificate, key, authority] = files(&nodes[0]).await;
    for node in &nodes {
        node.knows(1).await;
    }
    let client = Client::from_pem(&certificate, &key, &authority).unwrap();
    let mut whoami = WhoamiClient::new(client.channel(nodes.iter().map(Node::client_address)));
    let answered = |answer: Result<tonic::Response<countersign_api::cluster::WhoamiReply>, tonic::Status>| {
        answer.map(|reply| reply.into_inner().node)
    };
    let first = answered(whoami.whoami(WhoamiRequest {}).await).unwrap();
    assert_eq!(answered(whoami.clone().whoami(WhoamiRequest {}).await).unwrap(), first, "clones share a connection");
    let lost = nodes.iter().position(|node| node.member().node().0 == first).unwrap();
    nodes.remove(lost).stop().await;
    // A call that meets the end of the connection is the caller's to repeat.
    let other = loop {
        match answered(whoami.whoami(WhoamiRequest {}).await) {
            Ok(node) => break node,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
    };
    assert_ne!(other, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn channel_without_a_member_says_why_and_a_refused_client_is_told() {
    let node = Node::bootstrap("n1").await;
    node.converged(1).await;
    let [certificate, key, authority] = files(&node).await;
    let client = Client::from_pem(&certificate, &key, &authority).unwrap();
    let none = WhoamiClient::new(client.channel([])).whoami(WhoamiRequest {}).await.unwrap_err();
    assert_eq!((none.code(), none.message()), (Code::Unavailable, "no member is named"));
    let nowhere = client.channel(["127.0.0.1:1".parse().unwrap()]);
    let nowhere = WhoamiClient::new(nowhere).whoami(WhoamiRequest {}).await.unwrap_err();
    assert!(nowhere.code() == Code::Unavailable && nowhere.message().contains("`127.0.0.1:1`"), "{nowhere:?}");
    let none = client.renew(&[], &KeyPair::generate(KeyAlgorithm::default()).unwrap()).await.unwrap_err();
    assert!(matches!(none, RenewError::NoMember), "{none:?}");

    let mut whoami = WhoamiClient::new(client.channel([node.client_address()]));
    whoami.whoami(WhoamiRequest {}).await.unwrap();
    node.control().revoke_principal(Role::parse("client/pay").unwrap()).await.unwrap();
    let told = loop {
        let status = whoami.whoami(WhoamiRequest {}).await.unwrap_err();
        if status.code() != Code::Unavailable {
            break status;
        }
    };
    assert_eq!(told.code(), Code::PermissionDenied);
    assert_eq!(told.metadata().get(REFUSAL).unwrap(), "key-revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_make_no_client_say_which_is_wrong() {
    let (node, other) = (Node::bootstrap("n1").await, Node::bootstrap("n1").await);
    for node in [&node, &other] {
        node.converged(1).await;
    }
    let [certificate, key, authority] = files(&node).await;
    let [_, other_key, other_authority] = files(&other).await;
    let of = |certificate: &str, key: &str, authority: &str| Client::from_pem(certificate, key, authority).map(drop);
    assert!(of(&certificate, &key, &authority).is_ok());
    type Is = fn(&ClientFilesError) -> bool;
    let cases: [(&str, Result<(), ClientFilesError>, Is); 6] = [
        ("no certificate", of("", &key, &authority), |e| matches!(e, ClientFilesError::Credential(_))),
        ("another key", of(&certificate, &other_key, &authority), |e| matches!(e, ClientFilesError::Credential(_))),
        ("no key", of(&certificate, "", &authority), |e| matches!(e, ClientFilesError::Key(_))),
        ("no authority", of(&certificate, &key, ""), |e| matches!(e, ClientFilesError::Chain(_))),
        ("another authority", of(&certificate, &key, &other_authority), |e| matches!(e, ClientFilesError::Chain(_))),
        ("garbage", of("-----BEGIN CERTIFICATE-----\n!", &key, &authority), |e| {
            matches!(e, ClientFilesError::Certificate(_))
        }),
    ];
    for (claim, made, expected) in cases {
        let error = made.unwrap_err();
        assert!(expected(&error), "{claim}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_without_a_client_port_are_an_error() {
    let data = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let name = Some("n1".parse().unwrap());
    let settings = Settings { name, client_addr: None, ..Settings::new(data.path(), any) };
    let (opened, _) = countersign::Member::open(settings, Start::Bootstrap(new_cluster())).await.unwrap();
    assert_eq!(opened.member().client_addr(), None);
    let services = Services::builder().http(axum::Router::new()).build();
    let refused = opened.serve(services).await.map(drop).unwrap_err();
    assert!(matches!(refused, StartError::NoClientPort), "{refused:?}");
}
