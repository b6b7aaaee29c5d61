//! What one leader knows in one term. A new term begins with nothing but the moment of its election.

use std::collections::BTreeSet;

use super::LeaseLength;
use super::grantor::{Grantor, Standing};
use super::receipts::{Receipts, VerifiedReceipt};
use crate::id::{Generation, NodeId};
use crate::receipt::Receipt;
use crate::time::BootMillis;

/// The leases that a leader granted in one term, and what the members said to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TermState {
    term: u64,
    length: LeaseLength,
    grantor: Grantor,
    receipts: Receipts,
    /// The members that delegate leases. Each says so before its first.
    delegating: BTreeSet<NodeId>,
    /// The members whose requests wait for a confirmation: one of each, since each asks a quorum.
    unconfirmed: BTreeSet<NodeId>,
}

impl TermState {
    /// Of a leader that was elected when its clock read `elected`, or before that.
    pub fn new(term: u64, length: LeaseLength, elected: BootMillis) -> Self {
        Self {
            term,
            length,
            grantor: Grantor::new(elected, length),
            receipts: Receipts::default(),
            delegating: BTreeSet::new(),
            unconfirmed: BTreeSet::new(),
        }
    }

    /// The term.
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// How long its leases last.
    pub const fn length(&self) -> LeaseLength {
        self.length
    }

    /// A member says that it enforces `generation`.
    pub fn acknowledge(&mut self, from: NodeId, generation: Generation) {
        self.grantor.acknowledge(from, generation);
    }

    /// A member says that it delegates leases.
    pub fn delegating(&mut self, from: NodeId) {
        self.delegating.insert(from);
    }

    /// A member gave a receipt.
    pub fn received(&mut self, receipt: VerifiedReceipt) {
        self.receipts.enter(receipt);
    }

    /// Records a lease that names `newest`, as [`Grantor::grant`] does: in one step with reading it, and before the
    /// answer.
    pub fn grant(&mut self, to: NodeId, newest: Generation, now: BootMillis) {
        self.grantor.grant(to, newest, now);
    }

    /// How far `member` is with `generation`, at `now`.
    pub fn standing(&self, member: NodeId, generation: Generation, now: BootMillis) -> Standing {
        self.grantor.standing(member, generation, now)
    }

    /// When the last lease that `member` may hold from before `generation` ends.
    pub fn lease_end(&self, member: NodeId, generation: Generation) -> BootMillis {
        self.grantor.lease_end(member, generation)
    }

    /// Whether a receipt is worth verifying: the member `from` gives it for itself, none is kept in its place, and its
    /// generation is at most `newest`. One of a generation to come would push real ones out.
    pub fn lacks(&self, from: NodeId, receipt: &Receipt, newest: Generation) -> bool {
        self.receipts.lack(from, receipt, newest)
    }

    /// The receipt that `member` gave for this generation.
    pub fn receipt(&self, generation: Generation, member: NodeId) -> Option<&Receipt> {
        self.receipts.get(generation, member)
    }

    /// Whether this leader has granted `member` a lease that it remembers.
    pub fn was_granted(&self, member: NodeId) -> bool {
        self.grantor.was_granted(member)
    }

    /// Whether `member` has said that it delegates leases.
    pub fn delegates(&self, member: NodeId) -> bool {
        self.delegating.contains(&member)
    }

    /// Whether this leader has had no contact with `member` for the length of a lease; see [`Grantor::is_away`].
    pub fn is_away(&self, member: NodeId, answered: Option<u64>, now: BootMillis) -> bool {
        self.grantor.is_away(member, answered, now)
    }

    /// Whether `member` has held no lease of this leader for `millis`; see [`Grantor::is_silent`].
    pub fn is_silent(&self, member: NodeId, millis: u64, now: BootMillis) -> bool {
        self.grantor.is_silent(member, millis, now)
    }

    /// Forgets a member, as [`Grantor::forget`] does.
    pub fn forget(&mut self, member: NodeId) {
        self.grantor.forget(member);
    }

    /// A request of `from` begins to wait for a confirmation. False if another one of it waits.
    pub(super) fn wait(&mut self, from: NodeId) -> bool {
        self.unconfirmed.insert(from)
    }

    /// The request of `from` does not wait any more.
    pub(super) fn proceed(&mut self, from: NodeId) {
        self.unconfirmed.remove(&from);
    }
}
