//! What `apply` answers. Certificates are signed from here, never from a CSR.

use serde::{Deserialize, Serialize};

use super::join_token::TokenUnusable;
use super::member::{Leaf, Suffrage};
use super::placement::PlacementVersion;
use crate::authz::change::{Changed, PolicyError};
use crate::authz::label::LabelError;
use crate::id::{AuthorityId, Generation, GroupId, KeyId, NodeId, StoreId, TokenId};
use crate::name::{Address, Host, HostName, Name};
use crate::principal::{Principal, Role};
use crate::time::Validity;

/// A certificate that may be signed now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The principal that is certified.
    pub principal: Principal,
    /// The authority that signs.
    pub authority: AuthorityId,
    /// The serial number.
    pub serial: [u8; 16],
    /// When the certificate is valid.
    pub validity: Validity,
}

/// An admission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// The member's number.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// What it becomes.
    pub suffrage: Suffrage,
    /// The hosts that its certificate holds.
    pub hosts: Vec<Host>,
    /// Its leaf, as recorded.
    pub leaf: Leaf,
    /// The certificate to sign; none where certificates are made elsewhere.
    pub grant: Option<Grant>,
    /// The view that first knows it.
    pub generation: Generation,
    /// Whether this repeats an earlier answer.
    pub repeated: bool,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done; this generation shows it.
    Done(Generation),
    /// A token is on record.
    Token(TokenId),
    /// A member was admitted, or was before by the same request.
    Admitted(Box<Admitted>),
    /// A member's next certificate may be signed.
    Renewed(Box<Admitted>),
    /// A certificate for a broker, client or admin may be signed.
    Issued(Box<Grant>),
    /// A member was evicted.
    Evicted {
        /// The view that refuses it.
        generation: Generation,
        /// Tokens that ended with it.
        tokens_revoked: Vec<TokenId>,
    },
    /// Keys are refused from this generation on.
    Revoked {
        /// The view that refuses them.
        generation: Generation,
        /// How many.
        keys: usize,
    },
    /// Nothing changed.
    Refused(Refused),
    /// Rules were changed, or are as they should be.
    Policy {
        /// The view that shows it.
        generation: Generation,
        /// What became different.
        changed: Changed,
    },
    /// A part of a change of rules is kept for it.
    Staged,
    /// A group was placed; this version of the placement shows it.
    Placed {
        /// The group.
        group: GroupId,
        /// The version.
        version: PlacementVersion,
    },
}

impl Outcome {
    /// The generation that shows a change which has no more to tell. None for any other outcome.
    pub const fn generation(&self) -> Option<Generation> {
        match self {
            Self::Done(generation) => Some(*generation),
            Self::Token(_)
            | Self::Admitted(_)
            | Self::Renewed(_)
            | Self::Issued(_)
            | Self::Evicted { .. }
            | Self::Revoked { .. }
            | Self::Refused(_)
            | Self::Policy { .. }
            | Self::Staged
            | Self::Placed { .. } => None,
        }
    }
}

/// Names members that are behind.
struct Behind<'a>(&'a [(NodeId, Name)]);

