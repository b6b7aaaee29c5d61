//! The adversary: it reads the log and every message, has stolen tokens, the CA key and the machines of evicted
//! members, runs members of its own, and tries everything again, changed, elsewhere and at once.

use std::sync::Arc;

use countersign_core::codec;
use countersign_core::enroll::EnrollmentRequest;
use countersign_core::id::{ClusterId, KeyId, NodeId, RequestId};
use countersign_core::name::HostName;
use countersign_core::peer::CertificateClaims;
use countersign_core::time::Validity;
use countersign_core::trust::command::{
    AddJoinToken, Command, ConfirmAuthority, FEATURE_LEVEL, SetAddresses, SetSuffrage,
};
use countersign_core::trust::member::{ForeignLeaf, MemberKeys, Suffrage};

use crate::actors::{Host, Keys, Token, draw_address, draw_name};
use crate::joiner::Joiner;
use crate::post::{Asker, Connection, Mail, Reply};
use crate::replica::Replica;
use crate::rng::Rng;
use crate::trace::Event;
use crate::violation::Broken;
use crate::world::World;

/// How much of each kind the adversary remembers. What it forgets, chance decides.
const MEMORY_MAX: usize = 48;

/// What the adversary knows and holds.
#[derive(Debug, Default)]
pub(crate) struct Adversary {
    requests: Vec<EnrollmentRequest>,
    commands: Vec<Command>,
    tokens: Vec<Token>,
    /// Machines of evicted members, and members of its own.
    pub(crate) machines: Vec<Host>,
}

fn remember<T>(rng: &mut Rng, memory: &mut Vec<T>, item: T) {
    if memory.len() >= MEMORY_MAX {
        let at = rng.index(memory.len());
        memory.swap_remove(at);
    }
    memory.push(item);
}

impl Adversary {
    pub(crate) fn overhear(&mut self, rng: &mut Rng, request: EnrollmentRequest) {
        remember(rng, &mut self.requests, request);
    }

    pub(crate) fn read_log(&mut self, rng: &mut Rng, command: &Command) {
        remember(rng, &mut self.commands, command.clone());
    }

    pub(crate) fn steal(&mut self, rng: &mut Rng, token: Token) {
        remember(rng, &mut self.tokens, token);
    }

    pub(crate) fn capture(&mut self, host: Host) {
        self.machines.push(host);
    }
}

impl World {
    pub(crate) fn adopt_thief(&mut self, node: NodeId, keys: Keys, validity: Validity) {
        let host = Host::new(node, keys, Replica::default(), &self.home, validity);
        self.keep_evidence(host.credential.clone());
        self.adversary.capture(host);
    }

    pub(crate) fn attack(&mut self) -> Result<(), Broken> {
        match self.rng.below(12) {
            0 => self.relay(),
            1 => self.flip_bits(),
            2 => self.tamper(),
            3 | 4 => self.replay(),
            5 => self.steal_in(),
            6 => self.race_for_the_last_use(),
            7 => self.come_back(),
            8 => self.claim_anothers_request(),
            9 => self.claim_anothers_key(),
            10 => self.overreach(),
            _ => self.lie(),
        }
    }

    /// On whose word a command reaches the leader: an honest member that forwards, or a machine of the adversary.
    fn confederate(&mut self) -> Option<CertificateClaims> {
        let own = self.rng.pick(&self.adversary.machines).map(|host| host.credential.clone());
        let honest = self.rng.pick_of(self.hosts.values()).map(|host| host.credential.clone());
        if self.rng.one_in(3) { own.or(honest) } else { honest }
    }

    fn pass_on(&mut self, command: Command) {
        if let Some(evidence) = self.confederate() {
            self.forward(evidence, command, None);
        }
    }

    fn connect_as_thief(&mut self, keys: Keys) -> Option<(u64, Connection)> {
        let sponsor = self.any_host()?;
        self.connect(Asker::Thief(Box::new(keys)), sponsor)
    }

