//! Path search and name constraints, every combination of a small world against a plain oracle.
//!
//! Through the same door as x509-limbo's documents, so that these cases need no suite at hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use std::collections::BTreeMap;

use common::NOW;
use countersign_pki::limbo::{LimboVerdict, Verdict, evaluate};
use countersign_pki::pem::certificate_pem;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

fn ca(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn server(name: &str, names: Vec<SanType>) -> CertificateParams {
    let mut params = named(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = names;
    params
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// A signs for B's key and name.
fn sign(by: (&str, &KeyPair), params: &CertificateParams, subject: &KeyPair) -> Vec<u8> {
    let issuer = ca(by.0);
    params.signed_by(subject, &Issuer::from_params(&issuer, by.1)).unwrap().der().to_vec()
}

fn case(id: &str, roots: &[Vec<u8>], intermediates: &[Vec<u8>], leaf: &[u8], peer: (&str, &str)) -> serde_json::Value {
    let pems = |ders: &[Vec<u8>]| ders.iter().map(|der| certificate_pem(der)).collect::<Vec<_>>();
    serde_json::json!({
        "id": id,
        "validation_kind": "SERVER",
        "trusted_certs": pems(roots),
        "untrusted_intermediates": pems(intermediates),
        "peer_certificate": certificate_pem(leaf),
        "expected_peer_name": { "kind": peer.0, "value": peer.1 },
    })
}

fn judge(cases: &[serde_json::Value]) -> Vec<LimboVerdict> {
    let document = serde_json::to_vec(&serde_json::json!({ "version": 1, "testcases": cases })).unwrap();
    evaluate(&document, NOW).unwrap()
}

fn accepted(case: serde_json::Value) -> bool {
    judge(&[case])[0].verdict == Verdict::Accept
}

/// The cross-certified authorities of RFC 4158 §2.3: edges from issuer to subject.
const EDGES: [(&str, &str); 6] = [("T", "A"), ("T", "C"), ("A", "C"), ("C", "A"), ("A", "B"), ("C", "B")];

fn reachable(valid: &[(&str, &str)], from: &str, seen: &mut Vec<String>) -> bool {
    if from == "B" {
        return true;
    }
    seen.push(from.to_owned());
    valid
        .iter()
        .filter(|(source, _)| *source == from)
        .any(|(_, to)| !seen.iter().any(|name| name == to) && reachable(valid, to, seen))
}

#[test]
fn a_path_is_found_exactly_when_one_of_good_certificates_exists() {
    let keys: BTreeMap<&str, KeyPair> = ["T", "A", "B", "C"].into_iter().map(|name| (name, key())).collect();
    let root = ca("T").self_signed(&keys["T"]).unwrap().der().to_vec();
    let leaf = sign(("B", &keys["B"]), &server("leaf", vec![dns("n1.example.org")]), &key());
    type Damage = fn(&mut CertificateParams);
    let damages: [(&str, Damage); 6] = [
        ("expired", |params| params.not_after = rcgen::date_time_ymd(2000, 1, 1)),
        ("not yet valid", |params| params.not_before = rcgen::date_time_ymd(2090, 1, 1)),
        ("no authority", |params| params.is_ca = IsCa::ExplicitNoCa),
        ("may not sign", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]),
        ("other purpose", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection]),
        ("other names", |params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".to_owned())],
                excluded_subtrees: Vec::new(),
            });
        }),
    ];
    let (mut cases, mut expected) = (Vec::new(), Vec::new());
    for (reason, damage) in damages {
        for broken in 0..1_u32 << EDGES.len() {
            let edge = |(at, (by, of)): (usize, &(&str, &str))| {
                let mut params = ca(of);
                if broken & (1 << at) != 0 {
                    damage(&mut params);
                }
                sign((by, &keys[by]), &params, &keys[of])
            };
            let intermediates: Vec<Vec<u8>> = EDGES.iter().enumerate().map(edge).collect();
            let good: Vec<_> =
                EDGES.iter().enumerate().filter(|(at, _)| broken & (1 << at) == 0).map(|(_, edge)| *edge).collect();
            cases.push(case(
                &format!("{reason} {broken:06b}"),
                std::slice::from_ref(&root),
                &intermediates,
                &leaf,
                ("DNS", "n1.example.org"),
            ));
            expected.push(reachable(&good, "T", &mut Vec::new()));
        }
    }
    for (verdict, expected) in judge(&cases).iter().zip(&expected) {
        assert_eq!(verdict.verdict == Verdict::Accept, *expected, "{verdict:?}");
    }
    assert!(expected.iter().any(|accept| *accept) && expected.iter().any(|accept| !accept));
}

