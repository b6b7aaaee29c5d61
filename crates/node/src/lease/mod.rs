//! The leases of this member: it drives the lease machines of `countersign-core` and decides nothing about a lease.
//!
//! This file keeps the member's own lease: the lease keeper says when to ask and what, and the task here asks.
//! `granting` is the leader's side, `delegated` has the leases of remote guards, `wait` waits for barriers. A lease is
//! counted by the clock that no suspend stops.

mod delegated;
mod enforced;
mod granting;
mod request;
mod wait;

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::NodeId;
use countersign_core::lease::{Answer, Ask, Fresh, Leader, LeaseClock, LeaseKeeper, NoLease};
use countersign_core::locked::Locked;
use countersign_core::time::BootMillis;
use countersign_raft::{Group, GroupStatus};

use crate::boot::boot_now;
use crate::identity::keys::{KeysError, random};
use crate::identity::local::Local;
use crate::peers::Peers;
use crate::time::ClusterTime;
use crate::trust::divergence::Divergence;
use crate::trust::gate::Gate;
use crate::trust::machine::SharedState;
use crate::trust::stores::Stores;
pub(crate) use countersign_core::lease::NotLeader;
pub use delegated::DelegatedLeases;
pub(crate) use delegated::Place;
pub(crate) use enforced::Enforced;
pub use granting::Granting;
pub(crate) use granting::{Answered, MemberRequest};
pub use wait::Barriers;

/// How long to wait before looking for a leader again.
const RETRY: Duration = Duration::from_millis(200);

/// What this member knows of its own lease.
pub struct Leasehold {
    keeper: Arc<Locked<LeaseKeeper>>,
    clock: Arc<LeaseClock>,
    gate: Arc<Gate>,
    pub(crate) book: Arc<Enforced>,
    /// Leases that this member delegates.
    pub delegated: DelegatedLeases,
}

impl Leasehold {
    /// Begins without a lease, as every start does. When it lapses, nothing is believed beyond `gate`.
    pub(crate) fn new(gate: Arc<Gate>, delegated: DelegatedLeases) -> Result<Self, KeysError> {
        let (boot, keeper) = (*random::<16>()?.expose(), delegated.keeper());
        let clock = Arc::clone(keeper.lock().clock());
        let book = Arc::new(Enforced::new(boot, Arc::clone(&keeper)));
        Ok(Self { keeper, clock, gate, book, delegated })
    }

    fn update<T>(&self, with: impl FnOnce(&mut LeaseKeeper) -> T) -> T {
        let mut keeper = self.keeper.lock();
        let result = with(&mut keeper);
        if let Some(end) = keeper.lease_end() {
            self.gate.leased(end);
        }
        result
    }

    /// Gives the lease up for good: this member learned that it is out. Nothing that a leader grants counts from now
    /// on.
    pub(crate) fn surrender(&self) {
        self.update(LeaseKeeper::surrender);
    }

    /// Whether the leader counts another process as this member.
    pub fn is_replaced(&self) -> bool {
        self.keeper.lock().is_replaced()
    }

    /// Whether it was given up for good.
    fn is_surrendered(&self) -> bool {
        self.keeper.lock().is_surrendered()
    }

    /// Proof, by one reading of the clock, that this member has heard lately what is revoked.
    ///
    /// # Errors
    /// There is no lease now.
    pub fn fresh(&self) -> Result<Fresh<'_>, NoLease> {
        self.clock.fresh(boot_now())
    }

    /// The end of the lease, for whatever decides by it.
    pub(crate) fn clock(&self) -> Arc<LeaseClock> {
        Arc::clone(&self.clock)
    }

    /// The moment at which the lease ends or ended; none if there was none.
    pub(crate) fn deadline(&self) -> Option<BootMillis> {
        self.keeper.lock().lease_end()
    }

    /// When the lease ends, in milliseconds from now; none without one.
    pub fn millis_left(&self) -> Option<u64> {
        self.deadline().map(|end| end.since(boot_now())).filter(|left| *left > 0)
    }
}

