//! The judgement on a connection: from what a handshake proved to a peer that may speak.
//!
//! Two steps. The transport proves possession of a key ([`Proof`]); [`verify`] then asks whether the cluster knows that
//! key. Only `verify` makes a [`VerifiedPeer`], and it is called again whenever trust changes. What belongs to one kind
//! of proof alone is never decided here: this file asks the proof.

use crate::id::{Generation, KeyId, NodeId};
use crate::principal::{Principal, Role};
use crate::time::UnixMillis;
use crate::trust::view::View;

mod certificate;
mod proof;
mod refusal;

pub use certificate::{CertificateClaims, CertificateProof};
pub use proof::Proof;
pub use refusal::Refusal;

/// The peer that a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Any member: the acceptor of the peer protocol.
    AnyNode,
    /// This member: a dialer knows the member that it dialed.
    Node(NodeId),
    /// Any principal: the acceptor of the client port.
    AnyPrincipal,
}

/// What a verified peer may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All that its kind may.
    Full,
    /// A member whose proof has expired: it may catch up with the trust group, ask for views, and renew. So a cluster
    /// that was off past every expiry forms again without an operator.
    Recovery,
}

/// A peer that the cluster knows, as of one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPeer {
    proof: Proof,
    generation: Generation,
    not_after: UnixMillis,
    scope: Scope,
}

impl VerifiedPeer {
    /// What the peer proved.
    pub const fn proof(&self) -> &Proof {
        &self.proof
    }

    /// The principal that the peer is.
    pub fn principal(&self) -> &Principal {
        self.proof.principal()
    }

    /// The member's number, if the peer is a member.
    pub fn node_id(&self) -> Option<NodeId> {
        self.principal().role.node_id()
    }

    /// The key that the peer proved to hold.
    pub fn key(&self) -> KeyId {
        self.proof.key()
    }

    /// The generation of the view that it was judged under.
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The last moment at which its proof counts; a connection of full scope ends then.
    pub const fn not_after(&self) -> UnixMillis {
        self.not_after
    }

    /// What it may ask for.
    pub const fn scope(&self) -> Scope {
        self.scope
    }
}

/// Decides whether the holder of `proof` may speak, under `view`, at `now` (the later of the local clock and the last
/// applied time).
pub fn verify(proof: &Proof, view: &View, wanted: Wanted, now: UnixMillis) -> Result<VerifiedPeer, Refusal> {
    let role = &proof.principal().role;
    if proof.principal().trust_domain != view.trust_domain {
        return Err(Refusal::TrustDomain);
    }
    proof.check_origin(view)?;
    // Before its keys, which are revoked with it: this is the more telling reason.
    if role.node_id().is_some_and(|id| view.evicted.contains_key(&id)) {
        return Err(Refusal::Evicted);
    }
    if view.revoked_keys.contains(&proof.key()) {
        return Err(Refusal::KeyRevoked);
    }
    match role {
        Role::Node(id) => {
            if matches!(wanted, Wanted::Node(dialed) if dialed != *id) {
                return Err(Refusal::WrongNode);
            }
            let member = view.members.get(id).ok_or(Refusal::NotAMember)?;
            if view.revoked_keys.contains(&member.keys.identity.id()) {
                return Err(Refusal::KeyRevoked);
            }
            proof.check_member(view, member)?;
            // Last, for a member only, and only where members speak: nothing else may be wrong with it.
            if wanted != Wanted::AnyPrincipal && proof.check_time(now) == Err(Refusal::Expired) {
                return Ok(verified(proof, view, Scope::Recovery));
            }
        }
        Role::Broker(_) | Role::Client(_) | Role::Admin(_) => {
            if wanted != Wanted::AnyPrincipal {
                return Err(Refusal::NotANode);
            }
            proof.check_principal(view, role, now)?;
        }
    }
    proof.check_time(now)?;
    Ok(verified(proof, view, Scope::Full))
}

/// Decides whether a connection that was judged to be of `scope` may stay open under `view`, at `now`. A connection of
/// full scope whose key was renewed since stays; its proof ends it.
///
/// Errors: as [`verify`], and [`Refusal::Expired`] where nothing is left of full scope but recovery: the peer dials
/// again.
pub fn verify_again(proof: &Proof, scope: Scope, view: &View, wanted: Wanted, now: UnixMillis) -> Result<(), Refusal> {
    match (scope, verify(proof, view, wanted, now)) {
        (Scope::Full, Ok(VerifiedPeer { scope: Scope::Recovery, .. })) => Err(Refusal::Expired),
        (Scope::Full | Scope::Recovery, Ok(_)) | (Scope::Full, Err(Refusal::Superseded)) => Ok(()),
        (Scope::Full | Scope::Recovery, Err(refusal)) => Err(refusal),
    }
}

/// Decides whether a peer that was verified before may still speak under `view`, without verifying a signature. A
/// member's key counts as long as its member does, also if it is ahead of the record or was renewed since.
pub fn still_known(view: &View, peer: &VerifiedPeer, now: UnixMillis) -> Result<(), Refusal> {
    let VerifiedPeer { proof, not_after, .. } = peer;
    if proof.principal().trust_domain != view.trust_domain {
        return Err(Refusal::TrustDomain);
    }
    if view.revoked_keys.contains(&proof.key()) {
        return Err(Refusal::KeyRevoked);
    }
    match &proof.principal().role {
        Role::Node(id) if view.evicted.contains_key(id) => return Err(Refusal::Evicted),
        Role::Node(id) if !view.members.contains_key(id) => return Err(Refusal::NotAMember),
        Role::Node(_) => {}
        role @ (Role::Broker(_) | Role::Client(_) | Role::Admin(_)) => proof.check_still_recorded(view, role)?,
    }
    if now.secs() <= not_after.secs() { Ok(()) } else { Err(Refusal::Expired) }
}

fn verified(proof: &Proof, view: &View, scope: Scope) -> VerifiedPeer {
    VerifiedPeer { proof: proof.clone(), generation: view.generation, not_after: proof.end_under(view), scope }
}

#[cfg(test)]
mod tests;
