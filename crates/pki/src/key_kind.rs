//! The kind of key in a certificate, and which clients do not know it.
//!
//! Says nothing about whether a certificate is good: [`crate::verify`] does.

use core::fmt;

use crate::certificate::Certificate;
use crate::key::KeyAlgorithm;
use crate::profile::{ED25519, P256, P384, RSA};

/// A kind of public key that certificates may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384. Only certificates made elsewhere hold one.
    P384,
    /// Ed25519.
    Ed25519,
    /// RSA. Only certificates made elsewhere hold one.
    Rsa,
}

impl KeyKind {
    /// The kind of key in a certificate, DER; none if the certificate cannot be read or its key is of another kind.
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        match Certificate::parse(der).ok()?.key_algorithm.as_slice() {
            P256 => Some(Self::P256),
            P384 => Some(Self::P384),
            ED25519 => Some(Self::Ed25519),
            RSA => Some(Self::Rsa),
            _ => None,
        }
    }

    /// The clients that cannot verify a signature by such a key, if there are any.
    pub const fn clients_shut_out(self) -> Option<&'static str> {
        match self {
            Self::P256 | Self::P384 => None,
            Self::Ed25519 => Some("browsers, BoringSSL (gRPC of C++ and Python, Envoy), Java 8 and Java 11"),
            Self::Rsa => Some("clients whose TLS library is built without RSA, as on small devices,"),
        }
    }
}

impl From<KeyAlgorithm> for KeyKind {
    fn from(algorithm: KeyAlgorithm) -> Self {
        match algorithm {
            KeyAlgorithm::P256 => Self::P256,
            KeyAlgorithm::Ed25519 => Self::Ed25519,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::Ed25519 => "Ed25519",
            Self::Rsa => "RSA",
        })
    }
}

/// One line for each key in a server's chain that shuts clients out. `authority` signed the leaf, so a client must know
/// both.
pub fn shut_out(leaf: Option<KeyKind>, authority: Option<KeyKind>) -> Vec<String> {
    let line = |whose: &str, kind: Option<KeyKind>| {
        let kind = kind?;
        let clients = kind.clients_shut_out()?;
        Some(format!("{whose} has an {kind} key: {clients} cannot connect to this member"))
    };
    [line("the authority", authority), line("this member's certificate", leaf)].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_that_shuts_clients_out_has_a_line() {
        use KeyKind::{Ed25519, P256, P384, Rsa};
        for (leaf, authority, lines) in [
            (Some(P256), Some(P256), 0),
            (Some(P384), Some(P384), 0),
            (None, None, 0),
            (Some(Ed25519), Some(P256), 1),
            (Some(P256), Some(Ed25519), 1),
            (Some(P256), Some(Rsa), 1),
            (Some(Ed25519), Some(Ed25519), 2),
        ] {
            let said = shut_out(leaf, authority);
            assert_eq!(said.len(), lines, "{said:?}");
        }
        let said = shut_out(Some(P256), Some(Ed25519)).concat();
        assert!(said.starts_with("the authority has an Ed25519 key: browsers, BoringSSL"), "{said}");
        assert!(shut_out(Some(Rsa), None).concat().starts_with("this member's certificate has an RSA key: "));
    }

    #[test]
    fn kinds_are_read_from_certificates() {
        for (algorithm, kind) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, KeyKind::P256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, KeyKind::P384),
            (&rcgen::PKCS_ED25519, KeyKind::Ed25519),
            (&rcgen::PKCS_RSA_SHA256, KeyKind::Rsa),
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let params = rcgen::CertificateParams::new(["n1.example.org".to_owned()]).unwrap();
            let certificate = params.self_signed(&key).unwrap();
            assert_eq!(KeyKind::of_certificate(certificate.der()), Some(kind));
        }
        assert_eq!(KeyKind::of_certificate(&[0x30, 0]), None);
    }
}
