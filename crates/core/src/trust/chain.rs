//! The chain over changes: one hash over every event in order, so that an event that was altered, removed or put
//! elsewhere is found. The state holds the hash and not the events; each member writes those to a file.
//!
//! An event is one line of JSON. The chain covers its bytes up to its last field, which holds the hash after it: `head
//! = BLAKE3-derive("countersign v1 chain of changes", head before || those bytes)`.

use core::fmt;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::limits::EVENTS_PER_CHECKPOINT;

/// The hash after an event.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Head(pub [u8; 32]);

impl Head {
    /// The head after the event whose chained bytes are `text`.
    #[must_use]
    pub fn after(&self, text: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("countersign v1 chain of changes");
        hasher.update(&self.0).update(text.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Head({self})")
    }
}

/// An earlier head, from which a chain can be verified whose first events are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Events up to here.
    pub count: u64,
    /// The head after them.
    pub head: Head,
}

/// Where the chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Chain {
    head: Head,
    count: u64,
    checkpoint: Checkpoint,
}

impl Chain {
    /// The head after the last event.
    pub const fn head(&self) -> Head {
        self.head
    }

    /// How many events there were. The first has the number 1.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The head at the last number that [`EVENTS_PER_CHECKPOINT`] divides.
    pub const fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// Goes on by one event; returns the head after it.
    pub(super) fn extend(&mut self, text: &str) -> Head {
        self.head = self.head.after(text);
        self.count = self.count.saturating_add(1);
        if self.count.is_multiple_of(EVENTS_PER_CHECKPOINT) {
            self.checkpoint = Checkpoint { count: self.count, head: self.head };
        }
        self.head
    }
}

/// What a line begins with, before its number.
const NUMBER: &str = "{\"number\":";
/// What stands before the head, and after it.
const HEAD: (&str, &str) = (",\"head\":\"", "\"}");

/// The line of an event whose chained bytes are `text`.
pub(super) fn line(text: &str, head: Head) -> String {
    let (before, after) = HEAD;
    format!("{text}{before}{head}{after}")
}

/// A line of an events file, taken apart. It is what its head says only if that follows from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The number of the event.
    pub number: u64,
    /// The chained bytes.
    pub text: &'a str,
    /// The head after it, as it says.
    pub head: Head,
}

impl<'a> Line<'a> {
    /// Takes a line apart, without its line feed. None if it is the line of no event.
    pub fn parse(line: &'a str) -> Option<Self> {
        let number = line.strip_prefix(NUMBER)?;
        let number = number.get(..number.find(',')?)?.parse().ok()?;
        let (before, after) = HEAD;
        let rest = line.strip_suffix(after)?;
        let (text, head) = rest.split_at_checked(rest.len().checked_sub(64)?)?;
        let head = HEXLOWER.decode(head.as_bytes()).ok()?;
        Some(Self { number, text: text.strip_suffix(before)?, head: Head(head.try_into().ok()?) })
    }

    /// Whether the event follows one whose head is `before`.
    pub fn follows(&self, before: Head) -> bool {
        before.after(self.text) == self.head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(n: u64) -> (Vec<String>, Chain) {
        let mut chain = Chain::default();
        let lines = (1..=n).map(|number| {
            let text = format!("{NUMBER}{number},\"event\":\"e\"");
            let head = chain.extend(&text);
            line(&text, head)
        });
        (lines.collect(), chain)
    }

    /// The number of the first line that does not follow from the one before.
    fn broken_at(lines: &[String]) -> Option<u64> {
        let mut before = Checkpoint::default();
        for text in lines {
            let Some(line) = Line::parse(text).filter(|l| l.number == before.count + 1 && l.follows(before.head))
            else {
                return Some(before.count + 1);
            };
            before = Checkpoint { count: line.number, head: line.head };
        }
        None
    }

    #[test]
    fn altered_reordered_or_removed_event_breaks_the_chain_there() {
        let (lines, chain) = events(8);
        assert_eq!(broken_at(&lines), None);
        assert_eq!(Line::parse(&lines[7]).unwrap().head, chain.head());
        for at in 0..8 {
            let mut altered = lines.clone();
            altered[at] = altered[at].replace("\"e\"", "\"f\"");
            assert_eq!(broken_at(&altered), Some(at as u64 + 1), "altered");
            let mut forged = lines.clone();
            forged[at] = line(Line::parse(&lines[at]).unwrap().text, Head([9; 32]));
            assert_eq!(broken_at(&forged), Some(at as u64 + 1), "another head");
            // Altered, with the head that follows from that: then the next one does not follow.
            let before = at.checked_sub(1).map_or(Head::default(), |at| Line::parse(&lines[at]).unwrap().head);
            let text = Line::parse(&lines[at]).unwrap().text.replace("\"e\"", "\"f\"");
            forged[at] = line(&text, before.after(&text));
            let next = at as u64 + 2;
            assert_eq!(broken_at(&forged), (next <= 8).then_some(next), "altered, head and all");
        }
        for at in 0..7 {
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            assert_eq!(broken_at(&swapped), Some(at as u64 + 1), "reordered");
            let mut removed = lines.clone();
            removed.remove(at);
            assert_eq!(broken_at(&removed), Some(at as u64 + 1), "removed");
        }
    }

    #[test]
    fn checkpoint_stands_at_the_last_multiple() {
        let every = EVENTS_PER_CHECKPOINT;
        assert_eq!(events(every - 1).1.checkpoint(), Checkpoint::default());
        let (_, at) = events(every);
        assert_eq!(at.checkpoint(), Checkpoint { count: every, head: at.head() });
        let (_, past) = events(every + 1);
        assert_eq!((past.checkpoint(), past.count()), (at.checkpoint(), every + 1));
    }

    #[test]
    fn line_that_is_no_event_is_not_taken_for_one() {
        let (lines, _) = events(1);
        let good = &lines[0];
        for end in 0..good.len() {
            assert_eq!(Line::parse(good.get(..end).unwrap()), None, "torn at {end}");
        }
        for bad in ["", "{}", "{\"gap\":{}}", "{\"number\":x,\"head\":\"\"}"] {
            assert_eq!(Line::parse(bad), None, "{bad}");
        }
        assert_eq!(Line::parse(&good.replace("{\"number\"", " {\"number\"")), None);
        assert_eq!(Line::parse(&format!("{good} ")), None);
    }
}
