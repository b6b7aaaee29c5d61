//! Certificates made elsewhere: the principals that the rules and the view make of them, and the ones that they refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod rig;

use std::sync::Arc;

use countersign_core::id::NodeId;
use countersign_core::name::HostName;
use countersign_core::peer::Refusal;
use countersign_core::time::UnixMillis;
use countersign_core::trust::member::{Evicted, Member};
use countersign_net::{
    AcceptorLimits, ClientDialer, Credential, DialCause, DialError, Dialer, Endpoint, Expected, ServedBy, SponsorChain,
    Trust, dial_enroll, dial_enroll_mapped,
};
use countersign_pki::credential;
use countersign_pki::mapping::Rules;
use countersign_pki::pem::certificate_pem;
use countersign_pki::verify::Bundle;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rig::{Cluster, ManualClock, Server, Sink, domain, evict};

const RULES: [&str; 2] = [r"dns:(n[0-9]+)\.corp=node/$1", r"dns:([a-z]+)\.app\.corp=client/$1"];

fn rules() -> Rules {
    Rules::parse(&RULES).unwrap()
}

/// A certificate authority as others run one.
struct Elsewhere {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
}

/// A certificate with the names that were asked for, and its key.
struct Made {
    der: Vec<u8>,
    key: KeyPair,
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

impl Elsewhere {
    fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "corporate authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn issue_for(&self, key: KeyPair, common_name: &str, names: Vec<SanType>) -> Made {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        Made { der: params.signed_by(&key, &self.issuer).unwrap().der().to_vec(), key }
    }

    fn issue(&self, common_name: &str, names: Vec<SanType>) -> Made {
        self.issue_for(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(), common_name, names)
    }

    fn node(&self, id: u64) -> Made {
        let names = vec![dns(&format!("n{id}.corp")), dns("localhost"), SanType::IpAddress([127, 0, 0, 1].into())];
        self.issue("corporate", names)
    }
}

impl Made {
    fn checked(&self) -> credential::Credential {
        credential::Credential::from_pem(&certificate_pem(&self.der), &self.key.serialize_pem()).unwrap()
    }
}

/// Members 1 to 3, whose certificates were made elsewhere and are bound to the names `n1` to `n3`.
struct Mapped {
    cluster: Cluster,
    elsewhere: Elsewhere,
    nodes: Vec<Made>,
}

impl Mapped {
    fn new() -> Self {
        let (mut cluster, elsewhere) = (Cluster::new(), Elsewhere::new());
        let nodes: Vec<Made> = (1..=3).map(|id| elsewhere.node(id)).collect();
        let view = &mut cluster.view;
        let (_, mut record) = view.authorities.pop_first().unwrap();
        (record.certificate, record.key, record.imported) = (elsewhere.certificate.clone(), None, true);
        view.authorities.insert(countersign_core::id::AuthorityId::of_certificate(&elsewhere.certificate), record);
        for (id, made) in (1..).map(NodeId).zip(&nodes) {
            let mapped = |member: &mut Member| {
                member.mapped = Some(HostName::parse(&format!("n{id}")).unwrap());
                member.leaf.key = key_of(made);
            };
            view.members.update(&id, mapped).unwrap();
        }
        Self { cluster, elsewhere, nodes }
    }

    fn credential(&self, made: &Made) -> Arc<Credential> {
        Arc::new(Credential::foreign(&made.checked(), &self.elsewhere.certificate))
    }

    fn trust(&self, made: &Made) -> Trust {
        let view = Arc::new(self.cluster.view.clone());
        Trust::of_view(view, Some(self.credential(made)), UnixMillis(0)).unwrap()
    }

    fn dialer(&self, made: &Made) -> Dialer {
        Dialer::new(Endpoint::mapped(self.trust(made), ManualClock::new(), Sink::new().0, rules()))
    }

    async fn serve(&self, id: usize) -> Server {
        let trust = self.trust(&self.nodes[id - 1]);
        Server::start_mapped("127.0.0.1:0", trust, AcceptorLimits::default(), ManualClock::new(), Some(rules())).await
    }
}

