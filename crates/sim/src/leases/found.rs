//! The founding: the log that every member begins with.

use std::collections::BTreeSet;
use std::sync::Arc;

use countersign_core::enroll::EnrollmentRequest;
use countersign_core::group::GroupMembers;
use countersign_core::id::{AuthorityId, ClusterId, NodeId, RequestId};
use countersign_core::key::SecretKey;
use countersign_core::lease::LeaseLength;
use countersign_core::name::{Address, Name};
use countersign_core::secret::Secret;
use countersign_core::time::Validity;
use countersign_core::trust::TrustState;
use countersign_core::trust::command::{
    AddJoinToken, Bootstrap, Command, ConfirmAuthority, FEATURE_LEVEL, SealAuthority, SealedKey, SetSuffrage,
    SignAttestation,
};
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::seal::confirm_transcript;
use countersign_core::trust::view::AuthorityKey;

use super::machine::Machine;
use super::raft::{Entry, Payload};
use super::verdict::LeaseBroken;
use crate::actors::{BEGIN, CA, Keys, Token, domain};
use crate::history::Home;
use crate::replica::stamped;
use crate::rng::Rng;

/// How large a cluster, and how long its certificates and leases last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) members: u64,
    pub(crate) voters: u64,
    pub(crate) ttl_secs: u64,
    pub(crate) lease: LeaseLength,
}

pub(crate) fn home(rng: &mut Rng) -> Result<Home, LeaseBroken> {
    let trust_domain = domain("east.internal").map_err(|_| LeaseBroken::World)?;
    Ok(Home { cluster: ClusterId(rng.bytes()), trust_domain, authority: AuthorityId::of_certificate(CA) })
}

fn name(node: u64) -> Result<Name, LeaseBroken> {
    Name::parse(&format!("n{node}")).map_err(|_| LeaseBroken::World)
}

fn address(node: u64) -> Result<Address, LeaseBroken> {
    Address::parse(&format!("10.0.{}.{}:7001", node / 200, 1 + node % 200)).map_err(|_| LeaseBroken::World)
}

fn bootstrap(home: &Home, keys: &Keys, ca: &SecretKey, size: Size) -> Result<Command, LeaseBroken> {
    let validity = Validity { not_before: BEGIN.minus_secs(60), not_after: BEGIN.plus_secs(86_400 * 3650) };
    Ok(Command::Bootstrap(Box::new(Bootstrap {
        cluster: home.cluster,
        name: Name::parse("east").map_err(|_| LeaseBroken::World)?,
        trust_domain: home.trust_domain.clone(),
        authority: CA.to_vec(),
        authority_key: Some(SealedKey { public: AuthorityKey::Ed25519(ca.public()), sealed: vec![1] }),
        authority_validity: validity,
        imported: false,
        node_name: name(1)?,
        addresses: vec![address(1)?],
        keys: keys.public,
        store: keys.store(),
        leaf_key: keys.leaf,
        foreign: None,
        node_ttl_secs: size.ttl_secs,
        lease: size.lease,
        token: None,
        policy: Default::default(),
    })))
}

fn request(
    home: &Home,
    keys: &Keys,
    token: &Token,
    node: u64,
    id: RequestId,
) -> Result<EnrollmentRequest, LeaseBroken> {
    let request = EnrollmentRequest {
        cluster: home.cluster,
        pin: home.authority,
        token: token.held().id(),
        request: id,
        name: name(node)?,
        addresses: vec![address(node)?],
        leaf_key: keys.leaf,
        foreign: None,
        endorsement: keys.endorse(home.cluster, keys.leaf, 0),
        keys: keys.public,
        store: keys.store(),
        feature_level: FEATURE_LEVEL,
        sponsor_leaf: [3; 32],
        exporter: [4; 32],
        signature: [0; 64],
    };
    Ok(request.signed(&token.held().key()))
}

/// The next signature that `node` owes to what the cluster has become, if it owes one.
fn signature(state: &TrustState, node: NodeId, keys: &Keys) -> Option<Command> {
    let attestation = state.to_sign(node)?;
    let signature = keys.identity().sign(&attestation.transcript());
    Some(Command::SignAttestation(SignAttestation { number: attestation.number, node, signature }))
}

