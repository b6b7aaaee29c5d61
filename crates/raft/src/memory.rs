//! What other members acknowledged to this one: by it a member is noticed whose store is another than the recorded
//! one, or an older copy of it.
//!
//! A voter that forgets its vote may elect two leaders of one term, and a voter that forgets an entry may elect a
//! leader without it. So the highest vote and the highest *committed* index that each member acknowledged are kept, by
//! its store. Entries that are not committed may rightly be cut, so they do not count. A member that is behind what it
//! acknowledged is refused from then on, until it returns with a new store.
//!
//! The records cost no fsync of their own: they become durable with the next append.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::codec;
use countersign_core::id::{GroupId, NodeId, StoreId};
use countersign_core::locked::{LockGuard, Locked};
use serde::{Deserialize, Serialize};

use crate::assignments::Assignments;
use crate::store::{Change, Job, Record, Store, StoreError, StoreKind, Table, member_key, record_key};
use crate::types::{LogId, Vote};

/// Why what a member says does not count: its store is not the one that it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// It speaks under another store than the recorded one: the store was made again, or this is a second copy of the
    /// member.
    #[error("node {node} speaks under store {got}, expected {expected}")]
    Other {
        /// The member.
        node: NodeId,
        /// The store on record.
        expected: StoreId,
        /// The store that it names.
        got: StoreId,
    },
    /// Its log ends before what it acknowledged and was committed.
    #[error("node {node} was rolled back: its log ends at {}, and it acknowledged {acknowledged}", got.unwrap_or(0))]
    Log {
        /// The member.
        node: NodeId,
        /// The last index of its log.
        got: Option<u64>,
        /// The highest committed index that it acknowledged.
        acknowledged: u64,
    },
    /// Its vote is older than one that it gave.
    #[error("node {node} was rolled back: it voted in term {acknowledged}, and its vote is of term {got}")]
    Vote {
        /// The member.
        node: NodeId,
        /// The term of its vote.
        got: u64,
        /// The term of the highest vote that it acknowledged.
        acknowledged: u64,
    },
    /// It leads, or stands for election, without an entry that is committed here: it and others were restored from
    /// older copies, and no other member remembered what they had acknowledged.
    #[error("the log of node {node} contradicts entry {index}, which is committed here")]
    Conflict {
        /// The member.
        node: NodeId,
        /// The index of the first such entry.
        index: u64,
    },
    /// It was found to be rolled back before.
    #[error("node {node} was rolled back, and has not returned with a new store since")]
    Before {
        /// The member.
        node: NodeId,
    },
}

impl StoreFault {
    /// The member that it is about.
    pub const fn node(&self) -> NodeId {
        match self {
            Self::Other { node, .. }
            | Self::Log { node, .. }
            | Self::Vote { node, .. }
            | Self::Conflict { node, .. }
            | Self::Before { node } => *node,
        }
    }
}

/// Where a member's store stood when it took up a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) vote: Vote,
    /// The last index of the log.
    pub(crate) last: Option<u64>,
}

/// The least that a member's store must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Floor {
    store: StoreId,
    vote: Vote,
    committed: u64,
    rolled_back: bool,
}

impl Floor {
    fn of(store: StoreId) -> Self {
        Self { store, vote: Vote::default(), committed: 0, rolled_back: false }
    }

    /// Whether the member was found to hold less.
    pub(crate) const fn is_rolled_back(&self) -> bool {
        self.rolled_back
    }

    /// The highest vote that it gave.
    pub(crate) const fn vote(&self) -> Vote {
        self.vote
    }

    fn check(&self, node: NodeId, position: &Position) -> Result<(), StoreFault> {
        if self.rolled_back {
            return Err(StoreFault::Before { node });
        }
        if position.vote < self.vote {
            let (got, acknowledged) = (position.vote.leader_id.term, self.vote.leader_id.term);
            return Err(StoreFault::Vote { node, got, acknowledged });
        }
        if position.last.unwrap_or(0) < self.committed {
            return Err(StoreFault::Log { node, got: position.last, acknowledged: self.committed });
        }
        Ok(())
    }
}

/// An append that a member acknowledged to this one, as leader of `vote`.
#[derive(Debug, Clone, Copy)]
struct Appended {
    store: StoreId,
    vote: Vote,
    upto: u64,
}

/// What members acknowledged in one group. Clones share it.
#[derive(Clone)]
pub(crate) struct Memory {
    group: GroupId,
    store: Store,
    state: Arc<Locked<State>>,
}

#[derive(Default)]
struct State {
    floors: BTreeMap<NodeId, Floor>,
    /// Of this process alone: what is not committed yet.
    appended: BTreeMap<NodeId, Appended>,
}

