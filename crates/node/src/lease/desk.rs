//! The leader's desk: leases granted, acknowledgements and clocks taken in, and barriers waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::{BootId, Generation, NodeId, StoreId};
use countersign_core::lease::{Grantor, Processes, Standing};
use countersign_core::locked::{LockGuard, Locked, Order};
use countersign_core::receipt::{Absence, Answer, Barrier, Receipt};
use countersign_core::time::{BootMillis, UnixMillis};
use countersign_core::trust::agreement::Report;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::Refused;
use countersign_net::{Clock, SystemClock};
use countersign_raft::{Group, GroupState};
use tokio::sync::watch;
use tokio::time::Instant;

use super::wait::MARGIN;
use crate::boot::boot_now;
use crate::identity::local::Local;
use crate::time::ClusterTime;
use crate::trust::divergence::{Compared, Divergence};
use crate::trust::machine::SharedState;

/// Revocations whose receipts the leader keeps.
const RECEIPTS_MAX: usize = 1024;
/// How long the leader may take to apply what a follower has applied.
const CATCH_UP: Duration = Duration::from_millis(500);

/// This member does not lead, or no quorum confirmed that it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the leader")]
pub(crate) struct NotLeader;

/// What a member says when it asks for a lease.
pub(crate) struct Ask {
    pub(crate) enforced: Generation,
    pub(crate) clock: UnixMillis,
    pub(crate) renew: bool,
    pub(crate) receipts: Vec<Receipt>,
    /// It gives leases out of its own.
    pub(crate) subtenants: bool,
    /// The store that it speaks for.
    pub(crate) store: StoreId,
    /// The process that asks.
    pub(crate) boot: BootId,
    /// What it says of its state.
    pub(crate) compared: Compared,
}

/// What a leader answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answered {
    /// Heard, and no lease was asked for or may be granted.
    Heard,
    /// A lease.
    Granted(Grant),
    /// No lease, since another process of the member counts.
    Replaced,
    /// No lease, since states differ. No report where it cannot be read.
    Differs(Option<Report>),
}

/// A lease, to be counted from before it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) generation: Generation,
}

/// One term of leadership. A new one begins with nothing but the moment of its election.
struct Tenure {
    term: u64,
    grantor: Grantor,
    receipts: BTreeMap<Generation, BTreeMap<NodeId, Receipt>>,
    /// Who gives leases out of its own. Whoever does says so before the first.
    sublessors: BTreeSet<NodeId>,
}

impl Tenure {
    /// For which revocations a receipt of `member` is here.
    fn held(&self, member: NodeId) -> BTreeSet<Generation> {
        self.receipts.iter().filter(|(_, by)| by.contains_key(&member)).map(|(generation, _)| *generation).collect()
    }
}

/// How far the members are with a revocation, before anything is signed.
struct Progress {
    passed: bool,
    enforced: BTreeMap<NodeId, Option<Receipt>>,
    /// Who has not answered, and when its lease ends.
    absent: BTreeMap<NodeId, BootMillis>,
}

/// What this member knows of leases as leader.
struct Desk {
    /// Held while the state is read, so that a barrier sees a generation and its grants together.
    tenure: Locked<Option<Tenure>>,
    acknowledged: watch::Sender<()>,
    /// Which process of each member counts. It outlives a term, as the clocks do.
    processes: Locked<Processes>,
    /// Whose request for a lease is under way: one of each, since each asks a quorum.
    asking: Locked<BTreeSet<NodeId>>,
}

/// A member's request for a lease, under way until it is dropped.
struct Asking<'a>(&'a Desk, NodeId);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asking.lock().remove(&self.1);
    }
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            tenure: Locked::of(Order::Outer, None),
            processes: Locked::default(),
            acknowledged: watch::Sender::new(()),
            asking: Locked::default(),
        }
    }
}

impl Desk {
    fn lock(&self) -> LockGuard<'_, Option<Tenure>> {
        self.tenure.lock()
    }

    /// Enters a request for a lease; none if one of the same member is under way.
    fn enter(&self, from: NodeId) -> Option<Asking<'_>> {
        let mut asking = self.asking.lock();
        // Made only where it has a place: one that is made and dropped would give another's up, under the lock that it needs.
        asking.insert(from).then(|| Asking(self, from))
    }
}

