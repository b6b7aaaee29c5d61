//! The replicated state and the one function that changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::author::Made;
use super::authorization::Staged;
use super::chain::Chain;
use super::command::{Bootstrap, Command, FEATURE_LEVEL, LEVEL_FOR_TESTING, SealedKey, Stamped};
use super::event::{Draft, Event};
use super::hosts::{HostProof, LeafHosts};
use super::join_token::{Token, TokenRecord, token_id};
use super::member::{ForeignLeaf, Issued, Leaf, Member, Suffrage};
use super::outcome::{Limited, Outcome, Refused};
use super::seal::SealedCopy;
use super::statement::{Signed, StatedVoter, Statement};
use super::view::{Authority, AuthorityPhase, Groups, Members, Principals, View};
use crate::authz::Policy;
use crate::authz::change::ChangeId;
use crate::codec::{self, CodecError, FIRST_LEVEL};
use crate::group::GroupMembers;
use crate::id::{AuthorityId, ClusterId, Generation, GroupId, Incarnation, KeyId, NodeId, RequestId, TokenId};
use crate::lease::LeaseLength;
use crate::limits::{GROUPS_MAX, SKEW_SECS};
use crate::table::{Table, TableSet};
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
/// A field that a later level brings is left out of the derived encoding, which is that of the first level for good. It is
/// appended by [`TrustState::encode`] once the cluster is at that level, and read by [`TrustState::decode`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustState {
    pub(super) view: Option<Arc<View>>,
    pub(super) tokens: Table<TokenId, Token>,
    /// Which member a request admitted, so that a retry gets its answer again.
    pub(super) enrollments: Table<(TokenId, RequestId), NodeId>,
    pub(super) sealed: BTreeMap<(AuthorityId, NodeId), SealedCopy>,
    pub(super) next_node: u64,
    pub(super) node_ttl_secs: u64,
    pub(super) lease: LeaseLength,
    /// What the cluster has become, change by change, as its voters signed it. By number.
    pub(super) statements: Arc<Vec<Signed>>,
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

/// What each handler answers; a refusal leaves the state as it was.
pub(super) type Applied = Result<Outcome, Refused>;

