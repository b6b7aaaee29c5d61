//! Damaged and hostile bytes: an error, never a panic, and never belief.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use std::sync::LazyLock;

use common::*;
use countersign_core::key::{Endorsement, SecretKey};
use countersign_core::name::Host;
use countersign_core::secret::Secret;
use countersign_pki::authority::{Authority, LeafRequest, authority_info};
use countersign_pki::credential::Credential;
use countersign_pki::csr::{create_csr, parse_csr};
use countersign_pki::key::{KeyPair, SubjectKey};
use countersign_pki::pem::certificate_pem;
use countersign_pki::verify::{Bundle, Usage, pinned_chain, verify_chain};
use proptest::prelude::*;

struct World {
    authority: Authority,
    bundle: Bundle,
    leaf: Vec<u8>,
    csr: Vec<u8>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let (authority, leaf_key) = (authority(), key());
    let identity = SecretKey::from_seed(Secret::new([9; 32]));
    let leaf = authority
        .issue(&LeafRequest {
            principal: &principal("node/3"),
            common_name: "n1",
            hosts: &[Host::parse("n1.example.org").unwrap(), Host::parse("10.0.0.1").unwrap()],
            spki: &leaf_key.spki(),
            serial: serial(),
            validity: around_now(),
            endorsement: Some(&Endorsement::sign(&identity, CLUSTER, leaf_key.id(), 3)),
        })
        .unwrap();
    let bundle = Bundle::new([authority.certificate()]).unwrap();
    World { authority, bundle, leaf, csr: create_csr(&leaf_key).unwrap() }
});

#[derive(Debug, Clone)]
enum Damage {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Cut(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (index(), any::<u8>()).prop_map(|(at, to)| Damage::Set(at, to)),
        1 => (index(), prop::collection::vec(any::<u8>(), 1..4)).prop_map(|(at, with)| Damage::Insert(at, with)),
        1 => (index(), 1..4_usize).prop_map(|(at, count)| Damage::Remove(at, count)),
        1 => index().prop_map(Damage::Cut),
        1 => (index(), index()).prop_map(|(a, b)| Damage::Swap(a, b)),
    ]
}

fn damaged(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for damage in damages {
        if bytes.is_empty() {
            break;
        }
        match damage {
            Damage::Set(at, to) => {
                let at = at.index(bytes.len());
                bytes[at] = *to;
            }
            Damage::Insert(at, with) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, with.iter().copied());
            }
            Damage::Remove(at, count) => {
                let at = at.index(bytes.len());
                let end = (at + count).min(bytes.len());
                bytes.drain(at..end);
            }
            Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Damage::Swap(a, b) => {
                let len = bytes.len();
                bytes.swap(a.index(len), b.index(len));
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_damaged_leaf_is_never_believed(damages in prop::collection::vec(damage(), 1..4)) {
        let leaf = damaged(&WORLD.leaf, &damages);
        prop_assume!(leaf != WORLD.leaf);
        for now in [None, Some(NOW)] {
            prop_assert!(verify_chain(&WORLD.bundle, &chain(&[&leaf]), Usage::Client, now).is_err());
        }
        let pinned = pinned_chain(WORLD.authority.id(), &chain(&[&leaf, WORLD.authority.certificate()]));
        prop_assert!(pinned.is_err());
    }

    #[test]
    fn a_damaged_authority_is_never_pinned_and_issues_nothing(damages in prop::collection::vec(damage(), 1..4)) {
        let certificate = damaged(WORLD.authority.certificate(), &damages);
        prop_assume!(certificate != WORLD.authority.certificate());
        prop_assert!(pinned_chain(WORLD.authority.id(), &chain(&[&WORLD.leaf, &certificate])).is_err());
        // Reading must not panic; trusting it must be an operator's doing.
        let _ = authority_info(&certificate);
        let _ = WORLD.authority.cross_sign(&certificate, serial(), around_now());
        let _ = Bundle::new([certificate.as_slice()]);
        let _ = Authority::from_parts(certificate, key());
    }

    #[test]
    fn a_damaged_request_proves_no_other_key(damages in prop::collection::vec(damage(), 1..4)) {
        let csr = damaged(&WORLD.csr, &damages);
        prop_assume!(csr != WORLD.csr);
        prop_assert!(parse_csr(&csr).is_err());
    }

    #[test]
    fn any_bytes_and_texts_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,200}") {
        prop_assert!(parse_csr(&bytes).is_err());
        prop_assert!(SubjectKey::parse(&bytes).is_err());
        prop_assert!(Bundle::new([bytes.as_slice()]).is_err());
        prop_assert!(verify_chain(&WORLD.bundle, &chain(&[&bytes]), Usage::Server, None).is_err());
        prop_assert!(KeyPair::from_pem(&text).is_err());
        prop_assert!(Credential::from_pem(&text, &text).is_err());
        prop_assert!(Credential::from_pem(&certificate_pem(&bytes), &text).is_err());
    }
}
