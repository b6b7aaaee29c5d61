//! What goes into a certificate, and what a requester cannot put there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::*;
use countersign_core::key::{Endorsement, SecretKey};
use countersign_core::limits::CSR_LEN_MAX;
use countersign_core::name::Host;
use countersign_core::principal::TrustDomain;
use countersign_core::secret::Secret;
use countersign_core::time::{UnixMillis, Validity};
use countersign_core::trust::view::AuthorityKey;
use countersign_pki::authority::{Authority, AuthorityParts, IssueError, LeafRequest, authority_info, backdated};
use countersign_pki::csr::{CsrError, create_csr, parse_csr};
use countersign_pki::key::{KeyAlgorithm, KeyError, KeyPair};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

fn request<'a>(principal: &'a countersign_core::principal::Principal, spki: &'a [u8]) -> LeafRequest<'a> {
    LeafRequest {
        principal,
        common_name: "n1",
        hosts: &[],
        spki,
        serial: [0xff; 16],
        validity: around_now(),
        endorsement: None,
    }
}

fn read(der: &[u8]) -> X509Certificate<'_> {
    let (rest, certificate) = X509Certificate::from_der(der).unwrap();
    assert!(rest.is_empty());
    certificate
}

/// What a requester might try, each with all kinds of names.
fn hostile_csrs(key: &KeyPair) -> Vec<Vec<u8>> {
    let names = || {
        vec![
            SanType::URI("spiffe://td.internal/admin/root".try_into().unwrap()),
            SanType::URI("spiffe://td.internal/node/99".try_into().unwrap()),
            SanType::DnsName("victim.example.org".try_into().unwrap()),
            SanType::IpAddress("10.9.9.9".parse().unwrap()),
            SanType::Rfc822Name("root@example.org".try_into().unwrap()),
        ]
    };
    let mut requests = Vec::new();
    for sans in [names(), names().into_iter().take(2).collect(), names().into_iter().skip(2).collect(), Vec::new()] {
        for ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
            let mut params = CertificateParams::default();
            params.subject_alt_names.clone_from(&sans);
            params.is_ca = ca;
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning, ExtendedKeyUsagePurpose::Any];
            params.distinguished_name.push(rcgen::DnType::CommonName, "root");
            params.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(&[2, 25, 1, 1], vec![4, 1, 0])];
            requests.push(params.serialize_request(key).unwrap().der().to_vec());
        }
    }
    requests
}

#[test]
fn nothing_of_a_hostile_request_but_its_key_reaches_the_certificate() {
    // CVE-2022-36103 (extended key usages and CA flag), CVE-2022-40716 (several URI names).
    let authority = authority();
    for algorithm in [KeyAlgorithm::Ed25519, KeyAlgorithm::P256] {
        let key = KeyPair::generate(algorithm).unwrap();
        for csr in hostile_csrs(&key) {
            let parsed = parse_csr(&csr).unwrap();
            assert_eq!((parsed.id, &parsed.spki), (key.id(), &key.spki()));
            let client = principal("client/pay");
            let der = authority.issue(&request(&client, &parsed.spki)).unwrap();
            let certificate = read(&der);
            let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
            assert_eq!(names[..], [GeneralName::URI("spiffe://td.internal/client/pay")]);
            assert!(!certificate.is_ca());
            let usage = certificate.key_usage().unwrap().unwrap().value;
            assert!(usage.digital_signature() && !usage.key_cert_sign());
            let purposes = certificate.extended_key_usage().unwrap().unwrap().value;
            assert!(purposes.client_auth && !purposes.any && !purposes.code_signing && !purposes.server_auth);
            assert_eq!(certificate.subject().to_string(), "CN=n1");
            assert!(certificate.extensions().iter().all(|e| !e.parsed_extension().unsupported()));
        }
    }
}

#[test]
fn a_request_of_our_own_is_empty_but_for_the_key() {
    for algorithm in [KeyAlgorithm::Ed25519, KeyAlgorithm::P256] {
        let key = KeyPair::generate(algorithm).unwrap();
        let csr = create_csr(&key).unwrap();
        assert_eq!(parse_csr(&csr).unwrap().id, key.id());
        let (_, read) = x509_parser::certification_request::X509CertificationRequest::from_der(&csr).unwrap();
        assert_eq!(read.certification_request_info.subject.iter().count(), 0);
        assert_eq!(read.certification_request_info.attributes().len(), 0);
    }
}

