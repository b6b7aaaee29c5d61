//! Who was admitted, issued, evicted and revoked, and when: read off the committed log's outcomes alone, never off the
//! state that is under test. From it follows which peers a member may accept, given how much of the log it has applied.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::id::{AuthorityId, ClusterId, KeyId, NodeId};
use countersign_core::key::PublicKey;
use countersign_core::peer::{CertificateClaims, Wanted};
use countersign_core::principal::{Role, TrustDomain};
use countersign_core::time::UnixMillis;
use countersign_core::trust::member::MemberKeys;

use crate::violation::{Broken, Unfounded};

/// What makes a certificate one of this cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) cluster: ClusterId,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) authority: AuthorityId,
}

/// A member's keys, and the entry that admitted them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admission {
    index: usize,
    pub(crate) keys: MemberKeys,
    pub(crate) leaf: KeyId,
}

/// The log, as far as identities are concerned. An index counts entries before it; an entry has effect for a member
/// that applied more entries than its index.
#[derive(Debug, Default)]
pub(crate) struct History {
    admitted: BTreeMap<NodeId, Admission>,
    evicted: BTreeMap<NodeId, usize>,
    revoked: BTreeMap<KeyId, usize>,
    issued: BTreeMap<(Role, KeyId), Vec<(usize, UnixMillis)>>,
    /// Leaf keys that the holder of an identity key really endorsed, with the renewal.
    endorsed: BTreeSet<(PublicKey, KeyId, u64)>,
}

impl History {
    pub(crate) fn admit(&mut self, index: usize, node: NodeId, keys: MemberKeys, leaf: KeyId) -> Result<(), Broken> {
        if let Some(key) = [keys.identity.id(), leaf, keys.ucan.id()].into_iter().find(|k| self.revoked.contains_key(k))
        {
            return Err(Broken::RevokedReturned(key));
        }
        match self.admitted.insert(node, Admission { index, keys, leaf }) {
            None => Ok(()),
            Some(_) => Err(Broken::NodeIdTwice(node)),
        }
    }

    pub(crate) fn evict(&mut self, index: usize, node: NodeId) {
        self.evicted.entry(node).or_insert(index);
        if let Some(admission) = self.admitted.get(&node) {
            for key in [admission.keys.identity.id(), admission.leaf, admission.keys.ucan.id()] {
                self.revoked.entry(key).or_insert(index);
            }
        }
    }

    pub(crate) fn revoke(&mut self, index: usize, key: KeyId) {
        self.revoked.entry(key).or_insert(index);
    }

    pub(crate) fn issue(&mut self, index: usize, role: &Role, key: KeyId, not_after: UnixMillis) -> Result<(), Broken> {
        if self.revoked.contains_key(&key) {
            return Err(Broken::RevokedReturned(key));
        }
        self.issued.entry((role.clone(), key)).or_default().push((index, not_after));
        Ok(())
    }

    /// The holder of `identity` endorses `leaf`.
    pub(crate) fn endorse(&mut self, identity: PublicKey, leaf: KeyId, renewal: u64) {
        self.endorsed.insert((identity, leaf, renewal));
    }

    pub(crate) fn is_endorsed(&self, identity: PublicKey, leaf: KeyId, renewal: u64) -> bool {
        self.endorsed.contains(&(identity, leaf, renewal))
    }

    pub(crate) fn admission(&self, node: NodeId) -> Option<&Admission> {
        self.admitted.get(&node)
    }

    pub(crate) fn is_evicted(&self, node: NodeId) -> bool {
        self.evicted.contains_key(&node)
    }

    /// When the last certificate ends that was issued to `role` for `key`, as far as `applied` entries say.
    pub(crate) fn issued_until(&self, applied: usize, role: &Role, key: KeyId) -> Option<UnixMillis> {
        let issued = self.issued.get(&(role.clone(), key)).map_or(&[][..], Vec::as_slice);
        issued.iter().filter(|(index, _)| *index < applied).map(|(_, not_after)| *not_after).max()
    }

    /// Whether a member that applied `applied` entries has ground to accept this peer.
    pub(crate) fn ground(
        &self,
        home: &Home,
        applied: usize,
        parts: &CertificateClaims,
        wanted: Wanted,
        now: UnixMillis,
    ) -> Result<(), Unfounded> {
        let seen = |index: Option<&usize>| index.is_some_and(|index| *index < applied);
        if parts.cluster.is_some_and(|cluster| cluster != home.cluster)
            || parts.principal.trust_domain != home.trust_domain
            || parts.authority != home.authority
        {
            return Err(Unfounded::Foreign);
        }
        if !parts.validity.contains(now) {
            return Err(Unfounded::OutOfTime);
        }
        if seen(self.revoked.get(&parts.key)) {
            return Err(Unfounded::Revoked);
        }
        let Role::Node(id) = &parts.principal.role else {
            if wanted != Wanted::AnyPrincipal {
                return Err(Unfounded::NotWanted);
            }
            // Whatever the certificate says: as long as one that was issued for the key.
            let last = self.issued_until(applied, &parts.principal.role, parts.key).ok_or(Unfounded::NotIssued)?;
            return if now.secs() <= last.secs() { Ok(()) } else { Err(Unfounded::OutOfTime) };
        };
        if matches!(wanted, Wanted::Node(dialed) if dialed != *id) {
            return Err(Unfounded::NotWanted);
        }
        let admission = self.admitted.get(id).filter(|a| a.index < applied).ok_or(Unfounded::NeverAdmitted)?;
        if seen(self.evicted.get(id)) {
            return Err(Unfounded::Evicted);
        }
        if seen(self.revoked.get(&admission.keys.identity.id())) {
            return Err(Unfounded::Revoked);
        }
        let vouched = parts
            .endorsement
            .as_ref()
            .is_some_and(|e| e.renewal > 0 && self.is_endorsed(admission.keys.identity, parts.key, e.renewal));
        if parts.key == admission.leaf || vouched { Ok(()) } else { Err(Unfounded::NotVouched) }
    }
}
