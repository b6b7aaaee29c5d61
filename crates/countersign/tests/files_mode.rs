//! Nodes whose certificates were made elsewhere: founded, joined, restarted, evicted, and everybody who is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod elsewhere;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use countersign::{
    CommandError, ControlError, FilesError, FilesMode, JoinError, NewCertificate, NodeError, Start, StartError,
    Started, chain,
};
use countersign_core::id::NodeId;
use countersign_core::limits::CHAIN_LEN_MAX;
use countersign_core::name::{Address, Name};
use countersign_core::principal::Role;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::Refused;
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use elsewhere::{Elsewhere, RULES};
use support::{Node, Token};

async fn found(files: FilesMode) -> Result<Node, StartError> {
    let start = Start::Bootstrap(support::new_cluster());
    Node::start_with(tempfile::tempdir().unwrap(), &Name::parse("n1").unwrap(), start, Some(files)).await
}

async fn join(name: &str, token: &Token, sponsor: &Address, files: Option<FilesMode>) -> Result<Node, StartError> {
    let start = Start::Join { token: token.parse(), sponsor: sponsor.clone() };
    Node::start_with(tempfile::tempdir().unwrap(), &Name::parse(name).unwrap(), start, files).await
}

/// Every member has converged in Raft; no member holds a CA key.
async fn converged(nodes: &[Node]) {
    for node in nodes {
        node.until(|s| s.ready && s.members.len() == nodes.len() && s.members.iter().all(|m| m.converged)).await;
    }
}

async fn three_of(elsewhere: &Elsewhere) -> Vec<Node> {
    let mut nodes = vec![found(elsewhere.node("n1")).await.unwrap()];
    for name in ["n2", "n3"] {
        let token = nodes[0].token(Suffrage::Voter, 1).await;
        let sponsor = nodes.last().unwrap().address();
        nodes.push(join(name, &token, &sponsor, Some(elsewhere.node(name))).await.unwrap());
        converged(&nodes).await;
    }
    nodes
}

