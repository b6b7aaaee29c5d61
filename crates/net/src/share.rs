//! How many places one source may hold at once, so that one crowd leaves some to others.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::budget::Source;
use countersign_core::locked::{LockGuard, Locked};

/// What each source holds now. Has no more entries than there are places.
pub(crate) struct Shares {
    max: usize,
    held: Locked<HashMap<Source, usize>>,
}

/// One place of a source's share; given back when dropped.
pub(crate) struct Share {
    of: Arc<Shares>,
    source: Source,
}

impl Shares {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, held: Locked::default() })
    }

    fn lock(&self) -> LockGuard<'_, HashMap<Source, usize>> {
        self.held.lock()
    }

    /// One more for `source`, unless it has its share.
    pub(crate) fn take(self: &Arc<Self>, source: SocketAddr) -> Option<Share> {
        let source = Source::of(source.ip());
        let mut held = self.lock();
        let now = held.get(&source).copied().unwrap_or_default();
        if now >= self.max {
            return None;
        }
        held.insert(source, now + 1);
        Some(Share { of: Arc::clone(self), source })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.of.lock();
        match held.get_mut(&self.source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(held.remove(&self.source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_holds_its_share_and_no_more_and_others_hold_theirs() {
        let (shares, of) = (Shares::new(2), |text: &str| text.parse::<SocketAddr>().unwrap());
        let (one, same, other) = (of("[2001:db8::1]:1"), of("[2001:db8::2]:2"), of("10.0.0.1:3"));
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
