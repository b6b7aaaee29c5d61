//! Return: a member whose certificate its peers refuse, or that has lost it, comes back by its identity key. It spends
//! no token, and only the member itself can ask.
//!
//! The member first recognizes its cluster by the voters' attestations and verifies the server under what these trust.
//! Only then does it sign, for this connection alone. This module checks what the server can see of the connection;
//! `apply` checks all else once more.

use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, KeyId, NodeId, StoreId};
use crate::key::{Endorsement, SecretKey, SignatureError};
use crate::time::UnixMillis;
use crate::transcript::Transcript;
use crate::trust::command::{Command, Renew};
use crate::trust::member::Member;
use crate::trust::outcome::Refused;
use crate::trust::view::View;

/// The version of this exchange.
pub const RETURN_VERSION: u16 = 1;

/// The two ends of the connection that a return is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnChannel {
    /// SHA-256 of the server's leaf certificate, DER.
    pub leaf: [u8; 32],
    /// The TLS exporter of the connection (RFC 8446 §7.5).
    pub exporter: [u8; 32],
}

/// All that the returning member signs, and the signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnRequest {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member that returns.
    pub node: NodeId,
    /// The key of its next leaf: all that is believed of the CSR.
    pub leaf_key: KeyId,
    /// The identity key's word for that key, with the number after the newest renewal on record.
    pub endorsement: Endorsement,
    /// The connection that it was made for: elsewhere it is worth nothing.
    pub channel: ReturnChannel,
    /// By the identity key, over [`ReturnRequest::transcript`].
    #[serde(with = "crate::codec::bytes64")]
    pub signature: [u8; 64],
}

/// A member's return with a new store, because its own is lost, damaged or behind. Replicated as it is: `apply`
/// verifies the signature itself, so that no member can take another's vote away by inventing its return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreReturn {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member that returns.
    pub node: NodeId,
    /// The store on record, which ends.
    pub replaces: StoreId,
    /// The new store.
    pub store: StoreId,
    /// The connection that it was made for: elsewhere it is worth nothing.
    pub channel: ReturnChannel,
    /// By the identity key, over [`StoreReturn::transcript`].
    #[serde(with = "crate::codec::bytes64")]
    pub signature: [u8; 64],
}

impl StoreReturn {
    /// Signs the return of `node`, whose store `replaces` ends, with the store `store`, for one connection.
    pub fn sign(
        identity: &SecretKey,
        (cluster, node): (ClusterId, NodeId),
        (replaces, store): (StoreId, StoreId),
        channel: ReturnChannel,
    ) -> Self {
        let unsigned = Self { cluster, node, replaces, store, channel, signature: [0; 64] };
        Self { signature: identity.sign(&unsigned.transcript()), ..unsigned }
    }

    /// What the identity key signs: every field but the signature, and the exchange's version.
    pub fn transcript(&self) -> Transcript {
        Transcript::new(b"return with a new store")
            .fixed(&RETURN_VERSION.to_be_bytes())
            .fixed(&self.cluster.0)
            .fixed(&self.node.0.to_be_bytes())
            .fixed(&self.replaces.0)
            .fixed(&self.store.0)
            .fixed(&self.channel.leaf)
            .fixed(&self.channel.exporter)
    }

    /// Checks the request against the connection that it came over and `view`, and makes the command to propose.
    ///
    /// Errors: a request of an evicted member is answered to the member alone. All else is decided by `apply`.
    pub fn into_command(self, channel: &ReturnChannel, view: &View) -> Result<Command, ReturnError> {
        if self.cluster != view.cluster {
            return Err(ReturnError::Cluster);
        }
        if self.channel != *channel {
            return Err(ReturnError::Relayed);
        }
        let evicted = || view.evicted.get(&self.node).map(|evicted| evicted.identity);
        let recorded = view.members.get(&self.node).map(|member| member.keys.identity);
        let identity = recorded.or_else(evicted).ok_or(Refused::NoSuchNode(self.node))?;
        identity.verify(&self.transcript(), &self.signature)?;
        match recorded {
            Some(_) => Ok(Command::ReturnStore(Box::new(self))),
            None => Err(Refused::AlreadyEvicted(self.node).into()),
        }
    }
}