impl Memory {
    /// Reads what the store has of the group.
    pub(crate) async fn open(store: &Store, group: GroupId) -> Result<Self, StoreError> {
        let floors = store
            .read(move |files| {
                let mut floors = BTreeMap::new();
                let prefix = record_key(group, Record::Acknowledged);
                for item in files.table(Table::Meta).prefix(&prefix) {
                    let (key, value) = item.into_inner()?;
                    let node = key.get(prefix.len()..).and_then(|rest| rest.try_into().ok()).map(u64::from_be_bytes);
                    if let Some(node) = node {
                        floors.insert(NodeId(node), codec::decode(&value)?);
                    }
                }
                Ok(floors)
            })
            .await?;
        let state = Arc::new(Locked::new(State { floors, appended: BTreeMap::new() }));
        Ok(Self { group, store: store.clone(), state })
    }

    fn state(&self) -> LockGuard<'_, State> {
        self.state.lock()
    }

    /// Whether `got` is a store that counts as `node`'s, and what it must hold. None while nothing is known of it.
    pub(crate) fn counts(
        &self,
        assignments: &dyn Assignments,
        node: NodeId,
        got: StoreId,
    ) -> Option<Result<Floor, StoreFault>> {
        let stores = assignments.stores(StoreKind::of(self.group), node);
        let expected = *stores.first()?;
        let counts = stores.contains(&got);
        Some(if counts { Ok(self.floor(node, got)) } else { Err(StoreFault::Other { node, expected, got }) })
    }

    /// What `node` must hold under `store`, as far as it is known now. To be taken before a request is sent: an answer
    /// to it may come in after the answers to later ones.
    pub(crate) fn floor(&self, node: NodeId, store: StoreId) -> Floor {
        let known = self.state().floors.get(&node).copied();
        known.filter(|floor| floor.store == store).unwrap_or_else(|| Floor::of(store))
    }

    /// Whether `node`, whose store is at `position`, holds what it must. A member that does not is refused from now on.
    pub(crate) fn check(&self, node: NodeId, floor: &Floor, position: &Position) -> Result<(), StoreFault> {
        let checked = floor.check(node, position);
        if checked.is_err() && !floor.rolled_back {
            self.update(node, floor.store, |floor| floor.rolled_back = true);
        }
        checked
    }

    /// `node` has given `vote`, or follows it.
    pub(crate) fn voted(&self, node: NodeId, store: StoreId, vote: Vote) {
        self.update(node, store, |floor| {
            if vote > floor.vote {
                floor.vote = vote;
            }
        });
    }

    /// The log of `node` agrees with this member's, the leader of `vote`, up to `upto`.
    pub(crate) fn appended(&self, node: NodeId, store: StoreId, vote: Vote, upto: u64) {
        let mut state = self.state();
        let appended = Appended { store, vote, upto };
        let known = state.appended.entry(node).or_insert(appended);
        if known.store == store && known.vote == vote {
            known.upto = known.upto.max(upto);
        } else {
            *known = appended;
        }
    }

    /// Everything up to `committed` is committed: what follows from it for the records, to be written along.
    pub(crate) fn committed(&self, committed: &LogId) -> Result<Vec<Change>, StoreError> {
        let mut state = self.state();
        let State { floors, appended } = &mut *state;
        let mut changes = Vec::new();
        for (node, appended) in appended.iter() {
            // INVARIANT: an append counts for what its own leader committed. Under another leader the member may have
            // cut the entries again, and have acknowledged others under the same numbers.
            if appended.vote.leader_id != committed.leader_id {
                continue;
            }
            let floor = floors.entry(*node).or_insert_with(|| Floor::of(appended.store));
            if floor.store != appended.store {
                *floor = Floor::of(appended.store);
            }
            let upto = appended.upto.min(committed.index);
            if upto > floor.committed {
                floor.committed = upto;
                changes.push(change(self.group, *node, floor)?);
            }
        }
        Ok(changes)
    }

    fn update(&self, node: NodeId, store: StoreId, with: impl FnOnce(&mut Floor)) {
        let mut state = self.state();
        let known = state.floors.get(&node).copied();
        let mut floor = known.filter(|floor| floor.store == store).unwrap_or_else(|| Floor::of(store));
        with(&mut floor);
        if known == Some(floor) {
            return;
        }
        state.floors.insert(node, floor);
        match change(self.group, node, &floor) {
            // Under the lock, so that the disk sees the same order.
            Ok(change) => self.store.submit(Job { changes: vec![change], sync: false, done: None }),
            Err(error) => tracing::error!(%node, %error, "what a member acknowledged cannot be encoded"),
        }
    }
}

fn change(group: GroupId, node: NodeId, floor: &Floor) -> Result<Change, StoreError> {
    let key = member_key(group, Record::Acknowledged, node);
    Ok(Change { table: Table::Meta, key, value: Some(codec::encode(floor)?) })
}

#[cfg(test)]
mod tests {
    use openraft::testing::log_id;

    use super::*;

    const NODE: NodeId = NodeId(2);
    const STORE: StoreId = StoreId([2; 16]);

    struct Rig {
        memory: Memory,
        store: Store,
        _dir: tempfile::TempDir,
    }

    impl Rig {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = crate::store::suite::store_in(dir.path());
            let memory = Memory::open(&store, GroupId::TRUST).await.unwrap();
            Self { memory, store, _dir: dir }
        }

