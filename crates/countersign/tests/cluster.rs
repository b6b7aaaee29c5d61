//! Members in one process, on loopback: made, joined, restarted, led by another, evicted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

/// The example that embedders start from is what is tested.
#[allow(dead_code)]
#[path = "../examples/service.rs"]
mod example;

use countersign::{ControlError, JoinError, Member, NodeError, Services, Start, StartError, Started};
use countersign_api::cluster::whoami_server::WhoamiServer;
use countersign_core::id::NodeId;
use countersign_core::name::Name;
use countersign_core::trust::join_token::TokenUnusable;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::Refused;
use support::{Node, cluster_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_restarts_as_what_it_was() {
    let founder = Node::bootstrap("n1").await;
    let (cluster, generation) = (founder.member().view().cluster, founder.member().view().generation);
    let founder = founder.restart().await;
    assert_eq!(founder.member().view().cluster, cluster);
    assert!(founder.member().view().generation >= generation);
    assert_eq!(founder.started, Started::Again);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_join_by_tokens_and_survive_their_founder() {
    let mut nodes = cluster_of(3).await;
    for node in &nodes {
        node.converged(3).await;
    }
    let founder = nodes.remove(0);
    let (data, name) = founder.stop().await;
    // The CA key is sealed to each voter: with the founder gone, another one signs.
    let token = nodes[0].token(Suffrage::Learner, 1).await;
    let fourth = Node::join("n4", &token, &nodes[1]).await.unwrap();
    assert_eq!(fourth.member().node(), NodeId(4));
    let founder = Node::open(data, name).await;
    founder.sees_member("n4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_cluster_stops_and_starts_again_in_any_order() {
    let mut stopped = Vec::new();
    for node in cluster_of(3).await {
        stopped.push(node.stop().await);
    }
    stopped.reverse();
    // A member alone waits for others; they are started together.
    let nodes = futures(stopped).await;
    let token = nodes[0].token(Suffrage::Voter, 1).await;
    let fourth = Node::join("n4", &token, &nodes[2]).await.unwrap();
    fourth.converged(4).await;
}

async fn futures(stopped: Vec<(tempfile::TempDir, Name)>) -> Vec<Node> {
    let mut starting = tokio::task::JoinSet::new();
    for (data, name) in stopped {
        starting.spawn(Node::open(data, name));
    }
    starting.join_all().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_use_admits_one_of_many_joiners_through_different_nodes() {
    let nodes = cluster_of(3).await;
    let token = nodes[1].token(Suffrage::Learner, 1).await;
    let mut joining = tokio::task::JoinSet::new();
    for i in 0..6 {
        let (token, sponsor) = (token.clone(), nodes[i % 3].address());
        joining.spawn(async move { Node::try_join(&format!("x{i}"), &token, &sponsor).await });
    }
    let outcomes = joining.join_all().await;
    let spent = Refused::Token(TokenUnusable::UsedUp);
    let admitted = outcomes.iter().filter(|o| o.is_ok()).count();
    let refused = outcomes.iter().filter(
        |o| matches!(o, Err(StartError::Node(NodeError::Join(JoinError::Refused { why, .. }))) if *why == spent),
    );
    assert_eq!((admitted, refused.count()), (1, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn directory_without_its_member_file_is_not_reused() {
    let founder = Node::bootstrap("n1").await;
    let token = founder.token(Suffrage::Learner, 1).await;
    let joined = Node::join("n2", &token, &founder).await.unwrap();
    let (data, name) = joined.stop().await;
    std::fs::remove_file(data.path().join("member.json")).unwrap();
    let again = Node::start(data, &name, Start::Join { token: token.parse(), sponsor: founder.address() }).await;
    let Err(StartError::Node(NodeError::NoMemberFile { found, .. })) = again else { panic!("{:?}", again.err()) };
    let parts = ["store", "store.confirmed", "data-store", "data-store.confirmed", "keys", "view.bin", "leaf.pem"];
    assert_eq!(found, parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_voter_is_out_and_its_key_stays_refused() {
    let mut nodes = cluster_of(3).await;
    let last = nodes.pop().unwrap();
    nodes[0].evict("n3").await;
    for node in &nodes {
        node.converged(2).await;
        assert!(!node.member().view().members.contains_key(&NodeId(3)));
    }
    let fresh = nodes[0].token(Suffrage::Learner, 1).await;
    let (data, name) = last.stop().await;
    for file in ["member.json", "leaf.pem", "view.bin"] {
        std::fs::remove_file(data.path().join(file)).unwrap();
    }
    std::fs::remove_dir_all(data.path().join("store")).unwrap();
    std::fs::remove_file(data.path().join("store.confirmed")).unwrap();
    // Its holder makes the directory look like one of a join that is under way.
    let ids = "00112233445566778899aabbccddeeff";
    let join = serde_json::json!({ "request": ids, "name": "n3", "addresses": [], "store": ids });
    std::fs::write(data.path().join("join.json"), join.to_string()).unwrap();
    std::fs::set_permissions(data.path().join("join.json"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    let again = Node::start(data, &name, Start::Join { token: fresh.parse(), sponsor: nodes[0].address() }).await;
    let why = again.err().expect("the old key was admitted again");
    assert!(
        matches!(why, StartError::Node(NodeError::Join(JoinError::Refused { why: Refused::KeyRevoked, .. }))),
        "{why:?}"
    );
    // The host set up again under the same name, with new keys, is welcome.
    let again = Node::join("n3", &fresh, &nodes[1]).await.unwrap();
    assert_eq!(again.member().node(), NodeId(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn token_of_another_cluster_sends_nothing_and_names_the_cause() {
    let (east, west) = (Node::bootstrap("n1").await, Node::bootstrap("n1").await);
    let token = east.token(Suffrage::Learner, 1).await;
    let refused = Node::try_join("n2", &token, &west.address()).await.err().unwrap();
    let shown = countersign::chain(&refused).to_string();
    assert!(shown.contains("join token pins"), "{shown}");
    assert!(!shown.contains(token.secret()), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_service_sees_its_caller_until_it_is_revoked() {
    let greeter = |member: &Member| WhoamiServer::new(example::Greeter { member: member.clone() });
    let node = Node::bootstrap_serving("n1", |member| Services::builder().grpc(greeter(member)).build()).await;
    let client = node.client("pay").await;
    let mut whoami = client.connect(&node).await.unwrap();
    let answer = whoami.ask().await.unwrap();
    assert!(answer.starts_with("hello, spiffe://") && answer.ends_with("/client/pay"), "{answer}");
    node.revoke(client.key).await;
    // The open connection is closed, and no new one is made.
    assert!(whoami.ask().await.is_err());
    let refused = client.connect(&node).await.err().unwrap();
    assert!(countersign::chain(&refused).to_string().contains("key is revoked"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_grow_to_five_and_shrink_to_three() {
    let mut nodes = cluster_of(3).await;
    for i in 4..=5 {
        let token = nodes[0].token(Suffrage::Voter, 1).await;
        let joined = Node::join(&format!("n{i}"), &token, &nodes[1]).await.unwrap();
        nodes.push(joined);
    }
    for node in &nodes {
        node.converged(5).await;
    }
    let itself = nodes[0].try_evict("n1").await.unwrap_err();
    assert!(matches!(&itself, ControlError::EvictsItself(name) if name.as_str() == "n1"), "{itself:?}");
    // The founder, which leads, is among those that leave.
    nodes[4].evict("n1").await;
    nodes[4].converged(4).await;
    nodes[3].evict("n2").await;
    for node in &nodes[2..] {
        node.converged(3).await;
    }
    let token = nodes[2].token(Suffrage::Learner, 1).await;
    Node::join("n6", &token, &nodes[3]).await.unwrap();
}