impl core::fmt::Display for Behind<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (i, (_, name)) in self.0.iter().enumerate() {
            write!(f, "{}{name}", if i == 0 { "; behind: " } else { ", " })?;
        }
        Ok(())
    }
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refused {
    /// The command needs a cluster, and there is none yet.
    #[error("there is no cluster yet")]
    NoCluster,
    /// The state already holds a cluster.
    #[error("a cluster already exists")]
    ClusterExists,
    /// The token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenUnusable),
    /// The level of the cluster is above what the member's binary knows.
    #[error("the cluster is at level {level}, the member's binary knows level {got}: update it")]
    BelowLevel {
        /// The cluster's.
        level: u32,
        /// The binary's.
        got: u32,
    },
    /// Not all members know what the command needs.
    #[error("level {needed} is needed and the cluster is at level {level}{}", Behind(behind))]
    AboveLevel {
        /// The level that is needed.
        needed: u32,
        /// The cluster's.
        level: u32,
        /// Members whose binaries know less than is needed, or have not known it for long enough.
        behind: Vec<(NodeId, Name)>,
    },
    /// Only learners may be passed over.
    #[error("node {0} votes: the level is not raised without it")]
    LevelNeedsVoter(NodeId),
    /// A token with this key exists.
    #[error("join token is already on record")]
    TokenExists,
    /// A value lies beyond its limit.
    #[error("{what} is beyond its limit of {max}")]
    Limit {
        /// What.
        what: Limited,
        /// The limit.
        max: u64,
    },
    /// A signature does not verify.
    #[error("signature of the {0} does not verify")]
    Signature(Signer),
    /// The key was revoked or belonged to an evicted member.
    #[error("key was revoked: make a new identity (an empty data directory) and join again")]
    KeyRevoked,
    /// The key belongs to another member.
    #[error("key is already that of node {0}")]
    KeyTaken(NodeId),
    /// One key was offered for two purposes.
    #[error("the same key was offered for two purposes")]
    KeyReused,
    /// The same request id came with other keys.
    #[error("request id was used before with other keys")]
    RequestReused,
    /// The member that this request admitted was evicted since.
    #[error("node {0} was admitted by this request and evicted since")]
    EvictedSince(NodeId),
    /// The token admits another name only.
    #[error("join token admits the name `{0}` only")]
    NameNotAdmitted(Name),
    /// The name is another member's.
    #[error("name `{name}` is taken by node {node}")]
    NameTaken {
        /// The name.
        name: Name,
        /// The member that has it.
        node: NodeId,
    },
    /// The node name that the certificate maps to is another member's.
    #[error("certificate maps to `node/{name}`, which is bound to node {node}")]
    MappedTaken {
        /// The mapped name.
        name: HostName,
        /// The member that has it.
        node: NodeId,
    },
    /// The cluster issues no certificates, and the node brought none.
    #[error("this cluster issues no certificates: a node brings one of its own")]
    CertificateMissing,
    /// The cluster issues certificates, and the node brought its own.
    #[error("this cluster issues certificates itself: a node brings none of its own")]
    CertificateUnwanted,
    /// The CA key is held elsewhere.
    #[error("the key of authority {0} is held elsewhere: this cluster issues no certificates")]
    KeyElsewhere(AuthorityId),
    /// The address is another member's.
    #[error("address `{address}` is taken by node {node}")]
    AddressTaken {
        /// The address.
        address: Address,
        /// The member that has it.
        node: NodeId,
    },
    /// No address was given.
    #[error("no address was given")]
    NoAddress,
    /// No such member.
    #[error("there is no node {0}")]
    NoSuchNode(NodeId),
    /// The member was evicted before.
    #[error("node {0} was evicted before")]
    AlreadyEvicted(NodeId),
    /// No such token.
    #[error("there is no join token {0}")]
    NoSuchToken(TokenId),
    /// No such authority, or one that signs nothing.
    #[error("there is no authority {0} that signs")]
    NoSuchAuthority(AuthorityId),
    /// The member has no sealed copy to confirm.
    #[error("node {0} has no sealed copy of the authority's key")]
    NotSealed(NodeId),
    /// The member still votes in the trust group.
    #[error("node {0} still votes in the trust group: it leaves the group before it is evicted")]
    StillVotes(NodeId),
    /// The member still receives the log under the store before.
    #[error("node {0} is still in the trust group: it leaves the group before its new store counts")]
    StillInGroup(NodeId),
    /// The member is about to come back with a new store.
    #[error("node {0} is returning with a new store: wait until `countersign status` shows it as a learner")]
    Returning(NodeId),
    /// The member does not return with this store.
    #[error("node {node} does not return with store {store}")]
    NotReturning {
        /// The member.
        node: NodeId,
        /// The store.
        store: StoreId,
    },
    /// The member has another store than the one that is to be replaced.
    #[error("store of node {node} is {expected}, the return replaces {got}")]
    OtherStore {
        /// The member.
        node: NodeId,
        /// The recorded one.
        expected: StoreId,
        /// The one that the request names.
        got: StoreId,
    },
    /// The store belongs to a member already.
    #[error("store {0} is that of a member already")]
    StoreTaken(StoreId),
    /// The member answers under its recorded store: a second copy of it may not take its place.
    #[error("{name} is alive at {address}")]
    Alive {
        /// The member's name.
        name: Name,
        /// Where it is on record.
        address: Address,
    },
    /// A refusal of a later release, in the words of the member that refused.
    #[error("{0}")]
    Later(String),
    /// The member's state is not what the leader's is: as a voter it would stop the cluster.
    #[error("the state of node {node} differs from the leader's at log index {index}")]
    StateDiffers {
        /// The member.
        node: NodeId,
        /// The first index at which it is known to differ.
        index: u64,
    },
    /// The other voters cannot commit anything without the member that returns.
    #[error(
        "node {node} is one of {voters} voters and the others are no majority without it: its return cannot be \
         committed, and recovering a cluster without a majority is not in this version"
    )]
    NoQuorumOfOthers {
        /// The member.
        node: NodeId,
        /// The number of voters, itself included.
        voters: u64,
    },
    /// The member would be the last voter to leave.
    #[error("node {0} is the last voter; promote another first")]
    LastVoter(NodeId),
    /// A voter that leaves takes a copy of the CA key along.
    #[error(
        "node {0} is a voter and holds a copy of the CA key, which cannot be rotated yet: \
         confirm with --keep-authority that its machine was wiped"
    )]
    KeepAuthority(NodeId),
    /// The member already is what it should become.
    #[error("node {0} is a {1} already")]
    Unchanged(NodeId, Suffrage),
    /// Nodes are admitted by token, not issued certificates by name.
    #[error("`{0}` is admitted by a join token, not issued a certificate by name")]
    NotIssued(Role),
    /// A host is another's.
    #[error("host `{host}` is that of {by}")]
    HostTaken {
        /// The host.
        host: Host,
        /// Whose it is.
        by: Role,
    },
    /// The key is a member's.
    #[error("key is that of node {0}: evict the node instead")]
    KeyOfNode(NodeId),
    /// The renewal is not the one that comes next.
    #[error("renewal of node {node} is out of order: {next} is the one that counts")]
    RenewalOutOfOrder {
        /// Whose.
        node: NodeId,
        /// The number that counts.
        next: u64,
    },
    /// No certificate was issued for this principal, and none made elsewhere could be.
    #[error("there is no certificate for `{0}`")]
    NoSuchPrincipal(Role),
    /// No such attestation, or not one that this node may sign.
    #[error("node {node} may not sign attestation {number}")]
    NotASigner {
        /// Who.
        node: NodeId,
        /// Which.
        number: u64,
    },
    /// An attestation would lack signatures permanently, and a member that was away could not recognize the cluster.
    #[error("attestation {number} cannot be signed by enough without node {node}, which is asked to sign it first")]
    SignatureMissing {
        /// Whose signature is missing.
        node: NodeId,
        /// Under which attestation.
        number: u64,
    },
    /// One successor of a key counts at a time, and a successor renews only when its predecessor has ended.
    #[error("a key of this renewal line besides the one in use counts until {until} (seconds since 1970)")]
    RenewedBefore {
        /// The last second of that other key.
        until: u64,
    },
    /// The key is no Ed25519 or P-256 key.
    #[error("key {0} cannot be certified")]
    KeyUnsuitable(KeyId),
    /// The rules are not changed.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Roles and attributes are not changed.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// All members share the host.
    #[error("host `{0}` is one of the cluster's client_names, which all members share")]
    HostShared(Host),
    /// The member is not reached at the host.
    #[error("node {node} does not advertise `{host}`")]
    HostNotAdvertised {
        /// The host.
        host: Host,
        /// The member.
        node: NodeId,
    },
    /// No admin added the host.
    #[error("host `{host}` was not added: a voter finds node {node} there, as long as the node advertises it")]
    HostNotAdded {
        /// The host.
        host: Host,
        /// The member.
        node: NodeId,
    },
    /// Only a voter's word counts.
    #[error("node {0} is not a voter, and its word proves nothing")]
    NotAVoter(NodeId),
    /// There is no such group, or not any more.
    #[error("there is no group {0}")]
    NoSuchGroup(GroupId),
    /// A group begins with one member at least.
    #[error("a group has no members")]
    GroupWithoutMembers,
}

