//! Two stores of one member: the bulk store's writer makes way for the trust store's.

use std::path::Path;
use std::sync::mpsc::channel;

use super::mark::Mark;
use super::suite::{place_in, store_in};
use super::*;

const KIB: usize = 1024;

fn job(bytes: usize, done: Done) -> Job {
    let change = Change { table: Table::Log, key: b"key".to_vec(), value: Some(vec![0; bytes]) };
    Job { changes: vec![change], sync: true, done: Some(done) }
}

/// The fsyncs that twenty jobs cost which wait together, 100 KiB each.
fn fsyncs(store: &Store, record: &Path) -> u64 {
    let (release, held) = channel::<()>();
    store.submit(job(1, Box::new(move |_| held.recv().unwrap())));
    let (written, all) = channel();
    for _ in 0..20 {
        let written = written.clone();
        store.submit(job(100 * KIB, Box::new(move |result| written.send(result.is_ok()).unwrap())));
    }
    let before = Mark::number(record).unwrap().unwrap();
    release.send(()).unwrap();
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
    // The job that held the writer may be confirmed already.
    let costs = |expected: u64, got: u64| (expected..=expected + 1).contains(&got);
    let idle = fsyncs(&bulk, &place.record);
    assert!(costs(1, idle), "{idle}");
    trust.0.load.queued();
    let busy = fsyncs(&bulk, &place.record);
    assert!(costs(2, busy), "{busy}");
    assert!(busy > idle, "{busy} after {idle}");
    trust.0.load.done(1);
    // Nothing of its own holds a store back.
    bulk.0.load.queued();
    let own = fsyncs(&bulk, &place.record);
    assert!(costs(1, own), "{own}");
}

#[test]
fn store_is_busy_until_all_that_was_submitted_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(dir.path());
    let (release, held) = channel::<()>();
    let (started, begun) = channel();
    let holding = move |_| {
        started.send(()).unwrap();
        held.recv().unwrap();
    };
    store.submit(job(1, Box::new(holding)));
    begun.recv().unwrap();
    store.submit(job(1, Box::new(|_| {})));
    assert!(store.0.load.is_busy());
    release.send(()).unwrap();
    store.close();
    assert!(!store.0.load.is_busy());
    // A job that no writer takes any more is answered at once.
    store.submit(job(1, Box::new(|result| assert!(result.is_err()))));
    assert!(!store.0.load.is_busy());
}
