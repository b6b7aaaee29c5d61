//! Certificates that were made by hand or elsewhere: offline authorities, and names mapped to principals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::*;
use countersign_core::id::{AuthorityId, NodeId};
use countersign_core::name::{Host, HostName, Name};
use countersign_core::principal::{Principal, Role, TrustDomain};
use countersign_pki::authority::{AuthorityParts, IssueError};
use countersign_pki::credential::Credential;
use countersign_pki::foreign::{LeafSignature, pinned_foreign_chain, verify_foreign_chain};
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use countersign_pki::mapping::{Rules, Unmapped};
use countersign_pki::offline::{LoadError, MakeRequest, load_authority, make_authority, make_certificate};
use countersign_pki::pem::{certificate_pem, certificates_from_pem};
use countersign_pki::verify::{Bundle, ChainError, Usage, verify_chain};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType,
};

#[test]
fn an_authority_made_offline_issues_what_the_cluster_believes() {
    for algorithm in [KeyAlgorithm::Ed25519, KeyAlgorithm::P256] {
        let domain = domain();
        let parts = AuthorityParts {
            common_name: "offline authority",
            trust_domain: &domain,
            cluster: None,
            serial: serial(),
            validity: around_now(),
        };
        let files = make_authority(algorithm, &parts).unwrap();
        let authority = load_authority(&files.certificate_pem, files.key_pem.expose()).unwrap();
        assert!(!format!("{files:?}").contains("PRIVATE"));
        let hosts = [Host::parse("b1.example.org").unwrap()];
        for (role, hosts) in [("broker/b1.example.org", &hosts[..]), ("client/pay", &[]), ("admin/root", &[])] {
            let principal = principal(role);
            let request = MakeRequest { principal: &principal, hosts, serial: serial(), validity: around_now() };
            let made = make_certificate(&authority, algorithm, &request).unwrap();
            let chain = certificates_from_pem(&made.certificate_pem).unwrap();
            let bundle = Bundle::new([authority.certificate()]).unwrap();
            let verified = verify_chain(&bundle, &chain, Usage::Client, Some(NOW)).unwrap();
            assert_eq!(verified.claims().principal, principal);
            assert_eq!((verified.hosts(), verified.claims().cluster), (hosts, None));
            assert!(Credential::from_pem(&made.certificate_pem, made.key_pem.expose()).is_ok());
        }
        let client = principal("client/pay");
        let request = MakeRequest { principal: &client, hosts: &hosts, serial: serial(), validity: around_now() };
        assert!(matches!(make_certificate(&authority, algorithm, &request), Err(IssueError::HostsNotAllowed)));
        let twice = files.certificate_pem.repeat(2);
        let key = files.key_pem.expose();
        assert!(matches!(load_authority(&twice, key), Err(LoadError::Certificates { got: 2 })));
        assert!(matches!(load_authority("", key), Err(LoadError::Certificates { got: 0 })));
        assert!(matches!(load_authority(&files.certificate_pem, ""), Err(LoadError::Key(_))));
        let other = KeyPair::generate(algorithm).unwrap().to_pem().unwrap();
        assert!(matches!(
            load_authority(&files.certificate_pem, other.expose()),
            Err(LoadError::Authority(IssueError::Mismatch))
        ));
    }
}

/// A certificate authority as others run one, and what it issues.
struct Elsewhere {
    issuer: Issuer<'static, rcgen::KeyPair>,
    certificate: Vec<u8>,
}

