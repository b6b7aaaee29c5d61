//! Credentials from files: which are refused, and with which words.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::*;
use countersign_core::principal::PrincipalError;
use countersign_pki::credential::{Credential, CredentialError};
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use countersign_pki::pem::certificate_pem;

#[test]
fn own_certificates_make_credentials() {
    for algorithm in [KeyAlgorithm::Ed25519, KeyAlgorithm::P256] {
        let (authority, key) = (authority(), KeyPair::generate(algorithm).unwrap());
        let leaf = certificate_pem(&leaf_for(&authority, "node/1", &key, &[]));
        let ca = certificate_pem(authority.certificate());
        let secret = key.to_pem().unwrap();
        let pem = secret.expose();
        let credential = Credential::from_pem(&format!("{leaf}{ca}"), pem).unwrap();
        assert_eq!(credential.certified_key().cert.len(), 2);
        assert_eq!(credential.spiffe_id().unwrap().path(), "/node/1");
        // Both in one file, in either order.
        let both = format!("{}{leaf}", pem);
        assert!(Credential::from_pem(&both, &both).is_ok());
        let refused = |chain: &str, key: &str| Credential::from_pem(chain, key).unwrap_err();
        assert_eq!(refused(&leaf, common::key().to_pem().unwrap().expose()), CredentialError::KeyMismatch);
        assert_eq!(refused(&format!("{leaf}{leaf}"), pem), CredentialError::Intermediate { place: 2 });
        assert_eq!(refused(&ca, authority.key().to_pem().unwrap().expose()), CredentialError::LeafIsAuthority);
        assert_eq!(refused(&ca, pem), CredentialError::KeyMismatch);
        assert_eq!(refused(pem, pem), CredentialError::NoCertificate);
        assert_eq!(refused(&leaf, &leaf), CredentialError::NoKey);
        assert_eq!(refused("", pem), CredentialError::CertificatePem);
        assert_eq!(refused(&leaf, "secret"), CredentialError::KeyPem);
        assert_eq!(
            refused(&format!("{leaf}{}", certificate_pem(&[1, 2])), pem),
            CredentialError::Malformed { place: 2 }
        );
    }
}

#[test]
fn debug_of_a_credential_shows_no_key() {
    let (authority, key) = (authority(), key());
    let leaf = certificate_pem(&leaf_for(&authority, "node/1", &key, &[]));
    let credential = Credential::from_pem(&leaf, key.to_pem().unwrap().expose()).unwrap();
    let shown = format!("{credential:?}").to_lowercase();
    let secret = data_encoding::HEXLOWER.encode(key.to_pkcs8().unwrap().expose());
    assert!(!shown.contains(secret.split_at(secret.len() - 16).1));
}

/// X.509 SVIDs as go-spiffe judges them, where its files are at hand.
#[test]
fn svids_load_as_in_go_spiffe() {
    let Some(suites) = std::env::var_os("COUNTERSIGN_SUITES") else {
        println!("skipped: COUNTERSIGN_SUITES is not set");
        return;
    };
    let folder = std::path::Path::new(&suites).join("spiffe");
    let expected: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("x509svid-expected.json")).unwrap()).unwrap();
    let read = |name: &serde_json::Value| {
        let path = folder.join("svid/x509svid/testdata").join(name.as_str().unwrap());
        String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
    };
    use CredentialError as E;
    let cases = expected["parse"].as_array().unwrap();
    for case in cases {
        let loaded =
            Credential::from_pem(&read(&case[0]), &read(&case[1])).and_then(|credential| credential.spiffe_id());
        let word = case[3].as_str().unwrap();
        match (case[2].as_bool().unwrap(), loaded) {
            (true, Ok(id)) => assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), word),
            (false, Err(error)) => {
                let matches = match word {
                    "no certificates" => error == E::NoCertificate,
                    "no private key" => error == E::NoKey,
                    "key not PEM" => error == E::KeyPem,
                    "cert not PEM" => error == E::CertificatePem,
                    "corrupt key" => matches!(error, E::Key | E::KeyPem),
                    "corrupt cert" => matches!(error, E::Malformed { .. } | E::CertificatePem),
                    "key mismatch" => error == E::KeyMismatch,
                    "no URI SAN" => {
                        matches!(
                            error,
                            E::UriNames { got: 0 } | E::SpiffeId(PrincipalError::Empty | PrincipalError::Scheme)
                        )
                    }
                    "leaf CA:true" | "keyCertSign on leaf" | "cRLSign on leaf" => error == E::LeafIsAuthority,
                    "no digitalSignature" => error == E::LeafUsage,
                    "intermediate CA:false" | "intermediate without keyCertSign" => {
                        error == E::Intermediate { place: 2 }
                    }
                    _ => false,
                };
                assert!(matches, "{case}: {error:?}");
            }
            (_, loaded) => panic!("{case}: {loaded:?}"),
        }
    }
    assert!(cases.len() >= 18);
}
