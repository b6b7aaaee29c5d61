//! This member's part in the trust group: store, Raft, and the state that was applied.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use countersign_api::convert::{MessageError, decoded};
use countersign_core::codec::{self, CodecError};
use countersign_core::id::{GroupId, NodeId};
use countersign_core::trust::TrustState;
use countersign_core::trust::command::Stamped;
use countersign_core::trust::member::Suffrage;
use countersign_core::trust::outcome::Outcome;
use countersign_core::trust::view::View;
use countersign_net::Endpoint;
use countersign_raft::{
    Assignments, Group, GroupConfig, Groups, InitializeError, OpenError, ProposeError, StartError, Store,
};

use crate::machine::SharedState;
use crate::peers::Peers;

/// Why Raft does not run, or did not carry out the first entry.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The store cannot be opened.
    #[error("store cannot be opened")]
    Store(#[from] OpenError),
    /// The group cannot be started.
    #[error("raft cannot be started")]
    Start(#[from] StartError),
    /// The group cannot be founded.
    #[error("raft cannot be initialized")]
    Initialize(#[from] InitializeError),
    /// The first entry was not committed.
    #[error("the first entry was not committed: {0}")]
    Propose(#[from] ProposeError),
    /// Still no leader.
    #[error("this member did not become leader of its own cluster within {} seconds", FOUND_DEADLINE.as_secs())]
    NoLeader,
    /// The entry cannot be encoded.
    #[error("entry cannot be encoded")]
    Codec(#[from] CodecError),
    /// The outcome cannot be decoded.
    #[error("outcome cannot be decoded")]
    Message(#[from] MessageError),
}

const FOUND_DEADLINE: Duration = Duration::from_secs(20);

/// Store, Raft and state of one member.
pub(crate) struct Replica {
    pub(crate) state: SharedState,
    pub(crate) groups: Groups,
    pub(crate) group: Group,
    pub(crate) peers: Peers,
    assigned: Arc<AssignedByView>,
}

impl Replica {
    /// Opens the store and starts the trust group; `stored` is the view that this member was admitted under, which says
    /// who belongs to the group until the log does.
    pub(crate) async fn open(path: &Path, node: NodeId, stored: Option<Arc<View>>) -> Result<Self, ReplicaError> {
        let store = Store::open(path)?;
        let state = SharedState::new();
        let peers = Peers::default();
        let assigned = Arc::new(AssignedByView {
            me: node,
            stored,
            state: state.clone(),
            endpoint: OnceLock::new(),
            group: OnceLock::new(),
        });
        let weak: Weak<AssignedByView> = Arc::downgrade(&assigned);
        let groups = Groups::new(node, store, Arc::new(peers.clone()), Arc::new(WeakAssigned(weak)));
        let group = groups.start(GroupId::TRUST, Box::new(state.machine()), GroupConfig::default()).await?;
        let _ = assigned.group.set(group.clone());
        Ok(Self { state, groups, group, peers, assigned })
    }

    /// From now on, the view in force on this endpoint says who belongs to a group.
    pub(crate) fn assign_by(&self, endpoint: Endpoint) {
        let _ = self.assigned.endpoint.set(endpoint);
    }

    /// Makes this member the only voter of a new group. Done already: nothing.
    pub(crate) async fn found(&self) -> Result<(), ReplicaError> {
        match self.group.initialize(&BTreeSet::from([crate::bootstrap::FOUNDER])).await {
            // Founded by an earlier start.
            Ok(()) | Err(InitializeError::NotPristine) => {}
            Err(error) => return Err(error.into()),
        }
        let mut status = self.group.watch();
        let leads = status.wait_for(|s| s.leader == Some(crate::bootstrap::FOUNDER));
        match tokio::time::timeout(FOUND_DEADLINE, leads).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ReplicaError::NoLeader),
        }
    }

    pub(crate) async fn propose(&self, stamped: &Stamped) -> Result<Outcome, ReplicaError> {
        let proposed = self.group.propose(codec::encode(stamped)?).await?;
        Ok(decoded("outcome", &proposed.outcome)?)
    }
}

/// Who speaks for a group, by the newest view that this member knows.
struct AssignedByView {
    me: NodeId,
    stored: Option<Arc<View>>,
    state: SharedState,
    endpoint: OnceLock<Endpoint>,
    group: OnceLock<Group>,
}

impl AssignedByView {
    fn view(&self) -> Option<Arc<View>> {
        let trust = self.endpoint.get().map(|endpoint| Arc::clone(&endpoint.trust().load().view));
        let applied = || self.state.read().view().cloned();
        trust.or_else(applied).or_else(|| self.stored.clone())
    }
}

struct WeakAssigned(Weak<AssignedByView>);

impl Assignments for WeakAssigned {
    fn assigned(&self, group: GroupId, node: NodeId) -> Option<bool> {
        let this = self.0.upgrade()?;
        match this.view() {
            Some(view) => view.assigned(group, node),
            // Before there is a view there is only the founder.
            None => (node == this.me).then_some(true),
        }
    }

    /// Raft obeys whoever claims to lead, and a learner is not trusted to. Besides those who are meant to vote, those who
    /// still do: a voter that is being demoted hands over first.
    fn may_lead(&self, group: GroupId, node: NodeId) -> Option<bool> {
        if group != GroupId::TRUST {
            return self.assigned(group, node);
        }
        let this = self.0.upgrade()?;
        let Some(view) = this.view() else { return (node == this.me).then_some(true) };
        let member = view.members.get(&node);
        let votes = || this.group.get().is_some_and(|group| group.status().voters.contains(&node));
        Some(member.is_some_and(|m| m.suffrage == Suffrage::Voter || votes()))
    }

    /// A member that was away knows none of those who came meanwhile: the snapshot of the trust group says who they are.
    fn admits(&self, group: GroupId, member: NodeId, snapshot: &[u8]) -> bool {
        let Some(this) = self.0.upgrade() else { return false };
        if group != GroupId::TRUST || self.assigned(group, member) == Some(true) {
            return self.assigned(group, member) == Some(true);
        }
        let Ok(state) = TrustState::decode(snapshot) else { return false };
        let (Some(theirs), Some(ours)) = (state.view(), this.view()) else { return false };
        theirs.cluster == ours.cluster && (theirs.members.contains_key(&member) || theirs.evicted.contains_key(&member))
    }
}
