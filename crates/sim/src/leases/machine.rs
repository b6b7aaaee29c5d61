//! One member: what it keeps over a crash, and what its process does with messages and with the passing of time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use countersign_core::group::GroupMembers;
use countersign_core::id::{Generation, KeyId, NodeId};
use countersign_core::lease::{Answer, Holder, Leader, LeaseClock, LeaseKeeper, LeaseManager};
use countersign_core::member::recognition::{Asker as RecognizingMember, Question, Recognizer};
use countersign_core::member::renewal::CertificateKeeper;
use countersign_core::member::returning::RefusalFollower;
use countersign_core::peer::{CertificateClaims, Wanted, verify};
use countersign_core::principal::{Principal, Role};
use countersign_core::time::{BootMillis, UnixMillis};
use countersign_core::trust::TrustState;
use countersign_core::trust::clocks::Anchor;
use countersign_core::trust::command::{Command, FEATURE_LEVEL, SignAttestation};
use countersign_core::trust::view::View;

use super::LeaseDanger;
use super::clock::Clocks;
use super::leader::LeaderWork;
use super::post::{Body, Due, Message};
use super::raft::{Entry, Payload, Raft, Sends};
use super::refusals::Inquiry;
use super::renew::Next;
use super::verdict::LeaseBroken;
use super::world::Shop;
use crate::actors::Keys;
use crate::history::Home;
use crate::rng::Rng;

/// Requests for leases whose true times are remembered.
const ASKS_MAX: usize = 32;

/// A machine, with its disk.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) node: NodeId,
    pub(crate) keys: Keys,
    pub(crate) clocks: Clocks,
    /// The log, the term and the vote are durable; the rest of it ends with the process.
    pub(crate) raft: Raft,
    /// Durable: how much of the log is known to be committed, and an earlier state.
    pub(crate) kept: usize,
    pub(crate) saved: (Vec<u8>, usize),
    /// Durable: the certificate in use, and the next.
    pub(crate) credential: CertificateClaims,
    pub(crate) next: Option<Next>,
    /// What its disk held earlier, the oldest first.
    pub(crate) copies: Vec<(CertificateClaims, Option<Next>)>,
    pub(crate) up: bool,
    pub(crate) paused: bool,
    /// Which process this is.
    pub(crate) epoch: u64,
    /// What waits in the sockets of a paused process.
    pub(crate) inbox: Vec<Message>,
    pub(crate) queue: Vec<usize>,
    pub(crate) process: Process,
    /// The highest generation that it ever acknowledged to anybody.
    pub(crate) acknowledged: Generation,
}

/// What a crash takes.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) state: TrustState,
    pub(crate) applied: usize,
    /// Who votes by the entries that are applied.
    members: GroupMembers,
    applied_at: BootMillis,
    pub(crate) enforced: Generation,
    pub(crate) keeper: LeaseKeeper,
    /// The end of the lease, as what serves clients reads it.
    pub(crate) clock: Arc<LeaseClock>,
    /// Only with [`LeaseDanger::CountsFromAnswer`]: the lease as such a member counts it.
    pub(crate) miscounted: Holder,
    /// It has had a lease since it last recognized its cluster.
    held: bool,
    /// The true times of requests.
    asks: BTreeMap<u64, u64>,
    pub(crate) connections: BTreeSet<usize>,
    pub(crate) recognizer: Option<Recognizer>,
    pub(crate) recognized: bool,
    pub(crate) refused: BTreeSet<NodeId>,
    /// True time since when it has, or had, to recognize its cluster.
    pub(crate) away_since: u64,
    pub(crate) manager: LeaseManager,
    pub(crate) work: LeaderWork,
    /// True time of the newest request that a confirmed leader granted.
    pub(crate) basis: Option<u64>,
    pub(crate) certificate: CertificateKeeper,
    pub(crate) acted_at: u64,
    pub(crate) follower: RefusalFollower,
    pub(crate) inquiry: Option<Inquiry>,
    /// Certificates that others asked this voter for by their identity key, with the connection.
    pub(crate) sponsored: BTreeMap<NodeId, (KeyId, [u8; 32])>,
    /// It was shown that it was evicted, and acts on that.
    pub(crate) proven: bool,
    pub(crate) left: bool,
}

