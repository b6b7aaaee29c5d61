//! The author of a command: who asked for it, and which member took the request.
//!
//! The author travels with each replicated entry. Forwarding carries no authority: the leader judges a forwarded
//! command by the member that forwarded it ([`permit`]), and sets [`Author::taken_by`] from the peer that its transport
//! verified. The rest of an author is what that member reports.

use core::fmt;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::command::Command;
use super::member::Suffrage;
use super::view::View;
use crate::id::{NodeId, RequestId, TokenId};
use crate::principal::Role;
use crate::time::UnixMillis;

/// Who asks for a command.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Actor {
    /// The holder of a certificate or, for a member, of its identity key. A member's automatic work is its own.
    Principal(Role),
    /// A user of the host of the member that took the request, on its local socket.
    Operator {
        /// As the kernel of that host says.
        uid: u32,
    },
    /// The joiner that holds a join token. The token's signature is in the command, and `apply` verifies it.
    Token(TokenId),
}

impl fmt::Display for Actor {
    /// A kind, a slash and a name, such as `admin/root`, `node/3`, `uid/1000` or `token/0123456789abcdef`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Principal(role) => role.fmt(f),
            Self::Operator { uid } => write!(f, "uid/{uid}"),
            Self::Token(token) => write!(f, "token/{token}"),
        }
    }
}

/// What the member that takes a request reports about its author.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The actor that asks.
    pub actor: Actor,
    /// The address that the request came from; none on a local socket and for a member's own work.
    pub source: Option<IpAddr>,
    /// The request, the same however often it is retried or forwarded.
    pub request: RequestId,
}

impl Claim {
    /// The automatic work of member `node`.
    pub const fn of_member(node: NodeId, request: RequestId) -> Self {
        Self { actor: Actor::Principal(Role::Node(node)), source: None, request }
    }

    /// The author of `command` once `member` has taken the request: the leader itself, or the peer that forwarded it.
    ///
    /// An admission proves its author, so its token and its request are taken from the command, not from the claim. No
    /// other command is signed by a token: there, a claim to a token counts as the word of the member that made it.
    pub fn taken_by(self, member: NodeId, command: &Command) -> Author {
        let Self { actor, source, request } = self;
        let source = source.map(|source| source.to_canonical());
        let (actor, request) = match command.operation().authorship() {
            Authorship::Joiner { token, request, .. } => (Actor::Token(token), request),
            Authorship::Founder
            | Authorship::Returner
            | Authorship::Member { .. }
            | Authorship::Witness(_)
            | Authorship::Voter => match actor {
                Actor::Token(_) => (Actor::Principal(Role::Node(member)), request),
                Actor::Principal(_) | Actor::Operator { .. } => (actor, request),
            },
        };
        Author { actor, taken_by: member, source, request }
    }
}

/// Whose word a command is, and so which members may pass it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Authorship {
    /// The founder's: no member passes it on.
    Founder,
    /// A joiner's, signed with its token: any member sponsors it, but its observation counts from that voter alone.
    Joiner {
        /// The token.
        token: TokenId,
        /// The joiner's request.
        request: RequestId,
        /// The voter that observed the joiner, if one did.
        witness: Option<NodeId>,
    },
    /// A returning member's, signed with its identity key: any member passes it on.
    Returner,
    /// A member's own: that member passes it on, or a voter.
    Member {
        /// The member.
        node: NodeId,
        /// Whether it may say so while its certificate has expired: what renews that, and what a cluster that was off
        /// needs to form again.
        in_recovery: bool,
    },
    /// What this voter observed: no other member passes it on.
    Witness(NodeId),
    /// A voter's: its own work, or the request of a caller that it has judged.
    Voter,
}

/// The author of a replicated command. Its encoding takes [`AUTHOR_LEN_MAX`](crate::limits::AUTHOR_LEN_MAX) bytes at
/// most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// Who asked, as reported by `taken_by`.
    pub actor: Actor,
    /// The member that took the request, set by the leader from the verified peer.
    pub taken_by: NodeId,
    /// The address that the request came from, as reported by `taken_by`.
    pub source: Option<IpAddr>,
    /// The request, as reported by `taken_by`.
    pub request: RequestId,
}

impl Author {
    /// Member `node` itself.
    pub const fn of_member(node: NodeId, request: RequestId) -> Self {
        Self { actor: Actor::Principal(Role::Node(node)), taken_by: node, source: None, request }
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at node {}", self.actor, self.taken_by)?;
        match self.source {
            Some(source) => write!(f, " from {source}"),
            None => Ok(()),
        }
    }
}

/// Bytes of a record's author besides its name: kinds, a length, a time, a member.
const MADE_WEIGHT: usize = 11;