#[test]
fn a_request_that_proves_nothing_is_refused() {
    let key = key();
    let csr = create_csr(&key).unwrap();
    // Another key's signature: the key in the request was swapped.
    let other = create_csr(&common::key()).unwrap();
    let at = csr.windows(32).position(|window| window == &key.spki()[12..]).unwrap();
    let mut swapped = csr.clone();
    swapped[at..at + 32].copy_from_slice(&other[at..at + 32]);
    assert_eq!(parse_csr(&swapped), Err(CsrError::Signature));
    let mut bad = csr.clone();
    *bad.last_mut().unwrap() ^= 1;
    assert_eq!(parse_csr(&bad), Err(CsrError::Signature));
    let mut trailing = csr.clone();
    trailing.push(0);
    assert!(matches!(parse_csr(&trailing), Err(CsrError::Malformed(_))));
    assert!(matches!(parse_csr(&csr[..csr.len() - 1]), Err(CsrError::Malformed(_))));
    assert!(matches!(parse_csr(&[]), Err(CsrError::Malformed(_))));
}

#[test]
fn a_request_may_be_4096_bytes_long_and_no_longer() {
    let key = key();
    let padded = |len: usize| {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "x".repeat(len));
        params.serialize_request(&key).unwrap().der().to_vec()
    };
    let overhead = padded(3000).len() - 3000;
    assert!(parse_csr(&padded(CSR_LEN_MAX - overhead)).is_ok());
    assert_eq!(parse_csr(&padded(CSR_LEN_MAX - overhead + 1)), Err(CsrError::TooLong { got: CSR_LEN_MAX + 1 }));
}

#[test]
fn keys_of_other_kinds_are_refused() {
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        assert_eq!(parse_csr(csr.der()), Err(CsrError::Key));
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        let node = principal("node/1");
        assert!(matches!(authority().issue(&request(&node, &spki)), Err(IssueError::Key(KeyError::Public))));
    }
}

#[test]
fn the_same_request_gives_the_same_bytes() {
    let authority = authority();
    let (key, node) = (key(), principal("node/1"));
    let spki = key.spki();
    let request = request(&node, &spki);
    assert_eq!(authority.issue(&request).unwrap(), authority.issue(&request).unwrap());
    let renewed = LeafRequest { serial: serial(), ..request.clone() };
    assert_ne!(authority.issue(&request).unwrap(), authority.issue(&renewed).unwrap());
}

#[test]
fn a_serial_number_is_positive_and_never_zero() {
    let (authority, key, node) = (authority(), key(), principal("node/1"));
    let spki = key.spki();
    let with = |serial| authority.issue(&LeafRequest { serial, ..request(&node, &spki) });
    let der = with([0xff; 16]).unwrap();
    assert_eq!(read(&der).raw_serial(), [&[0x7f][..], &[0xff; 15]].concat());
    assert!(matches!(with([0; 16]), Err(IssueError::Serial)));
    let mut top_bit_only = [0; 16];
    top_bit_only[0] = 0x80;
    assert!(matches!(with(top_bit_only), Err(IssueError::Serial)));
}

#[test]
fn usages_and_hosts_follow_the_kind_of_principal() {
    let (authority, key) = (authority(), key());
    let spki = key.spki();
    let hosts = [Host::parse("n1.example.org").unwrap()];
    for (role, serves) in [("node/1", true), ("broker/b1", true), ("client/pay", false), ("admin/root", false)] {
        let principal = principal(role);
        let der = authority.issue(&request(&principal, &spki)).unwrap();
        let certificate = read(&der);
        let purposes = certificate.extended_key_usage().unwrap().unwrap();
        assert_eq!((purposes.value.server_auth, purposes.value.client_auth, purposes.critical), (serves, true, false));
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && !constraints.value.ca);
        let with_hosts = authority.issue(&LeafRequest { hosts: &hosts, ..request(&principal, &spki) });
        assert_eq!(with_hosts.is_ok(), serves, "{role}");
        let identity = SecretKey::from_seed(Secret::new([1; 32]));
        let endorsement = Endorsement::sign(&identity, CLUSTER, key.id(), 0);
        let endorsed = authority.issue(&LeafRequest { endorsement: Some(&endorsement), ..request(&principal, &spki) });
        assert_eq!(endorsed.is_ok(), role == "node/1", "{role}");
    }
}

#[test]
fn key_identifiers_link_leaf_and_authority() {
    let authority = authority();
    let leaf = leaf(&authority, "node/1");
    let (leaf, ca) = (read(&leaf), read(authority.certificate()));
    let id = |certificate: &X509Certificate<'_>| {
        certificate.iter_extensions().find_map(|e| match e.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })
    };
    let issuer = leaf.iter_extensions().find_map(|e| match e.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    });
    assert!(id(&leaf).is_some() && id(&ca).is_some());
    assert_eq!(issuer, id(&ca));
    assert_eq!(leaf.issuer().as_raw(), ca.subject().as_raw());
}