async fn live_a_life(elsewhere: &Elsewhere) {
    let mut nodes = three_of(elsewhere).await;
    let status = nodes[2].status().await;
    assert!(status.key_protection.contains("held elsewhere") && !status.can_issue && status.authority.imported);
    assert_eq!(status.raft.voters.len(), 3);
    assert!(status.warnings.is_empty(), "{:?}", status.warnings);
    let leaf = nodes[0].data.path().join("leaf.pem");
    assert!(!leaf.exists() && !nodes[0].data.path().join("keys/leaf.key").exists(), "nothing was issued");
    // Each restarts as what it was, and the cluster goes on.
    for i in 0..3 {
        let node = nodes.remove(0).restart().await;
        assert_eq!((node.started, node.member().node()), (Started::Again, NodeId(i + 1)));
        nodes.push(node);
        converged(&nodes).await;
    }
    let gone = nodes.pop().unwrap();
    nodes[0].evict("n3").await;
    converged(&nodes).await;
    let gone = gone.restart().await;
    let shut_out = gone.member().dialer().dial_peer(&nodes[0].address(), NodeId(1)).await.err().unwrap();
    assert!(chain(&shut_out).to_string().contains("was evicted"), "{shut_out:?}");
    let token = nodes[0].token(Suffrage::Learner, 2).await;
    // With its certificate, whatever else is new, it is refused; with a new one of the same name it is welcome.
    let same = join("n3", &token, &nodes[1].address(), Some(elsewhere.node("n3"))).await;
    let refused = same.err().unwrap();
    assert!(
        matches!(&refused, StartError::Node(NodeError::Join(JoinError::Refused { why: Refused::KeyRevoked, .. }))),
        "{refused:?}"
    );
    elsewhere.make("n3");
    let again = join("n3", &token, &nodes[1].address(), Some(elsewhere.node("n3"))).await.unwrap();
    assert_eq!(again.member().node(), NodeId(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_with_certificates_made_by_hand_live_a_life() {
    live_a_life(&Elsewhere::offline()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_with_certificates_made_by_openssl_live_a_life() {
    match Elsewhere::openssl() {
        Some(elsewhere) => live_a_life(&elsewhere).await,
        None => println!("skipped: there is no openssl command here"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn founder_sends_no_more_certificates_than_joiners_read() {
    let (elsewhere, other) = (Elsewhere::offline(), Elsewhere::offline());
    let leaf = elsewhere.read("n1.pem");
    // The authority is sent too, after what the file holds.
    let found_with = async |others: usize| {
        fs::write(elsewhere.path("n1.pem"), [leaf.clone(), other.read("ca.pem").repeat(others)].concat()).unwrap();
        found(elsewhere.node("n1")).await
    };
    let refused = found_with(CHAIN_LEN_MAX - 1).await.err().unwrap();
    let too_many = |got: &usize| *got == CHAIN_LEN_MAX + 1;
    assert!(
        matches!(&refused, StartError::Node(NodeError::Files(FilesError::TooMany { got, .. })) if too_many(got)),
        "{refused:?}"
    );
    let founder = found_with(CHAIN_LEN_MAX - 2).await.unwrap();
    let token = founder.token(Suffrage::Learner, 1).await;
    join("n2", &token, &founder.address(), Some(elsewhere.node("n2"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn joiner_without_a_fitting_certificate_is_refused_with_advice() {
    let elsewhere = Elsewhere::offline();
    let founder = found(elsewhere.node("n1")).await.unwrap();
    let sponsor = founder.address();
    let token = founder.token(Suffrage::Learner, 9).await;
    // Without files: the sponsor's certificate is none of our own profile.
    assert!(matches!(
        join("n2", &token, &sponsor, None).await,
        Err(StartError::Node(NodeError::Join(JoinError::Dial { .. })))
    ));
    // The name of another member.
    elsewhere.make("other/n1");
    let taken = join("n2", &token, &sponsor, Some(elsewhere.node("other/n1"))).await.err().unwrap();
    let why = |error: StartError| match error {
        StartError::Node(NodeError::Join(JoinError::Refused { why, .. })) => why,
        other => panic!("{other:?}"),
    };
    assert!(matches!(why(taken), Refused::MappedTaken { node: NodeId(1), .. }));
    // The founder's own certificate, stolen.
    let stolen = join("n2", &token, &sponsor, Some(elsewhere.node("n1"))).await.err().unwrap();
    assert_eq!(why(stolen), Refused::KeyTaken(NodeId(1)));
    // Another authority: nothing is sent.
    let foreign = join("n2", &token, &sponsor, Some(Elsewhere::offline().node("n2"))).await.err().unwrap();
    assert!(
        matches!(foreign, StartError::Node(NodeError::Join(JoinError::Files(FilesError::OtherAuthority { .. })))),
        "{foreign:?}"
    );
    // Rules by which the joiner is another than by the sponsor's.
    let generous = countersign::Rules::parse(&["dns:n1.*=node/n1", "dns:(.*)=node/$1"]).unwrap();
    let files = FilesMode { mapping: generous, ..elsewhere.node("n2") };
    let differs = chain(&join("n2", &token, &sponsor, Some(files)).await.err().unwrap()).to_string();
    assert!(differs.contains("compare principal_mapping"), "{differs}");
    // A node with a certificate of its own, where the cluster issues them.
    let issuing = Node::bootstrap("n1").await;
    let token = issuing.token(Suffrage::Learner, 1).await;
    let files = Some(elsewhere.node("n2"));
    assert!(matches!(
        join("n2", &token, &issuing.address(), files).await,
        Err(StartError::Node(NodeError::Join(JoinError::Files(FilesError::OtherAuthority { .. }))))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_do_not_fit_are_refused_before_anything_is_made() {
    let elsewhere = Elsewhere::offline();
    let good = || elsewhere.node("n1");
    let other = Elsewhere::offline();
    let exposed = elsewhere.make("exposed/n1");
    fs::set_permissions(&exposed.key, fs::Permissions::from_mode(0o644)).unwrap();
    let absent = |name: &str| elsewhere.path(name);
    let rules = |rules: &[&str]| countersign::Rules::parse(rules).unwrap();
    let expired = elsewhere.make_expired("n1-expired");
    let cases: Vec<(FilesMode, &str, &str)> = vec![
        (FilesMode { cert: absent("no.pem"), ..good() }, "does not exist", "--inter-broker-tls-cert"),
        (FilesMode { key: absent("no.key"), ..good() }, "does not exist", "-key"),
        (FilesMode { ca: absent("no.ca"), ..good() }, "does not exist", "-ca"),
        (FilesMode { key: exposed.key, ..good() }, "can be read by others", "chmod 600"),
        (FilesMode { key: elsewhere.node("n2").key, ..good() }, "does not belong", "its own key"),
        (FilesMode { ca: other.node("n1").ca, ..good() }, "is not accepted under", "under this authority"),
        (FilesMode { ca: good().cert, ..good() }, "is no authority", "authority's own certificate"),
        (FilesMode { cert: good().ca, ..good() }, "cannot be used together", "its own key"),
        (expired, "has expired", "valid now"),
        (FilesMode { mapping: rules(&["cn:no=node/x"]), ..good() }, "would accept it", "principal_mapping"),
        (FilesMode { mapping: rules(&["dns:.*=client/x"]), ..good() }, "which is no node", "makes a node's"),
    ];
    for (files, words, next) in cases {
        let Err(StartError::Node(NodeError::Files(error))) = found(files).await else { panic!("{words}: started") };
        let shown = chain(&error).to_string();
        assert!(shown.contains(words), "{words}: {shown}");
        assert!(error.advice().contains(next), "{words}: {}", error.advice());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_restarts_only_with_its_own_files() {
    let elsewhere = Elsewhere::offline();
    let founder = found(elsewhere.node("n1")).await.unwrap();
    let (data, name) = founder.stop().await;
    elsewhere.make("other/n1");
    let other = Elsewhere::offline();
    let cases = [
        (None, "no files were given"),
        (Some(elsewhere.node("other/n1")), "on record for this node is"),
        (Some(elsewhere.node("n2")), "this node is bound to `node/n1`"),
        (Some(other.node("n1")), "is not the one of this cluster"),
    ];
    for (files, words) in cases {
        let copy = tempfile::tempdir().unwrap();
        elsewhere::copy(data.path(), copy.path());
        let error = Node::start_with(copy, &name, Start::Existing, files).await.err().unwrap();
        assert!(chain(&error).to_string().contains(words), "{words}: {error:?}");
    }
    let again = Node::start_with(data, &name, Start::Existing, Some(elsewhere.node("n1"))).await.unwrap();
    assert_eq!(again.started, Started::Again);
    // And one whose cluster issues takes none.
    let (data, name) = Node::bootstrap("n1").await.stop().await;
    let error = Node::start_with(data, &name, Start::Existing, Some(elsewhere.node("n1"))).await.err().unwrap();
    assert!(matches!(error, StartError::Node(NodeError::Files(FilesError::Unwanted))), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_pass_by_chain_and_rule_and_nothing_is_issued() {
    let elsewhere = Elsewhere::offline();
    let node = found(elsewhere.node("n1")).await.unwrap();
    let domain = node.member().view().trust_domain.clone();
    let pay = elsewhere.client("client/pay", domain.clone());
    let dialer = pay.dialer.with_mapping(countersign::Rules::parse(&RULES).unwrap());
    let client = support::Client { key: pay.key, dialer };
    node.until(|status| status.ready).await;
    let mut whoami = client.connect(&node).await.unwrap();
    assert!(whoami.ask().await.unwrap().ends_with("/client/pay"));
    node.revoke(client.key).await;
    assert!(whoami.ask().await.is_err());
    let refused = chain(&client.connect(&node).await.err().unwrap()).to_string();
    assert!(refused.contains("key is revoked"), "{refused}");
    let (role, spki) = (Role::parse("client/x").unwrap(), KeyPair::generate(KeyAlgorithm::default()).unwrap().spki());
    let wanted = NewCertificate { role, spki, ttl_secs: Some(600) };
    let refused = node.control().issue_certificate(wanted).await.unwrap_err();
    assert!(matches!(refused, ControlError::Command(CommandError::Refused(Refused::KeyElsewhere(_)))), "{refused:?}");
}
