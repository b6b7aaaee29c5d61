//! Private keys of authorities and leaves, and the one spelling of a public key.
//!
//! The secret leaves this module only as PKCS#8 in a wiped holder; it is never in `Debug`. Signatures are
//! deterministic: Ed25519 by its definition, ECDSA by the nonces of RFC 6979. So two voters that sign one grant make
//! one certificate. TLS handshakes are signed by the TLS stack, which draws its nonces.

use core::fmt;

use aws_lc_rs::encoding::{AsBigEndian, EcPrivateKeyBin};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey,
};
use countersign_core::id::{KeyId, ed25519_spki};
use countersign_core::key::PublicKey;
use countersign_core::secret::SecretBytes;
use countersign_core::trust::view::AuthorityKey;
use ed25519_dalek::VerifyingKey;
use p256::ecdsa::signature::Signer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroize;

use crate::pem::{self, SecretText};

/// What a key signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyAlgorithm {
    /// Ed25519 (RFC 8032): smaller and faster, but browsers, BoringSSL and old Java cannot verify it.
    Ed25519,
    /// ECDSA on P-256 with SHA-256 (FIPS 186-5): the default, since every TLS 1.3 client knows it.
    #[default]
    P256,
}

impl KeyAlgorithm {
    /// All of them, by the words of commands and configurations.
    pub const ALL: [(&'static str, Self); 2] = [("p256", Self::P256), ("ed25519", Self::Ed25519)];

    /// The algorithm that a command or a configuration names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find_map(|(known, algorithm)| (known == word).then_some(algorithm))
    }
}

/// Why a key cannot be made, read or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The random source or the library failed.
    #[error("key generation failed")]
    Generate,
    /// The text is not PEM.
    #[error("malformed PEM")]
    Pem,
    /// The PEM text holds no private key.
    #[error("no private key in the PEM text")]
    Missing,
    /// Not an Ed25519 or P-256 private key, or a damaged one.
    #[error("not a usable Ed25519 or P-256 private key")]
    Rejected,
    /// A public key that is not Ed25519 or P-256 in its usual encoding, or a weak one.
    #[error("public key is not a strong Ed25519 or P-256 key in its usual encoding")]
    Public,
    /// The library refused to sign.
    #[error("signing failed")]
    Sign,
}

enum Inner {
    Ed25519(Ed25519KeyPair),
    P256 {
        pair: EcdsaKeyPair,
        /// The same key, where nonces follow RFC 6979; those of aws-lc are drawn.
        signer: p256::ecdsa::SigningKey,
    },
}

/// A private key and its public half.
pub struct KeyPair {
    inner: Inner,
    public: SubjectKey,
}