impl Process {
    fn new(
        node: NodeId,
        (state, applied): (TrustState, usize),
        members: GroupMembers,
        at: BootMillis,
        since: u64,
    ) -> Self {
        let keeper = LeaseKeeper::default();
        Self {
            state,
            applied,
            members,
            applied_at: at,
            enforced: Generation(0),
            clock: Arc::clone(keeper.clock()),
            keeper,
            miscounted: Holder::default(),
            held: false,
            asks: BTreeMap::new(),
            connections: BTreeSet::new(),
            recognizer: None,
            recognized: false,
            refused: BTreeSet::new(),
            away_since: since,
            manager: LeaseManager::default(),
            work: LeaderWork::default(),
            basis: None,
            certificate: CertificateKeeper::new(node),
            acted_at: 0,
            follower: RefusalFollower::new(node, at),
            inquiry: None,
            sponsored: BTreeMap::new(),
            proven: false,
            left: false,
        }
    }

    pub(crate) fn view(&self) -> Option<&Arc<View>> {
        self.state.view()
    }

    pub(crate) const fn anchor(&self) -> Anchor {
        Anchor { time: self.state.time(), at: self.applied_at }
    }

    pub(crate) fn generation(&self) -> Generation {
        self.view().map_or(Generation(0), |view| view.generation)
    }
}

impl Machine {
    pub(crate) fn new(
        node: NodeId,
        keys: Keys,
        home: &Home,
        state: &TrustState,
        log: &[Arc<Entry>],
        rng: &mut Rng,
    ) -> Result<Self, LeaseBroken> {
        let leaf = state.view().and_then(|view| view.members.get(&node)).ok_or(LeaseBroken::World)?.leaf.clone();
        let credential = CertificateClaims {
            principal: Principal { trust_domain: home.trust_domain.clone(), role: Role::Node(node) },
            key: keys.leaf,
            authority: home.authority,
            cluster: Some(home.cluster),
            endorsement: Some(keys.endorse(home.cluster, keys.leaf, 0)),
            validity: leaf.validity,
        };
        let clocks = Clocks::draw(rng);
        let mut raft = Raft::new(node, log.to_vec());
        raft.restart(log.len(), clocks.boot(0).0, rng);
        let mut process = Process::new(node, (state.clone(), log.len()), raft.members_at(log.len()), clocks.boot(0), 0);
        process.enforced = process.generation();
        process.keeper.handle_enforced(process.enforced);
        let saved = (state.encode()?, log.len());
        let (up, paused, epoch, kept) = (true, false, 0, log.len());
        let (inbox, queue, next, acknowledged) = (Vec::new(), Vec::new(), None, Generation(0));
        let copies = Vec::new();
        Ok(Self {
            node,
            keys,
            clocks,
            raft,
            kept,
            saved,
            credential,
            next,
            copies,
            up,
            paused,
            epoch,
            inbox,
            queue,
            process,
            acknowledged,
        })
    }

    pub(crate) fn boot(&self, now: u64) -> BootMillis {
        self.clocks.boot(now)
    }

    /// The time by which it judges certificates.
    pub(crate) fn judging_time(&self, now: u64) -> UnixMillis {
        self.clocks.wall(now).max(self.process.state.time())
    }

    pub(crate) fn has_lease(&self, now: u64) -> bool {
        self.process.keeper.holds(self.boot(now))
    }

    /// Starts again from what is durable.
    pub(crate) fn restart(&mut self, shop: &mut Shop) -> Result<(), LeaseBroken> {
        self.epoch += 1;
        (self.up, self.paused) = (true, false);
        self.inbox.clear();
        self.queue.clear();
        let now = self.boot(shop.now);
        let (bytes, applied) = &self.saved;
        let state = TrustState::decode(FEATURE_LEVEL, bytes)?;
        self.process = Process::new(self.node, (state, *applied), self.raft.members_at(*applied), now, shop.now);
        let kept = if shop.breaks(LeaseDanger::ForgetsAcknowledged) { *applied } else { self.kept };
        self.raft.restart(kept, now.0, &mut shop.rng);
        self.apply(shop)?;
        if self.process.generation() < self.acknowledged {
            let (was, now) = (self.acknowledged, self.process.generation());
            return Err(LeaseBroken::GenerationFell { member: self.node, was, now });
        }
        let (node, epoch) = (self.node, self.epoch);
        shop.later_within(0, 50, Due::Tick { node, epoch });
        shop.note(format_args!("node {node} starts at generation {}", self.process.generation().0));
        Ok(())
    }

