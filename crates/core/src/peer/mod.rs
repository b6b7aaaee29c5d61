//! The judgement on a connection: from what the handshake proved to a peer that may speak.
//!
//! Two steps. The transport proves possession of a key under a chain ([`Evidence`]); [`judge`] then asks whether the
//! cluster knows that key. Only `judge` makes a [`VerifiedPeer`], and it is called again whenever trust changes.

use serde::{Deserialize, Serialize};

use crate::id::{AuthorityId, ClusterId, Generation, KeyId, NodeId};
use crate::key::Endorsement;
use crate::principal::{Principal, Role};
use crate::time::{UnixMillis, Validity};
use crate::trust::member::Member;
use crate::trust::view::{AuthorityPhase, View};

/// What a handshake proved about the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceParts {
    /// Who the certificate says it is: its one URI SAN, or an explicit mapping rule.
    pub principal: Principal,
    /// The key whose possession was proven.
    pub key: KeyId,
    /// The authority that the verified path ends at.
    pub authority: AuthorityId,
    /// The cluster that the authority's certificate names; none in one made elsewhere.
    pub cluster: Option<ClusterId>,
    /// The identity key's word for this leaf key.
    pub endorsement: Option<Endorsement>,
    /// When the whole path is valid.
    pub validity: Validity,
}

/// Proof that a handshake established [`EvidenceParts`]: the chain verified and the key was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence(EvidenceParts);

impl Evidence {
    /// Asserts that the parts were proven. Called in the certificate verifier and in the pre-shared-key handshake, nowhere
    /// else: `cargo xtask verify` searches for it.
    pub const fn asserted(parts: EvidenceParts) -> Self {
        Self(parts)
    }

    /// What was proven.
    pub const fn parts(&self) -> &EvidenceParts {
        &self.0
    }
}

/// Whom a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Any member: the acceptor of the peer protocol.
    AnyNode,
    /// This member: a dialer knows whom it dialed.
    Node(NodeId),
    /// Any principal: the acceptor of the service protocol.
    AnyPrincipal,
}

/// What a verified peer may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All that its kind may.
    Full,
    /// A member whose certificate has expired: it may catch up with the trust group, ask for views, and renew. So a cluster
    /// that was off past every expiry forms again unaided.
    Recovery,
}

/// A peer that the cluster knows, as of one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPeer {
    principal: Principal,
    key: KeyId,
    generation: Generation,
    not_after: UnixMillis,
    scope: Scope,
}

impl VerifiedPeer {
    /// Who.
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The member's number, if the peer is a member.
    pub const fn node_id(&self) -> Option<NodeId> {
        self.principal.role.node_id()
    }

    /// The key that the peer proved to hold.
    pub const fn key(&self) -> KeyId {
        self.key
    }

    /// The generation of the view that it was judged under.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The last moment at which its certificate is valid; a connection of full scope ends then.
    pub const fn not_after(&self) -> UnixMillis {
        self.not_after
    }

    /// What it may ask for.
    pub const fn scope(&self) -> Scope {
        self.scope
    }
}

/// Why a peer is refused. The number travels in `Refused`; the text stays in this end's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
#[repr(u16)]
pub enum Refusal {
    /// The certificate is of another trust domain.
    #[error("certificate belongs to another trust domain")]
    TrustDomain = 1,
    /// The authority is of another cluster.
    #[error("certificate belongs to another cluster")]
    Cluster = 2,
    /// The authority is not, or no longer, in the trust bundle.
    #[error("certificate was issued by an authority that this cluster does not trust")]
    Authority = 3,
    /// Before its validity.
    #[error("certificate is not valid yet")]
    NotYetValid = 4,
    /// After its validity.
    #[error("certificate has expired")]
    Expired = 5,
    /// The key was revoked.
    #[error("key is revoked")]
    KeyRevoked = 6,
    /// The member was evicted.
    #[error("node was evicted from this cluster")]
    Evicted = 7,
    /// No such member.
    #[error("node is not a member of this cluster")]
    NotAMember = 8,
    /// The key is neither the recorded one nor endorsed.
    #[error("key is not the one on record and no identity key vouches for it")]
    KeyUnknown = 9,
    /// The endorsement does not verify, or is of another identity key.
    #[error("endorsement of the key does not verify")]
    Endorsement = 10,
    /// The endorsement is of a renewal before the recorded one.
    #[error("certificate is an earlier one, renewed since")]
    Superseded = 11,
    /// A client, broker or admin on a port for members.
    #[error("only members may speak here")]
    NotANode = 12,
    /// Another member than the one dialed.
    #[error("reached another node than the one dialed")]
    WrongNode = 13,
    /// No such broker, client or admin, or not with this key.
    #[error("principal has no certificate with this key on record")]
    PrincipalUnknown = 14,
    /// The TLS handshake failed: no certificate, a foreign chain, a wrong version.
    #[error("TLS handshake failed")]
    Handshake = 15,
    /// Not exactly one known application protocol.
    #[error("no known application protocol, or more than one")]
    Protocol = 16,
    /// Too many handshakes, or too many failures from this source.
    #[error("too many attempts; slow down")]
    Overloaded = 17,
    /// The handshake took too long.
    #[error("handshake took too long")]
    Deadline = 18,
    /// This member serves no such connections yet.
    #[error("this member is not ready to serve such connections")]
    NotReady = 19,
    /// All certificates of this broker or client were revoked.
    #[error("certificates of this principal were revoked")]
    PrincipalRevoked = 20,
    /// An operator has cut the member off here, ahead of the cluster.
    #[error("node is in quarantine here")]
    Quarantined = 21,
    /// This member has no lease.
    #[error("this member has not heard lately what is revoked, and serves no client")]
    NoLease = 22,
}

