//! The replicated state and the one function that changes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::author::Made;
use super::chain::Chain;
use super::client_ports::{CLIENT_PORTS_LEVEL, ClientPorts};
use super::command::{Command, Entry, FEATURE_LEVEL, LEVEL_FOR_TESTING, Operation, Staged, Stamped};
use super::event::{Draft, Event};
use super::member::{ForeignLeaf, Issued, Leaf, Member};
use super::outcome::{Outcome, Refused};
use super::placement::{PLACEMENT_LEVEL, Placement};
use super::seal::SealedCopy;
use super::tables::{Attestations, Tokens};
use super::view::{Authority, View};
use crate::authz::change::ChangeId;
use crate::codec::{self, CodecError, FIRST_LEVEL};
use crate::group::GroupMembers;
use crate::id::{AuthorityId, ClusterId, Generation, KeyId, NodeId, RequestId, TokenId};
use crate::lease::LeaseLength;
use crate::limits::SKEW_SECS;
use crate::table::Table;
use crate::time::{UnixMillis, Validity};

/// A command needs a newer binary. The member stops: skipping it would make states differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("level {needed} is needed, this binary knows level {known}: update it")]
pub struct UnsupportedLevel {
    /// The level needed.
    pub needed: u32,
    /// The newest level that the binary knows.
    pub known: u32,
}

/// Why a snapshot is not taken up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableState {
    /// A newer binary wrote it.
    #[error(transparent)]
    Level(#[from] UnsupportedLevel),
    /// It is no snapshot.
    #[error("snapshot cannot be read")]
    Codec(#[from] CodecError),
}

/// All that is replicated about trust.
///
/// A field that a later level brings is left out of the derived encoding, which is that of the first level for good. It
/// is appended by [`TrustState::encode`] once the cluster is at that level, and read by [`TrustState::decode`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustState {
    pub(super) view: Option<Arc<View>>,
    pub(super) tokens: Tokens,
    /// Which member a request admitted, so that a retry gets its answer again.
    pub(super) enrollments: Table<(TokenId, RequestId), NodeId>,
    pub(super) sealed: BTreeMap<(AuthorityId, NodeId), SealedCopy>,
    pub(super) next_node: u64,
    pub(super) node_ttl_secs: u64,
    pub(super) lease: LeaseLength,
    /// What the cluster has become, change by change, as its voters signed it. By number.
    pub(super) attestations: Attestations,
    /// Changes that were sent in part.
    pub(super) staged: BTreeMap<ChangeId, Staged>,
    /// How often anything changed that the view does not show.
    pub(super) revision: u64,
    /// The chain over all changes.
    pub(super) chain: Chain,
    pub(super) time: UnixMillis,
    /// The level of the cluster: stands before the encoded state.
    #[serde(skip)]
    pub(super) level: u32,
    pub(super) level_auto: bool,
    /// The newest level that this member can apply: of this member, not of the cluster.
    #[serde(skip)]
    pub(super) known: u32,
    /// Since [`PLACEMENT_LEVEL`].
    #[serde(skip)]
    pub(super) placement: Placement,
    /// Since [`CLIENT_PORTS_LEVEL`].
    #[serde(skip)]
    pub(super) client_ports: ClientPorts,
    /// Since [`LEVEL_FOR_TESTING`].
    #[serde(skip)]
    pub(super) notes: Vec<String>,
}

impl Default for TrustState {
    fn default() -> Self {
        Self::knowing(FEATURE_LEVEL)
    }
}

/// What one command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The answer to the command's author.
    pub outcome: Outcome,
    /// The event to write down; none where the command changed nothing.
    pub event: Option<Event>,
}

/// Which leaf to record.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeafOf {
    pub(super) node: NodeId,
    pub(super) key: KeyId,
    pub(super) renewal: u64,
}

impl TrustState {
    /// An empty state: no cluster yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty state of a member that can apply what needs level `known`.
    pub fn knowing(known: u32) -> Self {
        Self {
            view: None,
            tokens: Tokens::default(),
            enrollments: Table::new(),
            sealed: BTreeMap::new(),
            next_node: 0,
            node_ttl_secs: 0,
            lease: LeaseLength::default(),
            attestations: Attestations::default(),
            staged: BTreeMap::new(),
            revision: 0,
            chain: Chain::default(),
            time: UnixMillis::default(),
            level: FIRST_LEVEL,
            level_auto: true,
            known,
            placement: Placement::default(),
            client_ports: ClientPorts::new(),
            notes: Vec::new(),
        }
    }