/// Grants leases while this member leads, and says how far a revocation is in force.
pub struct LeaseManager {
    local: Arc<Local>,
    state: SharedState,
    group: Group,
    time: Arc<ClusterTime>,
    divergence: Arc<Divergence>,
    desk: Desk,
}

impl LeaseManager {
    pub(crate) fn new(
        local: Arc<Local>,
        state: SharedState,
        group: Group,
        time: Arc<ClusterTime>,
        divergence: Arc<Divergence>,
    ) -> Self {
        Self { local, state, group, time, divergence, desk: Desk::default() }
    }

    /// Runs `with` on this term's tenure. Reading the newest generation and recording a grant that names it happen in here,
    /// so that a barrier sees both or neither.
    fn tenure<T>(&self, with: impl FnOnce(&mut Tenure) -> T) -> Result<T, NotLeader> {
        let status = self.group.status();
        if status.state != GroupState::Leader {
            return Err(NotLeader);
        }
        let mut tenure = self.desk.lock();
        let tenure = match &mut *tenure {
            Some(tenure) if tenure.term == status.term => tenure,
            tenure => {
                let grantor = Grantor::new(boot_now(), self.state.read().lease().ok_or(NotLeader)?);
                tenure.insert(Tenure {
                    term: status.term,
                    grantor,
                    receipts: BTreeMap::new(),
                    sublessors: BTreeSet::new(),
                })
            }
        };
        Ok(with(tenure))
    }

    /// How long a barrier may take: every lease from before it, a change of leader, and some.
    pub(crate) fn barrier_patience(&self) -> Duration {
        let lease = Duration::from_millis(self.state.read().lease().unwrap_or_default().waited_millis());
        lease.saturating_mul(2).saturating_add(MARGIN)
    }

    /// Members that have held no lease of this leader for `secs`.
    pub(crate) fn silent_members(&self, secs: u64) -> BTreeSet<NodeId> {
        let (state, now) = (self.state.read(), boot_now());
        let members = state.view().into_iter().flat_map(|view| view.members.keys().copied());
        let silent = |tenure: &mut Tenure| {
            members.filter(|node| tenure.grantor.is_silent(*node, secs.saturating_mul(1000), now)).collect()
        };
        self.tenure(silent).unwrap_or_default()
    }

    /// Whether another process than `boot` counts as that of `member`.
    fn is_replaced(&self, member: NodeId, boot: BootId) -> bool {
        let state = self.state.read();
        let (Some(view), Some(length)) = (state.view(), state.lease()) else { return false };
        let mut processes = self.desk.processes.lock();
        processes.keep(|node| view.members.contains_key(&node));
        view.members.contains_key(&member) && !processes.counts(member, boot, length, boot_now())
    }

    /// As leader: whether a second process of `member` has spoken of late.
    pub fn runs_twice(&self, member: NodeId) -> bool {
        let Some(length) = self.state.read().lease() else { return false };
        self.desk.processes.lock().are_two(member, length, boot_now())
    }

