//! The requests between members, and what must hold of each before Raft sees it.
//!
//! openraft trusts its peers: a message that breaks its assumptions makes it panic or stops the group. These checks are
//! pure and know no state but the receiver's term.

use bytes::Bytes;
use countersign_core::id::StoreId;
use countersign_core::limits::MEMBERS_MAX;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use openraft::{EntryPayload, LogIdOptionExt};
use serde::{Deserialize, Serialize};

use crate::limits::{INDEX_MAX, TERM_JUMP_MAX};
use crate::memory::Position;
use crate::types::{LogId, Membership, SnapshotMeta, TypeConfig, Vote};

/// A request with the store of the member that sends it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asked<T> {
    pub(crate) store: StoreId,
    pub(crate) request: T,
}

/// An answer with the store of the member that gives it, and where that stood when it took up the request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answered<T> {
    pub(crate) store: StoreId,
    pub(crate) position: Position,
    pub(crate) answer: T,
}

/// A whole snapshot, from the leader of `vote`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotMessage {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    pub(crate) data: Bytes,
}

/// Stand for election now; from the leader of `vote`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TimeoutNow {
    pub(crate) vote: Vote,
}

/// Why a request is not one that an honest member sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Implausible {
    /// Its term would exhaust the counter.
    #[error("its term {got} is too far ahead of {mine}")]
    Term {
        /// The term it names.
        got: u64,
        /// The receiver's.
        mine: u64,
    },
    /// Its indexes would overflow.
    #[error("it names log index {0}")]
    Index(u64),
    /// A candidate that says it is elected, or a leader that says it is not.
    #[error("its vote has the wrong state")]
    VoteState,
    /// Its entries have a gap or go back in term, or are newer than their leader.
    #[error("its entries are not in order")]
    Order,
    /// There is no voter, a voter is not a member, or there are too many members.
    #[error("its membership is not well formed")]
    Membership,
}

/// A request that says who sends it.
pub(crate) trait Request {
    /// The candidate's or leader's vote: the sender's own.
    fn vote(&self) -> &Vote;
    /// What must hold of it, given the receiver's term.
    fn check(&self, term: u64) -> Result<(), Implausible>;
}

impl Request for VoteRequest<u64> {
    fn vote(&self) -> &Vote {
        &self.vote
    }

    fn check(&self, term: u64) -> Result<(), Implausible> {
        check_vote(&self.vote, false, term)?;
        check_index(self.last_log_id.as_ref())
    }
}

impl Request for AppendEntriesRequest<TypeConfig> {
    fn vote(&self) -> &Vote {
        &self.vote
    }

    fn check(&self, term: u64) -> Result<(), Implausible> {
        check_vote(&self.vote, true, term)?;
        check_index(self.prev_log_id.as_ref())?;
        check_index(self.leader_commit.as_ref())?;
        let mut prev = self.prev_log_id;
        for entry in &self.entries {
            let id = entry.log_id;
            check_index(Some(&id))?;
            let follows = id.index == prev.next_index() && prev.is_none_or(|prev| prev.leader_id <= id.leader_id);
            if !follows || id.leader_id > self.vote.leader_id {
                return Err(Implausible::Order);
            }
            if let EntryPayload::Membership(membership) = &entry.payload {
                check_membership(membership)?;
            }
            prev = Some(id);
        }
        Ok(())
    }
}

impl Request for SnapshotMessage {
    fn vote(&self) -> &Vote {
        &self.vote
    }

    fn check(&self, term: u64) -> Result<(), Implausible> {
        check_vote(&self.vote, true, term)?;
        check_index(self.meta.last_log_id.as_ref())?;
        check_index(self.meta.last_membership.log_id().as_ref())?;
        if self.meta.last_log_id.is_some_and(|last| last.leader_id > self.vote.leader_id)
            || *self.meta.last_membership.log_id() > self.meta.last_log_id
        {
            return Err(Implausible::Order);
        }
        check_membership(self.meta.last_membership.membership())
    }
}

impl Request for TimeoutNow {
    fn vote(&self) -> &Vote {
        &self.vote
    }

    fn check(&self, term: u64) -> Result<(), Implausible> {
        check_vote(&self.vote, true, term)
    }
}

fn check_vote(vote: &Vote, elected: bool, mine: u64) -> Result<(), Implausible> {
    let got = vote.leader_id.term;
    if got > mine.saturating_add(TERM_JUMP_MAX) {
        return Err(Implausible::Term { got, mine });
    }
    if vote.committed == elected { Ok(()) } else { Err(Implausible::VoteState) }
}

fn check_index(id: Option<&LogId>) -> Result<(), Implausible> {
    match id {
        Some(id) if id.index > INDEX_MAX => Err(Implausible::Index(id.index)),
        _ => Ok(()),
    }
}

