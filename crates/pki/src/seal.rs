//! Sealing secrets to a member (HPKE, RFC 9180, base mode): a sealed secret that is replicated can be opened by one
//! member only, for one purpose.
//!
//! Suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. Base mode does not say who sealed: the replicated
//! state does. A sealing key seals nothing else than what this module names.

use aws_lc_rs::agreement::{PrivateKey, X25519};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use countersign_core::id::{AuthorityId, ClusterId, NodeId};
use countersign_core::secret::{Secret, SecretBytes};
use countersign_core::transcript::Transcript;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};

use crate::authority::{Authority, IssueError};
use crate::key::{KeyError, KeyPair};

/// First byte of a sealed secret: the suite, so that another one can follow.
const VERSION: u8 = 1;
/// Bytes of the encapsulated key.
const ENCAPSULATED_LEN: usize = 32;

/// Why nothing was sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The random source or the library failed.
    #[error("sealing key could not be made")]
    Generate,
    /// The recipient's public key is not a usable X25519 key.
    #[error("public sealing key is not usable")]
    Public,
    /// Too short, or of a version that is not known.
    #[error("not a sealed secret of a known version")]
    Malformed,
    /// Sealed to another key or for another purpose, or changed since.
    #[error("sealed secret does not open: it was sealed to another key or purpose, or was changed")]
    Open,
    /// The opened secret is not the key that the authority's certificate names.
    #[error("sealed secret does not hold the authority's key")]
    Authority(#[source] IssueError),
    /// The key could not be read or written.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// An X25519 key that secrets are sealed to.
#[derive(Debug)]
pub struct SealingKey {
    secret: Secret<32>,
    public: [u8; 32],
}

impl SealingKey {
    /// Draws a key from the library's random source.
    pub fn generate() -> Result<Self, SealError> {
        let key = PrivateKey::generate(&X25519).map_err(|_| SealError::Generate)?;
        let bytes = AsBigEndian::<Curve25519SeedBin<'_>>::as_be_bytes(&key).map_err(|_| SealError::Generate)?;
        Self::from_bytes(Secret::new(bytes.as_ref().try_into().map_err(|_| SealError::Generate)?))
    }

    /// Takes a stored key.
    pub fn from_bytes(secret: Secret<32>) -> Result<Self, SealError> {
        let key = PrivateKey::from_private_key(&X25519, secret.expose()).map_err(|_| SealError::Generate)?;
        let public = key.compute_public_key().map_err(|_| SealError::Generate)?;
        Ok(Self { secret, public: public.as_ref().try_into().map_err(|_| SealError::Generate)? })
    }

    /// The public half.
    pub const fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The key itself, to be stored.
    pub const fn bytes(&self) -> &Secret<32> {
        &self.secret
    }

    /// Opens what [`seal`] made for the public half with the same `info` and `aad`.
    pub fn open(&self, info: &[u8], aad: &[u8], sealed: &[u8]) -> Result<SecretBytes, SealError> {
        let (&version, rest) = sealed.split_first().ok_or(SealError::Malformed)?;
        let (encapsulated, ciphertext) = rest.split_at_checked(ENCAPSULATED_LEN).ok_or(SealError::Malformed)?;
        if version != VERSION {
            return Err(SealError::Malformed);
        }
        let key = HpkePrivateKey::from(self.secret.expose().to_vec());
        let opened = SUITE.open(&EncapsulatedSecret(encapsulated.to_vec()), info, aad, ciphertext, &key);
        opened.map(SecretBytes::new).map_err(|_| SealError::Open)
    }
}

/// Seals a secret to the holder of `public`. `info` names the purpose, `aad` what it belongs to.
pub fn seal(public: &[u8; 32], info: &[u8], aad: &[u8], plaintext: &SecretBytes) -> Result<Vec<u8>, SealError> {
    let public = HpkePublicKey(public.to_vec());
    let (encapsulated, ciphertext) =
        SUITE.seal(info, aad, plaintext.expose(), &public).map_err(|_| SealError::Public)?;
    Ok([&[VERSION][..], &encapsulated.0, &ciphertext].concat())
}

/// Seals an authority's key to the member `node`, whose public sealing key is `recipient`.
pub fn seal_authority(
    authority: &Authority,
    cluster: ClusterId,
    node: NodeId,
    recipient: &[u8; 32],
) -> Result<Vec<u8>, SealError> {
    let binding = binding(cluster, authority.id(), node);
    seal(recipient, PURPOSE, binding.as_bytes(), &authority.key().to_pkcs8()?)
}

/// Opens an authority's key that was sealed to the member `node`, and checks that it is the certificate's.
pub fn open_authority(
    key: &SealingKey,
    cluster: ClusterId,
    node: NodeId,
    certificate: &[u8],
    sealed: &[u8],
) -> Result<Authority, SealError> {
    let binding = binding(cluster, AuthorityId::of_certificate(certificate), node);
    let opened = key.open(PURPOSE, binding.as_bytes(), sealed)?;
    Authority::from_parts(certificate.to_vec(), KeyPair::from_pkcs8_der(&opened)?).map_err(SealError::Authority)
}

const PURPOSE: &[u8] = b"countersign v1 authority key";

/// A copy is worth nothing in another cluster, for another authority, or as another member's.
fn binding(cluster: ClusterId, authority: AuthorityId, node: NodeId) -> Transcript {
    Transcript::new(b"sealed authority key").fixed(&cluster.0).fixed(&authority.0).fixed(&node.0.to_be_bytes())
}
