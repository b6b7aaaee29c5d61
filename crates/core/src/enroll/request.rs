//! The request to be admitted, and the transcript that the token's key signs.

use serde::{Deserialize, Serialize};

use crate::id::{AuthorityId, ClusterId, KeyId, RequestId, StoreId, TokenId};
use crate::key::{Endorsement, PublicKey, SecretKey, SignatureError};
use crate::name::{Address, Name};
use crate::transcript::Transcript;
use crate::trust::member::{ForeignLeaf, MemberKeys};

/// The version of the enrollment protocol.
pub const ENROLL_VERSION: u16 = 2;

/// All that the joiner signs, and the signature. Replicated as it is: `apply` verifies it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollmentRequest {
    /// The cluster that the joiner believes to join.
    pub cluster: ClusterId,
    /// The authority that the token pins.
    pub pin: AuthorityId,
    /// The token.
    pub token: TokenId,
    /// Drawn once and stored by the joiner before it asks.
    pub request: RequestId,
    /// The name that the joiner asks for.
    pub name: Name,
    /// Where it will be reached.
    pub addresses: Vec<Address>,
    /// The key of its first leaf: all that is believed of the CSR.
    pub leaf_key: KeyId,
    /// Its certificate, if that was made elsewhere. The sponsor reads it for itself and must find the same.
    pub foreign: Option<ForeignLeaf>,
    /// The identity key's word for the leaf key, renewal 0: proves possession of the identity key.
    pub endorsement: Endorsement,
    /// Its long-lived keys.
    pub keys: MemberKeys,
    /// Its store.
    pub store: StoreId,
    /// The newest feature level that its binary supports.
    pub feature_level: u32,
    /// SHA-256 of the sponsor's leaf certificate, DER.
    pub sponsor_leaf: [u8; 32],
    /// The TLS exporter of the connection (RFC 8446 §7.5): binds the request to it.
    pub exporter: [u8; 32],
    /// By the token's key, over [`EnrollmentRequest::transcript`].
    #[serde(with = "crate::codec::bytes64")]
    pub signature: [u8; 64],
}

impl EnrollmentRequest {
    /// What the token's key signs: every field but the signature, and the protocol's version.
    pub fn transcript(&self) -> Transcript {
        let mut transcript = Transcript::new(b"enrollment")
            .fixed(&ENROLL_VERSION.to_be_bytes())
            .fixed(&self.cluster.0)
            .fixed(&self.pin.0)
            .fixed(&self.token.0)
            .fixed(&self.request.0)
            .variable(self.name.as_str().as_bytes())
            .fixed(&(self.addresses.len() as u64).to_be_bytes());
        for address in &self.addresses {
            transcript = transcript.variable(address.to_string().as_bytes());
        }
        transcript = transcript.fixed(&self.leaf_key.0);
        transcript = match &self.foreign {
            None => transcript.fixed(&[0]),
            Some(ForeignLeaf { mapped, validity }) => transcript
                .fixed(&[1])
                .variable(mapped.as_str().as_bytes())
                .fixed(&validity.not_before.0.to_be_bytes())
                .fixed(&validity.not_after.0.to_be_bytes()),
        };
        transcript
            .fixed(&self.endorsement.identity.0)
            .fixed(&self.endorsement.renewal.to_be_bytes())
            .fixed(&self.endorsement.signature)
            .fixed(&self.keys.identity.0)
            .fixed(&self.keys.sealing)
            .fixed(&self.keys.ucan.0)
            .fixed(&self.store.0)
            .fixed(&self.feature_level.to_be_bytes())
            .fixed(&self.sponsor_leaf)
            .fixed(&self.exporter)
    }

    /// Signs the request with the token's key.
    #[must_use]
    pub fn signed(mut self, token: &SecretKey) -> Self {
        self.signature = token.sign(&self.transcript());
        self
    }

    /// Whether the holder of the token signed this very request.
    pub fn verify_token(&self, verifier: PublicKey) -> Result<(), SignatureError> {
        verifier.verify(&self.transcript(), &self.signature)
    }

    /// Whether the identity key vouches for the leaf key, as the member's first.
    pub fn verify_identity(&self) -> Result<(), SignatureError> {
        if self.endorsement.identity != self.keys.identity || self.endorsement.renewal != 0 {
            return Err(SignatureError);
        }
        self.endorsement.verify(self.cluster, self.leaf_key)
    }
}
