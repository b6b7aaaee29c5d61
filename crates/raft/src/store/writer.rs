//! The one thread that writes. It takes the queued writes of all groups, puts them into one batch with one fsync, and
//! only then answers them.
//!
//! It never reorders: later writes to a key win, and nothing is answered before everything queued ahead of it is
//! durable. After the first failure it answers every write with an error: what is on disk is no longer known.
//!
//! Two stores of one member share a disk. The writer of the bulk store keeps its batches small while the trust store
//! has something to write, so that a write there waits for one small fsync of this one at most.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvError, TryRecvError};

use fjall::PersistMode;

use super::error::StoreError;
use super::files::{Files, NUMBER_KEY, Table};
use super::mark::Marks;
use crate::limits::{WRITE_BATCH_BYTES_MAX, YIELDING_BATCH_BYTES_MAX};

/// One change of one key; no value deletes it.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) table: Table,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

/// What is called when a job is durable or never will be.
pub(crate) type Done = Box<dyn FnOnce(Result<(), Arc<StoreError>>) + Send>;

/// Changes that become durable together.
pub(crate) struct Job {
    pub(crate) changes: Vec<Change>,
    /// Without, the job waits for no fsync: it survives a crash of the process but perhaps not of the machine.
    pub(crate) sync: bool,
    pub(crate) done: Option<Done>,
}

/// What the thread is told.
pub(super) enum Message {
    Write(Job),
    Stop,
}

/// How many jobs of a store are queued or under way. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Load(Arc<AtomicUsize>);

impl Load {
    pub(super) fn queued(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn done(&self, jobs: usize) {
        self.0.fetch_sub(jobs, Ordering::AcqRel);
    }

    pub(super) fn is_busy(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }
}

/// The thread's state.
pub(super) struct Writer {
    pub(super) files: Files,
    pub(super) marks: Marks,
    pub(super) number: u64,
    pub(super) failed: Arc<AtomicBool>,
    /// Its own store's.
    pub(super) load: Load,
    /// That of the store which goes first, if there is one.
    pub(super) yields_to: Option<Load>,
}

impl Writer {
    /// Runs until a message stops it or until all senders are gone.
    pub(super) fn run(mut self, queue: &Receiver<Message>) {
        let mut queue = Queue { messages: queue, held: None, stopped: false };
        let yields_to = self.yields_to.clone();
        let bytes_max = || match &yields_to {
            Some(first) if first.is_busy() => YIELDING_BATCH_BYTES_MAX,
            Some(_) | None => WRITE_BATCH_BYTES_MAX,
        };
        while let Some(jobs) = queue.batch(bytes_max) {
            self.write(jobs);
        }
        if let Err(error) = self.marks.sync() {
            tracing::error!(%error, "the marks of confirmed writes were not synced");
        }
    }

    fn write(&mut self, mut jobs: Vec<Job>) {
        let result = if self.failed.load(Ordering::Acquire) {
            Err(Arc::new(StoreError::Failed))
        } else {
            self.commit(&mut jobs).map_err(Arc::new)
        };
        if let Err(error) = &result {
            let error: &dyn std::error::Error = error;
            tracing::error!(error, "a write did not become durable");
            self.failed.store(true, Ordering::Release);
        }
        self.load.done(jobs.len());
        for done in jobs.into_iter().filter_map(|job| job.done) {
            done(result.clone());
        }
    }

    fn commit(&mut self, jobs: &mut [Job]) -> Result<(), StoreError> {
        let sync = jobs.iter().any(|job| job.sync);
        // All items of a fjall batch share one sequence number, so a key may occur in it only once.
        let mut staged = BTreeMap::new();
        for change in jobs.iter_mut().flat_map(|job| job.changes.drain(..)) {
            staged.insert((change.table, change.key), change.value);
        }
        if staged.is_empty() && !sync {
            return Ok(());
        }
        let number = if sync { self.number + 1 } else { self.number };
        if sync {
            staged.insert((Table::Meta, NUMBER_KEY.to_vec()), Some(number.to_be_bytes().to_vec()));
        }
        let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = self.files.db.batch().durability(Some(mode));
        for ((table, key), value) in staged {
            match value {
                Some(value) => batch.insert(self.files.table(table), key, value),
                None => batch.remove(self.files.table(table), key),
            }
        }
        batch.commit()?;
        if sync {
            self.number = number;
            self.marks.write(number).map_err(StoreError::Mark)?;
        }
        Ok(())
    }
}

/// What waits to be written.
struct Queue<'a> {
    messages: &'a Receiver<Message>,
    /// Taken from the queue, and too much for the batch before.
    held: Option<Job>,
    stopped: bool,
}