    /// Takes in what a member says, and grants it a lease if it asks for one.
    pub(crate) async fn serve(&self, from: NodeId, ask: Ask) -> Result<Answered, NotLeader> {
        if self.is_replaced(from, ask.boot) {
            return Ok(Answered::Replaced);
        }
        // A follower may have applied what the leader has committed and not applied yet: its receipt for that is no lie.
        let mut applied = self.state.applied();
        let caught_up = applied.wait_for(|generation| *generation >= ask.enforced);
        let _ = tokio::time::timeout(CATCH_UP, caught_up).await;
        let known = {
            let state = self.state.read();
            state.view().and_then(|view| Some((view.members.get(&from)?.keys.identity, view.generation)))
        };
        let Some((identity, newest)) = known else { return Err(NotLeader) };
        let news = |receipt: &Receipt| {
            // Of nothing that has not been: it would push real ones out.
            receipt.member == from && receipt.generation <= newest
        };
        let held = self.tenure(|tenure| tenure.held(from))?;
        let fresh = ask.receipts.into_iter().filter(|r| news(r) && !held.contains(&r.generation));
        // Before the desk is locked. One that does not verify is dropped: receipts are evidence, the acknowledgement counts
        // without.
        let receipts: Vec<Receipt> = fresh.filter(|receipt| receipt.verify(identity).is_ok()).collect();
        self.tenure(|tenure| {
            for receipt in receipts {
                tenure.receipts.entry(receipt.generation).or_default().insert(from, receipt);
            }
            while tenure.receipts.len() > RECEIPTS_MAX {
                tenure.receipts.pop_first();
            }
            tenure.grantor.acknowledge(from, ask.enforced);
            if ask.subtenants {
                tenure.sublessors.insert(from);
            }
        })?;
        self.time.report(from, ask.clock);
        self.desk.acknowledged.send_replace(());
        if let Some(report) = self.divergence.compare_states((from, ask.store), &ask.compared) {
            return Ok(Answered::Differs(Some(report)));
        }
        let asking = ask.renew.then(|| self.desk.enter(from)).flatten();
        let Some(_under_way) = asking else { return Ok(Answered::Heard) };
        // Since the request came: a leader that was deposed in the meantime learns it here.
        self.group.ensure_linearizable().await.map_err(|_| NotLeader)?;
        // Once more: another member may have spoken meanwhile.
        if let Some(report) = self.divergence.compare_states((from, ask.store), &Compared::default()) {
            return Ok(Answered::Differs(Some(report)));
        }
        self.tenure(|tenure| {
            let state = self.state.read();
            let view = state.view().filter(|view| view.members.contains_key(&from)).ok_or(NotLeader)?;
            tenure.grantor.grant(from, view.generation, boot_now());
            Ok(Answered::Granted(Grant { generation: view.generation }))
        })?
    }

    /// Whether this leader has had no contact with `node` for the length of a lease, so that another store may take the place
    /// of the node's. A node that answers is not replaced by a copy of itself.
    pub(crate) fn check_away(&self, node: NodeId) -> Result<Result<(), Refused>, NotLeader> {
        let answered = self.group.last_contact(node).map(|at| at.elapsed().as_millis());
        let answered = answered.map(|millis| u64::try_from(millis).unwrap_or(u64::MAX));
        if self.tenure(|tenure| tenure.grantor.is_away(node, answered, boot_now()))? {
            return Ok(Ok(()));
        }
        let view = self.state.read().view().cloned();
        let member = view.as_ref().and_then(|view| view.members.get(&node));
        let alive =
            member.and_then(|m| Some(Refused::Alive { name: m.name.clone(), address: m.addresses.first()?.clone() }));
        Ok(Err(alive.unwrap_or(Refused::NoSuchNode(node))))
    }

    /// Waits until every member enforces `generation` or has no lease from before it, at most until `deadline`. Of the
    /// voters a majority must enforce it, so that it is known wherever a cluster forms again.
    pub(crate) async fn barrier(&self, generation: Generation, deadline: Instant) -> Result<Barrier, NotLeader> {
        let mut acknowledged = self.desk.acknowledged.subscribe();
        // Whoever enforces this generation knows that enough voters have signed what became of the cluster.
        let mut stated = None;
        loop {
            acknowledged.mark_unchanged();
            let (progress, wake) = self.tenure(|tenure| self.look(tenure, generation, &mut stated))?;
            if progress.passed || Instant::now() >= deadline {
                return Ok(self.report(generation, progress));
            }
            // why: a lease runs out by the passing of time alone
            let lapse = tokio::time::sleep_until(deadline.min(Instant::now() + wake));
            tokio::select! {
                _ = acknowledged.changed() => {}
                () = lapse => {}
            }
        }
    }

