//! The simulated world: machines, the network between them, and what comes due when.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use countersign_core::id::NodeId;
use countersign_core::lease::{Answer, LeaseLength};
use countersign_core::peer::{CertificateProof, Proof};

use super::clients::Record;
use super::found::{Size, found, home};
use super::machine::Machine;
use super::operator::Wish;
use super::post::{Body, Due, Message};
use super::verdict::{LeaseBroken, LeaseReport};
use super::{LeaseDanger, Setting};
use crate::history::Home;
use crate::rng::Rng;

/// Events that a violation shows.
const SHOWN_MAX: usize = 60;

/// All but the machines: what each of them reaches while it acts.
#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) rng: Rng,
    /// True time, in milliseconds since the world began.
    pub(crate) now: u64,
    pub(crate) setting: Setting,
    pub(crate) home: Home,
    pub(crate) size: Size,
    pub(crate) report: LeaseReport,
    pub(crate) record: Record,
    pub(crate) events: VecDeque<String>,
    /// Evicted just now: their machines fall to the adversary.
    pub(crate) captured: Vec<NodeId>,
    pub(crate) trouble: bool,
    /// Messages lost of a thousand, and whether some take long.
    pub(crate) loss: u64,
    pub(crate) slow: bool,
    /// Members that reach only each other.
    pub(crate) cut: BTreeSet<NodeId>,
    /// Milliseconds that it takes at most to shut connections.
    pub(crate) closing: u64,
    /// Messages about leases, counted for reports, and shut connections with the time.
    pub(crate) lease_messages: u64,
    pub(crate) grants: u64,
    pub(crate) shut_at: Vec<(u64, NodeId)>,
    sends: Vec<Message>,
    due: BTreeMap<(u64, u64), Due>,
    id: u64,
}

impl Shop {
    pub(crate) fn breaks(&self, danger: LeaseDanger) -> bool {
        self.setting.danger == Some(danger)
    }

    pub(crate) const fn next_id(&mut self) -> u64 {
        self.id += 1;
        self.id
    }

    pub(crate) fn later(&mut self, millis: u64, due: Due) {
        let id = self.next_id();
        self.due.insert((self.now + millis, id), due);
    }

    pub(crate) fn later_within(&mut self, from: u64, to: u64, due: Due) {
        let millis = from + self.rng.below(to - from + 1);
        self.later(millis, due);
    }

    pub(crate) fn send(&mut self, from: NodeId, to: NodeId, body: Body) {
        match &body {
            Body::Ask { .. } | Body::Answer { .. } if from != to => self.lease_messages += 1,
            _ => {}
        }
        self.grants += u64::from(matches!(&body, Body::Answer { answer: Answer::Granted(_), .. }));
        self.sends.push(Message { from, to, body });
    }

    pub(crate) fn shut(&mut self, at: NodeId, connections: usize) {
        self.report.closed += connections as u64;
        if connections > 0 {
            self.shut_at.push((self.now, at));
        }
    }

    pub(crate) fn note(&mut self, what: fmt::Arguments<'_>) {
        if self.events.len() >= SHOWN_MAX {
            self.events.pop_front();
        }
        self.events.push_back(format!("{:>8}  {what}", self.now));
    }

    /// What was sent is on its way: late, twice, or lost.
    fn flush(&mut self) {
        for message in core::mem::take(&mut self.sends) {
            if message.from == message.to {
                self.later(0, Due::Deliver(message));
                continue;
            }
            // The adversary is everywhere. What is on its way already arrives.
            let Message { from, to, .. } = &message;
            let reaches = self.record.fallen.contains(to) || self.cut.contains(from) == self.cut.contains(to);
            if !reaches || self.rng.below(1000) < self.loss {
                self.report.lost += 1;
                continue;
            }
            let long = self.slow && self.rng.one_in(4);
            let (from, to) = if long { (20, 4_000) } else { (1, 20) };
            if self.trouble && self.rng.one_in(50) {
                self.report.twice += 1;
                self.later_within(from, to * 20, Due::Deliver(message.clone()));
            }
            self.later_within(from, to, Due::Deliver(message));
        }
    }
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) shop: Shop,
    pub(crate) machines: BTreeMap<NodeId, Machine>,
    /// What the adversary has of evicted members.
    pub(crate) fallen: BTreeMap<NodeId, Machine>,
    /// Crashes when it has next made something durable, before it says so.
    pub(crate) doomed: Option<NodeId>,
    /// When a clock was last set wrong, or right.
    pub(crate) clock_set_at: u64,
}

