//! The leader's side of leases, and the barrier over them.

use std::collections::BTreeMap;

use super::LeaseLength;
use crate::id::{Generation, NodeId};
use crate::time::BootMillis;

/// How far a member is with a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It enforces it, and says so.
    Enforced,
    /// It may serve under an earlier generation until this moment of the leader's clock.
    Until(BootMillis),
    /// It has not answered, and any lease that it was granted has run out: it denies.
    Lapsed,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Enforcer {
    acknowledged: Generation,
    /// The last grant at each generation named; those that have run out are forgotten.
    grants: BTreeMap<Generation, BootMillis>,
}

/// What one leader granted in one term. A new leader begins with an empty record. It assumes that its
/// predecessor granted a lease to every member just before the election. Later the predecessor had no quorum to confirm
/// a grant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grantor {
    elected: BootMillis,
    length: LeaseLength,
    enforcers: BTreeMap<NodeId, Enforcer>,
}

impl Grantor {
    /// For a leader that was elected when its clock read `elected`.
    pub const fn new(elected: BootMillis, length: LeaseLength) -> Self {
        Self { elected, length, enforcers: BTreeMap::new() }
    }

    /// Records a grant that names `newest`, made at `now`: after a quorum confirmed this leader, and in one step with
    /// reading `newest`, so that no barrier looks in between. To be called before the answer is sent.
    pub fn grant(&mut self, to: NodeId, newest: Generation, now: BootMillis) {
        let length = self.length.waited_millis();
        let enforcer = self.enforcers.entry(to).or_default();
        enforcer.grants.retain(|_, granted| granted.plus(length) > now);
        // Two tasks may read the clock in one order and come here in the other: the later lease is to be waited for.
        let last = enforcer.grants.entry(newest).or_default();
        *last = now.max(*last);
    }

    /// A member says that it enforces `generation`.
    pub fn acknowledge(&mut self, from: NodeId, generation: Generation) {
        let enforcer = self.enforcers.entry(from).or_default();
        enforcer.acknowledged = enforcer.acknowledged.max(generation);
    }

    /// How far `member` is with `generation`, at `now`.
    pub fn standing(&self, member: NodeId, generation: Generation, now: BootMillis) -> Standing {
        let enforcer = self.enforcers.get(&member);
        if enforcer.is_some_and(|e| e.acknowledged >= generation) {
            return Standing::Enforced;
        }
        let until = self.lease_end(member, generation);
        if now < until { Standing::Until(until) } else { Standing::Lapsed }
    }

    /// When the last lease that `member` may hold from before `generation` ends.
    pub fn lease_end(&self, member: NodeId, generation: Generation) -> BootMillis {
        let grants = self.enforcers.get(&member).map(|e| e.grants.range(..generation));
        let last = grants.and_then(|grants| grants.map(|(_, at)| *at).max());
        last.map_or(self.elected, |at| at.max(self.elected)).plus(self.length.waited_millis())
    }

    /// Whether this leader has had no contact with `member` for the length of a lease: it granted no lease that may
    /// still count, it has led for so long, and `answered`, the milliseconds since the member last answered it, are so
    /// many.
    pub fn is_away(&self, member: NodeId, answered: Option<u64>, now: BootMillis) -> bool {
        let answers = answered.is_some_and(|millis| millis < self.length.waited_millis());
        !answers && now >= self.lease_end(member, Generation(u64::MAX))
    }

    /// Whether `member` has held no lease of this leader for `millis`, which only a leader can say that has led for as
    /// long.
    pub fn is_silent(&self, member: NodeId, millis: u64, now: BootMillis) -> bool {
        let last = self.enforcers.get(&member).and_then(|enforcer| enforcer.grants.values().copied().max());
        now.since(last.map_or(self.elected, |at| at.max(self.elected))) >= millis
    }

    /// Whether this leader has granted `member` a lease.
    pub fn was_granted(&self, member: NodeId) -> bool {
        self.enforcers.get(&member).is_some_and(|enforcer| !enforcer.grants.is_empty())
    }

    /// Forgets a member that is gone, with the leases that it was granted. Call it only after the last of these leases
    /// has run out: until then the member may serve principals that a later generation revokes.
    pub fn forget(&mut self, member: NodeId) {
        self.enforcers.remove(&member);
    }
}
