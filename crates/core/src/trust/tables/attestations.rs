//! The attestations of what the cluster has become, found by number.

use core::ops::Range;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::NodeId;
use crate::table::{Sum, Table};
use crate::trust::attestation::{Signature, SignedAttestation};

/// Attestations by number, from 0 and without a gap. Encoded they are a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attestations(Table<u64, SignedAttestation>);

impl Attestations {
    /// The number that the next one gets.
    pub fn next_number(&self) -> u64 {
        self.last().map_or(0, |(last, _)| last.saturating_add(1))
    }

    /// The attestation of this number.
    pub fn get(&self, number: u64) -> Option<&SignedAttestation> {
        self.0.get(&number)
    }

    /// The newest one with its number.
    pub fn last(&self) -> Option<(u64, &SignedAttestation)> {
        self.0.last_key_value().map(|(number, signed)| (*number, signed))
    }

    /// Those whose numbers are within `range`, in order.
    pub fn range(&self, range: Range<u64>) -> impl DoubleEndedIterator<Item = &SignedAttestation> {
        // A map panics at a range that begins after its end.
        let range = range.start..range.end.max(range.start);
        self.0.range(range).map(|(_, signed)| signed)
    }

    /// Enters the next one.
    pub fn push(&mut self, signed: SignedAttestation) {
        self.0.insert(self.next_number(), signed);
    }

    /// Enters a signature of `node`. False if there is no attestation of this number.
    pub fn sign(&mut self, number: u64, node: NodeId, signature: Signature) -> bool {
        self.0.update(&number, |signed| signed.signatures.insert(node, signature)).is_some()
    }

    /// The digest of all of them.
    pub const fn sum(&self) -> Sum {
        self.0.sum()
    }

    /// All of them in order, which takes time by how many there are.
    pub fn all(&self) -> impl Iterator<Item = &SignedAttestation> {
        self.0.scan().values()
    }
}

impl Serialize for Attestations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.all())
    }
}

impl<'de> Deserialize<'de> for Attestations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let signed = Vec::<SignedAttestation>::deserialize(deserializer)?;
        Ok(Self((0..).zip(signed).collect()))
    }
}
