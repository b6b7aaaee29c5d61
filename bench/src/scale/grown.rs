//! A trust state that grows to a given size. What a size shares with a smaller one is held once.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use countersign_core::enroll::EnrollmentRequest;
use countersign_core::group::GroupMembers;
use countersign_core::id::{AuthorityId, ClusterId, KeyId, NodeId, RequestId, StoreId, ed25519_spki};
use countersign_core::key::{Endorsement, SecretKey};
use countersign_core::lease::LeaseLength;
use countersign_core::name::{Address, Name};
use countersign_core::principal::{Role, TrustDomain};
use countersign_core::secret::Secret;
use countersign_core::time::{UnixMillis, Validity};
use countersign_core::trust::TrustState;
use countersign_core::trust::author::Author;
use countersign_core::trust::command::{
    AddJoinToken, Bootstrap, Command, ConfirmAuthority, Evict, FEATURE_LEVEL, IssuePrincipal, RaiseLevel,
    ReportFeatureLevel, SealAuthority, SealedKey, SignAttestation, Stamped,
};
use countersign_core::trust::join_token::{JoinToken, TokenRecord};
use countersign_core::trust::member::{MemberKeys, Suffrage};
use countersign_core::trust::outcome::Outcome;
use countersign_core::trust::seal::confirm_transcript;
use countersign_core::trust::view::AuthorityKey;

pub(super) const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);
pub(super) const CLUSTER: ClusterId = ClusterId([0xC1; 16]);
const CA: &[u8] = b"a certificate is bytes to the state";
/// Members 1 to 3 vote; the members after them are learners.
pub(super) const VOTERS: u64 = 3;
/// Members that are admitted before they are evicted: fewer than a token has uses.
const EVICTED_AT_ONCE: u64 = 1_000;
/// Seeds of the tokens that admit members; tokens that only fill the table have lower ones.
const ADMITTING: u64 = 1 << 33;

/// What is on record, besides three voters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) principals: u64,
    pub(super) members: u64,
    pub(super) tokens: u64,
    pub(super) evictions: u64,
}

/// A state of the first level, and how far it has grown.
pub(super) struct Grown {
    state: TrustState,
    size: Size,
    last_node: u64,
    token_seed: u64,
}

/// The states of one size that commands are applied to.
pub(super) struct Base {
    pub(super) size: Size,
    /// Of the newest level.
    pub(super) state: TrustState,
    /// Of the level before.
    pub(super) first_level: TrustState,
    /// With one member less.
    pub(super) one_less: TrustState,
    /// Admits the member that it lacks.
    pub(super) next: Command,
}

pub(super) fn secret(n: u64) -> SecretKey {
    SecretKey::from_seed(Secret::new(bytes32(n)))
}

