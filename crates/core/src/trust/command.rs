//! Every change of the trust state, as it is replicated. Checks that must be atomic happen in `apply`, never before.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::author::Author;
use super::hosts::{Admission, ClusterSetting, Witness};
use super::join_token::TokenRecord;
use super::member::{ForeignLeaf, MemberKeys, Suffrage};
use super::state::UnsupportedLevel;
use super::view::AuthorityKey;
use crate::authz::change::{ChangeId, PolicyChange};
use crate::authz::label::LabelEdit;
use crate::authz::{Rule, RuleId};
use crate::codec::{self, CodecError, FIRST_LEVEL};
use crate::enroll::returning::StoreReturn;
use crate::id::{AuthorityId, ClusterId, GroupId, KeyId, NodeId, StoreId, TokenId};
use crate::key::Endorsement;
use crate::lease::LeaseLength;
use crate::name::{Address, Host, Name};
use crate::principal::{Role, TrustDomain};
use crate::time::{UnixMillis, Validity};

/// The newest level that this build knows.
pub const FEATURE_LEVEL: u32 = 1;

/// The level after that: what a build that is not written yet will know. Tests give it to members, to see what becomes of
/// those that do not know it.
#[doc(hidden)]
pub const LEVEL_FOR_TESTING: u32 = FEATURE_LEVEL + 1;

/// A command with the leader's stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    /// The level that a member needs to apply this. A member that knows less stops; it never skips. Bootstrap's is the
    /// level of the cluster.
    pub level: u32,
    /// The leader's clock, or the last applied time if that is later.
    pub time: UnixMillis,
    /// Who asked for it, and which member took the request.
    pub author: Author,
    /// What to do.
    pub command: Command,
}

/// An entry that this binary cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableEntry {
    /// A newer binary wrote it.
    #[error(transparent)]
    Level(#[from] UnsupportedLevel),
    /// It is of no version that is known.
    #[error("entry cannot be read")]
    Codec(#[from] CodecError),
}

impl Stamped {
    /// The entry's bytes: its level first, so that a reader that does not know the command still learns what it needs.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode_at(self.level, &(self.time, &self.author, &self.command))
    }

    /// Reads an entry that a member of level `known` can apply.
    pub fn decode(known: u32, bytes: &[u8]) -> Result<Self, UnreadableEntry> {
        let (level, rest) = match codec::up_to(known, bytes) {
            Err(CodecError::Level { needed, known }) => return Err(UnsupportedLevel { needed, known }.into()),
            read => read?,
        };
        let (time, author, command) = codec::exactly(rest)?;
        Ok(Self { level, time, author, command })
    }
}

/// An authority's key, as its members keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedKey {
    /// The public half.
    pub public: AuthorityKey,
    /// The private half, sealed to the founder.
    pub sealed: Vec<u8>,
}

/// The first entry of a cluster: its founder and its authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// 128 random bits.
    pub cluster: ClusterId,
    /// The cluster's name.
    pub name: Name,
    /// The namespace of its principals.
    pub trust_domain: TrustDomain,
    /// The authority's certificate, DER.
    pub authority: Vec<u8>,
    /// Its key; none if that is held elsewhere, which is when the founder brings a certificate.
    pub authority_key: Option<SealedKey>,
    /// When it is valid.
    pub authority_validity: Validity,
    /// Whether it was made outside.
    pub imported: bool,
    /// The founder's name.
    pub node_name: Name,
    /// The founder's addresses.
    pub addresses: Vec<Address>,
    /// The founder's keys.
    pub keys: MemberKeys,
    /// The founder's store.
    pub store: StoreId,
    /// The founder's first leaf key.
    pub leaf_key: KeyId,
    /// The founder's certificate, if it was made elsewhere.
    pub foreign: Option<ForeignLeaf>,
    /// Seconds that node certificates live.
    pub node_ttl_secs: u64,
    /// How long leases last: the same for all members, or a new leader would not know how long to wait for its
    /// predecessor's.
    pub lease: LeaseLength,
    /// The reusable cluster token, if one is wanted.
    pub token: Option<TokenRecord>,
    /// The rules that the cluster begins with.
    pub policy: PolicyChange,
}