/// The founding of a cluster: the keys of its members, its log, and the state after it.
#[derive(Debug, Default)]
struct Founding {
    keys: Vec<Keys>,
    log: Vec<Arc<Entry>>,
    state: TrustState,
}

impl Founding {
    /// What the cluster becomes by `command` is signed at once by all that may. A member that knew only the founder
    /// could not recognize its cluster once the founder is evicted.
    fn apply(&mut self, command: Command) -> Result<(), LeaseBroken> {
        let mut next = Some(command);
        while let Some(command) = next {
            let entry = stamped(BEGIN, NodeId(1), command);
            self.state.apply(&entry, &GroupMembers::default())?;
            self.log.push(Arc::new(Entry { term: 1, payload: Payload::Command(Box::new(entry)) }));
            next = (1..).zip(&self.keys).find_map(|(node, keys)| signature(&self.state, NodeId(node), keys));
        }
        Ok(())
    }
}

/// The members of a new cluster, each with the whole log of its founding applied.
pub(crate) fn found(rng: &mut Rng, home: &Home, size: Size) -> Result<Vec<Machine>, LeaseBroken> {
    let Founding { keys, mut log, state } = founding(rng, home, size)?;
    let voters: BTreeSet<NodeId> = (1..=size.voters).map(NodeId).collect();
    log.push(Arc::new(Entry { term: 1, payload: Payload::Voters(voters) }));
    let machine = |(node, keys)| Machine::new(NodeId(node), keys, home, &state, &log, rng);
    (1..).zip(keys).map(machine).collect()
}

/// The state of a cluster with this many voters, of which the last is about to be evicted: the command that makes it a
/// learner was applied, and all have signed that. The command was refused if the voter is the only one.
///
/// Errors: a defect in the founding.
pub fn eviction_begun(voters: u64) -> Result<TrustState, LeaseBroken> {
    let mut rng = Rng::new(0);
    let home = home(&mut rng)?;
    let size = Size { members: voters, voters, ttl_secs: 7200, lease: LeaseLength::default() };
    let mut founding = founding(&mut rng, &home, size)?;
    let demotion = SetSuffrage { node: NodeId(voters), suffrage: Suffrage::Learner, keep_authority: true };
    founding.apply(Command::SetSuffrage(demotion))?;
    Ok(founding.state)
}

fn founding(rng: &mut Rng, home: &Home, size: Size) -> Result<Founding, LeaseBroken> {
    let ca = SecretKey::from_seed(Secret::new(rng.bytes()));
    let all: Vec<Keys> = (0..size.members).map(|_| Keys::draw(rng)).collect();
    let mut commands = vec![bootstrap(home, all.first().ok_or(LeaseBroken::World)?, &ca, size)?];
    let token = |rng: &mut Rng, suffrage| {
        let mut token = Token::draw(rng, home.authority, BEGIN);
        (token.record.suffrage, token.record.uses, token.record.uses_left) = (suffrage, 1000, 1000);
        token
    };
    let (voter, learner) = (token(rng, Suffrage::Voter), token(rng, Suffrage::Learner));
    commands.extend([&voter, &learner].map(|token| Command::AddJoinToken(AddJoinToken(token.record.clone()))));
    for (node, keys) in (1..).zip(&all).skip(1) {
        let votes = node <= size.voters;
        let token = if votes { &voter } else { &learner };
        commands.push(Command::Admit(Box::new(request(home, keys, token, node, RequestId(rng.bytes()))?.into())));
        if votes {
            let (authority, node, sealed) = (home.authority, NodeId(node), vec![9]);
            let transcript = confirm_transcript(home.cluster, authority, node, &sealed);
            let signature = ca.sign(&transcript).to_vec();
            commands.push(Command::SealAuthority(SealAuthority { authority, node, sealed }));
            commands.push(Command::ConfirmAuthority(ConfirmAuthority { authority, node, signature }));
        }
    }
    let mut founding = Founding { keys: all, ..Founding::default() };
    commands.into_iter().try_for_each(|command| founding.apply(command))?;
    Ok(founding)
}