#[test]
fn an_authority_says_what_it_was_made_with() {
    for algorithm in [KeyAlgorithm::Ed25519, KeyAlgorithm::P256] {
        let key = KeyPair::generate(algorithm).unwrap();
        let public = key.authority_key();
        assert_eq!(matches!(public, AuthorityKey::P256(_)), algorithm == KeyAlgorithm::P256);
        let authority = authority_with(key, around_now());
        let info = authority_info(authority.certificate()).unwrap();
        assert_eq!((info.cluster, info.trust_domain, info.validity), (Some(CLUSTER), Some(domain()), around_now()));
        assert_eq!(info.key, public);
        assert!(info.common_name.starts_with("authority "));
        let certificate = read(authority.certificate());
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(1));
        let usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
    }
}

#[test]
fn an_authority_without_a_cluster_names_none() {
    let domain = TrustDomain::parse("td.internal").unwrap();
    let parts = AuthorityParts {
        common_name: "offline",
        trust_domain: &domain,
        cluster: None,
        serial: serial(),
        validity: around_now(),
    };
    let authority = Authority::create(key(), &parts).unwrap();
    assert_eq!(authority_info(authority.certificate()).unwrap().cluster, None);
}

#[test]
fn a_key_of_another_authority_or_a_leaf_makes_no_authority() {
    let authority = authority();
    let certificate = authority.certificate().to_vec();
    assert!(matches!(Authority::from_parts(certificate.clone(), key()), Err(IssueError::Mismatch)));
    let own = KeyPair::from_pkcs8_der(&authority.key().to_pkcs8().unwrap()).unwrap();
    assert_eq!(Authority::from_parts(certificate, own).unwrap().id(), authority.id());
    let leaf_key = key();
    let leaf = leaf_for(&authority, "node/1", &leaf_key, &[]);
    assert!(matches!(Authority::from_parts(leaf, leaf_key), Err(IssueError::NotAnAuthority(_))));
    assert!(matches!(Authority::from_parts(Vec::new(), key()), Err(IssueError::Malformed(_))));
}

#[test]
fn validity_runs_forward_and_ends_before_the_year_10000() {
    let (authority, key, node) = (authority(), key(), principal("node/1"));
    let spki = key.spki();
    let with = |not_before, not_after| {
        let validity =
            Validity { not_before: UnixMillis::from_secs(not_before), not_after: UnixMillis::from_secs(not_after) };
        authority.issue(&LeafRequest { validity, ..request(&node, &spki) })
    };
    for (from, to) in [(0, 1), (5, 5), (2_524_607_999, 2_524_608_000), (0, 253_402_300_799)] {
        let der = with(from, to).unwrap();
        let validity = read(&der).validity().clone();
        assert_eq!((validity.not_before.timestamp(), validity.not_after.timestamp()), (from as i64, to as i64));
    }
    for (from, to) in [(6, 5), (0, 253_402_300_800), (0, u64::MAX / 1000)] {
        assert!(matches!(with(from, to), Err(IssueError::Validity)));
    }
    let validity = backdated(NOW, 3600);
    assert_eq!(validity, Validity { not_before: NOW.minus_secs(60), not_after: NOW.plus_secs(3600) });
}

#[test]
fn a_fractional_end_is_cut_to_the_second_that_the_certificate_holds() {
    let (authority, key, node) = (authority(), key(), principal("node/1"));
    let validity = Validity { not_before: UnixMillis(1_999), not_after: UnixMillis(9_999) };
    let der = authority.issue(&LeafRequest { validity, ..request(&node, &key.spki()) }).unwrap();
    let read = read(&der).validity().clone();
    assert_eq!((read.not_before.timestamp(), read.not_after.timestamp()), (1, 9));
}

#[test]
fn a_common_name_is_cut_to_64_characters_and_may_be_missing() {
    let (authority, key, node) = (authority(), key(), principal("node/1"));
    let spki = key.spki();
    let subject = |common_name: &str| {
        let der = authority.issue(&LeafRequest { common_name, ..request(&node, &spki) }).unwrap();
        read(&der).subject().to_string()
    };
    assert_eq!(subject(&"ä".repeat(64)), format!("CN={}", "ä".repeat(64)));
    assert_eq!(subject(&"ä".repeat(65)), format!("CN={}", "ä".repeat(64)));
    assert_eq!(subject(""), "");
}

#[test]
fn an_authority_that_no_verifier_would_take_is_not_made() {
    let nameless = AuthorityParts {
        common_name: "",
        trust_domain: &domain(),
        cluster: None,
        serial: serial(),
        validity: around_now(),
    };
    assert!(matches!(Authority::create(key(), &nameless), Err(IssueError::NotAnAuthority(_))));
}