/// A change of the trust state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes the cluster. Only on an empty state.
    Bootstrap(Box<Bootstrap>),
    /// Records a join token.
    AddJoinToken(TokenRecord),
    /// Ends a join token.
    RevokeJoinToken(TokenId),
    /// Ends the cluster token and records its successor.
    RotateClusterToken(TokenRecord),
    /// Spends one use of a token and admits its holder.
    Admit(Box<Admission>),
    /// Records a copy of an authority's key, sealed to a member that is to vote.
    SealAuthority {
        /// Whose key.
        authority: AuthorityId,
        /// To whom.
        node: NodeId,
        /// HPKE ciphertext.
        sealed: Vec<u8>,
    },
    /// A member shows that it opened its copy: a signature with the authority's key itself.
    ConfirmAuthority {
        /// Whose key.
        authority: AuthorityId,
        /// By whom.
        node: NodeId,
        /// Over [`super::seal::confirm_transcript`].
        signature: Vec<u8>,
    },
    /// Changes what a member is meant to be. Raft's membership follows.
    SetSuffrage {
        /// Whose.
        node: NodeId,
        /// What it becomes.
        suffrage: Suffrage,
        /// The authority stays although a voter leaves: its machine was wiped.
        keep_authority: bool,
    },
    /// Removes a member and refuses its keys for ever.
    Evict {
        /// Whom.
        node: NodeId,
        /// Its keys are in wrong hands: every join token ends as well, whoever held its machine may have made some.
        compromised: bool,
        /// The authority stays although a voter leaves: its machine was wiped.
        keep_authority: bool,
    },
    /// Records a certificate for a broker, client or admin.
    IssuePrincipal {
        /// For whom.
        role: Role,
        /// Its public key, DER `SubjectPublicKeyInfo`.
        spki: Vec<u8>,
        /// Seconds that it lives.
        ttl_secs: u64,
    },
    /// Refuses a key for ever, and every key that was renewed from it.
    RevokeKey(KeyId),
    /// Refuses every certificate that a broker, client or admin has. One issued later counts.
    RevokePrincipal(Role),
    /// Assigns a group to members; an empty list removes it.
    AssignGroup {
        /// Which.
        group: GroupId,
        /// To whom.
        members: Vec<NodeId>,
    },
    /// A member says which level its binary knows. A lower report replaces a higher one.
    ReportFeatureLevel {
        /// Who.
        node: NodeId,
        /// The newest level that it knows.
        level: u32,
    },
    /// Raises the level of the cluster: from then on its members may use what that level brought.
    RaiseLevel {
        /// To which.
        level: u32,
        /// Learners that are not waited for, although they know less or have not been heard of.
        without: BTreeSet<NodeId>,
        /// Whether the leader raises it by itself, which needs all members to have known it for a while.
        by_itself: bool,
    },
    /// A member changes its addresses; signed with its identity key.
    SetAddresses {
        /// Who.
        node: NodeId,
        /// Its new addresses.
        addresses: Vec<Address>,
        /// Over [`super::addresses_transcript`].
        #[serde(with = "crate::codec::bytes64")]
        signature: [u8; 64],
    },
    /// A member's next leaf key, to be certified.
    Renew {
        /// Whose.
        node: NodeId,
        /// The key.
        key: KeyId,
        /// The identity key's word for it, with the number after the newest on record.
        endorsement: Endorsement,
    },
    /// A member uses its next certificate; the one before it ends.
    AdoptLeaf {
        /// Whose.
        node: NodeId,
        /// Which.
        renewal: u64,
    },
    /// A voter signs a statement of what the cluster has become.
    SignStatement {
        /// Which.
        number: u64,
        /// By whom.
        node: NodeId,
        /// Over [`super::statement::Statement::transcript`], with the identity key.
        #[serde(with = "crate::codec::bytes64")]
        signature: [u8; 64],
    },
    /// A broker's, client's or admin's next certificate, asked for with the one that it uses. That one stays as it is.
    RenewPrincipal {
        /// For whom.
        role: Role,
        /// The key in use: it counts when this is applied, or nothing is certified.
        in_use: KeyId,
        /// The next public key, DER `SubjectPublicKeyInfo`.
        spki: Vec<u8>,
    },
    /// A part of a change of rules that is too long for one command, to be carried out with it.
    StagePolicy {
        /// Which change.
        change: ChangeId,
        /// Which part, from zero, each after the one before.
        part: u32,
        /// Rules to take out.
        remove: Vec<RuleId>,
        /// Rules to put in.
        put: Vec<Rule>,
    },
    /// Changes who may do what.
    ChangePolicy(Box<PolicyChange>),
    /// Changes roles and attributes: what a principal is, never what it claims.
    Label {
        /// Whose.
        role: Role,
        /// In this order; all or none.
        edits: Vec<LabelEdit>,
    },
    /// A member returns with a new store: it becomes a learner and leaves its groups. Signed with its identity key.
    ReturnStore(Box<StoreReturn>),
    /// Records the store that a member returned with, once the member has left the trust group.
    BindStore {
        /// The member.
        node: NodeId,
        /// Its new store.
        store: StoreId,
    },
    /// A voter found a member at hosts that it advertises: its certificates may hold them from now on.
    ProveHosts {
        /// Who was found.
        node: NodeId,
        /// Where, and by whom.
        witness: Witness,
    },
    /// Adds hosts to what certificates of a member hold, or takes away what an admin or its token gave.
    EditHosts {
        /// Whose.
        node: NodeId,
        /// Hosts to add.
        add: Vec<Host>,
        /// Hosts to take away.
        remove: Vec<Host>,
    },
    /// Changes a setting of the whole cluster.
    SetCluster(ClusterSetting),
    /// What a later level brings: keeps a word in a field that no earlier level has.
    #[doc(hidden)]
    NoteForTesting(String),
}