impl KeyPair {
    /// Draws a key from the library's random source.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, KeyError> {
        match algorithm {
            KeyAlgorithm::Ed25519 => {
                Self::of(Inner::Ed25519(Ed25519KeyPair::generate().map_err(|_| KeyError::Generate)?))
            }
            KeyAlgorithm::P256 => {
                Self::of_p256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| KeyError::Generate)?)
            }
        }
    }

    /// Reads a PKCS#8 key (RFC 5958).
    pub fn from_pkcs8_der(der: &SecretBytes) -> Result<Self, KeyError> {
        let bytes = der.expose();
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8(bytes) {
            return Self::of(Inner::Ed25519(pair));
        }
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, bytes).map_err(|_| KeyError::Rejected)?;
        Self::of_p256(pair)
    }

    /// Reads the first private key of a PEM text: `PRIVATE KEY` (PKCS#8) or `EC PRIVATE KEY` (RFC 5915).
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        use rustls_pki_types::pem::Error;
        let mut key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|error| if matches!(error, Error::NoItemsFound) { KeyError::Missing } else { KeyError::Pem })?;
        #[expect(clippy::wildcard_enum_match_arm, reason = "an enum of another crate, which may grow")]
        let pair = match &key {
            PrivateKeyDer::Pkcs8(der) => Self::from_pkcs8_der(&SecretBytes::new(der.secret_pkcs8_der().to_vec())),
            PrivateKeyDer::Sec1(der) => {
                EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der.secret_sec1_der())
                    .map_err(|_| KeyError::Rejected)
                    .and_then(Self::of_p256)
            }
            _ => Err(KeyError::Rejected),
        };
        key.zeroize();
        pair
    }

    fn of_p256(pair: EcdsaKeyPair) -> Result<Self, KeyError> {
        let scalar: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().map_err(|_| KeyError::Rejected)?;
        let signer = p256::ecdsa::SigningKey::from_slice(scalar.as_ref()).map_err(|_| KeyError::Rejected)?;
        Self::of(Inner::P256 { pair, signer })
    }

    fn of(inner: Inner) -> Result<Self, KeyError> {
        let public = match &inner {
            Inner::Ed25519(pair) => {
                SubjectKey::Ed25519(pair.public_key().as_ref().try_into().map_err(|_| KeyError::Rejected)?)
            }
            Inner::P256 { pair, .. } => {
                SubjectKey::P256(pair.public_key().as_ref().try_into().map_err(|_| KeyError::Rejected)?)
            }
        };
        Ok(Self { inner, public })
    }

    /// The key as PKCS#8, to be stored or sealed.
    pub fn to_pkcs8(&self) -> Result<SecretBytes, KeyError> {
        let document = match &self.inner {
            Inner::Ed25519(pair) => pair.to_pkcs8v1(),
            Inner::P256 { pair, .. } => pair.to_pkcs8v1(),
        };
        Ok(SecretBytes::new(document.map_err(|_| KeyError::Rejected)?.as_ref().to_vec()))
    }

    /// The key as a `PRIVATE KEY` PEM section.
    pub fn to_pem(&self) -> Result<SecretText, KeyError> {
        Ok(pem::private_key_pem(self.to_pkcs8()?.expose()))
    }

    /// What it signs with.
    pub const fn algorithm(&self) -> KeyAlgorithm {
        self.public.algorithm()
    }

    /// The public half.
    pub const fn public(&self) -> &SubjectKey {
        &self.public
    }

    /// The public half as DER `SubjectPublicKeyInfo`.
    pub fn spki(&self) -> Vec<u8> {
        self.public.spki()
    }

    /// The id of the public half.
    pub fn id(&self) -> KeyId {
        self.public.id()
    }

    /// Signs: 64 bytes for Ed25519, a DER `Ecdsa-Sig-Value` for P-256. The same message gets the same signature.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.inner {
            Inner::Ed25519(pair) => Ok(pair.try_sign(message).map_err(|_| KeyError::Sign)?.as_ref().to_vec()),
            Inner::P256 { signer, .. } => {
                let signature: p256::ecdsa::DerSignature = signer.try_sign(message).map_err(|_| KeyError::Sign)?;
                Ok(signature.as_bytes().to_vec())
            }
        }
    }

    /// The public half as the replicated state records an authority's.
    pub fn authority_key(&self) -> AuthorityKey {
        self.public.authority_key()
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("algorithm", &self.algorithm()).field("id", &self.id()).finish_non_exhaustive()
    }
}

/// A public key that a certificate of ours may carry, in its one spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKey {
    /// Ed25519.
    Ed25519([u8; 32]),
    /// A P-256 point, uncompressed.
    P256([u8; 65]),
}

/// RFC 5480 §2: id-ecPublicKey, secp256r1, BIT STRING of 65 octets.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// RFC 8410 §4: id-Ed25519, BIT STRING of 32 octets.
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