/// Who made a record of the state, and when. The rest of the author is in the event of the change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The stamp of the command that made it.
    pub at: UnixMillis,
    /// Who asked for it.
    pub by: Actor,
    /// The member that took the request.
    pub taken_by: NodeId,
}

impl Made {
    /// By `author`, at the stamp `at`.
    pub fn new(author: &Author, at: UnixMillis) -> Self {
        Self { at, by: author.actor.clone(), taken_by: author.taken_by }
    }

    /// Bytes that it takes in a snapshot, about.
    pub(crate) fn weight(&self) -> usize {
        let name = match &self.by {
            Actor::Principal(Role::Node(_)) => 1,
            Actor::Principal(Role::Broker(host)) => host.as_str().len(),
            Actor::Principal(Role::Client(name) | Role::Admin(name)) => name.as_str().len(),
            Actor::Operator { .. } => 2,
            Actor::Token(_) => 8,
        };
        name + MADE_WEIGHT
    }
}

/// A member forwarded a command that it may not ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("node {0} is not a voter and may not administer the cluster")]
pub struct NotPermitted(pub NodeId);

/// Decides whether member `from` may have `command` proposed that it forwards. An admission carries its own proof, the
/// token's signature, so any member may sponsor one; a member speaks for itself; all else needs a voter. What the
/// leader takes itself is not asked here.
pub fn permit(view: &View, from: NodeId, command: &Command) -> Result<(), NotPermitted> {
    let member = view.members.get(&from).ok_or(NotPermitted(from))?;
    let votes = member.suffrage == Suffrage::Voter;
    let allowed = match command.operation().authorship() {
        Authorship::Founder => false,
        Authorship::Joiner { witness: None, .. } | Authorship::Returner => true,
        Authorship::Joiner { witness: Some(by), .. } | Authorship::Witness(by) => votes && by == from,
        Authorship::Member { node, .. } => node == from || votes,
        Authorship::Voter => votes,
    };
    if allowed { Ok(()) } else { Err(NotPermitted(from)) }
}

/// A member whose certificate has expired, or one that asks such a member, wants more than recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a certificate has expired: until it is renewed, node {0} may only renew and speak for itself")]
pub struct RecoveryOnly(pub NodeId);

