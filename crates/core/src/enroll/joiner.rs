//! The joiner: `Unpinned` → `Pinned` → `Requested` → `Enrolled`. Each step consumes the one before it.
//!
//! Nothing that the secret could be learned or replayed from is made before the sponsor's leaf was verified to the
//! pinned authority: the signature needs a [`Pinned`], and a `Pinned` needs the verified channel.

use super::request::EnrollmentRequest;
use crate::id::{AuthorityId, ClusterId, KeyId, NodeId, RequestId, StoreId};
use crate::key::{Endorsement, SecretKey};
use crate::name::{Address, Name};
use crate::trust::join_token::JoinToken;
use crate::trust::member::{ForeignLeaf, MemberKeys};
use crate::trust::view::View;

/// The keys and addresses that the joiner made and stored before it asks, so that a repeated attempt is recognized as
/// the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// This attempt.
    pub request: RequestId,
    /// The name that it asks for.
    pub name: Name,
    /// Where it will be reached.
    pub addresses: Vec<Address>,
    /// The key of its CSR, or of its certificate.
    pub leaf_key: KeyId,
    /// Its certificate, if that was made elsewhere.
    pub foreign: Option<ForeignLeaf>,
    /// Its long-lived keys.
    pub keys: MemberKeys,
    /// Its store.
    pub store: StoreId,
    /// The newest level that its binary knows.
    pub level: u32,
}

/// A connection whose server proved to be a node under this authority, verified from its leaf up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SponsorChannel {
    /// The authority that the server's leaf chains to.
    pub authority: AuthorityId,
    /// SHA-256 of the server's leaf certificate, DER.
    pub leaf: [u8; 32],
    /// The TLS exporter of the connection.
    pub exporter: [u8; 32],
}

/// Why an enrollment ends on the joiner's side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The server is under another authority than the token pins.
    #[error("server's certificate authority is {got}, the join token pins {expected}")]
    Pin {
        /// The authority that the token pins.
        expected: AuthorityId,
        /// The authority that the server chains to.
        got: AuthorityId,
    },
    /// The answer is about another cluster than the one asked.
    #[error("answer is from cluster {got}, asked was {expected}")]
    Cluster {
        /// Asked.
        expected: ClusterId,
        /// Answered.
        got: ClusterId,
    },
    /// The answer does not hold this node, or holds it with other keys.
    #[error("answer does not admit this node's keys")]
    NotAdmitted,
    /// The answer does not trust the pinned authority.
    #[error("answer does not trust the pinned authority {0}")]
    AuthorityMissing(AuthorityId),
}

/// Holds a token and has verified no server yet. Can sign nothing.
#[derive(Debug)]
pub struct Unpinned<'a> {
    token: &'a JoinToken,
    candidate: Candidate,
}

impl<'a> Unpinned<'a> {
    /// Starts an attempt.
    pub const fn new(token: &'a JoinToken, candidate: Candidate) -> Self {
        Self { token, candidate }
    }

    /// The server proved to be under the pinned authority.
    pub fn pin(self, channel: SponsorChannel) -> Result<Pinned<'a>, JoinError> {
        let expected = self.token.pin();
        if channel.authority != expected {
            return Err(JoinError::Pin { expected, got: channel.authority });
        }
        Ok(Pinned { token: self.token, candidate: self.candidate, channel })
    }
}

/// Knows that it speaks to a node of the pinned authority.
#[derive(Debug)]
pub struct Pinned<'a> {
    token: &'a JoinToken,
    candidate: Candidate,
    channel: SponsorChannel,
}

impl Pinned<'_> {
    /// Signs the request for this connection. `cluster` is what the server, verified by now, says it is of.
    pub fn request(self, cluster: ClusterId, identity: &SecretKey) -> Requested {
        let Candidate { request, name, addresses, leaf_key, foreign, keys, store, level } = self.candidate;
        let request = EnrollmentRequest {
            cluster,
            pin: self.token.pin(),
            token: self.token.id(),
            request,
            name,
            addresses,
            leaf_key,
            foreign,
            endorsement: Endorsement::sign(identity, cluster, leaf_key, 0),
            keys,
            store,
            feature_level: level,
            sponsor_leaf: self.channel.leaf,
            exporter: self.channel.exporter,
            signature: [0; 64],
        };
        Requested { request: request.signed(&self.token.key()) }
    }
}

/// Has asked.
#[derive(Debug)]
pub struct Requested {
    request: EnrollmentRequest,
}

impl Requested {
    /// What to send.
    pub const fn message(&self) -> &EnrollmentRequest {
        &self.request
    }

    /// Takes the answer: the view must hold this node with the very keys that it offered.
    pub fn accept(self, node: NodeId, view: &View) -> Result<Enrolled, JoinError> {
        if view.cluster != self.request.cluster {
            return Err(JoinError::Cluster { expected: self.request.cluster, got: view.cluster });
        }
        let pinned = view.authorities.get(&self.request.pin);
        if pinned.map(|authority| AuthorityId::of_certificate(&authority.certificate)) != Some(self.request.pin) {
            return Err(JoinError::AuthorityMissing(self.request.pin));
        }
        let member = view.members.get(&node).ok_or(JoinError::NotAdmitted)?;
        let mapped = self.request.foreign.as_ref().map(|foreign| &foreign.mapped);
        let certificate = member.leaf.key == self.request.leaf_key && member.mapped.as_ref() == mapped;
        if member.keys != self.request.keys || member.store != self.request.store || !certificate {
            return Err(JoinError::NotAdmitted);
        }
        Ok(Enrolled { node, name: member.name.clone() })
    }
}

/// Is a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// Its number.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
}