    /// A request that was made for one connection, sent over another.
    fn relay(&mut self) -> Result<(), Broken> {
        let Some(request) = self.rng.pick(&self.adversary.requests).cloned() else { return Ok(()) };
        let keys = Keys::draw(&mut self.rng);
        let Some((connection, _)) = self.connect_as_thief(keys) else { return Ok(()) };
        let (csr_key, request) = (request.leaf_key, codec::encode(&request)?);
        self.send(Mail::Enroll { connection, csr_key, request });
        Ok(())
    }

    /// A request of the adversary's own, with bits flipped under way.
    fn flip_bits(&mut self) -> Result<(), Broken> {
        let Some(token) = self.rng.pick(&self.adversary.tokens).cloned() else { return Ok(()) };
        let keys = Keys::draw(&mut self.rng);
        let Some((connection, over)) = self.connect_as_thief(keys) else { return Ok(()) };
        let request = self.forge_request(&token, &keys, &over)?;
        let mut bytes = codec::encode(&request)?;
        let (at, bit) = (self.rng.index(bytes.len()), self.rng.below(8));
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
        self.send(Mail::Enroll { connection, csr_key: request.leaf_key, request: bytes });
        Ok(())
    }

    /// A signed request with one field changed, passed on by a member that did not look.
    fn tamper(&mut self) -> Result<(), Broken> {
        let Some(mut request) = self.rng.pick(&self.adversary.requests).cloned() else { return Ok(()) };
        let keys = Keys::draw(&mut self.rng);
        match self.rng.below(14) {
            0 => request.name = draw_name(&mut self.rng)?,
            1 => request.addresses = vec![draw_address(&mut self.rng)?],
            2 => request.addresses.push(draw_address(&mut self.rng)?),
            3 => request.request = RequestId(self.rng.bytes()),
            4 => request.leaf_key = KeyId(self.rng.bytes()),
            5 => request.keys = keys.public,
            6 => {
                // Everything of the adversary's but the token's signature.
                (request.keys, request.leaf_key) = (keys.public, keys.leaf);
                request.endorsement = keys.endorse(request.cluster, keys.leaf, 0);
            }
            7 => request.keys.sealing = self.rng.bytes(),
            8 => request.feature_level += 1,
            9 => request.exporter = self.rng.bytes(),
            10 => request.sponsor_leaf = self.rng.bytes(),
            11 => request.cluster = ClusterId(self.rng.bytes()),
            12 => {
                let mapped = HostName::parse("n1").map_err(|_| Broken::World)?;
                let validity = Validity { not_before: self.now, not_after: self.now.plus_secs(u64::MAX) };
                request.foreign = Some(ForeignLeaf { mapped, validity });
            }
            _ => request.signature = core::array::from_fn(|_| self.rng.bytes::<1>()[0]),
        }
        self.trace.note(Event::Tampered, format_args!("request {}", request.request));
        self.pass_on(Command::Admit(Box::new(request.into())));
        Ok(())
    }

    /// What the log or the wire once held, once more.
    fn replay(&mut self) -> Result<(), Broken> {
        let overheard = self.rng.pick(&self.adversary.requests).cloned().map(|r| Command::Admit(Box::new(r.into())));
        let recorded = self.rng.pick(&self.adversary.commands).cloned();
        let command = if self.rng.one_in(2) { overheard.or(recorded) } else { recorded };
        // Taking leave is an operator's business: replaying it would only empty the cluster.
        let Some(command) = command.filter(|c| !matches!(c, Command::Evict(_))) else { return Ok(()) };
        self.trace.note(Event::Replayed, format_args!(""));
        self.pass_on(command);
        Ok(())
    }

    /// A stolen token and fresh keys: allowed as long as the token has uses.
    fn steal_in(&mut self) -> Result<(), Broken> {
        let Some(token) = self.rng.pick(&self.adversary.tokens).cloned() else { return Ok(()) };
        self.join_as_thief(&token)
    }

    fn join_as_thief(&mut self, token: &Token) -> Result<(), Broken> {
        let keys = Keys::draw(&mut self.rng);
        self.ask_as_thief(token, &keys, |_| {})
    }

