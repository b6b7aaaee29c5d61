//! How many places one holder may have at once, so that one crowd leaves some to others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use countersign_core::locked::{LockGuard, Locked};

/// What each holder, such as a source, holds now. Has no more entries than there are places.
pub(crate) struct Shares<K: Eq + Hash> {
    max: usize,
    held: Locked<HashMap<K, usize>>,
}

/// One place of a holder's share; given back when dropped.
pub(crate) struct Share<K: Eq + Hash> {
    of: Arc<Shares<K>>,
    holder: K,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, held: Locked::default() })
    }

    /// One more for `holder`, unless it has its share.
    pub(crate) fn take(self: &Arc<Self>, holder: K) -> Option<Share<K>> {
        let mut held = self.lock();
        let now = held.get(&holder).copied().unwrap_or_default();
        if now >= self.max {
            return None;
        }
        held.insert(holder.clone(), now + 1);
        Some(Share { of: Arc::clone(self), holder })
    }
}

impl<K: Eq + Hash> Shares<K> {
    fn lock(&self) -> LockGuard<'_, HashMap<K, usize>> {
        self.held.lock()
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.of.lock();
        match held.get_mut(&self.holder) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(held.remove(&self.holder)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Source;

    #[test]
    fn a_source_holds_its_share_and_no_more_and_others_hold_theirs() {
        let (shares, of) = (Shares::new(2), |text: &str| Source::of(text.parse().unwrap()));
        let (one, same, other) = (of("2001:db8::1"), of("2001:db8::2"), of("10.0.0.1"));
        let first = shares.take(one).unwrap();
        let second = shares.take(same);
        assert!(second.is_some() && shares.take(one).is_none() && shares.take(same).is_none());
        let others = [shares.take(other), shares.take(other)];
        assert!(others.iter().all(Option::is_some) && shares.take(other).is_none());
        drop(first);
        let again = shares.take(same);
        assert!(again.is_some() && shares.take(one).is_none());
        drop((second, again, others));
        assert!(shares.lock().is_empty(), "nothing is kept of a source that holds nothing");
    }
}