    /// The newest level that this member can apply.
    pub const fn known(&self) -> u32 {
        self.known
    }

    /// Words kept by [`Command::NoteForTesting`].
    #[doc(hidden)]
    pub fn notes_for_testing(&self) -> &[String] {
        &self.notes
    }

    /// The view to publish; none before the bootstrap entry.
    pub const fn view(&self) -> Option<&Arc<View>> {
        self.view.as_ref()
    }

    /// The time of the last applied command. Never runs backwards.
    pub const fn time(&self) -> UnixMillis {
        self.time
    }

    /// Join tokens on record, by id.
    pub const fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Sealed copies of authority keys.
    pub const fn sealed(&self) -> &BTreeMap<(AuthorityId, NodeId), SealedCopy> {
        &self.sealed
    }

    /// What the cluster has become, change by change.
    pub const fn attestations(&self) -> &Attestations {
        &self.attestations
    }

    /// How long leases last; none before the bootstrap entry, when it is unknown: a member that took another length for
    /// it would serve for longer than its leader waits.
    pub fn lease(&self) -> Option<LeaseLength> {
        self.view.as_ref().map(|_| self.lease)
    }

    /// Seconds that node certificates live.
    pub const fn node_ttl_secs(&self) -> u64 {
        self.node_ttl_secs
    }

    /// The chain over all changes.
    pub const fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Applies one command. Deterministic; a refused command changes nothing but the time. `members` are those of the
    /// trust group by the entries before this one.
    ///
    /// Errors: only [`UnsupportedLevel`], after which the member must stop.
    pub fn apply(&mut self, stamped: &Stamped, members: &GroupMembers) -> Result<Outcome, UnsupportedLevel> {
        Ok(self.apply_recorded(stamped, members)?.outcome)
    }

    /// As [`Self::apply`], with the event of the change for a caller that writes events down.
    pub fn apply_recorded(&mut self, stamped: &Stamped, members: &GroupMembers) -> Result<Recorded, UnsupportedLevel> {
        let operation = stamped.command.operation();
        let needed = stamped.level.max(operation.level());
        if needed > self.known {
            return Err(UnsupportedLevel { needed, known: self.known });
        }
        self.time = self.time.max(stamped.time);
        if let Command::RaiseLevel(raise) = &stamped.command {
            raise.check_known(self)?;
        }
        let before = self.version();
        let entry = Entry { level: stamped.level, made: Made::new(&stamped.author, self.time), members };
        let outcome = self.carry_out(operation, &entry).unwrap_or_else(Outcome::Refused);
        let event = (self.version() != before).then(|| {
            let text = Draft { state: self, stamped, outcome: &outcome }.text();
            let (number, head) = (self.chain.count().saturating_add(1), self.chain.extend(&text.chained));
            Event::new(number, head, text)
        });
        Ok(Recorded { outcome, event })
    }

    fn carry_out(&mut self, operation: &dyn Operation, entry: &Entry<'_>) -> Result<Outcome, Refused> {
        self.check_command_level(operation.level())?;
        match operation.unchanged(self, self.time)? {
            Some(outcome) => Ok(outcome),
            None => operation.apply(self, entry),
        }
    }

    /// What `apply` would answer at `time` without a change: a refusal, or the answer to a command that was applied
    /// before. `None` where the command must be applied to tell. The leader asks, so that members write nothing into
    /// the log that would change nothing.
    pub fn answered(&self, command: &Command, time: UnixMillis) -> Option<Outcome> {
        let checked = command.operation().unchanged(self, self.time.max(time));
        checked.unwrap_or_else(|why| Some(Outcome::Refused(why)))
    }

    /// Differs from any earlier one if anything has changed since but the time.
    fn version(&self) -> (Generation, u64) {
        (self.view.as_ref().map_or(Generation(0), |view| view.generation), self.revision)
    }

    /// Notes that something changed that the view does not show.
    pub(super) const fn revise(&mut self) {
        self.revision = self.revision.saturating_add(1);
    }