/// Why a return is not passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReturnError {
    /// For another cluster.
    #[error("return is to another cluster")]
    Cluster,
    /// Made for another connection or another server: replayed or relayed.
    #[error("return was made for another connection")]
    Relayed,
    /// The CSR's key is not the one that was signed.
    #[error("key of the certificate signing request is not the one that was signed")]
    CsrKey,
    /// Not signed by the identity key of the member that it names.
    #[error("return is not signed by the member's identity key")]
    Identity(#[from] SignatureError),
    /// The member may not return, or not with this number.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl ReturnRequest {
    /// Signs the return of `node` with `leaf_key`, as its renewal number `renewal`, for one connection.
    pub fn sign(
        identity: &SecretKey,
        (cluster, node): (ClusterId, NodeId),
        (leaf_key, renewal): (KeyId, u64),
        channel: ReturnChannel,
    ) -> Self {
        let endorsement = Endorsement::sign(identity, cluster, leaf_key, renewal);
        let unsigned = Self { cluster, node, leaf_key, endorsement, channel, signature: [0; 64] };
        Self { signature: identity.sign(&unsigned.transcript()), ..unsigned }
    }

    /// What the identity key signs: every field but the signature, and the exchange's version.
    pub fn transcript(&self) -> Transcript {
        Transcript::new(b"return")
            .fixed(&RETURN_VERSION.to_be_bytes())
            .fixed(&self.cluster.0)
            .fixed(&self.node.0.to_be_bytes())
            .fixed(&self.leaf_key.0)
            .fixed(&self.endorsement.identity.0)
            .fixed(&self.endorsement.renewal.to_be_bytes())
            .fixed(&self.endorsement.signature)
            .fixed(&self.channel.leaf)
            .fixed(&self.channel.exporter)
    }
}

/// A return that a member made for this connection. Only this is proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returning(ReturnRequest);

impl Returning {
    /// Checks `request` against the connection that it came over, the key of the CSR, and `view` at `now`.
    ///
    /// Errors: only the member itself is told the number that counts, in answer to a wrong one.
    pub fn check(
        request: ReturnRequest,
        channel: &ReturnChannel,
        csr_key: KeyId,
        (view, now): (&View, UnixMillis),
    ) -> Result<Self, ReturnError> {
        let node = request.node;
        if request.cluster != view.cluster {
            return Err(ReturnError::Cluster);
        }
        if request.channel != *channel {
            return Err(ReturnError::Relayed);
        }
        if request.leaf_key != csr_key {
            return Err(ReturnError::CsrKey);
        }
        let member = match (view.members.get(&node), view.evicted.get(&node)) {
            (Some(member), _) => member,
            (None, Some(evicted)) => {
                evicted.identity.verify(&request.transcript(), &request.signature)?;
                return Err(Refused::AlreadyEvicted(node).into());
            }
            (None, None) => return Err(Refused::NoSuchNode(node).into()),
        };
        let identity = member.keys.identity;
        if request.endorsement.identity != identity {
            return Err(SignatureError.into());
        }
        identity.verify(&request.transcript(), &request.signature)?;
        request.endorsement.verify(view.cluster, request.leaf_key)?;
        if view.revoked_keys.contains(&identity.id()) {
            return Err(Refused::KeyRevoked.into());
        }
        let next = number_of(member, request.leaf_key, now);
        if request.endorsement.renewal != next {
            return Err(Refused::RenewalOutOfOrder { node, next }.into());
        }
        Ok(Self(request))
    }

    /// The renewal to propose.
    pub fn into_command(self) -> Command {
        let ReturnRequest { node, leaf_key: key, endorsement, .. } = self.0;
        Command::Renew(Renew { node, key, endorsement })
    }
}

