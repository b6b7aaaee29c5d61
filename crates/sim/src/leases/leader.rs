//! What a member does while it leads: it stamps, has a quorum confirm it, and carries out what operators wish. What it
//! decides about leases, barriers and voters the core decides.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::group::GroupMembers;
use countersign_core::id::{BootId, Generation, NodeId};
use countersign_core::lease::{
    Action, Answer, Ask, NotLeader, PendingBarrier, PendingGrant, Request, Roster, Standing,
};
use countersign_core::member::membership::{GroupProgress, Step, next_step};
use countersign_core::time::{BootMillis, UnixMillis};
use countersign_core::trust::clocks::StampError;
use countersign_core::trust::command::Command;

use super::LeaseDanger;
use super::machine::Machine;
use super::post::Body;
use super::raft::Payload;
use super::verdict::LeaseBroken;
use super::world::Shop;
use crate::replica::stamped;

/// Milliseconds for which a leader whose clock is wrong lets others go first.
const STAND_BACK: u64 = 6_000;
/// Milliseconds for which a leader that hands over lets others go first.
const HAND_OVER: u64 = 3_000;
/// Milliseconds within which a quorum must confirm a leader for a request.
const CONFIRM: u64 = 2_000;

/// A process that asked for a lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    pub(crate) node: NodeId,
    pub(crate) epoch: u64,
}

/// A request that waits for the leader to be confirmed in `round`.
#[derive(Debug)]
struct Unconfirmed {
    pending: PendingGrant,
    asker: Asker,
    number: u64,
    round: u64,
    until: BootMillis,
}

/// What a leader has under way in one term.
#[derive(Debug, Default)]
pub(crate) struct LeaderWork {
    unconfirmed: Vec<Unconfirmed>,
    /// What operators wish that was proposed in this term.
    pub(crate) proposed: BTreeSet<usize>,
    /// The barriers over what operators wish.
    barriers: BTreeMap<usize, PendingBarrier>,
}