    /// The leaf that the state records and the leader signs. Its serial follows from what it certifies, so that any
    /// voter that signs the same grant makes the same certificate.
    pub(super) fn leaf_in(
        &self,
        cluster: ClusterId,
        of: LeafOf,
        foreign: Option<&ForeignLeaf>,
        (authority, record): (AuthorityId, &Authority),
        made: &Made,
    ) -> Leaf {
        let LeafOf { node, key, renewal } = of;
        let mut hasher = blake3::Hasher::new_derive_key("countersign v1 certificate serial");
        hasher.update(&cluster.0).update(&node.0.to_be_bytes()).update(&renewal.to_be_bytes()).update(&key.0);
        let issued = || self.validity(self.node_ttl_secs, record.validity);
        let validity = foreign.map_or_else(issued, |foreign| foreign.validity);
        let authority = foreign.is_none().then_some(authority);
        let issued = Issued { authority, made: made.clone() };
        Leaf { key, renewal, serial: serial(&hasher), validity, issued }
    }

    /// Backdated by the skew bound, so that a peer whose clock is behind accepts it; never outlives its authority.
    pub(super) fn validity(&self, ttl_secs: u64, authority: Validity) -> Validity {
        Validity { not_before: self.time.minus_secs(SKEW_SECS), not_after: self.time.plus_secs(ttl_secs) }
            .intersect(&authority)
    }

    pub(super) fn current(&self) -> Result<&Arc<View>, Refused> {
        self.view.as_ref().ok_or(Refused::NoCluster)
    }

    pub(super) fn member(&self, node: NodeId) -> Result<&Member, Refused> {
        let view = self.current()?;
        view.members.get(&node).ok_or_else(|| {
            if view.evicted.contains_key(&node) { Refused::AlreadyEvicted(node) } else { Refused::NoSuchNode(node) }
        })
    }

    /// The one way to change the view: copies it if a reader holds it, and raises the generation.
    pub(super) fn edit(&mut self, edit: impl FnOnce(&mut View)) -> Result<Generation, Refused> {
        let view = Arc::make_mut(self.view.as_mut().ok_or(Refused::NoCluster)?);
        edit(view);
        view.generation.0 = view.generation.0.saturating_add(1);
        let generation = view.generation;
        self.make_attestation();
        Ok(generation)
    }

    /// Changes the view, with no more to tell than its generation.
    pub(super) fn change(&mut self, edit: impl FnOnce(&mut View)) -> Result<Outcome, Refused> {
        self.edit(edit).map(Outcome::Done)
    }

    /// The state as a snapshot.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let mut bytes = codec::encode_at(self.level, self)?;
        if self.level >= PLACEMENT_LEVEL {
            bytes.extend(codec::appended(&self.placement)?);
        }
        if self.level >= CLIENT_PORTS_LEVEL {
            bytes.extend(codec::appended(&self.client_ports)?);
        }
        if self.level >= LEVEL_FOR_TESTING {
            bytes.extend(codec::appended(&self.notes)?);
        }
        Ok(bytes)
    }

    /// The state from a snapshot, as a member has it that can apply what needs level `known`.
    pub fn decode(known: u32, bytes: &[u8]) -> Result<Self, UnreadableState> {
        let (level, rest) = match codec::up_to(known, bytes) {
            Err(CodecError::Level { needed, known }) => return Err(UnsupportedLevel { needed, known }.into()),
            read => read?,
        };
        let (state, later): (Self, _) = codec::take(rest)?;
        let (placement, later) =
            if level >= PLACEMENT_LEVEL { codec::take(later)? } else { (Placement::default(), later) };
        let (client_ports, later) =
            if level >= CLIENT_PORTS_LEVEL { codec::take(later)? } else { (ClientPorts::new(), later) };
        let notes = if level >= LEVEL_FOR_TESTING { codec::exactly(later)? } else { codec::nothing(later)? };
        Ok(Self { level, known, placement, client_ports, notes, ..state })
    }

    /// Forgets that `key` is revoked, as a state does that was damaged.
    #[doc(hidden)]
    pub fn forget_key_for_testing(&mut self, key: KeyId) {
        if let Some(view) = &mut self.view {
            Arc::make_mut(view).revoked_keys.remove(&key);
        }
    }
}

/// A positive serial of 16 bytes (RFC 5280 §4.1.2.2): the top bit is clear and the next one set, so it is never zero.
pub(super) fn serial(hasher: &blake3::Hasher) -> [u8; 16] {
    let mut serial = [0; 16];
    hasher.finalize_xof().fill(&mut serial);
    let [first, ..] = &mut serial;
    *first = (*first & 0x7f) | 0x40;
    serial
}