fn key_of(made: &Made) -> countersign_core::id::KeyId {
    use rcgen::PublicKeyData;
    countersign_core::id::KeyId::of_spki(&made.key.subject_public_key_info())
}

/// The dialer was refused, and the acceptor logged it under the same id, with a detail that holds these words.
async fn refused(server: &mut Server, claim: &str, error: &DialError, expected: Refusal, words: &str) {
    let record = server.refused().await;
    assert_eq!(
        (record.refusal, Some(record.failure_id)),
        (expected, error.failure_id),
        "{claim}: {record:?} {error:?}"
    );
    assert!(record.detail.as_deref().unwrap_or_default().contains(words), "{claim}: {record:?}");
}

#[tokio::test]
async fn a_mapped_certificate_is_the_member_that_the_view_binds_its_name_to() {
    let mapped = Mapped::new();
    let mut server = mapped.serve(1).await;
    let dialed = mapped.dialer(&mapped.nodes[1]).dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    let accepted = server.peers.recv().await.unwrap();
    assert_eq!((accepted.peer().node_id(), accepted.peer().key()), (Some(NodeId(2)), key_of(&mapped.nodes[1])));
    assert_eq!(dialed.peer().node_id(), Some(NodeId(1)));
    let wrong = mapped.dialer(&mapped.nodes[1]).dial_peer(&server.dialed(), NodeId(3)).await.unwrap_err();
    assert!(matches!(wrong.cause, DialCause::Judged(Refusal::WrongNode)), "{wrong:?}");
    assert_eq!(Some(server.refused().await.failure_id), wrong.failure_id);
}

#[tokio::test]
async fn a_certificate_that_maps_to_no_principal_is_refused() {
    use Refusal as R;
    let mut mapped = Mapped::new();
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let elsewhere = &mapped.elsewhere;
    let own_principal = format!("spiffe://{}/node/2", domain());
    let cases: Vec<(&str, Made, R, &str)> = vec![
        ("another member's name with another key", elsewhere.node(2), R::KeyUnknown, ""),
        ("a name that no member has", elsewhere.node(9), R::Handshake, "no member is bound to"),
        (
            "no rule",
            elsewhere.issue("x", vec![dns("n2.other")]),
            R::Handshake,
            "rule `dns:(.*)=node/$1` would accept it",
        ),
        (
            "the common name alone",
            elsewhere.issue("n2.corp", vec![]),
            R::Handshake,
            "rule `cn:(.*)=node/$1` would accept",
        ),
        ("no name at all", elsewhere.issue("N 2", vec![]), R::Handshake, "it has none that a rule could"),
        (
            "a part of the name",
            elsewhere.issue("x", vec![dns("n2.corp.evil")]),
            R::Handshake,
            "no principal_mapping rule",
        ),
        ("two members", elsewhere.issue("x", vec![dns("n2.corp"), dns("n3.corp")]), R::Handshake, "more than one"),
        (
            "a principal of our own profile",
            elsewhere.issue("x", vec![uri(&own_principal)]),
            R::Handshake,
            "no principal_mapping rule",
        ),
        ("a client", elsewhere.issue("x", vec![dns("pay.app.corp")]), R::NotANode, ""),
        ("another authority's", Elsewhere::new().node(2), R::Handshake, "authority key identifier"),
    ];
    let dialers: Vec<_> = cases.iter().map(|(_, made, ..)| mapped.dialer(made)).collect();
    // Evicted from the server's view only: the dialer still believes in itself.
    let gone = mapped.dialer(&mapped.nodes[2]);
    let rebuilt = mapped.dialer(&mapped.elsewhere.node(3));
    mapped.cluster.next(|view| {
        let key = view.members[&NodeId(3)].leaf.key;
        evict(view, 3);
        let name = HostName::parse("n3").unwrap();
        let gone = view.evicted[&NodeId(3)].clone();
        view.evicted.insert(NodeId(3), Evicted { mapped: Some(name), ..gone });
        view.revoked_keys.insert(key);
    });
    let mut server = mapped.serve(1).await;
    for ((claim, _, refusal, words), dialer) in cases.iter().zip(dialers) {
        let error = dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
        refused(&mut server, claim, &error, *refusal, words).await;
    }
    for (claim, dialer, refusal) in [("an evicted key", gone, R::Evicted), ("an evicted name", rebuilt, R::Evicted)] {
        let error = dialer.dial_peer(&server.dialed(), NodeId(1)).await.unwrap_err();
        refused(&mut server, claim, &error, refusal, "").await;
    }
    assert!(server.peers.try_recv().is_err());
}

