//! The member's side of leases: when it asks its leader, what it says, and what it makes of the answer.
//!
//! It is told what happens and when, and answers what to send ([`LeaseKeeper::poll_ask`]) and when to come again
//! ([`LeaseKeeper::poll_timeout`]). It must never count a lease from later than the moment before it was asked for, or
//! say that it enforces what a delegate with a lease does not.

use std::sync::Arc;

use super::delegated::{DelegateId, DelegatedLeases};
use super::enforcements::{Enforcement, Enforcements};
use super::message::{Answer, Ask, Leader};
use super::{Holder, LeaseClock, LeaseLength};
use crate::id::Generation;
use crate::time::BootMillis;

/// Milliseconds that an answer may take; a request that got none is made again.
const ANSWER_MILLIS: u64 = 2_000;
/// Milliseconds before a member asks again that was granted nothing.
const RETRY_MILLIS: u64 = 200;
/// Milliseconds before a member asks again that is replaced or whose state differs: an operator ends that.
const REFUSED_MILLIS: u64 = 1_000;
/// Receipts in one request.
const RECEIPTS_MAX: usize = 32;

/// What a member says with a request that a leader is to know once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Said {
    enforced: Generation,
    /// The revocation of the newest receipt.
    receipts: Generation,
    delegates: bool,
}

impl Said {
    /// Whether this says more than `other`.
    fn exceeds(&self, other: &Self) -> bool {
        self.enforced > other.enforced || self.receipts > other.receipts || self.delegates != other.delegates
    }
}

/// A request under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct UnderWay {
    number: u64,
    at: BootMillis,
    /// It asks for a lease, or would if the certificate were valid.
    due: bool,
    said: Said,
}

/// What a member knows of its lease and of those that it delegates. Lost with the process: a start begins without a
/// lease.
#[derive(Debug)]
pub struct LeaseKeeper {
    /// Follows the lease, for those that decide by it.
    clock: Arc<LeaseClock>,
    holder: Holder,
    enforced: Generation,
    enforcements: Enforcements,
    delegated: DelegatedLeases,
    /// It delegates leases, or may.
    delegates: bool,
    /// The leader that was told last that leases are delegated. Until this one is, none is.
    announced: Option<Leader>,
    leader: Option<Leader>,
    length: Option<LeaseLength>,
    certified: bool,
    clock_is_right: bool,
    surrendered: bool,
    replaced: bool,
    /// The leader that was told last, what it was told, and when the last lease was asked for that it granted.
    told: Option<Leader>,
    said: Said,
    granted: Option<BootMillis>,
    under_way: Option<UnderWay>,
    /// Until then it asks nothing, unless it has more to say than this.
    pause: Option<(BootMillis, Said)>,
    /// When a lease ends that keeps this member from saying what it enforces.
    lapse: Option<BootMillis>,
    last: u64,
}

impl Default for LeaseKeeper {
    /// Begins without a lease.
    fn default() -> Self {
        Self {
            clock: Arc::default(),
            holder: Holder::default(),
            enforced: Generation(0),
            enforcements: Enforcements::default(),
            delegated: DelegatedLeases::default(),
            delegates: false,
            announced: None,
            leader: None,
            length: None,
            certified: true,
            clock_is_right: true,
            surrendered: false,
            replaced: false,
            told: None,
            said: Said::default(),
            granted: None,
            under_way: None,
            pause: None,
            lapse: None,
            last: 0,
        }
    }
}

impl LeaseKeeper {
    /// The end of the lease, for everything that decides by it. It follows this keeper.
    pub const fn clock(&self) -> &Arc<LeaseClock> {
        &self.clock
    }

    fn update(&mut self, with: impl FnOnce(&mut Holder)) {
        with(&mut self.holder);
        if self.surrendered {
            self.holder.surrender();
        }
        self.clock.follow(&self.holder);
    }

