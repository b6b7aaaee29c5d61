//! Revocation: keys and principals that are refused from now on. Neither is ever taken back.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition, Revoked};
use crate::authz::Affected;
use crate::codec::FIRST_LEVEL;
use crate::id::KeyId;
use crate::json::Object;
use crate::principal::Role;
use crate::time::UnixMillis;
use crate::trust::author::Authorship;
use crate::trust::event::{Account, Draft, count};
use crate::trust::outcome::{Outcome, Refused};
use crate::trust::state::TrustState;
use crate::trust::view::View;

/// Refuses a key, and every key that was renewed from it, without end: a thief of the key may have renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeKey(pub KeyId);

/// Refuses every certificate that a broker, client or admin has: the keys on record, and those that an authority made
/// elsewhere has certified without a record. One issued later counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokePrincipal(pub Role);

impl Operation for RevokeKey {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Voter
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Revokes(Revoked::Key(self.0))
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
        let view = state.current()?;
        if let Some(member) = view.members.with_key(&self.0) {
            return Err(Refused::KeyOfNode(member));
        }
        let (mut doomed, mut open) = (BTreeSet::from([self.0]), vec![self.0]);
        while let Some(key) = open.pop() {
            open.extend(view.principals.successors(&key).copied().filter(|successor| doomed.insert(*successor)));
        }
        doomed.retain(|key| !view.revoked_keys.contains(key));
        let keys = doomed.len();
        if keys == 0 {
            return Ok(Outcome::Revoked { generation: view.generation, keys });
        }
        let generation = state.edit(|view| view.revoked_keys.extend(doomed))?;
        Ok(Outcome::Revoked { generation, keys })
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        ("key.revoked", Object::default().text("key", self.0).number("keys", keys_revoked(draft)))
    }
}

impl Operation for RevokePrincipal {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Voter
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Revokes(Revoked::Principal(self.0.clone()))
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        // Its labels go with it.
        Affected { who: true, ..Affected::principal(&self.0) }
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let Self(role) = self;
        let view = state.current()?;
        if role.node_id().is_some() {
            return Err(Refused::NotIssued(role.clone()));
        }
        let known: Vec<KeyId> = view.principals.get(role).into_iter().flatten().map(|(key, _)| *key).collect();
        let elsewhere = view.authorities.values().any(|authority| authority.imported);
        if known.is_empty() && view.revoked_principals.contains(role) {
            return Ok(Outcome::Revoked { generation: view.generation, keys: 0 });
        }
        if known.is_empty() && !elsewhere {
            return Err(Refused::NoSuchPrincipal(role.clone()));
        }
        let keys = known.len();
        let generation = state.edit(|view| {
            view.principals.remove(role);
            // The next principal of that name is not what this one was.
            view.labels.remove(role);
            view.revoked_keys.extend(known);
            view.revoked_principals.insert(role.clone());
        })?;
        Ok(Outcome::Revoked { generation, keys })
    }

    fn event(&self, draft: &Draft<'_>) -> Account {
        ("principal.revoked", Object::default().text("principal", &self.0).number("keys", keys_revoked(draft)))
    }
}

fn keys_revoked(draft: &Draft<'_>) -> u64 {
    if let Outcome::Revoked { keys, .. } = draft.outcome { count(*keys) } else { 0 }
}
