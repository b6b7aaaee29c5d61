//! The members that this member refuses by itself, ahead of the view in force: members that an operator put in
//! quarantine here, members that the cluster was recognized to have evicted, and members whose eviction stands in this
//! member's own log. It needs no leader and no quorum, and it only ever refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use countersign_core::id::NodeId;
use countersign_core::locked::{LockGuard, Locked, Order};
use countersign_core::peer::Refusal;
use countersign_core::principal::Role;
use countersign_core::trust::command::Revoked;
use countersign_net::{ClosedConnection, Endpoint};
use serde::{Deserialize, Serialize};

use crate::identity::datadir::{DamageReason, DataDir, DataDirError, file};
use crate::trust::machine::Revocation;

/// As stored.
#[derive(Debug, Default, Serialize, Deserialize)]
struct QuarantineFile {
    nodes: BTreeSet<u64>,
}

#[derive(Default)]
struct Cut {
    quarantined: BTreeSet<NodeId>,
    recognized: BTreeSet<NodeId>,
    /// By the index of the entry, which may be cut off again while it is not committed.
    logged: BTreeMap<u64, BTreeSet<NodeId>>,
    /// Up to here entries are applied, or replaced by a snapshot, and the view that is in force decides.
    applied: u64,
    /// Closed for an eviction before it was applied: its receipt counts them.
    closed: Vec<ClosedConnection>,
}

impl Cut {
    fn denied(&self) -> BTreeMap<NodeId, Refusal> {
        let quarantined = self.quarantined.iter().map(|node| (*node, Refusal::Quarantined));
        let evicted = self.recognized.iter().chain(self.logged.values().flatten());
        // The more telling reason stands.
        quarantined.chain(evicted.map(|node| (*node, Refusal::Evicted))).collect()
    }
}

/// The members that are refused here alone.
pub struct Denylist {
    /// Held while connections are closed, so that two changes are enforced in their order.
    cut: Locked<Cut>,
    endpoint: OnceLock<Endpoint>,
}

impl Default for Denylist {
    fn default() -> Self {
        Self { cut: Locked::of(Order::Outer, Cut::default()), endpoint: OnceLock::new() }
    }
}

