//! A member: who it is, where it is, and the keys it is known by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::author::Made;
use super::hosts::{HostProof, LeafHosts};
use crate::id::{AuthorityId, Generation, KeyId, NodeId, StoreId, TokenId};
use crate::key::PublicKey;
use crate::name::{Address, Host, HostName, Name};
use crate::time::{UnixMillis, Validity};

/// Whether a member counts for a quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Suffrage {
    /// Receives the log, does not vote.
    Learner,
    /// Votes, holds a sealed copy of the CA key, may sign and administer.
    Voter,
}

impl core::fmt::Display for Suffrage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            Self::Learner => "learner",
            Self::Voter => "voter",
        })
    }
}

/// The certificate that a member is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// Its key.
    pub key: KeyId,
    /// 0 for the first, one more with each renewal.
    pub renewal: u64,
    /// The serial number to issue it under: positive, 16 bytes. A certificate made elsewhere has its own.
    pub serial: [u8; 16],
    /// When it is valid.
    pub validity: Validity,
    /// Who had it issued.
    pub issued: Issued,
}

impl Leaf {
    /// Whether it is past its end at `time`.
    pub const fn has_ended(&self, time: UnixMillis) -> bool {
        self.validity.not_after.0 < time.0
    }
}

/// How a certificate came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// The authority that signs it; none of the cluster's for a certificate made elsewhere.
    pub authority: Option<AuthorityId>,
    /// Who asked for it, and when.
    pub made: Made,
}

/// A certificate that follows the one in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// The certificate.
    pub leaf: Leaf,
    /// The hosts that it holds.
    pub hosts: LeafHosts,
}

/// The record of a member's certificate that was made elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignLeaf {
    /// The node name that the mapping rules make of it.
    pub mapped: HostName,
    /// When it is valid.
    pub validity: Validity,
}

/// What a member does, given by its token or by an admin, never by itself.
pub type Attributes = BTreeMap<String, String>;

/// Hosts that certificates of a member may hold, and why.
pub type Proved = BTreeMap<Host, HostProof>;

/// The public keys that a member brings to its enrollment; the leaf key comes in the CSR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberKeys {
    /// Signs endorsements, returns, views, receipts.
    pub identity: PublicKey,
    /// X25519 (RFC 7748): what the CA key is sealed to.
    pub sealing: [u8; 32],
    /// The node's DID.
    pub ucan: PublicKey,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its number.
    pub id: NodeId,
    /// Its name, unique among members.
    pub name: Name,
    /// Its role, as it is meant to be. Raft's membership follows.
    pub suffrage: Suffrage,
    /// Its long-lived keys.
    pub keys: MemberKeys,
    /// The store that counts as this member's: votes and answers under another one are refused.
    pub store: StoreId,
    /// The store that it returns with. It counts once the member has left the trust group.
    pub returning: Option<StoreId>,
    /// Its certificate.
    pub leaf: Leaf,
    /// The node name that its certificate, made elsewhere, maps to; none where the cluster issues. One member's only.
    pub mapped: Option<HostName>,
    /// Where it is reached: the first is dialed.
    pub addresses: Vec<Address>,
    /// The generation of their last change; 0 if there was none.
    pub addresses_changed: Generation,
    /// Why its certificates may hold these hosts.
    pub proved: Proved,
    /// The hosts that its certificate holds.
    pub hosts: LeafHosts,
    /// Its next certificate, on record and not used yet: either counts until then.
    pub renewed: Option<Renewed>,
    /// Its role, if its token gave one.
    pub role: Option<String>,
    /// Its attributes.
    pub attributes: Attributes,
    /// The token that admitted it; none for the founder.
    pub admitted_by: Option<TokenId>,
    /// When it was admitted.
    pub admitted_at: UnixMillis,
    /// Who made that token.
    pub token_made: Option<Made>,
    /// The newest level that its binary knows, as it last said.
    pub feature_level: u32,
    /// When it first said so.
    pub level_since: UnixMillis,
}

impl Member {
    /// The number of the newest renewal on record.
    pub fn renewal(&self) -> u64 {
        self.renewed.as_ref().map_or(self.leaf.renewal, |renewed| renewed.leaf.renewal)
    }

    /// The certificate on record for `key`: the member's own, or its next one.
    pub fn leaf_of(&self, key: KeyId) -> Option<&Leaf> {
        let next = self.renewed.as_ref().map(|renewed| &renewed.leaf);
        [Some(&self.leaf), next].into_iter().flatten().find(|leaf| leaf.key == key)
    }

    /// Every key on record for the member but its sealing key.
    pub fn keys(&self) -> impl Iterator<Item = KeyId> + '_ {
        let next = self.renewed.as_ref().map(|renewed| renewed.leaf.key);
        [self.keys.identity.id(), self.leaf.key, self.keys.ucan.id()].into_iter().chain(next)
    }

    /// Whether it has known its level since it joined, as a learner.
    pub fn joined_with_its_level(&self) -> bool {
        self.suffrage == Suffrage::Learner && self.level_since == self.admitted_at
    }

    /// Addresses that it advertises and nothing proves: it is dialed there, and no certificate of it holds them.
    pub fn unproved(&self) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(|address| !address.host.is_loopback() && !self.proved.contains_key(&address.host))
    }

    /// Whether `store` is this member's, now or after its return.
    pub fn owns(&self, store: StoreId) -> bool {
        self.store == store || self.returning == Some(store)
    }
}

/// A former member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evicted {
    /// Its name then.
    pub name: Name,
    /// The node name that its certificate mapped to, if it was made elsewhere.
    pub mapped: Option<HostName>,
    /// Its identity key, refused without end.
    pub identity: PublicKey,
    /// When it was evicted.
    pub at: UnixMillis,
    /// The generation from which it is refused.
    pub generation: Generation,
}
