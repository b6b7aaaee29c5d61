//! Trouble, and what it comes to when it ends.

use countersign_core::id::NodeId;
use countersign_core::limits::CLOCK_REPORT_SECS_MAX;
use countersign_core::peer::CertificateClaims;
use countersign_core::trust::command::{Command, RevokeKey};

use super::LeaseDanger;
use super::operator::Wish;
use super::post::Due;
use super::verdict::{LeaseBroken, Unmet};
use super::world::World;
use crate::actors::BEGIN;

/// Milliseconds that a cluster is left in peace before it is looked at.
const CALM: u64 = 22_000;
/// Milliseconds from one certificate of a client to the next meanwhile, and how many are issued.
const TRADE: u64 = 2_000;
const TRADES: u64 = 9;
/// Milliseconds for which a clock is wrong at least, and for which it is remembered.
const WRONG: u64 = 10_000;
const REMEMBERED: u64 = CLOCK_REPORT_SECS_MAX * 1000 + 5_000;

impl World {
    /// A time of trouble, a calm one, and a look at what has become of the cluster.
    pub(crate) fn round(&mut self) -> Result<(), LeaseBroken> {
        self.shop.trouble = true;
        let length = 15_000 + self.shop.rng.below(15_000);
        for due in [Due::Trouble, Due::Operate, Due::Present, Due::Pretend, Due::Slander] {
            self.shop.later_within(0, 1000, due);
        }
        self.run_until(self.shop.now + length)?;
        if self.shop.rng.one_in(4) {
            self.night()?;
        }
        self.calm()?;
        let began = self.shop.now;
        self.run_until(began + CALM)?;
        self.look_at(began)
    }

    /// Nothing is committed but what members need, so that the log tells little of the time, and one clock is years
    /// behind.
    pub(crate) fn idle(&mut self) -> Result<(), LeaseBroken> {
        // The other rules have worlds of their own to be missed in.
        if self.shop.setting.danger.is_some_and(|danger| danger != LeaseDanger::RenewsByLogAlone) {
            return Ok(());
        }
        for node in self.live() {
            self.set_behind(node, false);
        }
        self.run_until(self.shop.now + REMEMBERED)?;
        let members: Vec<NodeId> = self.live().into_iter().filter(|node| !self.shop.record.is_out(*node)).collect();
        let Some(node) = self.shop.rng.pick(&members).copied() else { return Ok(()) };
        self.shop.report.idles += 1;
        self.shop.note(format_args!("idle, and the clock of node {node} is years behind"));
        let began = self.shop.now;
        self.set_behind(node, true);
        for second in 1..=2 * self.shop.size.ttl_secs {
            self.run_until(began + second * 1000)?;
            let Some(machine) = self.machines.get(&node) else { continue };
            if machine.credential.validity.not_after.0 <= BEGIN.0 + self.shop.now {
                let (calm, what) = (self.shop.now - began, Unmet::Certificate);
                return Err(LeaseBroken::Waits { calm, what, member: node });
            }
        }
        self.set_behind(node, false);
        Ok(())
    }

