//! The events file: one line of JSON for each change, written as the change is applied.
//!
//! Entries are applied again after a restart, from the last snapshot on. The number of the last line says which events
//! are written already, so that none is written twice and none is left out. Numbers that a snapshot skipped are named
//! by a line of their own. The file is bounded: past [`FILE_LEN_MAX`] it takes the place of the one before it.
//!
//! What cannot be written is logged, counted, and named as a gap by the next line that can be.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::trust::chain::{Chain, Checkpoint, Head, Line};
use countersign_core::trust::event::Event;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::identity::datadir::{DataDir, DataDirError, file};

/// Bytes of an events file; with the one before it, twice as many are kept.
pub(crate) const FILE_LEN_MAX: u64 = 16 * 1024 * 1024;

/// How it went since the start.
#[derive(Debug, Default)]
pub(crate) struct EventCounts {
    /// Lines that could not be written.
    pub(crate) failed: AtomicU64,
    /// Events that this member has no line of, because a snapshot skipped them or they could not be written.
    pub(crate) missing: AtomicU64,
}

/// Events that this member has no line of.
#[derive(Debug, Serialize, Deserialize)]
struct Gap {
    gap: Numbers,
    /// The head after the last of them.
    head: String,
}

/// Events of this member's file that are not those of the cluster: they stand before this line, and do not count.
#[derive(Debug, Serialize, Deserialize)]
struct Diverged {
    diverged: Numbers,
}

/// Numbers of events, both ends included.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Numbers {
    from: u64,
    to: u64,
}

/// The file, and the last event that is in it.
#[derive(Debug)]
pub(crate) struct EventLog {
    path: PathBuf,
    older: PathBuf,
    len_max: u64,
    file: Option<File>,
    /// Bytes that were written whole.
    len: u64,
    last: u64,
    /// The heads of its events, to know those that are applied again.
    heads: BTreeMap<u64, Head>,
    /// The newest event that was not written.
    unwritten: Option<Checkpoint>,
    counts: Arc<EventCounts>,
}

impl EventLog {
    /// Opens the file of a data directory, without what a kill left half-written at its end.
    pub(crate) fn open(data: &DataDir) -> Result<Self, DataDirError> {
        Self::open_in(data.file(file::EVENTS), data.file(file::EVENTS_OLDER), FILE_LEN_MAX)
    }

    fn open_in(path: PathBuf, older: PathBuf, len_max: u64) -> Result<Self, DataDirError> {
        let io = |path: &PathBuf, action| {
            let path = path.clone();
            move |source| DataDirError::Io { action, path, source }
        };
        let before = contents(&older, len_max).map_err(io(&older, "read"))?;
        let read = contents(&path, len_max).map_err(io(&path, "read"))?;
        let file = opened(&path).map_err(io(&path, "open"))?;
        let len = file.metadata().map_err(io(&path, "read"))?.len();
        if read.len < len {
            tracing::warn!(
                path = %path.display(), bytes = len - read.len,
                "events file ends within a line: it is repaired"
            );
            file.set_len(read.len).map_err(io(&path, "repair"))?;
        }
        let last = read.last.or(before.last).unwrap_or_default();
        let (len, heads, counts) = (read.len, read.heads, Arc::default());
        Ok(Self { path, older, len_max, file: Some(file), len, last, heads, unwritten: None, counts })
    }

    /// How it went since the start.
    pub(crate) fn counts(&self) -> Arc<EventCounts> {
        Arc::clone(&self.counts)
    }

    /// Writes an event, unless it is there already. Returns whether it is new: applied here for the first time.
    pub(crate) fn append(&mut self, event: &Event) -> bool {
        if event.number <= self.last {
            match self.heads.get(&event.number) {
                Some(head) if *head != event.head => self.diverged(event.number),
                Some(_) | None => return false,
            }
        }
        self.heads.clear();
        if event.number > self.last.saturating_add(1) && !self.gap(event.number.saturating_sub(1)) {
            self.unwritten = Some(Checkpoint { count: event.number, head: event.head });
            return true;
        }
        if self.write(&event.line()) {
            (self.last, self.unwritten) = (event.number, None);
        } else {
            self.unwritten = Some(Checkpoint { count: event.number, head: event.head });
        }
        true
    }

