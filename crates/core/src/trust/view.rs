//! The view: what the cluster is, as every handshake sees it. Published whole; a copy shares what did not change with
//! its original.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::attestation::Attestation;
use super::member::{Issued, Member};
pub use super::tables::{Evictions, Groups, IssuedKeys, Members, Principals};
use crate::authz::label::Labels;
use crate::authz::policy::Policy;
use crate::id::{AuthorityId, ClusterId, Generation, GroupId, Incarnation, KeyId, NodeId};
use crate::key::PublicKey;
use crate::name::{Host, HostName, Name};
use crate::principal::{Role, TrustDomain};
use crate::table::{Table, TableSet};
use crate::time::{UnixMillis, Validity};

/// The public half of an authority's key: with it `apply` checks that a voter opened its sealed copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthorityKey {
    /// Ed25519 (RFC 8032).
    Ed25519(PublicKey),
    /// ECDSA on P-256 with SHA-256, as an SEC1 point (RFC 5480 §2.2): authorities made elsewhere.
    P256(Vec<u8>),
}

/// Where an authority is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthorityPhase {
    /// Trusted by all, signs nothing yet.
    Prepared,
    /// Trusted, signs.
    Active,
    /// Trusted for nothing: its key may be in wrong hands.
    Tainted,
}

/// One CA key of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// The self-signed certificate, DER.
    pub certificate: Vec<u8>,
    /// Its public key; none where the private key is held elsewhere, so that no member holds a copy and nothing is
    /// issued.
    pub key: Option<AuthorityKey>,
    /// Where it is in its life.
    pub phase: AuthorityPhase,
    /// When it is valid; what it signs ends with it.
    pub validity: Validity,
    /// Made outside the cluster: broker and client certificates that it signed there are accepted without a record.
    pub imported: bool,
}

/// A certificate issued to a broker, client or admin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedKey {
    /// Its last moment of validity.
    pub not_after: UnixMillis,
    /// Its first.
    pub not_before: UnixMillis,
    /// Seconds that it was issued for, which a renewal is issued for too.
    pub ttl_secs: u64,
    /// The key that it was renewed with, if no operator issued it. A revocation of that key revokes this one too.
    pub renewed_from: Option<KeyId>,
    /// Who had it issued.
    pub issued: Issued,
}

/// What the cluster is at one generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name, for people.
    pub name: Name,
    /// The namespace of its principals.
    pub trust_domain: TrustDomain,
    /// How often it was restarted from a survivor.
    pub incarnation: Incarnation,
    /// This view's version.
    pub generation: Generation,
    /// The trust bundle.
    pub authorities: BTreeMap<AuthorityId, Authority>,
    /// The members of the cluster.
    pub members: Members,
    /// Who belonged once and is refused now.
    pub evicted: Evictions,
    /// Brokers, clients and admins.
    pub principals: Principals,
    /// Roles and attributes of brokers, clients and admins; a member has its own.
    pub labels: Table<Role, Labels>,
    /// Who may do what. Shared: copying a view does not copy it.
    pub policy: Arc<Policy>,
    /// Keys refused permanently, whatever certificate carries them.
    pub revoked_keys: TableSet<KeyId>,
    /// Brokers, clients and admins whose earlier certificates are revoked: only certificates issued since, and on
    /// record, count.
    pub revoked_principals: TableSet<Role>,
    /// Members assigned to each group but the trust group, which all members belong to.
    pub groups: Groups,
    /// Names that the certificates of all members hold: of a load balancer, say. The one exception to one host, one
    /// member.
    pub client_names: BTreeSet<Host>,
    /// The last of the attestations by which a member that was away recognizes its cluster.
    pub attestation: Arc<Attestation>,
    /// The number of the newest that enough voters have signed, as they have all before it.
    pub attested: u64,
}

impl View {
    /// The view without its rules, so that no rule allows anything. For a reader that needs to know the members, and is
    /// told the rules in another way.
    #[must_use]
    pub fn without_policy(&self) -> Self {
        Self { policy: Arc::default(), labels: Table::default(), ..self.clone() }
    }

    /// The authority that signs now.
    pub fn active_authority(&self) -> Option<(AuthorityId, &Authority)> {
        self.authorities.iter().find(|(_, a)| a.phase == AuthorityPhase::Active).map(|(id, a)| (*id, a))
    }

    /// The member of this name.
    pub fn member_named(&self, name: &Name) -> Option<&Member> {
        self.members.named(name)
    }

    /// Whether the key of the authority that signs now is held elsewhere: members bring certificates of their own.
    pub fn key_is_elsewhere(&self) -> bool {
        self.active_authority().is_some_and(|(_, authority)| authority.key.is_none())
    }

    /// The member that this mapped node name is bound to, or the last one that it was bound to until its eviction.
    pub fn node_mapped(&self, name: &HostName) -> Option<NodeId> {
        self.members.mapped(name).or_else(|| self.evicted.mapped(name))
    }

    /// Whether `node` may speak for `group`: `None` while the assignment is not known here.
    pub fn assigned(&self, group: GroupId, node: NodeId) -> Option<bool> {
        if group == GroupId::TRUST {
            return Some(self.members.contains_key(&node));
        }
        self.groups.get(&group).map(|members| members.contains(&node))
    }
}