    fn set_behind(&mut self, node: NodeId, behind: bool) {
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.clocks.set_behind(behind);
        }
        self.clock_set_at = self.shop.now;
    }

    fn night(&mut self) -> Result<(), LeaseBroken> {
        self.shop.report.nights += 1;
        (self.shop.trouble, self.doomed) = (false, None);
        self.shop.note(format_args!("everything is off until every certificate has expired"));
        for node in self.live() {
            self.crash(node);
        }
        // Sometimes for so long that no leader may stamp by its own clock alone.
        let hours = if self.shop.rng.one_in(2) { 2 } else { 0 };
        self.run_until(self.shop.now + (self.shop.size.ttl_secs + 5 + 3600 * hours) * 1000)
    }

    fn calm(&mut self) -> Result<(), LeaseBroken> {
        (self.shop.trouble, self.shop.loss, self.shop.slow) = (false, 0, false);
        self.shop.note(format_args!("calm"));
        self.shop.cut.clear();
        self.doomed = None;
        for node in self.live() {
            self.resume(node)?;
            self.restart(node)?;
        }
        // The cluster's time goes on with its log alone, and a member whose clock is behind judges by that.
        for at in (1..=TRADES).map(|trade| trade * TRADE) {
            self.shop.later(at, Due::Issue);
        }
        Ok(())
    }

    pub(crate) fn crash(&mut self, node: NodeId) {
        if let Some(machine) = self.machines.get_mut(&node).filter(|machine| machine.up) {
            (machine.up, machine.paused) = (false, false);
            machine.epoch += 1;
            machine.process.connections.clear();
            self.shop.report.crashes += u64::from(self.shop.trouble);
            self.shop.note(format_args!("node {node} crashes"));
        }
    }

    pub(crate) fn restart(&mut self, node: NodeId) -> Result<(), LeaseBroken> {
        match self.machines.get_mut(&node) {
            Some(machine) if !machine.up => machine.restart(&mut self.shop),
            _ => Ok(()),
        }
    }

    pub(crate) fn resume(&mut self, node: NodeId) -> Result<(), LeaseBroken> {
        let Some(machine) = self.machines.get_mut(&node).filter(|machine| machine.paused && machine.up) else {
            return Ok(());
        };
        machine.resume(&mut self.shop)?;
        let inbox = core::mem::take(&mut machine.inbox);
        inbox.into_iter().try_for_each(|message| self.deliver(message))
    }

    /// Something goes wrong.
    pub(crate) fn trouble(&mut self) {
        self.shop.later_within(150, 900, Due::Trouble);
        let live = self.live();
        let Some(node) = self.shop.rng.pick(&live).copied() else { return };
        match self.shop.rng.below(13) {
            0 | 1 => {
                self.crash(node);
                self.shop.later_within(50, 6_000, Due::Restart(node));
            }
            2 => self.doomed = Some(node),
            3 | 4 => {
                let Some(machine) = self.machines.get_mut(&node).filter(|m| m.up && !m.paused) else { return };
                machine.paused = true;
                self.shop.report.pauses += 1;
                self.shop.note(format_args!("node {node} is paused"));
                self.shop.later_within(100, 7_000, Due::Resume(node));
            }
            5..8 => {
                self.shop.report.partitions += 1;
                let leader = self.leader().filter(|_| self.shop.rng.one_in(3));
                for node in [Some(leader.unwrap_or(node)), self.shop.rng.pick(&live).copied()].into_iter().flatten() {
                    self.shop.cut.insert(node);
                    self.shop.note(format_args!("node {node} is cut off"));
                    self.shop.later_within(200, 9_000, Due::Heal(node));
                    if self.shop.rng.one_in(2) {
                        break;
                    }
                }
            }
            8 => {
                // One at a time, which is what the median withstands: a clock that was set right is still remembered
                // as wrong for as long as a report counts.
                let (now, set_at) = (self.shop.now, self.clock_set_at);
                let wrong = self.machines.values_mut().find(|machine| !machine.clocks.is_right());
                if let Some(machine) = wrong {
                    if now > set_at + WRONG {
                        (machine.clocks.jump, self.clock_set_at) = (0, now);
                    }
                } else if self.shop.record.outdated.is_empty()
                    && (set_at == 0 || now > set_at + REMEMBERED)
                    && let Some(machine) = self.machines.get_mut(&node)
                {
                    machine.clocks.set_wrong(&mut self.shop.rng);
                    self.clock_set_at = now;
                    self.shop.report.jumps += 1;
                    let jump = machine.clocks.jump;
                    self.shop.note(format_args!("the clock of node {node} is set {jump} ms off"));
                }
            }
            12 => self.set_back(node),
            9 => self.shop.loss = self.shop.rng.below(250),
            10 => self.shop.slow = true,
            _ => (self.shop.loss, self.shop.slow) = (0, false),
        }
    }

    /// The disk of a member holds an earlier certificate again. One at a time, and while all clocks are right: a voter
    /// that is refused votes for nothing, and no leader hears its clock.
    fn set_back(&mut self, node: NodeId) {
        let right = self.machines.values().all(|machine| machine.clocks.is_right());
        let (alone, out) = (self.shop.record.outdated.is_empty() && right, self.shop.record.is_out(node));
        let Some(on_record) = self.shop.record.state.view().and_then(|view| view.members.get(&node)).cloned() else {
            return;
        };
        let Some(machine) = self.machines.get_mut(&node).filter(|_| alone && !out) else { return };
        let superseded = |(claims, _): &&(CertificateClaims, _)| on_record.leaf_of(claims.key).is_none();
        let superseded: Vec<_> = machine.copies.iter().filter(superseded).cloned().collect();
        let Some((claims, next)) = self.shop.rng.pick(&superseded).cloned() else { return };
        let key = claims.key;
        (machine.credential, machine.next) = (claims, next);
        self.crash(node);
        self.shop.record.outdated.insert(node, key);
        self.shop.report.set_back += 1;
        self.shop.note(format_args!("the disk of node {node} is set back"));
        self.shop.later_within(50, 2_000, Due::Restart(node));
        if self.shop.rng.one_in(3) {
            // It was stolen, too.
            self.shop.report.disowned += 1;
            self.wish(Wish::of(Command::RevokeKey(RevokeKey(key))));
        }
    }

    /// The state of every member, for the reader of a violation.
    fn describe(&mut self) {
        for machine in self.machines.values() {
            let generations = (machine.process.generation().0, machine.process.enforced.0);
            let end = machine.credential.validity.not_after.0.saturating_sub(BEGIN.0);
            let lease = machine.process.keeper.lease_end().map(|d| d.0 as i64 - machine.boot(self.shop.now).0 as i64);
            self.shop.note(format_args!(
                "node {}: leader {:?} in term {}, recognized: {}, generations {generations:?}, lease: {lease:?}, \
                 certificate until {end}, next: {}, clock right: {}, up: {}, log {} of {}",
                machine.node,
                machine.raft.leader,
                machine.raft.term,
                machine.process.recognized,
                machine.next.is_some(),
                machine.clocks.is_right(),
                machine.up,
                machine.raft.committed,
                machine.raft.log.len(),
            ));
        }
    }

    fn look_at(&mut self, began: u64) -> Result<(), LeaseBroken> {
        let calm = self.shop.now - began;
        self.describe();
        let waits = |what, member: NodeId| Err(LeaseBroken::Waits { calm, what, member });
        let Some(_) = self.leader() else { return waits(Unmet::Leader, NodeId(0)) };
        for node in self.live() {
            let Some(machine) = self.machines.get(&node) else { continue };
            if self.shop.record.is_out(node) {
                // To a clock that is years behind, the others' certificates are not valid yet, and it believes none of
                // them.
                if !machine.process.left && machine.clocks.is_right() {
                    return waits(Unmet::Leaving, node);
                }
                continue;
            }
            if !machine.has_lease(self.shop.now) {
                return waits(Unmet::Lease, node);
            }
            if machine.credential.validity.not_after.0 <= BEGIN.0 + self.shop.now {
                return waits(Unmet::Certificate, node);
            }
        }
        if self.shop.record.committed_at < began {
            return waits(Unmet::Command, NodeId(0));
        }
        if self.shop.record.wishes.iter().any(|wish| wish.returned.is_none()) {
            return waits(Unmet::Barrier, NodeId(0));
        }
        self.shop.report.calms += 1;
        Ok(())
    }
}
