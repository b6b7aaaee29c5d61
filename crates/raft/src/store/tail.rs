//! The end of one group's log in memory: entries not yet durable, and the latest durable ones for those who replicate
//! and apply them.
//!
//! It is the authority on where the log begins and ends; the disk follows. It never drops an entry that the disk may
//! not have yet.

use std::collections::BTreeMap;
use std::ops::Range;

use super::error::StoreError;
use super::tails::Held;
use crate::limits::TAIL_BYTES_MAX;
use crate::types::{Entry, LogId};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// The last entry deleted from the front.
    purged: Option<LogId>,
    /// The last entry, or `purged` if there is none.
    last: Option<LogId>,
    /// A suffix of the log, with each entry's encoded length.
    entries: BTreeMap<u64, (Entry, usize)>,
    /// Their bytes.
    held: Held,
    /// All entries up to here are durable.
    durable: Option<u64>,
    /// Grows with each truncation: a write that became durable counts only for the log it was made for.
    generation: u64,
}

/// Names an append, to be handed back when it is durable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    generation: u64,
    upto: u64,
}

impl Tail {
    /// A log found on disk.
    pub(crate) fn found(purged: Option<LogId>, last: Option<LogId>, held: Held) -> Self {
        let last = last.max(purged);
        Self { purged, last, durable: last.map(|id| id.index), held, ..Self::default() }
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.last
    }

    /// Adds an entry; `None` if it was purged already, so that there is nothing to keep. Holes are not looked for: a
    /// snapshot may be ahead of the log, and Raft itself checks what it reads. Going backwards is an error, because it
    /// would hide an entry that may be committed.
    pub(crate) fn append(&mut self, entry: Entry, len: usize) -> Result<Option<Ticket>, StoreError> {
        let index = entry.log_id.index;
        if self.purged.is_some_and(|purged| index <= purged.index) {
            return Ok(None);
        }
        if let Some(last) = self.last.filter(|last| index <= last.index) {
            return Err(StoreError::Disorder { index, last: last.index });
        }
        self.last = Some(entry.log_id);
        self.held.add(len);
        self.entries.insert(index, (entry, len));
        Ok(Some(Ticket { generation: self.generation, upto: index }))
    }

    /// The append is on disk: its entries may leave memory.
    pub(crate) fn durable(&mut self, ticket: Ticket) {
        if ticket.generation == self.generation {
            self.durable = self.durable.max(Some(ticket.upto));
            self.shrink(TAIL_BYTES_MAX);
        }
    }

    /// Deletes from `index` to the end; returns the indexes that the disk must delete.
    pub(crate) fn truncate(&mut self, index: u64, before: Option<LogId>) -> Range<u64> {
        let end = self.last.map_or(index, |last| last.index.saturating_add(1)).max(index);
        for (_, len) in self.entries.split_off(&index).into_values() {
            self.held.remove(len);
        }
        if end > index {
            self.last = before.max(self.purged);
            self.durable = self.durable.map(|durable| durable.min(index.saturating_sub(1)));
            self.generation += 1;
        }
        index..end
    }

    /// Deletes up to and including `upto`, which may lie beyond the end; returns the indexes that the disk must delete.
    pub(crate) fn purge(&mut self, upto: LogId) -> Range<u64> {
        let start = self.purged.map_or(0, |id| id.index.saturating_add(1));
        let end = self.last.map_or(0, |id| id.index.min(upto.index).saturating_add(1));
        self.purged = self.purged.max(Some(upto));
        self.last = self.last.max(Some(upto));
        let kept = self.entries.split_off(&upto.index.saturating_add(1));
        for (_, len) in std::mem::replace(&mut self.entries, kept).into_values() {
            self.held.remove(len);
        }
        start..end.max(start)
    }

    /// The part of `range` that the log has.
    pub(crate) fn clamp(&self, range: Range<u64>) -> Range<u64> {
        let start = range.start.max(self.purged.map_or(0, |id| id.index.saturating_add(1)));
        let end = range.end.min(self.last.map_or(0, |id| id.index.saturating_add(1)));
        start..end.max(start)
    }

    /// Splits a clamped range into what must be read from disk and what is here.
    pub(crate) fn read(&self, range: Range<u64>) -> (Range<u64>, Vec<(Entry, usize)>) {
        let here = self.entries.keys().next().copied().unwrap_or(u64::MAX);
        let cut = here.clamp(range.start, range.end);
        (range.start..cut, self.entries.range(cut..range.end).map(|(_, entry)| entry.clone()).collect())
    }

    /// Forgets all durable entries: they are read from disk from now on.
    pub(crate) fn forget(&mut self) {
        self.shrink(0);
    }

    /// Forgets durable entries past `max` bytes, oldest first.
    fn shrink(&mut self, max: usize) {
        while self.held.bytes() > max {
            match self.entries.first_entry() {
                Some(oldest) if Some(*oldest.key()) <= self.durable => self.held.remove(oldest.remove().1),
                Some(_) | None => break,
            }
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.held.bytes()
    }
}

#[cfg(test)]
mod tests {
    use openraft::testing::blank_ent;

    use super::*;
    use crate::types::TypeConfig;

    fn entry(term: u64, index: u64) -> Entry {
        blank_ent::<TypeConfig>(term, 1, index)
    }

    fn indexes(entries: &[(Entry, usize)]) -> Vec<u64> {
        entries.iter().map(|(entry, _)| entry.log_id.index).collect()
    }

    #[test]
    fn what_is_not_durable_stays_whatever_its_size() {
        let mut tail = Tail::default();
        let first = tail.append(entry(1, 1), TAIL_BYTES_MAX).unwrap().unwrap();
        let second = tail.append(entry(1, 2), TAIL_BYTES_MAX).unwrap().unwrap();
        assert_eq!(indexes(&tail.read(1..3).1), [1, 2]);
        tail.durable(first);
        let (disk, here) = tail.read(1..3);
        assert_eq!((disk, indexes(&here)), (1..2, vec![2]));
        tail.durable(second);
        assert_eq!(tail.read(1..3).0, 1..2);
        assert_eq!(tail.append(entry(1, 2), 1).unwrap_err().to_string(), "entry 2 is not in order after 2");
    }

    #[test]
    fn a_write_of_a_truncated_entry_does_not_make_its_successor_durable() {
        let mut tail = Tail::default();
        tail.append(entry(1, 1), 1).unwrap();
        let stale = tail.append(entry(1, 2), TAIL_BYTES_MAX).unwrap().unwrap();
        assert_eq!(tail.truncate(2, Some(entry(1, 1).log_id)), 2..3);
        tail.append(entry(2, 2), TAIL_BYTES_MAX).unwrap();
        tail.durable(stale);
        assert_eq!(indexes(&tail.read(1..3).1), [1, 2]);
        assert_eq!(tail.last(), Some(entry(2, 2).log_id));
    }

    #[test]
    fn purging_beyond_the_end_leaves_an_empty_log_that_goes_on_from_there() {
        let mut tail = Tail::default();
        for index in 1..=3 {
            tail.append(entry(1, index), 1).unwrap();
        }
        assert_eq!(tail.purge(entry(2, 9).log_id), 0..4);
        assert_eq!((tail.purged(), tail.last()), (Some(entry(2, 9).log_id), Some(entry(2, 9).log_id)));
        assert!(tail.clamp(0..100).is_empty());
        assert_eq!(tail.bytes(), 0);
        assert!(tail.append(entry(2, 9), 1).unwrap().is_none());
        tail.append(entry(2, 10), 1).unwrap();
        assert_eq!(tail.clamp(0..100), 10..11);
    }
}