/// The id of a process.
fn boot_id(asker: Asker) -> BootId {
    let mut id = [0; 16];
    id.iter_mut().zip(asker.epoch.to_be_bytes()).for_each(|(to, from)| *to = from);
    BootId(id)
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

    fn stamp_now(&self, shop: &Shop) -> Option<Result<UnixMillis, StampError>> {
        let (now, own) = (self.boot(shop.now), self.clocks.wall(shop.now));
        let voters = self.process.view()?.members.voters().map(|member| member.id).collect();
        Some(self.process.manager.clocks().stamp(&voters, self.node, own, now, self.process.anchor()))
    }

    fn stamp(&mut self, shop: &mut Shop) -> Option<UnixMillis> {
        let (now, own) = (self.boot(shop.now), self.clocks.wall(shop.now));
        if shop.breaks(LeaseDanger::StampsByOwnClock) {
            return Some(own.max(self.process.state.time()));
        }
        match self.stamp_now(shop)? {
            Ok(time) => Some(time),
            // It leads until a voter whose clock is right has all of its log: no other could be elected.
            Err(StampError::Skewed { .. }) if !self.has_heir(shop) => None,
            Err(StampError::Skewed { .. }) => {
                shop.report.skewed += 1;
                shop.note(format_args!("node {} gives leadership up for its clock", self.node));
                self.raft.stand_back(now.0, STAND_BACK);
                None
            }
            Err(StampError::Unconfirmed { .. }) => None,
        }
    }

    fn progress(&self) -> GroupProgress {
        let (_, voters) = self.raft.voters();
        // Every member is sent the log here.
        let learners = self.members().difference(&voters).copied().collect();
        GroupProgress {
            members: GroupMembers { voters, learners },
            matched: self.raft.matched(),
            last_log: self.raft.log.len() as u64,
        }
    }

    /// Whether one of the voters whose clocks are right could lead now.
    fn has_heir(&self, shop: &Shop) -> bool {
        let (now, own, anchor) = (self.boot(shop.now), self.clocks.wall(shop.now), self.process.anchor());
        let Some(view) = self.process.view() else { return false };
        let voters = view.members.voters().map(|member| member.id).collect();
        let in_step = self.process.manager.clocks().in_step(&voters, self.node, own, now, anchor);
        let group = self.progress();
        group.heir_among(&in_step).is_some_and(|heir| group.matched.get(&heir) == Some(&group.last_log))
    }

    /// Takes in what a member says; the lease waits until a quorum has confirmed this leader since.
    pub(crate) fn serve_lease(&mut self, asker: Asker, ask: Ask, clock: UnixMillis, shop: &mut Shop) {
        let (now, round) = (self.boot(shop.now), self.raft.next_round());
        let Some(view) = self.process.view().cloned().filter(|_| self.raft.leads()) else { return };
        let Ask { number, enforced, renew, delegates, .. } = ask;
        let (from, boot, receipts) = (asker.node, boot_id(asker), Vec::new());
        let request = Request { from, boot, enforced, clock, renew, delegates, receipts };
        match self.process.manager.handle_request(request, &view, true, now) {
            Ok(Action::Confirm(pending)) => {
                let until = now.plus(CONFIRM);
                self.process.work.unconfirmed.push(Unconfirmed { pending, asker, number, round, until });
            }
            Ok(Action::Answer(answer)) => self.answer(asker, number, answer, shop),
            Err(NotLeader) => {}
        }
    }

    fn answer(&self, asker: Asker, number: u64, answer: Answer, shop: &mut Shop) {
        let time = self.stamp_now(shop).and_then(Result::ok);
        shop.send(self.node, asker.node, Body::Answer { epoch: asker.epoch, number, answer, time, honest: true });
    }

    /// Grants what was asked for before a round that a quorum has answered by now.
    pub(crate) fn grant_confirmed(&mut self, shop: &mut Shop) {
        let now = self.boot(shop.now);
        // What is committed must be applied here, or the newest generation is not known.
        let Some(view) = self.process.view().cloned().filter(|_| self.process.applied >= self.raft.committed) else {
            return;
        };
        for waiting in core::mem::take(&mut self.process.work.unconfirmed) {
            if self.raft.is_confirmed(waiting.round) {
                let Unconfirmed { pending, asker, number, .. } = waiting;
                if let Ok(answer) = self.process.manager.handle_confirmed(pending, &view, true, now) {
                    self.answer(asker, number, answer, shop);
                }
            } else if waiting.until <= now {
                self.process.manager.handle_unconfirmed(waiting.pending);
            } else {
                self.process.work.unconfirmed.push(waiting);
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
        self.change_members(shop);
        for wish in 0..shop.record.wishes.len() {
            match shop.record.wishes.get(wish).map(|wish| (wish.generation, wish.returned)) {
                Some((None, _)) if self.raft.leads() => self.carry_out(wish, shop),
                Some((Some(generation), None)) => self.look(wish, generation, shop),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes the next step to the voters that the state wants: one change at a time, of a leader that is confirmed.
    fn change_members(&mut self, shop: &mut Shop) {
        let (at, _) = self.raft.voters();
        if !self.raft.leads() || at >= self.raft.committed || !self.raft.is_confirmed(0) {
            return;
        }
        let group = self.progress();
        match next_step(&self.process.state, &group, self.node) {
            Some(Step::SetVoters(voters)) => self.raft.append(Payload::Voters(voters)),
            Some(Step::HandOver(heir)) if group.matched.get(&heir) != Some(&group.last_log) => {}
            Some(Step::HandOver(_)) => {
                shop.note(format_args!("node {} gives leadership away: it is demoted", self.node));
                self.raft.stand_back(self.boot(shop.now).0, HAND_OVER);
            }
            // No member comes or returns here, and each voter has its copy of the CA key.
            Some(Step::AddLearner(_) | Step::Remove(_) | Step::Seal { .. } | Step::BindStore { .. }) | None => {}
        }
    }

    /// Whether every member enforces what revokes, or has no lease from before it.
    fn look(&mut self, wish: usize, generation: Generation, shop: &mut Shop) {
        let now = self.boot(shop.now);
        let (state, work) = (&self.process.state, &mut self.process.work);
        let (Some(roster), Some(term)) = (Roster::of(state, generation), self.process.manager.term()) else { return };
        let barrier = work.barriers.entry(wish).or_insert_with(|| PendingBarrier::new(generation));
        let progress = term.progress(barrier, &roster, now);
        if progress.passed {
            shop.returned(wish, progress.absent.len());
        }
    }

    /// Whether every voter enforces `generation`: a second voter is evicted only after all that stay know of the first.
    pub(crate) fn all_voters_enforce(&self, generation: Generation, but: NodeId, shop: &Shop) -> bool {
        let now = self.boot(shop.now);
        let (Some(view), Some(term)) = (self.process.view(), self.process.manager.term()) else { return false };
        let mut voters = view.members.voters().filter(|member| member.id != but);
        voters.all(|member| term.standing(member.id, generation, now) == Standing::Enforced)
    }
}
