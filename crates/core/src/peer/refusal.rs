//! Why a peer is refused: the words and numbers that both ends and every log share. They never change their meaning.

use serde::{Deserialize, Serialize};

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
    /// The key is not the recorded one, and no identity key endorses it.
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
    /// As many connections of this principal are open here as one may have.
    #[error("too many connections of this principal are open here")]
    Connections = 23,
}

impl Refusal {
    /// Every refusal, in the order of its number.
    pub const ALL: [Self; 23] = [
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
        Self::Connections,
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
            Self::Connections => "connections",
        }
    }
}
