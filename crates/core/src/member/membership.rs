//! The leader's next step from the members that Raft has to the members that the trust state wants.
//!
//! What is committed says which step is next, so a crash anywhere is resumed. A voter must never be promoted before it
//! has caught up and opened its copy of the CA key.

use std::collections::{BTreeMap, BTreeSet};

use crate::group::GroupMembers;
use crate::id::{AuthorityId, NodeId, StoreId};
use crate::trust::TrustState;
use crate::trust::member::Suffrage;

/// Entries that a learner may lack and still be made a voter.
pub const LAG_MAX: u64 = 100;

/// What the leader knows of its Raft group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupProgress {
    /// The members that Raft has. While voters change, both the old and the new are voters here.
    pub members: GroupMembers,
    /// The log index up to which each other member's log is known to agree.
    pub matched: BTreeMap<NodeId, u64>,
    /// The index of the leader's last entry, 0 for none.
    pub last_log: u64,
}

impl GroupProgress {
    /// The voter that is furthest, other than `leader`.
    pub fn heir(&self, leader: NodeId) -> Option<NodeId> {
        self.furthest(|id| id != leader)
    }

    /// The voter that is furthest among `candidates`.
    pub fn heir_among(&self, candidates: &BTreeSet<NodeId>) -> Option<NodeId> {
        self.furthest(|id| candidates.contains(&id))
    }

    fn furthest(&self, may_lead: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let voters = self.members.voters.iter().copied().filter(|id| may_lead(*id));
        voters.max_by_key(|id| self.matched.get(id))
    }

    /// The voters with `node` among them, if it is none yet and has caught up.
    fn promoted(&self, node: NodeId) -> Option<BTreeSet<NodeId>> {
        let voters = &self.members.voters;
        let ready = !voters.contains(&node) && self.has_caught_up(node);
        ready.then(|| voters.iter().copied().chain([node]).collect())
    }

    fn has_caught_up(&self, node: NodeId) -> bool {
        let matched = self.matched.get(&node).copied().unwrap_or(0);
        matched.saturating_add(LAG_MAX) >= self.last_log
    }
}

/// What the leader does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send the log to a member.
    AddLearner(NodeId),
    /// Seal the CA key to a member that is promoted.
    Seal {
        /// The authority whose key it is.
        authority: AuthorityId,
        /// The member.
        node: NodeId,
        /// The member's X25519 key.
        sealing: [u8; 32],
    },
    /// Have exactly these vote. One that does not vote any more becomes a learner.
    SetVoters(BTreeSet<NodeId>),
    /// Give leadership to this voter: the leader itself is to stop voting.
    HandOver(NodeId),
    /// Send the log to this learner no more.
    Remove(NodeId),
    /// Commit that a member has left the group and returns with this store.
    BindStore {
        /// The member.
        node: NodeId,
        /// Its new store.
        store: StoreId,
    },
}

/// Whether `voters` can decide while only `reached` are there, now and once `leaving` is gone. Otherwise the removal is
/// not begun: it could not be committed.
pub fn can_remove(voters: &BTreeSet<NodeId>, leaving: NodeId, reached: &BTreeSet<NodeId>) -> bool {
    let majority = |of: &BTreeSet<NodeId>| of.intersection(reached).count() > of.len() / 2;
    let stay = voters.iter().copied().filter(|id| *id != leaving).collect();
    majority(voters) && majority(&stay)
}

/// The one next step of `leader`; none if Raft has what `state` wants, or must wait for a member. Removals come first:
/// other members wait for them.
pub fn next_step(state: &TrustState, group: &GroupProgress, leader: NodeId) -> Option<Step> {
    let view = state.view()?;
    let (authority, record) = view.active_authority()?;
    let GroupMembers { voters, learners } = &group.members;
    // A member that returns with a new store leaves the group altogether first.
    let wanted = |node: &NodeId| view.members.get(node).filter(|m| m.returning.is_none()).map(|m| m.suffrage);
    if let Some(node) = voters.iter().find(|id| wanted(id) != Some(Suffrage::Voter)) {
        if *node == leader {
            return group.heir(leader).map(Step::HandOver);
        }
        let rest: BTreeSet<NodeId> = voters.iter().filter(|id| *id != node).copied().collect();
        return (!rest.is_empty()).then_some(Step::SetVoters(rest));
    }
    if let Some(node) = learners.iter().find(|id| wanted(id).is_none()) {
        return Some(Step::Remove(*node));
    }
    if let Some((node, store)) = view.members.returning().find_map(|m| Some((m.id, m.returning?))) {
        return Some(Step::BindStore { node, store });
    }
    if let Some(node) = view.members.scan().keys().find(|id| !group.members.contains(**id)) {
        return Some(Step::AddLearner(*node));
    }
    for member in view.members.voters() {
        // Where the CA key is held elsewhere there is nothing to open first.
        let sealed = record.key.as_ref().map(|_| state.sealed().get(&(authority, member.id)));
        let may_vote = match sealed {
            None => true,
            Some(None) => return Some(Step::Seal { authority, node: member.id, sealing: member.keys.sealing }),
            Some(Some(copy)) => copy.opened,
        };
        if may_vote && let Some(voters) = group.promoted(member.id) {
            return Some(Step::SetVoters(voters));
        }
    }
    None
}
