//! How many denials are logged: a caller that asks for what it may not, over and over, must not fill the log.

use std::collections::BTreeMap;

use countersign_core::limits::{DENIALS_LOGGED_MAX, DENIALS_LOGGED_PER_PRINCIPAL_MAX};
use countersign_core::locked::Locked;
use countersign_core::principal::Role;
use countersign_core::time::BootMillis;

/// Milliseconds within which denials are counted together.
const WINDOW: u64 = 60_000;

/// The denials of this minute.
#[derive(Default)]
pub(crate) struct Denials(Locked<Minute>);

#[derive(Default)]
struct Minute {
    number: u64,
    logged: usize,
    by_principal: BTreeMap<Role, u32>,
    unlogged: u64,
}

/// What becomes of one denial.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// Whether it is logged.
    pub(crate) logged: bool,
    /// Denials of an earlier minute that were not.
    pub(crate) missed: u64,
}

impl Denials {
    /// Counts a denial of `principal`.
    pub(crate) fn count(&self, principal: &Role, now: BootMillis) -> Told {
        let mut minute = self.0.lock();
        let number = now.0 / WINDOW;
        let mut missed = 0;
        if minute.number != number {
            missed = minute.unlogged;
            *minute = Minute { number, ..Minute::default() };
        }
        let own = minute.by_principal.get(principal).copied().unwrap_or(0);
        // As many principals at most as there are lines.
        let logged = minute.logged < DENIALS_LOGGED_MAX && own < DENIALS_LOGGED_PER_PRINCIPAL_MAX;
        if logged {
            minute.logged += 1;
            minute.by_principal.insert(principal.clone(), own + 1);
        } else {
            minute.unlogged = minute.unlogged.saturating_add(1);
        }
        Told { logged, missed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: BootMillis = BootMillis(10 * WINDOW);

    fn role(name: &str) -> Role {
        Role::parse(name).unwrap()
    }

    #[test]
    fn so_many_denials_of_one_principal_are_logged_in_a_minute_and_the_others_are_counted() {
        let denials = Denials::default();
        for _ in 0..DENIALS_LOGGED_PER_PRINCIPAL_MAX {
            assert_eq!(denials.count(&role("client/noisy"), AT), Told { logged: true, missed: 0 });
        }
        for _ in 0..3 {
            assert_eq!(denials.count(&role("client/noisy"), AT), Told { logged: false, missed: 0 });
        }
        assert!(denials.count(&role("client/quiet"), AT).logged, "another's are logged");
        let next = BootMillis(AT.0 + WINDOW);
        assert_eq!(denials.count(&role("client/noisy"), next), Told { logged: true, missed: 3 });
        assert_eq!(denials.count(&role("client/noisy"), next), Told { logged: true, missed: 0 });
    }

    #[test]
    fn so_many_denials_of_all_principals_are_logged_in_a_minute() {
        let denials = Denials::default();
        let mut logged = 0;
        for number in 0..2 * DENIALS_LOGGED_MAX {
            logged += usize::from(denials.count(&role(&format!("client/c-{number}")), AT).logged);
        }
        assert_eq!(logged, DENIALS_LOGGED_MAX);
        assert!(denials.0.lock().by_principal.len() <= DENIALS_LOGGED_MAX);
    }
}
