//! Authorities and leaves for the tests: fixed times, counted serials.
#![allow(dead_code, reason = "each test crate uses a part")]

use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::id::ClusterId;
use countersign_core::name::Host;
use countersign_core::principal::{Principal, TrustDomain};
use countersign_core::time::{UnixMillis, Validity};
use countersign_pki::authority::{Authority, AuthorityParts, LeafRequest};
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use rustls_pki_types::CertificateDer;

pub(crate) const NOW: UnixMillis = UnixMillis::from_secs(1_900_000_000);
pub(crate) const CLUSTER: ClusterId = ClusterId([7; 16]);

pub(crate) fn around_now() -> Validity {
    Validity { not_before: NOW.minus_secs(60), not_after: NOW.plus_secs(86_400) }
}

pub(crate) fn serial() -> [u8; 16] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut serial = [0x5a; 16];
    serial[8..].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    serial
}

pub(crate) fn key() -> KeyPair {
    KeyPair::generate(KeyAlgorithm::Ed25519).unwrap()
}

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("td.internal").unwrap()
}

pub(crate) fn authority() -> Authority {
    authority_with(key(), around_now())
}

pub(crate) fn authority_with(key: KeyPair, validity: Validity) -> Authority {
    let serial = serial();
    // Each by a name of its own: a certificate issued to its issuer's name would not count towards path lengths.
    let name = format!("authority {}", serial[15]);
    let parts =
        AuthorityParts { common_name: &name, trust_domain: &domain(), cluster: Some(CLUSTER), serial, validity };
    Authority::create(key, &parts).unwrap()
}

pub(crate) fn principal(role: &str) -> Principal {
    Principal::parse(&format!("spiffe://td.internal/{role}")).unwrap()
}

pub(crate) fn leaf_for(authority: &Authority, role: &str, key: &KeyPair, hosts: &[Host]) -> Vec<u8> {
    let request = LeafRequest {
        principal: &principal(role),
        common_name: role,
        hosts,
        spki: &key.spki(),
        serial: serial(),
        validity: around_now(),
        endorsement: None,
    };
    authority.issue(&request).unwrap()
}

pub(crate) fn leaf(authority: &Authority, role: &str) -> Vec<u8> {
    leaf_for(authority, role, &key(), &[])
}

pub(crate) fn chain<'a>(ders: &[&'a [u8]]) -> Vec<CertificateDer<'a>> {
    ders.iter().map(|der| CertificateDer::from(*der)).collect()
}
