//! The member's certificate: when the member says that it uses it, and when it has the next one issued.
//!
//! It is told which certificate is in use and what the cluster has on record, and answers what to do and when to come
//! again. It must never renew a certificate that the cluster does not know to be in use, or let a clock that is far
//! ahead renew without a pause.

use crate::id::{KeyId, NodeId};
use crate::limits::SKEW_SECS;
use crate::time::{BootMillis, UnixMillis, Validity};
use crate::trust::clocks::Anchor;
use crate::trust::command::AdoptLeaf;
use crate::trust::member::{Leaf, Member};
use crate::trust::view::View;

/// Milliseconds after which it looks again at the latest: the wall clock may be set in between.
const LOOK_AGAIN_MILLIS: u64 = 30_000;
/// Milliseconds before it looks again for a certificate that is not on record: the view is behind, or the member is
/// evicted.
const UNRECORDED_MILLIS: u64 = 1_000;
/// Milliseconds before it says again that it uses its certificate, where the cluster was not told.
const ADOPT_AGAIN_MILLIS: u64 = 1_000;
/// Seconds from a change of the hosts to the renewal, so that several changes make one renewal.
const HOSTS_SETTLE_SECS: u64 = 1;
/// Milliseconds for each member over which renewals are spread when the hosts of all certificates change.
const HOSTS_SPREAD_MILLIS: u64 = 20;
/// Thousandths of a certificate's life between which it is renewed.
const DUE_FROM: u64 = 500;
const DUE_UNTIL: u64 = 800;
/// Milliseconds from one renewal to the next that its age makes due, and from a failure to the next attempt: at least,
/// at most, and as a part of the certificate's life.
const PAUSE_MILLIS_MIN: u64 = 200;
const PAUSE_MILLIS_MAX: u64 = 30_000;
const PAUSE_PART: u64 = 200;

/// What the member does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Have the cluster record that the member uses this renewal.
    Adopt(AdoptLeaf),
    /// Have a certificate issued for another key than this one, and use it.
    Renew {
        /// The key in use.
        in_use: KeyId,
    },
}

/// A member's knowledge of its own certificate. Lost with the process.
#[derive(Debug)]
pub struct CertificateKeeper {
    node: NodeId,
    in_use: Option<KeyId>,
    /// Where within the span of time the renewal is due.
    drawn: u16,
    adopted: bool,
    /// When a renewal is due because the certificate holds other hosts than it should.
    for_hosts: Option<UnixMillis>,
    due: Option<UnixMillis>,
    pause: u64,
    adopt_from: BootMillis,
    /// The leader's newest stamp, and when it came.
    stamp: Option<Anchor>,
    /// Until then nothing is done: the last attempt failed.
    failed_until: BootMillis,
    /// Until then no renewal is due by age: the last one was just made.
    renewed_until: BootMillis,
    timeout: BootMillis,
}

impl CertificateKeeper {
    /// Knows nothing yet of the certificate of `node`.
    pub const fn new(node: NodeId) -> Self {
        Self {
            node,
            in_use: None,
            drawn: 0,
            adopted: false,
            for_hosts: None,
            due: None,
            pause: PAUSE_MILLIS_MIN,
            adopt_from: BootMillis(0),
            stamp: None,
            failed_until: BootMillis(0),
            renewed_until: BootMillis(0),
            timeout: BootMillis(0),
        }
    }

    /// The certificate in use has this key. `drawn`, uniform over all values, counts only if the key is another than
    /// before.
    pub fn handle_certificate(&mut self, key: KeyId, drawn: u16) {
        if self.in_use != Some(key) {
            (self.in_use, self.drawn) = (Some(key), drawn);
            (self.adopted, self.adopt_from, self.for_hosts) = (false, BootMillis(0), None);
        }
    }

    /// The leader's stamp came with an answer to a request for a lease. A member whose clock is behind renews by it:
    /// where the log stands still, the log alone would tell too late that the certificate ends.
    pub const fn handle_stamp(&mut self, stamp: Anchor) {
        self.stamp = Some(stamp);
    }

    /// The cluster knows that the certificate is in use.
    pub const fn handle_adopted(&mut self) {
        self.adopted = true;
    }

    /// The cluster was not told that the certificate is in use, or its answer was lost.
    pub const fn handle_not_adopted(&mut self, now: BootMillis) {
        self.adopt_from = now.plus(ADOPT_AGAIN_MILLIS);
    }

    /// The renewal was made, and its certificate is in use.
    pub const fn handle_renewed(&mut self, now: BootMillis) {
        self.renewed_until = now.plus(self.pause);
    }

    /// The renewal was not made. The certificate in use stays in use.
    pub const fn handle_failure(&mut self, now: BootMillis) {
        self.failed_until = now.plus(self.pause);
    }