impl Refusal {
    /// Every refusal, in the order of its number.
    pub const ALL: [Self; 22] = [
        Self::TrustDomain,
        Self::Cluster,
        Self::Authority,
        Self::NotYetValid,
        Self::Expired,
        Self::KeyRevoked,
        Self::Evicted,
        Self::NotAMember,
        Self::KeyUnknown,
        Self::Endorsement,
        Self::Superseded,
        Self::NotANode,
        Self::WrongNode,
        Self::PrincipalUnknown,
        Self::Handshake,
        Self::Protocol,
        Self::Overloaded,
        Self::Deadline,
        Self::NotReady,
        Self::PrincipalRevoked,
        Self::Quarantined,
        Self::NoLease,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The refusal of a number, if this build knows it.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.code() == code)
    }

    /// A stable word for metrics and JSON, such as `key-revoked`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TrustDomain => "trust-domain",
            Self::Cluster => "cluster",
            Self::Authority => "authority",
            Self::NotYetValid => "not-yet-valid",
            Self::Expired => "expired",
            Self::KeyRevoked => "key-revoked",
            Self::Evicted => "evicted",
            Self::NotAMember => "not-a-member",
            Self::KeyUnknown => "key-unknown",
            Self::Endorsement => "endorsement",
            Self::Superseded => "superseded",
            Self::NotANode => "not-a-node",
            Self::WrongNode => "wrong-node",
            Self::PrincipalUnknown => "principal-unknown",
            Self::Handshake => "handshake",
            Self::Protocol => "protocol",
            Self::Overloaded => "overloaded",
            Self::Deadline => "deadline",
            Self::NotReady => "not-ready",
            Self::PrincipalRevoked => "principal-revoked",
            Self::Quarantined => "quarantined",
            Self::NoLease => "no-lease",
        }
    }
}

/// Decides whether the holder of `evidence` may speak, under `view`, at `now` (the later of the local clock and the
/// last applied time).
pub fn judge(view: &View, evidence: &Evidence, wanted: Wanted, now: UnixMillis) -> Result<VerifiedPeer, Refusal> {
    let parts = evidence.parts();
    check_path(view, parts)?;
    // Before its keys, which are revoked with it: this is the more telling reason.
    if parts.principal.role.node_id().is_some_and(|id| view.evicted.contains_key(&id)) {
        return Err(Refusal::Evicted);
    }
    if view.revoked_keys.contains(&parts.key) {
        return Err(Refusal::KeyRevoked);
    }
    match &parts.principal.role {
        Role::Node(id) => {
            if matches!(wanted, Wanted::Node(dialed) if dialed != *id) {
                return Err(Refusal::WrongNode);
            }
            check_member(view, parts, *id)?;
            // Last, for a member only, and only where members speak: nothing else may be wrong with it.
            if wanted != Wanted::AnyPrincipal && check_validity(parts, now) == Err(Refusal::Expired) {
                return Ok(verified(view, parts, Scope::Recovery));
            }
        }
        role @ (Role::Broker(_) | Role::Client(_) | Role::Admin(_)) => {
            if wanted != Wanted::AnyPrincipal {
                return Err(Refusal::NotANode);
            }
            check_principal(view, parts, role, now)?;
        }
    }
    check_validity(parts, now)?;
    Ok(verified(view, parts, Scope::Full))
}

