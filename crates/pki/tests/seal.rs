//! A sealed secret opens for one key, one purpose and one place, and for nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::*;
use countersign_core::id::{ClusterId, NodeId};
use countersign_core::secret::{Secret, SecretBytes};
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use countersign_pki::seal::{SealError, SealingKey, open_authority, seal, seal_authority};
use proptest::prelude::*;

fn secret() -> SecretBytes {
    SecretBytes::new(b"the secret".to_vec())
}

#[test]
fn what_is_sealed_opens_with_key_purpose_and_place() {
    let key = SealingKey::generate().unwrap();
    let sealed = seal(&key.public(), b"info", b"aad", &secret()).unwrap();
    assert!(key.open(b"info", b"aad", &sealed).unwrap().ct_eq(&secret()));
    let again = SealingKey::from_bytes(Secret::new(*key.bytes().expose())).unwrap();
    assert_eq!(again.public(), key.public());
    assert!(again.open(b"info", b"aad", &sealed).unwrap().ct_eq(&secret()));
    // Sealing is randomized: equal secrets do not show as equal.
    assert_ne!(sealed, seal(&key.public(), b"info", b"aad", &secret()).unwrap());
    assert!(!sealed.windows(6).any(|window| window == b"secret"));
}

#[test]
fn another_key_purpose_place_or_byte_does_not_open() {
    let (key, other) = (SealingKey::generate().unwrap(), SealingKey::generate().unwrap());
    let sealed = seal(&key.public(), b"info", b"aad", &secret()).unwrap();
    assert!(matches!(other.open(b"info", b"aad", &sealed), Err(SealError::Open)));
    assert!(matches!(key.open(b"inf", b"oaad", &sealed), Err(SealError::Open)));
    assert!(matches!(key.open(b"info", b"", &sealed), Err(SealError::Open)));
    assert!(matches!(key.open(b"", b"aad", &sealed), Err(SealError::Open)));
    for at in 0..sealed.len() {
        assert!(key.open(b"info", b"aad", &sealed[..at]).is_err(), "cut at {at}");
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(key.open(b"info", b"aad", &changed).is_err(), "changed at {at}");
    }
    assert!(matches!(key.open(b"info", b"aad", &[]), Err(SealError::Malformed)));
    assert!(matches!(key.open(b"info", b"aad", &[2; 100]), Err(SealError::Malformed)));
}

#[test]
fn a_public_key_of_small_order_is_refused() {
    for public in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        assert!(matches!(seal(&public, b"", b"", &secret()), Err(SealError::Public)));
    }
}

#[test]
fn a_sealed_authority_opens_in_its_place_only() {
    for algorithm in [KeyAlgorithm::Ed25519, KeyAlgorithm::P256] {
        let authority = authority_with(KeyPair::generate(algorithm).unwrap(), around_now());
        let (key, node) = (SealingKey::generate().unwrap(), NodeId(3));
        let sealed = seal_authority(&authority, CLUSTER, node, &key.public()).unwrap();
        let certificate = authority.certificate();
        let opened = open_authority(&key, CLUSTER, node, certificate, &sealed).unwrap();
        assert_eq!((opened.id(), opened.key().id()), (authority.id(), authority.key().id()));
        let elsewhere = common::authority();
        for refused in [
            open_authority(&key, ClusterId([8; 16]), node, certificate, &sealed),
            open_authority(&key, CLUSTER, NodeId(4), certificate, &sealed),
            open_authority(&key, CLUSTER, node, elsewhere.certificate(), &sealed),
            open_authority(&SealingKey::generate().unwrap(), CLUSTER, node, certificate, &sealed),
        ] {
            assert!(matches!(refused, Err(SealError::Open)));
        }
    }
}

#[test]
fn debug_shows_nothing_of_the_secret() {
    let key = SealingKey::from_bytes(Secret::new([0xab; 32])).unwrap();
    let shown = format!("{key:?}");
    assert!(!shown.contains("171, 171") && !shown.to_lowercase().contains("abab"), "{shown}");
}

proptest! {
    #[test]
    fn any_bytes_open_to_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let key = SealingKey::from_bytes(Secret::new([7; 32])).unwrap();
        prop_assert!(key.open(b"info", b"aad", &bytes).is_err());
    }
}
