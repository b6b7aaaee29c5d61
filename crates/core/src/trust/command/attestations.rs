//! Signatures under attestations of what the cluster has become. Only voters of the attestation before may sign.

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use crate::authz::Affected;
use crate::codec::FIRST_LEVEL;
use crate::id::NodeId;
use crate::time::UnixMillis;
use crate::trust::attestation::{Signature, majority};
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft};
use crate::trust::outcome::{Outcome, Refused, Signer};
use crate::trust::state::TrustState;
use crate::trust::view::View;

/// A voter signs an attestation of what the cluster has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignAttestation {
    /// The number of the attestation.
    pub number: u64,
    /// The voter.
    pub node: NodeId,
    /// Over [`Attestation::transcript`](crate::trust::attestation::Attestation::transcript), with the identity key.
    #[serde(with = "crate::codec::bytes64")]
    pub signature: [u8; 64],
}

impl Operation for SignAttestation {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Member { node: self.node, in_recovery: true }
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Nothing
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::identities()
    }

    fn unchanged(&self, state: &TrustState, _: UnixMillis) -> Checked {
        let Self { number, node, signature } = self;
        let generation = state.current()?.generation;
        let refused = Refused::NotASigner { node: *node, number: *number };
        let before = state.signers(*number).ok_or(refused.clone())?;
        let key = before.voters.get(node).ok_or(refused.clone())?.identity;
        let enough = majority(before.voters.len());
        let signed = state.attestations.get(*number).ok_or(refused)?;
        key.verify(&signed.attestation.transcript(), signature).map_err(|_| Refused::Signature(Signer::Identity))?;
        let adds = signed.signatures.len() < enough && !signed.signatures.contains_key(node);
        Ok((!adds).then_some(Outcome::Done(generation)))
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let Self { number, node, signature } = *self;
        if !state.attestations.sign(number, node, Signature(signature)) {
            return Err(Refused::NotASigner { node, number });
        }
        state.revise();
        let attested = state.first_open().saturating_sub(1);
        let view = state.current()?;
        if view.attested >= attested {
            return Ok(Outcome::Done(view.generation));
        }
        // Members tell by the generation that they know it.
        state.change(|view| view.attested = attested)
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        ("attestation.signed", draft.node(self.node).number("attestation", self.number))
    }
}
