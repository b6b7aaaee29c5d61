//! Certificates of brokers, clients and admins: issued and revoked. The key is made where it is used; only its public
//! half comes here.

use std::sync::Arc;

use countersign_core::id::{Generation, KeyId, NodeId};
use countersign_core::principal::{Principal, Role};
use countersign_core::receipt::Barrier;
use countersign_core::time::Validity;
use countersign_core::trust::command::{Command, IssuePrincipal, RevokeKey, RevokePrincipal};
use countersign_core::trust::outcome::Outcome;
use countersign_core::trust::view::View;
use countersign_node::CommandError;

use crate::{Control, ControlError};

/// A certificate that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCertificate {
    /// For this principal.
    pub role: Role,
    /// Its public key, DER `SubjectPublicKeyInfo`.
    pub spki: Vec<u8>,
    /// Seconds that it lives; this member's setting if none are given.
    pub ttl_secs: Option<u64>,
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// Whose it is.
    pub principal: Principal,
    /// The certificate, DER.
    pub leaf: Vec<u8>,
    /// The authority's certificate, DER.
    pub authority: Vec<u8>,
    /// When it is valid.
    pub validity: Validity,
}

/// Keys that were revoked.
#[derive(Debug, Clone)]
pub struct RevokedCertificates {
    /// Whose they were, where that is on record.
    pub principal: Option<Principal>,
    /// How many.
    pub keys: usize,
    /// The generation from which they are refused.
    pub generation: Generation,
    /// What each member said about enforcing it; none if no leader told.
    pub barrier: Option<Barrier>,
}

impl Control {
    /// Issues a certificate to a broker, client or admin.
    ///
    /// # Errors
    /// [`ControlError::Command`].
    pub async fn issue_certificate(&self, wanted: NewCertificate) -> Result<IssuedCertificate, ControlError> {
        let NewCertificate { role, spki, ttl_secs } = wanted;
        let ttl_secs = ttl_secs.unwrap_or(self.parts.client_ttl_secs);
        let command = Command::IssuePrincipal(IssuePrincipal { role, spki: spki.clone(), ttl_secs });
        let done = self.command(command, &spki).await?;
        let mut chain = done.chain.iter().map(|der| der.to_vec());
        let (leaf, authority) = (chain.next(), chain.next());
        let grant = done.answered(|outcome| {
            let Outcome::Issued(grant) = outcome else { return None };
            Some(grant)
        })?;
        let (Some(leaf), Some(authority)) = (leaf, authority) else { return Err(CommandError::OtherOutcome.into()) };
        Ok(IssuedCertificate { principal: grant.principal, leaf, authority, validity: grant.validity })
    }

    /// Refuses a key for good, and every key that was renewed from it. Waits until every member enforces that or
    /// denies. Repeated, it changes nothing and waits once more.
    ///
    /// # Errors
    /// [`ControlError::UnknownKey`], [`ControlError::CertificateOfNode`], [`ControlError::Command`].
    pub async fn revoke_key(&self, key: KeyId) -> Result<RevokedCertificates, ControlError> {
        let view = self.newest();
        if let Some(node) = view.members.with_key(&key) {
            return Err(of_node(&view, node));
        }
        let principal = view.principals.holder_of_line(&key);
        // Only an authority made elsewhere can have certified a key that is on no record.
        let elsewhere = view.authorities.values().any(|authority| authority.imported);
        if principal.is_none() && !elsewhere && !view.revoked_keys.contains(&key) {
            return Err(ControlError::UnknownKey(key));
        }
        self.revoke(Command::RevokeKey(RevokeKey(key)), principal.map(|role| principal_of(&view, role))).await
    }

    /// Refuses every certificate that a broker, client or admin has; one issued later counts. Waits as
    /// [`Control::revoke_key`] does.
    ///
    /// # Errors
    /// [`ControlError::CertificateOfNode`], [`ControlError::Command`].
    pub async fn revoke_principal(&self, role: Role) -> Result<RevokedCertificates, ControlError> {
        let view = self.newest();
        if let Some(node) = role.node_id() {
            return Err(of_node(&view, node));
        }
        let principal = Some(principal_of(&view, &role));
        self.revoke(Command::RevokePrincipal(RevokePrincipal(role)), principal).await
    }

    async fn revoke(
        &self,
        command: Command,
        principal: Option<Principal>,
    ) -> Result<RevokedCertificates, ControlError> {
        let (generation, keys) = self.command(command, &[]).await?.answered(|outcome| {
            let Outcome::Revoked { generation, keys } = outcome else { return None };
            Some((generation, keys))
        })?;
        let barrier = self.await_barrier(generation).await;
        Ok(RevokedCertificates { principal, keys, generation, barrier })
    }

    /// The state applied here; the view that is published may be a moment behind it.
    fn newest(&self) -> Arc<View> {
        let applied = self.parts.state.read().view().cloned();
        applied.unwrap_or_else(|| self.view())
    }
}

fn principal_of(view: &View, role: &Role) -> Principal {
    Principal { trust_domain: view.trust_domain.clone(), role: role.clone() }
}

fn of_node(view: &View, node: NodeId) -> ControlError {
    let node = view.members.get(&node).map_or_else(|| node.to_string(), |member| member.name.to_string());
    ControlError::CertificateOfNode { node }
}