impl Command {
    /// The level that a member needs to apply this.
    pub const fn level(&self) -> u32 {
        match self {
            Self::NoteForTesting(_) => LEVEL_FOR_TESTING,
            // Read by all: a member that lacks the level stops only once the level has risen (`TrustState::apply`).
            Self::RaiseLevel { .. }
            | Self::Bootstrap(_)
            | Self::AddJoinToken(_)
            | Self::RevokeJoinToken(_)
            | Self::RotateClusterToken(_)
            | Self::Admit(_)
            | Self::SealAuthority { .. }
            | Self::ConfirmAuthority { .. }
            | Self::SetSuffrage { .. }
            | Self::Evict { .. }
            | Self::IssuePrincipal { .. }
            | Self::RevokeKey(_)
            | Self::RevokePrincipal(_)
            | Self::AssignGroup { .. }
            | Self::ReportFeatureLevel { .. }
            | Self::SetAddresses { .. }
            | Self::Renew { .. }
            | Self::AdoptLeaf { .. }
            | Self::SignStatement { .. }
            | Self::RenewPrincipal { .. }
            | Self::StagePolicy { .. }
            | Self::ChangePolicy(_)
            | Self::Label { .. }
            | Self::ReturnStore(_)
            | Self::BindStore { .. }
            | Self::ProveHosts { .. }
            | Self::EditHosts { .. }
            | Self::SetCluster(_) => FIRST_LEVEL,
        }
    }

    /// The command as one member passes it on to another.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode_at(self.level(), self)
    }

    /// Reads a command that was passed on to a member of level `known`.
    pub fn decode(known: u32, bytes: &[u8]) -> Result<Self, CodecError> {
        codec::exactly(codec::up_to(known, bytes)?.1)
    }
}
