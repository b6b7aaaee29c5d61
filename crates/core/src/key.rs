//! Public keys of a member, and the endorsement that ties a leaf key to an identity key.
//!
//! One key, one purpose: the identity key signs endorsements, returns and receipts; the leaf key is in the certificate;
//! the sealing key opens secrets that are sealed to the member. A signature always covers a label.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, KeyId, ed25519_spki};
use crate::secret::Secret;
use crate::transcript::Transcript;

/// A signature did not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("signature does not verify")]
pub struct SignatureError;

/// An Ed25519 public key (RFC 8032).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Verifies strictly: no small-order keys, no malleable signatures (RFC 8032 §5.1.7, and ed25519-dalek's
    /// `verify_strict`).
    pub fn verify(&self, transcript: &Transcript, signature: &[u8; 64]) -> Result<(), SignatureError> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| SignatureError)?;
        key.verify_strict(transcript.as_bytes(), &Signature::from_bytes(signature)).map_err(|_| SignatureError)
    }

    /// The id under which this key is recorded and revoked.
    pub fn id(&self) -> KeyId {
        KeyId::of_spki(&ed25519_spki(&self.0))
    }
}

/// The secret half of an Ed25519 key.
#[derive(Debug)]
pub struct SecretKey(Secret<32>);

impl SecretKey {
    /// From the 32-byte seed of RFC 8032 §5.1.5.
    pub const fn from_seed(seed: Secret<32>) -> Self {
        Self(seed)
    }

    /// The seed, to be stored.
    pub const fn seed(&self) -> &Secret<32> {
        &self.0
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(SigningKey::from_bytes(self.0.expose()).verifying_key().to_bytes())
    }

    /// Signs a labelled transcript.
    pub fn sign(&self, transcript: &Transcript) -> [u8; 64] {
        SigningKey::from_bytes(self.0.expose()).sign(transcript.as_bytes()).to_bytes()
    }
}

/// A leaf key vouched for by the member's identity key. Carried by the leaf in a private extension, so that a member
/// that is behind recognizes its peers, and a stolen CA key alone impersonates no member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endorsement {
    /// The identity key that signs.
    pub identity: PublicKey,
    /// 0 for the leaf of the enrollment, one more with each renewal.
    pub renewal: u64,
    /// Over cluster id, identity key, leaf key and renewal.
    #[serde(with = "crate::codec::bytes64")]
    pub signature: [u8; 64],
}

impl Endorsement {
    fn transcript(cluster: ClusterId, identity: PublicKey, leaf: KeyId, renewal: u64) -> Transcript {
        Transcript::new(b"leaf endorsement")
            .fixed(&cluster.0)
            .fixed(&identity.0)
            .fixed(&leaf.0)
            .fixed(&renewal.to_be_bytes())
    }

    /// Endorses `leaf` as the member's leaf number `renewal` in `cluster`.
    pub fn sign(identity: &SecretKey, cluster: ClusterId, leaf: KeyId, renewal: u64) -> Self {
        let public = identity.public();
        let signature = identity.sign(&Self::transcript(cluster, public, leaf, renewal));
        Self { identity: public, renewal, signature }
    }

    /// Checks that the identity key vouches for `leaf` in `cluster`.
    pub fn verify(&self, cluster: ClusterId, leaf: KeyId) -> Result<(), SignatureError> {
        self.identity.verify(&Self::transcript(cluster, self.identity, leaf, self.renewal), &self.signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> SecretKey {
        SecretKey::from_seed(Secret::new([n; 32]))
    }

    #[test]
    fn an_endorsement_holds_for_its_cluster_leaf_and_renewal_only() {
        let (cluster, leaf) = (ClusterId([1; 16]), KeyId([2; 32]));
        let endorsement = Endorsement::sign(&key(3), cluster, leaf, 4);
        assert_eq!(endorsement.verify(cluster, leaf), Ok(()));
        assert_eq!(endorsement.verify(ClusterId([9; 16]), leaf), Err(SignatureError));
        assert_eq!(endorsement.verify(cluster, KeyId([9; 32])), Err(SignatureError));
        assert_eq!(Endorsement { renewal: 5, ..endorsement.clone() }.verify(cluster, leaf), Err(SignatureError));
        assert_eq!(Endorsement { identity: key(9).public(), ..endorsement }.verify(cluster, leaf), Err(SignatureError));
    }

    #[test]
    fn a_small_order_key_signs_nothing() {
        // The identity point: under cofactored verification every message would verify.
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert_eq!(PublicKey(identity_point).verify(&Transcript::new(b"x"), &signature), Err(SignatureError));
    }
}
