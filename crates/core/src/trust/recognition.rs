//! Cluster recognition: before a member that has been silent believes a Raft leader again, a majority of the voters
//! shows it what the cluster has become. Raft alone would follow the node with the highest term, even one that was
//! evicted meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::attestation::{Attestation, ChainBroken, SignedAttestation, follow, majority};
use crate::id::NodeId;
use crate::key::SecretKey;
use crate::transcript::Transcript;

/// Why an answer is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The chain does not lead on from the attestation known.
    #[error(transparent)]
    Chain(#[from] ChainBroken),
    /// The chain does not lead to the claimed attestation, or that attestation is not of this history.
    #[error("answer claims another attestation than its chain leads to")]
    Elsewhere,
    /// It is no voter's, or the signature does not verify.
    #[error("answer is not signed by a voter")]
    Signature,
}

/// The claim of a voter that an attestation is the newest that it knows, for the member that drew the nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttestationClaim {
    /// The voter.
    pub node: NodeId,
    /// The number of that attestation.
    pub number: u64,
    /// Its digest.
    pub digest: [u8; 32],
}

impl AttestationClaim {
    /// `newest`, as `node` shows it.
    pub fn of(node: NodeId, newest: &Attestation) -> Self {
        Self { node, number: newest.number, digest: newest.digest() }
    }

    fn transcript(&self, nonce: &[u8; 32]) -> Transcript {
        Transcript::new(b"statement shown")
            .fixed(&self.node.0.to_be_bytes())
            .fixed(nonce)
            .fixed(&self.number.to_be_bytes())
            .fixed(&self.digest)
    }

    /// Signs with the identity key of `node`.
    pub fn sign(&self, identity: &SecretKey, nonce: &[u8; 32]) -> [u8; 64] {
        identity.sign(&self.transcript(nonce))
    }
}

/// What a member knows while it asks. Answering needs no lease and no leader, so a cold cluster does not wait for
/// itself.
#[derive(Debug, Clone)]
pub struct Recognition {
    nonce: [u8; 32],
    newest: Arc<Attestation>,
    evicted: BTreeSet<NodeId>,
    answered: BTreeSet<NodeId>,
}

impl Recognition {
    /// Starts from the attestation of the stored view, with a nonce that no voter has seen.
    pub const fn new(known: Arc<Attestation>, nonce: [u8; 32]) -> Self {
        Self { nonce, newest: known, evicted: BTreeSet::new(), answered: BTreeSet::new() }
    }

    /// The question to send: the nonce, and the number of the newest attestation known.
    pub fn question(&self) -> ([u8; 32], u64) {
        (self.nonce, self.newest.number)
    }

    /// The voters to ask.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.newest.voters.keys().copied()
    }

    /// Counts one answer. `chain` leads from the attestation that was asked from to the claimed one; a voter that is
    /// behind shows an earlier one, and has nothing to add. The newest over all answers is taken.
    pub fn answer(
        &mut self,
        asked: &Arc<Attestation>,
        claim: &AttestationClaim,
        chain: &[SignedAttestation],
        signature: &[u8; 64],
    ) -> Result<(), AnswerError> {
        let (theirs, evicted) = follow(asked, chain)?;
        let leads_there = theirs.number == claim.number && theirs.digest() == claim.digest;
        if !leads_there && (claim.number >= asked.number || !chain.is_empty()) {
            return Err(AnswerError::Elsewhere);
        }
        let key = theirs.voters.get(&claim.node).or_else(|| self.newest.voters.get(&claim.node));
        let key = key.ok_or(AnswerError::Signature)?.identity;
        key.verify(&claim.transcript(&self.nonce), signature).map_err(|_| AnswerError::Signature)?;
        self.answered.insert(claim.node);
        self.evicted.extend(evicted);
        if theirs.number > self.newest.number {
            self.newest = theirs;
        }
        Ok(())
    }

    /// The newest attestation known so far, to ask from.
    pub const fn newest(&self) -> &Arc<Attestation> {
        &self.newest
    }

    /// The nodes that the attestations in the answers so far evict.
    pub const fn evicted(&self) -> &BTreeSet<NodeId> {
        &self.evicted
    }

    /// The state of the cluster, once a majority of the newest voters has answered. The member refuses the nodes in the
    /// second part, which were evicted.
    pub fn recognized(&self) -> Option<(&Arc<Attestation>, &BTreeSet<NodeId>)> {
        let answered = self.newest.voters.keys().filter(|id| self.answered.contains(id)).count();
        (answered >= majority(self.newest.voters.len())).then_some((&self.newest, &self.evicted))
    }
}
