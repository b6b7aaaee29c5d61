//! A durable store of groups of one member: one directory, one database, one writing thread. A member has one for its
//! trust group and, if it has data groups, one for those.
//!
//! A vote or an append is answered only after its fsync. When a write fails, the store accepts nothing more and every
//! group on it stops: a promise that cannot be persisted is not made.

mod binding;
mod error;
mod files;
mod journal;
mod kind;
mod log;
mod mark;
mod removed;
mod snapshots;
#[cfg(test)]
pub(crate) mod suite;
mod tail;
mod tails;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use countersign_core::id::StoreId;
use countersign_core::locked::Locked;
use tokio::sync::oneshot;

use crate::limits::{DATA_TAIL_BYTES_MAX, TAIL_BYTES_MAX};

pub use binding::{Binding, StorePlace};
pub use error::OpenError;
pub(crate) use error::StoreError;
pub(crate) use files::{Files, Record, Table, log_key, member_key, record_key};
pub use kind::StoreKind;
pub(crate) use log::GroupLog;
pub(crate) use snapshots::{Checkpoint, Replaced, Saved, Snapshots, StoredSnapshot};
pub(crate) use writer::{Change, Done, Job};

use files::Opened;
use tails::Tails;
use writer::{Load, Message, Writer};

/// The open store of one member. Clones share it.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    binding: Binding,
    /// Gone once the store is closed.
    files: Locked<Option<Files>>,
    queue: Sender<Message>,
    failed: Arc<AtomicBool>,
    load: Load,
    tails: Tails,
    closing: Locked<Option<Closing>>,
}

struct Closing {
    writer: JoinHandle<()>,
    /// Dropped last: until then the directory is ours.
    lock: File,
}

impl Store {
    /// Makes an empty store for a member that is being made; `own` is the store's own id, drawn for it. Does nothing
    /// where that member's store is already. It takes the place of one that was made for another and never used.
    ///
    /// # Errors
    /// A store that was used by another member is not replaced, nor one that is gone and had confirmed writes.
    pub fn create(place: &StorePlace, own: StoreId) -> Result<(), OpenError> {
        files::create(place, own)
    }

    /// Opens the store at its place. Blocks while the journal is replayed.
    ///
    /// # Errors
    /// One that is missing, was made for another member, or is behind what it has confirmed is never used.
    pub fn open(place: &StorePlace) -> Result<Self, OpenError> {
        Self::opened(place, None, TAIL_BYTES_MAX)
    }

    /// Opens the bulk store of the same member, whose writer makes way for this one's.
    pub(crate) fn open_beside(&self, place: &StorePlace) -> Result<Self, OpenError> {
        Self::opened(place, Some(self.0.load.clone()), DATA_TAIL_BYTES_MAX)
    }

    fn opened(place: &StorePlace, yields_to: Option<Load>, tail_bytes_max: usize) -> Result<Self, OpenError> {
        let Opened { files, marks, number, lock } = files::open(place)?;
        removed::sweep(&files).map_err(|e| OpenError::corrupt(&place.path, e))?;
        let (queue, messages) = channel();
        let (failed, load) = (Arc::new(AtomicBool::new(false)), Load::default());
        let writer =
            Writer { files: files.clone(), marks, number, failed: Arc::clone(&failed), load: load.clone(), yields_to };
        let writer = std::thread::Builder::new()
            .name("raft-store".to_owned())
            .spawn(move || writer.run(&messages))
            .map_err(|e| OpenError::io(&place.path, e))?;
        Ok(Self(Arc::new(Shared {
            binding: place.binding,
            files: Locked::new(Some(files)),
            queue,
            failed,
            load,
            tails: Tails::new(tail_bytes_max),
            closing: Locked::new(Some(Closing { writer, lock })),
        })))
    }

    /// Writes what is queued, then releases the directory. Blocks; a caller that still uses the store gets errors.
    pub fn close(&self) {
        self.0.close();
    }

    /// The member that the store was made for, with the id under which it answers.
    pub fn binding(&self) -> Binding {
        self.0.binding
    }

    /// Whether a write failed: nothing is accepted any more, and the process should end.
    pub fn failed(&self) -> bool {
        self.0.failed.load(Ordering::Acquire)
    }

    /// Makes every further write fail, as a full or broken disk would.
    #[doc(hidden)]
    pub fn fail_writes_for_testing(&self) {
        self.0.failed.store(true, Ordering::Release);
    }

    fn tails(&self) -> &Tails {
        &self.0.tails
    }

    pub(crate) fn files(&self) -> Result<Files, StoreError> {
        self.0.files.lock().clone().ok_or(StoreError::Closed)
    }

    /// Queues changes. They become durable in the order in which this is called.
    pub(crate) fn submit(&self, job: Job) {
        self.0.load.queued();
        if let Err(refused) = self.0.queue.send(Message::Write(job)) {
            self.0.load.done(1);
            if let Message::Write(Job { done: Some(done), .. }) = refused.0 {
                done(Err(Arc::new(StoreError::Closed)));
            }
        }
    }

    /// Queues changes at once; the future waits until they are durable.
    pub(crate) fn write(&self, changes: Vec<Change>) -> impl Future<Output = Result<(), Arc<StoreError>>> + use<> {
        self.queue(changes, true)
    }

    /// The same without an fsync: what is written survives a crash of the process but perhaps not of the machine.
    pub(crate) fn write_unsynced(
        &self,
        changes: Vec<Change>,
    ) -> impl Future<Output = Result<(), Arc<StoreError>>> + use<> {
        self.queue(changes, false)
    }

    fn queue(&self, changes: Vec<Change>, sync: bool) -> impl Future<Output = Result<(), Arc<StoreError>>> + use<> {
        let (done, durable) = oneshot::channel();
        let done: Done = Box::new(move |result| drop(done.send(result)));
        self.submit(Job { changes, sync, done: Some(done) });
        async { durable.await.unwrap_or_else(|_| Err(Arc::new(StoreError::Closed))) }
    }

    /// Runs a read that may touch the disk on a thread that may block.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Files) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let files = self.files()?;
        tokio::task::spawn_blocking(move || read(&files)).await.map_err(|_| StoreError::Cancelled)?
    }
}

impl Shared {
    fn close(&self) {
        let closing = self.closing.lock().take();
        let Some(Closing { writer, lock }) = closing else { return };
        // Both fail only if the thread has ended already.
        drop(self.queue.send(Message::Stop));
        drop(writer.join());
        drop(self.files.lock().take());
        drop(lock);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("failed", &self.failed()).finish_non_exhaustive()
    }
}