impl World {
    pub(crate) fn new(seed: u64, setting: Setting) -> Result<Self, LeaseBroken> {
        let mut rng = Rng::new(seed ^ 0x6c65_6173_6573);
        let lease = LeaseLength::from_secs(1 + rng.below(3)).map_err(|_| LeaseBroken::World)?;
        let size = Size { members: 7, voters: 5, ttl_secs: 40, lease };
        Self::of(rng, size, setting)
    }

    pub(crate) fn of(mut rng: Rng, size: Size, setting: Setting) -> Result<Self, LeaseBroken> {
        let home = home(&mut rng)?;
        let machines = found(&mut rng, &home, size)?;
        let record = Record::new(machines.first().ok_or(LeaseBroken::World)?)?;
        let mut shop = Shop {
            rng,
            now: 0,
            setting,
            home,
            size,
            report: LeaseReport::default(),
            record,
            events: VecDeque::new(),
            captured: Vec::new(),
            trouble: false,
            loss: 0,
            slow: false,
            cut: BTreeSet::new(),
            closing: 30,
            lease_messages: 0,
            grants: 0,
            shut_at: Vec::new(),
            sends: Vec::new(),
            due: BTreeMap::new(),
            id: 0,
        };
        for machine in &machines {
            shop.published(&machine.credential);
            shop.later_within(0, 50, Due::Tick { node: machine.node, epoch: 0 });
        }
        let machines = machines.into_iter().map(|machine| (machine.node, machine)).collect();
        Ok(Self { shop, machines, fallen: BTreeMap::new(), doomed: None, clock_set_at: 0 })
    }

    pub(crate) fn live(&self) -> Vec<NodeId> {
        self.machines.keys().copied().collect()
    }