impl SubjectKey {
    /// Reads a DER `SubjectPublicKeyInfo`. Compressed points, explicit curves and keys of small order are refused: a
    /// key must have one id, and a signature under it must prove possession.
    pub fn parse(spki: &[u8]) -> Result<Self, KeyError> {
        if let Some(key) = spki.strip_prefix(&ED25519_PREFIX).and_then(|key| <[u8; 32]>::try_from(key).ok()) {
            let parsed = VerifyingKey::from_bytes(&key).map_err(|_| KeyError::Public)?;
            return if parsed.is_weak() { Err(KeyError::Public) } else { Ok(Self::Ed25519(key)) };
        }
        let point = spki.strip_prefix(&P256_PREFIX).and_then(|point| <[u8; 65]>::try_from(point).ok());
        let point = point.filter(|point| point.first() == Some(&0x04)).ok_or(KeyError::Public)?;
        UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1, point)
            .parse()
            .map_err(|_| KeyError::Public)?;
        Ok(Self::P256(point))
    }

    /// What it verifies with.
    pub const fn algorithm(&self) -> KeyAlgorithm {
        match self {
            Self::Ed25519(_) => KeyAlgorithm::Ed25519,
            Self::P256(_) => KeyAlgorithm::P256,
        }
    }

    /// The DER `SubjectPublicKeyInfo`.
    pub fn spki(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => ed25519_spki(key).to_vec(),
            Self::P256(point) => [P256_PREFIX.as_slice(), point].concat(),
        }
    }

    /// The id under which the key is recorded and revoked.
    pub fn id(&self) -> KeyId {
        KeyId::of_spki(&self.spki())
    }

    /// The key as the replicated state records an authority's.
    pub fn authority_key(&self) -> AuthorityKey {
        match self {
            Self::Ed25519(key) => AuthorityKey::Ed25519(PublicKey(*key)),
            Self::P256(point) => AuthorityKey::P256(point.to_vec()),
        }
    }

    /// Verifies a signature as [`KeyPair::sign`] makes it; strictly for Ed25519 (RFC 8032 §5.1.7).
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        match self {
            Self::Ed25519(key) => {
                let key = VerifyingKey::from_bytes(key).map_err(|_| KeyError::Public)?;
                let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| KeyError::Sign)?;
                key.verify_strict(message, &signature).map_err(|_| KeyError::Sign)
            }
            Self::P256(point) => UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1, point)
                .verify(message, signature)
                .map_err(|_| KeyError::Sign),
        }
    }

    /// The key's bytes as they stand in the BIT STRING.
    pub(crate) fn octets(&self) -> &[u8] {
        match self {
            Self::Ed25519(key) => key,
            Self::P256(point) => point,
        }
    }
}

fn rcgen_algorithm(algorithm: KeyAlgorithm) -> &'static rcgen::SignatureAlgorithm {
    match algorithm {
        KeyAlgorithm::Ed25519 => &rcgen::PKCS_ED25519,
        KeyAlgorithm::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
    }
}

impl rcgen::PublicKeyData for SubjectKey {
    fn der_bytes(&self) -> &[u8] {
        self.octets()
    }
    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        rcgen_algorithm(self.algorithm())
    }
}

impl rcgen::PublicKeyData for KeyPair {
    fn der_bytes(&self) -> &[u8] {
        self.public.octets()
    }
    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        rcgen_algorithm(self.public.algorithm())
    }
}