        /// Commits as `save_committed` does.
        fn commit(&self, term: u64, leader: u64, index: u64) {
            let changes = self.memory.committed(&log_id(term, leader, index)).unwrap();
            self.store.submit(Job { changes, sync: false, done: None });
        }

        fn check(&self, vote: Vote, last: u64) -> Result<(), StoreFault> {
            let floor = self.memory.floor(NODE, STORE);
            self.memory.check(NODE, &floor, &Position { vote, last: Some(last) })
        }
    }

    fn leads(term: u64) -> Vote {
        Vote::new_committed(term, 1)
    }

    #[tokio::test]
    async fn only_what_was_both_acknowledged_and_committed_must_be_there() {
        let rig = Rig::new().await;
        rig.memory.appended(NODE, STORE, leads(3), 50);
        assert_eq!(rig.check(leads(3), 10), Ok(()), "nothing is committed: its entries may rightly have been cut");
        rig.commit(3, 1, 40);
        assert_eq!(rig.check(leads(3), 40), Ok(()));
        rig.commit(3, 1, 90);
        assert_eq!(rig.check(leads(3), 50), Ok(()), "it has not acknowledged more");
        assert_eq!(rig.check(leads(3), 49), Err(StoreFault::Log { node: NODE, got: Some(49), acknowledged: 50 }));
    }

    #[tokio::test]
    async fn entries_acknowledged_to_another_leader_do_not_count() {
        let rig = Rig::new().await;
        rig.memory.appended(NODE, STORE, leads(3), 50);
        // Deposed: the next leader commits other entries under these numbers, which the member has not received yet.
        rig.commit(4, 3, 60);
        assert_eq!(rig.check(Vote::new_committed(4, 3), 20), Ok(()));
        // Its own entries, committed by its successor, are the ones that were acknowledged.
        rig.commit(3, 1, 30);
        assert!(rig.check(Vote::new_committed(4, 3), 20).is_err());
    }

    #[tokio::test]
    async fn vote_below_one_that_was_given_is_refused() {
        let rig = Rig::new().await;
        rig.memory.voted(NODE, STORE, Vote::new(7, 1));
        for (vote, fits) in [(Vote::new(7, 1), true), (Vote::new(8, 3), true), (Vote::new_committed(7, 1), true)] {
            assert_eq!(rig.check(vote, 0).is_ok(), fits, "{vote}");
        }
        rig.memory.voted(NODE, STORE, Vote::new(6, 1));
        assert_eq!(rig.check(Vote::new(6, 9), 0), Err(StoreFault::Vote { node: NODE, got: 6, acknowledged: 7 }));
    }

    #[tokio::test]
    async fn member_found_rolled_back_stays_refused_until_it_has_another_store() {
        let rig = Rig::new().await;
        rig.memory.appended(NODE, STORE, leads(3), 50);
        rig.commit(3, 1, 50);
        assert!(rig.check(leads(3), 49).is_err());
        // It was sent everything again: what it forgot in between is not known.
        assert_eq!(rig.check(leads(9), 500), Err(StoreFault::Before { node: NODE }));
        let other = StoreId([9; 16]);
        let floor = rig.memory.floor(NODE, other);
        assert_eq!(rig.memory.check(NODE, &floor, &Position::default()), Ok(()));
        // Under the one before it is refused as before, as long as nothing is acknowledged under the new one.
        assert!(rig.check(leads(9), 500).is_err());
    }

    #[tokio::test]
    async fn answer_to_an_earlier_request_is_held_against_what_was_known_then() {
        let rig = Rig::new().await;
        rig.memory.appended(NODE, STORE, leads(3), 50);
        let before = rig.memory.floor(NODE, STORE);
        rig.commit(3, 1, 50);
        // Taken up before the entries came, and answered after they were acknowledged.
        let then = Position { vote: leads(3), last: Some(20) };
        assert_eq!(rig.memory.check(NODE, &before, &then), Ok(()));
        assert_eq!(rig.check(leads(3), 50), Ok(()), "nothing was held against it");
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_known_after_a_restart() {
        let rig = Rig::new().await;
        rig.memory.appended(NODE, STORE, leads(3), 50);
        rig.commit(3, 1, 50);
        rig.memory.voted(NODE, STORE, leads(3));
        let third = NodeId(u64::MAX);
        rig.memory.voted(third, STORE, leads(8));
        // Anything that is written after it makes it durable.
        rig.store.write(Vec::new()).await.unwrap();
        let again = Memory::open(&rig.store, GroupId::TRUST).await.unwrap();
        assert_eq!(again.floor(NODE, STORE), rig.memory.floor(NODE, STORE));
        assert_eq!(again.floor(NODE, STORE).committed, 50);
        assert_eq!(again.floor(third, STORE).vote, leads(8));
        let other = Memory::open(&rig.store, GroupId(1)).await.unwrap();
        assert_eq!(other.floor(NODE, STORE), Floor::of(STORE), "of another group");
    }
}
