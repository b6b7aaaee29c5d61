//! What a presented chain is believed, and what attacks on it are not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::*;
use countersign_core::id::{AuthorityId, KeyId};
use countersign_core::key::{Endorsement, SecretKey};
use countersign_core::limits::CHAIN_LEN_MAX;
use countersign_core::name::Host;
use countersign_core::secret::Secret;
use countersign_core::time::Validity;
use countersign_pki::authority::{Authority, LeafRequest};
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use countersign_pki::verify::{
    Bundle, BundleError, ChainError, PathError, ProfileError, Usage, pinned_chain, verify_chain,
};
use rustls_pki_types::CertificateDer;

fn bundle(authorities: &[&Authority]) -> Bundle {
    Bundle::new(authorities.iter().map(|a| a.certificate())).unwrap()
}

fn verify(trusted: &[&Authority], presented: &[&[u8]], usage: Usage) -> Result<Vec<Host>, ChainError> {
    verify_chain(&bundle(trusted), &chain(presented), usage, Some(NOW)).map(|verified| verified.hosts().to_vec())
}

#[test]
fn a_node_is_believed_with_all_that_its_certificate_says() {
    for algorithm in [KeyAlgorithm::Ed25519, KeyAlgorithm::P256] {
        let authority = authority_with(KeyPair::generate(algorithm).unwrap(), around_now());
        let (leaf_key, identity) = (key(), SecretKey::from_seed(Secret::new([9; 32])));
        let endorsement = Endorsement::sign(&identity, CLUSTER, leaf_key.id(), 3);
        let hosts =
            [Host::parse("n1.example.org").unwrap(), Host::parse("10.0.0.1").unwrap(), Host::parse("::1").unwrap()];
        let request = LeafRequest {
            principal: &principal("node/3"),
            common_name: "n1",
            hosts: &hosts,
            spki: &leaf_key.spki(),
            serial: serial(),
            validity: around_now(),
            endorsement: Some(&endorsement),
        };
        let leaf = authority.issue(&request).unwrap();
        for usage in [Usage::Server, Usage::Client] {
            let verified = verify_chain(&bundle(&[&authority]), &chain(&[&leaf]), usage, Some(NOW)).unwrap();
            let parts = verified.claims();
            assert_eq!(parts.principal, principal("node/3"));
            assert_eq!((parts.key, parts.authority), (leaf_key.id(), authority.id()));
            assert_eq!((parts.cluster, parts.validity), (Some(CLUSTER), around_now()));
            assert_eq!(parts.endorsement.as_ref(), Some(&endorsement));
            assert_eq!(endorsement.verify(CLUSTER, parts.key), Ok(()));
            assert_eq!((verified.hosts(), verified.leaf_spki()), (&hosts[..], &leaf_key.spki()[..]));
            assert_eq!(KeyId::of_spki(verified.leaf_spki()), parts.key);
        }
    }
}

#[test]
fn each_kind_of_principal_is_believed_in_its_part_only() {
    let authority = authority();
    for (role, server, client) in [
        ("node/1", true, true),
        ("broker/b1.example.org", true, true),
        ("client/pay", false, true),
        ("admin/root", false, true),
    ] {
        let leaf = leaf(&authority, role);
        assert_eq!(verify(&[&authority], &[&leaf], Usage::Server).is_ok(), server, "{role}");
        assert_eq!(verify(&[&authority], &[&leaf], Usage::Client).is_ok(), client, "{role}");
    }
}

#[test]
fn attackers_leaf_plus_the_real_public_authority_appended_is_refused() {
    let (real, attackers) = (authority(), authority());
    let forged = leaf(&attackers, "node/1");
    for presented in [
        &[forged.as_slice()][..],
        &[&forged, real.certificate()],
        &[&forged, attackers.certificate()],
        &[&forged, attackers.certificate(), real.certificate()],
        &[&forged, real.certificate(), attackers.certificate()],
    ] {
        assert!(matches!(verify(&[&real], presented, Usage::Server), Err(ChainError::Path(_))));
    }
}

/// An authority that copies all that is public of `real`: name, names and key identifier. Only the key differs.
fn impostor(real: &Authority) -> (Vec<u8>, Vec<u8>) {
    use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};
    let (_, read) = X509Certificate::from_der(real.certificate()).unwrap();
    let key_id = read.iter_extensions().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = read.subject().iter_common_name().next().unwrap().as_str().unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(1));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(key_id.unwrap());
    params.use_authority_key_identifier_extension = true;
    let key = key();
    let certificate = params.self_signed(&key).unwrap().der().to_vec();
    let forger = Authority::from_parts(certificate.clone(), key).unwrap();
    (leaf(&forger, "node/1"), certificate)
}

