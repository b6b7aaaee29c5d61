//! New nodes: each goes through the enrollment's typestate, may crash between any two steps, and comes back with what
//! it had stored: its token, its keys and its request id.

use countersign_core::codec;
use countersign_core::enroll::joiner::{Candidate, Requested, SponsorChannel, Unpinned};
use countersign_core::id::{AuthorityId, NodeId, RequestId};
use countersign_core::trust::command::FEATURE_LEVEL;
use countersign_core::trust::member::MemberKeys;
use countersign_core::trust::outcome::Refused;

use crate::actors::{Host, Keys, Token, draw_address, draw_name};
use crate::post::{Asker, Mail, Reply};
use crate::replica::Replica;
use crate::trace::Event;
use crate::violation::Broken;
use crate::world::World;

/// Joiners at once.
const JOINERS_MAX: usize = 6;
/// With this many members, no new joiner begins.
const MEMBERS_WANTED: usize = 12;

/// What a new node has stored, and the one request that it waits for.
#[derive(Debug)]
pub(crate) struct Joiner {
    token: Token,
    keys: Keys,
    candidate: Candidate,
    waiting: Option<(u64, Requested)>,
    /// The node that it was told to be, before a crash made it forget.
    told: Option<NodeId>,
}

impl Joiner {
    /// The connection on which it expects an answer, and the keys that the answer must hold.
    pub(crate) fn waits_on(&self) -> Option<(u64, MemberKeys)> {
        self.waiting.as_ref().map(|(connection, _)| (*connection, self.keys.public))
    }
}

impl World {
    pub(crate) fn join(&mut self) -> Result<(), Broken> {
        let members = self.ledger.view().map_or(0, |view| view.members.len());
        let room = self.joiners.len() < JOINERS_MAX && members < MEMBERS_WANTED;
        if room && (self.joiners.is_empty() || self.rng.one_in(3)) {
            return self.start_joiner();
        }
        match self.rng.pick_of(self.joiners.keys()).copied() {
            // A joiner that waits for an answer mostly waits on.
            Some(id) if self.joiners.get(&id).is_some_and(|j| j.waiting.is_none()) || self.rng.one_in(4) => {
                self.attempt(id)
            }
            _ => Ok(()),
        }
    }

    fn start_joiner(&mut self) -> Result<(), Broken> {
        let Some(joiner) = self.draw_joiner()? else { return Ok(()) };
        let id = self.next_serial();
        let request = joiner.candidate.request;
        self.trace.note(Event::JoinerStarted, format_args!("joiner {id}, request {request}"));
        self.joiners.insert(id, joiner);
        Ok(())
    }

    fn draw_joiner(&mut self) -> Result<Option<Joiner>, Broken> {
        let Some(token) = self.admin.hand_out(&mut self.rng) else { return Ok(None) };
        let keys = Keys::draw(&mut self.rng);
        let drawn = draw_name(&mut self.rng)?;
        let name = token.record.name.clone().filter(|_| !self.rng.one_in(8)).unwrap_or(drawn);
        let candidate = Candidate {
            request: RequestId(self.rng.bytes()),
            name,
            addresses: vec![draw_address(&mut self.rng)?],
            leaf_key: keys.leaf,
            foreign: None,
            keys: keys.public,
            store: keys.store(),
            level: FEATURE_LEVEL,
        };
        Ok(Some(Joiner { token, keys, candidate, waiting: None, told: None }))
    }

    /// One attempt, from the beginning: whatever the joiner waited for, it waits for no more.
    fn attempt(&mut self, id: u64) -> Result<(), Broken> {
        let Some(mut joiner) = self.joiners.remove(&id) else { return Ok(()) };
        joiner.waiting = None;
        let asked = self.ask(id, &joiner)?;
        self.joiners.insert(id, Joiner { waiting: asked, ..joiner });
        Ok(())
    }

    fn crashes(&mut self, at: Event, id: u64) -> bool {
        let crashes = self.rng.one_in(10);
        if crashes {
            self.trace.note(at, format_args!("joiner {id}"));
        }
        crashes
    }

