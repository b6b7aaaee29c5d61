//! Dialing with a pin: a joiner sends nothing to a server that cannot prove to be a node of the pinned cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use std::sync::Arc;

use countersign_core::id::AuthorityId;
use countersign_core::name::{Address, HostName};
use countersign_core::principal::{Principal, Role};
use countersign_core::time::Validity;
use countersign_net::{Alpn, DialCause, PinnedStream, SponsorChain, dial_enroll};
use countersign_pki::verify::VerifiedChain;
use rig::{Cluster, Identity, NOW, Wish, authority, client_principal, dialed, issue, node_principal, wish};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

#[tokio::test]
async fn a_joiner_reaches_its_cluster_and_both_ends_hold_the_same_exporter() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let mut joiner = dial_enroll(&server.dialed(), cluster.authority.id()).await.unwrap();
    let mut sponsor = server.enrollments.recv().await.unwrap();
    let channel = joiner.channel();
    assert_eq!(channel.exporter, sponsor.proof().exporter);
    assert_eq!(channel.leaf, sponsor.proof().leaf);
    assert_ne!(channel.exporter, [0; 32]);
    assert_eq!(channel.authority, cluster.authority.id());
    assert_eq!(channel.leaf, <[u8; 32]>::from(Sha256::digest(&cluster.nodes[&1].chain[0])));
    assert_eq!(issued(&joiner).claims().principal, node_principal(1));
    assert_eq!(joiner.bundle().ids().collect::<Vec<_>>(), [cluster.authority.id()]);
    joiner.write_all(b"csr").await.unwrap();
    joiner.flush().await.unwrap();
    let mut got = [0; 3];
    sponsor.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"csr");
    // Another connection, another exporter: a signature for one is worthless on the other.
    let again = dial_enroll(&server.dialed(), cluster.authority.id()).await.unwrap();
    assert_ne!(again.channel().exporter, channel.exporter);
}

/// A server that shows what it is told to, and reports how its handshake went and what it was sent.
async fn impostor(chain: Vec<Vec<u8>>, who: &Identity) -> (Address, JoinHandle<std::io::Result<Vec<u8>>>) {
    let key = PrivateKeyDer::try_from(who.key.to_pkcs8().unwrap().expose().to_vec()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.into_iter().map(CertificateDer::from).collect(), key)
        .unwrap();
    config.alpn_protocols = vec![Alpn::Enroll.id().to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = dialed(listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (socket, _) = listener.accept().await?;
        let mut tls = TlsAcceptor::from(Arc::new(config)).accept(socket).await?;
        let mut sent = Vec::new();
        tls.read_to_end(&mut sent).await?;
        Ok(sent)
    });
    (address, task)
}

#[tokio::test]
async fn an_attackers_leaf_with_the_real_authority_appended_is_sent_nothing() {
    let cluster = Cluster::new();
    let real = cluster.authority.certificate().to_vec();
    let attacker = authority(Some(rig::CLUSTER));
    let leaf = issue(&attacker, &Wish { endorsed: Some((1, 1)), ..wish(node_principal(1)) });
    let client = cluster.issue(&wish(client_principal("pay")));
    let broker = Role::Broker(HostName::parse("b1.example.org").unwrap());
    let broker = cluster.issue(&wish(Principal { role: broker, ..node_principal(1) }));
    let pinned = |who: &Identity| vec![who.chain[0].clone(), real.clone()];
    for (claim, chain, who) in [
        ("leaf and the real authority", pinned(&leaf), &leaf),
        ("leaf, its own authority, the real one", [leaf.chain.clone(), vec![real.clone()]].concat(), &leaf),
        ("leaf, the real authority, its own", [pinned(&leaf), vec![leaf.chain[1].clone()]].concat(), &leaf),
        ("a client's certificate of the real authority", pinned(&client), &client),
        ("a broker's certificate of the real authority", pinned(&broker), &broker),
    ] {
        let (address, server) = impostor(chain, who).await;
        let error = dial_enroll(&address, cluster.authority.id()).await.unwrap_err();
        assert!(matches!(error.cause, DialCause::Untrusted(_)), "{claim}: {error:?}");
        // Its handshake never ended, so it cannot have been sent anything within it.
        assert!(server.await.unwrap().is_err(), "{claim}");
    }
}

/// The real chain without its key: public certificates prove nothing.
#[tokio::test]
async fn a_server_that_shows_a_stolen_chain_is_sent_nothing() {
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    let cluster = Cluster::new();
    let thief = &cluster.nodes[&2];
    let key = PrivateKeyDer::try_from(thief.key.to_pkcs8().unwrap().expose().to_vec()).unwrap();
    let key = default_provider().key_provider.load_private_key(key).unwrap();
    let chain = cluster.nodes[&1].chain.iter().cloned().map(CertificateDer::from).collect();
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))));
    config.alpn_protocols = vec![Alpn::Enroll.id().to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = dialed(listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (socket, _) = listener.accept().await?;
        TlsAcceptor::from(Arc::new(config)).accept(socket).await.map(drop)
    });
    let error = dial_enroll(&address, cluster.authority.id()).await.unwrap_err();
    assert!(matches!(error.cause, DialCause::Tls(_)), "{error:?}");
    assert!(server.await.unwrap().is_err());
}

#[tokio::test]
async fn another_clusters_pin_names_both_fingerprints() {
    let cluster = Cluster::new();
    let mut server = cluster.serve(1).await;
    let wrong = AuthorityId([9; 32]);
    let error = dial_enroll(&server.dialed(), wrong).await.unwrap_err();
    match &error.cause {
        DialCause::Pin { expected, got } => {
            assert_eq!((*expected, *got), (wrong, Some(cluster.authority.id())));
            let shown = error.cause.to_string();
            assert!(
                shown.contains(&wrong.to_string()) && shown.contains(&cluster.authority.id().to_string()),
                "{shown}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(Some(server.refused().await.failure_id), error.failure_id);
}

/// A joiner's clock may be a day off: validity is for the cluster's time, which comes with the answer.
#[tokio::test]
async fn an_expired_sponsor_is_judged_by_the_answer_not_by_the_joiners_clock() {
    let cluster = Cluster::new();
    let validity = Validity { not_before: NOW.minus_secs(1000), not_after: NOW.minus_secs(500) };
    let old = cluster.issue(&Wish { validity, endorsed: Some((1, 2)), principal: node_principal(1) });
    let server = cluster.serve(1).await;
    server.endpoint.publish_credential(old.credential());
    let joiner = dial_enroll(&server.dialed(), cluster.authority.id()).await.unwrap();
    assert_eq!(issued(&joiner).claims().validity, validity);
}

fn issued(joiner: &PinnedStream) -> &VerifiedChain {
    match joiner.sponsor_chain() {
        SponsorChain::Issued(chain) => chain,
        SponsorChain::Foreign(foreign) => panic!("{foreign:?}"),
    }
}
