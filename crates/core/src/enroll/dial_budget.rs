//! How often a member dials because of one join token or one source: else it would be a tool to probe or flood others.
//!
//! Pure: the time is an argument. An account that is used up pays itself back evenly within a minute.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeMap;

use crate::id::{NodeId, TokenId};
use crate::limits::{DIAL_BACK_ACCOUNTS_MAX, DIAL_BACKS_PER_SOURCE_MINUTE_MAX, DIAL_BACKS_PER_TOKEN_MINUTE_MAX};
use crate::time::BootMillis;

/// Who a dial is counted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DialAccount {
    /// Everybody who uses this join token.
    Token(TokenId),
    /// An address that connections come from; an IPv6 one with its whole /64.
    Source(IpAddr),
    /// A member that passes requests on.
    Member(NodeId),
}

impl DialAccount {
    /// The account of the source `ip`.
    pub fn of_source(ip: IpAddr) -> Self {
        Self::Source(match ip.to_canonical() {
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }

    const fn per_minute(self) -> u32 {
        match self {
            Self::Token(_) => DIAL_BACKS_PER_TOKEN_MINUTE_MAX,
            Self::Source(_) | Self::Member(_) => DIAL_BACKS_PER_SOURCE_MINUTE_MAX,
        }
    }
}

const MINUTE_MILLIS: u64 = 60_000;

/// The accounts of late.
#[derive(Debug, Default)]
pub struct DialBudget {
    /// When each account is even again.
    even_at: BTreeMap<DialAccount, u64>,
}

impl DialBudget {
    /// Charges `dials` to each of `accounts`, or to none where one of them cannot pay.
    pub fn charge(&mut self, accounts: &[DialAccount], dials: usize, now: BootMillis) -> bool {
        let missing = accounts.iter().filter(|account| !self.even_at.contains_key(account)).count();
        if self.even_at.len().saturating_add(missing) > DIAL_BACK_ACCOUNTS_MAX {
            self.even_at.retain(|_, even_at| *even_at > now.0);
        }
        if self.even_at.len().saturating_add(missing) > DIAL_BACK_ACCOUNTS_MAX {
            return false;
        }
        let dials = u64::try_from(dials).unwrap_or(u64::MAX);
        let after = |account: &DialAccount| {
            let cost = dials.saturating_mul(MINUTE_MILLIS / u64::from(account.per_minute()));
            self.even_at.get(account).copied().unwrap_or(0).max(now.0).saturating_add(cost)
        };
        let charged: Vec<(DialAccount, u64)> = accounts.iter().map(|account| (*account, after(account))).collect();
        let pays = charged.iter().all(|(_, even_at)| *even_at <= now.0.saturating_add(MINUTE_MILLIS));
        if pays {
            self.even_at.extend(charged);
        }
        pays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: BootMillis = BootMillis(1_000_000);

    fn token(n: u64) -> DialAccount {
        DialAccount::Token(TokenId(n.to_be_bytes()))
    }

    fn source(text: &str) -> DialAccount {
        DialAccount::of_source(text.parse().unwrap())
    }

    #[test]
    fn token_used_as_a_port_scanner_is_used_up() {
        let mut budget = DialBudget::default();
        let mut charge = |n, at| budget.charge(&[token(n), source(&format!("10.0.0.{n}"))], 8, at);
        for _ in 0..DIAL_BACKS_PER_TOKEN_MINUTE_MAX / 8 {
            assert!(charge(1, NOW));
        }
        assert!(!charge(1, NOW));
        assert!(charge(2, NOW), "another token has an account of its own");
        // An eighth of a minute pays for an eighth of the dials.
        assert!(!charge(1, BootMillis(NOW.0 + 7_000)));
        assert!(charge(1, BootMillis(NOW.0 + 7_500)));
        assert!(!charge(1, BootMillis(NOW.0 + 7_500)));
    }

    #[test]
    fn many_tokens_of_one_source_are_used_up_together() {
        let mut budget = DialBudget::default();
        for n in 0..u64::from(DIAL_BACKS_PER_SOURCE_MINUTE_MAX) {
            assert!(budget.charge(&[token(n), source("2001:db8:1:2::1")], 1, NOW));
        }
        assert!(!budget.charge(&[token(999), source("2001:db8:1:2:ffff::9")], 1, NOW), "one network is one source");
        assert!(budget.charge(&[token(999), source("2001:db8:1:3::1")], 1, NOW));
        // What one account cannot pay is charged to none.
        assert!(!budget.charge(&[token(1000), source("2001:db8:1:2::1")], 1, NOW));
        assert!(budget.charge(&[token(1000)], DIAL_BACKS_PER_TOKEN_MINUTE_MAX as usize, NOW));
    }

    #[test]
    fn accounts_are_bounded_and_those_in_use_are_kept() {
        let mut budget = DialBudget::default();
        for n in 0..DIAL_BACK_ACCOUNTS_MAX as u64 {
            assert!(budget.charge(&[token(n)], 1, NOW));
        }
        assert!(!budget.charge(&[token(u64::MAX)], 1, NOW));
        assert_eq!(budget.even_at.len(), DIAL_BACK_ACCOUNTS_MAX);
        assert!(budget.charge(&[token(0)], 1, NOW), "one that is counted already");
        let later = BootMillis(NOW.0 + MINUTE_MILLIS);
        assert!(budget.charge(&[token(u64::MAX)], 1, later));
        assert_eq!(budget.even_at.len(), 1);
    }
}
