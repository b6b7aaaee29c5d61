//! The receipts that a leader keeps in one term. They are evidence: no barrier waits for one.

use std::collections::BTreeMap;

use crate::id::{Generation, NodeId};
use crate::key::{PublicKey, SignatureError};
use crate::receipt::Receipt;

/// Revocations whose receipts a leader keeps.
const REVOCATIONS_MAX: usize = 1024;

/// A receipt whose signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedReceipt(Receipt);

impl VerifiedReceipt {
    /// Checks the signature against the member's identity key.
    ///
    /// Errors: [`SignatureError`] if that member did not sign it.
    pub fn new(receipt: Receipt, identity: PublicKey) -> Result<Self, SignatureError> {
        receipt.verify(identity).map(|()| Self(receipt))
    }

    /// The receipt.
    pub const fn get(&self) -> &Receipt {
        &self.0
    }
}

/// Receipts by revocation and member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Receipts(BTreeMap<Generation, BTreeMap<NodeId, Receipt>>);

impl Receipts {
    /// Whether a receipt is worth verifying: the member `from` gives it for itself, none is kept in its place, and its
    /// generation exists. A receipt of a generation to come would push real ones out.
    pub(super) fn lack(&self, from: NodeId, receipt: &Receipt, newest: Generation) -> bool {
        let kept = self.0.get(&receipt.generation).is_some_and(|by| by.contains_key(&from));
        receipt.member == from && receipt.generation <= newest && !kept
    }

    /// Keeps a receipt, and forgets those of the oldest revocation if there are too many.
    pub(super) fn enter(&mut self, VerifiedReceipt(receipt): VerifiedReceipt) {
        self.0.entry(receipt.generation).or_default().insert(receipt.member, receipt);
        if self.0.len() > REVOCATIONS_MAX {
            self.0.pop_first();
        }
    }

    /// The receipt of `member` for this generation.
    pub(super) fn get(&self, generation: Generation, member: NodeId) -> Option<&Receipt> {
        self.0.get(&generation)?.get(&member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ClusterId;
    use crate::key::SecretKey;
    use crate::secret::Secret;
    use crate::time::UnixMillis;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(Secret::new([seed; 32]))
    }

    fn receipt(generation: u64, member: u64) -> Receipt {
        Receipt {
            cluster: ClusterId([2; 16]),
            generation: Generation(generation),
            member: NodeId(member),
            boot: [4; 16],
            closed: 5,
            at: UnixMillis(6),
            signature: [0; 64],
        }
    }

    fn verified(generation: u64, member: u64) -> VerifiedReceipt {
        VerifiedReceipt::new(receipt(generation, member).signed(&key(1)), key(1).public()).unwrap()
    }

    #[test]
    fn a_receipt_counts_only_with_the_signature_of_its_member() {
        assert!(VerifiedReceipt::new(receipt(7, 3).signed(&key(2)), key(1).public()).is_err());
        let mut receipts = Receipts::default();
        receipts.enter(verified(7, 3));
        assert_eq!(receipts.get(Generation(7), NodeId(3)).map(|r| r.closed), Some(5));
        assert_eq!(receipts.get(Generation(7), NodeId(4)), None);
        assert_eq!(receipts.get(Generation(8), NodeId(3)), None);
    }

    #[test]
    fn a_receipt_that_is_kept_of_another_or_of_what_has_not_been_is_not_verified() {
        let mut receipts = Receipts::default();
        receipts.enter(verified(7, 3));
        let lacks = |from, generation, member| receipts.lack(NodeId(from), &receipt(generation, member), Generation(9));
        assert!(lacks(3, 8, 3) && lacks(4, 7, 4) && lacks(3, 9, 3));
        assert!(!lacks(3, 7, 3), "kept");
        assert!(!lacks(4, 8, 3), "of another member");
        assert!(!lacks(3, 10, 3), "of a generation to come");
    }

    #[test]
    fn receipts_of_the_oldest_revocation_are_forgotten_beyond_the_limit() {
        let mut receipts = Receipts::default();
        (1..=REVOCATIONS_MAX as u64 + 1).for_each(|n| receipts.enter(VerifiedReceipt(receipt(n, 3))));
        assert_eq!(receipts.get(Generation(1), NodeId(3)), None);
        assert!(receipts.get(Generation(2), NodeId(3)).is_some());
    }
}
