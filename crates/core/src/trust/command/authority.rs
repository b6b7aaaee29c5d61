//! Copies of an authority's key: sealed to a member, and opened by it.
//!
//! A copy that was opened is never replaced, and a member shows that it opened a copy by the authority's own signature.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use crate::authz::Affected;
use crate::codec::FIRST_LEVEL;
use crate::id::{AuthorityId, NodeId};
use crate::time::UnixMillis;
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft};
use crate::trust::outcome::{Outcome, Refused, Signer};
use crate::trust::seal::{SealedCopy, confirm_transcript};
use crate::trust::state::TrustState;
use crate::trust::view::View;

/// Records a copy of an authority's key, sealed to a member that is promoted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealAuthority {
    /// The authority.
    pub authority: AuthorityId,
    /// The member.
    pub node: NodeId,
    /// HPKE ciphertext.
    pub sealed: Vec<u8>,
}

/// A member shows that it opened its copy: a signature with the authority's key itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmAuthority {
    /// The authority.
    pub authority: AuthorityId,
    /// The member.
    pub node: NodeId,
    /// Over [`confirm_transcript`].
    pub signature: Vec<u8>,
}

impl Operation for SealAuthority {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Voter
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

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let Self { authority, node, sealed } = self;
        state.member(*node)?;
        let view = state.current()?;
        let record = view.authorities.get(authority).ok_or(Refused::NoSuchAuthority(*authority))?;
        if record.key.is_none() {
            return Err(Refused::KeyElsewhere(*authority));
        }
        let generation = view.generation;
        // A copy that was opened is never replaced: a later one might not open.
        let opened = state.sealed.get(&(*authority, *node)).is_some_and(|copy| copy.opened);
        if !opened {
            let copy = SealedCopy { ciphertext: sealed.clone(), opened };
            state.sealed.insert((*authority, *node), copy);
            state.revise();
        }
        Ok(Outcome::Done(generation))
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        ("authority.sealed", draft.node(self.node).text("authority", self.authority))
    }
}

impl Operation for ConfirmAuthority {
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

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let Self { authority, node, signature } = self;
        let view = Arc::clone(state.current()?);
        let record = view.authorities.get(authority).ok_or(Refused::NoSuchAuthority(*authority))?;
        let key = record.key.as_ref().ok_or(Refused::KeyElsewhere(*authority))?;
        let copy = state.sealed.get_mut(&(*authority, *node)).ok_or(Refused::NotSealed(*node))?;
        if !key.verifies(&confirm_transcript(view.cluster, *authority, *node, &copy.ciphertext), signature) {
            return Err(Refused::Signature(Signer::Authority));
        }
        if copy.opened {
            return Ok(Outcome::Done(view.generation));
        }
        copy.opened = true;
        state.change(|_| {})
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        ("authority.opened", draft.node(self.node).text("authority", self.authority))
    }
}
