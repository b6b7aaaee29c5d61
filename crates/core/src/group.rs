//! The members of a replicated group, as its log has made them.

use std::collections::BTreeSet;

use crate::id::NodeId;

/// The members of a group by the log entries applied so far. While voters change, both the current and the incoming
/// voters are voters here. Every member applies the same log, so every member has the same value at the same entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupMembers {
    /// The members that vote.
    pub voters: BTreeSet<NodeId>,
    /// The members that receive the log and do not vote.
    pub learners: BTreeSet<NodeId>,
}

impl GroupMembers {
    /// Whether the group sends its log to `node`.
    pub fn contains(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }
}
