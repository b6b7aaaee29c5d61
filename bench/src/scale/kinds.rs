//! The kinds of command that are timed, and how each is made for a state of a given size.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use countersign_core::authz::change::{ChangeId, PolicyChange};
use countersign_core::authz::label::LabelEdit;
use countersign_core::authz::{NamePattern, PrincipalPattern, Rule, RuleId};
use countersign_core::enroll::returning::{ReturnChannel, StoreReturn};
use countersign_core::id::{KeyId, NodeId, StoreId};
use countersign_core::key::Endorsement;
use countersign_core::name::Host;
use countersign_core::principal::Role;
use countersign_core::trust::command::{
    AddJoinToken, AdoptLeaf, AssignGroup, BindDataStore, BindStore, ClusterSetting, Command, CreateGroup, EditHosts,
    Evict, FEATURE_LEVEL, Label, ProveHosts, RaiseLevel, Renew, RenewPrincipal, ReportFeatureLevel, RevokeJoinToken,
    RevokeKey, RevokePrincipal, RotateClusterToken, SealAuthority, SetAddresses, SetSuffrage, SignAttestation,
    StagePolicy,
};
use countersign_core::trust::hosts::Witness;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::Outcome;
use countersign_core::trust::{TrustState, addresses_transcript};
use countersign_guard::{Action, Effect, Kind as ResourceKind};

use super::grown::{
    Base, CLUSTER, VOTERS, address, apply, authority, bytes16, bytes32, client, confirmation, issue, secret, spki,
    token_id, token_record,
};

/// Numbers that no member and no principal on record was made from.
const FRESH: u64 = 1 << 42;

/// A kind of command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Issue,
    RenewPrincipal,
    RevokeKey,
    RevokePrincipal,
    LabelPrincipal,
    LabelMember,
    Admit,
    Renew,
    AdoptLeaf,
    SetAddresses,
    ProveHosts,
    EditHosts,
    Promote,
    Demote,
    Evict,
    EvictCompromised,
    ReturnStore,
    BindStore,
    ReportFeatureLevel,
    RaiseLevel,
    SealAuthority,
    ConfirmAuthority,
    SignAttestation,
    AddJoinToken,
    RevokeJoinToken,
    RotateClusterToken,
    StagePolicy,
    ChangePolicy,
    ClientNames,
    LevelAuto,
    CreateGroup,
    AssignGroup,
    BindDataStore,
}

