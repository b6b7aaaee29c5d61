//! The leader's side of leases: requests come in, wait until a quorum has confirmed the leader since, and are granted
//! at the newest generation that it has applied.
//!
//! It decides and waits for nothing: its user asks the quorum, and hands each [`PendingGrant`] back. It must never
//! grant a lease for a request that no quorum confirmed after it had come.

use super::LeaseLength;
use super::message::{Answer, Request};
use super::processes::Processes;
use super::term::TermState;
use crate::id::{BootId, Generation, NodeId};
use crate::receipt::Receipt;
use crate::time::BootMillis;
use crate::trust::clocks::VoterClocks;
use crate::trust::view::View;

/// This member does not lead in the term of the request, or the sender is no member by its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the leader")]
pub struct NotLeader;

/// A request for a lease that waits until a quorum has confirmed the leader. To be handed back to its manager,
/// confirmed or not: until then no other request of that member is granted in this term.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "no other request of the member is granted until it is handed back"]
pub struct PendingGrant {
    from: NodeId,
    term: u64,
}

impl PendingGrant {
    /// The member that asks.
    pub const fn from(&self) -> NodeId {
        self.from
    }
}

/// What to do about a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer it.
    Answer(Answer),
    /// Have a quorum confirm that this member still leads, and hand the request back.
    Confirm(PendingGrant),
}

/// What a member knows as leader.
#[derive(Debug, Default)]
pub struct LeaseManager {
    term: Option<TermState>,
    /// Voters' clocks outlive a term: they are readings, not promises.
    clocks: VoterClocks,
    /// Which process of each member counts. It outlives a term, as the clocks do.
    processes: Processes,
}

impl LeaseManager {
    /// This member leads in `term`, and was elected at `now` or before. Changes nothing within a term, and no term
    /// begins again that is over.
    pub fn handle_term(&mut self, term: u64, length: LeaseLength, now: BootMillis) {
        if self.term.as_ref().is_none_or(|state| state.term() < term) {
            self.term = Some(TermState::new(term, length, now));
        }
    }

    /// What is known in the newest term that this member has led; none before its first.
    pub const fn term(&self) -> Option<&TermState> {
        self.term.as_ref()
    }

    /// Voters' clocks as they were reported.
    pub const fn clocks(&self) -> &VoterClocks {
        &self.clocks
    }

    /// Whether `boot` is the process of `from` that counts, at `now`. What another process says is not even compared.
    pub fn counts(&mut self, from: NodeId, boot: BootId, now: BootMillis) -> bool {
        self.term.as_ref().is_some_and(|term| self.processes.counts(from, boot, term.length(), now))
    }

    /// Those of the receipts of `from` that are worth verifying, `newest` being the newest generation applied here.
    pub fn lacking(&self, from: NodeId, receipts: Vec<Receipt>, newest: Generation) -> Vec<Receipt> {
        let Some(term) = &self.term else { return Vec::new() };
        receipts.into_iter().filter(|receipt| term.lacks(from, receipt, newest)).collect()
    }

    /// Takes in what a member says at `now`, and finds out whether it may be granted a lease. `agrees`: its state is
    /// not known to differ, and no voters' states differ.
    ///
    /// Errors: [`NotLeader`] where this member has never led, or its view has no such member.
    pub fn handle_request(
        &mut self,
        request: Request,
        view: &View,
        agrees: bool,
        now: BootMillis,
    ) -> Result<Action, NotLeader> {
        let Request { from, boot, enforced, clock, renew, delegates, receipts } = request;
        if self.term.is_none() || !view.members.contains_key(&from) {
            return Err(NotLeader);
        }
        self.processes.keep(view.members.len(), |node| view.members.contains_key(&node));
        if !self.counts(from, boot, now) {
            return Ok(Action::Answer(Answer::Replaced));
        }
        let term = self.term.as_mut().ok_or(NotLeader)?;
        for receipt in receipts {
            if term.lacks(from, receipt.get(), view.generation) {
                term.received(receipt);
            }
        }
        term.acknowledge(from, enforced);
        if delegates {
            term.delegating(from);
        }
        self.clocks.report(from, clock, now);
        if !agrees {
            return Ok(Action::Answer(Answer::Differs));
        }
        if !renew || !term.wait(from) {
            return Ok(Action::Answer(Answer::Heard));
        }
        Ok(Action::Confirm(PendingGrant { from, term: term.term() }))
    }

    /// Grants a lease at `now`: a quorum has confirmed this leader since the request came, and `view` includes
    /// everything that was committed before. The caller reads `view` and calls this in one step, so that a barrier
    /// sees a generation and the leases that name an earlier one together.
    ///
    /// Errors: [`NotLeader`] where another term has begun, or the view has no such member any more.
    pub fn handle_confirmed(
        &mut self,
        pending: PendingGrant,
        view: &View,
        agrees: bool,
        now: BootMillis,
    ) -> Result<Answer, NotLeader> {
        let PendingGrant { from, term } = pending;
        let term = self.term.as_mut().filter(|state| state.term() == term).ok_or(NotLeader)?;
        term.proceed(from);
        if !agrees {
            return Ok(Answer::Differs);
        }
        if !view.members.contains_key(&from) {
            return Err(NotLeader);
        }
        term.grant(from, view.generation, now);
        Ok(Answer::Granted(view.generation))
    }

    /// No quorum confirmed this leader, or the request ended before.
    pub fn handle_unconfirmed(&mut self, pending: PendingGrant) {
        let PendingGrant { from, term } = pending;
        if let Some(term) = self.term.as_mut().filter(|state| state.term() == term) {
            term.proceed(from);
        }
    }

    /// Whether `member` has held no lease of this leader for `millis`.
    pub fn is_silent(&self, member: NodeId, millis: u64, now: BootMillis) -> bool {
        self.term.as_ref().is_some_and(|term| term.is_silent(member, millis, now))
    }

    /// Whether a second process of `member` has spoken of late.
    pub fn runs_twice(&self, member: NodeId, now: BootMillis) -> bool {
        self.term.as_ref().is_some_and(|term| self.processes.are_two(member, term.length(), now))
    }
}
