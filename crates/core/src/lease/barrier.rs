//! The judgement of a barrier: whether anything may still serve what a generation revokes. The leader's shell, the
//! simulation and the model of leases all judge by this one function.

use std::collections::BTreeMap;

use super::grantor::Standing;
use super::term::TermState;
use crate::id::{Generation, NodeId};
use crate::receipt::Receipt;
use crate::time::BootMillis;
use crate::trust::TrustState;
use crate::trust::member::Suffrage;

/// The replicated state of the leader, as far as a barrier depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// The newest generation that the leader has applied.
    pub generation: Generation,
    /// Whether enough voters have signed what the barrier's generation made of the cluster.
    pub attested: bool,
    /// The members.
    pub members: Vec<(NodeId, Suffrage)>,
    /// The evicted.
    pub evictions: Vec<Eviction>,
}

/// One eviction, as far as a barrier depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eviction {
    /// The former member.
    pub node: NodeId,
    /// The generation from which it is refused.
    pub generation: Generation,
    /// Seconds of the cluster's time since then.
    pub secs_ago: u64,
}

impl Roster {
    /// As `state` shows it for a barrier over `generation`; none before there is a cluster.
    pub fn of(state: &TrustState, generation: Generation) -> Option<Self> {
        let view = state.view()?;
        let eviction = |(node, evicted): (&NodeId, &crate::trust::member::Evicted)| Eviction {
            node: *node,
            generation: evicted.generation,
            secs_ago: state.time().secs_since(evicted.at),
        };
        Some(Self {
            generation: view.generation,
            attested: state.is_attested(generation),
            members: view.members.scan().values().map(|member| (member.id, member.suffrage)).collect(),
            evictions: view.evicted.scan().iter().map(eviction).collect(),
        })
    }
}

/// A barrier that has not returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PendingBarrier {
    generation: Generation,
    /// The generation by which the leader first saw that the barrier's own is attested. A member that enforces it
    /// knows that too.
    attested: Option<Generation>,
}

/// How far the members are with a generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether nothing serves any more what the generation revokes.
    pub passed: bool,
    /// The members that enforce it, with their receipts; none of a member that has given none.
    pub enforced: BTreeMap<NodeId, Option<Receipt>>,
    /// Those that have not answered, with the end of the last lease that each may hold from before.
    pub absent: BTreeMap<NodeId, BootMillis>,
    /// The end of the first lease that is waited for. Time alone changes the progress then.
    pub wake: Option<BootMillis>,
}

impl PendingBarrier {
    /// A barrier over what `generation` revokes.
    pub const fn new(generation: Generation) -> Self {
        Self { generation, attested: None }
    }
}

impl TermState {
    /// How far the members are with a barrier at `now`.
    ///
    /// It has passed when each member enforces the generation or has no lease from before it, and a majority of the
    /// voters enforces it, so that it is known wherever a cluster forms again. A leader that has not applied the
    /// generation judges nothing: it does not know which members the generation left, or what they must enforce.
    pub fn progress(&self, barrier: &mut PendingBarrier, roster: &Roster, now: BootMillis) -> Progress {
        if barrier.attested.is_none() && roster.attested && roster.generation >= barrier.generation {
            barrier.attested = Some(roster.generation);
        }
        let enforced = barrier.attested.unwrap_or(barrier.generation);
        let mut progress = Progress::default();
        let (mut enforcing, mut voters) = (0_usize, 0_usize);
        for (node, suffrage) in &roster.members {
            let votes = usize::from(*suffrage == Suffrage::Voter);
            voters = voters.saturating_add(votes);
            match self.standing(*node, enforced, now) {
                Standing::Enforced => {
                    enforcing = enforcing.saturating_add(votes);
                    progress.enforced.insert(*node, self.receipt(barrier.generation, *node).cloned());
                }
                Standing::Until(end) => progress.wait_for(*node, end),
                Standing::Lapsed => {
                    progress.absent.insert(*node, self.lease_end(*node, enforced));
                }
            }
        }
        for eviction in &roster.evictions {
            let Standing::Until(end) = self.standing(eviction.node, enforced, now) else { continue };
            if self.may_serve_by_others(eviction) || eviction.generation > barrier.generation {
                // In the second case it was a member when this was revoked, and may serve until its lease ends.
                progress.wait_for(eviction.node, end);
            } else if self.was_granted(eviction.node) {
                // It may serve as long as its own lease lasts, if it keeps to leases at all. That is said and not
                // waited for: it is no member any more, and no member lets it in.
                progress.absent.insert(eviction.node, end);
            }
        }
        progress.passed = progress.wake.is_none() && enforcing > voters / 2 && barrier.attested.is_some();
        progress
    }

    /// Whether guards outside the cluster may hold leases that an evicted member delegated. They keep to them, though
    /// it may not. This leader does not know of one that it has granted no lease; of each that was a member for long
    /// enough after the election it does.
    fn may_serve_by_others(&self, eviction: &Eviction) -> bool {
        let recent = self.length().waited_millis().saturating_mul(2) / 1000;
        self.delegates(eviction.node) || (!self.was_granted(eviction.node) && eviction.secs_ago <= recent)
    }
}

impl Progress {
    fn wait_for(&mut self, node: NodeId, end: BootMillis) {
        self.absent.insert(node, end);
        self.wake = Some(self.wake.map_or(end, |wake| wake.min(end)));
    }
}
