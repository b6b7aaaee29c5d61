//! The questions that every command answers, so that all about one command stands in one place.
//!
//! A command is a payload type with one [`Operation`]. No question has a default answer: a new command does not compile
//! until it answers each. An operation never reads a clock and never draws randomness.

use crate::authz::Affected;
use crate::group::GroupMembers;
use crate::id::{KeyId, NodeId, StoreId};
use crate::key::Endorsement;
use crate::principal::Role;
use crate::time::UnixMillis;
use crate::trust::author::{Authorship, Made};
use crate::trust::event::{Account, Draft};
use crate::trust::outcome::{Outcome, Refused};
use crate::trust::state::TrustState;
use crate::trust::view::View;

/// The answer of an operation that was applied; a refusal leaves the state as it was.
pub(crate) type Applied = Result<Outcome, Refused>;

/// `Some`: there is nothing to change, and this is the answer.
pub(crate) type Checked = Result<Option<Outcome>, Refused>;

/// What a command is asked.
pub(crate) trait Operation {
    /// The level that a member needs to apply it.
    fn level(&self) -> u32;

    /// Whose word it is, and so which members may pass it on.
    fn authorship(&self) -> Authorship;

    /// What follows from it outside of the state.
    fn effect(&self) -> Effect<'_>;

    /// What the leader makes sure of, besides the state, before it is written.
    fn precondition(&self) -> Precondition;

    /// The principals of which something else holds once it is applied to `view`: rather too many than one too few.
    fn affects(&self, view: &View) -> Affected;

    /// What `apply` would answer at `time` without a change; `None` where the command must be applied to tell. Answered
    /// for what any member may have proposed for itself, and for clients' renewals: so they cannot fill the log.
    fn unchanged(&self, state: &TrustState, time: UnixMillis) -> Checked;

    /// Changes the state. The state asks this once `unchanged` has answered `None` at the same time.
    fn apply(&self, state: &mut TrustState, entry: &Entry<'_>) -> Applied;

    /// What its event tells.
    fn event(&self, draft: &Draft<'_>) -> Account;
}

/// The entry that carries a command.
pub(crate) struct Entry<'a> {
    /// The level in its stamp.
    pub(crate) level: u32,
    /// Its author and its time.
    pub(crate) made: Made,
    /// The members of the trust group by the entries before it.
    pub(crate) members: &'a GroupMembers,
}

/// What follows from a command outside of the state, once its outcome says that it was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<'a> {
    /// Nothing.
    Nothing,
    /// Connections end.
    Revokes(Revoked),
    /// A member is refused. A member that has the entry in its log refuses it at once: it may be committed already.
    Evicts(NodeId),
    /// From here on a store counts as that of a member.
    BindsStore {
        /// The member.
        node: NodeId,
        /// Its store.
        store: StoreId,
    },
    /// A certificate of a member is signed, for the key that this endorses.
    CertifiesNode(&'a Endorsement),
    /// A certificate of a broker, client or admin is signed, for this DER `SubjectPublicKeyInfo`.
    CertifiesPrincipal(&'a [u8]),
}

/// What the leader makes sure of, besides the state, before it writes a command into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// A quorum confirms that it leads. What removes a member or its vote is not even written where it cannot be
    /// committed: later, it would surprise.
    Quorum,
    /// Besides, it has had no contact with this member for the length of a lease: another store takes the place of the
    /// member's own.
    Away(NodeId),
    /// Besides, the state of this member is not known to differ: it is to vote.
    Agrees(NodeId),
}

/// A principal or a key that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// Every certificate of this principal.
    Principal(Role),
    /// Every certificate of this key.
    Key(KeyId),
}