/// Decides whether `from` may pass `command` on while its own certificate or the other end's has expired: what renews
/// it and what a cluster that was off needs to form again, of the member itself. Asked besides [`permit`].
pub fn permit_in_recovery(from: NodeId, command: &Command) -> Result<(), RecoveryOnly> {
    let own = match command.operation().authorship() {
        Authorship::Member { node, in_recovery } => in_recovery && node == from,
        Authorship::Founder
        | Authorship::Joiner { .. }
        | Authorship::Returner
        | Authorship::Witness(_)
        | Authorship::Voter => false,
    };
    if own { Ok(()) } else { Err(RecoveryOnly(from)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::change::ChangeId;
    use crate::codec;
    use crate::id::{AuthorityId, KeyId};
    use crate::key::Endorsement;
    use crate::limits::AUTHOR_LEN_MAX;
    use crate::name::HostName;
    use crate::principal::Role;
    use crate::trust::command::{
        AddJoinToken, AdoptLeaf, ConfirmAuthority, Evict, Label, Renew, ReportFeatureLevel, RevokeKey,
        RotateClusterToken, SealAuthority, SetAddresses, SetSuffrage, SignAttestation, StagePolicy,
    };
    use crate::trust::tests::rig::{CLUSTER, Rig, bootstrap, key, record, request};

    /// The longest author that there is: of a broker with the longest name.
    fn longest() -> Author {
        let label = "a".repeat(63);
        let host = [label.as_str(), &label, &label, &"b".repeat(61)].join(".");
        let actor = Actor::Principal(Role::Broker(HostName::parse(&host).unwrap()));
        let source = Some(IpAddr::from([0xff; 16]));
        Author { actor, taken_by: NodeId(u64::MAX), source, request: RequestId([0xff; 16]) }
    }

    #[test]
    fn longest_author_stays_within_its_limit() {
        let len = codec::encode(&longest()).unwrap().len();
        assert!(len <= AUTHOR_LEN_MAX && len > AUTHOR_LEN_MAX - 32, "{len}");
    }

    #[test]
    fn forwarded_claim_keeps_its_words_and_names_its_forwarder() {
        let claim = Claim {
            actor: Actor::Operator { uid: 1000 },
            source: Some("::ffff:10.0.0.9".parse().unwrap()),
            request: RequestId([5; 16]),
        };
        let author = claim.taken_by(NodeId(3), &Command::RevokeKey(RevokeKey(KeyId([0; 32]))));
        assert_eq!(author.actor, Actor::Operator { uid: 1000 });
        assert_eq!((author.taken_by, author.request), (NodeId(3), RequestId([5; 16])));
        assert_eq!(author.source, Some([10, 0, 0, 9].into()), "one address has one spelling");
        assert_eq!(author.to_string(), "uid/1000 at node 3 from 10.0.0.9");
    }

    #[test]
    fn author_of_an_admission_is_its_token_whatever_is_claimed() {
        let admit = Command::Admit(Box::new(request(7, 5).into()));
        let token = Actor::Token(crate::trust::tests::rig::token(5).id());
        for actor in
            [Actor::Operator { uid: 0 }, Actor::Token(TokenId([9; 8])), Actor::Principal(Role::Node(NodeId(1)))]
        {
            let claim = Claim { actor, source: None, request: RequestId([1; 16]) };
            let author = claim.taken_by(NodeId(2), &admit);
            assert_eq!((author.actor, author.request), (token.clone(), RequestId([7; 16])));
        }
        // Nothing but an admission is signed by a token.
        let claim = Claim { actor: token, source: None, request: RequestId([1; 16]) };
        let author = claim.taken_by(NodeId(2), &Command::RevokeKey(RevokeKey(KeyId([0; 32]))));
        assert_eq!(author, Author::of_member(NodeId(2), RequestId([1; 16])));
    }

    #[test]
    fn in_recovery_a_member_speaks_for_itself_alone() {
        let endorsement = Endorsement::sign(&key(2), CLUSTER, KeyId([1; 32]), 1);
        let of = |node: u64| {
            let node = NodeId(node);
            [
                Command::Renew(Renew { node, key: KeyId([1; 32]), endorsement: endorsement.clone() }),
                Command::AdoptLeaf(AdoptLeaf { node, renewal: 1 }),
                Command::SignAttestation(SignAttestation { number: 1, node, signature: [0; 64] }),
                Command::ConfirmAuthority(ConfirmAuthority {
                    authority: AuthorityId([1; 32]),
                    node,
                    signature: vec![],
                }),
            ]
        };
        for (own, others) in of(2).iter().zip(&of(3)) {
            assert_eq!(permit_in_recovery(NodeId(2), own), Ok(()), "{own:?}");
            assert_eq!(permit_in_recovery(NodeId(2), others), Err(RecoveryOnly(NodeId(2))), "{others:?}");
        }
        for command in [
            bootstrap(),
            Command::Admit(Box::new(request(7, 5).into())),
            Command::AddJoinToken(AddJoinToken(record(6, 1))),
            Command::ReportFeatureLevel(ReportFeatureLevel { node: NodeId(2), level: 1 }),
            Command::SetAddresses(SetAddresses { node: NodeId(2), addresses: vec![], signature: [0; 64] }),
            Command::Evict(Evict { node: NodeId(2), compromised: false, keep_authority: true }),
            Command::SealAuthority(SealAuthority { authority: AuthorityId([1; 32]), node: NodeId(2), sealed: vec![] }),
            Command::RevokeKey(RevokeKey(KeyId([0; 32]))),
        ] {
            assert_eq!(permit_in_recovery(NodeId(2), &command), Err(RecoveryOnly(NodeId(2))), "{command:?}");
        }
    }

    #[test]
    fn a_learner_sponsors_and_speaks_for_itself_but_administers_nothing() {
        let mut rig = Rig::three_voters();
        rig.apply(Command::AddJoinToken(AddJoinToken(record(5, 1))));
        rig.apply(Command::Admit(Box::new(request(4, 5).into())));
        let view = rig.0.view().unwrap();
        let ask = |from, command: &Command| permit(view, NodeId(from), command).is_ok();
        let own = |node| Command::ReportFeatureLevel(ReportFeatureLevel { node: NodeId(node), level: 1 });
        assert!(ask(4, &Command::Admit(Box::new(request(7, 5).into()))) && ask(4, &own(4)));
        let administering = [
            own(1),
            bootstrap(),
            Command::AddJoinToken(AddJoinToken(record(6, 1))),
            Command::RotateClusterToken(RotateClusterToken(record(6, 1))),
            Command::Evict(Evict { node: NodeId(1), compromised: false, keep_authority: true }),
            Command::SetSuffrage(SetSuffrage { node: NodeId(4), suffrage: Suffrage::Voter, keep_authority: true }),
            Command::RevokeKey(RevokeKey(KeyId([0; 32]))),
            Command::ChangePolicy(Box::default()),
            Command::StagePolicy(StagePolicy { change: ChangeId([0; 16]), part: 0, remove: vec![], put: vec![] }),
            Command::Label(Label { role: Role::Node(NodeId(4)), edits: vec![] }),
        ];
        for command in &administering {
            assert!(!ask(4, command), "{command:?}");
            assert!(!ask(99, command), "no member: {command:?}");
        }
        assert!(ask(2, &own(1)) && !ask(2, &bootstrap()));
        assert!(!ask(99, &Command::Admit(Box::new(request(7, 5).into()))));
    }
}