    /// Sends a well-formed request for `keys`, after a last change to it.
    fn ask_as_thief(
        &mut self,
        token: &Token,
        keys: &Keys,
        change: impl FnOnce(&mut EnrollmentRequest),
    ) -> Result<(), Broken> {
        let Some((connection, over)) = self.connect_as_thief(*keys) else { return Ok(()) };
        let mut request = self.forge_request(token, keys, &over)?;
        change(&mut request);
        let request = request.signed(&token.held().key());
        self.ledger.sign(&request);
        let (csr_key, request) = (request.leaf_key, codec::encode(&request)?);
        self.send(Mail::Enroll { connection, csr_key, request });
        Ok(())
    }

    fn forge_request(&mut self, token: &Token, keys: &Keys, over: &Connection) -> Result<EnrollmentRequest, Broken> {
        let request = EnrollmentRequest {
            cluster: self.home.cluster,
            pin: token.record.pin,
            token: token.held().id(),
            request: RequestId(self.rng.bytes()),
            name: draw_name(&mut self.rng)?,
            addresses: vec![draw_address(&mut self.rng)?],
            leaf_key: keys.leaf,
            foreign: None,
            endorsement: keys.endorse(self.home.cluster, keys.leaf, 0),
            keys: keys.public,
            store: keys.store(),
            feature_level: FEATURE_LEVEL,
            sponsor_leaf: over.leaf,
            exporter: over.exporter,
            signature: [0; 64],
        };
        let request = request.signed(&token.held().key());
        self.ledger.sign(&request);
        self.ledger.history.endorse(keys.public.identity, keys.leaf, 0);
        Ok(request)
    }

    /// Many at once through different sponsors, where one use is left.
    fn race_for_the_last_use(&mut self) -> Result<(), Broken> {
        let last = |token: &&Token| self.ledger.uses_left(token.held().id()) == 1;
        let ripe: Vec<Token> = self.adversary.tokens.iter().filter(last).cloned().collect();
        let Some(token) = self.rng.pick(&ripe).cloned() else { return Ok(()) };
        self.trace.note(Event::ParallelJoins, format_args!("token {}", token.held().id()));
        for _ in 0..4 {
            self.join_as_thief(&token)?;
        }
        Ok(())
    }

    /// An evicted machine with a token that is good, and its old keys.
    fn come_back(&mut self) -> Result<(), Broken> {
        let Some(keys) = self.rng.pick(&self.adversary.machines).map(|host| host.keys) else { return Ok(()) };
        let Some(token) = self.rng.pick(&self.adversary.tokens).cloned() else { return Ok(()) };
        self.ask_as_thief(&token, &keys, |_| {})
    }

    /// The request id of another, with keys of the adversary's.
    fn claim_anothers_request(&mut self) -> Result<(), Broken> {
        let Some(token) = self.rng.pick(&self.adversary.tokens).cloned() else { return Ok(()) };
        let id = token.held().id();
        let victims: Vec<RequestId> =
            self.adversary.requests.iter().filter(|r| r.token == id).map(|r| r.request).collect();
        let Some(victim) = self.rng.pick(&victims).copied() else { return Ok(()) };
        let keys = Keys::draw(&mut self.rng);
        self.ask_as_thief(&token, &keys, |request| request.request = victim)
    }