/// Decides whether a peer that was verified before may still speak under `view`: for whoever holds it without its evidence.
/// A member's key that was endorsed ahead of the record counts as long as its member does.
pub fn still_known(view: &View, peer: &VerifiedPeer, now: UnixMillis) -> Result<(), Refusal> {
    let VerifiedPeer { principal, key, not_after, .. } = peer;
    if principal.trust_domain != view.trust_domain {
        return Err(Refusal::TrustDomain);
    }
    if view.revoked_keys.contains(key) {
        return Err(Refusal::KeyRevoked);
    }
    match &principal.role {
        Role::Node(id) if view.evicted.contains_key(id) => return Err(Refusal::Evicted),
        Role::Node(id) if !view.members.contains_key(id) => return Err(Refusal::NotAMember),
        Role::Node(_) => {}
        role @ (Role::Broker(_) | Role::Client(_) | Role::Admin(_)) => {
            let recorded = view.principals.get(role).is_some_and(|keys| keys.contains_key(key));
            let elsewhere = view.authorities.values().any(|a| a.imported && a.phase != AuthorityPhase::Tainted);
            match role {
                _ if recorded => {}
                _ if view.revoked_principals.contains(role) => return Err(Refusal::PrincipalRevoked),
                Role::Broker(_) | Role::Client(_) if elsewhere => {}
                Role::Node(_) | Role::Broker(_) | Role::Client(_) | Role::Admin(_) => {
                    return Err(Refusal::PrincipalUnknown);
                }
            }
        }
    }
    if now.secs() <= not_after.secs() { Ok(()) } else { Err(Refusal::Expired) }
}

fn verified(view: &View, parts: &EvidenceParts, scope: Scope) -> VerifiedPeer {
    // As recorded, if the certificate says more.
    let recorded = view.principals.get(&parts.principal.role).and_then(|keys| keys.get(&parts.key));
    let not_after = parts.validity.not_after;
    VerifiedPeer {
        principal: parts.principal.clone(),
        key: parts.key,
        generation: view.generation,
        not_after: recorded.map_or(not_after, |issued| issued.not_after.min(not_after)),
        scope,
    }
}

fn check_path(view: &View, parts: &EvidenceParts) -> Result<(), Refusal> {
    if parts.principal.trust_domain != view.trust_domain {
        return Err(Refusal::TrustDomain);
    }
    if parts.cluster.is_some_and(|cluster| cluster != view.cluster) {
        return Err(Refusal::Cluster);
    }
    match view.authorities.get(&parts.authority).map(|a| a.phase) {
        Some(AuthorityPhase::Prepared | AuthorityPhase::Active) => Ok(()),
        Some(AuthorityPhase::Tainted) | None => Err(Refusal::Authority),
    }
}

fn check_validity(parts: &EvidenceParts, now: UnixMillis) -> Result<(), Refusal> {
    if now.secs() < parts.validity.not_before.secs() {
        return Err(Refusal::NotYetValid);
    }
    if parts.validity.contains(now) { Ok(()) } else { Err(Refusal::Expired) }
}

fn check_member(view: &View, parts: &EvidenceParts, id: NodeId) -> Result<(), Refusal> {
    let member = view.members.get(&id).ok_or(Refusal::NotAMember)?;
    if view.revoked_keys.contains(&member.keys.identity.id()) {
        return Err(Refusal::KeyRevoked);
    }
    // The endorsement of a key on record is not verified again: `apply` verified it before it recorded the key
    // (`EnrollmentRequest::verify_identity`, `TrustState::renew`), and the founder records its own. Any other key must show one
    // that holds.
    if member.leaf_of(parts.key).is_some() { Ok(()) } else { check_endorsed(view, parts, member) }
}

/// A key that is not on record must be endorsed, and newer than the one that is: this member may be the one behind.
fn check_endorsed(view: &View, parts: &EvidenceParts, member: &Member) -> Result<(), Refusal> {
    let endorsement = parts.endorsement.as_ref().ok_or(Refusal::KeyUnknown)?;
    if endorsement.identity != member.keys.identity {
        return Err(Refusal::Endorsement);
    }
    endorsement.verify(view.cluster, parts.key).map_err(|_| Refusal::Endorsement)?;
    if endorsement.renewal > member.renewal() { Ok(()) } else { Err(Refusal::Superseded) }
}

fn check_principal(view: &View, parts: &EvidenceParts, role: &Role, now: UnixMillis) -> Result<(), Refusal> {
    if let Some(issued) = view.principals.get(role).and_then(|keys| keys.get(&parts.key)) {
        // As recorded, whatever the certificate says: a stolen CA key prolongs nothing.
        return if now.secs() <= issued.not_after.secs() { Ok(()) } else { Err(Refusal::Expired) };
    }
    // An authority made elsewhere has issued certificates that the cluster never saw; admins are always on record.
    let imported = view.authorities.get(&parts.authority).is_some_and(|a| a.imported);
    if view.revoked_principals.contains(role) {
        return Err(Refusal::PrincipalRevoked);
    }
    match role {
        Role::Broker(_) | Role::Client(_) if imported => Ok(()),
        Role::Broker(_) | Role::Client(_) | Role::Admin(_) | Role::Node(_) => Err(Refusal::PrincipalUnknown),
    }
}

#[cfg(test)]
mod tests;
