//! A cluster founded on an authority that was made offline: it issues as any other, and knows what that authority
//! issued.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod elsewhere;
mod support;

use std::sync::Arc;

use countersign::{BootstrapError, ImportedAuthority, NewCluster, NodeError, Start, StartError, chain};
use countersign_core::name::Name;
use countersign_core::principal::TrustDomain;
use countersign_core::secret::SecretBytes;
use countersign_core::trust::member::Suffrage;
use countersign_net::Alpn;
use countersign_net::hostile::dial_unchecked;
use elsewhere::Elsewhere;
use support::{Client, Node};

fn imported(elsewhere: &Elsewhere) -> NewCluster {
    let key = Arc::new(SecretBytes::new(elsewhere.read("ca.key").into_bytes()));
    let authority = Some(ImportedAuthority { certificate: elsewhere.read("ca.pem"), key });
    NewCluster { authority, ..support::new_cluster() }
}

async fn found(cluster: NewCluster) -> Result<Node, StartError> {
    Node::start(tempfile::tempdir().unwrap(), &Name::parse("n1").unwrap(), Start::Bootstrap(cluster)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_certificates_make_clients_but_no_nodes_and_no_admins() {
    let elsewhere = Elsewhere::offline();
    let mut nodes = vec![found(imported(&elsewhere)).await.unwrap()];
    let domain = nodes[0].member().view().trust_domain.clone();
    assert_eq!(domain.as_str(), "corp.example", "as the authority's certificate names it");
    let token = nodes[0].token(Suffrage::Voter, 1).await;
    nodes.push(Node::join("n2", &token, &nodes[0]).await.unwrap());
    for node in &nodes {
        node.converged(2).await;
    }
    let status = nodes[1].status().await;
    assert!(status.authority.imported && status.can_issue, "the key is sealed to each voter");

    let offline = |role: &str| elsewhere.client(role, domain.clone());
    for (role, node) in [("client/pay", &nodes[0]), ("broker/b1.example.org", &nodes[1])] {
        let made = offline(role);
        let client = Client { key: made.key, dialer: made.dialer };
        let mut whoami = client.connect(node).await.unwrap();
        assert!(whoami.ask().await.unwrap().ends_with(role));
        node.revoke(client.key).await;
        assert!(whoami.ask().await.is_err());
    }
    let root = offline("admin/root");
    let refused = Client { key: root.key, dialer: root.dialer }.connect(&nodes[0]).await.err().unwrap();
    assert!(chain(&refused).to_string().contains("no certificate with this key on record"), "{refused:?}");
    for (role, expected) in [("node/2", "no identity key vouches for it"), ("client/pay", "only members")] {
        let node = offline(role);
        let refused = dial_unchecked(&nodes[0].address(), Alpn::Peer, Some(&node.credential)).await.err().unwrap();
        let shown = chain(&refused).to_string();
        assert!(shown.contains(expected), "{role}: {shown}");
    }
    let node = offline("node/2");
    let refused = Client { key: node.key, dialer: node.dialer }.connect(&nodes[0]).await.err().unwrap();
    assert!(refused.message().contains("no identity key vouches for it"), "{refused:?}");
    // What the cluster issues itself is accepted as ever.
    let client = nodes[0].client("own").await;
    let mut whoami = client.connect(&nodes[0]).await.unwrap();
    assert!(whoami.ask().await.unwrap().ends_with("/client/own"));
}

#[tokio::test(flavor = "multi_thread")]
async fn imported_authority_needs_its_own_key_and_trust_domain() {
    let (elsewhere, other) = (Elsewhere::offline(), Elsewhere::offline());
    let mut mixed = imported(&elsewhere);
    mixed.authority = Some(ImportedAuthority {
        certificate: elsewhere.read("ca.pem"),
        key: Arc::new(SecretBytes::new(other.read("ca.key").into_bytes())),
    });
    let error = found(mixed).await.err().unwrap();
    assert!(chain(&error).to_string().contains("do not belong together"), "{error:?}");
    let trust_domain = Some(TrustDomain::parse("elsewhere.example").unwrap());
    let error = found(NewCluster { trust_domain, ..imported(&elsewhere) }).await.err().unwrap();
    assert!(matches!(error, StartError::Node(NodeError::Bootstrap(BootstrapError::TrustDomain { .. }))), "{error:?}");
    // The same authority with and without its key: the member does not guess which is meant.
    let name = Name::parse("n1").unwrap();
    let start = Start::Bootstrap(imported(&elsewhere));
    let both = Node::start_with(tempfile::tempdir().unwrap(), &name, start, Some(elsewhere.node("n1"))).await;
    assert!(matches!(both.err().unwrap(), StartError::Node(NodeError::Bootstrap(BootstrapError::TwoAuthorities))));
}