    /// The keys of another, under the signature of a token that the adversary holds: their owner signed nothing of it.
    /// A member that did not look may pass it on.
    fn claim_anothers_key(&mut self) -> Result<(), Broken> {
        let Some(token) = self.rng.pick(&self.adversary.tokens).cloned() else { return Ok(()) };
        let Some(victim) = self.rng.pick(&self.adversary.requests).cloned() else { return Ok(()) };
        let keys = Keys::draw(&mut self.rng);
        let Some((connection, over)) = self.connect_as_thief(keys) else { return Ok(()) };
        let mut request = self.forge_request(&token, &keys, &over)?;
        match self.rng.below(6) {
            0 => request.keys.identity = victim.keys.identity,
            1 => (request.keys.identity, request.endorsement) = (victim.keys.identity, victim.endorsement),
            2 => (request.keys.identity, request.endorsement.identity) = (victim.keys.identity, victim.keys.identity),
            3 => request.leaf_key = victim.leaf_key,
            4 => request.keys.ucan = victim.keys.ucan,
            _ => request.keys.ucan = request.keys.identity,
        }
        let request = request.signed(&token.held().key());
        self.ledger.sign(&request);
        if self.rng.one_in(2) {
            self.pass_on(Command::Admit(Box::new(request.into())));
            return Ok(());
        }
        let (csr_key, request) = (request.leaf_key, codec::encode(&request)?);
        self.send(Mail::Enroll { connection, csr_key, request });
        Ok(())
    }

    /// A machine of the adversary's administers the cluster, or speaks for another member.
    fn overreach(&mut self) -> Result<(), Broken> {
        let Some(node) = self.member() else { return Ok(()) };
        let authority = self.home.authority;
        let sealed = self.ledger.reference().state().sealed().iter();
        let unopened: Vec<NodeId> = sealed.filter(|(_, copy)| !copy.opened).map(|((_, holder), _)| *holder).collect();
        let voter = self.rng.pick(&unopened).copied().unwrap_or(node);
        let command = match self.rng.below(5) {
            0 => Command::SetSuffrage(SetSuffrage { node, suffrage: Suffrage::Voter, keep_authority: true }),
            1 => Command::AddJoinToken(AddJoinToken(Token::draw(&mut self.rng, authority, self.now).record)),
            2 => Command::SetAddresses(SetAddresses {
                node,
                addresses: vec![draw_address(&mut self.rng)?],
                signature: [7; 64],
            }),
            3 => Command::ConfirmAuthority(ConfirmAuthority { authority, node: voter, signature: vec![7; 64] }),
            _ => {
                // What one voter showed, in the name of another.
                let shown = self.adversary.commands.iter().find_map(|command| match command {
                    Command::ConfirmAuthority(ConfirmAuthority { signature, .. }) => Some(signature.clone()),
                    _ => None,
                });
                Command::ConfirmAuthority(ConfirmAuthority {
                    authority,
                    node: voter,
                    signature: shown.unwrap_or_default(),
                })
            }
        };
        if matches!(command, Command::SetAddresses(_) | Command::ConfirmAuthority(_)) && self.rng.one_in(2) {
            self.pass_on(command);
            return Ok(());
        }
        if let Some(machine) = self.rng.pick(&self.adversary.machines) {
            let evidence = machine.credential.clone();
            self.forward(evidence, command, None);
        }
        Ok(())
    }

    /// A false answer to a joiner that waits: another's number, another cluster, or one that does not trust the pinned
    /// authority.
    fn lie(&mut self) -> Result<(), Broken> {
        let waiting: Vec<(u64, MemberKeys)> = self.joiners.values().filter_map(Joiner::waits_on).collect();
        let Some((connection, keys)) = self.rng.pick(&waiting).copied() else { return Ok(()) };
        let Some(mut view) = self.ledger.view().cloned() else { return Ok(()) };
        let own = view.members.scan().values().find(|member| member.keys == keys).map(|member| member.id);
        let Some(node) = (if self.rng.one_in(3) { self.member() } else { own }) else { return Ok(()) };
        let false_view = Arc::make_mut(&mut view);
        match self.rng.below(3) {
            0 => false_view.cluster = ClusterId(self.rng.bytes()),
            1 => false_view.authorities.clear(),
            _ if own == Some(node) => {
                // Its own number, and the leaf key of an attacker in between.
                let key = KeyId(self.rng.bytes());
                false_view.members.update(&node, |member| member.leaf.key = key);
            }
            _ => {}
        }
        let validity = Validity { not_before: self.now, not_after: self.now };
        self.send(Mail::Answer { connection, reply: Reply::Admitted { node, validity, view } });
        Ok(())
    }
}
