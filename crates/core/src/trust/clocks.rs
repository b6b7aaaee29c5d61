//! The cluster's time: the time that a leader may stamp commands with. One wrong clock, even the leader's, harms only
//! the member that has it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::limits::{CLOCK_REPORT_SECS_MAX, SKEW_SECS};
use crate::time::{BootMillis, UnixMillis};

/// Why a leader does not stamp now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum StampError {
    /// Its clock is away from the voters': it is to give up leadership.
    #[error("clock of this host is {off_secs} seconds away from the median of the voters' clocks (bound: {SKEW_SECS})")]
    Skewed {
        /// By how much.
        off_secs: u64,
    },
    /// The clock says that far more time has passed than has, and not enough voters have said the same yet.
    #[error(
        "clock of this host has stepped {step_secs} seconds ahead, and a majority of the voters has not \
         confirmed it yet"
    )]
    Unconfirmed {
        /// By how much.
        step_secs: u64,
    },
}

/// What a leader knows of the voters' clocks, as they came with their lease requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VoterClocks {
    reported: BTreeMap<NodeId, (UnixMillis, BootMillis)>,
}

/// A point in time with the moment at which this machine learned of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Anchor {
    /// The last applied stamp.
    pub time: UnixMillis,
    /// When it was applied here.
    pub at: BootMillis,
}

impl Anchor {
    /// What the time ought to be when the clock that no suspend stops reads `now`.
    pub const fn now(&self, now: BootMillis) -> UnixMillis {
        UnixMillis(self.time.0.saturating_add(now.since(self.at)))
    }
}

impl VoterClocks {
    /// A voter's clock, as it came at `at`.
    pub fn report(&mut self, voter: NodeId, clock: UnixMillis, at: BootMillis) {
        self.reported.insert(voter, (clock, at));
    }

