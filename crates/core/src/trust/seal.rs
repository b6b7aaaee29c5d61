//! Sealed copies of the CA key: who holds one, and the proof that it was opened.

use p256::ecdsa::signature::Verifier;
use serde::{Deserialize, Serialize};

use super::view::AuthorityKey;
use crate::id::{AuthorityId, ClusterId, NodeId};
use crate::transcript::Transcript;

/// A copy of an authority's key, sealed to one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedCopy {
    /// HPKE ciphertext (RFC 9180).
    pub ciphertext: Vec<u8>,
    /// Whether the member proved that it opened the copy.
    pub opened: bool,
}

/// What a member signs with the authority's key to show that it opened this very copy: a signature for an earlier copy
/// says nothing of a later one, which may not open.
pub fn confirm_transcript(cluster: ClusterId, authority: AuthorityId, node: NodeId, ciphertext: &[u8]) -> Transcript {
    Transcript::new(b"authority key opened")
        .fixed(&cluster.0)
        .fixed(&authority.0)
        .fixed(&node.0.to_be_bytes())
        .variable(ciphertext)
}

impl AuthorityKey {
    /// Whether `signature` over `transcript` was made with the authority's key. ECDSA signatures are DER (RFC 3279
    /// §2.2.3).
    pub fn verifies(&self, transcript: &Transcript, signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => signature.try_into().is_ok_and(|s| key.verify(transcript, s).is_ok()),
            Self::P256(point) => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point);
                let signature = p256::ecdsa::Signature::from_der(signature);
                let (Ok(key), Ok(signature)) = (key, signature) else { return false };
                key.verify(transcript.as_bytes(), &signature).is_ok()
            }
        }
    }
}
