//! Two stores of one member: the bulk store's writer makes way for the trust store's, and each has a limit for what its
//! groups hold in memory.

use std::path::Path;
use std::sync::mpsc::{Sender, channel};

use countersign_core::id::GroupId;
use openraft::EntryPayload;
use openraft::storage::RaftLogStorageExt;
use openraft::testing::blank_ent;

use super::mark::Mark;
use super::suite::{log_in, place_in, store_in};
use super::*;
use crate::types::{Batch, TypeConfig};

const KIB: usize = 1024;

fn job(bytes: usize, done: Done) -> Job {
    let change = Change { table: Table::Log, key: b"key".to_vec(), value: Some(vec![0; bytes]) };
    Job { changes: vec![change], sync: true, done: Some(done) }
}

/// Holds a store's writer until it is dropped, after a batch of its own.
struct Holding(Sender<()>);

impl Holding {
    fn of(store: &Store) -> Self {
        let (release, held) = channel::<()>();
        let (started, begun) = channel();
        let holding = move |_| {
            started.send(()).unwrap();
            held.recv().unwrap();
        };
        store.submit(job(1, Box::new(holding)));
        begun.recv().unwrap();
        Self(release)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.send(()).unwrap();
    }
}

/// The fsyncs that twenty jobs cost which wait together, 100 KiB each.
fn fsyncs(store: &Store, record: &Path) -> u64 {
    let held = Holding::of(store);
    let (written, all) = channel();
    for _ in 0..20 {
        let written = written.clone();
        store.submit(job(100 * KIB, Box::new(move |result| written.send(result.is_ok()).unwrap())));
    }
    let before = Mark::number(record).unwrap().unwrap();
    drop(held);
    assert!((0..20).all(|_| all.recv().unwrap()));
    Mark::number(record).unwrap().unwrap() - before
}

#[test]
fn bulk_store_writes_in_small_batches_while_the_trust_store_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let trust = store_in(&dir.path().join("trust"));
    let place = place_in(&dir.path().join("bulk"));
    Store::create(&place, StoreId([4; 16])).unwrap();
    let bulk = trust.open_beside(&place).unwrap();
    assert_eq!(fsyncs(&bulk, &place.record), 1);
    trust.0.load.queued();
    assert_eq!(fsyncs(&bulk, &place.record), 2);
    trust.0.load.done(1);
    // Nothing of its own holds a store back.
    bulk.0.load.queued();
    assert_eq!(fsyncs(&bulk, &place.record), 1);
}

#[test]
fn store_is_busy_until_all_that_was_submitted_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(dir.path());
    let held = Holding::of(&store);
    store.submit(job(1, Box::new(|_| {})));
    assert!(store.0.load.is_busy());
    drop(held);
    store.close();
    assert!(!store.0.load.is_busy());
    // A job that no writer takes any more is answered at once.
    store.submit(job(1, Box::new(|result| assert!(result.is_err()))));
    assert!(!store.0.load.is_busy());
}

/// Appends so many entries of half a group's limit, with their framing, durably.
async fn fill(log: &mut GroupLog, entries: u64) {
    for index in 1..=entries {
        let mut entry = blank_ent::<TypeConfig>(1, 1, index);
        entry.payload = EntryPayload::Normal(Batch(Arc::new(vec![vec![7; TAIL_BYTES_MAX / 2 - KIB].into()])));
        log.blocking_append([entry]).await.unwrap();
    }
}

#[tokio::test]
async fn data_group_tails_are_bounded_and_the_trust_tail_stays() {
    let dir = tempfile::tempdir().unwrap();
    let trust = store_in(&dir.path().join("trust"));
    let place = place_in(&dir.path().join("bulk"));
    Store::create(&place, StoreId([4; 16])).unwrap();
    let bulk = trust.open_beside(&place).unwrap();
    let mut trust_log = log_in(&trust, GroupId::TRUST).await;
    fill(&mut trust_log, 1).await;
    let held = trust.tails().bytes();
    let mut logs = Vec::new();
    // Each at its own limit, as many as are at the limit of all, and some past it.
    let groups = DATA_TAIL_BYTES_MAX / TAIL_BYTES_MAX;
    for group in 1..=groups as u64 + 2 {
        let mut log = log_in(&bulk, GroupId(group)).await;
        fill(&mut log, 2).await;
        logs.push(log);
        assert!(bulk.tails().bytes() <= DATA_TAIL_BYTES_MAX);
    }
    assert!(bulk.tails().bytes() > DATA_TAIL_BYTES_MAX - 2 * TAIL_BYTES_MAX);
    assert_eq!(trust.tails().bytes(), held);
    assert!(held >= TAIL_BYTES_MAX / 2 - KIB);
    // What left memory is read from disk.
    assert_eq!(logs[0].entries(1..3, usize::MAX).await.unwrap().len(), 2);
    logs.clear();
    assert_eq!(bulk.tails().bytes(), 0);
}