fn check_membership(membership: &Membership) -> Result<(), Implausible> {
    let configs = membership.get_joint_config();
    let well_formed = matches!(configs.len(), 1 | 2)
        && configs.iter().all(|voters| !voters.is_empty())
        && membership.nodes().count() <= MEMBERS_MAX
        && configs.iter().flatten().all(|voter| membership.get_node(voter).is_some());
    if well_formed { Ok(()) } else { Err(Implausible::Membership) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use openraft::testing::{blank_ent, log_id, membership_ent};

    use super::*;

    fn append() -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: Vote::new_committed(3, 1),
            prev_log_id: Some(log_id(2, 1, 5)),
            entries: vec![blank_ent(2, 1, 6), blank_ent(3, 1, 7)],
            leader_commit: Some(log_id(2, 1, 5)),
        }
    }

    #[test]
    fn appends_that_an_honest_leader_never_sends_are_refused() {
        assert_eq!(append().check(3), Ok(()));
        assert_eq!(append().check(0), Ok(()));
        let far = TERM_JUMP_MAX + 3;
        type Spoil = fn(&mut AppendEntriesRequest<TypeConfig>);
        let cases: [(Implausible, Spoil); 9] = [
            (Implausible::VoteState, |r| r.vote.committed = false),
            (Implausible::Term { got: far + 1, mine: 3 }, |r| r.vote = Vote::new_committed(TERM_JUMP_MAX + 4, 1)),
            (Implausible::Index(INDEX_MAX + 1), |r| r.prev_log_id = Some(log_id(2, 1, INDEX_MAX + 1))),
            (Implausible::Index(u64::MAX), |r| r.leader_commit = Some(log_id(2, 1, u64::MAX))),
            (Implausible::Order, |r| r.entries.remove(0).log_id.index = 0),
            (Implausible::Order, |r| r.entries.swap(0, 1)),
            (Implausible::Order, |r| r.entries[1].log_id = log_id(1, 1, 7)),
            (Implausible::Order, |r| r.entries[1].log_id = log_id(4, 1, 7)),
            (Implausible::Membership, |r| r.entries[1] = membership_ent(3, 1, 7, vec![])),
        ];
        for (error, spoil) in cases {
            let mut request = append();
            spoil(&mut request);
            assert_eq!(request.check(3), Err(error));
        }
        let mut at_the_limit = append();
        at_the_limit.vote = Vote::new_committed(far, 1);
        assert_eq!(at_the_limit.check(3), Ok(()));
    }

    #[test]
    fn a_membership_needs_voters_that_are_members() {
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
        let decode = |configs: Vec<BTreeSet<u64>>, nodes: &[u64]| {
            let nodes: std::collections::BTreeMap<u64, openraft::EmptyNode> =
                nodes.iter().map(|id| (*id, openraft::EmptyNode {})).collect();
            let bytes = countersign_core::codec::encode(&(configs, nodes)).unwrap();
            countersign_core::codec::decode::<Membership>(&bytes).unwrap()
        };
        assert_eq!(check_membership(&decode(vec![set(&[1, 2]), set(&[2, 3])], &[1, 2, 3, 4])), Ok(()));
        for (configs, nodes) in [
            (vec![], vec![1]),
            (vec![set(&[])], vec![1]),
            (vec![set(&[1]), set(&[])], vec![1]),
            (vec![set(&[1, 2])], vec![1]),
            (vec![set(&[1]), set(&[1]), set(&[1])], vec![1]),
        ] {
            assert_eq!(check_membership(&decode(configs, &nodes)), Err(Implausible::Membership));
        }
    }

    #[test]
    fn votes_and_snapshots_are_checked_alike() {
        let vote = |vote| VoteRequest { vote, last_log_id: Some(log_id(1, 1, 1)) };
        assert_eq!(vote(Vote::new(2, 1)).check(1), Ok(()));
        assert_eq!(vote(Vote::new_committed(2, 1)).check(1), Err(Implausible::VoteState));
        assert!(matches!(vote(Vote::new(u64::MAX, 1)).check(1), Err(Implausible::Term { .. })));

        let nodes: std::collections::BTreeMap<_, _> = [(1, openraft::EmptyNode {})].into();
        let membership = openraft::StoredMembership::new(Some(log_id(1, 1, 1)), Membership::from(nodes));
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(2, 1, 9)),
            last_membership: membership,
            snapshot_id: String::new(),
        };
        let snapshot = |vote, meta: &SnapshotMeta| SnapshotMessage { vote, meta: meta.clone(), data: Bytes::new() };
        assert_eq!(snapshot(Vote::new_committed(2, 1), &meta).check(1), Ok(()));
        assert_eq!(snapshot(Vote::new(2, 1), &meta).check(1), Err(Implausible::VoteState));
        assert_eq!(snapshot(Vote::new_committed(1, 1), &meta).check(1), Err(Implausible::Order));
        let headless = SnapshotMeta { last_log_id: None, ..meta };
        assert_eq!(snapshot(Vote::new_committed(2, 1), &headless).check(1), Err(Implausible::Order));
    }
}