    /// Applies what is committed. What the new view refuses is shut a moment later, and only then is it enforced.
    pub(crate) fn apply(&mut self, shop: &mut Shop) -> Result<(), LeaseBroken> {
        let before = self.process.generation();
        let was = self.process.applied;
        while self.process.applied < self.raft.committed {
            let at = self.process.applied;
            let Some(entry) = self.raft.log.get(at).cloned() else { return Err(LeaseBroken::World) };
            shop.committed(self.node, at, &entry)?;
            match &entry.payload {
                Payload::Command(stamped) => {
                    let outcome = shop.apply(&mut self.process.state, &self.process.members, stamped)?;
                    self.answer_return(&stamped.command, &outcome, shop);
                    self.process.applied_at = self.boot(shop.now);
                }
                Payload::Voters(voters) => self.process.members.voters.clone_from(voters),
                Payload::Blank => {}
            }
            self.process.applied += 1;
        }
        if self.process.applied == was {
            return Ok(());
        }
        let after = self.process.generation();
        if after < before {
            return Err(LeaseBroken::GenerationFell { member: self.node, was: before, now: after });
        }
        if shop.rng.one_in(40) {
            self.kept = self.kept.max(self.process.applied);
            self.saved = (self.process.state.encode()?, self.process.applied);
        }
        if after > before || self.process.enforced == Generation(0) {
            let (node, epoch) = (self.node, self.epoch);
            if shop.breaks(LeaseDanger::AcknowledgesBeforeClosing) {
                self.enforce(after, shop);
                self.keep_lease(shop);
            }
            // Now and then it takes long.
            let most = if shop.trouble && shop.rng.one_in(6) { 40 * shop.closing } else { shop.closing };
            shop.later_within(0, most, Due::Closed { node, epoch });
        }
        Ok(())
    }

    /// Shuts what the view in force refuses; then it is enforced, and the leader hears of it.
    pub(crate) fn close(&mut self, shop: &mut Shop) {
        let now = self.judging_time(shop.now);
        let Some(view) = self.process.view().cloned() else { return };
        let open = self.process.connections.len();
        let record = &shop.record;
        self.process.connections.retain(|credential| {
            let proof = record.credentials.get(*credential).map(|c| &c.proof);
            proof.is_some_and(|proof| verify(proof, &view, Wanted::AnyPrincipal, now).is_ok())
        });
        shop.shut(self.node, open - self.process.connections.len());
        self.enforce(view.generation, shop);
        self.keep_lease(shop);
    }

    fn enforce(&mut self, generation: Generation, shop: &Shop) {
        if !shop.breaks(LeaseDanger::ForgetsAcknowledged) {
            self.kept = self.kept.max(self.process.applied);
        }
        self.process.enforced = self.process.enforced.max(generation);
        self.process.keeper.handle_enforced(self.process.enforced);
        self.process.miscounted.enforced(self.process.enforced);
        self.process.held |= self.has_lease(shop.now);
    }

    /// Who is sent heartbeats.
    pub(crate) fn members(&self) -> BTreeSet<NodeId> {
        self.process.view().map(|view| view.members.scan().keys().copied().collect()).unwrap_or_default()
    }

    pub(crate) fn post_raft(&self, sends: Sends, shop: &mut Shop) {
        for (to, message) in sends {
            shop.send(self.node, to, Body::Raft(message));
        }
    }

    /// Everything that time alone brings about.
    pub(crate) fn tick(&mut self, shop: &mut Shop) -> Result<(), LeaseBroken> {
        let now = self.boot(shop.now);
        if self.process.held && !self.process.keeper.holds(now) {
            // Its lease has lapsed: it has been away.
            (self.process.held, self.process.recognized, self.process.recognizer) = (false, false, None);
            self.process.away_since = shop.now;
            self.raft.leader = self.raft.leader.filter(|leader| *leader == self.node);
        }
        if shop.breaks(LeaseDanger::SkipsRecognition) {
            self.process.recognized = true;
        }
        self.recognize(shop);
        self.follow_refusals(shop)?;
        if self.process.recognized {
            let led = self.raft.leads();
            let sends = self.raft.tick(now.0, &mut shop.rng, &self.members());
            self.post_raft(sends, shop);
            self.elected(led, shop);
        }
        self.apply(shop)?;
        self.keep_lease(shop);
        self.renew(shop);
        self.sign_attestation(shop);
        if self.raft.leads() {
            self.lead(shop)?;
        }
        let (node, epoch) = (self.node, self.epoch);
        shop.later_within(40, 60, Due::Tick { node, epoch });
        Ok(())
    }

