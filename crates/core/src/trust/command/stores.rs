//! A member returns with a new store: it gives up its vote, leaves the trust group, and only then does its new store
//! count.
//!
//! Three committed steps, in this order: the return is recorded and the member is meant to be a learner; the trust
//! group removes the number altogether; the new store is recorded. So no entry, vote or answer of the old store is ever
//! counted as one of the new store, or the reverse.

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use crate::authz::Affected;
use crate::codec::FIRST_LEVEL;
use crate::enroll::returning::StoreReturn;
use crate::id::{NodeId, StoreId};
use crate::time::UnixMillis;
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft};
use crate::trust::member::Suffrage;
use crate::trust::outcome::{Outcome, Refused, Signer};
use crate::trust::state::TrustState;
use crate::trust::view::View;

/// Records the store that a member returned with, once the member has left the trust group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindStore {
    /// The member.
    pub node: NodeId,
    /// Its new store.
    pub store: StoreId,
}

impl Operation for StoreReturn {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Returner
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Nothing
    }

    fn precondition(&self) -> Precondition {
        Precondition::Away(self.node)
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::identities()
    }

    fn unchanged(&self, state: &TrustState, _: UnixMillis) -> Checked {
        let view = state.current()?;
        let member = state.member(self.node)?;
        let signed =
            self.cluster == view.cluster && member.keys.identity.verify(&self.transcript(), &self.signature).is_ok();
        if !signed {
            return Err(Refused::Signature(Signer::Identity));
        }
        if view.revoked_keys.contains(&member.keys.identity.id()) {
            return Err(Refused::KeyRevoked);
        }
        if member.owns(self.store) {
            // An answer was lost. The store that is to be replaced never counts as the new one.
            let again = self.store != self.replaces;
            return if again { Ok(Some(Outcome::Done(view.generation))) } else { Err(Refused::StoreTaken(self.store)) };
        }
        if member.store != self.replaces {
            return Err(Refused::OtherStore { node: member.id, expected: member.store, got: self.replaces });
        }
        if view.members.with_store(&self.store).is_some() {
            return Err(Refused::StoreTaken(self.store));
        }
        if member.suffrage == Suffrage::Voter {
            // Its sealing key stays its own, so no copy of the CA key leaves with the vote.
            state.check_voter_may_leave(member.id, true)?;
        }
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        state.sealed.retain(|(_, holder), _| *holder != self.node);
        state.change(|view| {
            view.members.update(&self.node, |member| {
                member.suffrage = Suffrage::Learner;
                member.returning = Some(self.store);
            });
        })
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        ("node.returned", draft.node(self.node).text("replaces", self.replaces).text("store", self.store))
    }
}

impl Operation for BindStore {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Voter
    }

    fn effect(&self) -> Effect<'_> {
        Effect::BindsStore { node: self.node, store: self.store }
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

    fn apply(&self, state: &mut TrustState, entry: &Entry<'_>) -> Applied {
        let Self { node, store } = *self;
        let member = state.member(node)?;
        if member.returning.is_none() && member.store == store {
            return Ok(Outcome::Done(state.current()?.generation));
        }
        if member.returning != Some(store) {
            return Err(Refused::NotReturning { node, store });
        }
        if entry.members.contains(node) {
            return Err(Refused::StillInGroup(node));
        }
        state.change(|view| {
            view.members.update(&node, |member| {
                member.store = store;
                member.returning = None;
            });
        })
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        ("node.store_bound", draft.node(self.node).text("store", self.store))
    }
}