#[test]
fn a_leaf_forged_under_a_copy_of_the_authority_is_refused_for_its_signature() {
    let real = authority();
    let (forged, copy) = impostor(&real);
    let refused = Err(ChainError::Path(PathError::Signature));
    for presented in [&[forged.as_slice()][..], &[&forged, &copy], &[&forged, &copy, real.certificate()]] {
        assert_eq!(verify(&[&real], presented, Usage::Server), refused);
        let pinned = [presented, &[real.certificate()]].concat();
        assert!(pinned_chain(real.id(), &chain(&pinned)).is_err());
    }
}

#[test]
fn pinned_authority_appended_to_a_foreign_leaf_is_refused() {
    let (real, attackers) = (authority(), authority());
    let (good, forged) = (leaf(&real, "node/1"), leaf(&attackers, "node/1"));
    let (bundle, verified) = pinned_chain(real.id(), &chain(&[&good, real.certificate()])).unwrap();
    assert_eq!(bundle.ids().collect::<Vec<_>>(), [real.id()]);
    assert_eq!(verified.claims().authority, real.id());
    for presented in
        [&[forged.as_slice(), real.certificate()][..], &[&forged, attackers.certificate(), real.certificate()]]
    {
        assert!(matches!(pinned_chain(real.id(), &chain(presented)), Err(ChainError::Path(_))));
    }
    assert_eq!(pinned_chain(real.id(), &chain(&[&good])).unwrap_err(), ChainError::PinNotInChain);
    assert_eq!(
        pinned_chain(AuthorityId([0; 32]), &chain(&[&good, real.certificate()])).unwrap_err(),
        ChainError::PinNotInChain
    );
}

#[test]
fn a_pin_accepts_a_node_only_and_never_a_leaf_as_its_own_authority() {
    let authority = authority();
    for role in ["broker/b1", "client/pay", "admin/root"] {
        let leaf = leaf(&authority, role);
        assert!(pinned_chain(authority.id(), &chain(&[&leaf, authority.certificate()])).is_err(), "{role}");
    }
    let leaf = leaf(&authority, "node/1");
    assert!(matches!(pinned_chain(AuthorityId::of_certificate(&leaf), &chain(&[&leaf])), Err(ChainError::Bundle(_))));
}

#[test]
fn a_joiner_with_a_wrong_clock_verifies_but_learns_the_validity() {
    let long_ago = Validity { not_before: NOW.minus_secs(900_000), not_after: NOW.minus_secs(800_000) };
    let authority = authority_with(key(), long_ago);
    let leaf = leaf(&authority, "node/1"); // valid around now, its authority no longer
    let presented = chain(&[&leaf, authority.certificate()]);
    let (bundle, verified) = pinned_chain(authority.id(), &presented).unwrap();
    assert_eq!(verified.claims().validity, around_now().intersect(&long_ago));
    assert_eq!(
        verify_chain(&bundle, &presented, Usage::Server, Some(NOW)).unwrap_err(),
        ChainError::Path(PathError::Expired)
    );
}

#[test]
fn validity_is_inclusive_to_the_second() {
    let authority = authority();
    let leaf = leaf(&authority, "node/1");
    let Validity { not_before, not_after } = around_now();
    for (now, expected) in [
        (not_before.minus_secs(1), Err(ChainError::Path(PathError::NotYetValid))),
        (not_before, Ok(())),
        (not_after, Ok(())),
        (not_after.plus_secs(1), Err(ChainError::Path(PathError::Expired))),
    ] {
        let verdict = verify_chain(&bundle(&[&authority]), &chain(&[&leaf]), Usage::Server, Some(now)).map(|_| ());
        assert_eq!(verdict, expected);
    }
}

#[test]
fn a_leaf_as_issuer_is_refused() {
    // A node that signs with its leaf key, as CVE-2002-0862 let everybody do.
    let authority = authority();
    let node_key = key();
    let node = leaf_for(&authority, "node/1", &node_key, &[]);
    assert!(Authority::from_parts(node.clone(), node_key).is_err());
    let rogue = authority_with(key(), around_now());
    let forged = leaf(&rogue, "node/2");
    assert!(verify(&[&authority], &[&forged, &node], Usage::Server).is_err());
}

#[test]
fn the_cross_signed_authority_leads_to_both() {
    let (old, new) = (authority(), authority());
    let crossed = old.cross_sign(new.certificate(), serial(), around_now()).unwrap();
    let leaf = leaf(&new, "node/1");
    let presented: &[&[u8]] = &[&leaf, &crossed];
    let under = |trusted: &[&Authority]| {
        let verified = verify_chain(&bundle(trusted), &chain(presented), Usage::Server, Some(NOW)).unwrap();
        verified.claims().authority
    };
    assert_eq!(under(&[&old]), old.id());
    assert_eq!(under(&[&new]), new.id());
    assert_eq!(under(&[&old, &new]), new.id());
    assert!(verify(&[&old], &[&leaf], Usage::Server).is_err());
    // A cross-signed authority allows no further one below it, whatever stands above.
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, read) = X509Certificate::from_der(&crossed).unwrap();
    assert_eq!(read.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
    let third = authority();
    let twice =
        Authority::from_parts(crossed.clone(), KeyPair::from_pkcs8_der(&new.key().to_pkcs8().unwrap()).unwrap())
            .unwrap();
    let below = twice.cross_sign(third.certificate(), serial(), around_now()).unwrap();
    let deep = common::leaf(&third, "node/1");
    assert_eq!(
        verify(&[&old], &[&deep, &below, &crossed], Usage::Server),
        Err(ChainError::Path(PathError::PathLength))
    );
}

