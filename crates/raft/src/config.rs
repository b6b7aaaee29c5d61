//! How one group behaves in time and how much log it keeps.

use std::sync::Arc;
use std::time::Duration;

use openraft::SnapshotPolicy;

/// The behaviour of one group. All members of a group should use the same.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// How often a leader is heard of. It is also the deadline of each append, so it must exceed a round trip and an
    /// fsync on the slowest member.
    pub heartbeat: Duration,
    /// The shortest time without a leader after which a member stands for election; at least three heartbeats.
    pub election_min: Duration,
    /// The longest such time, and the lease during which a member that hears its leader votes for no other candidate.
    pub election_max: Duration,
    /// Entries after which a snapshot is made, or a checkpoint of a machine with a retention floor.
    pub snapshot_after: u64,
    /// Entries kept although a snapshot holds them, for members that are a little behind. A machine with a retention
    /// floor keeps those from the floor on, and this says nothing.
    pub keep: u64,
    /// After this time a proposal or a change of members is answered even if its outcome is not known.
    pub deadline: Duration,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(250),
            election_min: Duration::from_millis(900),
            election_max: Duration::from_millis(1800),
            snapshot_after: 4096,
            keep: 1024,
            deadline: Duration::from_secs(5),
        }
    }
}

/// A [`GroupConfig`] that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Every delayed heartbeat would start an election.
    #[error("`election_min` is {election_min:?}, expected at least three heartbeats of {heartbeat:?}")]
    ElectionTooShort {
        /// As given.
        election_min: Duration,
        /// As given.
        heartbeat: Duration,
    },
    /// Members would stand for election at the same moment again and again.
    #[error("`election_max` is {election_max:?}, expected more than `election_min` of {election_min:?}")]
    ElectionNotSpread {
        /// As given.
        election_max: Duration,
        /// As given.
        election_min: Duration,
    },
    /// Nothing happens in no time.
    #[error("`heartbeat` and `snapshot_after` must not be zero")]
    Zero,
}

/// What decides which entries are deleted from the front of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purging {
    /// A snapshot, which is made after so many entries and holds all before it.
    BySnapshot,
    /// The machine's retention floor, which a snapshot is made of when it has moved.
    AtFloor,
}

impl GroupConfig {
    pub(crate) fn openraft(&self, name: String, purging: Purging) -> Result<Arc<openraft::Config>, ConfigError> {
        let Self { heartbeat, election_min, election_max, .. } = *self;
        if heartbeat.is_zero() || self.snapshot_after == 0 {
            return Err(ConfigError::Zero);
        }
        if election_min < heartbeat * 3 {
            return Err(ConfigError::ElectionTooShort { election_min, heartbeat });
        }
        if election_max <= election_min {
            return Err(ConfigError::ElectionNotSpread { election_max, election_min });
        }
        let (snapshot_policy, keep) = match purging {
            Purging::BySnapshot => (SnapshotPolicy::LogsSinceLast(self.snapshot_after), self.keep),
            Purging::AtFloor => (SnapshotPolicy::Never, 0),
        };
        Ok(Arc::new(openraft::Config {
            cluster_name: name,
            heartbeat_interval: millis(heartbeat),
            election_timeout_min: millis(election_min),
            election_timeout_max: millis(election_max),
            // One message carries the whole snapshot.
            install_snapshot_timeout: 60_000,
            snapshot_policy,
            max_in_snapshot_log_to_keep: keep,
            // Smaller than what a snapshot may lag, or sending one would not end the lag.
            replication_lag_threshold: self.snapshot_after.saturating_add(self.keep),
            // Not before it is known that this member's store may vote.
            enable_elect: false,
            purge_batch_size: 1,
            max_payload_entries: 256,
            ..openraft::Config::default()
        }))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let good = GroupConfig::default();
        assert!(good.openraft(String::new(), Purging::BySnapshot).is_ok());
        let (heartbeat, election_min, election_max) = (good.heartbeat, good.election_min, good.election_max);
        let short = GroupConfig { election_min: heartbeat * 3 - Duration::from_millis(1), ..good.clone() };
        let flat = GroupConfig { election_max: election_min, ..good.clone() };
        let zero = GroupConfig { heartbeat: Duration::ZERO, ..good.clone() };
        for (config, error) in [
            (short.clone(), ConfigError::ElectionTooShort { election_min: short.election_min, heartbeat }),
            (flat, ConfigError::ElectionNotSpread { election_max: election_min, election_min }),
            (zero, ConfigError::Zero),
            (GroupConfig { snapshot_after: 0, ..good }, ConfigError::Zero),
        ] {
            assert_eq!(config.openraft(String::new(), Purging::BySnapshot).unwrap_err(), error);
        }
        assert!(election_max > election_min);
    }
}