    fn ask(&mut self, id: u64, joiner: &Joiner) -> Result<Option<(u64, Requested)>, Broken> {
        let token = joiner.token.held();
        let unpinned = Unpinned::new(&token, joiner.candidate.clone());
        if self.crashes(Event::CrashUnpinned, id) {
            return Ok(None);
        }
        let Some(sponsor) = self.any_host() else { return Ok(None) };
        if self.rng.one_in(12) {
            let elsewhere = AuthorityId(self.rng.bytes());
            let channel = SponsorChannel { authority: elsewhere, leaf: self.rng.bytes(), exporter: self.rng.bytes() };
            if unpinned.pin(channel).is_ok() {
                return Err(Broken::LieBelieved(sponsor));
            }
            self.trace.note(Event::ImpostorLeft, format_args!("joiner {id}"));
            return Ok(None);
        }
        // With a stolen CA key the adversary stands between joiner and sponsor under the right authority.
        let intercepted = self.rng.one_in(10);
        let Some((connection, over)) = self.connect(Asker::Joiner(id), sponsor) else { return Ok(None) };
        let (leaf, exporter) =
            if intercepted { (self.rng.bytes(), self.rng.bytes()) } else { (over.leaf, over.exporter) };
        let channel = SponsorChannel { authority: self.home.authority, leaf, exporter };
        let pinned = unpinned.pin(channel).map_err(|_| Broken::World)?;
        if self.crashes(Event::CrashPinned, id) {
            return Ok(None);
        }
        let requested = pinned.request(self.home.cluster, &joiner.keys.identity());
        let message = requested.message();
        self.ledger.sign(message);
        self.ledger.history.endorse(message.keys.identity, message.leaf_key, 0);
        if self.crashes(Event::CrashRequested, id) {
            return Ok(None);
        }
        let (csr_key, request) = (message.leaf_key, codec::encode(message)?);
        self.adversary.overhear(&mut self.rng, message.clone());
        self.send(Mail::Enroll { connection, csr_key, request });
        if self.crashes(Event::CrashAsked, id) {
            return Ok(None);
        }
        Ok(Some((connection, requested)))
    }

    pub(crate) fn receive_answer(&mut self, connection: u64, reply: Reply) -> Result<(), Broken> {
        let Some(over) = self.connections.get(&connection).cloned() else { return Ok(()) };
        match over.asker {
            Asker::Thief(keys) => {
                if let Reply::Admitted { node, validity, .. } = reply {
                    self.connections.remove(&connection);
                    self.trace.note(Event::ThiefAdmitted, format_args!("node {node}"));
                    self.adopt_thief(node, *keys, validity);
                }
                Ok(())
            }
            Asker::Joiner(id) => self.answer_joiner(id, connection, over.sponsor, reply),
        }
    }

    fn answer_joiner(&mut self, id: u64, connection: u64, sponsor: NodeId, reply: Reply) -> Result<(), Broken> {
        let Some(mut joiner) = self.joiners.remove(&id) else { return Ok(()) };
        let Some((_, requested)) = joiner.waiting.take_if(|(waits_on, _)| *waits_on == connection) else {
            self.joiners.insert(id, joiner);
            return Ok(());
        };
        let (node, validity, view) = match reply {
            Reply::Admitted { node, validity, view } => (node, validity, view),
            Reply::Refused(why) => return self.take_refusal(id, joiner, &why),
        };
        let Ok(enrolled) = self.faults.accept(requested, node, &view) else {
            self.trace.note(Event::LieRefused, format_args!("joiner {id} is not {node}"));
            self.joiners.insert(id, joiner);
            return Ok(());
        };
        let admitted = self.ledger.history.admission(node);
        let holds_it = admitted.is_some_and(|a| a.keys == joiner.keys.public && a.leaf == joiner.keys.leaf);
        let told = view.members.get(&node).is_some_and(|m| m.leaf.key == joiner.keys.leaf);
        let is_home = view.cluster == self.home.cluster && view.authorities.contains_key(&self.home.authority);
        if enrolled.node != node || !holds_it || !told || !is_home {
            return Err(Broken::LieBelieved(node));
        }
        if joiner.told.is_some_and(|told| told != node) {
            return Err(Broken::AnswersDiffer(joiner.candidate.request));
        }
        if self.crashes(Event::CrashAnswered, id) {
            self.joiners.insert(id, Joiner { told: Some(node), ..joiner });
            return Ok(());
        }
        self.trace.note(Event::Enrolled, format_args!("joiner {id} is node {node}"));
        let mut host = Host::new(node, joiner.keys, Replica::default(), &self.home, validity);
        if self.ledger.history.is_evicted(node) {
            // Evicted before it heard of its admission.
            self.adversary.capture(host);
            return Ok(());
        }
        if !self.crashes(Event::CrashEnrolled, id)
            && let Some(sponsor) = self.hosts.get(&sponsor)
        {
            host.replica = Replica::of(&sponsor.replica.snapshot()?)?;
        }
        self.hosts.insert(node, host);
        Ok(())
    }

    /// Refused: some begin again with other keys and another token, as an operator would have them do; some go.
    fn take_refusal(&mut self, id: u64, joiner: Joiner, why: &Refused) -> Result<(), Broken> {
        match self.rng.below(3) {
            0 => {
                self.joiners.insert(id, joiner);
            }
            1 => {
                if let Some(fresh) = self.draw_joiner()? {
                    self.trace.note(Event::StartedOver, format_args!("joiner {id}: {why}"));
                    self.joiners.insert(id, fresh);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