#[tokio::test]
async fn an_eviction_closes_a_mapped_members_connections() {
    let mut mapped = Mapped::new();
    let mut server = mapped.serve(1).await;
    let _dialed = mapped.dialer(&mapped.nodes[2]).dial_peer(&server.dialed(), NodeId(1)).await.unwrap();
    let accepted = server.peers.recv().await.unwrap();
    let view = mapped.cluster.evict(3);
    server.endpoint.publish(view, UnixMillis(0)).unwrap();
    assert_eq!(accepted.closed().await, Refusal::Evicted);
}

#[tokio::test]
async fn a_mapped_client_knows_its_server_until_its_key_is_revoked() {
    let mut mapped = Mapped::new();
    let mut server = mapped.serve(1).await;
    let pay = mapped.elsewhere.issue("x", vec![dns("pay.app.corp")]);
    let bundle = Arc::new(Bundle::new([mapped.elsewhere.certificate.as_slice()]).unwrap());
    let client = |clock| ClientDialer::new(Arc::clone(&bundle), domain(), mapped.credential(&pay), clock);
    let mapping = client(Arc::new(ManualClock::new())).with_mapping(rules());
    let stream = mapping.dial(&server.client_port()).await.unwrap();
    assert!(matches!(stream.server(), ServedBy::Mapped(name) if name.to_string() == "node/n1"));
    let served = server.client().await;
    assert_eq!(served.peer().principal().role.to_string(), "client/pay");
    let unmapped = client(Arc::new(ManualClock::new())).dial(&server.client_port()).await.unwrap_err();
    assert!(matches!(unmapped.cause, DialCause::Untrusted(_)), "{unmapped:?}");
    server.refused().await;
    // A client is no server, whatever it listens on.
    let member = mapped.dialer(&mapped.nodes[1]).dial_client_port(&server.client_port(), Expected::Host).await.unwrap();
    assert_eq!(member.peer().node_id(), Some(NodeId(1)));
    assert_eq!(server.client().await.peer().node_id(), Some(NodeId(2)));
    let key = key_of(&pay);
    let view = mapped.cluster.next(|view| view.revoked_keys.extend([key]));
    server.endpoint.publish(view, UnixMillis(0)).unwrap();
    assert_eq!(served.closed().await, Refusal::KeyRevoked);
    let _dialed = mapping.dial(&server.client_port()).await.unwrap();
    assert_eq!(server.refused_client().await, Refusal::KeyRevoked);
}

#[tokio::test]
async fn a_joiner_pins_the_authority_elsewhere_and_maps_its_sponsor() {
    let mapped = Mapped::new();
    let mut server = mapped.serve(1).await;
    let pin = countersign_core::id::AuthorityId::of_certificate(&mapped.elsewhere.certificate);
    let pinned = dial_enroll_mapped(&server.dialed(), pin, &rules()).await.unwrap();
    let accepted = server.enrollments.recv().await.unwrap();
    assert_eq!(pinned.channel().exporter, accepted.proof().exporter);
    assert!(matches!(pinned.sponsor_chain(), SponsorChain::Foreign(chain) if chain.key() == key_of(&mapped.nodes[0])));
    let other = Rules::parse(&["dns:(.*)=client/x"]).unwrap();
    for error in [
        dial_enroll_mapped(&server.dialed(), pin, &other).await.unwrap_err(),
        // Without rules the names of our own profile are looked for.
        dial_enroll(&server.dialed(), pin).await.unwrap_err(),
    ] {
        assert!(matches!(error.cause, DialCause::Untrusted(_)), "{error:?}");
    }
}
