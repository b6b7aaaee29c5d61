//! Requests of late, each once: what a change of rules is tried on before it is made.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::authz::Recorded;
use countersign_core::locked::{LockGuard, Locked};
use countersign_core::principal::Role;
use countersign_core::time::UnixMillis;

/// Requests of one window.
const RECENT_MAX: usize = 4096;
/// Of these, requests of one principal: a principal that invents names does not crowd out the others.
const RECENT_PER_PRINCIPAL_MAX: usize = 256;
/// Seconds of one time window; the two last windows are shown.
pub(crate) const WINDOW_SECS: u64 = 3600;

#[derive(Default)]
struct Window {
    began: UnixMillis,
    requests: BTreeSet<Recorded>,
    of_principal: BTreeMap<Role, usize>,
}

/// Requests of this window and the last. Written only where a decision is made for the first time in a session.
#[derive(Default)]
pub(crate) struct Recent(Locked<(Window, BTreeSet<Recorded>)>);

impl Recent {
    fn lock(&self) -> LockGuard<'_, (Window, BTreeSet<Recorded>)> {
        self.0.lock()
    }

    pub(crate) fn record(&self, request: Recorded, now: UnixMillis) {
        let mut recent = self.lock();
        let (current, last) = &mut *recent;
        if now.secs_since(current.began) >= WINDOW_SECS || current.requests.len() >= RECENT_MAX {
            *last = std::mem::take(current).requests;
            current.began = now;
        }
        if current.requests.contains(&request) {
            return;
        }
        let count = current.of_principal.entry(request.principal.clone()).or_default();
        if *count < RECENT_PER_PRINCIPAL_MAX {
            *count += 1;
            current.requests.insert(request);
        }
    }

    pub(crate) fn all(&self) -> Vec<Recorded> {
        let recent = self.lock();
        recent.0.requests.union(&recent.1).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::authz::{Action, Kind};
    use countersign_core::name::Name;

    use super::*;

    fn request(principal: &str, name: usize) -> Recorded {
        let principal = Role::Client(Name::parse(principal).unwrap());
        Recorded { principal, action: Action::Read, kind: Kind::TOPIC, name: name.to_string(), from: None }
    }

    #[test]
    fn a_request_is_kept_once_and_crowds_out_no_other_principal() {
        let recent = Recent::default();
        for name in 0..2 * RECENT_PER_PRINCIPAL_MAX {
            recent.record(request("loud", name), UnixMillis(0));
            recent.record(request("quiet", 7), UnixMillis(0));
        }
        let all = recent.all();
        assert_eq!(all.len(), RECENT_PER_PRINCIPAL_MAX + 1);
        assert!(all.contains(&request("quiet", 7)));
    }

    #[test]
    fn what_is_kept_is_bounded_and_forgotten_after_a_while() {
        let recent = Recent::default();
        let crowd = |at| {
            for of in 0..4 * RECENT_MAX / RECENT_PER_PRINCIPAL_MAX {
                (0..RECENT_PER_PRINCIPAL_MAX).for_each(|name| recent.record(request(&format!("c{of}"), name), at));
            }
        };
        crowd(UnixMillis(0));
        assert!((RECENT_MAX..=2 * RECENT_MAX).contains(&recent.all().len()));
        let later = |windows| UnixMillis::from_secs(windows * WINDOW_SECS);
        recent.record(request("late", 1), later(1));
        recent.record(request("late", 2), later(2));
        assert_eq!(recent.all(), [request("late", 1), request("late", 2)]);
    }
}