/// The number that `apply` takes for `key`. The same key again: an answer was lost, and is given once more. But a next
/// certificate that has ended before its member got it is issued once more, by the next number.
fn number_of(member: &Member, key: KeyId, now: UnixMillis) -> u64 {
    let lapsed = member.renewed.as_ref().is_some_and(|next| next.leaf.key == key && next.leaf.has_ended(now));
    let recorded = member.leaf_of(key).filter(|_| !lapsed);
    recorded.map_or(member.renewal().saturating_add(1), |leaf| leaf.renewal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TokenId;
    use crate::trust::command::{Evict, RevokeJoinToken};
    use crate::trust::outcome::Outcome;
    use crate::trust::tests::rig::{CLUSTER, NOW, Rig, key, leaf_key};

    const HERE: ReturnChannel = ReturnChannel { leaf: [3; 32], exporter: [4; 32] };

    fn next() -> KeyId {
        key(90).public().id()
    }

    /// Node 2 returns with its identity key.
    fn request(renewal: u64) -> ReturnRequest {
        ReturnRequest::sign(&key(2), (CLUSTER, NodeId(2)), (next(), renewal), HERE)
    }

    fn check(rig: &Rig, request: ReturnRequest) -> Result<Command, ReturnError> {
        let now = rig.0.time();
        Returning::check(request, &HERE, next(), (rig.0.view().unwrap(), now)).map(Returning::into_command)
    }

    #[test]
    fn a_member_returns_by_its_identity_key_and_gets_the_same_answer_again() {
        let mut rig = Rig::three_voters();
        let command = check(&rig, request(1)).unwrap();
        assert!(matches!(rig.apply(command), Outcome::Renewed(renewed) if !renewed.repeated));
        let again = check(&rig, request(1)).unwrap();
        assert!(matches!(rig.apply(again), Outcome::Renewed(renewed) if renewed.repeated));
    }

    /// Its certificate was on record, and ended before the member asked again.
    #[test]
    fn member_returns_with_the_key_of_a_certificate_that_it_never_got() {
        let mut rig = Rig::three_voters();
        let command = check(&rig, request(1)).unwrap();
        rig.apply(command);
        let later = NOW.plus_secs(2 * 86_400);
        rig.apply_at(later, Command::RevokeJoinToken(RevokeJoinToken(TokenId([9; 8]))));
        let told = Refused::RenewalOutOfOrder { node: NodeId(2), next: 2 };
        assert_eq!(check(&rig, request(1)), Err(told.into()));
        let command = check(&rig, request(2)).unwrap();
        assert!(matches!(rig.apply_at(later, command), Outcome::Renewed(renewed) if renewed.leaf.renewal == 2));
    }

    #[test]
    fn a_return_holds_for_its_connection_and_its_member_only() {
        let rig = Rig::three_voters();
        let elsewhere = |channel| ReturnRequest::sign(&key(2), (CLUSTER, NodeId(2)), (next(), 1), channel);
        let identity = ReturnError::Identity(SignatureError);
        let by = |seed: u8, node| ReturnRequest::sign(&key(seed), (CLUSTER, NodeId(node)), (next(), 1), HERE);
        let borrowed = ReturnRequest { endorsement: request(1).endorsement, ..by(3, 2) };
        let other_cluster = ReturnRequest::sign(&key(2), (ClusterId([9; 16]), NodeId(2)), (next(), 1), HERE);
        for (request, expected, claim) in [
            (elsewhere(ReturnChannel { exporter: [9; 32], ..HERE }), ReturnError::Relayed, "another connection"),
            (elsewhere(ReturnChannel { leaf: [9; 32], ..HERE }), ReturnError::Relayed, "another server"),
            (
                ReturnRequest { channel: HERE, ..elsewhere(ReturnChannel { exporter: [9; 32], ..HERE }) },
                identity.clone(),
                "replayed, and said to be made here",
            ),
            (by(3, 2), identity.clone(), "another member's key"),
            (by(99, 2), identity.clone(), "an unknown key"),
            (borrowed, identity.clone(), "an endorsement seen elsewhere, under another signature"),
            (by(2, 3), identity, "in another member's name"),
            (by(2, 9), Refused::NoSuchNode(NodeId(9)).into(), "an unknown node"),
            (other_cluster, ReturnError::Cluster, "another cluster"),
            (
                ReturnRequest { leaf_key: leaf_key(2), ..request(1) },
                ReturnError::CsrKey,
                "another key than the request's",
            ),
        ] {
            assert_eq!(check(&rig, request), Err(expected), "{claim}");
        }
    }

    #[test]
    fn a_wrong_number_is_told_to_the_member_alone() {
        let rig = Rig::three_voters();
        let next_number = Refused::RenewalOutOfOrder { node: NodeId(2), next: 1 };
        for wrong in [0, 2, u64::MAX] {
            assert_eq!(check(&rig, request(wrong)), Err(next_number.clone().into()));
        }
        let forged = ReturnRequest::sign(&key(99), (CLUSTER, NodeId(2)), (next(), 7), HERE);
        assert_eq!(check(&rig, forged), Err(ReturnError::Identity(SignatureError)));
    }

    #[test]
    fn an_evicted_member_does_not_return() {
        let mut rig = Rig::three_voters();
        rig.apply(Command::Evict(Evict { node: NodeId(2), compromised: false, keep_authority: true }));
        assert_eq!(check(&rig, request(1)), Err(Refused::AlreadyEvicted(NodeId(2)).into()));
        let forged = ReturnRequest::sign(&key(99), (CLUSTER, NodeId(2)), (next(), 1), HERE);
        assert_eq!(check(&rig, forged), Err(ReturnError::Identity(SignatureError)), "told to the member alone");
    }
}