impl rcgen::SigningKey for KeyPair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Self::sign(self, message).map_err(|_| rcgen::Error::RingUnspecified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [KeyAlgorithm; 2] = [KeyAlgorithm::Ed25519, KeyAlgorithm::P256];

    #[test]
    fn keys_survive_pkcs8_and_pem() {
        for algorithm in BOTH {
            let key = KeyPair::generate(algorithm).unwrap();
            let der = KeyPair::from_pkcs8_der(&key.to_pkcs8().unwrap()).unwrap();
            let pem = KeyPair::from_pem(key.to_pem().unwrap().expose()).unwrap();
            assert_eq!((der.id(), pem.id()), (key.id(), key.id()));
            assert_eq!(SubjectKey::parse(&key.spki()), Ok(*key.public()));
            let signature = pem.sign(b"m").unwrap();
            assert_eq!(key.public().verify(b"m", &signature), Ok(()));
            assert_eq!(key.public().verify(b"n", &signature), Err(KeyError::Sign));
        }
    }

    /// RFC 6979 §A.2.5: the key, and its signatures with SHA-256 of two messages.
    const RFC_6979_KEY: &str = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721";
    const RFC_6979_POINT: &str = "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6\
                                  7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
    const RFC_6979_SIGNATURES: [(&str, &str, &str); 2] = [
        (
            "sample",
            "00efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
            "00f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
        ),
        (
            "test",
            "00f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367",
            "019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083",
        ),
    ];

    #[test]
    fn p256_nonces_are_those_of_rfc_6979() {
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        // RFC 5915: version, private key, curve, public key.
        let curve = [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        let public = [&[0xa1, 0x44, 0x03, 0x42, 0x00][..], &hex(RFC_6979_POINT)].concat();
        let key = [&[0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20][..], &hex(RFC_6979_KEY), &curve, &public].concat();
        let key = KeyPair::from_pem(&pem::encode("EC PRIVATE KEY", &key)).unwrap();
        for (message, r, s) in RFC_6979_SIGNATURES {
            let integer = |text: &str| [&[0x02, (text.len() / 2) as u8][..], &hex(text)].concat();
            let both = [integer(r), integer(s)].concat();
            let expected = [&[0x30, both.len() as u8][..], &both].concat();
            assert_eq!(key.sign(message.as_bytes()).unwrap(), expected, "{message}");
        }
    }

    #[test]
    fn one_message_has_one_signature() {
        for algorithm in BOTH {
            let key = KeyPair::generate(algorithm).unwrap();
            assert_eq!(key.sign(b"m"), key.sign(b"m"));
            assert_ne!(key.sign(b"m"), key.sign(b"n"));
        }
    }

    #[test]
    fn algorithms_are_named_by_their_words_alone() {
        assert_eq!(KeyAlgorithm::default(), KeyAlgorithm::P256);
        for (word, algorithm) in KeyAlgorithm::ALL {
            assert_eq!(KeyAlgorithm::parse(word), Some(algorithm));
        }
        for word in ["", "P256", "p-256", "rsa", "ed25519 "] {
            assert_eq!(KeyAlgorithm::parse(word), None, "{word}");
        }
    }

    #[test]
    fn keys_in_the_form_of_sec1_are_read() {
        use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let der: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().unwrap();
        let read = KeyPair::from_pem(&pem::encode("EC PRIVATE KEY", der.as_ref())).unwrap();
        assert_eq!(read.public().octets(), pair.public_key().as_ref());
        assert_eq!(KeyPair::from_pem(&pem::encode("EC PRIVATE KEY", &[1])).unwrap_err(), KeyError::Rejected);
    }

    #[test]
    fn debug_shows_nothing_of_the_secret() {
        for algorithm in BOTH {
            let key = KeyPair::generate(algorithm).unwrap();
            let shown = format!("{key:?}");
            let secret = data_encoding::HEXLOWER.encode(key.to_pkcs8().unwrap().expose());
            let tail: String = secret.chars().rev().take(16).collect::<Vec<_>>().into_iter().rev().collect();
            assert!(!shown.contains(&tail) && !shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn what_is_no_private_key_is_refused() {
        assert_eq!(KeyPair::from_pem("").unwrap_err(), KeyError::Missing);
        assert_eq!(KeyPair::from_pem(&pem::encode("CERTIFICATE", &[1])).unwrap_err(), KeyError::Missing);
        assert_eq!(KeyPair::from_pem(&pem::encode("PRIVATE KEY", &[1, 2, 3])).unwrap_err(), KeyError::Rejected);
        assert_eq!(KeyPair::from_pem(&pem::encode("RSA PRIVATE KEY", &[1])).unwrap_err(), KeyError::Rejected);
        let broken = "-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----\n";
        assert_eq!(KeyPair::from_pem(broken).unwrap_err(), KeyError::Pem);
        assert_eq!(KeyPair::from_pkcs8_der(&SecretBytes::new(Vec::new())).unwrap_err(), KeyError::Rejected);
    }

    #[test]
    fn a_weak_or_second_spelling_of_a_public_key_is_refused() {
        let mut small_order = [0; 32];
        small_order[0] = 1;
        assert_eq!(SubjectKey::parse(&ed25519_spki(&small_order)), Err(KeyError::Public));
        let point = KeyPair::generate(KeyAlgorithm::P256).unwrap();
        let spki = point.spki();
        let mut off_curve = spki.clone();
        *off_curve.last_mut().unwrap() ^= 1;
        assert_eq!(SubjectKey::parse(&off_curve), Err(KeyError::Public));
        // The same point compressed: 33 octets.
        let octets = point.public().octets();
        let mut compressed = vec![0x30, 0x39];
        compressed.extend_from_slice(&P256_PREFIX[2..23]);
        compressed.extend_from_slice(&[0x03, 0x22, 0x00, 0x02 | (octets[64] & 1)]);
        compressed.extend_from_slice(&octets[1..33]);
        assert_eq!(SubjectKey::parse(&compressed), Err(KeyError::Public));
        let mut trailing = spki;
        trailing.push(0);
        assert_eq!(SubjectKey::parse(&trailing), Err(KeyError::Public));
        assert_eq!(SubjectKey::parse(&[]), Err(KeyError::Public));
    }
}