#[test]
fn a_chain_has_one_to_six_certificates_within_their_size() {
    let authority = authority();
    let leaf = leaf(&authority, "node/1");
    let padded = |n: usize| {
        let mut presented: Vec<&[u8]> = vec![&leaf];
        presented.resize(n, authority.certificate());
        presented
    };
    assert!(verify(&[&authority], &padded(CHAIN_LEN_MAX), Usage::Server).is_ok());
    assert_eq!(verify(&[&authority], &padded(CHAIN_LEN_MAX + 1), Usage::Server), Err(ChainError::Length { got: 7 }));
    assert_eq!(verify(&[&authority], &[], Usage::Server), Err(ChainError::Length { got: 0 }));
    let large = vec![0x30; 8 * 1024 + 1];
    assert_eq!(verify(&[&authority], &[&leaf, &large], Usage::Server), Err(ChainError::TooLong { got: 8193 }));
    let full = vec![0x30; 8 * 1024];
    assert!(matches!(verify(&[&authority], &[&leaf, &full], Usage::Server), Err(ChainError::Malformed(_))));
}

#[test]
fn an_empty_bundle_trusts_no_certificate() {
    let authority = authority();
    let leaf = leaf(&authority, "node/1");
    let refused = verify(&[], &[&leaf, authority.certificate()], Usage::Server);
    assert_eq!(refused, Err(ChainError::Path(PathError::UnknownIssuer)));
}

#[test]
fn a_bundle_trusts_up_to_eight_authorities() {
    let authorities: Vec<Authority> = (0..9).map(|_| authority()).collect();
    let bundle = |count: usize| Bundle::new(authorities.iter().take(count).map(|a| a.certificate()));
    assert_eq!(bundle(8).unwrap().ids().count(), 8);
    assert_eq!(bundle(9).unwrap_err(), BundleError::TooMany { got: 9 });
    let twice = authorities[0].certificate();
    assert_eq!(Bundle::new([twice, twice]).unwrap().ids().count(), 1);
    assert_eq!(Bundle::new([&[0x30; 8193][..]]).unwrap_err(), BundleError::TooLong { got: 8193 });
    assert!(matches!(Bundle::new([&[0x30; 8192][..]]), Err(BundleError::Malformed(_))));
}

#[test]
fn a_leaf_may_not_be_trusted_as_an_authority() {
    let authority = authority();
    let leaf = leaf(&authority, "node/1");
    assert_eq!(Bundle::new([leaf.as_slice()]).unwrap_err(), BundleError::Profile(ProfileError::BasicConstraints));
}

#[test]
fn what_is_believed_here_rustls_webpki_believes_too() {
    let anchored = |authority: &[u8], leaf: &[u8], intermediates: &[&[u8]]| {
        let der = CertificateDer::from(authority);
        let anchor = webpki::anchor_from_trusted_cert(&der).unwrap().to_owned();
        let leaf = CertificateDer::from(leaf);
        webpki::EndEntityCert::try_from(&leaf)
            .unwrap()
            .verify_for_usage(
                &[webpki::aws_lc_rs::ED25519, webpki::aws_lc_rs::ECDSA_P256_SHA256],
                &[anchor],
                &chain(intermediates),
                rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW.secs())),
                webpki::KeyUsage::client_auth(),
                None,
                None,
            )
            .map(|_| ())
    };
    for algorithm in [KeyAlgorithm::Ed25519, KeyAlgorithm::P256] {
        let old = authority_with(KeyPair::generate(algorithm).unwrap(), around_now());
        let new = authority_with(KeyPair::generate(algorithm).unwrap(), around_now());
        let crossed = old.cross_sign(new.certificate(), serial(), around_now()).unwrap();
        for role in ["node/1", "broker/b1", "client/pay", "admin/root"] {
            let leaf = leaf(&new, role);
            assert!(verify(&[&new], &[&leaf], Usage::Client).is_ok());
            anchored(new.certificate(), &leaf, &[]).unwrap();
            assert!(verify(&[&old], &[&leaf, &crossed], Usage::Client).is_ok());
            anchored(old.certificate(), &leaf, &[&crossed]).unwrap();
        }
    }
}
