//! A small cluster made of numbered seeds, and one function to apply a command and look at what it did.

use crate::enroll::EnrollmentRequest;
use crate::group::GroupMembers;
use crate::id::{AuthorityId, ClusterId, KeyId, NodeId, RequestId, StoreId};
use crate::key::{Endorsement, SecretKey};
use crate::lease::LeaseLength;
use crate::name::{Address, Name};
use crate::principal::{Role, TrustDomain};
use crate::secret::Secret;
use crate::time::{UnixMillis, Validity};
use crate::trust::author::{Actor, Author};
use crate::trust::command::{
    AddJoinToken, Bootstrap, Command, ConfirmAuthority, FEATURE_LEVEL, RevokeJoinToken, SealAuthority, SealedKey,
    SignAttestation, Stamped,
};
use crate::trust::event::Event;
use crate::trust::join_token::{JoinToken, TokenRecord};
use crate::trust::member::{MemberKeys, Suffrage};
use crate::trust::outcome::{Outcome, Refused};
use crate::trust::seal::confirm_transcript;
use crate::trust::view::AuthorityKey;
use crate::trust::{Recorded, TrustState};

pub(crate) const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);
pub(crate) const CLUSTER: ClusterId = ClusterId([0xC1; 16]);
const CA: &[u8] = b"not parsed here: a certificate is bytes to the state";

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(Secret::new([seed; 32]))
}

