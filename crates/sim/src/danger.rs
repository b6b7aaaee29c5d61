//! Faults to inject, so that every check of the simulation is seen to fail. Each sits in the simulation's own layer
//! around the core; the core itself has no such door.

use std::collections::BTreeMap;

use countersign_core::enroll::EnrollmentRequest;
use countersign_core::enroll::joiner::{Enrolled, JoinError, Requested};
use countersign_core::enroll::sponsor::{SponsorError, SponsorSide, SponsoredRequest};
use countersign_core::group::GroupMembers;
use countersign_core::id::{AuthorityId, GroupId, NodeId, RequestId, TokenId};
use countersign_core::peer::{CertificateClaims, CertificateProof, Proof, Refusal, VerifiedPeer, Wanted, verify};
use countersign_core::secret::Secret;
use countersign_core::time::{UnixMillis, Validity};
use countersign_core::trust::author::{Author, Made, NotPermitted, permit};
use countersign_core::trust::command::{AddJoinToken, AssignGroup, Command, CreateGroup, Stamped};
use countersign_core::trust::join_token::{JoinToken, TokenRecord};
use countersign_core::trust::member::{Issued, Member};
use countersign_core::trust::outcome::{Outcome, Refused, Signer};
use countersign_core::trust::view::{IssuedKey, View};
use countersign_core::trust::{TrustState, UnsupportedLevel};

/// A defect that every simulated member shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Danger {
    /// Each token's first use is not counted.
    ForgetsToSpend,
    /// Revocations of tokens and keys are answered, but not recorded.
    ForgetsRevocations,
    /// The judgement does not look at evictions.
    ForgetsEvictions,
    /// A request is applied with any signature.
    BelievesUnsignedRequests,
    /// Sponsors do not compare the connection.
    SponsorsRelayedRequests,
    /// Any member may administer.
    PermitsAnyMember,
    /// A repeated request is answered with another node.
    AnswersRetriesDifferently,
    /// Time is what the last command says.
    FollowsEveryClock,
    /// A member that restarts takes an old snapshot for the present state.
    RestartsFromTheOldSnapshot,
    /// Some members skip some entries.
    SkipsEntries,
    /// A refused command leaves a trace.
    ChangesOnRefusal,
    /// The judgement does not ask whether the identity key vouches for a leaf.
    BelievesAnyLeaf,
    /// The judgement does not look at the certificate's validity.
    IgnoresValidity,
    /// The judgement does not ask who issued the certificate.
    TrustsAnyAuthority,
    /// The judgement does not ask which peer was dialed.
    AcceptsAnyPeerAnywhere,
    /// The judgement does not ask whether a principal's key is on record.
    BelievesAnyPrincipal,
    /// The judgement does not ask whether a node is a member.
    BelievesAnyNode,
    /// The judgement knows only leaves of the enrollment.
    RefusesRenewedLeaves,
    /// Joiners do not look whether the answer holds them.
    BelievesAnyAnswer,
}

impl Danger {
    /// Every fault.
    pub const ALL: [Self; 19] = [
        Self::ForgetsToSpend,
        Self::ForgetsRevocations,
        Self::ForgetsEvictions,
        Self::BelievesUnsignedRequests,
        Self::SponsorsRelayedRequests,
        Self::PermitsAnyMember,
        Self::AnswersRetriesDifferently,
        Self::FollowsEveryClock,
        Self::RestartsFromTheOldSnapshot,
        Self::SkipsEntries,
        Self::ChangesOnRefusal,
        Self::BelievesAnyLeaf,
        Self::IgnoresValidity,
        Self::TrustsAnyAuthority,
        Self::AcceptsAnyPeerAnywhere,
        Self::BelievesAnyPrincipal,
        Self::BelievesAnyNode,
        Self::RefusesRenewedLeaves,
        Self::BelievesAnyAnswer,
    ];
}

/// The core as the simulated members call it: as it is, or with one fault around it.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    danger: Option<Danger>,
    /// What only the faults use: secrets of tokens, and members that were evicted.
    secrets: BTreeMap<TokenId, [u8; 32]>,
    graves: BTreeMap<NodeId, Member>,
}

