//! The members of a view, found by number, by everything that only one of them may have, and by what the leader waits
//! for. No check looks at all members.

use core::ops::Deref;
use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{add, take};
use crate::id::{KeyId, NodeId, StoreId};
use crate::map::{Map, Set};
use crate::name::{Host, HostName, Name};
use crate::table::{Sum, Table};
use crate::time::UnixMillis;
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
    /// Those that return with another store.
    returning: Set<NodeId>,
    /// Those that advertise an address that nothing proves.
    unproved: Set<NodeId>,
    /// By the newest level that their binaries know.
    levels: Map<u32, Set<NodeId>>,
    /// Those that took their level up as members, by when they did.
    took_up: Set<(UnixMillis, NodeId)>,
    /// The digest of who they are, whether they vote and where they are reached.
    reach: Sum,
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
        self.of(self.hosts.get(host).into_iter().flat_map(|ids| ids.iter()))
    }

    /// The members whose role is voter.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.of(self.voters.iter())
    }

    /// The members that return with another store.
    pub fn returning(&self) -> impl Iterator<Item = &Member> {
        self.of(self.returning.iter())
    }

    /// The members that advertise an address that nothing proves.
    pub fn unproved(&self) -> impl Iterator<Item = &Member> {
        self.of(self.unproved.iter())
    }

    /// The members whose binaries know less than `level`, those that know least first.
    pub fn below_level(&self, level: u32) -> impl Iterator<Item = &Member> {
        self.of(self.levels.range(..level).flat_map(|(_, ids)| ids.iter()))
    }

    /// All members, those whose binaries know least first: to find the first that counts, not to be read to the end.
    pub fn lowest_level_first(&self) -> impl Iterator<Item = &Member> {
        self.of(self.levels.iter().flat_map(|(_, ids)| ids.iter()))
    }

    /// The newest level that the binary of any member knows.
    pub fn newest_level(&self) -> Option<u32> {
        self.levels.last_key_value().map(|(level, _)| *level)
    }

    /// The members that took the level that they know up at `time` or later. A learner that joined with it took nothing
    /// up.
    pub fn took_level_up_since(&self, time: UnixMillis) -> impl Iterator<Item = &Member> {
        self.of(self.took_up.range((time, NodeId(0))..).map(|(_, id)| id))
    }

    /// The digest of who the members are, whether they vote and where they are reached.
    pub const fn reach(&self) -> Sum {
        self.reach
    }

    fn of<'a>(&'a self, ids: impl Iterator<Item = &'a NodeId>) -> impl Iterator<Item = &'a Member> {
        ids.filter_map(|id| self.by_id.get(id))
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
            add(&mut self.hosts, host.clone(), id);
        }
        if member.suffrage == Suffrage::Voter {
            self.voters.insert(id);
        }
        if member.returning.is_some() {
            self.returning.insert(id);
        }
        if member.unproved().next().is_some() {
            self.unproved.insert(id);
        }
        add(&mut self.levels, member.feature_level, id);
        if !member.joined_with_its_level() {
            self.took_up.insert((member.level_since, id));
        }
        self.reach.add(reached(id, member));
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
            take(&mut self.hosts, host, id);
        }
        self.voters.remove(&id);
        self.returning.remove(&id);
        self.unproved.remove(&id);
        take(&mut self.levels, &member.feature_level, id);
        self.took_up.remove(&(member.level_since, id));
        self.reach.subtract(reached(id, member));
    }
}

/// What [`Members::reach`] is made of.
fn reached(id: NodeId, member: &Member) -> Sum {
    Sum::of(&(id, member.suffrage, &member.addresses))
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
    type Target = Table<NodeId, Member>;

    fn deref(&self) -> &Table<NodeId, Member> {
        &self.by_id
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
        for (id, member) in by_id.scan() {
            all.enter(*id, member);
        }
        Ok(Self { by_id, ..all })
    }
}