/// A request under way, with the number and the leader that it has.
type UnderWay = Pin<Box<dyn Future<Output = (u64, NodeId, Option<Answered>)> + Send>>;

/// The answer to the request under way; never returns if there is none.
async fn answer_to(under_way: &mut Option<UnderWay>) -> (u64, NodeId, Option<Answered>) {
    match under_way {
        Some(request) => request.await,
        None => pending().await,
    }
}

fn leader_of(status: &GroupStatus) -> Option<Leader> {
    status.leader.map(|node| Leader { node, term: status.term })
}

/// The task that keeps this member's lease alive and its leader informed.
pub(crate) struct LeaseKeeping {
    pub(crate) local: Arc<Local>,
    pub(crate) state: SharedState,
    pub(crate) group: Group,
    pub(crate) peers: Peers,
    pub(crate) lease: Arc<Leasehold>,
    pub(crate) granting: Arc<Granting>,
    pub(crate) time: Arc<ClusterTime>,
    pub(crate) stores: Arc<Stores>,
    pub(crate) divergence: Arc<Divergence>,
}

impl LeaseKeeping {
    /// Runs until the member stops, or has given its lease up for good.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut applied = self.state.applied();
        let mut status = self.group.watch();
        let mut acknowledged = self.lease.delegated.acknowledged();
        let mut under_way: Option<UnderWay> = None;
        while !self.lease.is_surrendered() {
            applied.mark_unchanged();
            acknowledged.mark_unchanged();
            let leader = leader_of(&self.group.status());
            let (ask, due) = self.poll_lease(leader);
            if let Some(ask) = ask {
                // It takes the place of one that the keeper waits for no longer.
                under_way = Some(Box::pin(Arc::clone(&self).asked_for_lease(ask)));
                continue;
            }
            // why: a lease runs out by the passing of time alone, and a lost message leaves nothing to wait for
            let due = tokio::time::sleep(due);
            tokio::select! {
                (number, leader, answered) = answer_to(&mut under_way) => {
                    under_way = None;
                    self.take_answer(number, leader, answered);
                }
                _ = applied.changed() => {}
                _ = acknowledged.changed() => {}
                _ = status.wait_for(|status| leader_of(status) != leader) => {}
                () = due => {}
            }
        }
    }

    /// Tells the keeper how things are. Returns what to send, and when to come again.
    fn poll_lease(&self, leader: Option<Leader>) -> (Option<Ask>, Duration) {
        let (enforced, length) = (*self.state.applied().borrow(), self.state.read().lease());
        // No member serves without a certificate, not even the leader.
        let certified = !self.local.leaf_expired();
        let (ask, due, now) = self.lease.update(|keeper| {
            keeper.handle_enforced(enforced);
            keeper.handle_leader(leader);
            if let Some(length) = length {
                keeper.handle_length(length);
            }
            keeper.handle_certificate(certified);
            let now = boot_now();
            (keeper.poll_ask(now), keeper.poll_timeout(), now)
        });
        (ask, due.map_or(RETRY, |due| Duration::from_millis(due.since(now).max(1))))
    }

    /// Hands the answer to the keeper, and notes what an operator is to know.
    fn take_answer(&self, number: u64, leader: NodeId, answered: Option<Answered>) {
        let right = self.time.is_right();
        let Some(Answered { answer, report }) = answered else {
            self.lease.update(|keeper| keeper.handle_failure(number, boot_now()));
            return;
        };
        let (counts, news) = self.lease.update(|keeper| {
            let before = keeper.is_replaced();
            keeper.handle_clock(right);
            (keeper.handle_answer(number, answer, boot_now()), keeper.is_replaced() && !before)
        });
        if news {
            tracing::error!("another process runs with this node's keys and store, and the leader counts that one");
        }
        if !counts || leader == self.local.node {
            return;
        }
        match answer {
            Answer::Granted(_) => self.divergence.states_agree(),
            Answer::Differs => self.divergence.states_differ(report),
            Answer::Heard | Answer::Replaced => {}
        }
    }
}