pub(crate) fn pin() -> AuthorityId {
    AuthorityId::of_certificate(CA)
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// Keys of the node with this seed: identity `seed`, sealing, UCAN `seed + 100`; its leaf key is `seed + 50`.
pub(crate) fn keys(seed: u8) -> MemberKeys {
    MemberKeys { identity: key(seed).public(), sealing: [seed; 32], ucan: key(seed + 100).public() }
}

pub(crate) fn leaf_key(seed: u8) -> KeyId {
    key(seed + 50).public().id()
}

pub(crate) fn token(seed: u8) -> JoinToken {
    JoinToken::new(Secret::new([seed; 32]), pin())
}

pub(crate) fn record(seed: u8, uses: u32) -> TokenRecord {
    TokenRecord {
        verifier: token(seed).key().public(),
        pin: pin(),
        suffrage: Suffrage::Learner,
        uses,
        uses_left: uses,
        not_after: NOW.plus_secs(1800),
        name: None,
        hosts: vec![],
        role: None,
        attributes: Default::default(),
        revoked: false,
        cluster_token: false,
    }
}

pub(crate) fn voter_record(seed: u8, uses: u32) -> TokenRecord {
    TokenRecord { suffrage: Suffrage::Voter, ..record(seed, uses) }
}

pub(crate) fn bootstrap() -> Command {
    Command::Bootstrap(Box::new(Bootstrap {
        cluster: CLUSTER,
        name: name("east"),
        trust_domain: TrustDomain::parse("east.internal").unwrap(),
        authority: CA.to_vec(),
        authority_key: Some(SealedKey { public: AuthorityKey::Ed25519(key(250).public()), sealed: vec![1] }),
        authority_validity: Validity { not_before: NOW.minus_secs(60), not_after: NOW.plus_secs(86_400 * 3650) },
        imported: false,
        node_name: name("n1"),
        addresses: vec![Address::parse("10.0.0.1:7001").unwrap()],
        keys: keys(1),
        store: StoreId([1; 16]),
        leaf_key: leaf_key(1),
        foreign: None,
        node_ttl_secs: 86_400,
        lease: LeaseLength::DEFAULT,
        token: None,
        policy: Default::default(),
    }))
}

pub(crate) fn request(seed: u8, token_seed: u8) -> EnrollmentRequest {
    request_at(FEATURE_LEVEL, seed, token_seed)
}

/// A request of a binary that knows this level.
pub(crate) fn request_at(feature_level: u32, seed: u8, token_seed: u8) -> EnrollmentRequest {
    let token = token(token_seed);
    EnrollmentRequest {
        cluster: CLUSTER,
        pin: pin(),
        token: token.id(),
        request: RequestId([seed; 16]),
        name: name(&format!("n{seed}")),
        addresses: vec![Address::parse(&format!("10.0.0.{seed}:7001")).unwrap()],
        leaf_key: leaf_key(seed),
        foreign: None,
        endorsement: Endorsement::sign(&key(seed), CLUSTER, leaf_key(seed), 0),
        keys: keys(seed),
        store: StoreId([seed; 16]),
        feature_level,
        sponsor_leaf: [3; 32],
        exporter: [4; 32],
        signature: [0; 64],
    }
    .signed(&token.key())
}

/// An administrator at member 1.
pub(crate) fn author() -> Author {
    Author {
        actor: Actor::Principal(Role::Admin(name("root"))),
        taken_by: NodeId(1),
        source: Some([10, 0, 0, 99].into()),
        request: RequestId([7; 16]),
    }
}

pub(crate) fn stamped(time: UnixMillis, command: Command) -> Stamped {
    stamped_at(FEATURE_LEVEL, time, command)
}

/// An entry of a cluster that begins at this level.
pub(crate) fn stamped_at(level: u32, time: UnixMillis, command: Command) -> Stamped {
    let level = if matches!(command, Command::Bootstrap(_)) { level } else { command.level() };
    Stamped { level, time, author: author(), command }
}

/// An entry that was applied.
pub(crate) struct Logged {
    pub(crate) members: GroupMembers,
    pub(crate) stamped: Stamped,
    pub(crate) outcome: Outcome,
}

/// A state, its events and its log.
pub(crate) struct Rig(pub(crate) TrustState, pub(crate) Vec<Event>, pub(crate) Vec<Logged>, u32);

impl Rig {
    pub(crate) fn of(state: TrustState) -> Self {
        Self(state, vec![], vec![], FEATURE_LEVEL)
    }

    pub(crate) fn empty() -> Self {
        Self::of(TrustState::new())
    }

    /// A cluster with its founder, node 1.
    pub(crate) fn founded() -> Self {
        let mut rig = Self::empty();
        assert!(matches!(rig.apply(bootstrap()), Outcome::Admitted(_)));
        rig
    }

    /// A cluster with voters 1 to 3, each of which opened the CA key.
    pub(crate) fn three_voters() -> Self {
        Self::three_voters_at(FEATURE_LEVEL)
    }

    /// The same, of a cluster and binaries of this level.
    pub(crate) fn three_voters_at(level: u32) -> Self {
        let mut rig = Self(TrustState::new(), vec![], vec![], level);
        assert!(matches!(rig.apply(bootstrap()), Outcome::Admitted(_)));
        rig.apply(Command::AddJoinToken(AddJoinToken(voter_record(200, 2))));
        for seed in [2, 3] {
            rig.apply(Command::Admit(Box::new(request_at(level, seed, 200).into())));
            rig.open_authority(NodeId(u64::from(seed)));
        }
        rig.attest();
        rig
    }

    /// Voters 1 to 4 sign every attestation that lacks their signatures, as running members do.
    pub(crate) fn attest(&mut self) {
        for node in [1, 2, 3, 4].repeat(8) {
            self.sign_one(node);
        }
    }

    /// Node `node` signs the first attestation that lacks its signature.
    pub(crate) fn sign_one(&mut self, node: u8) {
        let id = NodeId(node.into());
        if let Some(attestation) = self.0.to_sign(id).cloned() {
            let signature = key(node).sign(&attestation.transcript());
            self.apply(Command::SignAttestation(SignAttestation { number: attestation.number, node: id, signature }));
        }
    }

    pub(crate) fn open_authority(&mut self, node: NodeId) {
        self.apply(Command::SealAuthority(SealAuthority { authority: pin(), node, sealed: vec![9] }));
        let signature = key(250).sign(&confirm_transcript(CLUSTER, pin(), node, &[9])).to_vec();
        let outcome = self.apply(Command::ConfirmAuthority(ConfirmAuthority { authority: pin(), node, signature }));
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    }

    pub(crate) fn apply(&mut self, command: Command) -> Outcome {
        self.apply_at(NOW, command)
    }

    /// Applies a command while the trust group has these members.
    pub(crate) fn apply_among(&mut self, members: &GroupMembers, command: Command) -> Outcome {
        self.apply_at_among(NOW, members, command)
    }

    pub(crate) fn apply_at(&mut self, time: UnixMillis, command: Command) -> Outcome {
        self.apply_at_among(time, &GroupMembers::default(), command)
    }

    fn apply_at_among(&mut self, time: UnixMillis, members: &GroupMembers, command: Command) -> Outcome {
        let stamped = stamped_at(self.3, time, command);
        let Recorded { outcome, event } = self.0.apply_recorded(&stamped, members).unwrap();
        self.0.check_invariants().unwrap();
        self.1.extend(event);
        self.2.push(Logged { members: members.clone(), stamped, outcome: outcome.clone() });
        outcome
    }

    /// Applies a command that must be refused, and must change nothing but the time.
    pub(crate) fn refused_at(&mut self, time: UnixMillis, command: Command) -> Refused {
        let mut before = self.0.clone();
        let nothing = stamped(time, Command::RevokeJoinToken(RevokeJoinToken(crate::id::TokenId([0; 8]))));
        before.apply(&nothing, &GroupMembers::default()).unwrap();
        match self.apply_at(time, command) {
            Outcome::Refused(why) => {
                assert_eq!(self.0, before, "a refusal changed the state");
                why
            }
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    pub(crate) fn refused(&mut self, command: Command) -> Refused {
        self.refused_at(NOW, command)
    }
}
