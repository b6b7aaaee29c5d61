//! The one thread that writes. It takes the queued writes of all groups, puts them into one batch with one fsync, and
//! only then answers them.
//!
//! It never reorders: later writes to a key win, and nothing is answered before everything queued ahead of it is
//! durable. After the first failure it answers every write with an error: what is on disk is no longer known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use fjall::PersistMode;

use super::error::StoreError;
use super::files::{Files, NUMBER_KEY, Table};
use super::mark::Marks;
use crate::limits::WRITE_BATCH_BYTES_MAX;

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

/// The thread's state.
pub(super) struct Writer {
    pub(super) files: Files,
    pub(super) marks: Marks,
    pub(super) number: u64,
    pub(super) failed: Arc<AtomicBool>,
}

impl Writer {
    /// Runs until told to stop or until nobody can tell it anything more.
    pub(super) fn run(mut self, queue: &Receiver<Message>) {
        let mut stopping = false;
        while !stopping {
            let mut jobs = Vec::new();
            let mut bytes = 0;
            let mut next = queue.recv().ok();
            loop {
                match next {
                    Some(Message::Write(job)) => {
                        bytes += job.changes.iter().map(Change::len).sum::<usize>();
                        jobs.push(job);
                    }
                    Some(Message::Stop) | None => {
                        stopping = true;
                        break;
                    }
                }
                if bytes >= WRITE_BATCH_BYTES_MAX {
                    break;
                }
                match queue.try_recv() {
                    Ok(message) => next = Some(message),
                    Err(_) => break,
                }
            }
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

impl Change {
    fn len(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}
