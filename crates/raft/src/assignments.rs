//! The questions that replication asks about members: which belong to a group, and which stores count.
//!
//! An answer that is not known is said to be unknown; it is never guessed.

use countersign_core::id::{GroupId, NodeId, StoreId};

use crate::memory::StoreFault;
use crate::store::StoreKind;
use crate::transport::Refusal;

/// Who belongs to which group, as the trust state says.
pub trait Assignments: Send + Sync + 'static {
    /// Whether `node` is assigned to `group`: `None` while that is not known here. While members change, the current
    /// and the incoming ones are assigned.
    fn assigned(&self, group: GroupId, node: NodeId) -> Option<bool>;

    /// Whether `node` may send requests to `group`, that is, stand for election and lead. Where learners are less
    /// trusted than voters, as in the trust group, answer no for them: Raft obeys each member that claims to lead.
    fn may_lead(&self, group: GroupId, node: NodeId) -> Option<bool> {
        self.assigned(group, node)
    }

    /// The stores of this kind that count as `node`'s: the one on record first, then those that a change on its way
    /// brings, which is in this member's log and not applied yet, or which the voters have attested. Empty while none
    /// is known.
    fn stores(&self, kind: StoreKind, node: NodeId) -> Vec<StoreId>;

    /// Whether this member may vote and stand for election in `group`. A new store has forgotten every vote
    /// and every entry: it may not before the group's own log, applied or not, says that the store is this member's.
    ///
    /// A new bulk store is new to each group that it keeps: that the cluster knows its id is not enough. A voter that
    /// lost what it acknowledged must leave the group's voters, return as a learner, and be made a voter again.
    fn may_vote(&self, group: GroupId) -> bool;

    /// What a member said was refused for its store: the one of the kind that keeps `group`.
    fn distrusted(&self, group: GroupId, fault: &StoreFault) {
        let _ = (group, fault);
    }

    /// Another member refused this member's request for this member's store of the kind that keeps `group`.
    fn refused_by(&self, group: GroupId, peer: NodeId, refusal: Refusal) {
        let _ = (group, peer, refusal);
    }

    /// A command stands in the log of `group` from now on, at `index`: it may be committed or cut off again. Called
    /// before the entry is answered for, and at a start for each that is not known to be committed.
    fn appended(&self, group: GroupId, index: u64, command: &[u8]) {
        let _ = (group, index, command);
    }

    /// The entries of `group` from `index` on were cut off: they were never committed.
    fn truncated(&self, group: GroupId, index: u64) {
        let _ = (group, index);
    }

    /// Whether a snapshot may be installed that names `member`. The trust group's own snapshot carries its members:
    /// an implementation may look into `snapshot`, so that a member that is behind is not locked out by a newcomer.
    ///
    /// The snapshot of a group with a retention floor names the members that the group had there. Some may have left
    /// since, and no newer snapshot does without them: admit every member that the group ever had, as the entries
    /// after it tell who remains.
    fn admits(&self, group: GroupId, member: NodeId, snapshot: &[u8]) -> bool {
        let _ = snapshot;
        self.assigned(group, member) == Some(true)
    }
}
