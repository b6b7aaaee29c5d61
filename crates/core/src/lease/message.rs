//! What a member and its leader say to each other about leases, as values. How it travels is not decided here.

use crate::id::{BootId, Generation, NodeId};
use crate::time::UnixMillis;

use super::enforcements::Enforcement;
use super::receipts::VerifiedReceipt;

/// A leader in one term: another term of the same leader knows nothing of what was said in this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Leader {
    /// The member that leads.
    pub node: NodeId,
    /// Its term.
    pub term: u64,
}

/// What a member is to send to its leader now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Names this request in its answer. No two requests of one process have the same number.
    pub number: u64,
    /// The leader to send it to.
    pub to: Leader,
    /// The generation that this member enforces, with everything that it delegated leases to.
    pub enforced: Generation,
    /// Whether it wants a lease; if not, it only reports.
    pub renew: bool,
    /// Whether it delegates leases, or may.
    pub delegates: bool,
    /// Revocations that it enforces, to be signed as receipts; the oldest first.
    pub enforcements: Vec<Enforcement>,
}

/// A member's request, as its leader takes it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The member that asks.
    pub from: NodeId,
    /// Its process.
    pub boot: BootId,
    /// The generation that it enforces.
    pub enforced: Generation,
    /// What its clock shows.
    pub clock: UnixMillis,
    /// Whether it asks for a lease, and may have one by its certificate.
    pub renew: bool,
    /// Whether it delegates leases, or may.
    pub delegates: bool,
    /// Its receipts.
    pub receipts: Vec<VerifiedReceipt>,
}

/// A leader's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A lease that names this generation. It is counted from before it was asked for.
    Granted(Generation),
    /// The leader has heard, and grants nothing.
    Heard,
    /// No lease: another process of the member counts.
    Replaced,
    /// No lease: states differ.
    Differs,
}