/// None, the name that is asked for, or another.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Given {
    Nothing,
    Asked,
    Other,
}
use Given::{Asked, Nothing, Other};

const GIVEN: [Given; 3] = [Nothing, Asked, Other];

fn subnet(address: [u8; 4]) -> GeneralSubtree {
    GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(address, 24))
}

#[test]
fn every_name_must_lie_within_what_its_authority_may_certify() {
    let (root_key, authority_key) = (key(), key());
    let root = ca("root").self_signed(&root_key).unwrap().der().to_vec();
    let subtrees = |dns: Given, ip: Given| {
        let dns = match dns {
            Nothing => None,
            Asked => Some(GeneralSubtree::DnsName("localhost".to_owned())),
            Other => Some(GeneralSubtree::DnsName("example.com".to_owned())),
        };
        let ip = match ip {
            Nothing => None,
            Asked => Some(subnet([127, 0, 0, 0])),
            Other => Some(subnet([1, 1, 1, 0])),
        };
        dns.into_iter().chain(ip).collect::<Vec<_>>()
    };
    let mut leaves = BTreeMap::new();
    for (d, dns_given) in GIVEN.into_iter().enumerate() {
        for (i, ip_given) in GIVEN.into_iter().enumerate() {
            let mut names = match dns_given {
                Nothing => Vec::new(),
                Asked => vec![dns("test.localhost")],
                Other => vec![dns("bad.example.com")],
            };
            match ip_given {
                Nothing => {}
                Asked => names.push(SanType::IpAddress([127, 0, 0, 1].into())),
                Other => names.push(SanType::IpAddress([1, 1, 1, 1].into())),
            }
            leaves.insert((d, i), sign(("authority", &authority_key), &server("leaf", names), &key()));
        }
    }
    // A name is inside if it is permitted, or nothing of its kind is, and it is not excluded.
    let inside = |name: Given, permitted: Given, excluded: Given| {
        name == Nothing || ((permitted == Nothing || permitted == name) && excluded != name)
    };
    let (mut cases, mut expected) = (Vec::new(), Vec::new());
    for permitted in GIVEN.into_iter().flat_map(|d| GIVEN.map(|i| (d, i))) {
        for excluded in GIVEN.into_iter().flat_map(|d| GIVEN.map(|i| (d, i))) {
            let mut params = ca("authority");
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: subtrees(permitted.0, permitted.1),
                excluded_subtrees: subtrees(excluded.0, excluded.1),
            });
            let authority = sign(("root", &root_key), &params, &authority_key);
            for ((d, i), leaf) in &leaves {
                for (kind, value, asked) in [("DNS", "test.localhost", GIVEN[*d]), ("IP", "127.0.0.1", GIVEN[*i])] {
                    let id = format!("{kind} {:?} {permitted:?} {excluded:?}", (GIVEN[*d], GIVEN[*i]));
                    cases.push(case(
                        &id,
                        std::slice::from_ref(&root),
                        std::slice::from_ref(&authority),
                        leaf,
                        (kind, value),
                    ));
                    expected.push(
                        asked == Asked
                            && inside(GIVEN[*d], permitted.0, excluded.0)
                            && inside(GIVEN[*i], permitted.1, excluded.1),
                    );
                }
            }
        }
    }
    for (verdict, expected) in judge(&cases).iter().zip(&expected) {
        assert_eq!(verdict.verdict == Verdict::Accept, *expected, "{verdict:?}");
    }
    assert!(expected.iter().filter(|accept| **accept).count() > 100);
}

