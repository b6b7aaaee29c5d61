//! A credential: a certificate chain and its private key, checked to belong together before anything uses them.

use std::sync::Arc;

use countersign_core::id::KeyId;
use countersign_core::name::Host;
use countersign_core::time::{UnixMillis, Validity};
use countersign_pki::foreign::{CertificateNames, names_of};
use countersign_pki::key::{KeyError, KeyPair};
use countersign_pki::verify::{Bundle, ChainError, Usage, VerifiedChain, validity_of, verify_chain};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

use crate::config::provider;
use crate::https::holds_host;

/// Why a chain and a key are no credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The chain is empty.
    #[error("certificate chain is empty")]
    Empty,
    /// The key could not be handed to the TLS stack.
    #[error("private key cannot be used")]
    Key(#[source] KeyError),
    /// The TLS stack refuses the pair: most often the key is not the leaf's.
    #[error("private key and certificate do not belong together")]
    Pair(#[source] rustls::Error),
}

/// A leaf with its chain, and the key that proves it.
#[derive(Clone)]
pub struct Credential {
    certified: Arc<CertifiedKey>,
    validity: Option<Validity>,
    names: Option<Arc<CertificateNames>>,
}

impl Credential {
    /// Checks that `key` is the key of the first certificate of `chain` (DER, leaf first).
    pub fn new(chain: impl IntoIterator<Item = Vec<u8>>, key: &KeyPair) -> Result<Self, CredentialError> {
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        if chain.is_empty() {
            return Err(CredentialError::Empty);
        }
        let pkcs8 = key.to_pkcs8().map_err(CredentialError::Key)?;
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.expose()));
        let key = provider().key_provider.load_private_key(der.clone_key()).map_err(CredentialError::Pair)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(CredentialError::Pair)?;
        Ok(Self::of(certified))
    }

    /// Takes a chain and a key that were checked to belong together, and shows `authority` (DER) after the chain, if it
    /// is not in it: a joiner finds the certificate that its token pins in the presented chain.
    pub fn foreign(checked: &countersign_pki::credential::Credential, authority: &[u8]) -> Self {
        let certified = checked.certified_key();
        let mut chain = certified.cert.clone();
        if !chain.iter().any(|der| der.as_ref() == authority) {
            chain.push(CertificateDer::from(authority.to_vec()));
        }
        Self::of(CertifiedKey::new(chain, Arc::clone(&certified.key)))
    }

    /// Takes a chain and a key that were checked to belong together, as they are.
    pub fn checked(checked: &countersign_pki::credential::Credential) -> Self {
        Self::of(CertifiedKey::clone(checked.certified_key()))
    }

    fn of(certified: CertifiedKey) -> Self {
        let validity = certified.cert.first().and_then(|leaf| validity_of(leaf).ok());
        let names = certified.cert.first().and_then(|leaf| names_of(leaf).ok()).map(Arc::new);
        Self { certified: Arc::new(certified), validity, names }
    }

    /// When the leaf is valid; none if it cannot be read.
    pub const fn validity(&self) -> Option<Validity> {
        self.validity
    }

    /// Whether the leaf is for this host: by its name, or by a wildcard for one label.
    pub fn is_for(&self, host: &Host) -> bool {
        self.names.as_ref().is_some_and(|names| holds_host(names, host))
    }

    /// The leaf's key.
    pub fn key(&self) -> Option<KeyId> {
        self.certified.key.public_key().map(|spki| KeyId::of_spki(&spki))
    }

    /// The chain, DER, leaf first.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.certified.cert.iter().map(AsRef::as_ref)
    }

    /// SHA-256 of the leaf, DER.
    pub fn leaf_digest(&self) -> Option<[u8; 32]> {
        self.chain().next().map(|leaf| Sha256::digest(leaf).into())
    }

    /// Verifies the chain as a peer would: a new credential is published only after this node's own verifier took it.
    pub fn verify(&self, bundle: &Bundle, usage: Usage, now: UnixMillis) -> Result<VerifiedChain, ChainError> {
        self.verify_at(bundle, usage, Some(now))
    }

    /// As [`Credential::verify`]; with `now` none, validity is not judged.
    pub(crate) fn verify_at(
        &self,
        bundle: &Bundle,
        usage: Usage,
        now: Option<UnixMillis>,
    ) -> Result<VerifiedChain, ChainError> {
        verify_chain(bundle, &self.certified.cert, usage, now)
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    pub(crate) fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(self.certified()))
    }
}

impl core::fmt::Debug for Credential {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Credential({} certificates)", self.certified.cert.len())
    }
}
