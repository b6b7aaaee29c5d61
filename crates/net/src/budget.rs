//! How often one source may fail: unauthenticated callers must not make members pay for handshakes without end.
//!
//! Pure: the time is an argument. An attempt is charged when it begins and refunded when it succeeds, so that attempts
//! left hanging count as well and one source cannot fill every handshake slot.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use countersign_core::limits::SOURCES_MAX;

/// An attacker owns whole IPv6 networks: a source there is a /64 (RFC 4291 §2.5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source(IpAddr);

impl Source {
    pub(crate) const fn of_v4(address: Ipv4Addr) -> Self {
        Self(IpAddr::V4(address))
    }

    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// Whether an attempt may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charge {
    /// It may, and is counted as failed until refunded.
    Taken,
    /// The source has failed too often, but there are places enough: it may, and is not counted.
    Overdrawn,
    /// It may not.
    Refused {
        /// Whether the refusal before this one, in the same drought, was told already.
        repeated: bool,
    },
}

struct Account {
    /// When the account is even again. Each attempt moves it on by one interval; time passing pays it back.
    even_at: Duration,
    told: bool,
}

/// The accounts of all sources seen lately.
pub(crate) struct SourceBudget {
    interval: Duration,
    burst: Duration,
    accounts: HashMap<Source, Account>,
}

impl SourceBudget {
    pub(crate) fn new(per_minute: u32) -> Self {
        let burst = Duration::from_secs(60);
        let interval = burst.checked_div(per_minute).unwrap_or(Duration::MAX);
        Self { interval, burst, accounts: HashMap::new() }
    }

    /// Charges one attempt of `source` at `now`, counted from any fixed point.
    pub(crate) fn charge(&mut self, source: Source, now: Duration) -> Charge {
        if !self.accounts.contains_key(&source) && self.accounts.len() >= SOURCES_MAX {
            self.forget_some(now);
        }
        let account = self.accounts.entry(source).or_insert(Account { even_at: now, told: false });
        let even_at = account.even_at.max(now).saturating_add(self.interval);
        if even_at > now.saturating_add(self.burst) {
            return Charge::Refused { repeated: core::mem::replace(&mut account.told, true) };
        }
        *account = Account { even_at, told: false };
        Charge::Taken
    }

    /// Whether a charge would be refused now.
    pub(crate) fn is_exhausted(&self, source: Source, now: Duration) -> bool {
        let account = self.accounts.get(&source);
        account.is_some_and(|a| a.even_at.max(now).saturating_add(self.interval) > now.saturating_add(self.burst))
    }

    /// Takes back one charge: the attempt succeeded.
    pub(crate) fn refund(&mut self, source: Source) {
        if let Some(account) = self.accounts.get_mut(&source) {
            account.even_at = account.even_at.saturating_sub(self.interval);
        }
    }

    /// Accounts that are even carry nothing; if all are in use the least charged goes.
    fn forget_some(&mut self, now: Duration) {
        self.accounts.retain(|_, account| account.even_at > now);
        if self.accounts.len() < SOURCES_MAX {
            return;
        }
        let least = self.accounts.iter().min_by_key(|(_, account)| account.even_at).map(|(source, _)| *source);
        if let Some(source) = least {
            self.accounts.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn source(n: u32) -> Source {
        Source::of(IpAddr::V4(n.into()))
    }

    #[test]
    fn a_source_fails_so_often_in_a_minute_and_no_more() {
        let mut budget = SourceBudget::new(3);
        for _ in 0..3 {
            assert_eq!(budget.charge(source(1), NOW), Charge::Taken);
        }
        assert!(budget.is_exhausted(source(1), NOW) && !budget.is_exhausted(source(2), NOW));
        assert_eq!(budget.charge(source(1), NOW), Charge::Refused { repeated: false });
        assert_eq!(budget.charge(source(1), NOW), Charge::Refused { repeated: true });
        assert_eq!(budget.charge(source(2), NOW), Charge::Taken);
        // A third of a minute pays for one attempt.
        assert_eq!(budget.charge(source(1), NOW + Duration::from_secs(19)), Charge::Refused { repeated: true });
        assert_eq!(budget.charge(source(1), NOW + Duration::from_secs(20)), Charge::Taken);
        assert_eq!(budget.charge(source(1), NOW + Duration::from_secs(20)), Charge::Refused { repeated: false });
    }

    #[test]
    fn success_costs_nothing() {
        let mut budget = SourceBudget::new(1);
        for _ in 0..10 {
            assert_eq!(budget.charge(source(1), NOW), Charge::Taken);
            budget.refund(source(1));
        }
    }

    #[test]
    fn sources_are_bounded_and_the_least_charged_is_forgotten() {
        let mut budget = SourceBudget::new(2);
        let many = u32::try_from(SOURCES_MAX).unwrap();
        for n in 0..many {
            budget.charge(source(n), NOW);
            budget.charge(source(n), NOW);
        }
        budget.refund(source(7));
        budget.charge(source(many), NOW);
        assert_eq!(budget.accounts.len(), SOURCES_MAX);
        assert!(!budget.accounts.contains_key(&source(7)));
        // All others are even a minute later and cost nothing to forget.
        budget.charge(source(many + 1), NOW + Duration::from_secs(61));
        assert_eq!(budget.accounts.len(), 1);
    }

    #[test]
    fn one_ipv6_network_is_one_source() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