    /// This generation is in force here, and no connection that it refuses is open.
    pub fn handle_enforced(&mut self, generation: Generation) {
        self.enforced = self.enforced.max(generation);
        let enforced = self.enforced;
        self.update(|holder| holder.enforced(enforced));
    }

    /// A revocation is in force here. Told to leaders as evidence, once its generation is enforced.
    pub fn handle_revoked(&mut self, enforcement: Enforcement) {
        self.enforcements.enter(enforcement);
    }

    /// This leader leads now, as far as this member knows; none if none is known. Another one knows nothing of this
    /// member, and an answer of the one before does not count any more.
    pub fn handle_leader(&mut self, leader: Option<Leader>) {
        self.leader = leader;
        if leader.is_some() && leader != self.told {
            (self.told, self.said, self.granted) = (leader, Said::default(), None);
            (self.under_way, self.pause) = (None, None);
            self.update(Holder::leader_changed);
        }
    }

    /// How long leases last, by the replicated state. Before it is known, no lease is asked for.
    pub const fn handle_length(&mut self, length: LeaseLength) {
        self.length = Some(length);
    }

    /// Whether this member's certificate is valid. While it is not, the member reports and asks for no lease.
    pub const fn handle_certificate(&mut self, valid: bool) {
        self.certified = valid;
    }

    /// Whether this host's clock is right. A member that judges by a wrong clock serves no client.
    pub fn handle_clock(&mut self, right: bool) {
        self.clock_is_right = right;
        if !right {
            self.update(Holder::surrender);
        }
    }

    /// The answer to request `number` came. True if that request is under way; an answer to any other is nothing.
    pub fn handle_answer(&mut self, number: u64, answer: Answer, now: BootMillis) -> bool {
        let (Some(length), Some(asked)) = (self.length, self.finish(number)) else { return false };
        self.said = asked.said;
        if asked.said.delegates {
            self.announced = self.told;
        }
        self.pause = None;
        match answer {
            Answer::Granted(generation) => {
                (self.replaced, self.granted) = (false, Some(asked.at));
                if self.clock_is_right {
                    self.update(|holder| holder.granted(asked.at, generation, length));
                }
            }
            // Asked for and not given: this member's certificate or the leader's has expired.
            Answer::Heard if asked.due => self.pause = Some((now.plus(RETRY_MILLIS), asked.said)),
            Answer::Heard => {}
            Answer::Replaced | Answer::Differs => {
                self.replaced |= answer == Answer::Replaced;
                self.granted = None;
                self.pause = Some((now.plus(REFUSED_MILLIS), asked.said));
                self.update(Holder::surrender);
            }
        }
        true
    }

    /// Request `number` got no answer that counts: the leader is out of reach, does not lead, or speaks under a store
    /// that is not its own.
    pub fn handle_failure(&mut self, number: u64, now: BootMillis) {
        if let Some(asked) = self.finish(number) {
            self.pause = Some((now.plus(RETRY_MILLIS), asked.said));
        }
    }

    fn finish(&mut self, number: u64) -> Option<UnderWay> {
        let asked = self.under_way.filter(|asked| asked.number == number)?;
        self.under_way = None;
        Some(asked)
    }

    /// Gives the lease up for good: this member learned that it is out, or is stopping. It asks for nothing any more,
    /// and what a leader still grants does not count.
    pub fn surrender(&mut self) {
        (self.surrendered, self.under_way) = (true, None);
        self.update(Holder::surrender);
    }