impl Denylist {
    fn lock(&self) -> LockGuard<'_, Cut> {
        self.cut.lock()
    }

    /// Takes up what is stored, and refuses on this endpoint from now on.
    pub(crate) fn start(&self, data: &DataDir, endpoint: Endpoint) -> Result<(), DataDirError> {
        let mut cut = self.lock();
        if let Some(bytes) = data.read(file::QUARANTINE)? {
            // A quarantine that cannot be read must not end by itself.
            let damaged = |_| DataDirError::Damaged { path: data.file(file::QUARANTINE), reason: DamageReason::Parse };
            let stored: QuarantineFile = serde_json::from_slice(&bytes).map_err(damaged)?;
            cut.quarantined = stored.nodes.into_iter().map(NodeId).collect();
        }
        let _ = self.endpoint.set(endpoint);
        self.enforce(&mut cut);
        Ok(())
    }

    /// Under the lock, so that two changes are enforced in their order. Returns what was closed.
    fn enforce(&self, cut: &mut Cut) -> usize {
        let Some(endpoint) = self.endpoint.get() else { return 0 };
        let closed = endpoint.deny(cut.denied());
        for connection in &closed {
            tracing::info!(principal = %connection.principal, reason = %connection.refusal, "connection closed");
        }
        let count = closed.len();
        cut.closed.extend(closed.into_iter().filter(|connection| connection.refusal == Refusal::Evicted));
        count
    }

    /// Puts `node` in quarantine or lifts it, first on disk. Returns how many connections were closed.
    pub fn quarantine(&self, data: &DataDir, node: NodeId, lift: bool) -> Result<usize, DataDirError> {
        let mut cut = self.lock();
        let mut nodes = cut.quarantined.clone();
        if lift {
            nodes.remove(&node)
        } else {
            nodes.insert(node)
        };
        if nodes != cut.quarantined {
            let stored = QuarantineFile { nodes: nodes.iter().map(|node| node.0).collect() };
            data.write(file::QUARANTINE, &serde_json::to_vec_pretty(&stored).unwrap_or_default())?;
            cut.quarantined = nodes;
        }
        Ok(self.enforce(&mut cut))
    }

    /// The members that an operator put in quarantine here.
    pub fn quarantined(&self) -> BTreeSet<NodeId> {
        self.lock().quarantined.clone()
    }

    /// Refuses the members that the cluster has evicted, as a majority of its voters attested.
    pub(crate) fn recognized(&self, evicted: impl IntoIterator<Item = NodeId>) {
        let mut cut = self.lock();
        let before = cut.recognized.len();
        cut.recognized.extend(evicted);
        if cut.recognized.len() > before {
            self.enforce(&mut cut);
        }
    }

    /// Refuses the member that the entry at `index` of this member's own log evicts, committed or not, until it is
    /// applied.
    pub(crate) fn logged(&self, index: u64, node: NodeId) {
        let mut cut = self.lock();
        if index <= cut.applied {
            return;
        }
        cut.logged.entry(index).or_default().insert(node);
        self.enforce(&mut cut);
    }

    /// The log was cut: what it held from `index` on was never committed.
    pub(crate) fn truncated(&self, index: u64) {
        let mut cut = self.lock();
        if !cut.logged.split_off(&index).is_empty() {
            self.enforce(&mut cut);
        }
    }

    /// The view in force holds what came of the entries up to `index`: it refuses the members that they evicted. No
    /// member is refused for an eviction that was not carried out or that a snapshot replaced.
    pub(crate) fn applied(&self, index: u64) {
        let mut cut = self.lock();
        cut.applied = cut.applied.max(index);
        let open = cut.logged.split_off(&index.saturating_add(1));
        if !core::mem::replace(&mut cut.logged, open).is_empty() {
            self.enforce(&mut cut);
        }
    }

    #[cfg(test)]
    pub(crate) fn refuses(&self) -> BTreeSet<NodeId> {
        self.lock().denied().into_keys().collect()
    }

    /// The connections that were closed for these evictions before they were applied. From now on the view refuses the
    /// evicted members.
    pub(crate) fn take_closed(&self, revocations: &[Revocation]) -> Vec<ClosedConnection> {
        let evicted = |role: &Role| revocations.iter().any(|r| r.revoked == Revoked::Principal(role.clone()));
        let mut cut = self.lock();
        if cut.closed.is_empty() {
            return Vec::new();
        }
        let (closed, rest) = core::mem::take(&mut cut.closed).into_iter().partition(|c| evicted(&c.principal.role));
        cut.closed = rest;
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn eviction_cut_from_the_log_does_not_count() {
        let denylist = Denylist::default();
        denylist.logged(7, NodeId(3));
        denylist.logged(9, NodeId(4));
        denylist.truncated(8);
        assert_eq!(denylist.lock().denied(), BTreeMap::from([(NodeId(3), Refusal::Evicted)]));
        denylist.truncated(7);
        assert!(denylist.lock().denied().is_empty());
    }

    #[test]
    fn from_the_index_that_is_applied_on_the_view_decides() {
        let denylist = Denylist::default();
        for (index, node) in [(7, 3), (8, 4), (9, 5)] {
            denylist.logged(index, NodeId(node));
        }
        let denied = || denylist.refuses();
        denylist.applied(6);
        assert_eq!(denied(), ids(&[3, 4, 5]), "none of them is applied");
        denylist.applied(8);
        assert_eq!(denied(), ids(&[5]));
        // Told late, of an entry that a snapshot has replaced.
        denylist.logged(8, NodeId(4));
        assert_eq!(denied(), ids(&[5]));
        denylist.recognized([NodeId(5)]);
        denylist.applied(u64::MAX);
        assert_eq!(denied(), ids(&[5]), "what the voters showed stands");
    }

    #[test]
    fn an_eviction_outlives_the_quarantine_that_preceded_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let denylist = Denylist::default();
        denylist.quarantine(&data, NodeId(3), false).unwrap();
        assert_eq!(denylist.lock().denied(), BTreeMap::from([(NodeId(3), Refusal::Quarantined)]));
        denylist.recognized([NodeId(3)]);
        denylist.quarantine(&data, NodeId(3), true).unwrap();
        assert_eq!(denylist.lock().denied(), BTreeMap::from([(NodeId(3), Refusal::Evicted)]));
        assert_eq!(denylist.quarantined(), ids(&[]));
    }
}
