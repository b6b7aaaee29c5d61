//! The leader's side: what members say is handed to the lease manager, a quorum is asked where it says so, and
//! barriers are waited for.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::{BootId, Generation, NodeId, StoreId};
use countersign_core::lease::{
    Action, Answer, LeaseManager, NotLeader, PendingBarrier, PendingGrant, Progress, Request, Roster, VerifiedReceipt,
};
use countersign_core::limits::LEVEL_PROVEN_SECS;
use countersign_core::locked::Locked;
use countersign_core::receipt::{self, Absence, Barrier, Receipt};
use countersign_core::time::{BootMillis, UnixMillis};
use countersign_core::trust::TrustState;
use countersign_core::trust::agreement::Report;
use countersign_core::trust::command::Command;
use countersign_core::trust::outcome::Refused;
use countersign_net::{Clock, SystemClock};
use countersign_raft::{Group, GroupState};
use tokio::sync::watch;
use tokio::time::Instant;

use super::wait::MARGIN;
use crate::boot::boot_now;
use crate::identity::local::Local;
use crate::trust::divergence::{Compared, Divergence};
use crate::trust::machine::SharedState;

/// How long the leader may take to apply what a follower has applied.
const CATCH_UP: Duration = Duration::from_millis(500);
/// How long a barrier waits before it looks again: leadership may be lost without a sign.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What a member says when it asks for a lease.
pub(crate) struct MemberRequest {
    pub(crate) enforced: Generation,
    pub(crate) clock: UnixMillis,
    pub(crate) renew: bool,
    /// Not verified yet.
    pub(crate) receipts: Vec<Receipt>,
    /// It delegates leases.
    pub(crate) delegates: bool,
    /// The store that it speaks for.
    pub(crate) store: StoreId,
    /// The process that asks.
    pub(crate) boot: BootId,
    /// What it says of its state.
    pub(crate) compared: Compared,
}

/// What a leader answers.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    /// How states differ, where that is the answer. None where it cannot be read.
    pub(crate) report: Option<Report>,
}

/// Grants leases while this member leads, and says how far a revocation is in force.
pub struct Granting {
    local: Arc<Local>,
    state: SharedState,
    group: Group,
    divergence: Arc<Divergence>,
    /// Held while the state is read, so that a barrier sees a generation and its grants together.
    manager: Arc<Locked<LeaseManager>>,
    acknowledged: watch::Sender<()>,
}

/// A request that waits for a confirmation, and ends with this value: the member that asked may have gone.
struct Unconfirmed<'a> {
    granting: &'a Granting,
    pending: Option<PendingGrant>,
}

impl Drop for Unconfirmed<'_> {
    fn drop(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.granting.manager.lock().handle_unconfirmed(pending);
        }
    }
}

impl Granting {
    /// `manager` also has the clocks that voters report.
    pub(crate) fn new(
        local: Arc<Local>,
        state: SharedState,
        group: Group,
        divergence: Arc<Divergence>,
        manager: Arc<Locked<LeaseManager>>,
    ) -> Self {
        Self { local, state, group, divergence, manager, acknowledged: watch::Sender::new(()) }
    }

    /// How long a barrier may take: every lease from before it, a change of leader, and some.
    pub(crate) fn barrier_patience(&self) -> Duration {
        let lease = Duration::from_millis(self.state.read().lease().unwrap_or_default().waited_millis());
        lease.saturating_mul(2).saturating_add(MARGIN)
    }

    /// Runs `with` on the lease manager in this term, with the state as it is applied now.
    fn as_leader<T>(&self, with: impl FnOnce(&mut LeaseManager, &TrustState, BootMillis) -> T) -> Result<T, NotLeader> {
        let status = self.group.status();
        if status.state != GroupState::Leader {
            return Err(NotLeader);
        }
        let mut manager = self.manager.lock();
        let (state, now) = (self.state.read(), boot_now());
        manager.handle_term(status.term, state.lease().ok_or(NotLeader)?, now);
        Ok(with(&mut manager, &state, now))
    }

    /// As leader: the command that raises the level of the cluster, once all members have known the next one for long
    /// enough. Learners that have been silent for as long are not waited for.
    pub(crate) fn level_to_raise(&self) -> Option<Command> {
        let millis = LEVEL_PROVEN_SECS.saturating_mul(1000);
        let raise =
            self.as_leader(|manager, state, now| state.level_to_raise(|member| manager.is_silent(member, millis, now)));
        raise.ok().flatten()
    }

    /// As leader: whether a second process of `member` has spoken of late.
    pub fn runs_twice(&self, member: NodeId) -> bool {
        self.manager.lock().runs_twice(member, boot_now())
    }