    /// What to send at `now`; none while a request is under way or there is nothing to say.
    pub fn poll_ask(&mut self, now: BootMillis) -> Option<Ask> {
        let late = self.under_way.filter(|asked| asked.at.plus(self.answer_millis()) <= now);
        if let Some(asked) = late {
            self.handle_failure(asked.number, now);
        }
        // What is said to be enforced is enforced by the delegates as well.
        let (enforced, lapse) = self.delegated.enforced(self.enforced, now);
        self.lapse = lapse;
        let (Some(to), Some(length)) = (self.leader, self.length) else { return None };
        if self.surrendered || self.under_way.is_some() {
            return None;
        }
        let due = self.granted.is_none_or(|at| now.since(at) >= length.renew_millis());
        let newest = self.enforcements.newest(enforced);
        let saying = Said { enforced, receipts: newest, delegates: self.delegates };
        let pauses = self.pause.is_some_and(|(until, tried)| now < until && !saying.exceeds(&tried));
        // Also where no lease is wanted: the leader counts this member's clock, without which a cluster that was off
        // may not know what time it is.
        if pauses || !(due || saying.exceeds(&self.said)) {
            return None;
        }
        let enforcements = self.enforcements.between(self.said.receipts, enforced, RECEIPTS_MAX);
        let receipts = enforcements.last().map_or(newest, |last| last.generation);
        self.last = self.last.saturating_add(1);
        self.pause = None;
        let said = Said { receipts, ..saying };
        self.under_way = Some(UnderWay { number: self.last, at: now, due, said });
        let renew = due && self.certified;
        Some(Ask { number: self.last, to, enforced, renew, delegates: self.delegates, enforcements })
    }

    /// When [`Self::poll_ask`] may have something to send, after it had nothing; none if only an event can bring that
    /// about.
    pub fn poll_timeout(&self) -> Option<BootMillis> {
        let (Some(_), Some(length), false) = (self.leader, self.length, self.surrendered) else { return None };
        if let Some(asked) = self.under_way {
            return Some(asked.at.plus(self.answer_millis()));
        }
        let due = self.granted.map(|at| at.plus(length.renew_millis()));
        let due = match (self.pause, due) {
            (Some((until, _)), due) => Some(due.map_or(until, |due| due.max(until))),
            (None, due) => due,
        };
        [due, self.lapse].into_iter().flatten().min()
    }

    /// Milliseconds that an answer may take: never so long that one lost message costs the lease.
    fn answer_millis(&self) -> u64 {
        self.length.map_or(ANSWER_MILLIS, |length| length.renew_millis().min(ANSWER_MILLIS))
    }

    /// The moment from which this member serves no client; none without a lease.
    pub const fn lease_end(&self) -> Option<BootMillis> {
        self.holder.deadline()
    }

    /// Whether the lease counts at `now`.
    pub fn holds(&self, now: BootMillis) -> bool {
        self.holder.holds(now)
    }

    /// Whether it was given up for good.
    pub const fn is_surrendered(&self) -> bool {
        self.surrendered
    }

    /// Whether the leader counts another process as this member.
    pub const fn is_replaced(&self) -> bool {
        self.replaced
    }

    /// Leases are delegated from now on, or were by the process before: leaders are told.
    pub const fn handle_delegating(&mut self) {
        self.delegates = true;
    }

    /// The process before delegated leases, which last until `until` at most.
    pub fn handle_forgotten_delegates(&mut self, until: BootMillis) {
        self.handle_delegating();
        self.delegated.after_others(until);
    }

    /// Delegates a lease that ends with this member's own, and names what is enforced here. Returns that generation,
    /// and for how many milliseconds the lease may be counted; 0 for none. None is delegated before the leader of this
    /// term knows of such leases: should this member be evicted, that leader waits for them.
    pub fn delegate(&mut self, to: DelegateId, now: BootMillis) -> (Generation, u64) {
        let known = self.leader.is_some() && self.announced == self.leader;
        let end = self.holder.deadline().filter(|end| known && now < *end);
        let millis = end.map_or(0, |end| self.delegated.grant(to, self.enforced, end, now));
        (self.enforced, millis)
    }

    /// A delegate enforces `generation`.
    pub fn handle_delegate_enforced(&mut self, from: DelegateId, generation: Generation) {
        self.delegated.acknowledge(from, generation);
    }

    /// A delegate has gone, and may count its leases until they end.
    pub fn handle_delegate_gone(&mut self, gone: DelegateId, now: BootMillis) {
        self.delegated.depart(gone, now);
    }
}
