//! Certificates that were made by hand or elsewhere: offline authorities, and names mapped to principals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::*;
use countersign_core::id::NodeId;
use countersign_core::name::{Host, HostName, Name};
use countersign_core::principal::{Role, TrustDomain};
use countersign_pki::authority::{AuthorityParts, IssueError};
use countersign_pki::credential::Credential;
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use countersign_pki::offline::{LoadError, MakeRequest, load_authority, make_authority, make_certificate};
use countersign_pki::pem::certificates_from_pem;
use countersign_pki::verify::{
    Bundle, CertificateNames, ChainError, Mapping, Usage, verify_chain, verify_mapped_chain,
};
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
            assert_eq!(verified.evidence().parts().principal, principal);
            assert_eq!((verified.hosts(), verified.evidence().parts().cluster), (hosts, None));
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
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.signed_by(&key, &self.issuer).unwrap().der().to_vec()
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

#[test]
fn names_are_mapped_to_principals_by_rule_only() {
    let elsewhere = Elsewhere::new();
    let bundle = Bundle::new([elsewhere.certificate.as_slice()]).unwrap();
    let domain = TrustDomain::parse("corp").unwrap();
    let rule = |names: &CertificateNames| match names.common_name.as_deref() {
        Some("n7") => Some(Role::Node(NodeId(7))),
        Some("app") => Some(Role::Client(Name::parse("app").unwrap())),
        _ => None,
    };
    let verify = |leaf: &[u8], usage| {
        verify_mapped_chain(&bundle, &chain(&[leaf]), usage, Some(NOW), Mapping { trust_domain: &domain, role: &rule })
    };
    let node = elsewhere.issue("n7", vec![dns("N7.corp.example"), dns("*.corp.example"), dns("n7")]);
    let verified = verify(&node, Usage::Server).unwrap();
    assert_eq!(verified.evidence().parts().principal.to_string(), "spiffe://corp/node/7");
    assert_eq!(verified.evidence().parts().endorsement, None);
    let host = |name: &str| Host::Dns(HostName::parse(name).unwrap());
    assert_eq!(verified.hosts(), [host("n7.corp.example"), host("n7")]);
    let app = elsewhere.issue("app", vec![dns("app.corp.example")]);
    assert!(verify(&app, Usage::Client).unwrap().hosts().is_empty());
    assert_eq!(verify(&app, Usage::Server).unwrap_err(), ChainError::Role);
    let stranger = elsewhere.issue("stranger", vec![dns("n7")]);
    assert_eq!(verify(&stranger, Usage::Client).unwrap_err(), ChainError::Unmapped);
    // The mapped certificate is none of ours where no mapping is configured.
    assert_eq!(
        verify_chain(&bundle, &chain(&[&node]), Usage::Server, Some(NOW)).unwrap_err(),
        ChainError::Hosts // the wildcard
    );
    assert_eq!(
        verify_chain(&bundle, &chain(&[&app]), Usage::Client, Some(NOW)).unwrap_err(),
        ChainError::UriNames { got: 0 }
    );
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