impl Faults {
    pub(crate) const fn new(danger: Option<Danger>) -> Self {
        Self { danger, secrets: BTreeMap::new(), graves: BTreeMap::new() }
    }

    fn has(&self, danger: Danger) -> bool {
        self.danger == Some(danger)
    }

    pub(crate) fn learn_token(&mut self, token: TokenId, secret: [u8; 32]) {
        self.secrets.insert(token, secret);
    }

    pub(crate) fn bury(&mut self, member: Member) {
        self.graves.insert(member.id, member);
    }

    pub(crate) fn apply(&self, state: &mut TrustState, stamped: &Stamped) -> Result<Outcome, UnsupportedLevel> {
        // This world has no Raft: its members leave no group.
        let group_members = GroupMembers::default();
        let again = |command| Stamped { command, ..stamped.clone() };
        match &stamped.command {
            Command::AddJoinToken(AddJoinToken(record)) if self.has(Danger::ForgetsToSpend) => {
                state.apply(&again(Command::AddJoinToken(AddJoinToken(with_one_more_use(record)))), &group_members)
            }
            Command::RevokeJoinToken(_) | Command::RevokeKey(_) if self.has(Danger::ForgetsRevocations) => {
                Ok(state.view().map_or(Outcome::Refused(Refused::NoCluster), |view| Outcome::Done(view.generation)))
            }
            Command::Admit(admission) => {
                let outcome = state.apply(stamped, &group_members)?;
                match (outcome, self.secrets.get(&admission.request.token)) {
                    (Outcome::Refused(Refused::Signature(Signer::Token)), Some(secret))
                        if self.has(Danger::BelievesUnsignedRequests) =>
                    {
                        let token = JoinToken::new(Secret::new(*secret), AuthorityId([0; 32]));
                        let request = admission.request.clone().signed(&token.key());
                        state.apply(&again(Command::Admit(Box::new(request.into()))), &group_members)
                    }
                    (Outcome::Admitted(mut admitted), _)
                        if self.has(Danger::AnswersRetriesDifferently) && admitted.repeated =>
                    {
                        admitted.node.0 += 1;
                        Ok(Outcome::Admitted(admitted))
                    }
                    (outcome, _) => Ok(outcome),
                }
            }
            _ if self.has(Danger::ChangesOnRefusal) => {
                let outcome = state.apply(stamped, &group_members)?;
                if matches!(outcome, Outcome::Refused(_)) {
                    // One of the two works at each level.
                    let members: Vec<NodeId> =
                        state.view().into_iter().flat_map(|v| v.members.scan().keys()).copied().take(1).collect();
                    let group = GroupId(9);
                    state.apply(
                        &again(Command::AssignGroup(AssignGroup { group, members: Vec::new() })),
                        &group_members,
                    )?;
                    state.apply(&again(Command::CreateGroup(CreateGroup { members })), &group_members)?;
                }
                Ok(outcome)
            }
            _ => state.apply(stamped, &group_members),
        }
    }

    /// The time that a member goes by after it applied `stamped`.
    pub(crate) fn time(&self, state: &TrustState, stamped: &Stamped) -> UnixMillis {
        if self.has(Danger::FollowsEveryClock) { stamped.time } else { state.time() }
    }

    pub(crate) fn judge(
        &self,
        view: &View,
        claims: &CertificateClaims,
        wanted: Wanted,
        now: UnixMillis,
    ) -> Result<VerifiedPeer, Refusal> {
        match self.danger {
            Some(danger) => judge_with(danger, &self.graves, view, claims, wanted, now),
            None => verify(&proven(claims.clone()), view, wanted, now),
        }
    }

    pub(crate) fn accept(&self, asked: Requested, node: NodeId, view: &View) -> Result<Enrolled, JoinError> {
        let name = asked.message().name.clone();
        let answer = asked.accept(node, view);
        if self.has(Danger::BelievesAnyAnswer) { Ok(Enrolled { node, name }) } else { answer }
    }

