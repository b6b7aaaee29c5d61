//! Proof by certificate (RFC 5280): what a verified path states, and what the cluster's record says of it.
//!
//! The one file of this module that knows authorities, endorsements and validity. It never verifies a signature of a
//! path: that was done where the proof was asserted.

use std::sync::Arc;

use crate::id::{AuthorityId, ClusterId, KeyId};
use crate::key::Endorsement;
use crate::peer::Refusal;
use crate::principal::{Principal, Role};
use crate::time::{UnixMillis, Validity};
use crate::trust::member::Member;
use crate::trust::view::{AuthorityPhase, View};

/// What a certificate and its path state about the holder of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateClaims {
    /// The holder: the certificate's one URI SAN, or the result of an explicit mapping rule.
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

/// Proof that a handshake established [`CertificateClaims`]: the path verified and the key was used. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateProof(Arc<CertificateClaims>);

impl CertificateProof {
    /// Asserts that the claims were proven. Called in the certificate verifier and nowhere else: `cargo xtask tidy`
    /// searches for it.
    pub fn asserted(claims: CertificateClaims) -> Self {
        Self(Arc::new(claims))
    }

    /// The claims that were proven.
    pub fn claims(&self) -> &CertificateClaims {
        &self.0
    }

    /// Whether it is of this cluster, under an authority that the cluster trusts.
    pub(super) fn check_origin(&self, view: &View) -> Result<(), Refusal> {
        if self.0.cluster.is_some_and(|cluster| cluster != view.cluster) {
            return Err(Refusal::Cluster);
        }
        match view.authorities.get(&self.0.authority).map(|a| a.phase) {
            Some(AuthorityPhase::Prepared | AuthorityPhase::Active) => Ok(()),
            Some(AuthorityPhase::Tainted) | None => Err(Refusal::Authority),
        }
    }

    /// Whether `now` is within the validity of the whole path.
    pub(super) fn check_time(&self, now: UnixMillis) -> Result<(), Refusal> {
        let validity = self.0.validity;
        if now.secs() < validity.not_before.secs() {
            return Err(Refusal::NotYetValid);
        }
        if validity.contains(now) { Ok(()) } else { Err(Refusal::Expired) }
    }

    /// Whether the key is one of `member`.
    ///
    /// The endorsement of a key on record is not verified again: `apply` verified it before it recorded the key
    /// (`EnrollmentRequest::verify_identity`, `TrustState::renew`), and the founder records its own. Any other key must
    /// show one that holds.
    pub(super) fn check_member(&self, view: &View, member: &Member) -> Result<(), Refusal> {
        if member.leaf_of(self.0.key).is_some() { Ok(()) } else { self.check_endorsed(view, member) }
    }

    /// A key that is not on record must be endorsed, and newer than the one that is: this member may be the one behind.
    fn check_endorsed(&self, view: &View, member: &Member) -> Result<(), Refusal> {
        let endorsement = self.0.endorsement.as_ref().ok_or(Refusal::KeyUnknown)?;
        if endorsement.identity != member.keys.identity {
            return Err(Refusal::Endorsement);
        }
        endorsement.verify(view.cluster, self.0.key).map_err(|_| Refusal::Endorsement)?;
        if endorsement.renewal > member.renewal() { Ok(()) } else { Err(Refusal::Superseded) }
    }

    /// Whether the key is one of the broker, client or admin `role` at `now`.
    pub(super) fn check_principal(&self, view: &View, role: &Role, now: UnixMillis) -> Result<(), Refusal> {
        if let Some(issued) = view.principals.get(role).and_then(|keys| keys.get(&self.0.key)) {
            // As recorded, whatever the certificate says: a stolen CA key prolongs nothing.
            return if now.secs() <= issued.not_after.secs() { Ok(()) } else { Err(Refusal::Expired) };
        }
        let imported = view.authorities.get(&self.0.authority).is_some_and(|a| a.imported);
        check_unrecorded(view, role, imported)
    }

    /// Whether the key may still be one of `role`, without regard to time: for a connection that was judged before.
    pub(super) fn check_still_recorded(&self, view: &View, role: &Role) -> Result<(), Refusal> {
        if view.principals.get(role).is_some_and(|keys| keys.contains_key(&self.0.key)) {
            return Ok(());
        }
        let elsewhere = view.authorities.values().any(|a| a.imported && a.phase != AuthorityPhase::Tainted);
        check_unrecorded(view, role, elsewhere)
    }

    /// The last moment at which it counts under `view`: as recorded, if the certificate says more.
    pub(super) fn end_under(&self, view: &View) -> UnixMillis {
        let not_after = self.0.validity.not_after;
        let recorded = view.principals.get(&self.0.principal.role).and_then(|keys| keys.get(&self.0.key));
        recorded.map_or(not_after, |issued| issued.not_after.min(not_after))
    }
}

/// An authority made elsewhere (`imported`) has issued certificates that the cluster never saw; admins are always on
/// record.
fn check_unrecorded(view: &View, role: &Role, imported: bool) -> Result<(), Refusal> {
    if view.revoked_principals.contains(role) {
        return Err(Refusal::PrincipalRevoked);
    }
    match role {
        Role::Broker(_) | Role::Client(_) if imported => Ok(()),
        Role::Broker(_) | Role::Client(_) | Role::Admin(_) | Role::Node(_) => Err(Refusal::PrincipalUnknown),
    }
}
