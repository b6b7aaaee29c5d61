//! What may wait to be proposed: in one group, in all data groups together, and in the trust group whatever those hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;
use std::time::Duration;

use countersign_core::group::GroupMembers;
use countersign_core::id::GroupId;
use countersign_raft::limits::{DATA_PROPOSAL_BYTES_MAX, ENTRY_LEN_MAX, PROPOSAL_BYTES_MAX};
use countersign_raft::{
    ApplyError, Group, GroupConfig, GroupMachine, GroupState, LogPosition, ProposeError, Proposed, RestoreError,
};
use support::*;

/// Closed, no machine gets on with what it applies.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn set(&self, closed: bool) {
        *self.0.0.lock().unwrap() = closed;
        self.0.1.notify_all();
    }
}

/// A test that fails leaves no machine that waits: the runtime would wait for it.
struct OpenedInTheEnd(Gate);

impl Drop for OpenedInTheEnd {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// A machine that waits at a gate, and says that it does.
struct Waiting {
    gate: Gate,
    waits: Arc<AtomicBool>,
}

impl GroupMachine for Waiting {
    fn apply(&mut self, _: LogPosition, _: &GroupMembers, _: &[u8]) -> Result<Vec<u8>, ApplyError> {
        let mut closed = self.gate.0.0.lock().unwrap();
        while *closed {
            self.waits.store(true, Ordering::Relaxed);
            closed = self.gate.0.1.wait(closed).unwrap();
        }
        Ok(Vec::new())
    }

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), RestoreError> {
        Ok(())
    }
}

type Proposing = Pin<Box<dyn Future<Output = Result<Proposed, ProposeError>> + Send>>;

fn proposing(group: &Group, bytes: usize) -> Proposing {
    let group = group.clone();
    Box::pin(async move { group.propose(vec![7; bytes]).await })
}

/// Begins to propose; what was answered at once is returned.
async fn begun(proposing: &mut Proposing) -> Option<Result<Proposed, ProposeError>> {
    std::future::poll_fn(|context| match proposing.as_mut().poll(context) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Proposes so many bytes, which all wait.
async fn fill(group: &Group, bytes: usize, waiting: &mut Vec<Proposing>) {
    assert_eq!(bytes % ENTRY_LEN_MAX, 0);
    for _ in 0..bytes / ENTRY_LEN_MAX {
        let mut next = proposing(group, ENTRY_LEN_MAX);
        assert_eq!(begun(&mut next).await, None);
        waiting.push(next);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 10)]
async fn data_groups_share_a_budget_apart_from_the_trust_group() {
    const FULL: u64 = (DATA_PROPOSAL_BYTES_MAX / PROPOSAL_BYTES_MAX) as u64;
    let (gate, roster) = (Gate::default(), Roster::default());
    let _opened = OpenedInTheEnd(gate.clone());
    let mut member = Member::new(1, &Net::default(), &roster);
    let mut groups = Vec::new();
    member.bulk();
    for number in 0..=FULL + 1 {
        roster.set(GroupId(number), &[1]);
        let waits = Arc::<AtomicBool>::default();
        let machine = Waiting { gate: gate.clone(), waits: Arc::clone(&waits) };
        // Patient: nothing is answered for its time.
        let config = GroupConfig { deadline: Duration::from_secs(120), ..config() };
        let group = member.groups.start(GroupId(number), Box::new(machine), config).await.unwrap();
        group.initialize(&ids(&[1])).await.unwrap();
        until(&group, "it leads", |s| s.state == GroupState::Leader).await;
        groups.push((group, waits));
    }
    let (trust, spare) = (groups.remove(0).0, groups.pop().unwrap().0);
    gate.set(true);
    let mut waiting = Vec::new();
    for (group, waits) in &groups {
        // One entry is under way for good; what comes after it waits.
        let mut first = proposing(group, 1);
        assert_eq!(begun(&mut first).await, None);
        while !waits.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        waiting.push(first);
        fill(group, PROPOSAL_BYTES_MAX - ENTRY_LEN_MAX, &mut waiting).await;
    }
    // At the limit of one group, and past it.
    fill(&groups[0].0, ENTRY_LEN_MAX, &mut waiting).await;
    assert_eq!(begun(&mut proposing(&groups[0].0, 1)).await, Some(Err(ProposeError::Overloaded)));
    // At the limit of all data groups, and past it.
    for (group, _) in groups.iter().skip(1) {
        fill(group, ENTRY_LEN_MAX, &mut waiting).await;
    }
    assert_eq!(begun(&mut proposing(&spare, 1)).await, Some(Err(ProposeError::Overloaded)));
    // The trust group has all of its own, and no more.
    let mut own = Vec::new();
    let mut first = proposing(&trust, 1);
    assert_eq!(begun(&mut first).await, None);
    own.push(first);
    until(&trust, "the entry is in the log", |s| s.last_log > Some(1)).await;
    fill(&trust, PROPOSAL_BYTES_MAX, &mut own).await;
    assert_eq!(begun(&mut proposing(&trust, 1)).await, Some(Err(ProposeError::Overloaded)));
    // What is answered makes room.
    gate.set(false);
    for answer in waiting.into_iter().chain(own) {
        answer.await.unwrap();
    }
    for group in [&spare, &trust, &groups[0].0] {
        group.propose(vec![7; ENTRY_LEN_MAX]).await.unwrap();
    }
}
