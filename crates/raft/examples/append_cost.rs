//! What an append costs on this machine: one member per group, so that only the store is measured.
//!
//! `cargo run --release -p countersign-raft --example append_cost [directory]`
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_core::group::GroupMembers;
use countersign_core::id::{ClusterId, GroupId, Incarnation, NodeId, StoreId};
use countersign_raft::{
    ApplyError, Assignments, Binding, BoxFuture, Group, GroupConfig, GroupMachine, GroupState, Groups, LogPosition,
    RaftRpc, RestoreError, Store, StoreKind, StorePlace, Transport, TransportError,
};

const COMMAND: [u8; 300] = [7; 300];
const ROUNDS: usize = 200;

struct Nothing;

impl GroupMachine for Nothing {
    fn apply(&mut self, _: LogPosition, _: &GroupMembers, _: &[u8]) -> Result<Vec<u8>, ApplyError> {
        Ok(Vec::new())
    }

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }
}

struct Everyone;

impl Assignments for Everyone {
    fn assigned(&self, _: GroupId, _: NodeId) -> Option<bool> {
        Some(true)
    }

    fn stores(&self, _: StoreKind, _: NodeId) -> Vec<StoreId> {
        vec![StoreId([1; 16])]
    }

    fn may_vote(&self, _: GroupId) -> bool {
        true
    }
}

struct NoTransport;

impl Transport for NoTransport {
    fn call(
        &self,
        _: NodeId,
        _: GroupId,
        _: RaftRpc,
        _: Vec<u8>,
        _: Duration,
    ) -> BoxFuture<'_, Result<Vec<u8>, TransportError>> {
        Box::pin(async { Err(TransportError::Unreachable) })
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The floor: a bare file, written and fsynced.
fn bare_file(dir: &std::path::Path) -> Duration {
    let mut file = std::fs::File::create(dir.join("bare")).unwrap();
    file.set_len(64 << 20).unwrap();
    file.sync_all().unwrap();
    let times = (0..ROUNDS).map(|_| {
        let begin = Instant::now();
        file.write_all(&COMMAND).unwrap();
        file.sync_data().unwrap();
        begin.elapsed()
    });
    median(times.collect())
}

async fn propose(group: Group, count: usize) {
    let mut proposing = tokio::task::JoinSet::new();
    for _ in 0..count {
        let group = group.clone();
        proposing.spawn(async move { group.propose(COMMAND.to_vec()).await.unwrap() });
    }
    proposing.join_all().await;
}

async fn rounds(groups: &[Group], commands: usize) -> Duration {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let mut all = tokio::task::JoinSet::new();
        for group in groups {
            all.spawn(propose(group.clone(), commands));
        }
        all.join_all().await;
        times.push(begin.elapsed());
    }
    median(times)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let dir = match std::env::args_os().nth(1) {
        Some(given) => tempfile::tempdir_in(given),
        None => tempfile::tempdir(),
    }
    .unwrap();
    let own = StoreId([1; 16]);
    let binding = Binding { cluster: ClusterId([1; 16]), node: NodeId(1), incarnation: Incarnation(0), store: own };
    let place = |name: &str| {
        let record = dir.path().join(name).with_extension("record");
        StorePlace { path: dir.path().join(name), record, binding }
    };
    let (trust, bulk) = (place("trust"), place("bulk"));
    Store::create(&trust, StoreId([3; 16])).unwrap();
    Store::create(&bulk, StoreId([4; 16])).unwrap();
    let groups = Groups::new(NodeId(1), own, Store::open(&trust).unwrap(), Arc::new(NoTransport), Arc::new(Everyone));
    groups.open_bulk(&bulk).unwrap();
    let mut running = Vec::new();
    for number in 0..16 {
        let group = groups.start(GroupId(number), Box::new(Nothing), GroupConfig::default()).await.unwrap();
        group.initialize(&BTreeSet::from([NodeId(1)])).await.unwrap();
        group.watch().wait_for(|status| status.state == GroupState::Leader).await.unwrap();
        running.push(group);
    }
    println!("bare file, 300 bytes, write and fdatasync: {:?}", bare_file(dir.path()));
    println!("one group, one command, committed and applied: {:?}", rounds(&running[..1], 1).await);
    let wide = rounds(&running[..1], 64).await;
    println!("one group, 64 commands at once: {wide:?}, {:.0} commands/s", 64.0 / wide.as_secs_f64());
    let all = rounds(&running, 64).await;
    println!("16 groups, 64 commands each: {all:?}, {:.0} commands/s", 1024.0 / all.as_secs_f64());
    groups.shutdown().await;
}