    pub(crate) fn elected(&mut self, led: bool, shop: &mut Shop) {
        if led || !self.raft.leads() {
            return;
        }
        shop.report.elections += 1;
        shop.note(format_args!("node {} leads in term {}", self.node, self.raft.term));
        let now = if shop.breaks(LeaseDanger::ForgetsPredecessor) { BootMillis(0) } else { self.boot(shop.now) };
        self.process.manager.handle_term(self.raft.term, shop.size.lease, now);
        self.process.work = LeaderWork::default();
        let sends = self.raft.broadcast(self.boot(shop.now).0, &self.members());
        self.post_raft(sends, shop);
    }

    /// Asks the voters what the cluster has become, until enough have answered.
    fn recognize(&mut self, shop: &mut Shop) {
        if self.process.recognized {
            return;
        }
        let now = self.boot(shop.now);
        let Some(view) = self.process.view().cloned() else { return };
        let fresh = || Recognizer::new(self.node, Arc::clone(&view.attestation));
        let recognizer = self.process.recognizer.get_or_insert_with(fresh);
        if !recognizer.poll_round(now) {
            return;
        }
        let asker = RecognizingMember { identity: &self.keys.identity(), view: &view };
        let denied = |node| self.process.refused.contains(&node) || self.raft.evicts.contains(&node);
        let questions = recognizer.begin_round(shop.rng.bytes(), asker, denied, now);
        for Question { voter, nonce, known, .. } in questions {
            shop.send(self.node, voter, Body::Question { nonce, known });
        }
        self.believe(shop);
    }

    /// Once the cluster is recognized, refuses the members that were evicted and believes Raft again.
    pub(crate) fn believe(&mut self, shop: &mut Shop) {
        let recognized = self.process.recognizer.as_ref().and_then(Recognizer::recognized);
        let Some(cluster) = recognized.filter(|_| !self.process.recognized) else { return };
        self.process.refused.extend(cluster.refused);
        (self.process.recognized, self.process.recognizer) = (true, None);
        self.raft.put_off(self.boot(shop.now).0, &mut shop.rng);
        shop.report.recognitions += 1;
    }

    /// Sends what the lease keeper has to say.
    pub(crate) fn keep_lease(&mut self, shop: &mut Shop) {
        let (now, term) = (self.boot(shop.now), self.raft.term);
        self.process.keeper.handle_leader(self.raft.leader.map(|node| Leader { node, term }));
        self.process.keeper.handle_length(shop.size.lease);
        while let Some(ask) = self.process.keeper.poll_ask(now) {
            self.process.asks.insert(ask.number, shop.now);
            if self.process.asks.len() > ASKS_MAX {
                self.process.asks.pop_first();
            }
            self.acknowledged = self.acknowledged.max(ask.enforced);
            let (clock, epoch) = (self.clocks.wall(shop.now), self.epoch);
            shop.send(self.node, ask.to.node, Body::Ask { epoch, ask, clock });
        }
    }

    pub(crate) fn answered(
        &mut self,
        number: u64,
        (answer, time): (Answer, Option<UnixMillis>),
        honest: bool,
        shop: &mut Shop,
    ) {
        let now = self.boot(shop.now);
        if let Some(time) = time
            && !shop.breaks(LeaseDanger::RenewsByLogAlone)
        {
            self.process.certificate.handle_stamp(Anchor { time, at: now });
        }
        if let Answer::Granted(named) = answer {
            self.process.miscounted.granted(now, named, shop.size.lease);
        }
        if self.process.keeper.handle_answer(number, answer, now)
            && let (Answer::Granted(_), Some(truly)) = (answer, self.process.asks.get(&number).copied())
            && honest
        {
            self.process.basis = self.process.basis.max(Some(truly));
        }
        self.process.held |= self.process.keeper.holds(now);
        self.keep_lease(shop);
    }

    fn sign_attestation(&mut self, shop: &mut Shop) {
        let (Some(leader), true) = (self.raft.leader, shop.rng.one_in(4)) else { return };
        let Some(attestation) = self.process.state.to_sign(self.node) else { return };
        let signature = self.keys.identity().sign(&attestation.transcript());
        let command =
            Command::SignAttestation(SignAttestation { number: attestation.number, node: self.node, signature });
        shop.send(self.node, leader, Body::Forward(Box::new(command)));
    }
}