impl Queue<'_> {
    /// Waits for a job and takes those behind it into one batch of at most `bytes_max`, which is asked before each; a
    /// single larger job goes alone. None after all is written and the writer is to stop.
    fn batch(&mut self, bytes_max: impl Fn() -> usize) -> Option<Vec<Job>> {
        let first = match self.held.take() {
            Some(held) => held,
            None => self.wait()?,
        };
        let mut bytes = first.len();
        let mut jobs = vec![first];
        while let Some(next) = self.next() {
            bytes += next.len();
            if bytes > bytes_max() {
                self.held = Some(next);
                break;
            }
            jobs.push(next);
        }
        Some(jobs)
    }

    fn wait(&mut self) -> Option<Job> {
        if self.stopped {
            return None;
        }
        match self.messages.recv() {
            Ok(Message::Write(job)) => Some(job),
            Ok(Message::Stop) | Err(RecvError) => {
                self.stopped = true;
                None
            }
        }
    }

    fn next(&mut self) -> Option<Job> {
        if self.stopped {
            return None;
        }
        match self.messages.try_recv() {
            Ok(Message::Write(job)) => Some(job),
            Ok(Message::Stop) | Err(TryRecvError::Disconnected) => {
                self.stopped = true;
                None
            }
            Err(TryRecvError::Empty) => None,
        }
    }
}

impl Job {
    fn len(&self) -> usize {
        self.changes.iter().map(Change::len).sum()
    }
}

impl Change {
    fn len(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::mpsc::channel;

    use super::*;

    const KIB: usize = 1024;

    fn job(bytes: usize) -> Message {
        let change = Change { table: Table::Log, key: Vec::new(), value: Some(vec![0; bytes]) };
        Message::Write(Job { changes: vec![change], sync: true, done: None })
    }

    /// The batches that a writer makes of jobs of these sizes, as sizes, with the limit that holds when each is begun.
    fn batches(jobs: &[usize], limits: &[usize]) -> Vec<Vec<usize>> {
        let (queued, messages) = channel();
        for bytes in jobs {
            queued.send(job(*bytes)).unwrap();
        }
        queued.send(Message::Stop).unwrap();
        let mut queue = Queue { messages: &messages, held: None, stopped: false };
        let mut limits = limits.iter().copied().cycle();
        let mut batches = Vec::new();
        while let Some(jobs) = limits.next().and_then(|limit| queue.batch(|| limit)) {
            batches.push(jobs.iter().map(Job::len).collect());
        }
        batches
    }

    #[test]
    fn batch_is_filled_to_its_limit_and_a_larger_job_goes_alone() {
        let limit = YIELDING_BATCH_BYTES_MAX;
        let (half, large) = (limit / 2, limit + 1);
        assert_eq!(batches(&[half, half, 1], &[limit]), [vec![half, half], vec![1]]);
        assert_eq!(batches(&[half, half + 1, 1], &[limit]), [vec![half], vec![half + 1, 1]]);
        assert_eq!(batches(&[1, large, 1], &[limit]), [vec![1], vec![large], vec![1]]);
        assert_eq!(batches(&[], &[limit]), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn batch_is_small_while_the_other_store_writes() {
        let (queued, messages) = channel();
        for _ in 0..40 {
            queued.send(job(100 * KIB)).unwrap();
        }
        let mut queue = Queue { messages: &messages, held: None, stopped: false };
        let trust = Load::default();
        let asked = Cell::new(0);
        let bytes_max = || {
            asked.set(asked.get() + 1);
            // In the middle of the first batch.
            if asked.get() == 5 {
                trust.queued();
            }
            if trust.is_busy() { YIELDING_BATCH_BYTES_MAX } else { WRITE_BATCH_BYTES_MAX }
        };
        assert_eq!(queue.batch(bytes_max).unwrap().len(), 10);
        assert_eq!(queue.batch(bytes_max).unwrap().len(), 10);
        trust.done(1);
        assert_eq!(queue.batch(bytes_max).unwrap().len(), 20);
    }

    #[test]
    fn what_is_queued_before_a_stop_is_written_and_nothing_after_it() {
        let (queued, messages) = channel();
        for message in [job(WRITE_BATCH_BYTES_MAX), job(1), Message::Stop, job(2)] {
            queued.send(message).unwrap();
        }
        let mut queue = Queue { messages: &messages, held: None, stopped: false };
        let mut batches = std::iter::from_fn(|| queue.batch(|| WRITE_BATCH_BYTES_MAX));
        assert_eq!(batches.by_ref().map(|jobs| jobs.len()).collect::<Vec<_>>(), [1, 1]);
    }
}