    /// Who leads in the newest term, if anybody does.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let leaders = self.machines.values().filter(|machine| machine.up && machine.raft.leads());
        leaders.max_by_key(|machine| machine.raft.term).map(|machine| machine.node)
    }

    pub(crate) fn run_until(&mut self, end: u64) -> Result<(), LeaseBroken> {
        while let Some(entry) = self.shop.due.first_entry() {
            if entry.key().0 > end {
                break;
            }
            self.shop.now = entry.key().0;
            let due = entry.remove();
            self.happen(due)?;
            self.shop.flush();
            for node in core::mem::take(&mut self.shop.captured) {
                if self.shop.rng.one_in(2) {
                    continue;
                }
                self.shop.record.fallen.insert(node);
                if let Some(machine) = self.machines.remove(&node) {
                    self.shop.cut.remove(&node);
                    self.fallen.insert(node, machine);
                }
            }
        }
        self.shop.now = end;
        Ok(())
    }

    fn happen(&mut self, due: Due) -> Result<(), LeaseBroken> {
        match &due {
            // A timer fires when the process goes on.
            Due::Tick { node, .. } | Due::Closed { node, .. } | Due::HandshakeEnds { node, .. }
                if self.machines.get(node).is_some_and(|machine| machine.paused) =>
            {
                self.shop.later(50, due);
                return Ok(());
            }
            _ => {}
        }
        match due {
            Due::Deliver(message) => self.deliver(message),
            Due::Tick { node, epoch } => self.act(node, Some(epoch), |machine, shop| machine.tick(shop)),
            Due::Closed { node, epoch } => self.act(node, Some(epoch), |machine, shop| {
                machine.close(shop);
                Ok(())
            }),
            Due::HandshakeEnds { node, epoch, credential } => self.act(node, Some(epoch), |machine, shop| {
                machine.handshake_ends(credential, shop);
                Ok(())
            }),
            Due::Present if self.shop.trouble => {
                self.shop.later_within(10, 33, Due::Present);
                let live = self.live();
                let Some(node) = self.shop.rng.pick(&live).copied() else { return Ok(()) };
                match self.machines.get_mut(&node).filter(|machine| machine.up) {
                    Some(machine) => machine.presented_all(&mut self.shop),
                    None => Ok(()),
                }
            }
            Due::Operate if self.shop.trouble => {
                self.shop.operate();
                self.shop.later_within(200, 1_500, Due::Operate);
                Ok(())
            }
            Due::Issue => {
                if let Some(issue) = self.shop.issue() {
                    self.wish(Wish::of(issue));
                }
                Ok(())
            }
            Due::Trouble if self.shop.trouble => {
                self.trouble();
                Ok(())
            }
            Due::Pretend if self.shop.trouble => {
                self.pretend();
                Ok(())
            }
            Due::Slander if self.shop.trouble => {
                self.slander();
                Ok(())
            }
            Due::Slander | Due::Present | Due::Operate | Due::Trouble | Due::Pretend => Ok(()),
            Due::Resume(node) => self.resume(node),
            Due::Restart(node) if self.shop.trouble => self.restart(node),
            Due::Restart(_) => Ok(()),
            Due::Heal(node) => {
                self.shop.cut.remove(&node);
                Ok(())
            }
        }
    }

    /// Lets a process act that is running. One that is doomed ends when it has made something durable and would say so.
    fn act(
        &mut self,
        node: NodeId,
        epoch: Option<u64>,
        with: impl FnOnce(&mut Machine, &mut Shop) -> Result<(), LeaseBroken>,
    ) -> Result<(), LeaseBroken> {
        let Some(machine) = self.machines.get_mut(&node) else { return Ok(()) };
        if !machine.up || epoch.is_some_and(|epoch| epoch != machine.epoch) {
            return Ok(());
        }
        with(machine, &mut self.shop)?;
        if self.doomed == Some(node) && !self.shop.sends.is_empty() {
            self.shop.sends.clear();
            self.doomed = None;
            self.crash(node);
            self.shop.later_within(20, 3_000, Due::Restart(node));
        }
        Ok(())
    }

    pub(crate) fn deliver(&mut self, message: Message) -> Result<(), LeaseBroken> {
        let Message { from, to, .. } = message;
        if self.fallen.contains_key(&to) {
            self.deceive(message);
            return Ok(());
        }
        let sender = self.machines.get(&from).or_else(|| self.fallen.get(&from));
        let Some(sender) = sender else { return Ok(()) };
        // A connection ends with its process. What was still on its way when it did comes late, but not in calm.
        if let Body::Ask { epoch, .. } = &message.body
            && *epoch != sender.epoch
            && !self.shop.trouble
        {
            return Ok(());
        }
        let proof = |claims| Proof::Certificate(CertificateProof::asserted(claims));
        // Who speaks to a member judges it as well.
        if self.shop.record.may_be_refused(to)
            && message.body.is_of_peers()
            && let Some(dialed) = self.machines.get(&to).map(|machine| proof(machine.credential.clone()))
            && !sender.takes(&dialed, &self.shop)
        {
            return Ok(());
        }
        let parts = sender.credential.clone();
        if let Some(machine) = self.machines.get_mut(&to).filter(|machine| machine.up && machine.paused) {
            machine.inbox.push(message);
            return Ok(());
        }
        let proof = proof(parts);
        self.act(to, None, |machine, shop| machine.receive(&proof, message, shop))
    }

    pub(crate) fn wish(&mut self, wish: Wish) -> usize {
        self.shop.record.wishes.push(wish);
        self.shop.record.wishes.len() - 1
    }
}