impl Kind {
    /// All commands but the one that makes a cluster.
    pub(super) const ALL: [Self; 33] = [
        Self::Issue,
        Self::RenewPrincipal,
        Self::RevokeKey,
        Self::RevokePrincipal,
        Self::LabelPrincipal,
        Self::LabelMember,
        Self::Admit,
        Self::Renew,
        Self::AdoptLeaf,
        Self::SetAddresses,
        Self::ProveHosts,
        Self::EditHosts,
        Self::Promote,
        Self::Demote,
        Self::Evict,
        Self::EvictCompromised,
        Self::ReturnStore,
        Self::BindStore,
        Self::ReportFeatureLevel,
        Self::RaiseLevel,
        Self::SealAuthority,
        Self::ConfirmAuthority,
        Self::SignAttestation,
        Self::AddJoinToken,
        Self::RevokeJoinToken,
        Self::RotateClusterToken,
        Self::StagePolicy,
        Self::ChangePolicy,
        Self::ClientNames,
        Self::LevelAuto,
        Self::CreateGroup,
        Self::AssignGroup,
        Self::BindDataStore,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Issue => "`IssuePrincipal`, a new principal",
            Self::RenewPrincipal => "`RenewPrincipal`",
            Self::RevokeKey => "`RevokeKey`",
            Self::RevokePrincipal => "`RevokePrincipal`",
            Self::LabelPrincipal => "`Label` of a principal",
            Self::LabelMember => "`Label` of a member",
            Self::Admit => "`Admit`, one member less before",
            Self::Renew => "`Renew`",
            Self::AdoptLeaf => "`AdoptLeaf`",
            Self::SetAddresses => "`SetAddresses`",
            Self::ProveHosts => "`ProveHosts`",
            Self::EditHosts => "`EditHosts`",
            Self::Promote => "`SetSuffrage` to voter",
            Self::Demote => "`SetSuffrage` to learner",
            Self::Evict => "`Evict`",
            Self::EvictCompromised => "`Evict`, compromised: ends all tokens",
            Self::ReturnStore => "`ReturnStore`",
            Self::BindStore => "`BindStore`",
            Self::ReportFeatureLevel => "`ReportFeatureLevel`",
            Self::RaiseLevel => "`RaiseLevel`",
            Self::SealAuthority => "`SealAuthority`",
            Self::ConfirmAuthority => "`ConfirmAuthority`",
            Self::SignAttestation => "`SignAttestation`",
            Self::AddJoinToken => "`AddJoinToken`",
            Self::RevokeJoinToken => "`RevokeJoinToken`",
            Self::RotateClusterToken => "`RotateClusterToken`",
            Self::StagePolicy => "`StagePolicy`, one rule",
            Self::ChangePolicy => "`ChangePolicy`, one rule",
            Self::ClientNames => "`SetCluster`, names",
            Self::LevelAuto => "`SetCluster`, level",
            Self::CreateGroup => "`CreateGroup`",
            Self::AssignGroup => "`AssignGroup`",
            Self::BindDataStore => "`BindDataStore`",
        }
    }

    /// Signatures that are checked while the command is applied.
    pub(super) const fn signatures(self) -> u32 {
        match self {
            Self::Admit => 2,
            Self::Renew | Self::SetAddresses | Self::ReturnStore | Self::ConfirmAuthority | Self::SignAttestation => 1,
            _ => 0,
        }
    }

    /// The state before the command, and the command; `sample` picks the principal and the member.
    pub(super) fn prepare(self, base: &Base, sample: u64) -> Result<(TrustState, Command)> {
        let mut state = match self {
            Self::RaiseLevel => base.first_level.clone(),
            Self::Admit => base.one_less.clone(),
            _ => base.state.clone(),
        };
        // Far apart, so that no sample finds in the cache what the one before it read.
        let spread = sample.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
        let about = About { principal: 1 + spread % base.size.principals, fresh: FRESH + sample, spread };
        let command = match self {
            Self::Admit => base.next.clone(),
            Self::AddJoinToken => Command::AddJoinToken(AddJoinToken(token_record(about.fresh, Suffrage::Learner))),
            Self::RotateClusterToken => {
                Command::RotateClusterToken(RotateClusterToken(token_record(about.fresh, Suffrage::Learner)))
            }
            Self::RevokeJoinToken => Command::RevokeJoinToken(RevokeJoinToken(token_id(1 + spread % base.size.tokens))),
            Self::RaiseLevel => {
                Command::RaiseLevel(RaiseLevel { level: FEATURE_LEVEL, without: BTreeSet::new(), by_itself: false })
            }
            Self::ClientNames => Command::SetCluster(ClusterSetting::ClientNames(vec![about.host()?])),
            Self::LevelAuto => Command::SetCluster(ClusterSetting::LevelAuto(!state.level_auto())),
            Self::StagePolicy => Command::StagePolicy(StagePolicy {
                change: ChangeId([1; 16]),
                part: 0,
                remove: vec![],
                put: vec![about.rule()?],
            }),
            Self::ChangePolicy => {
                Command::ChangePolicy(Box::new(PolicyChange { put: vec![about.rule()?], ..PolicyChange::default() }))
            }
            Self::Issue | Self::RenewPrincipal | Self::RevokeKey | Self::RevokePrincipal | Self::LabelPrincipal => {
                self.of_principal(about)?
            }
            Self::CreateGroup | Self::AssignGroup | Self::BindDataStore => self.of_group(&mut state, about)?,
            _ => self.of_member(&mut state, about)?,
        };
        Ok((state, command))
    }

    fn of_principal(self, about: About) -> Result<Command> {
        let role = client(about.principal)?;
        let in_use = KeyId::of_spki(&spki(about.principal));
        Ok(match self {
            Self::RenewPrincipal => Command::RenewPrincipal(RenewPrincipal { role, in_use, spki: spki(about.fresh) }),
            Self::RevokeKey => Command::RevokeKey(RevokeKey(in_use)),
            Self::RevokePrincipal => Command::RevokePrincipal(RevokePrincipal(role)),
            Self::LabelPrincipal => label(role),
            _ => issue(about.fresh)?,
        })
    }

    fn of_group(self, state: &mut TrustState, about: About) -> Result<Command> {
        let create = Command::CreateGroup(CreateGroup { members: vec![NodeId(1), NodeId(2), about.learner(state)?] });
        Ok(match self {
            Self::AssignGroup => {
                let Outcome::Placed { group, .. } = apply(state, create)? else { anyhow::bail!("no group") };
                Command::AssignGroup(AssignGroup { group, members: vec![NodeId(2), NodeId(3)] })
            }
            Self::BindDataStore => Command::BindDataStore(BindDataStore {
                node: about.learner(state)?,
                store: StoreId(bytes16(about.fresh)),
            }),
            _ => create,
        })
    }

    fn of_member(self, state: &mut TrustState, about: About) -> Result<Command> {
        let node = about.learner(state)?;
        let store = StoreId(bytes16(about.fresh));
        let view = state.view().context("a view")?;
        let member = view.members.get(&node).context("a member")?;
        Ok(match self {
            Self::Renew => about.renewal(node),
            Self::AdoptLeaf => {
                apply(state, about.renewal(node))?;
                Command::AdoptLeaf(AdoptLeaf { node, renewal: 1 })
            }
            Self::SetAddresses => {
                // No member on record has it.
                let addresses = vec![address((1 << 23) + (about.spread & 0xFFFF))?];
                let signature = secret(node.0).sign(&addresses_transcript(view, node, &addresses));
                Command::SetAddresses(SetAddresses { node, addresses, signature })
            }
            Self::ProveHosts => {
                let hosts = member.addresses.iter().map(|address| address.host.clone()).collect();
                Command::ProveHosts(ProveHosts { node, witness: Witness { by: NodeId(1), hosts } })
            }
            Self::EditHosts => Command::EditHosts(EditHosts { node, add: vec![about.host()?], remove: vec![] }),
            Self::Promote => {
                Command::SetSuffrage(SetSuffrage { node, suffrage: Suffrage::Voter, keep_authority: false })
            }
            Self::Demote => Command::SetSuffrage(SetSuffrage {
                node: NodeId(VOTERS),
                suffrage: Suffrage::Learner,
                keep_authority: true,
            }),
            Self::EvictCompromised => Command::Evict(Evict { node, compromised: true, keep_authority: true }),
            Self::ReturnStore => about.returning(node, member.store, store),
            Self::BindStore => {
                let returning = about.returning(node, member.store, store);
                apply(state, returning)?;
                Command::BindStore(BindStore { node, store })
            }
            Self::ReportFeatureLevel => {
                Command::ReportFeatureLevel(ReportFeatureLevel { node, level: FEATURE_LEVEL + 1 })
            }
            Self::SealAuthority => seal(node),
            Self::ConfirmAuthority => {
                apply(state, seal(node))?;
                confirmation(node, &SEALED)
            }
            Self::SignAttestation => {
                apply(state, Command::Evict(Evict { node, compromised: false, keep_authority: true }))?;
                let attestation = &state.view().context("a view")?.attestation;
                let signature = secret(1).sign(&attestation.transcript());
                Command::SignAttestation(SignAttestation { number: attestation.number, node: NodeId(1), signature })
            }
            Self::LabelMember => label(Role::Node(node)),
            _ => Command::Evict(Evict { node, compromised: false, keep_authority: true }),
        })
    }
}