impl TrustState {
    /// An empty state: no cluster yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty state of a member that can apply what needs level `known`.
    pub fn knowing(known: u32) -> Self {
        Self {
            view: None,
            tokens: Table::new(),
            enrollments: Table::new(),
            sealed: BTreeMap::new(),
            next_node: 0,
            node_ttl_secs: 0,
            lease: LeaseLength::default(),
            statements: Arc::default(),
            staged: BTreeMap::new(),
            revision: 0,
            chain: Chain::default(),
            time: UnixMillis::default(),
            level: FIRST_LEVEL,
            level_auto: true,
            known,
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
    pub const fn tokens(&self) -> &Table<TokenId, Token> {
        &self.tokens
    }

    /// Sealed copies of authority keys.
    pub const fn sealed(&self) -> &BTreeMap<(AuthorityId, NodeId), SealedCopy> {
        &self.sealed
    }

    /// What the cluster has become, change by change.
    pub fn statements(&self) -> &[Signed] {
        &self.statements
    }

    /// How long leases last; none before the bootstrap entry, when nobody knows: a member that took another length for it
    /// would serve for longer than its leader waits.
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

    /// As [`Self::apply`], with the event of the change for whoever writes events down.
    pub fn apply_recorded(&mut self, stamped: &Stamped, members: &GroupMembers) -> Result<Recorded, UnsupportedLevel> {
        let needed = stamped.level.max(stamped.command.level());
        if needed > self.known {
            return Err(UnsupportedLevel { needed, known: self.known });
        }
        self.time = self.time.max(stamped.time);
        if let Command::RaiseLevel { level, without, by_itself } = &stamped.command
            && *level > self.known
            && self.check_raise(*level, without, *by_itself) == Ok(true)
        {
            // It has risen for the cluster, and this member lacks it. One that is refused stops no member.
            return Err(UnsupportedLevel { needed: *level, known: self.known });
        }
        let before = self.version();
        let made = Made::new(&stamped.author, self.time);
        let outcome = self.carry_out(stamped, &made, members).unwrap_or_else(Outcome::Refused);
        let event = (self.version() != before).then(|| {
            let text = Draft { state: self, stamped, outcome: &outcome }.text();
            let (number, head) = (self.chain.count().saturating_add(1), self.chain.extend(&text.chained));
            Event::new(number, head, text)
        });
        Ok(Recorded { outcome, event })
    }

    fn carry_out(&mut self, stamped: &Stamped, made: &Made, members: &GroupMembers) -> Applied {
        match &stamped.command {
            Command::Bootstrap(bootstrap) => self.bootstrap(bootstrap, stamped.level, made),
            command => {
                self.check_command_level(command.level())?;
                self.dispatch(command, made, members)
            }
        }
    }

    /// Differs from any earlier one if anything has changed since but the time.
    fn version(&self) -> (Generation, u64) {
        (self.view.as_ref().map_or(Generation(0), |view| view.generation), self.revision)
    }

    /// Notes that something changed that the view does not show.
    pub(super) const fn revise(&mut self) {
        self.revision = self.revision.saturating_add(1);
    }

    fn dispatch(&mut self, command: &Command, made: &Made, members: &GroupMembers) -> Applied {
        match command {
            Command::Bootstrap(_) => Err(Refused::ClusterExists),
            Command::AddJoinToken(record) => self.add_token(record, made),
            Command::RevokeJoinToken(token) => self.revoke_token(*token),
            Command::RotateClusterToken(record) => self.rotate_cluster_token(record, made),
            Command::Admit(admission) => self.admit(admission, made),
            Command::ProveHosts { node, witness } => self.prove_hosts(*node, witness),
            Command::EditHosts { node, add, remove } => self.edit_hosts(*node, add, remove),
            Command::SetCluster(setting) => self.set_cluster(setting),
            Command::SealAuthority { authority, node, sealed } => self.seal(*authority, *node, sealed),
            Command::ConfirmAuthority { authority, node, signature } => self.confirm(*authority, *node, signature),
            Command::SetSuffrage { node, suffrage, keep_authority } => {
                self.set_suffrage(*node, *suffrage, *keep_authority)
            }
            Command::Evict { node, compromised, keep_authority } => {
                self.evict(*node, *compromised, *keep_authority, members)
            }
            Command::ReturnStore(request) => self.return_store(request),
            Command::BindStore { node, store } => self.bind_store(*node, *store, members),
            Command::IssuePrincipal { role, spki, ttl_secs } => self.issue_principal(role, spki, *ttl_secs, made),
            Command::RenewPrincipal { role, in_use, spki } => self.renew_principal(role, *in_use, spki, made),
            Command::RevokeKey(key) => self.revoke_key(*key),
            Command::RevokePrincipal(role) => self.revoke_principal(role),
            Command::AssignGroup { group, members } => self.assign_group(*group, members),
            Command::ReportFeatureLevel { node, level } => self.report_level(*node, *level),
            Command::RaiseLevel { level, without, by_itself } => self.raise_level(*level, without, *by_itself),
            Command::NoteForTesting(note) => {
                self.notes.push(note.clone());
                self.change(|_| {})
            }
            Command::SetAddresses { node, addresses, signature } => self.set_addresses(*node, addresses, signature),
            Command::Renew { node, key, endorsement } => self.renew(*node, *key, endorsement, made),
            Command::AdoptLeaf { node, renewal } => self.adopt(*node, *renewal),
            Command::SignStatement { number, node, signature } => self.sign_statement(*number, *node, signature),
            Command::StagePolicy { change, part, remove, put } => self.stage_policy(*change, *part, remove, put),
            Command::ChangePolicy(change) => self.change_policy(change, made),
            Command::Label { role, edits } => self.label(role, edits),
        }
    }

    fn bootstrap(&mut self, b: &Bootstrap, level: u32, made: &Made) -> Applied {
        if self.view.is_some() {
            return Err(Refused::ClusterExists);
        }
        super::members::check_addresses(&b.addresses)?;
        match (&b.authority_key, &b.foreign) {
            (None, None) => return Err(Refused::CertificateMissing),
            (Some(_), Some(_)) => return Err(Refused::CertificateUnwanted),
            (None, Some(_)) | (Some(_), None) => {}
        }
        let founder = NodeId(1);
        let authority = AuthorityId::of_certificate(&b.authority);
        if let Some(token) = &b.token {
            super::tokens::check_limits(token, self.time)?;
        }
        let policy = Policy::initial().changed_by(&b.policy, self.staged_for(&b.policy)?, Generation(1))?;
        let mut policy = policy.map_or_else(Policy::initial, |(policy, _)| policy);
        policy.record(b.policy.put.iter().map(|rule| &rule.id), &Arc::new(made.clone()));
        policy.check()?;
        self.node_ttl_secs = b.node_ttl_secs;
        self.lease = b.lease;
        self.next_node = founder.0 + 1;
        let copy = |key: &SealedKey| SealedCopy { ciphertext: key.sealed.clone(), opened: true };
        self.sealed.extend(b.authority_key.iter().map(|key| ((authority, founder), copy(key))));
        let token = |record: &TokenRecord| Token { record: record.clone(), made: made.clone() };
        self.tokens.extend(b.token.iter().map(|record| (token_id(record.verifier), token(record))));
        let record = Authority {
            certificate: b.authority.clone(),
            key: b.authority_key.as_ref().map(|key| key.public.clone()),
            phase: AuthorityPhase::Active,
            validity: b.authority_validity,
            // What is signed where the key is, no member ever sees.
            imported: b.imported || b.authority_key.is_none(),
        };
        let of = LeafOf { node: founder, key: b.leaf_key, renewal: 0 };
        let leaf = self.leaf_in(b.cluster, of, b.foreign.as_ref(), (authority, &record), made);
        let member = Member {
            id: founder,
            name: b.node_name.clone(),
            suffrage: Suffrage::Voter,
            keys: b.keys,
            store: b.store,
            returning: None,
            leaf,
            mapped: b.foreign.as_ref().map(|foreign| foreign.mapped.clone()),
            addresses: b.addresses.clone(),
            addresses_changed: Generation(0),
            proved: b.addresses.iter().map(|a| (a.host.clone(), HostProof::Founder)).collect(),
            hosts: LeafHosts { own: super::members::hosts(&b.addresses), shared: vec![] },
            renewed: None,
            role: None,
            attributes: BTreeMap::new(),
            admitted_by: None,
            admitted_at: self.time,
            token_made: None,
            feature_level: level,
            level_since: self.time,
        };
        self.level = level;
        self.view = Some(Arc::new(View {
            cluster: b.cluster,
            name: b.name.clone(),
            trust_domain: b.trust_domain.clone(),
            incarnation: Incarnation(0),
            generation: Generation(1),
            authorities: BTreeMap::from([(authority, record)]),
            members: Members::from([(founder, member)]),
            evicted: Table::new(),
            principals: Principals::default(),
            labels: Table::new(),
            policy: Arc::new(policy),
            revoked_keys: TableSet::new(),
            revoked_principals: TableSet::new(),
            groups: Groups::default(),
            client_names: BTreeSet::new(),
            statement: Arc::new(Statement::founding(
                b.cluster,
                founder,
                StatedVoter { identity: b.keys.identity, store: b.store },
                authority,
            )),
            stated: 0,
        }));
        self.state_anew();
        self.admitted_outcome(founder, false)
    }

    fn assign_group(&mut self, group: GroupId, members: &[NodeId]) -> Applied {
        let view = self.current()?;
        if let Some(stranger) = members.iter().find(|id| !view.members.contains_key(id)) {
            return Err(Refused::NoSuchNode(*stranger));
        }
        if group == GroupId::TRUST || (view.groups.len() >= GROUPS_MAX && !view.groups.contains_key(&group)) {
            return Err(Refused::Limit { what: Limited::Groups, max: GROUPS_MAX as u64 });
        }
        let members: BTreeSet<NodeId> = members.iter().copied().collect();
        self.change(|view| view.groups.assign(group, members))
    }

    fn report_level(&mut self, node: NodeId, level: u32) -> Applied {
        if let Some(done) = self.check_level(node, level)? {
            return Ok(done);
        }
        let at = self.time;
        self.change(|view| {
            view.members.update(&node, |member| (member.feature_level, member.level_since) = (level, at));
        })
    }

    /// The leaf that the state records and the leader signs. Its serial follows from what it certifies, so that any voter
    /// that signs the same grant makes the same certificate.
    pub(super) fn leaf(
        &self,
        of: LeafOf,
        foreign: Option<&ForeignLeaf>,
        authority: (AuthorityId, &Authority),
        made: &Made,
    ) -> Result<Leaf, Refused> {
        Ok(self.leaf_in(self.current()?.cluster, of, foreign, authority, made))
    }

    fn leaf_in(
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

    /// The one way to change the view: copies it if somebody reads it, and raises the generation.
    pub(super) fn change(&mut self, edit: impl FnOnce(&mut View)) -> Applied {
        let view = Arc::make_mut(self.view.as_mut().ok_or(Refused::NoCluster)?);
        edit(view);
        view.generation.0 = view.generation.0.saturating_add(1);
        let generation = view.generation;
        self.state_anew();
        Ok(Outcome::Done(generation))
    }

    /// The state as a snapshot.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let mut bytes = codec::encode_at(self.level, self)?;
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
        let notes = if level >= LEVEL_FOR_TESTING { codec::exactly(later)? } else { codec::nothing(later)? };
        Ok(Self { level, known, notes, ..state })
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
