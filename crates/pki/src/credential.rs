//! A credential that was made elsewhere: a certificate chain and a private key, as PEM texts.
//!
//! Checked before it is used: that the key is the leaf's, that the leaf is none of an authority and the rest are.
//! Whether a peer trusts it is for [`crate::verify`]. Source: X509-SVID §4 and §5
//! (<https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md>).

use std::sync::Arc;

use countersign_core::principal::{PrincipalError, SpiffeId};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::{Error as RustlsPemError, PemObject};
use zeroize::Zeroize;

use crate::certificate::Certificate;
use crate::extension::{GeneralName, KeyUsage};
use crate::foreign::{LeafSignature, SCHEMES};
use crate::pem::certificates_from_pem;

/// Why a chain and a key are no credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The certificate text is not PEM, or a damaged one.
    #[error("certificate file is not PEM")]
    CertificatePem,
    /// The certificate text holds other PEM sections only.
    #[error("certificate file holds no certificate")]
    NoCertificate,
    /// A certificate cannot be read.
    #[error("certificate {place} of the file is malformed")]
    Malformed {
        /// Its place, from 1 on: the leaf is the first.
        place: usize,
    },
    /// The key text is not PEM, or a damaged one.
    #[error("private key file is not PEM")]
    KeyPem,
    /// The key text holds other PEM sections only.
    #[error("private key file holds no private key")]
    NoKey,
    /// A private key that cannot be read or is of a kind that is not supported.
    #[error("private key is malformed or of a kind that is not supported")]
    Key,
    /// The key is another one than the leaf's.
    #[error("private key does not belong to the first certificate of the file")]
    KeyMismatch,
    /// The leaf is an authority's certificate, or one that may sign certificates or revocation lists.
    #[error("first certificate of the file is one of an authority")]
    LeafIsAuthority,
    /// The leaf's key may not sign handshakes.
    #[error("first certificate of the file lacks the key usage digitalSignature")]
    LeafUsage,
    /// A further certificate that is not an authority's.
    #[error("certificate {place} of the file is not one of an authority that signs certificates")]
    Intermediate {
        /// Its place, from 1 on.
        place: usize,
    },
    /// No URI name, or several.
    #[error("first certificate of the file holds {got} URI names, a SPIFFE id needs exactly one")]
    UriNames {
        /// How many there are.
        got: usize,
    },
    /// A URI name that is no SPIFFE id.
    #[error("URI name {0}")]
    SpiffeId(#[from] PrincipalError),
}

/// A chain and its key, ready for TLS. The private key's bytes are not kept outside the TLS library.
#[derive(Debug, Clone)]
pub struct Credential {
    certified: Arc<CertifiedKey>,
    uris: Vec<String>,
}

impl Credential {
    /// Reads the chain, leaf first, and its key. Both may come from one text: sections of other kinds are passed over.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, CredentialError> {
        let ders = certificates_from_pem(chain).map_err(|_| CredentialError::CertificatePem)?;
        if ders.is_empty() {
            return Err(if is_pem(chain) { CredentialError::NoCertificate } else { CredentialError::CertificatePem });
        }
        let read = |(at, der): (usize, &_)| {
            Certificate::parse(AsRef::<[u8]>::as_ref(der)).map_err(|_| CredentialError::Malformed { place: at + 1 })
        };
        let read: Vec<Certificate> = ders.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        let (leaf, intermediates) = read.split_first().ok_or(CredentialError::NoCertificate)?;
        let key = read_key(key)?;
        if key.public_key().is_none_or(|public| public.as_ref() != leaf.spki) {
            return Err(CredentialError::KeyMismatch);
        }
        check_leaf(leaf)?;
        for (at, intermediate) in intermediates.iter().enumerate() {
            check_intermediate(intermediate).map_err(|()| CredentialError::Intermediate { place: at + 2 })?;
        }
        let uris = uris(leaf);
        Ok(Self { certified: Arc::new(CertifiedKey::new(ders, key)), uris })
    }

    /// Chain and key as TLS takes them.
    pub const fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// Signs `message` with the leaf's key: proof of possession outside TLS.
    pub fn sign(&self, message: &[u8]) -> Result<LeafSignature, CredentialError> {
        let signer = self.certified.key.choose_scheme(&SCHEMES).ok_or(CredentialError::Key)?;
        let bytes = signer.sign(message).map_err(|_| CredentialError::Key)?;
        Ok(LeafSignature { scheme: signer.scheme().into(), bytes })
    }

    /// The SPIFFE id, for clusters whose certificates carry one. Others map names to principals by rules.
    pub fn spiffe_id(&self) -> Result<SpiffeId, CredentialError> {
        match self.uris.as_slice() {
            [uri] => Ok(SpiffeId::parse(uri)?),
            uris => Err(CredentialError::UriNames { got: uris.len() }),
        }
    }
}

fn is_pem(text: &str) -> bool {
    text.contains("-----BEGIN ")
}

fn read_key(text: &str) -> Result<Arc<dyn rustls::sign::SigningKey>, CredentialError> {
    let mut der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| {
        let none = matches!(error, RustlsPemError::NoItemsFound) && is_pem(text);
        if none { CredentialError::NoKey } else { CredentialError::KeyPem }
    })?;
    let key = any_supported_type(&der).map_err(|_| CredentialError::Key);
    der.zeroize();
    key
}

fn check_leaf(leaf: &Certificate) -> Result<(), CredentialError> {
    let extensions = &leaf.extensions;
    if extensions.basic_constraints.as_ref().is_some_and(|basic| basic.value.ca) {
        return Err(CredentialError::LeafIsAuthority);
    }
    // X509-SVID §4.3: leaf certificates MUST set digitalSignature, and MUST NOT set keyCertSign or cRLSign.
    let usage = extensions.key_usage.as_ref().ok_or(CredentialError::LeafUsage)?.value;
    if !usage.has(KeyUsage::DIGITAL_SIGNATURE) {
        return Err(CredentialError::LeafUsage);
    }
    if usage.has(KeyUsage::KEY_CERT_SIGN) || usage.has(KeyUsage::CRL_SIGN) {
        return Err(CredentialError::LeafIsAuthority);
    }
    Ok(())
}

fn check_intermediate(certificate: &Certificate) -> Result<(), ()> {
    let extensions = &certificate.extensions;
    let ca = extensions.basic_constraints.as_ref().is_some_and(|basic| basic.value.ca);
    let signs = extensions.key_usage.as_ref().is_some_and(|usage| usage.value.has(KeyUsage::KEY_CERT_SIGN));
    if ca && signs { Ok(()) } else { Err(()) }
}

fn uris(leaf: &Certificate) -> Vec<String> {
    let names = leaf.extensions.subject_alt_name.as_ref().map_or(&[][..], |names| &names.value);
    let uri = |name: &GeneralName| if let GeneralName::Uri(uri) = name { Some(uri.clone()) } else { None };
    names.iter().filter_map(uri).collect()
}
