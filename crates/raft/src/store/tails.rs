//! What the tails of all groups of one store hold in memory together: past the limit the groups in turn forget durable
//! entries, so that a group at rest does not keep memory from one at work.
//!
//! An entry that is not durable yet stays, whatever the limit: there is no other copy of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use countersign_core::locked::Locked;

use super::log::State;

/// The tails of one store. Clones share them.
#[derive(Clone)]
pub(crate) struct Tails(Arc<Shared>);

struct Shared {
    /// Bytes that all may hold.
    max: usize,
    held: Arc<AtomicUsize>,
    /// Who forgets next is first.
    groups: Locked<VecDeque<Weak<Locked<State>>>>,
}

/// The bytes that one tail holds; given back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held {
    bytes: usize,
    of_all: Arc<AtomicUsize>,
}

impl Held {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.of_all.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(crate) fn remove(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.of_all.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.remove(self.bytes);
    }
}

impl Tails {
    /// Of a store whose groups may hold `max` bytes together.
    pub(super) fn new(max: usize) -> Self {
        Self(Arc::new(Shared { max, held: Arc::default(), groups: Locked::default() }))
    }

    /// For the tail of a group that is opened: it holds nothing yet.
    pub(super) fn held(&self) -> Held {
        Held { bytes: 0, of_all: Arc::clone(&self.0.held) }
    }

    /// The group takes its turn from now on, for as long as it lives.
    pub(super) fn add(&self, group: &Arc<Locked<State>>) {
        let mut groups = self.0.groups.lock();
        groups.retain(|group| group.strong_count() > 0);
        groups.push_back(Arc::downgrade(group));
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.0.held.load(Ordering::Acquire)
    }

    /// Makes room, if too much is held: to be called under no lock.
    pub(super) fn reclaim(&self) {
        let turns = self.0.groups.lock().len();
        for _ in 0..turns {
            if self.0.held.load(Ordering::Acquire) <= self.0.max {
                return;
            }
            let Some(next) = self.0.groups.lock().pop_front() else { return };
            if let Some(group) = next.upgrade() {
                group.lock().tail.forget();
                self.0.groups.lock().push_back(next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::testing::blank_ent;

    use super::super::tail::Tail;
    use super::*;
    use crate::types::TypeConfig;

    const MAX: usize = 1000;

    struct Group(Arc<Locked<State>>);

    impl Group {
        fn of(tails: &Tails) -> Self {
            let group = Arc::new(Locked::new(State::of(Tail::found(None, None, tails.held()))));
            tails.add(&group);
            Self(group)
        }

        /// Appends an entry of this length, which becomes durable if it is to, as the store does it.
        fn append(&self, tails: &Tails, index: u64, bytes: usize, durable: bool) {
            let ticket = self.0.lock().tail.append(blank_ent::<TypeConfig>(1, 1, index), bytes).unwrap().unwrap();
            if durable {
                self.0.lock().tail.durable(ticket);
                tails.reclaim();
            }
        }

        fn held(&self) -> usize {
            self.0.lock().tail.bytes()
        }
    }

    #[test]
    fn tails_of_groups_are_bounded_together_and_forgotten_in_turn() {
        let tails = Tails::new(MAX);
        let groups: Vec<Group> = (0..4).map(|_| Group::of(&tails)).collect();
        let held = || groups.iter().map(Group::held).collect::<Vec<_>>();
        for group in &groups {
            group.append(&tails, 1, MAX / 4, true);
        }
        assert_eq!(held(), [MAX / 4; 4], "at the limit");
        groups[3].append(&tails, 2, 1, true);
        assert_eq!(held(), [0, MAX / 4, MAX / 4, MAX / 4 + 1], "past it");
        groups[3].append(&tails, 3, MAX / 4, true);
        assert_eq!(held(), [0, 0, MAX / 4, MAX / 2 + 1]);
        // A group that is gone has given back what it held, and has no turn.
        let mut groups = groups;
        groups.remove(2);
        groups[0].append(&tails, 2, MAX / 2, true);
        assert_eq!(groups.iter().map(Group::held).collect::<Vec<_>>(), [MAX / 2, 0, 0]);
        assert_eq!(tails.bytes(), MAX / 2);
    }

    #[test]
    fn what_is_not_durable_is_not_forgotten() {
        let tails = Tails::new(MAX);
        let (first, second) = (Group::of(&tails), Group::of(&tails));
        first.append(&tails, 1, MAX, false);
        second.append(&tails, 1, MAX, true);
        assert_eq!((first.held(), second.held()), (MAX, 0));
        first.append(&tails, 2, 1, true);
        assert_eq!((first.held(), second.held()), (0, 0));
    }
}
