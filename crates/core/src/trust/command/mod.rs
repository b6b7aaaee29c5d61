//! Every change of the trust state, as it is replicated. Checks that must be atomic happen in `apply`, never before.
//!
//! A command is a payload type with one `Operation` that answers all that is asked of it. Payloads are encoded without
//! a frame, so the encoding of a command is that of its number and its fields.

mod addresses;
mod admission;
mod attestations;
mod authority;
mod bootstrap;
mod client_ports;
mod groups;
mod hosts;
mod labels;
mod levels;
mod membership;
mod operation;
mod policy;
mod principals;
mod renewal;
mod revocation;
mod settings;
mod stores;
mod testing;
mod tokens;

pub use addresses::{SetAddresses, addresses_transcript};
pub use admission::Admission;
pub use attestations::SignAttestation;
pub use authority::{ConfirmAuthority, SealAuthority};
pub use bootstrap::{Bootstrap, SealedKey};
pub use client_ports::ReportClientPort;
pub use groups::{AssignGroup, BindDataStore, CreateGroup};
pub use hosts::{EditHosts, ProveHosts};
pub use labels::Label;
pub use levels::{RaiseLevel, ReportFeatureLevel};
pub use membership::{Evict, SetSuffrage};
pub use operation::{Effect, Precondition, Revoked};
pub(crate) use operation::{Entry, Operation};
pub use policy::StagePolicy;
pub(super) use policy::Staged;
pub use principals::{IssuePrincipal, RenewPrincipal};
pub use renewal::{AdoptLeaf, Renew};
pub use revocation::{RevokeKey, RevokePrincipal};
use serde::{Deserialize, Serialize};
pub use settings::ClusterSetting;
pub use stores::BindStore;
#[doc(hidden)]
pub use testing::NoteForTesting;
pub use tokens::{AddJoinToken, RevokeJoinToken, RotateClusterToken};

use super::author::Author;
use super::state::UnsupportedLevel;
use crate::authz::change::PolicyChange;
use crate::codec::{self, CodecError};
use crate::enroll::returning::StoreReturn;
use crate::time::UnixMillis;

/// The newest level that this build knows.
pub const FEATURE_LEVEL: u32 = 3;

/// The level after that: what a build that is not written yet will know. Tests give it to members, to see what becomes
/// of those that do not know it.
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

/// A change of the trust state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes the cluster.
    Bootstrap(Box<Bootstrap>),
    /// Records a join token.
    AddJoinToken(AddJoinToken),
    /// Ends a join token.
    RevokeJoinToken(RevokeJoinToken),
    /// Ends the cluster token and records its successor.
    RotateClusterToken(RotateClusterToken),
    /// Spends one use of a token and admits its holder.
    Admit(Box<Admission>),
    /// Records a copy of an authority's key, sealed to a member that is promoted.
    SealAuthority(SealAuthority),
    /// A member shows that it opened its copy.
    ConfirmAuthority(ConfirmAuthority),
    /// Promotes or demotes a member.
    SetSuffrage(SetSuffrage),
    /// Removes a member and refuses its keys.
    Evict(Evict),
    /// Records a certificate for a broker, client or admin.
    IssuePrincipal(IssuePrincipal),
    /// Refuses a key, and every key that was renewed from it.
    RevokeKey(RevokeKey),
    /// Refuses every certificate that a broker, client or admin has.
    RevokePrincipal(RevokePrincipal),
    /// Assigns a group to members.
    AssignGroup(AssignGroup),
    /// A member says which level its binary knows.
    ReportFeatureLevel(ReportFeatureLevel),
    /// Raises the level of the cluster.
    RaiseLevel(RaiseLevel),
    /// A member changes its addresses.
    SetAddresses(SetAddresses),
    /// A member's next leaf key, to be certified.
    Renew(Renew),
    /// A member uses its next certificate.
    AdoptLeaf(AdoptLeaf),
    /// A voter signs an attestation of what the cluster has become.
    SignAttestation(SignAttestation),
    /// A broker's, client's or admin's next certificate.
    RenewPrincipal(RenewPrincipal),
    /// A part of a change of rules that is too long for one command.
    StagePolicy(StagePolicy),
    /// Changes who may do what.
    ChangePolicy(Box<PolicyChange>),
    /// Changes roles and attributes.
    Label(Label),
    /// A member returns with a new store.
    ReturnStore(Box<StoreReturn>),
    /// Records the store that a member returned with.
    BindStore(BindStore),
    /// A voter found a member at hosts that it advertises.
    ProveHosts(ProveHosts),
    /// Adds hosts to what certificates of a member hold, or takes some away.
    EditHosts(EditHosts),
    /// Changes a setting of the whole cluster.
    SetCluster(ClusterSetting),
    /// Makes a group.
    CreateGroup(CreateGroup),
    /// A member says in which store it keeps its groups.
    BindDataStore(BindDataStore),
    /// A member says where clients reach it.
    ReportClientPort(ReportClientPort),
    /// What a later level brings: keeps a word in a field that no earlier level has.
    #[doc(hidden)]
    NoteForTesting(NoteForTesting),
}

impl Command {
    /// Where the questions of this command are answered.
    pub(crate) fn operation(&self) -> &dyn Operation {
        match self {
            Self::Bootstrap(operation) => &**operation,
            Self::AddJoinToken(operation) => operation,
            Self::RevokeJoinToken(operation) => operation,
            Self::RotateClusterToken(operation) => operation,
            Self::Admit(operation) => &**operation,
            Self::SealAuthority(operation) => operation,
            Self::ConfirmAuthority(operation) => operation,
            Self::SetSuffrage(operation) => operation,
            Self::Evict(operation) => operation,
            Self::IssuePrincipal(operation) => operation,
            Self::RevokeKey(operation) => operation,
            Self::RevokePrincipal(operation) => operation,
            Self::AssignGroup(operation) => operation,
            Self::ReportFeatureLevel(operation) => operation,
            Self::RaiseLevel(operation) => operation,
            Self::SetAddresses(operation) => operation,
            Self::Renew(operation) => operation,
            Self::AdoptLeaf(operation) => operation,
            Self::SignAttestation(operation) => operation,
            Self::RenewPrincipal(operation) => operation,
            Self::StagePolicy(operation) => operation,
            Self::ChangePolicy(operation) => &**operation,
            Self::Label(operation) => operation,
            Self::ReturnStore(operation) => &**operation,
            Self::BindStore(operation) => operation,
            Self::ProveHosts(operation) => operation,
            Self::EditHosts(operation) => operation,
            Self::SetCluster(operation) => operation,
            Self::CreateGroup(operation) => operation,
            Self::BindDataStore(operation) => operation,
            Self::ReportClientPort(operation) => operation,
            Self::NoteForTesting(operation) => operation,
        }
    }

    /// The level that a member needs to apply this.
    pub fn level(&self) -> u32 {
        self.operation().level()
    }

    /// What follows from this outside of the state, once its outcome says that it was carried out.
    pub fn effect(&self) -> Effect<'_> {
        self.operation().effect()
    }

    /// What the leader makes sure of, besides the state, before it writes this into the log.
    pub fn precondition(&self) -> Precondition {
        self.operation().precondition()
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