    /// Goes on from a snapshot's chain: events that it holds and this file does not are named as missing.
    pub(crate) fn restored(&mut self, chain: &Chain) {
        self.heads = self.heads.split_off(&chain.count().saturating_add(1));
        if chain.count() > self.last {
            self.unwritten = Some(Checkpoint { count: chain.count(), head: chain.head() });
            self.gap(chain.count());
        }
    }

    /// Makes durable what was written: a snapshot that holds these events may take the place of their entries.
    pub(crate) fn sync(&mut self) {
        if let Some(Err(error)) = self.file.as_ref().map(File::sync_data) {
            self.failed(&error);
        }
    }

    /// Names the events up to `to` that there is no line of. True where none is missing after it.
    fn gap(&mut self, to: u64) -> bool {
        let from = self.last.saturating_add(1);
        let head = self.unwritten.filter(|unwritten| unwritten.count == to).map(|unwritten| unwritten.head.to_string());
        let gap = Gap { gap: Numbers { from, to }, head: head.unwrap_or_default() };
        let written = serde_json::to_string(&gap).is_ok_and(|line| self.write(&line));
        if written {
            tracing::warn!(from, to, "events that were not written here are missing in this member's events file");
            self.counts.missing.fetch_add(to.saturating_sub(self.last), Ordering::Relaxed);
            (self.last, self.unwritten) = (to, None);
        }
        written
    }

    /// The file says something else of an event than what was applied: of another history, or altered.
    fn diverged(&mut self, from: u64) {
        let to = self.last;
        tracing::error!(path = %self.path.display(), from, to, "events file is not of this history");
        let line = serde_json::to_string(&Diverged { diverged: Numbers { from, to } });
        if line.is_ok_and(|line| self.write(&line)) {
            self.last = from.saturating_sub(1);
        }
    }