#[test]
fn a_common_name_does_not_stand_in_for_a_name_and_is_not_constrained_as_one() {
    let root_key = key();
    let mut params = ca("root");
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("localhost".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let root = params.self_signed(&root_key).unwrap().der().to_vec();
    for (common_name, names, accept) in [
        ("bad.example.com", vec![dns("test.localhost")], true),
        ("1.1.1.1", vec![dns("test.localhost")], true),
        ("test.localhost", vec![], false),
        ("test.localhost", vec![dns("bad.example.com")], false),
    ] {
        let leaf = sign(("root", &root_key), &server(common_name, names), &key());
        let verdict = accepted(case("cn", std::slice::from_ref(&root), &[], &leaf, ("DNS", "test.localhost")));
        assert_eq!(verdict, accept, "{common_name}");
    }
}

#[test]
fn a_ring_of_authorities_is_given_up_promptly() {
    // Every authority certifies every other one, and none is trusted.
    let keys: Vec<KeyPair> = (0..12).map(|_| key()).collect();
    let name = |n: usize| format!("authority {n}");
    let mut ring = Vec::new();
    for (i, by) in keys.iter().enumerate() {
        for (j, of) in keys.iter().enumerate().filter(|(j, _)| i != *j) {
            ring.push(sign((&name(i), by), &ca(&name(j)), of));
        }
    }
    let root = ca("root").self_signed(&key()).unwrap().der().to_vec();
    let leaf = sign((&name(0), &keys[0]), &server("leaf", vec![dns("n1.example.org")]), &key());
    let verdicts = judge(&[case("ring", &[root], &ring, &leaf, ("DNS", "n1.example.org"))]);
    assert_eq!(verdicts[0].verdict, Verdict::Reject);
    assert!(verdicts[0].reason.contains("too entangled"), "{}", verdicts[0].reason);
}

#[test]
fn authorities_that_certify_each_other_do_not_hide_the_one_way_out() {
    // Walking in circles would use up the search before the last certificate, the only one of a trusted authority.
    let root_key = key();
    let root = ca("root").self_signed(&root_key).unwrap().der().to_vec();
    let keys: Vec<KeyPair> = (0..4).map(|_| key()).collect();
    let name = |n: usize| format!("authority {n}");
    let mut pool = Vec::new();
    for (i, by) in keys.iter().enumerate() {
        for (j, of) in keys.iter().enumerate().filter(|(j, _)| i != *j) {
            pool.push(sign((&name(i), by), &ca(&name(j)), of));
        }
    }
    let leaf = sign((&name(0), &keys[0]), &server("leaf", vec![dns("n1.example.org")]), &key());
    assert!(!accepted(case("circle", std::slice::from_ref(&root), &pool, &leaf, HOST)));
    let mut out = ca(&name(3));
    out.is_ca = IsCa::Ca(BasicConstraints::Constrained(2));
    pool.push(sign(("root", &root_key), &out, &keys[3]));
    assert!(accepted(case("way out", &[root], &pool, &leaf, HOST)));
}

#[test]
fn a_crowd_of_candidates_is_given_up_promptly() {
    let (root_key, real) = (key(), key());
    let root = ca("root").self_signed(&root_key).unwrap().der().to_vec();
    let leaf = sign(("authority", &real), &server("leaf", vec![dns("n1.example.org")]), &key());
    let decoy = sign(("root", &root_key), &ca("authority"), &key());
    for (decoys, accept) in [(1000, true), (5000, false)] {
        let mut pool = vec![decoy.clone(); decoys];
        pool.push(sign(("root", &root_key), &ca("authority"), &real));
        assert_eq!(accepted(case("crowd", std::slice::from_ref(&root), &pool, &leaf, HOST)), accept, "{decoys}");
    }
}

#[test]
fn weak_or_strange_keys_and_signatures_are_refused() {
    for (algorithm, accept) in [
        (&rcgen::PKCS_ED25519, true),
        (&rcgen::PKCS_ECDSA_P256_SHA256, true),
        (&rcgen::PKCS_ECDSA_P384_SHA384, true),
        (&rcgen::PKCS_RSA_SHA256, true),
        (&rcgen::PKCS_RSA_SHA512, true),
        (&rcgen::PKCS_ECDSA_P521_SHA512, false),
    ] {
        let strange = KeyPair::generate_for(algorithm).unwrap();
        let root = ca("root").self_signed(&strange).unwrap().der().to_vec();
        let leaf = sign(("root", &strange), &server("leaf", vec![dns("n1.example.org")]), &key());
        assert_eq!(accepted(case("root", &[root], &[], &leaf, ("DNS", "n1.example.org"))), accept, "{algorithm:?}");
        let plain = key();
        let root = ca("root").self_signed(&plain).unwrap().der().to_vec();
        let leaf = sign(("root", &plain), &server("leaf", vec![dns("n1.example.org")]), &strange);
        assert_eq!(accepted(case("leaf", &[root], &[], &leaf, ("DNS", "n1.example.org"))), accept, "{algorithm:?}");
    }
}

const HOST: (&str, &str) = ("DNS", "n1.example.org");

/// One trusted authority with `change`, one leaf with `damage`, no other certificate.
fn two(change: impl FnOnce(&mut CertificateParams), damage: impl FnOnce(&mut CertificateParams)) -> LimboVerdict {
    let root_key = key();
    let mut root = ca("root");
    change(&mut root);
    let certificate = root.self_signed(&root_key).unwrap().der().to_vec();
    let mut params = server("leaf", vec![dns("n1.example.org")]);
    damage(&mut params);
    let leaf = params.signed_by(&key(), &Issuer::from_params(&root, &root_key)).unwrap().der().to_vec();
    judge(&[case("two", &[certificate], &[], &leaf, HOST)]).remove(0)
}

#[test]
fn a_leaf_that_breaks_one_rule_is_refused() {
    type Damage = fn(&mut CertificateParams);
    let custom = |oid: &[u64], critical: bool, content: &[u8]| {
        let mut extension = rcgen::CustomExtension::from_oid_content(oid, content.to_vec());
        extension.set_criticality(critical);
        extension
    };
    assert_eq!(two(|_| {}, |_| {}).verdict, Verdict::Accept);
    let unknown = [custom(&[1, 3, 6, 1, 4, 1, 55_738, 1], true, &[5, 0])];
    assert_eq!(two(|_| {}, |leaf| leaf.custom_extensions = unknown.to_vec()).verdict, Verdict::Reject);
    let harmless = [custom(&[1, 3, 6, 1, 4, 1, 55_738, 1], false, &[5, 0])];
    assert_eq!(two(|_| {}, |leaf| leaf.custom_extensions = harmless.to_vec()).verdict, Verdict::Accept);
    for oid in [&[2, 5, 29, 14][..], &[1, 3, 6, 1, 5, 5, 7, 1, 1]] {
        // A key identifier, and the place of the issuer's certificate: never critical.
        let content: &[u8] = match oid {
            [2, ..] => &[4, 1, 7],
            _ => &[0x30, 0x0f, 0x30, 0x0d, 6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 2, 0x86, 1, b'x'],
        };
        for critical in [true, false] {
            let verdict = two(|_| {}, |leaf| leaf.custom_extensions = vec![custom(oid, critical, content)]);
            assert_eq!(verdict.verdict == Verdict::Reject, critical, "{oid:?} {verdict:?}");
        }
    }
    let damages: [(&str, Damage); 14] = [
        ("no key identifier of the issuer", |leaf| leaf.use_authority_key_identifier_extension = false),
        ("an authority", |leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        ("may sign certificates", |leaf| leaf.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        ("may sign revocations", |leaf| leaf.key_usages.push(KeyUsagePurpose::CrlSign)),
        ("may not sign", |leaf| leaf.key_usages = vec![KeyUsagePurpose::KeyEncipherment]),
        ("no purpose", |leaf| leaf.extended_key_usages.clear()),
        ("any purpose", |leaf| leaf.extended_key_usages.push(ExtendedKeyUsagePurpose::Any)),
        ("client only", |leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        ("long serial", |leaf| leaf.serial_number = Some(vec![1; 21].into())),
        ("zero serial", |leaf| leaf.serial_number = Some(vec![0].into())),
        ("underscore", |leaf| leaf.subject_alt_names.push(dns("n_1.example.org"))),
        ("address as a name", |leaf| leaf.subject_alt_names.push(dns("8.8.8.8"))),
        ("wildcard of a top-level domain", |leaf| leaf.subject_alt_names.push(dns("*.org"))),
        ("constrains names", |leaf| {
            let extension = &[0x30, 0x09, 0xa0, 0x07, 0x30, 0x05, 0x82, 0x03, b'o', b'r', b'g'];
            leaf.custom_extensions =
                vec![rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 30], extension.to_vec())];
        }),
    ];
    for (what, damage) in damages {
        assert_eq!(two(|_| {}, damage).verdict, Verdict::Reject, "{what}");
    }
}

#[test]
fn a_trusted_authority_that_breaks_one_rule_is_refused() {
    type Damage = fn(&mut CertificateParams);
    let damages: [(&str, Damage); 5] = [
        ("expired", |root| root.not_after = rcgen::date_time_ymd(2000, 1, 1)),
        ("no authority", |root| root.is_ca = IsCa::ExplicitNoCa),
        ("may not sign certificates", |root| root.key_usages = vec![KeyUsagePurpose::CrlSign]),
        ("unspecified usage", |root| root.key_usages.clear()),
        ("made for a purpose", |root| root.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
    ];
    for (what, damage) in damages {
        assert_eq!(two(damage, |_| {}).verdict, Verdict::Reject, "{what}");
    }
    // A self-signed certificate need not name its own key.
    assert_eq!(two(|root| root.use_authority_key_identifier_extension = false, |_| {}).verdict, Verdict::Accept);
    // But one that another authority signed must name that one's.
    let (above, own) = (key(), key());
    for (named_key, accept) in [(true, true), (false, false)] {
        let mut params = ca("root");
        params.use_authority_key_identifier_extension = named_key;
        let root = sign(("above", &above), &params, &own);
        let leaf = sign(("root", &own), &server("leaf", vec![dns("n1.example.org")]), &key());
        assert_eq!(accepted(case("cross", &[root], &[], &leaf, HOST)), accept);
    }
}

#[test]
fn a_certificate_that_names_another_key_than_its_issuers_is_refused() {
    let root_key = key();
    let root = ca("root").self_signed(&root_key).unwrap().der().to_vec();
    let mut issuer = ca("root");
    issuer.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![1; 20]);
    let params = server("leaf", vec![dns("n1.example.org")]);
    let leaf = params.signed_by(&key(), &Issuer::from_params(&issuer, &root_key)).unwrap().der().to_vec();
    let verdict = &judge(&[case("aki", &[root], &[], &leaf, HOST)])[0];
    assert!(verdict.verdict == Verdict::Reject && verdict.reason.contains("key identifier"), "{verdict:?}");
}

#[test]
fn authorities_that_share_a_name_and_key_identifier_cost_a_bounded_number_of_signatures() {
    let same = |name: &str| {
        let mut params = ca(name);
        params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![7; 20]);
        params
    };
    let (root_key, real) = (key(), key());
    let root = ca("root").self_signed(&root_key).unwrap().der().to_vec();
    let under_root = |of: &KeyPair| sign(("root", &root_key), &same("authority"), of);
    let leaf = server("leaf", vec![dns("n1.example.org")])
        .signed_by(&key(), &Issuer::from_params(&same("authority"), &real))
        .unwrap()
        .der()
        .to_vec();
    for (decoys, accept) in [(0, true), (20, true), (150, false)] {
        let mut intermediates: Vec<Vec<u8>> = (0..decoys).map(|_| under_root(&key())).collect();
        intermediates.push(under_root(&real));
        let verdict = &judge(&[case("decoys", std::slice::from_ref(&root), &intermediates, &leaf, HOST)])[0];
        assert_eq!(verdict.verdict == Verdict::Accept, accept, "{decoys} {verdict:?}");
        assert_eq!(verdict.reason.contains("too entangled"), !accept, "{verdict:?}");
    }
}

#[test]
fn constraints_hold_for_a_leaf_of_its_issuers_own_name_but_not_for_such_an_authority() {
    // RFC 5280 §4.2.1.10: names of self-issued certificates are exempt, unless it is the last one.
    let (root_key, next_key) = (key(), key());
    let mut root_params = ca("same");
    root_params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("example.org".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let root = root_params.self_signed(&root_key).unwrap().der().to_vec();
    let leaf = |names: &[&str]| server("same", names.iter().map(|name| dns(name)).collect());
    for (names, accept) in [(&["n1.example.org"][..], true), (&["n1.example.org", "example.com"], false)] {
        let leaf = sign(("same", &root_key), &leaf(names), &key());
        assert_eq!(accepted(case("leaf", std::slice::from_ref(&root), &[], &leaf, HOST)), accept, "{names:?}");
    }
    let mut next = ca("same");
    next.subject_alt_names = vec![dns("example.com")];
    let next = sign(("same", &root_key), &next, &next_key);
    let leaf = sign(("same", &next_key), &server("leaf", vec![dns("n1.example.org")]), &key());
    assert!(accepted(case("authority", &[root], &[next], &leaf, HOST)));
}

#[test]
fn directory_names_are_constrained_in_the_subject_too() {
    let organization = |name: &str| {
        let mut names = DistinguishedName::new();
        names.push(DnType::OrganizationName, name);
        names
    };
    for (permitted, excluded, subject, accept) in [
        (Some("Example"), None, "Example", true),
        (Some("Example"), None, "Other", false),
        (None, Some("Example"), "Example", false),
        (None, Some("Example"), "Other", true),
    ] {
        let constrain = |root: &mut CertificateParams| {
            let subtree = |name: Option<&str>| name.map(|name| GeneralSubtree::DirectoryName(organization(name)));
            root.name_constraints = Some(NameConstraints {
                permitted_subtrees: subtree(permitted).into_iter().collect(),
                excluded_subtrees: subtree(excluded).into_iter().collect(),
            });
        };
        let verdict = two(constrain, |leaf| leaf.distinguished_name = organization(subject));
        assert_eq!(verdict.verdict == Verdict::Accept, accept, "{permitted:?} {excluded:?} {subject}");
    }
    // Without a subject there is nothing to constrain, and the names are critical.
    let constrain = |root: &mut CertificateParams| {
        root.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DirectoryName(organization("Example"))],
            excluded_subtrees: Vec::new(),
        });
    };
    assert_eq!(two(constrain, |leaf| leaf.distinguished_name = DistinguishedName::new()).verdict, Verdict::Accept);
}
