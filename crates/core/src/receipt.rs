//! Receipts: a member's signed word that it enforces a revocation. Evidence for people; the guarantee comes from
//! leases.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, Generation, NodeId};
use crate::key::{PublicKey, SecretKey, SignatureError};
use crate::time::UnixMillis;
use crate::transcript::Transcript;

/// The report of one member about one revocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Receipt {
    /// The cluster.
    pub cluster: ClusterId,
    /// The generation that revokes: the revocation's id.
    pub generation: Generation,
    /// Whose word this is.
    pub member: NodeId,
    /// Drawn at each start of that member.
    pub boot: [u8; 16],
    /// How many connections it closed.
    pub closed: u64,
    /// Its clock when it had closed the last.
    pub at: UnixMillis,
    /// With its identity key.
    #[serde(with = "crate::codec::bytes64")]
    pub signature: [u8; 64],
}

impl Receipt {
    fn transcript(&self) -> Transcript {
        Transcript::new(b"revocation receipt")
            .fixed(&self.cluster.0)
            .fixed(&self.generation.0.to_be_bytes())
            .fixed(&self.member.0.to_be_bytes())
            .fixed(&self.boot)
            .fixed(&self.closed.to_be_bytes())
            .fixed(&self.at.0.to_be_bytes())
    }

    /// Fills in the signature.
    #[must_use]
    pub fn signed(mut self, identity: &SecretKey) -> Self {
        self.signature = identity.sign(&self.transcript());
        self
    }

    /// Checks that the member with this identity key says so.
    pub fn verify(&self, identity: PublicKey) -> Result<(), SignatureError> {
        identity.verify(&self.transcript(), &self.signature)
    }
}

/// The leader's word on a member that did not answer: when the last lease that it may hold runs out. From then on it
/// denies by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// The cluster.
    pub cluster: ClusterId,
    /// The generation that revokes.
    pub generation: Generation,
    /// Who did not answer.
    pub member: NodeId,
    /// Whose word this is.
    pub leader: NodeId,
    /// When the lease ends, by the leader's clock.
    pub lease_ends: UnixMillis,
    /// With the leader's identity key.
    #[serde(with = "crate::codec::bytes64")]
    pub signature: [u8; 64],
}

impl Absence {
    fn transcript(&self) -> Transcript {
        Transcript::new(b"revocation unanswered")
            .fixed(&self.cluster.0)
            .fixed(&self.generation.0.to_be_bytes())
            .fixed(&self.member.0.to_be_bytes())
            .fixed(&self.leader.0.to_be_bytes())
            .fixed(&self.lease_ends.0.to_be_bytes())
    }

    /// Fills in the signature.
    #[must_use]
    pub fn signed(mut self, identity: &SecretKey) -> Self {
        self.signature = identity.sign(&self.transcript());
        self
    }

    /// Checks that the leader with this identity key says so.
    pub fn verify(&self, identity: PublicKey) -> Result<(), SignatureError> {
        identity.verify(&self.transcript(), &self.signature)
    }
}

/// How far one member is with a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It enforces it, and gave this receipt; none if it learned of the revocation by a snapshot.
    Enforced(Option<Receipt>),
    /// It has not answered.
    Absent(Absence),
}

/// How far the cluster is with a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barrier {
    /// The generation that revokes.
    pub generation: Generation,
    /// Whether no member serves a revoked principal any more: each member enforces it, or its lease has run out.
    pub passed: bool,
    /// By member.
    pub answers: BTreeMap<NodeId, Answer>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn a_receipt_holds_for_what_it_says_only() {
        let identity = SecretKey::from_seed(Secret::new([1; 32]));
        let receipt = Receipt {
            cluster: ClusterId([2; 16]),
            generation: Generation(7),
            member: NodeId(3),
            boot: [4; 16],
            closed: 5,
            at: UnixMillis(6),
            signature: [0; 64],
        };
        assert_eq!(receipt.verify(identity.public()), Err(SignatureError));
        let receipt = receipt.signed(&identity);
        assert_eq!(receipt.verify(identity.public()), Ok(()));
        let others = [
            Receipt { cluster: ClusterId([9; 16]), ..receipt.clone() },
            Receipt { generation: Generation(8), ..receipt.clone() },
            Receipt { member: NodeId(9), ..receipt.clone() },
            Receipt { boot: [9; 16], ..receipt.clone() },
            Receipt { closed: 4, ..receipt.clone() },
            Receipt { at: UnixMillis(9), ..receipt.clone() },
        ];
        for other in others {
            assert_eq!(other.verify(identity.public()), Err(SignatureError), "{other:?}");
        }
        assert_eq!(receipt.verify(SecretKey::from_seed(Secret::new([9; 32])).public()), Err(SignatureError));
    }
}