/// What a limit is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limited {
    /// Members.
    Members,
    /// Voters.
    Voters,
    /// Tokens.
    Tokens,
    /// Uses of a token.
    TokenUses,
    /// Lifetime of a token, in seconds.
    TokenTtl,
    /// Addresses of a member.
    Addresses,
    /// Attributes of a member, or the length of one.
    Attributes,
    /// Principals.
    Principals,
    /// Keys of one principal.
    PrincipalKeys,
    /// Groups.
    Groups,
    /// Lifetime of a certificate, in seconds.
    CertificateTtl,
    /// Hosts that an admin added to a member, or their length.
    NodeHosts,
    /// Names that all members share, or their length.
    ClientNames,
    /// Hosts that a token names.
    TokenHosts,
}

impl core::fmt::Display for Limited {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Members => "the number of members",
            Self::Voters => "the number of voters",
            Self::Tokens => "the number of join tokens",
            Self::TokenUses => "the number of uses",
            Self::TokenTtl => "the token's lifetime in seconds",
            Self::Addresses => "the number of addresses",
            Self::Attributes => "the number or length of attributes",
            Self::Principals => "the number of principals",
            Self::PrincipalKeys => "the number of live keys of one principal",
            Self::Groups => "the number of groups",
            Self::CertificateTtl => "the certificate's lifetime in seconds",
            Self::NodeHosts => "the number of hosts added to one node, or of their bytes,",
            Self::ClientNames => "the number of client_names, or of their bytes,",
            Self::TokenHosts => "the number of hosts that a join token names",
        })
    }
}

/// Whose signature was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signer {
    /// The holder of the join token.
    Token,
    /// The identity key.
    Identity,
    /// The authority's key.
    Authority,
}

impl core::fmt::Display for Signer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Token => "join token",
            Self::Identity => "identity key",
            Self::Authority => "authority",
        })
    }
}