    /// Writes one line whole, or nothing.
    fn write(&mut self, line: &str) -> bool {
        let line = format!("{line}\n");
        match self.try_write(line.as_bytes()) {
            Ok(()) => {
                self.len = self.len.saturating_add(line.len() as u64);
                true
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    fn try_write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.len > 0 && self.len.saturating_add(line.len() as u64) > self.len_max {
            self.sync();
            self.file = None;
            std::fs::rename(&self.path, &self.older)?;
            self.len = 0;
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => opened(&self.path)?,
        };
        let written = (&file).write_all(line);
        if written.is_err() {
            // Without the beginning of a line, which the next one would run into.
            file.set_len(self.len)?;
        }
        self.file = Some(file);
        written
    }

    fn failed(&self, error: &io::Error) {
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
        tracing::error!(path = %self.path.display(), %error, "an event cannot be written");
    }
}

/// Opens a file to append to, never through a link.
fn opened(path: &PathBuf) -> io::Result<File> {
    let no_link = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(no_link).open(path)
}

/// What a file holds.
#[derive(Debug, Default)]
struct Contents {
    /// Bytes up to the end of the last whole line.
    len: u64,
    /// The number of the last event that it has, or names as missing.
    last: Option<u64>,
    heads: BTreeMap<u64, Head>,
}

fn contents(path: &PathBuf, len_max: u64) -> io::Result<Contents> {
    let mut contents = Contents::default();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(contents),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    // A file is never longer than that, but for one line that is longer than a file.
    file.take(len_max.saturating_mul(2)).read_to_end(&mut bytes)?;
    let mut end = 0_u64;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        end = end.saturating_add(line.len() as u64);
        let Some(line) = line.strip_suffix(b"\n") else { break };
        contents.len = end;
        // What does not read is passed over and left as it is: only an operator takes lines away.
        let Ok(text) = core::str::from_utf8(line) else { continue };
        if let Some(event) = Line::parse(text) {
            contents.heads.insert(event.number, event.head);
            contents.last = Some(event.number);
        } else if let Ok(Gap { gap, .. }) = serde_json::from_str(text) {
            contents.last = Some(gap.to);
        } else if let Ok(Diverged { diverged }) = serde_json::from_str(text) {
            contents.heads.split_off(&diverged.from);
            contents.last = Some(diverged.from.saturating_sub(1));
        }
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use countersign_core::group::GroupMembers;
    use countersign_core::id::{KeyId, NodeId, RequestId};
    use countersign_core::time::UnixMillis;
    use countersign_core::trust::TrustState;
    use countersign_core::trust::author::Author;
    use countersign_core::trust::command::{Command, FEATURE_LEVEL, RevokeKey, Stamped};

    use super::*;
    use crate::trust::replica::tests::bootstrap;

    /// A state and its first events: founded, then a key revoked with each one more.
    struct History {
        states: Vec<TrustState>,
        events: Vec<Event>,
    }

    fn history(n: u8) -> History {
        let mut state = TrustState::new();
        let mut history = History { states: vec![], events: vec![] };
        for at in 0..n {
            let command = if at == 0 { bootstrap(1) } else { Command::RevokeKey(RevokeKey(KeyId([at; 32]))) };
            let author = Author::of_member(NodeId(1), RequestId([at; 16]));
            let stamped = Stamped { level: FEATURE_LEVEL, time: UnixMillis::from_secs(1_800_000_000), author, command };
            history.events.extend(state.apply_recorded(&stamped, &GroupMembers::default()).unwrap().event);
            history.states.push(state.clone());
        }
        assert_eq!(history.events.len(), usize::from(n));
        history
    }

    fn log(dir: &tempfile::TempDir, len_max: u64) -> EventLog {
        EventLog::open_in(dir.path().join("events.jsonl"), dir.path().join("events.1.jsonl"), len_max).unwrap()
    }

    fn read(dir: &tempfile::TempDir, name: &str) -> String {
        std::fs::read_to_string(dir.path().join(name)).unwrap_or_default()
    }

    fn lines(events: &[Event]) -> String {
        events.iter().map(|event| event.line() + "\n").collect()
    }

    #[test]
    fn replayed_events_are_written_once_after_a_kill_at_any_byte() {
        let History { states, events } = history(5);
        let whole = lines(&events);
        for cut in 0..=whole.len() {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("events.jsonl"), &whole.as_bytes()[..cut]).unwrap();
            let complete = whole.bytes().take(cut).filter(|byte| *byte == b'\n').count();
            let mut log = log(&dir, FILE_LEN_MAX);
            // From a snapshot that the file had reached, as it is made durable before any snapshot.
            let snapshot = complete.min(3);
            if snapshot > 0 {
                log.restored(states[snapshot - 1].chain());
            }
            let new: Vec<bool> = events[snapshot..].iter().map(|event| log.append(event)).collect();
            assert_eq!(new.iter().filter(|new| **new).count(), 5 - complete, "cut at {cut}");
            assert_eq!(read(&dir, "events.jsonl"), whole, "cut at {cut}");
        }
    }

    #[test]
    fn events_that_a_snapshot_skipped_are_named_as_missing() {
        let History { states, events } = history(5);
        let dir = tempfile::tempdir().unwrap();
        let mut file = log(&dir, FILE_LEN_MAX);
        file.append(&events[0]);
        file.restored(states[3].chain());
        let gap = format!("{{\"gap\":{{\"from\":2,\"to\":4}},\"head\":\"{}\"}}\n", states[3].chain().head());
        assert_eq!(read(&dir, "events.jsonl"), lines(&events[..1]) + &gap);
        assert_eq!(file.counts().missing.load(Ordering::Relaxed), 3);
        // Nor twice, after a restart from that snapshot.
        let mut file = log(&dir, FILE_LEN_MAX);
        file.restored(states[3].chain());
        assert!(file.append(&events[4]));
        assert_eq!(read(&dir, "events.jsonl"), lines(&events[..1]) + &gap + &lines(&events[4..]));
    }

    #[test]
    fn file_that_is_gone_is_begun_again_with_a_gap() {
        let History { states, events } = history(3);
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(&dir, FILE_LEN_MAX);
        log.restored(states[1].chain());
        log.append(&events[2]);
        let written = read(&dir, "events.jsonl");
        assert!(written.starts_with("{\"gap\":{\"from\":1,\"to\":2}") && written.ends_with(&lines(&events[2..])));
    }

    #[test]
    fn events_of_another_history_are_named_and_those_of_this_one_follow() {
        let (mut ours, theirs) = (history(4), history(4));
        // The same numbers, of other changes.
        let altered = lines(&theirs.events).replace("key.revoked", "key.invited");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("events.jsonl"), altered.replace("\"head\":\"", "\"head\":\"00")).unwrap();
        assert_eq!(log(&dir, FILE_LEN_MAX).last, 0, "lines with a head too long are none");
        let other = lines(&theirs.events[..2]) + &other_head(&theirs.events[2].line()) + "\n";
        std::fs::write(dir.path().join("events.jsonl"), &other).unwrap();
        let mut file = log(&dir, FILE_LEN_MAX);
        let new: Vec<bool> = ours.events.iter().map(|event| file.append(event)).collect();
        assert_eq!(new, [false, false, true, true]);
        let diverged = "{\"diverged\":{\"from\":3,\"to\":3}}\n";
        let expected = other + diverged + &lines(&ours.events.split_off(2));
        assert_eq!(read(&dir, "events.jsonl"), expected);
        assert_eq!(log(&dir, FILE_LEN_MAX).last, 4);
    }

