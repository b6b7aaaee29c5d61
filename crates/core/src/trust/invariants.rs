//! What must always hold of the state: checked by tests and by the simulation after every command.

use std::collections::BTreeSet;

use super::member::{Member, Suffrage};
use super::state::TrustState;
use super::view::View;
use crate::id::{NodeId, RequestId, TokenId};

/// An invariant of the state does not hold: a defect of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvariantBroken {
    /// A node id is out of place, assigned twice, or of an evicted node.
    #[error("node id {0} is out of place")]
    NodeId(NodeId),
    /// Two members share a name, or the node name that their certificates map to.
    #[error("name of node {0} is used twice")]
    NameTwice(NodeId),
    /// A member's identity key is revoked.
    #[error("node {0} is a member with a revoked key")]
    RevokedMember(NodeId),
    /// A member has no enrollment on record.
    #[error("node {0} was never admitted")]
    NotAdmitted(NodeId),
    /// Uses and uses left do not add up.
    #[error("join token {0} was used more or less often than recorded")]
    TokenUses(TokenId),
    /// A key is on record for two purposes or two members.
    #[error("a key of node {0} is on record twice")]
    KeyTwice(NodeId),
    /// A store is on record for two members.
    #[error("a store of node {0} is on record twice")]
    StoreTwice(NodeId),
    /// A certificate of a member may hold a host that is another's.
    #[error("a host of node {0} is another's")]
    HostTwice(NodeId),
    /// The attestations are out of order, or the view does not show the last one.
    #[error("attestations are out of order")]
    Attestations,
    /// A client port is on record for a node that is no member.
    #[error("node {0} has a client port and is no member")]
    ClientPort(NodeId),
    /// No member's role is voter.
    #[error("there is no voter")]
    NoVoter,
}

impl TrustState {
    /// Checks what must always hold; used by tests and simulation.
    pub fn check_invariants(&self) -> Result<(), InvariantBroken> {
        let Some(view) = &self.view else { return Ok(()) };
        let mut names = BTreeSet::new();
        let mut mapped = BTreeSet::new();
        for (id, member) in view.members.scan() {
            if member.id != *id || id.0 >= self.next_node || view.evicted.contains_key(id) {
                return Err(InvariantBroken::NodeId(*id));
            }
            if !names.insert(&member.name) {
                return Err(InvariantBroken::NameTwice(*id));
            }
            if member.mapped.as_ref().is_some_and(|name| !mapped.insert(name)) {
                return Err(InvariantBroken::NameTwice(*id));
            }
            if view.revoked_keys.contains(&member.keys.identity.id()) {
                return Err(InvariantBroken::RevokedMember(*id));
            }
            if member
                .admitted_by
                .is_some_and(|t| !self.enrollments.scan().iter().any(|((token, _), n)| *token == t && n == id))
            {
                return Err(InvariantBroken::NotAdmitted(*id));
            }
        }
        let overspent = self.tokens.scan().iter().find(|(id, token)| {
            let used = self.enrollments.range((**id, RequestId([0; 16]))..=(**id, RequestId([0xff; 16]))).count();
            used as u64 + u64::from(token.record.uses_left) != u64::from(token.record.uses)
        });
        if let Some((id, _)) = overspent {
            return Err(InvariantBroken::TokenUses(*id));
        }
        let mut stores = BTreeSet::new();
        let twice = |m: &&Member| !stores.insert(m.store) || m.returning.is_some_and(|store| !stores.insert(store));
        if let Some(member) = view.members.scan().values().find(twice) {
            return Err(InvariantBroken::StoreTwice(member.id));
        }
        let mut keys = BTreeSet::new();
        if let Some(member) = view.members.scan().values().find(|m| m.keys().any(|key| !keys.insert(key))) {
            return Err(InvariantBroken::KeyTwice(member.id));
        }
        if let Some(member) = member_with_taken_host(view) {
            return Err(InvariantBroken::HostTwice(member));
        }
        if let Some(node) = self.client_ports.scan().keys().find(|node| !view.members.contains_key(node)) {
            return Err(InvariantBroken::ClientPort(*node));
        }
        let numbered = self.attestations.all().zip(0_u64..).all(|(signed, number)| signed.attestation.number == number);
        let last = self.attestations.last().map(|(_, signed)| &signed.attestation);
        if !numbered || last != Some(&view.attestation) || view.attested > view.attestation.number {
            return Err(InvariantBroken::Attestations);
        }
        let voters = view.members.scan().values().filter(|m| m.suffrage == Suffrage::Voter).count();
        if voters == 0 { Err(InvariantBroken::NoVoter) } else { Ok(()) }
    }
}

/// A member of whose hosts one is another member's, a broker's or all members', of which there must be none.
fn member_with_taken_host(view: &View) -> Option<NodeId> {
    let taken = |member: &&Member| {
        let renewed = member.renewed.as_ref().map_or(&[][..], |renewed| renewed.hosts.own.as_slice());
        let mut own = member.hosts.own.iter().chain(renewed);
        own.any(|host| view.check_host_free(Some(member.id), host).is_err())
    };
    view.members.scan().values().find(taken).map(|member| member.id)
}
