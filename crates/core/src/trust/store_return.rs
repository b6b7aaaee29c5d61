//! A member returns with a new store: it gives up its vote, leaves the trust group, and only then does its new store count.
//!
//! Three committed steps, in this order: the return is recorded and the member is meant to be a learner; the trust group
//! removes the number altogether; the new store is recorded. So no entry, vote or answer of the old store is ever counted
//! as one of the new store, or the reverse.

use std::collections::BTreeSet;

use super::check::Checked;
use super::invariants::InvariantBroken;
use super::member::{Member, Suffrage};
use super::outcome::{Outcome, Refused, Signer};
use super::state::{Applied, TrustState};
use super::view::View;
use crate::enroll::returning::StoreReturn;
use crate::group::GroupMembers;
use crate::id::{NodeId, StoreId};

impl Member {
    /// Whether `store` is this member's, now or after its return.
    pub fn owns(&self, store: StoreId) -> bool {
        self.store == store || self.returning == Some(store)
    }
}

/// No store is on record for two members.
pub(super) fn check_stores(view: &View) -> Result<(), InvariantBroken> {
    let mut stores = BTreeSet::new();
    let twice = |m: &&Member| !stores.insert(m.store) || m.returning.is_some_and(|store| !stores.insert(store));
    view.members.values().find(twice).map_or(Ok(()), |member| Err(InvariantBroken::StoreTwice(member.id)))
}

impl TrustState {
    /// Whether the member may return so; `Some` where it did before by the same request.
    pub(super) fn check_store_return(&self, request: &StoreReturn) -> Checked {
        let view = self.current()?;
        let member = self.member(request.node)?;
        let signed = request.cluster == view.cluster
            && member.keys.identity.verify(&request.transcript(), &request.signature).is_ok();
        if !signed {
            return Err(Refused::Signature(Signer::Identity));
        }
        if view.revoked_keys.contains(&member.keys.identity.id()) {
            return Err(Refused::KeyRevoked);
        }
        if member.owns(request.store) {
            // An answer was lost. The store that is to be replaced never counts as the new one.
            let again = request.store != request.replaces;
            return if again {
                Ok(Some(Outcome::Done(view.generation)))
            } else {
                Err(Refused::StoreTaken(request.store))
            };
        }
        if member.store != request.replaces {
            return Err(Refused::OtherStore { node: member.id, expected: member.store, got: request.replaces });
        }
        if view.members.with_store(&request.store).is_some() {
            return Err(Refused::StoreTaken(request.store));
        }
        if member.suffrage == Suffrage::Voter {
            // Its sealing key stays its own, so no copy of the CA key leaves with the vote.
            self.check_voter_may_leave(member.id, true)?;
        }
        Ok(None)
    }

    /// Records that the member returns: it is to be a learner, and to leave the trust group first.
    pub(super) fn return_store(&mut self, request: &StoreReturn) -> Applied {
        if let Some(done) = self.check_store_return(request)? {
            return Ok(done);
        }
        let node = request.node;
        self.sealed.retain(|(_, holder), _| *holder != node);
        self.change(|view| {
            view.members.update(&node, |member| {
                member.suffrage = Suffrage::Learner;
                member.returning = Some(request.store);
            });
        })
    }

    /// Records the new store of a member that has left the trust group.
    pub(super) fn bind_store(&mut self, node: NodeId, store: StoreId, members: &GroupMembers) -> Applied {
        let member = self.member(node)?;
        if member.returning.is_none() && member.store == store {
            return Ok(Outcome::Done(self.current()?.generation));
        }
        if member.returning != Some(store) {
            return Err(Refused::NotReturning { node, store });
        }
        if members.contains(node) {
            return Err(Refused::StillInGroup(node));
        }
        self.change(|view| {
            view.members.update(&node, |member| {
                member.store = store;
                member.returning = None;
            });
        })
    }
}