const SEALED: [u8; 1] = [9];

fn seal(node: NodeId) -> Command {
    Command::SealAuthority(SealAuthority { authority: authority(), node, sealed: SEALED.to_vec() })
}

fn label(role: Role) -> Command {
    let edit = LabelEdit { name: "zone".to_owned(), value: Some("z1".to_owned()) };
    Command::Label(Label { role, edits: vec![edit] })
}

/// The principal and the member that a sample is about.
#[derive(Clone, Copy)]
struct About {
    principal: u64,
    /// A number that nothing on record was made from.
    fresh: u64,
    spread: u64,
}

impl About {
    /// A member that does not vote. Each has the number from which it was made.
    fn learner(self, state: &TrustState) -> Result<NodeId> {
        let members = &state.view().context("a view")?.members;
        let learners = members.len() as u64 - VOTERS;
        let place = usize::try_from(self.spread % learners)?;
        members.scan().keys().nth_back(place).copied().context("no member")
    }

    fn renewal(self, node: NodeId) -> Command {
        let key = KeyId(bytes32(self.fresh));
        Command::Renew(Renew { node, key, endorsement: Endorsement::sign(&secret(node.0), CLUSTER, key, 1) })
    }

    fn returning(self, node: NodeId, replaces: StoreId, store: StoreId) -> Command {
        let channel = ReturnChannel { leaf: [3; 32], exporter: [4; 32] };
        let signed = StoreReturn::sign(&secret(node.0), (CLUSTER, node), (replaces, store), channel);
        Command::ReturnStore(Box::new(signed))
    }

    fn host(self) -> Result<Host> {
        Ok(Host::parse(&format!("h{}.example.com", self.fresh))?)
    }

    fn rule(self) -> Result<Rule> {
        Ok(Rule {
            id: RuleId::parse("one")?,
            effect: Effect::Allow,
            principal: PrincipalPattern::Exact(format!("client/c{}", self.principal).into()),
            actions: Action::Read.into(),
            kind: ResourceKind::TOPIC,
            pattern: NamePattern::Exact("orders".into()),
            network: None,
            not_after: None,
        })
    }
}
