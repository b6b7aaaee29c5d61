//! Brokers, clients and admins with their keys, found by role, by key and by the key that one was renewed from.

use core::ops::Deref;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{add, take};
use crate::id::KeyId;
use crate::map::{Map, Set};
use crate::principal::Role;
use crate::table::Table;
use crate::trust::view::IssuedKey;

/// The keys of one principal.
pub type IssuedKeys = BTreeMap<KeyId, IssuedKey>;

/// Keys by broker, client or admin. Each way of changing them keeps the indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Principals {
    by_role: Table<Role, IssuedKeys>,
    holders: Map<KeyId, Role>,
    /// The keys that were renewed from each.
    successors: Map<KeyId, Set<KeyId>>,
}

impl Principals {
    /// Changes the keys of a principal, which has none before if it is not on record.
    pub fn update<T>(&mut self, role: &Role, change: impl FnOnce(&mut IssuedKeys) -> T) -> T {
        let before = self.by_role.get(role).cloned().unwrap_or_default();
        let mut keys = before.clone();
        let done = change(&mut keys);
        for (key, issued) in before.iter().filter(|(key, issued)| keys.get(key) != Some(issued)) {
            self.leave(key, issued);
        }
        for (key, issued) in keys.iter().filter(|(key, issued)| before.get(key) != Some(issued)) {
            self.enter(role, *key, issued);
        }
        self.by_role.insert(role.clone(), keys);
        done
    }

    /// Takes a principal out with all its keys.
    pub fn remove(&mut self, role: &Role) -> Option<IssuedKeys> {
        let keys = self.by_role.remove(role)?;
        keys.iter().for_each(|(key, issued)| self.leave(key, issued));
        Some(keys)
    }

    /// The principal that has this key on record.
    pub fn holder(&self, key: &KeyId) -> Option<&Role> {
        self.holders.get(key)
    }

    /// The principal that has this key on record, or a key that was renewed from it: a key that has ended is off the
    /// record.
    pub fn holder_of_line(&self, key: &KeyId) -> Option<&Role> {
        self.holder(key).or_else(|| self.successors(key).find_map(|next| self.holder(next)))
    }

    /// The keys that were renewed from `key`.
    pub fn successors(&self, key: &KeyId) -> impl Iterator<Item = &KeyId> {
        self.successors.get(key).into_iter().flat_map(|keys| keys.iter())
    }

    fn enter(&mut self, role: &Role, key: KeyId, issued: &IssuedKey) {
        self.holders.insert(key, role.clone());
        if let Some(from) = issued.renewed_from {
            add(&mut self.successors, from, key);
        }
    }

    fn leave(&mut self, key: &KeyId, issued: &IssuedKey) {
        self.holders.remove(key);
        if let Some(from) = issued.renewed_from {
            take(&mut self.successors, &from, *key);
        }
    }
}

impl Deref for Principals {
    type Target = Table<Role, IssuedKeys>;

    fn deref(&self) -> &Table<Role, IssuedKeys> {
        &self.by_role
    }
}

impl FromIterator<(Role, IssuedKeys)> for Principals {
    fn from_iter<I: IntoIterator<Item = (Role, IssuedKeys)>>(principals: I) -> Self {
        let mut all = Self::default();
        for (role, keys) in principals {
            all.update(&role, |before| *before = keys);
        }
        all
    }
}

impl Serialize for Principals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.by_role.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Principals {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let by_role = Table::<Role, IssuedKeys>::deserialize(deserializer)?;
        let mut all = Self::default();
        for (role, keys) in by_role.scan() {
            keys.iter().for_each(|(key, issued)| all.enter(role, *key, issued));
        }
        Ok(Self { by_role, ..all })
    }
}
