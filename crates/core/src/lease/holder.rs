//! The member's side of a lease.

use super::LeaseLength;
use crate::id::Generation;
use crate::time::BootMillis;

/// What a member knows of its own lease. Lost with the process: a start begins without one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Holder {
    enforced: Generation,
    deadline: Option<BootMillis>,
    /// Granted, but it names a generation that is not in force here yet.
    waiting: Option<(Generation, BootMillis)>,
}

impl Holder {
    /// The grant for a request that was sent after the clock read `asked`, naming the newest committed generation. It
    /// counts from then, and only once that generation is enforced.
    pub fn granted(&mut self, asked: BootMillis, named: Generation, length: LeaseLength) {
        self.granted_for(asked, named, length.millis());
    }

    /// The same for a lease that lasts `millis`. A member that delegates a lease gives what is left of its own.
    pub fn granted_for(&mut self, asked: BootMillis, named: Generation, millis: u64) {
        let deadline = asked.plus(millis);
        if self.waiting.is_none_or(|(generation, until)| generation <= named || until <= asked) {
            self.waiting = Some((named, deadline));
        }
        self.start_if_enforced();
    }

    /// This generation is in force here, and no connection that it refuses is open.
    pub fn enforced(&mut self, generation: Generation) {
        self.enforced = self.enforced.max(generation);
        self.start_if_enforced();
    }

    /// Another leader leads: the holder forgets each grant of its predecessor that has not started.
    pub const fn leader_changed(&mut self) {
        self.waiting = None;
    }

    /// Gives the lease up: the member learned that it is out, or is stopping.
    pub fn surrender(&mut self) {
        self.deadline = None;
        self.waiting = None;
    }

    /// The moment from which this member serves no client; none without a lease.
    pub const fn deadline(&self) -> Option<BootMillis> {
        self.deadline
    }

    /// Whether the lease counts at `now`.
    pub fn holds(&self, now: BootMillis) -> bool {
        self.deadline.is_some_and(|deadline| now < deadline)
    }

    fn start_if_enforced(&mut self) {
        if let Some((named, deadline)) = self.waiting
            && named <= self.enforced
        {
            self.waiting = None;
            self.deadline = self.deadline.max(Some(deadline));
        }
    }
}
