//! Handing leadership over on purpose: fall silent, wait until the members' loyalty to this leader has run out, and ask
//! the successor to stand. openraft 0.9 has no transfer of its own.
//!
//! Nothing is lost on the way: proposals are refused meanwhile, and if the successor does not take over this member
//! leads on.

use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign_core::codec;
use countersign_core::id::NodeId;

use crate::group::{Group, leads, lease};
use crate::message::{Asked, TimeoutNow};
use crate::status::GroupState;
use crate::transport::{RaftRpc, TransportError};

/// Why leadership was not handed over. This member leads on, unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// This member does not lead.
    #[error("not the leader")]
    NotLeader,
    /// Another hand-over is under way.
    #[error("leadership is being handed over already")]
    InProgress,
    /// Only a voter can lead.
    #[error("node {0} is no other voter of the group")]
    NotVoter(NodeId),
    /// Its log did not reach the leader's in time.
    #[error("node {0} has not caught up")]
    Behind(NodeId),
    /// It could not be asked.
    #[error("node {0} cannot be asked to lead")]
    Unreachable(NodeId, #[source] TransportError),
    /// It was asked but did not win in time.
    #[error("node {0} was not elected")]
    NotElected(NodeId),
}

/// While it lives, this leader is silent.
struct Silence<'a>(&'a Group);

impl<'a> Silence<'a> {
    fn begin(group: &'a Group) -> Result<Self, TransferError> {
        if group.yielding().swap(true, Ordering::AcqRel) {
            return Err(TransferError::InProgress);
        }
        Ok(Self(group))
    }

    /// Stops the heartbeats as well: from now on the members' loyalty runs out.
    fn deepen(&self) {
        self.0.raft().runtime_config().heartbeat(false);
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.raft().runtime_config().heartbeat(true);
        self.0.yielding().store(false, Ordering::Release);
    }
}

impl Group {
    /// Hands leadership to `target` and returns once it leads. Takes `election_max` and little more; meanwhile no
    /// caller can propose.
    pub async fn step_down_to(&self, target: NodeId) -> Result<(), TransferError> {
        if target == self.context().me || !self.status().voters.contains(&target) {
            return Err(TransferError::NotVoter(target));
        }
        let silence = Silence::begin(self)?;
        self.caught_up(target).await?;
        silence.deepen();
        // why: members vote for no other candidate until their loyalty to this leader has run out.
        tokio::time::sleep(lease(self.config()) + self.config().heartbeat).await;

        let request = TimeoutNow { vote: self.raft().metrics().borrow().vote };
        let unreachable = |e| TransferError::Unreachable(target, e);
        let asked = Asked { store: self.context().own, request };
        let body = codec::encode(&asked).map_err(|_| unreachable(TransportError::Unreachable))?;
        let deadline = self.config().heartbeat;
        let transport = &self.context().transport;
        transport.call(target, self.id(), RaftRpc::TimeoutNow, body, deadline).await.map_err(unreachable)?;
        // The others stand by themselves only `election_min` after their lease has run out: until then it has no rival.
        self.reached(self.config().election_min, |group| group.status().leader == Some(target))
            .await
            .map_err(|_| TransferError::NotElected(target))
    }

    /// Waits until the member's log agrees with ours to the end.
    async fn caught_up(&self, target: NodeId) -> Result<(), TransferError> {
        let done = self
            .reached(self.config().deadline, |group| {
                let status = group.status();
                status.state != GroupState::Leader || status.matched.get(&target).is_some_and(|m| *m == status.last_log)
            })
            .await;
        match done {
            _ if !leads(self.raft()) => Err(TransferError::NotLeader),
            Ok(()) => Ok(()),
            Err(_) => Err(TransferError::Behind(target)),
        }
    }

    async fn reached(
        &self,
        within: Duration,
        condition: impl Fn(&Self) -> bool,
    ) -> Result<(), tokio::time::error::Elapsed> {
        let mut watch = self.watch();
        let waiting = async {
            while !condition(self) {
                if watch.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(within, waiting).await
    }
}
