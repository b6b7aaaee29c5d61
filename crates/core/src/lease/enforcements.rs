//! What a member did about each revocation, kept until its leaders have been told. Evidence for people: the
//! acknowledgement of a generation never depends on it.

use std::collections::VecDeque;

use crate::id::Generation;
use crate::time::UnixMillis;

/// Revocations remembered; a leader asks for a receipt soon after the revocation.
const ENFORCEMENTS_MAX: usize = 256;

/// One revocation in force at this member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enforcement {
    /// The generation that revokes.
    pub generation: Generation,
    /// How many connections the member closed for it.
    pub closed: u64,
    /// The member's clock when it had closed the last.
    pub at: UnixMillis,
}

/// The last revocations that this member put in force, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Enforcements(VecDeque<Enforcement>);

impl Enforcements {
    /// Enters a revocation that is in force by now, and forgets the oldest if there are too many.
    pub(super) fn enter(&mut self, enforcement: Enforcement) {
        self.0.push_back(enforcement);
        if self.0.len() > ENFORCEMENTS_MAX {
            self.0.pop_front();
        }
    }

    /// The generation of the newest one up to `enforced`; 0 if there is none.
    pub(super) fn newest(&self, enforced: Generation) -> Generation {
        let upto = self.0.iter().rev().find(|entry| entry.generation <= enforced);
        upto.map_or(Generation(0), |entry| entry.generation)
    }

    /// Those after `told` up to `enforced`, the oldest first, at most `max`.
    pub(super) fn between(&self, told: Generation, enforced: Generation, max: usize) -> Vec<Enforcement> {
        let news = self.0.iter().filter(|entry| entry.generation > told && entry.generation <= enforced);
        news.copied().take(max).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(generation: u64) -> Enforcement {
        Enforcement { generation: Generation(generation), closed: generation, at: UnixMillis(generation) }
    }

    #[test]
    fn leader_is_told_only_enforced_revocations_oldest_first() {
        let mut all = Enforcements::default();
        (1..=5).for_each(|n| all.enter(entry(2 * n)));
        assert_eq!(all.newest(Generation(7)), Generation(6));
        assert_eq!(all.newest(Generation(1)), Generation(0));
        assert_eq!(all.between(Generation(2), Generation(8), 2), [entry(4), entry(6)]);
        assert_eq!(all.between(Generation(6), Generation(8), 2), [entry(8)]);
        assert_eq!(all.between(Generation(8), Generation(8), 2), []);
    }

    #[test]
    fn the_oldest_is_forgotten_beyond_the_limit() {
        let mut all = Enforcements::default();
        (1..=ENFORCEMENTS_MAX as u64 + 1).for_each(|n| all.enter(entry(n)));
        let left = all.between(Generation(0), Generation(u64::MAX), usize::MAX);
        assert_eq!((left.len(), left[0]), (ENFORCEMENTS_MAX, entry(2)));
    }
}