    /// The other voters' clocks of late, as they read `now`.
    fn others<'a>(
        &'a self,
        voters: &'a BTreeSet<NodeId>,
        me: NodeId,
        now: BootMillis,
    ) -> impl Iterator<Item = (NodeId, u64)> + 'a {
        let fresh = move |at: BootMillis| now.since(at) <= CLOCK_REPORT_SECS_MAX * 1000;
        let of = self.reported.iter().filter(move |(id, (_, at))| **id != me && voters.contains(id) && fresh(*at));
        of.map(move |(id, (clock, at))| (*id, clock.0.saturating_add(now.since(*at))))
    }

    fn median(mut clocks: Vec<u64>, expected: UnixMillis) -> Option<u64> {
        if clocks.len().is_multiple_of(2) {
            clocks.push(expected.0);
        }
        clocks.sort_unstable();
        clocks.get(clocks.len() / 2).copied()
    }

    /// The other voters whose clocks are right: one of them is to lead where `me` may not.
    pub fn in_step(
        &self,
        voters: &BTreeSet<NodeId>,
        me: NodeId,
        own: UnixMillis,
        now: BootMillis,
        last: Anchor,
    ) -> BTreeSet<NodeId> {
        let others: Vec<(NodeId, u64)> = self.others(voters, me, now).collect();
        let clocks = others.iter().map(|(_, clock)| *clock).chain([own.0]).collect();
        let Some(median) = Self::median(clocks, last.now(now)) else { return BTreeSet::new() };
        let right = others.into_iter().filter(|(_, clock)| clock.abs_diff(median) <= SKEW_SECS * 1000);
        right.map(|(id, _)| id).collect()
    }

    /// What `me`, the leader, stamps: its own clock, never behind the last stamp.
    ///
    /// Its clock must lie within the skew bound of the median of the voters' clocks; where their number is even, the
    /// time since the last stamp is one clock more. A step beyond that bound and the time that has passed counts only
    /// if a majority of all voters agree with it. This also holds for a leader that has just been elected and has heard
    /// no clock yet. So a cluster that was off goes on by itself, and a running cluster cannot be carried into the
    /// future. Both hold from three voters on; with fewer a wrong clock may be the majority.
    pub fn stamp(
        &self,
        voters: &BTreeSet<NodeId>,
        me: NodeId,
        own: UnixMillis,
        now: BootMillis,
        last: Anchor,
    ) -> Result<UnixMillis, StampError> {
        let clocks: Vec<u64> = self.others(voters, me, now).map(|(_, clock)| clock).chain([own.0]).collect();
        let expected = last.now(now);
        let agree = clocks.iter().filter(|clock| clock.abs_diff(own.0) <= SKEW_SECS * 1000).count();
        let median = Self::median(clocks, expected).unwrap_or(own.0);
        if own.0.abs_diff(median) > SKEW_SECS * 1000 {
            return Err(StampError::Skewed { off_secs: own.0.abs_diff(median) / 1000 });
        }
        let step_secs = own.secs_since(expected);
        if step_secs > SKEW_SECS && agree <= voters.len() / 2 {
            return Err(StampError::Unconfirmed { step_secs });
        }
        Ok(own.max(last.time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_800_000_000_000;
    const YEARS: u64 = 10 * 366 * 86_400_000;
    const LAST: Anchor = Anchor { time: UnixMillis(T), at: BootMillis(1000) };

    fn stamp(voters: u64, own: u64, reports: &[(u64, u64)]) -> Result<u64, StampError> {
        let mut clocks = VoterClocks::default();
        for (voter, clock) in reports {
            clocks.report(NodeId(*voter), UnixMillis(*clock), BootMillis(2000));
        }
        let voters = (1..=voters).map(NodeId).collect();
        clocks.stamp(&voters, NodeId(1), UnixMillis(own), BootMillis(2000), LAST).map(|time| time.0)
    }

    #[test]
    fn a_leader_years_ahead_or_behind_stamps_nothing() {
        for off in [T + YEARS, T - YEARS] {
            assert!(matches!(stamp(3, off, &[(2, T + 1000), (3, T + 1000)]), Err(StampError::Skewed { .. })));
            assert!(matches!(stamp(3, off, &[(2, T + 1000)]), Err(StampError::Skewed { .. })), "one voter is down");
        }
    }

    #[test]
    fn one_voter_years_ahead_or_behind_harms_no_other() {
        for off in [T + YEARS, T - YEARS] {
            assert_eq!(stamp(3, T + 1000, &[(2, off), (3, T + 900)]), Ok(T + 1000));
            assert_eq!(stamp(3, T + 1000, &[(2, off)]), Ok(T + 1000), "the third is down");
        }
    }

    #[test]
    fn the_next_leader_has_a_clock_that_is_right() {
        let in_step = |own: u64, reports: &[(u64, u64)]| {
            let mut clocks = VoterClocks::default();
            for (voter, clock) in reports {
                clocks.report(NodeId(*voter), UnixMillis(*clock), BootMillis(2000));
            }
            let voters = (1..=3).map(NodeId).collect();
            clocks.in_step(&voters, NodeId(1), UnixMillis(own), BootMillis(2000), LAST)
        };
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        assert_eq!(in_step(T + YEARS, &[(2, T), (3, T + 60_000)]), ids(&[2, 3]));
        assert_eq!(in_step(T + YEARS, &[(2, T + 1000)]), ids(&[2]), "the third is down");
        assert_eq!(in_step(T + 1000, &[(2, T + YEARS), (3, T)]), ids(&[3]));
        assert_eq!(in_step(T + YEARS, &[]), ids(&[]), "no voter has reported");
        assert_eq!(in_step(T + YEARS, &[(9, T), (2, T - YEARS)]), ids(&[]), "no voter, and a voter as wrong");
    }

    #[test]
    fn a_stamp_never_runs_backwards() {
        assert_eq!(stamp(1, T - 30_000, &[]), Ok(T));
    }

    #[test]
    fn the_skew_bound_is_inclusive() {
        let reports = |t| [(2, t), (3, t)];
        assert!(stamp(3, T + 60_000, &reports(T)).is_ok());
        assert_eq!(stamp(3, T + 60_001, &reports(T)), Err(StampError::Skewed { off_secs: 60 }));
    }

    #[test]
    fn a_step_beyond_the_bound_needs_a_majority_also_right_after_an_election() {
        let bound = T + 1000 + 60_999;
        assert_eq!(stamp(3, bound, &[]), Ok(bound), "within the bound the leader's own word is enough");
        // A glitch of one clock would else carry the cluster's time away, and everybody would be behind it.
        for step in [bound + 1, T + 3_540_000, T + YEARS] {
            assert!(matches!(stamp(3, step, &[]), Err(StampError::Unconfirmed { .. })));
            assert_eq!(stamp(3, step, &[(2, step), (3, step)]), Ok(step), "the cluster was off");
            assert_eq!(stamp(3, step, &[(2, step), (3, T)]), Ok(step), "off, and one clock stands still");
            assert_eq!(stamp(1, step, &[]), Ok(step), "one voter is the majority");
        }
    }

    #[test]
    fn old_reports_and_those_of_others_than_voters_do_not_count() {
        let mut clocks = VoterClocks::default();
        clocks.report(NodeId(2), UnixMillis(T + YEARS), BootMillis(0));
        clocks.report(NodeId(9), UnixMillis(T + YEARS), BootMillis(100_000));
        let voters = (1..=3).map(NodeId).collect();
        let at = |now: u64| clocks.stamp(&voters, NodeId(1), UnixMillis(T + now), BootMillis(now), LAST);
        assert!(at(CLOCK_REPORT_SECS_MAX * 1000).is_ok(), "the time since the last stamp decides between two");
        assert_eq!(at(CLOCK_REPORT_SECS_MAX * 1000 + 1), Ok(UnixMillis(T + CLOCK_REPORT_SECS_MAX * 1000 + 1)));
    }
}
