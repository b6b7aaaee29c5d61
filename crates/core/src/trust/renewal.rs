//! Renewal: a member's next certificate is on record before it exists, and the one before it counts until the next is
//! first used. So a crash at any step leaves the member with a certificate that its peers accept.

use super::author::Made;
use super::check::Checked;
use super::member::{Member, Renewed};
use super::outcome::{Outcome, Refused, Signer};
use super::state::{Applied, LeafOf, TrustState};
use crate::id::{KeyId, NodeId};
use crate::key::Endorsement;
use crate::time::UnixMillis;

impl TrustState {
    /// Whether `key` may become the member's next leaf key; `Some` where it is already.
    /// `time` is that at which the member is answered.
    pub(super) fn check_renewal(
        &self,
        node: NodeId,
        key: KeyId,
        endorsement: &Endorsement,
        time: UnixMillis,
    ) -> Checked {
        let member = self.member(node)?;
        let view = self.current()?;
        let (authority, record) = view.active_authority().ok_or(Refused::NoCluster)?;
        if record.key.is_none() {
            return Err(Refused::KeyElsewhere(authority));
        }
        if endorsement.identity != member.keys.identity || endorsement.verify(view.cluster, key).is_err() {
            return Err(Refused::Signature(Signer::Identity));
        }
        // A member that was off for longer than the certificate lived never got it: its key is certified once more.
        let lapsed = member.renewed.as_ref().is_some_and(|next| next.leaf.key == key && next.leaf.has_ended(time));
        if !lapsed && member.leaf_of(key).is_some_and(|leaf| leaf.renewal == endorsement.renewal) {
            return self.renewed_outcome(node, key, true).map(Some);
        }
        let next = member.renewal().saturating_add(1);
        if endorsement.renewal != next {
            return Err(Refused::RenewalOutOfOrder { node, next });
        }
        if view.revoked_keys.contains(&key) {
            return Err(Refused::KeyRevoked);
        }
        match view.members.with_key(&key) {
            Some(holder) if holder != node || !lapsed => return Err(Refused::KeyTaken(holder)),
            Some(_) | None => {}
        }
        Ok(None)
    }

    /// Records `key` as the member's next leaf key, vouched for by its identity key: no other proof is needed, and nobody
    /// else can give this one. The same key again gets the same answer.
    pub(super) fn renew(&mut self, node: NodeId, key: KeyId, endorsement: &Endorsement, made: &Made) -> Applied {
        if let Some(repeated) = self.check_renewal(node, key, endorsement, self.time())? {
            return Ok(repeated);
        }
        let member = self.member(node)?;
        let view = self.current()?;
        let authority = view.active_authority().ok_or(Refused::NoCluster)?;
        let leaf = self.leaf(LeafOf { node, key, renewal: endorsement.renewal }, None, authority, made)?;
        let renewed = Renewed { leaf, hosts: view.leaf_hosts(member) };
        self.change(|view| {
            view.members.update(&node, |member| member.renewed = Some(renewed));
        })?;
        self.renewed_outcome(node, key, false)
    }

    /// Whether the member may use its next certificate; `Some` where it does already.
    pub(super) fn check_adoption(&self, node: NodeId, renewal: u64) -> Checked {
        let member = self.member(node)?;
        let generation = self.current()?.generation;
        if member.leaf.renewal == renewal {
            return Ok(Some(Outcome::Done(generation)));
        }
        match &member.renewed {
            Some(renewed) if renewed.leaf.renewal == renewal => Ok(None),
            _ => Err(Refused::RenewalOutOfOrder { node, next: member.renewal() }),
        }
    }

    /// The member uses its next certificate: the one before it is refused from now on.
    pub(super) fn adopt(&mut self, node: NodeId, renewal: u64) -> Applied {
        if let Some(done) = self.check_adoption(node, renewal)? {
            return Ok(done);
        }
        self.change(|view| {
            view.members.update(&node, |member| {
                if let Some(Renewed { leaf, hosts }) = member.renewed.take() {
                    (member.leaf, member.hosts) = (leaf, hosts);
                }
            });
        })
    }

    fn renewed_outcome(&self, node: NodeId, key: KeyId, repeated: bool) -> Applied {
        let Outcome::Admitted(mut admitted) = self.admitted_outcome(node, repeated)? else {
            return Err(Refused::NoSuchNode(node));
        };
        // One that is adopted already is signed as it was.
        if let Some(Renewed { leaf, hosts }) = self.member(node)?.renewed.clone().filter(|next| next.leaf.key == key) {
            if let Some(grant) = &mut admitted.grant {
                (grant.serial, grant.validity) = (leaf.serial, leaf.validity);
            }
            (admitted.leaf, admitted.hosts) = (leaf, hosts.all());
        }
        Ok(Outcome::Renewed(admitted))
    }
}

impl Member {
    /// The number of the newest renewal on record.
    pub fn renewal(&self) -> u64 {
        self.renewed.as_ref().map_or(self.leaf.renewal, |renewed| renewed.leaf.renewal)
    }

    /// The certificate on record for `key`: the member's own, or its next one.
    pub fn leaf_of(&self, key: KeyId) -> Option<&super::member::Leaf> {
        let next = self.renewed.as_ref().map(|renewed| &renewed.leaf);
        [Some(&self.leaf), next].into_iter().flatten().find(|leaf| leaf.key == key)
    }

    /// Every key on record for the member but its sealing key.
    pub fn keys(&self) -> impl Iterator<Item = KeyId> + '_ {
        let next = self.renewed.as_ref().map(|renewed| renewed.leaf.key);
        [self.keys.identity.id(), self.leaf.key, self.keys.ucan.id()].into_iter().chain(next)
    }
}