    pub(crate) fn sponsor(
        &self,
        request: EnrollmentRequest,
        side: &SponsorSide,
        view: &View,
    ) -> Result<SponsoredRequest, SponsorError> {
        let mut side = side.clone();
        if self.has(Danger::SponsorsRelayedRequests) {
            side = SponsorSide { leaf: request.sponsor_leaf, exporter: request.exporter, ..side };
        }
        SponsoredRequest::check(request, &side, view)
    }

    pub(crate) fn permit(&self, view: &View, from: NodeId, command: &Command) -> Result<(), NotPermitted> {
        if self.has(Danger::PermitsAnyMember) { Ok(()) } else { permit(view, from, command) }
    }

    pub(crate) fn restarts_from_the_old_snapshot(&self) -> bool {
        self.has(Danger::RestartsFromTheOldSnapshot)
    }

    pub(crate) fn skips(&self, node: NodeId, index: usize) -> bool {
        self.has(Danger::SkipsEntries) && (node.0 as usize + index) % 16 == 15
    }
}

fn with_one_more_use(record: &TokenRecord) -> TokenRecord {
    TokenRecord { uses: record.uses + 1, uses_left: record.uses_left + 1, ..record.clone() }
}

/// The judgement with one of its questions left out: what was asked, or what the cluster knows, is bent until it
/// passes.
fn judge_with(
    danger: Danger,
    graves: &BTreeMap<NodeId, Member>,
    view: &View,
    claims: &CertificateClaims,
    wanted: Wanted,
    now: UnixMillis,
) -> Result<VerifiedPeer, Refusal> {
    let (mut view, mut parts, mut wanted) = (view.clone(), claims.clone(), wanted);
    let role = parts.principal.role.clone();
    match (danger, role.node_id()) {
        (Danger::ForgetsEvictions, _) => {
            let evicted = core::mem::take(&mut view.evicted);
            for (id, member) in graves.iter().filter(|(id, _)| evicted.contains_key(id)) {
                for key in [member.keys.identity.id(), member.leaf.key] {
                    view.revoked_keys.remove(&key);
                }
                view.members.insert(*id, member.clone());
            }
            let others = evicted.scan().iter().filter(|(id, _)| !graves.contains_key(id));
            view.evicted = others.map(|(id, evicted)| (*id, evicted.clone())).collect();
        }
        (Danger::BelievesAnyLeaf, Some(node)) => {
            view.members.update(&node, |member| member.leaf.key = parts.key);
        }
        (Danger::IgnoresValidity, _) => {
            parts.validity = Validity { not_before: UnixMillis(0), not_after: parts.validity.not_after.max(now) };
        }
        (Danger::TrustsAnyAuthority, _) => {
            (parts.authority, parts.cluster) = (view.active_authority().map_or(parts.authority, |(id, _)| id), None);
        }
        (Danger::AcceptsAnyPeerAnywhere, _) => wanted = Wanted::AnyPrincipal,
        (Danger::BelievesAnyPrincipal, None) => {
            let Validity { not_before, not_after } = parts.validity;
            let made = Made::new(&Author::of_member(NodeId(1), RequestId([0; 16])), not_before);
            let issued = Issued { authority: None, made };
            let issued = IssuedKey { not_after, not_before, ttl_secs: 60, renewed_from: None, issued };
            view.principals.update(&role, |keys| {
                keys.entry(parts.key).or_insert(issued);
            });
        }
        (Danger::BelievesAnyNode, Some(node)) => {
            let any_member = view.members.scan().values().next().cloned();
            if let Some(mut member) = any_member.filter(|_| !view.members.contains_key(&node)) {
                member.leaf.key = parts.key;
                view.members.insert(node, member);
            }
        }
        (Danger::RefusesRenewedLeaves, Some(_)) => parts.endorsement = None,
        _ => {}
    }
    verify(&proven(parts), &view, wanted, now)
}

/// As if a handshake had established the claims.
fn proven(claims: CertificateClaims) -> Proof {
    Proof::Certificate(CertificateProof::asserted(claims))
}