    /// How far the members are, and when to look again.
    fn look(&self, tenure: &Tenure, generation: Generation, stated: &mut Option<Generation>) -> (Progress, Duration) {
        /// Leadership may be lost without a sign.
        const LOOK_AGAIN: Duration = Duration::from_secs(1);
        let now = boot_now();
        let state = self.state.read();
        let mut progress = Progress { passed: false, enforced: BTreeMap::new(), absent: BTreeMap::new() };
        let Some(view) = state.view() else { return (progress, LOOK_AGAIN) };
        if stated.is_none() && state.is_stated(generation) {
            *stated = Some(view.generation);
        }
        let enforced = stated.unwrap_or(generation);
        let recent = state.lease().unwrap_or_default().waited_millis().saturating_mul(2) / 1000;
        let receipts = tenure.receipts.get(&generation);
        let (mut open, mut enforcing, mut voters, mut wake) = (0_usize, 0_usize, 0_usize, LOOK_AGAIN);
        for member in view.members.values() {
            let votes = usize::from(member.suffrage == Suffrage::Voter);
            voters += votes;
            match tenure.grantor.standing(member.id, enforced, now) {
                Standing::Enforced => {
                    enforcing += votes;
                    let receipt = receipts.and_then(|by| by.get(&member.id)).cloned();
                    progress.enforced.insert(member.id, receipt);
                }
                Standing::Until(until) => {
                    open += 1;
                    wake = wake.min(Duration::from_millis(until.since(now).max(1)));
                    progress.absent.insert(member.id, until);
                }
                Standing::Lapsed => {
                    progress.absent.insert(member.id, tenure.grantor.lease_end(member.id, enforced));
                }
            }
        }
        for (gone, evicted) in &view.evicted {
            let Standing::Until(until) = tenure.grantor.standing(*gone, enforced, now) else { continue };
            // Those outside whom it gave leases keep to them, though it may not. A leader that has never heard of it cannot
            // know whether there are any, and has heard of whoever was a member for long enough since it was elected.
            let unheard = !tenure.grantor.was_granted(*gone) && state.time().secs_since(evicted.at) <= recent;
            if tenure.sublessors.contains(gone) || unheard || evicted.generation > generation {
                // Or it was a member when this was revoked, and may serve by its lease whom it does not know to be revoked.
                open += 1;
                wake = wake.min(Duration::from_millis(until.since(now).max(1)));
                progress.absent.insert(*gone, until);
            } else if tenure.grantor.was_granted(*gone) {
                // Whoever was evicted may serve for as long as its own lease lasts, if it keeps to leases at all. That is said,
                // and not waited for: it is no member any more, and no member lets it in.
                progress.absent.insert(*gone, until);
            }
        }
        progress.passed = open == 0 && enforcing > voters / 2 && stated.is_some();
        (progress, wake)
    }

    /// The report on a barrier; absences are signed here, once.
    fn report(&self, generation: Generation, progress: Progress) -> Barrier {
        let (now, clock): (_, UnixMillis) = (boot_now(), SystemClock.now());
        let (cluster, leader) = (self.local.view().cluster, self.local.node);
        let absent = |(member, until): (NodeId, BootMillis)| {
            let left = until.since(now);
            let ends = if left > 0 { clock.0.saturating_add(left) } else { clock.0.saturating_sub(now.since(until)) };
            let unsigned =
                Absence { cluster, generation, member, leader, lease_ends: UnixMillis(ends), signature: [0; 64] };
            (member, Answer::Absent(unsigned.signed(&self.local.keys.identity)))
        };
        let enforced = progress.enforced.into_iter().map(|(member, receipt)| (member, Answer::Enforced(receipt)));
        let answers = enforced.chain(progress.absent.into_iter().map(absent)).collect();
        Barrier { generation, passed: progress.passed, answers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_asks_for_one_lease_at_a_time_and_its_second_request_takes_nothing_from_the_first() {
        let desk = Desk::default();
        let (one, other) = (NodeId(1), NodeId(2));
        let first = desk.enter(one).unwrap();
        assert!(desk.enter(one).is_none() && desk.enter(other).is_some());
        assert!(desk.enter(one).is_none(), "the one that was turned away gave up no place");
        drop(first);
        assert!(desk.enter(one).is_some());
    }
}
