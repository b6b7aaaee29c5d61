//! What a member does while it leads: it stamps, grants leases, and waits for barriers, as the members' own shell does.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::id::{Generation, NodeId};
use countersign_core::lease::{Grantor, LeaseLength, Standing};
use countersign_core::time::{BootMillis, UnixMillis};
use countersign_core::trust::clocks::StampError;
use countersign_core::trust::command::Command;
use countersign_core::trust::member::Suffrage;

use super::LeaseDanger;
use super::machine::Machine;
use super::post::Body;
use super::raft::Payload;
use super::verdict::LeaseBroken;
use super::world::Shop;
use crate::replica::stamped;

/// Milliseconds for which a leader whose clock is wrong lets others go first.
const STAND_BACK: u64 = 6_000;

/// A request that waits for the leader to be confirmed.
#[derive(Debug, Clone, Copy)]
struct Wish {
    from: NodeId,
    id: u64,
    enforced: Generation,
    round: u64,
}

/// What one leader knows in one term.
#[derive(Debug)]
pub(crate) struct Desk {
    term: u64,
    grantor: Grantor,
    wishes: Vec<Wish>,
    /// What operators wish that was proposed in this term.
    pub(crate) proposed: BTreeSet<usize>,
    /// From which generation on it is known that enough have signed what a wish made of the cluster.
    stated: BTreeMap<usize, Generation>,
}

impl Desk {
    pub(crate) const fn new(term: u64, elected: BootMillis, length: LeaseLength) -> Self {
        let grantor = Grantor::new(elected, length);
        Self { term, grantor, wishes: Vec::new(), proposed: BTreeSet::new(), stated: BTreeMap::new() }
    }
}

impl Machine {
    /// Appends a command that member `from` took, if this member leads and knows what time it is.
    pub(crate) fn propose(&mut self, from: NodeId, command: Command, shop: &mut Shop) -> bool {
        if !self.raft.leads() {
            return false;
        }
        let Some(time) = self.stamp(shop) else { return false };
        let now = self.boot(shop.now);
        self.raft.append(Payload::Command(Box::new(stamped(time, from, command))));
        let sends = self.raft.broadcast(now.0, &self.members());
        self.post_raft(sends, shop);
        true
    }

    fn stamp(&mut self, shop: &mut Shop) -> Option<UnixMillis> {
        let (now, own) = (self.boot(shop.now), self.clocks.wall(shop.now));
        if shop.breaks(LeaseDanger::StampsByOwnClock) {
            return Some(own.max(self.process.state.time()));
        }
        let view = self.process.view()?;
        let voters = view.members.values().filter(|m| m.suffrage == Suffrage::Voter).map(|m| m.id).collect();
        match self.process.voter_clocks.stamp(&voters, self.node, own, now, self.process.anchor()) {
            Ok(time) => Some(time),
            Err(StampError::Skewed { .. }) => {
                shop.report.skewed += 1;
                shop.note(format_args!("node {} gives leadership up for its clock", self.node));
                self.raft.stand_back(now.0, STAND_BACK);
                None
            }
            Err(StampError::Unconfirmed { .. }) => None,
        }
    }

    /// Takes in what a member says; the lease waits until a quorum has confirmed this leader since.
    pub(crate) fn serve_lease(
        &mut self,
        from: NodeId,
        id: u64,
        enforced: Generation,
        clock: UnixMillis,
        renew: bool,
        shop: &mut Shop,
    ) {
        let (now, round, term) = (self.boot(shop.now), self.raft.next_round(), self.raft.term);
        if !self.raft.leads() || !self.process.view().is_some_and(|view| view.members.contains_key(&from)) {
            return;
        }
        self.process.voter_clocks.report(from, clock, now);
        let Some(desk) = self.process.desk.as_mut().filter(|desk| desk.term == term) else { return };
        desk.grantor.acknowledge(from, enforced);
        if renew {
            desk.wishes.push(Wish { from, id, enforced, round });
        } else {
            shop.send(self.node, from, Body::Answer { id, enforced, granted: None, honest: true });
        }
    }

    /// Grants what was asked for before a round that a quorum has answered by now.
    pub(crate) fn grant_confirmed(&mut self, shop: &mut Shop) {
        let (now, newest, term) = (self.boot(shop.now), self.process.generation(), self.raft.term);
        // What is committed must be applied here, or the newest generation is not known.
        if self.process.applied < self.raft.committed {
            return;
        }
        let view = self.process.view().cloned();
        let Some(desk) = self.process.desk.as_mut().filter(|desk| desk.term == term) else { return };
        let wishes = core::mem::take(&mut desk.wishes);
        for wish in wishes {
            if !self.raft.is_confirmed(wish.round) {
                desk.wishes.push(wish);
            } else if view.as_ref().is_some_and(|view| view.members.contains_key(&wish.from)) {
                desk.grantor.grant(wish.from, newest, now);
                let Wish { from, id, enforced, .. } = wish;
                shop.send(self.node, from, Body::Answer { id, enforced, granted: Some(newest), honest: true });
            }
        }
    }

    /// What a leader does from time to time.
    pub(crate) fn lead(&mut self, shop: &mut Shop) -> Result<(), LeaseBroken> {
        self.grant_confirmed(shop);
        // Whether its clock is right, it asks itself also when there is nothing to stamp.
        if shop.rng.one_in(10) {
            self.stamp(shop);
        }
        for wish in 0..shop.record.wishes.len() {
            match shop.record.wishes.get(wish).map(|wish| (wish.generation, wish.returned)) {
                Some((None, _)) if self.raft.leads() => self.carry_out(wish, shop),
                Some((Some(generation), None)) => self.look(wish, generation, shop),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether every member enforces what revokes, or has no lease from before it.
    fn look(&mut self, wish: usize, generation: Generation, shop: &mut Shop) {
        let (now, term) = (self.boot(shop.now), self.raft.term);
        let stated = self.process.state.is_stated(generation);
        let Some(view) = self.process.state.view().filter(|view| view.generation >= generation) else { return };
        let Some(desk) = self.process.desk.as_mut().filter(|desk| desk.term == term) else { return };
        if stated {
            desk.stated.entry(wish).or_insert(view.generation);
        }
        let Some(enforced) = desk.stated.get(&wish).copied() else { return };
        let (mut open, mut enforcing, mut voters, mut lapsed) = (0_usize, 0_usize, 0_usize, 0);
        for member in view.members.values() {
            let votes = usize::from(member.suffrage == Suffrage::Voter);
            voters += votes;
            match desk.grantor.standing(member.id, enforced, now) {
                Standing::Enforced => enforcing += votes,
                Standing::Until(_) => open += 1,
                Standing::Lapsed => lapsed += 1,
            }
        }
        if open == 0 && enforcing > voters / 2 {
            shop.returned(wish, lapsed);
        }
    }

    /// Whether every voter enforces `generation`: a second voter is evicted only after all that stay know of the first.
    pub(crate) fn all_voters_enforce(&self, generation: Generation, but: NodeId, shop: &Shop) -> bool {
        let now = self.boot(shop.now);
        let (Some(view), Some(desk)) = (self.process.view(), &self.process.desk) else { return false };
        let voters = view.members.values().filter(|m| m.suffrage == Suffrage::Voter && m.id != but);
        let mut standings = voters.map(|m| desk.grantor.standing(m.id, generation, now));
        standings.all(|standing| standing == Standing::Enforced)
    }
}