    /// Takes in what a member says, and grants it a lease if it asks for one.
    pub(crate) async fn serve(&self, from: NodeId, said: MemberRequest) -> Result<Answered, NotLeader> {
        let MemberRequest { enforced, clock, renew, receipts, delegates, store, boot, compared } = said;
        // A follower may have applied what the leader has committed and not applied yet: its receipt for that is no
        // lie.
        let mut applied = self.state.applied();
        let caught_up = applied.wait_for(|generation| *generation >= enforced);
        let _ = tokio::time::timeout(CATCH_UP, caught_up).await;
        let view = self.state.read().view().cloned().ok_or(NotLeader)?;
        let identity = view.members.get(&from).ok_or(NotLeader)?.keys.identity;
        let lacking = self.as_leader(|manager, _, now| {
            manager.counts(from, boot, now).then(|| manager.lacking(from, receipts, view.generation))
        })?;
        let Some(lacking) = lacking else { return Ok(Answered { answer: Answer::Replaced, report: None }) };
        // While nothing is locked. One that does not verify is dropped: receipts are evidence, the acknowledgement
        // counts without.
        let verified = |receipt| VerifiedReceipt::new(receipt, identity).ok();
        let receipts = lacking.into_iter().filter_map(verified).collect();
        let report = self.divergence.compare_states((from, store), &compared);
        let request = Request { from, boot, enforced, clock, renew, delegates, receipts };
        let action = self.as_leader(|manager, state, now| {
            let view = state.view().ok_or(NotLeader)?;
            manager.handle_request(request, view, report.is_none(), now)
        })??;
        self.acknowledged.send_replace(());
        let pending = match action {
            Action::Answer(answer) => return Ok(Answered { answer, report }),
            Action::Confirm(pending) => pending,
        };
        let mut waiting = Unconfirmed { granting: self, pending: Some(pending) };
        // Since the request came: a leader that was deposed in the meantime learns it here.
        self.group.ensure_linearizable().await.map_err(|_| NotLeader)?;
        // Once more: another member may have spoken meanwhile.
        let report = self.divergence.compare_states((from, store), &Compared::default());
        let answer = self.as_leader(|manager, state, now| {
            let pending = waiting.pending.take().ok_or(NotLeader)?;
            manager.handle_confirmed(pending, state.view().ok_or(NotLeader)?, report.is_none(), now)
        })??;
        Ok(Answered { answer, report })
    }

    /// Whether this leader has had no contact with `node` for the length of a lease, so that another store may take
    /// the place of the node's. A node that answers is not replaced by a copy of itself.
    pub(crate) fn check_away(&self, node: NodeId) -> Result<Result<(), Refused>, NotLeader> {
        let answered = self.group.last_contact(node).map(|at| at.elapsed().as_millis());
        let answered = answered.map(|millis| u64::try_from(millis).unwrap_or(u64::MAX));
        let away = |manager: &mut LeaseManager, _: &TrustState, now| {
            manager.term().is_some_and(|term| term.is_away(node, answered, now))
        };
        if self.as_leader(away)? {
            return Ok(Ok(()));
        }
        let view = self.state.read().view().cloned();
        let member = view.as_ref().and_then(|view| view.members.get(&node));
        let alive =
            member.and_then(|m| Some(Refused::Alive { name: m.name.clone(), address: m.addresses.first()?.clone() }));
        Ok(Err(alive.unwrap_or(Refused::NoSuchNode(node))))
    }

    /// Waits until the barrier over `generation` has passed, at most until `deadline`.
    pub(crate) async fn barrier(&self, generation: Generation, deadline: Instant) -> Result<Barrier, NotLeader> {
        let mut acknowledged = self.acknowledged.subscribe();
        let mut barrier = PendingBarrier::new(generation);
        loop {
            acknowledged.mark_unchanged();
            let progress = self.as_leader(|manager, state, now| {
                let roster = Roster::of(state, generation)?;
                Some(manager.term()?.progress(&mut barrier, &roster, now))
            })?;
            let progress = progress.unwrap_or_default();
            if progress.passed || Instant::now() >= deadline {
                return Ok(self.report(generation, progress));
            }
            let lapse = progress.wake.map_or(LOOK_AGAIN, |end| Duration::from_millis(end.since(boot_now()).max(1)));
            let again = deadline.min(Instant::now() + lapse.min(LOOK_AGAIN));
            // why: a lease runs out by the passing of time alone
            let wake = tokio::time::sleep_until(again);
            tokio::select! {
                _ = acknowledged.changed() => {}
                () = wake => {}
            }
        }
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
            (member, receipt::Answer::Absent(unsigned.signed(&self.local.keys.identity)))
        };
        let enforced = progress.enforced.into_iter();
        let enforced = enforced.map(|(member, receipt)| (member, receipt::Answer::Enforced(receipt)));
        let answers = enforced.chain(progress.absent.into_iter().map(absent)).collect();
        Barrier { generation, passed: progress.passed, answers }
    }
}