    /// The line with another head.
    fn other_head(line: &str) -> String {
        let (text, head) = line.split_at(line.len() - 66);
        text.to_owned() + &head.replace('0', "1").replace('2', "3")
    }

    #[test]
    fn full_file_takes_the_place_of_the_one_before_it() {
        let History { events, .. } = history(7);
        let len_max = (lines(&events[..3]).len()) as u64;
        let dir = tempfile::tempdir().unwrap();
        let mut file = log(&dir, len_max);
        for event in &events[..3] {
            file.append(event);
        }
        assert_eq!((read(&dir, "events.jsonl"), read(&dir, "events.1.jsonl")), (lines(&events[..3]), String::new()));
        file.append(&events[3]);
        assert_eq!(
            (read(&dir, "events.jsonl"), read(&dir, "events.1.jsonl")),
            (lines(&events[3..4]), lines(&events[..3]))
        );
        // Killed after the one was renamed and before the next was begun.
        std::fs::rename(dir.path().join("events.jsonl"), dir.path().join("events.1.jsonl")).unwrap();
        let mut file = log(&dir, len_max);
        let new: Vec<bool> = events.iter().map(|event| file.append(event)).collect();
        assert_eq!(new, [false, false, false, false, true, true, true]);
    }

    #[test]
    fn event_that_cannot_be_written_is_counted_and_named_as_missing_later() {
        let History { events, .. } = history(4);
        let dir = tempfile::tempdir().unwrap();
        let mut file = log(&dir, FILE_LEN_MAX);
        file.append(&events[0]);
        let path = dir.path().join("events.jsonl");
        file.file = Some(File::open(&path).unwrap()); // not writable
        file.append(&events[1]);
        assert_eq!(read(&dir, "events.jsonl"), lines(&events[..1]));
        file.file = None;
        file.append(&events[2]);
        file.append(&events[3]);
        let gap = format!("{{\"gap\":{{\"from\":2,\"to\":2}},\"head\":\"{}\"}}\n", events[1].head);
        assert_eq!(read(&dir, "events.jsonl"), lines(&events[..1]) + &gap + &lines(&events[2..]));
        assert!(file.counts().failed.load(Ordering::Relaxed) >= 1);
    }

    #[test]
    fn events_file_is_private_and_written_through_no_link() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        drop(log(&dir, FILE_LEN_MAX));
        let path = dir.path().join("events.jsonl");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        EventLog::open_in(path, dir.path().join("events.1.jsonl"), FILE_LEN_MAX).unwrap_err();
    }
}