    /// What to do, as `view` and the judging time `time` have it, or the leader's stamp if that is later by now; `now`
    /// is the clock of the pauses.
    pub fn poll_action(&mut self, view: &View, time: UnixMillis, now: BootMillis) -> Option<Action> {
        let time = self.stamp.map_or(time, |stamp| time.max(stamp.now(now)));
        self.timeout = now.plus(UNRECORDED_MILLIS);
        if now < self.failed_until {
            self.timeout = self.failed_until;
            return None;
        }
        let in_use = self.in_use?;
        let member = view.members.get(&self.node)?;
        let leaf = member.leaf_of(in_use)?;
        self.pause = pause_millis(leaf.validity);
        self.adopted |= leaf.renewal == member.leaf.renewal;
        if !self.adopted {
            // INVARIANT: the one after it is not asked for before, or peers would refuse the certificate in use.
            self.timeout = self.adopt_from;
            let adopt = AdoptLeaf { node: self.node, renewal: leaf.renewal };
            return (self.adopt_from <= now).then_some(Action::Adopt(adopt));
        }
        let (due, timeout) = self.next_due(view, member, leaf, time, now);
        if due {
            return Some(Action::Renew { in_use });
        }
        self.timeout = timeout;
        None
    }

    /// Whether a renewal is due, and when to look again if not.
    fn next_due(
        &mut self,
        view: &View,
        member: &Member,
        leaf: &Leaf,
        time: UnixMillis,
        now: BootMillis,
    ) -> (bool, BootMillis) {
        let differ = hosts_differ(view, member, leaf.key);
        let first_due = || due_for_hosts(time, view.members.len(), self.drawn);
        self.for_hosts = differ.then(|| self.for_hosts.unwrap_or_else(first_due));
        let aged = due(leaf.validity, self.drawn);
        let due = self.for_hosts.map_or(aged, |for_hosts| for_hosts.min(aged));
        self.due = Some(due);
        if time < due {
            return (false, now.plus((due.0 - time.0).min(LOOK_AGAIN_MILLIS)));
        }
        let for_hosts = self.for_hosts.is_some_and(|for_hosts| for_hosts <= time);
        (for_hosts || self.renewed_until <= now, self.renewed_until)
    }

    /// When [`Self::poll_action`] may have something to do, after it had nothing and if no event comes first.
    pub const fn poll_timeout(&self) -> BootMillis {
        self.timeout
    }

    /// When the next renewal is due; none while the certificate in use is not on record.
    pub const fn due(&self) -> Option<UnixMillis> {
        self.due
    }
}

/// The number of the renewal to ask for with `key`: that of an attempt that the cluster has on record, or the next.
pub fn renewal_number(member: &Member, key: KeyId, time: UnixMillis) -> u64 {
    let again = member.leaf_of(key).filter(|leaf| !leaf.has_ended(time));
    again.map_or_else(|| member.renewal().saturating_add(1), |leaf| leaf.renewal)
}

/// When a certificate is due by its age: at one point between 50 and 80 % of its life, so that members made together
/// do not come together.
fn due(validity: Validity, drawn: u16) -> UnixMillis {
    // Backdated for peers whose clocks are behind: its life began later.
    let begin = validity.not_before.plus_secs(SKEW_SECS).min(validity.not_after);
    let life = validity.not_after.0.saturating_sub(begin.0);
    let share = DUE_FROM + u64::from(drawn) * (DUE_UNTIL - DUE_FROM) / u64::from(u16::MAX);
    UnixMillis(begin.0.saturating_add((u128::from(life) * u128::from(share) / 1000) as u64))
}

/// When a certificate is due that does not hold the hosts that it should, as seen at `time`: soon, but not once for
/// each of several changes, and not all members at once when something changed for all of them.
fn due_for_hosts(time: UnixMillis, members: usize, drawn: u16) -> UnixMillis {
    let spread =
        (members as u64).saturating_mul(HOSTS_SPREAD_MILLIS).saturating_mul(u64::from(drawn)) / u64::from(u16::MAX);
    UnixMillis(time.plus_secs(HOSTS_SETTLE_SECS).0.saturating_add(spread))
}

/// Often enough for a certificate that lives seconds, seldom for one that lives days.
fn pause_millis(validity: Validity) -> u64 {
    let life = validity.not_after.0.saturating_sub(validity.not_before.0);
    (life / PAUSE_PART).clamp(PAUSE_MILLIS_MIN, PAUSE_MILLIS_MAX)
}

/// Whether the certificate in use holds other hosts than it would if it were issued now: names were added or taken
/// away, or the member was found where it is now.
fn hosts_differ(view: &View, member: &Member, in_use: KeyId) -> bool {
    let next = member.renewed.as_ref().filter(|next| next.leaf.key == in_use);
    let held = next.map_or(&member.hosts, |next| &next.hosts);
    *held != view.leaf_hosts(member)
}