pub(super) fn bytes32(n: u64) -> [u8; 32] {
    let mut bytes = [9; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes
}

pub(super) fn bytes16(n: u64) -> [u8; 16] {
    let mut bytes = [9; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes
}

pub(super) fn spki(n: u64) -> Vec<u8> {
    ed25519_spki(&bytes32(n + (1 << 44))).to_vec()
}

pub(super) fn client(n: u64) -> Result<Role> {
    Ok(Role::Client(Name::parse(&format!("c{n}"))?))
}

pub(super) fn address(n: u64) -> Result<Address> {
    Ok(Address::parse(&format!("10.{}.{}.{}:7001", n >> 16 & 255, n >> 8 & 255, n & 255))?)
}

pub(super) fn authority() -> AuthorityId {
    AuthorityId::of_certificate(CA)
}

fn member_keys(n: u64) -> MemberKeys {
    MemberKeys { identity: secret(n).public(), sealing: bytes32(n), ucan: secret(n + (1 << 40)).public() }
}

fn authority_key() -> SecretKey {
    secret(1 << 50)
}

fn token(seed: u64) -> JoinToken {
    JoinToken::new(Secret::new(bytes32(seed)), authority())
}

pub(super) fn token_record(seed: u64, suffrage: Suffrage) -> TokenRecord {
    let token = token(seed);
    TokenRecord {
        verifier: token.key().public(),
        pin: token.pin(),
        suffrage,
        uses: 10_000,
        uses_left: 10_000,
        not_after: NOW.plus_secs(3600),
        name: None,
        hosts: vec![],
        role: None,
        attributes: Default::default(),
        revoked: false,
        cluster_token: false,
    }
}

pub(super) fn token_id(seed: u64) -> countersign_core::id::TokenId {
    token(seed).id()
}

/// What member `n` asks its sponsor for. Its keys and its name come from its number.
fn admission(n: u64, token_seed: u64) -> Result<Command> {
    let (token, leaf_key) = (token(token_seed), KeyId(bytes32(n)));
    let request = EnrollmentRequest {
        cluster: CLUSTER,
        pin: token.pin(),
        token: token.id(),
        request: RequestId(bytes16(n)),
        name: Name::parse(&format!("n{n}"))?,
        addresses: vec![address(n)?],
        leaf_key,
        foreign: None,
        endorsement: Endorsement::sign(&secret(n), CLUSTER, leaf_key, 0),
        keys: member_keys(n),
        store: StoreId(bytes16(n)),
        feature_level: FEATURE_LEVEL,
        sponsor_leaf: [3; 32],
        exporter: [4; 32],
        signature: [0; 64],
    };
    Ok(Command::Admit(Box::new(request.signed(&token.key()).into())))
}

pub(super) fn issue(n: u64) -> Result<Command> {
    Ok(Command::IssuePrincipal(IssuePrincipal { role: client(n)?, spki: spki(n), ttl_secs: 86_400 }))
}

pub(super) fn confirmation(node: NodeId, sealed: &[u8]) -> Command {
    let signature = authority_key().sign(&confirm_transcript(CLUSTER, authority(), node, sealed)).to_vec();
    Command::ConfirmAuthority(ConfirmAuthority { authority: authority(), node, signature })
}

pub(super) fn stamped(level: u32, command: Command) -> Stamped {
    Stamped { level, time: NOW, author: Author::of_member(NodeId(1), RequestId([0; 16])), command }
}

/// Applies a command that must be carried out.
pub(super) fn apply(state: &mut TrustState, command: Command) -> Result<Outcome> {
    let outcome = state.apply(&stamped(command.level(), command), &GroupMembers::default())?;
    ensure!(!matches!(outcome, Outcome::Refused(_)), "refused: {outcome:?}");
    Ok(outcome)
}

/// The voters sign what awaits their signatures.
pub(super) fn attest(state: &mut TrustState) -> Result<()> {
    for node in 1..=VOTERS {
        while let Some(attestation) = state.to_sign(NodeId(node)).cloned() {
            let signature = secret(node).sign(&attestation.transcript());
            apply(
                state,
                Command::SignAttestation(SignAttestation { number: attestation.number, node: NodeId(node), signature }),
            )?;
        }
    }
    Ok(())
}

fn bootstrap() -> Result<Command> {
    let validity = Validity { not_before: NOW.minus_secs(60), not_after: NOW.plus_secs(86_400 * 3650) };
    let public = AuthorityKey::Ed25519(authority_key().public());
    Ok(Command::Bootstrap(Box::new(Bootstrap {
        cluster: CLUSTER,
        name: Name::parse("east")?,
        trust_domain: TrustDomain::parse("east.internal")?,
        authority: CA.to_vec(),
        authority_key: Some(SealedKey { public, sealed: vec![1] }),
        authority_validity: validity,
        imported: false,
        node_name: Name::parse("n1")?,
        addresses: vec![address(1)?],
        keys: member_keys(1),
        store: StoreId(bytes16(1)),
        leaf_key: KeyId(bytes32(1)),
        foreign: None,
        node_ttl_secs: 86_400,
        lease: LeaseLength::DEFAULT,
        token: None,
        policy: Default::default(),
    })))
}

/// The same state at the newest level.
fn raised(state: &TrustState) -> Result<TrustState> {
    let mut state = state.clone();
    let raise = RaiseLevel { level: FEATURE_LEVEL, without: BTreeSet::new(), by_itself: false };
    apply(&mut state, Command::RaiseLevel(raise))?;
    Ok(state)
}

impl Grown {
    /// Three voters that hold the authority's key.
    pub(super) fn founded() -> Result<Self> {
        let mut state = TrustState::new();
        state.apply(&stamped(FEATURE_LEVEL - 1, bootstrap()?), &GroupMembers::default())?;
        // The founder knows no more than the level that the cluster begins with, until it says so.
        let knows = ReportFeatureLevel { node: NodeId(1), level: FEATURE_LEVEL };
        apply(&mut state, Command::ReportFeatureLevel(knows))?;
        let seed = ADMITTING;
        apply(&mut state, Command::AddJoinToken(AddJoinToken(token_record(seed, Suffrage::Voter))))?;
        for n in 2..=VOTERS {
            let (node, sealed) = (NodeId(n), vec![9]);
            apply(&mut state, admission(n, seed)?)?;
            let seal = SealAuthority { authority: authority(), node, sealed: sealed.clone() };
            apply(&mut state, Command::SealAuthority(seal))?;
            apply(&mut state, confirmation(node, &sealed))?;
        }
        attest(&mut state)?;
        let size = Size { principals: 0, members: VOTERS, tokens: 0, evictions: 0 };
        Ok(Self { state, size, last_node: VOTERS, token_seed: seed })
    }

    /// Admits learners by a token of their own, so that an eviction ends no token that others need.
    fn admit(&mut self, count: u64) -> Result<Vec<NodeId>> {
        self.add_token()?;
        let numbers = self.last_node + 1..=self.last_node + count;
        self.last_node += count;
        for n in numbers.clone() {
            apply(&mut self.state, admission(n, self.token_seed)?)?;
        }
        Ok(numbers.map(NodeId).collect())
    }

    fn add_token(&mut self) -> Result<()> {
        self.token_seed += 1;
        let record = token_record(self.token_seed, Suffrage::Learner);
        apply(&mut self.state, Command::AddJoinToken(AddJoinToken(record))).map(drop)
    }

    fn evict(&mut self, count: u64) -> Result<()> {
        for node in self.admit(count)? {
            apply(&mut self.state, Command::Evict(Evict { node, compromised: false, keep_authority: true }))?;
            self.sign_newest()?;
        }
        Ok(())
    }

    /// A majority of the voters signs what the cluster has become.
    fn sign_newest(&mut self) -> Result<()> {
        let attestation = Arc::clone(&self.state.view().context("a view")?.attestation);
        for n in 1..VOTERS {
            let signature = secret(n).sign(&attestation.transcript());
            let signed = SignAttestation { number: attestation.number, node: NodeId(n), signature };
            apply(&mut self.state, Command::SignAttestation(signed))?;
        }
        Ok(())
    }

    /// Grows to `to`, which is no smaller in anything.
    pub(super) fn grow(&mut self, to: Size) -> Result<Base> {
        while self.size.evictions < to.evictions {
            let batch = EVICTED_AT_ONCE.min(to.evictions - self.size.evictions);
            self.evict(batch)?;
            self.size.evictions += batch;
        }
        for n in self.size.principals + 1..=to.principals {
            apply(&mut self.state, issue(n)?)?;
        }
        for seed in self.size.tokens + 1..=to.tokens {
            let record = token_record(seed, Suffrage::Learner);
            apply(&mut self.state, Command::AddJoinToken(AddJoinToken(record)))?;
        }
        let more = to.members.saturating_sub(self.size.members + 1);
        if more > 0 {
            self.admit(more)?;
        }
        self.add_token()?;
        let one_less = raised(&self.state)?;
        self.last_node += 1;
        apply(&mut self.state, admission(self.last_node, self.token_seed)?)?;
        self.size = to;
        let (state, first_level) = (raised(&self.state)?, self.state.clone());
        let next = admission(self.last_node, self.token_seed)?;
        Ok(Base { size: to, state, first_level, one_less, next })
    }
}
