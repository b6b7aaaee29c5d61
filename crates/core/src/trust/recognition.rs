//! Recognition: before a member that has been silent believes a Raft leader again, a majority of the voters shows it what
//! the cluster has become. Raft alone would follow whoever comes with the highest term, evicted since or not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::statement::{ChainBroken, Signed, Statement, follow, majority};
use crate::id::NodeId;
use crate::key::SecretKey;
use crate::transcript::Transcript;

/// Why an answer is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The chain does not lead on from what is known.
    #[error(transparent)]
    Chain(#[from] ChainBroken),
    /// It is no voter's, or the signature does not verify.
    #[error("answer is not signed by a voter")]
    Signature,
}

fn transcript(newest: &Statement, node: NodeId, nonce: &[u8; 32]) -> Transcript {
    Transcript::new(b"statement shown").fixed(&node.0.to_be_bytes()).fixed(nonce).fixed(&newest.digest())
}

/// A voter's word that `newest` is the newest that it knows, for whoever drew `nonce`.
pub fn show(identity: &SecretKey, node: NodeId, newest: &Statement, nonce: &[u8; 32]) -> [u8; 64] {
    identity.sign(&transcript(newest, node, nonce))
}

/// What a member knows while it asks. Answering needs no lease and no leader, so a cold cluster does not wait for itself.
#[derive(Debug, Clone)]
pub struct Recognition {
    nonce: [u8; 32],
    newest: Arc<Statement>,
    evicted: BTreeSet<NodeId>,
    answered: BTreeMap<NodeId, u64>,
}

impl Recognition {
    /// Starts from the statement of the stored view, with a nonce that nobody has seen.
    pub const fn new(known: Arc<Statement>, nonce: [u8; 32]) -> Self {
        Self { nonce, newest: known, evicted: BTreeSet::new(), answered: BTreeMap::new() }
    }

    /// What to send: the nonce, and the number of the newest statement known.
    pub fn question(&self) -> ([u8; 32], u64) {
        (self.nonce, self.newest.number)
    }

    /// Whom to ask.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.newest.voters.keys().copied()
    }

    /// Counts one answer: `chain` leads on from the statement of number `from`, which was asked for, to the newest that
    /// `node` knows. The newest over all answers is taken.
    pub fn answer(
        &mut self,
        asked: &Arc<Statement>,
        node: NodeId,
        chain: &[Signed],
        signature: &[u8; 64],
    ) -> Result<(), AnswerError> {
        let (theirs, evicted) = follow(asked, chain)?;
        let key = theirs.voters.get(&node).or_else(|| self.newest.voters.get(&node)).ok_or(AnswerError::Signature)?;
        key.verify(&transcript(&theirs, node, &self.nonce), signature).map_err(|_| AnswerError::Signature)?;
        self.answered.insert(node, theirs.number);
        self.evicted.extend(evicted);
        if theirs.number > self.newest.number {
            self.newest = theirs;
        }
        Ok(())
    }

    /// The newest statement known so far, to ask from.
    pub const fn newest(&self) -> &Arc<Statement> {
        &self.newest
    }

    /// What the cluster has become, once a majority of the newest voters has answered: whom it evicted is refused.
    pub fn recognized(&self) -> Option<(&Arc<Statement>, &BTreeSet<NodeId>)> {
        let answered = self.newest.voters.keys().filter(|id| self.answered.contains_key(id)).count();
        (answered >= majority(self.newest.voters.len())).then_some((&self.newest, &self.evicted))
    }
}
