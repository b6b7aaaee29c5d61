//! Renewal: a member's next certificate is on record before it exists, and the one before it counts until the next is
//! first used. So a crash at any step leaves the member with a certificate that its peers accept.
//!
//! Only the identity key of the member vouches for a next key, and each renewal counts once.

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use crate::authz::Affected;
use crate::codec::FIRST_LEVEL;
use crate::id::{KeyId, NodeId};
use crate::key::Endorsement;
use crate::time::UnixMillis;
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft, leaf};
use crate::trust::member::Renewed;
use crate::trust::outcome::{Outcome, Refused, Signer};
use crate::trust::state::{LeafOf, TrustState};
use crate::trust::view::View;

/// A member's next leaf key, to be certified. The same key again gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// The member.
    pub node: NodeId,
    /// The key.
    pub key: KeyId,
    /// The identity key's word for it, with the number after the newest on record.
    pub endorsement: Endorsement,
}

/// A member uses its next certificate; the one before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptLeaf {
    /// The member.
    pub node: NodeId,
    /// The number of the renewal.
    pub renewal: u64,
}

impl Operation for Renew {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Member { node: self.node, in_recovery: true }
    }

    fn effect(&self) -> Effect<'_> {
        Effect::CertifiesNode(&self.endorsement)
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::identities()
    }

    fn unchanged(&self, state: &TrustState, time: UnixMillis) -> Checked {
        let Self { node, key, endorsement } = self;
        let member = state.member(*node)?;
        let view = state.current()?;
        let (authority, record) = view.active_authority().ok_or(Refused::NoCluster)?;
        if record.key.is_none() {
            return Err(Refused::KeyElsewhere(authority));
        }
        if endorsement.identity != member.keys.identity || endorsement.verify(view.cluster, *key).is_err() {
            return Err(Refused::Signature(Signer::Identity));
        }
        // A member that was off for longer than the certificate lived never got it: its key is certified once more.
        let lapsed = member.renewed.as_ref().is_some_and(|next| next.leaf.key == *key && next.leaf.has_ended(time));
        if !lapsed && member.leaf_of(*key).is_some_and(|leaf| leaf.renewal == endorsement.renewal) {
            return self.answer(state, true).map(Some);
        }
        let next = member.renewal().saturating_add(1);
        if endorsement.renewal != next {
            return Err(Refused::RenewalOutOfOrder { node: *node, next });
        }
        if view.revoked_keys.contains(key) {
            return Err(Refused::KeyRevoked);
        }
        match view.members.with_key(key) {
            Some(holder) if holder != *node || !lapsed => Err(Refused::KeyTaken(holder)),
            Some(_) | None => Ok(None),
        }
    }

    fn apply(&self, state: &mut TrustState, entry: &Entry<'_>) -> Applied {
        let Self { node, key, endorsement } = self;
        let view = state.current()?;
        let authority = view.active_authority().ok_or(Refused::NoCluster)?;
        let of = LeafOf { node: *node, key: *key, renewal: endorsement.renewal };
        let leaf = state.leaf_in(view.cluster, of, None, authority, &entry.made);
        let renewed = Renewed { leaf, hosts: view.leaf_hosts(state.member(*node)?) };
        state.change(|view| {
            view.members.update(node, |member| member.renewed = Some(renewed));
        })?;
        self.answer(state, false)
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        let details = draft.node(self.node);
        let details =
            if let Outcome::Renewed(renewed) = draft.outcome { leaf(details, &renewed.leaf) } else { details };
        ("leaf.renewed", details)
    }
}

impl Renew {
    fn answer(&self, state: &TrustState, repeated: bool) -> Applied {
        let mut admitted = state.admitted(self.node, repeated)?;
        let next = state.member(self.node)?.renewed.clone().filter(|next| next.leaf.key == self.key);
        // One that is adopted already is signed as it was.
        if let Some(Renewed { leaf, hosts }) = next {
            if let Some(grant) = &mut admitted.grant {
                (grant.serial, grant.validity) = (leaf.serial, leaf.validity);
            }
            (admitted.leaf, admitted.hosts) = (leaf, hosts.all());
        }
        Ok(Outcome::Renewed(admitted))
    }
}

impl Operation for AdoptLeaf {
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
        let Self { node, renewal } = *self;
        let member = state.member(node)?;
        if member.leaf.renewal == renewal {
            return Ok(Some(Outcome::Done(state.current()?.generation)));
        }
        match &member.renewed {
            Some(renewed) if renewed.leaf.renewal == renewal => Ok(None),
            Some(_) | None => Err(Refused::RenewalOutOfOrder { node, next: member.renewal() }),
        }
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        state.change(|view| {
            view.members.update(&self.node, |member| {
                if let Some(Renewed { leaf, hosts }) = member.renewed.take() {
                    (member.leaf, member.hosts) = (leaf, hosts);
                }
            });
        })
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        ("leaf.adopted", draft.node(self.node).number("renewal", self.renewal))
    }
}
