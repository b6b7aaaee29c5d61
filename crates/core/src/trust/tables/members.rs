//! The members of a view, found by number and by everything that only one of them may have. No check looks at all
//! members.

use core::ops::Deref;
use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{KeyId, NodeId, StoreId};
use crate::map::{Map, Set};
use crate::name::{Host, HostName, Name};
use crate::table::{Sum, Table};
use crate::trust::hosts::HostProof;
use crate::trust::member::{Member, Suffrage};

/// Members by number. Each way of changing one keeps the indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    by_id: Table<NodeId, Member>,
    keys: Map<KeyId, NodeId>,
    sealing_keys: Map<[u8; 32], NodeId>,
    stores: Map<StoreId, NodeId>,
    names: Map<Name, NodeId>,
    mapped: Map<HostName, NodeId>,
    hosts: Map<Host, Set<NodeId>>,
    voters: Set<NodeId>,
}

impl Members {
    /// Enters a member in place of the one before.
    pub fn insert(&mut self, id: NodeId, member: Member) {
        self.remove(&id);
        self.enter(id, &member);
        self.by_id.insert(id, member);
    }

    /// Takes a member out.
    pub fn remove(&mut self, id: &NodeId) -> Option<Member> {
        let member = self.by_id.remove(id)?;
        self.leave(*id, &member);
        Some(member)
    }

    /// Changes a member. None if there is none of this number.
    pub fn update<T>(&mut self, id: &NodeId, change: impl FnOnce(&mut Member) -> T) -> Option<T> {
        let mut member = self.remove(id)?;
        let done = change(&mut member);
        self.insert(*id, member);
        Some(done)
    }

    /// The digest of all of them.
    pub const fn sum(&self) -> Sum {
        self.by_id.sum()
    }

    /// The member that has this key, for whatever purpose.
    pub fn with_key(&self, key: &KeyId) -> Option<NodeId> {
        self.keys.get(key).copied()
    }

    /// The member to which this key seals.
    pub fn with_sealing_key(&self, key: &[u8; 32]) -> Option<NodeId> {
        self.sealing_keys.get(key).copied()
    }

    /// The member of this store, or that returns with it.
    pub fn with_store(&self, store: &StoreId) -> Option<NodeId> {
        self.stores.get(store).copied()
    }

    /// The member of this name.
    pub fn named(&self, name: &Name) -> Option<&Member> {
        self.by_id.get(self.names.get(name)?)
    }

    /// The member whose certificate, made elsewhere, maps to this name.
    pub fn mapped(&self, name: &HostName) -> Option<NodeId> {
        self.mapped.get(name).copied()
    }

    /// The members that hold a host, alone or with all others. Loopback is held by many.
    pub fn with_host(&self, host: &Host) -> impl Iterator<Item = &Member> {
        let ids = self.hosts.get(host).into_iter().flat_map(|ids| ids.iter());
        ids.filter_map(|id| self.by_id.get(id))
    }

    /// The members whose role is voter.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.voters.iter().filter_map(|id| self.by_id.get(id))
    }

    /// The number of members whose role is voter.
    pub fn voter_count(&self) -> usize {
        self.voters.len()
    }

    fn enter(&mut self, id: NodeId, member: &Member) {
        self.keys.extend(member.keys().map(|key| (key, id)));
        self.sealing_keys.insert(member.keys.sealing, id);
        self.stores.extend([Some(member.store), member.returning].into_iter().flatten().map(|store| (store, id)));
        self.names.insert(member.name.clone(), id);
        self.mapped.extend(member.mapped.iter().map(|name| (name.clone(), id)));
        for host in hosts(member) {
            let mut ids = self.hosts.remove(host).unwrap_or_default();
            ids.insert(id);
            self.hosts.insert(host.clone(), ids);
        }
        if member.suffrage == Suffrage::Voter {
            self.voters.insert(id);
        }
    }

    fn leave(&mut self, id: NodeId, member: &Member) {
        // Of two that have the same, which only a state that is broken has, the other one stays found.
        for key in member.keys() {
            forget(&mut self.keys, &key, id);
        }
        forget(&mut self.sealing_keys, &member.keys.sealing, id);
        for store in [Some(member.store), member.returning].into_iter().flatten() {
            forget(&mut self.stores, &store, id);
        }
        forget(&mut self.names, &member.name, id);
        if let Some(mapped) = &member.mapped {
            forget(&mut self.mapped, mapped, id);
        }
        for host in hosts(member) {
            let mut ids = self.hosts.remove(host).unwrap_or_default();
            ids.remove(&id);
            if !ids.is_empty() {
                self.hosts.insert(host.clone(), ids);
            }
        }
        self.voters.remove(&id);
    }
}

fn forget<K: Ord + Clone>(index: &mut Map<K, NodeId>, key: &K, id: NodeId) {
    if index.get(key) == Some(&id) {
        index.remove(key);
    }
}

/// Every host that a member holds, each once.
fn hosts(member: &Member) -> BTreeSet<&Host> {
    let renewed = member.renewed.iter().flat_map(|next| next.hosts.own.iter().chain(&next.hosts.shared));
    let own = member.hosts.own.iter().chain(&member.hosts.shared);
    let added = member.proved.iter().filter(|(_, proof)| **proof == HostProof::Admin).map(|(host, _)| host);
    let advertised = member.addresses.iter().map(|address| &address.host);
    own.chain(renewed).chain(added).chain(advertised).collect()
}

impl Deref for Members {
    type Target = Map<NodeId, Member>;

    fn deref(&self) -> &Map<NodeId, Member> {
        &self.by_id
    }
}

impl<'a> IntoIterator for &'a Members {
    type Item = (&'a NodeId, &'a Member);
    type IntoIter = <&'a Map<NodeId, Member> as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        (&self.by_id).into_iter()
    }
}

impl FromIterator<(NodeId, Member)> for Members {
    fn from_iter<I: IntoIterator<Item = (NodeId, Member)>>(members: I) -> Self {
        let mut all = Self::default();
        members.into_iter().for_each(|(id, member)| all.insert(id, member));
        all
    }
}

impl<const N: usize> From<[(NodeId, Member); N]> for Members {
    fn from(members: [(NodeId, Member); N]) -> Self {
        members.into_iter().collect()
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.by_id.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let by_id = Table::<NodeId, Member>::deserialize(deserializer)?;
        let mut all = Self::default();
        for (id, member) in &by_id {
            all.enter(*id, member);
        }
        Ok(Self { by_id, ..all })
    }
}