impl Elsewhere {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "corporate authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn issue(&self, common_name: &str, names: Vec<SanType>) -> Vec<u8> {
        self.issue_for(&rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap(), common_name, names)
    }

    fn issue_for(&self, key: &rcgen::KeyPair, common_name: &str, names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.signed_by(key, &self.issuer).unwrap().der().to_vec()
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

#[test]
fn names_are_read_of_a_chain_that_verifies_and_whose_they_are_is_for_the_rules() {
    let elsewhere = Elsewhere::new();
    let bundle = Bundle::new([elsewhere.certificate.as_slice()]).unwrap();
    let domain = TrustDomain::parse("corp").unwrap();
    let rules = Rules::parse(&[r"dns:(n[0-9]+)\.corp\.example=node/$1", "cn:app=client/app"]).unwrap();
    let verify = |leaf: &[u8]| verify_foreign_chain(&bundle, &chain(&[leaf]), Usage::Server, Some(NOW));
    let mapped = |leaf: &[u8]| rules.map(verify(leaf).unwrap().names(), Some(&domain)).map(|name| name.to_string());
    let node = elsewhere.issue("n9", vec![dns("N7.corp.example"), dns("*.corp.example"), dns("n7")]);
    assert_eq!(mapped(&node), Ok("node/n7".to_owned()));
    let foreign = verify(&node).unwrap();
    let host = |name: &str| Host::Dns(HostName::parse(name).unwrap());
    assert_eq!(foreign.hosts(), [host("n7.corp.example"), host("n7")]);
    let principal = |role| Principal { trust_domain: domain.clone(), role };
    let verified = foreign.believe(principal(Role::Node(NodeId(3))), Usage::Server).unwrap();
    assert_eq!((verified.claims().key, verified.hosts().len()), (foreign.key(), 2));
    assert_eq!((&verified.claims().endorsement, verified.claims().cluster), (&None, None));
    let app = elsewhere.issue("app", vec![dns("app.corp.example")]);
    assert_eq!(mapped(&app), Ok("client/app".to_owned()));
    let client = principal(Role::Client(Name::parse("app").unwrap()));
    let app = verify(&app).unwrap();
    assert!(app.believe(client.clone(), Usage::Client).unwrap().hosts().is_empty());
    assert_eq!(app.believe(client, Usage::Server).unwrap_err(), ChainError::Role);
    assert!(matches!(mapped(&elsewhere.issue("n7", vec![])), Err(Unmapped::NoRule { .. })), "by common name");
    // Where no mapping is configured, the same certificates map to no principal, and no foreign chain is trusted for
    // its names.
    let own = verify_chain(&bundle, &chain(&[&node]), Usage::Server, Some(NOW));
    assert_eq!(own.unwrap_err(), ChainError::Hosts, "the wildcard");
    let other = Bundle::new([Elsewhere::new().certificate.as_slice()]).unwrap();
    assert!(matches!(
        verify_foreign_chain(&other, &chain(&[&node]), Usage::Server, Some(NOW)),
        Err(ChainError::Path(_))
    ));
}

#[test]
fn a_leafs_key_signs_for_its_own_certificate_only() {
    for algorithm in
        [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256]
    {
        let elsewhere = Elsewhere::new();
        let bundle = Bundle::new([elsewhere.certificate.as_slice()]).unwrap();
        let made = || {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let der = elsewhere.issue_for(&key, "n1", vec![dns("n1")]);
            let foreign = verify_foreign_chain(&bundle, &chain(&[&der]), Usage::Client, None).unwrap();
            (Credential::from_pem(&certificate_pem(&der), &key.serialize_pem()).unwrap(), foreign)
        };
        let ((credential, foreign), (other, _)) = (made(), made());
        let signature = credential.sign(b"transcript").unwrap();
        assert_eq!(foreign.verify_signature(b"transcript", &signature), Ok(()));
        assert!(foreign.verify_signature(b"another", &signature).is_err());
        assert!(foreign.verify_signature(b"transcript", &other.sign(b"transcript").unwrap()).is_err());
        for scheme in [0, 0x0401, 0x0807 ^ 0x0001] {
            assert!(foreign.verify_signature(b"transcript", &LeafSignature { scheme, ..signature.clone() }).is_err());
        }
    }
}

#[test]
fn a_joiner_pins_an_authority_elsewhere_and_wants_a_node_below_it() {
    let elsewhere = Elsewhere::new();
    let pin = AuthorityId::of_certificate(&elsewhere.certificate);
    let rules = Rules::parse(&["dns:(n[0-9]+)=node/$1", "dns:(.*)=client/$1"]).unwrap();
    let ask = |leaf: &[u8], authority: &[u8]| {
        pinned_foreign_chain(pin, &chain(&[leaf, authority]), &rules).map(|(_, foreign)| foreign.authority())
    };
    let node = elsewhere.issue("x", vec![dns("n1")]);
    assert_eq!(ask(&node, &elsewhere.certificate), Ok(pin));
    let client = elsewhere.issue("n1", vec![dns("app")]);
    assert_eq!(ask(&client, &elsewhere.certificate), Err(ChainError::Role));
    let other = Elsewhere::new();
    assert_eq!(ask(&node, &other.certificate), Err(ChainError::PinNotInChain));
    let decoy = other.issue("x", vec![dns("n1")]);
    assert!(matches!(ask(&decoy, &elsewhere.certificate), Err(ChainError::Path(_))));
}

#[test]
fn the_common_name_is_never_an_identity_without_a_mapping() {
    let elsewhere = Elsewhere::new();
    let bundle = Bundle::new([elsewhere.certificate.as_slice()]).unwrap();
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    for (common_name, names, expected) in [
        ("spiffe://td/node/1", vec![], ChainError::UriNames { got: 0 }),
        ("node/1", vec![dns("n1")], ChainError::UriNames { got: 0 }),
        ("x", vec![uri("spiffe://td/node/1"), uri("spiffe://td/node/2")], ChainError::UriNames { got: 2 }),
        ("x", vec![uri("spiffe://td/node/1"), uri("spiffe://td/node/1")], ChainError::UriNames { got: 2 }),
        ("x", vec![uri("spiffe://td/client/a"), dns("n1")], ChainError::Hosts),
        ("x", vec![uri("spiffe://td/node/1"), dns("*.example.org")], ChainError::Hosts),
        ("x", vec![uri("spiffe://td/node/1"), SanType::Rfc822Name("a@b.c".try_into().unwrap())], ChainError::NameKind),
    ] {
        let leaf = elsewhere.issue(common_name, names.clone());
        let refused = verify_chain(&bundle, &chain(&[&leaf]), Usage::Client, Some(NOW)).unwrap_err();
        assert_eq!(refused, expected, "{common_name} {names:?}");
    }
    for text in
        ["https://td/node/1", "spiffe://td/node/01", "spiffe://td/node/1?x", "spiffe://TD/node/1", "spiffe://td"]
    {
        let leaf = elsewhere.issue("x", vec![uri(text)]);
        let refused = verify_chain(&bundle, &chain(&[&leaf]), Usage::Client, Some(NOW)).unwrap_err();
        assert!(matches!(refused, ChainError::Principal(_)), "{text}: {refused:?}");
    }
}
