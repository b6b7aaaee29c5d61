//! Waiting for a revocation to be in force everywhere, from whichever member the operator speaks to.

use std::sync::Arc;
use std::time::Duration;

use countersign_api::cluster::BarrierRequest;
use countersign_api::cluster::leases_client::LeasesClient;
use countersign_api::convert::decoded;
use countersign_core::id::{Generation, NodeId};
use countersign_core::receipt::Barrier;
use countersign_raft::Group;
use tokio::time::Instant;

use super::Granting;
use crate::peers::Peers;

/// How long to wait before looking for the leader again.
const RETRY: Duration = Duration::from_millis(100);
/// What is added to a lease: an election, and messages on their way.
pub(super) const MARGIN: Duration = Duration::from_secs(10);

/// How long a caller that only looks waits for the leader's answer.
const LOOK_DEADLINE: Duration = Duration::from_millis(300);

/// Waits for revocations to be in force everywhere.
#[derive(Clone)]
pub struct Barriers {
    node: NodeId,
    group: Group,
    peers: Peers,
    granting: Arc<Granting>,
}

impl Barriers {
    pub(crate) const fn new(node: NodeId, group: Group, peers: Peers, granting: Arc<Granting>) -> Self {
        Self { node, group, peers, granting }
    }

    /// How far the cluster is with `generation` when every member enforces it or denies, or when patience ends. None
    /// if no leader was found to ask: the revocation is committed, and what the members do about it is not known here.
    pub async fn await_passed(&self, generation: Generation) -> Option<Barrier> {
        let deadline = Instant::now() + self.granting.barrier_patience();
        let mut last = None;
        loop {
            let answer = match self.group.leader() {
                Some(leader) if leader == self.node => self.granting.barrier(generation, deadline).await.ok(),
                Some(leader) => self.ask_barrier(leader, generation, deadline).await,
                None => None,
            };
            match answer {
                Some(barrier) if barrier.passed => return Some(barrier),
                other => last = other.or(last),
            }
            if Instant::now() + RETRY >= deadline {
                return last;
            }
            // why: a new leader is being elected, and a lost message leaves nothing to wait for
            tokio::time::sleep(RETRY).await;
        }
    }

    /// How far the cluster is with `generation` now. None if no leader answers soon.
    pub async fn now(&self, generation: Generation) -> Option<Barrier> {
        let leader = self.group.leader()?;
        if leader == self.node {
            return self.granting.barrier(generation, Instant::now()).await.ok();
        }
        let mut client = LeasesClient::new(self.peers.channel(leader)?);
        let request = BarrierRequest { generation: generation.0, wait_millis: 0 };
        let reply = tokio::time::timeout(LOOK_DEADLINE, client.barrier(request)).await.ok()?.ok()?.into_inner();
        decoded("report", &reply.report).ok()
    }

    async fn ask_barrier(&self, leader: NodeId, generation: Generation, deadline: Instant) -> Option<Barrier> {
        let wait = deadline.saturating_duration_since(Instant::now());
        let wait_millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let mut client = LeasesClient::new(self.peers.channel(leader)?);
        let request = BarrierRequest { generation: generation.0, wait_millis };
        let reply = tokio::time::timeout(wait, client.barrier(request)).await.ok()?.ok()?.into_inner();
        decoded("report", &reply.report).ok()
    }
}
