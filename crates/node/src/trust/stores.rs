//! Which store counts as whose, and what was refused because of it.
//!
//! The record in the replicated state decides. Two things run ahead of it: an entry of this member's own log that is
//! not applied yet, and what the voters attested to a member that was away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use countersign_core::id::{NodeId, StoreId};
use countersign_core::locked::{LockGuard, Locked};
use countersign_core::trust::attestation::Attestation;
use countersign_core::trust::command::{Command, Effect};
use countersign_core::trust::view::View;
use countersign_raft::{Refusal, StoreFault};
use tokio::sync::watch;

/// Entries of the own log that bring a store: more cannot be on their way at once, one change of members waits for
/// another.
const LOGGED_MAX: usize = 64;

/// How long a leader is said to lack entries after its last attempt.
const CONFLICT_LASTS: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Known {
    /// By the index of the entry, which may be cut off again while it is not committed.
    logged: BTreeMap<u64, (NodeId, StoreId)>,
    attested: Option<Arc<Attestation>>,
    /// Members that were refused for their store, why and when last.
    faults: BTreeMap<NodeId, (StoreFault, Instant)>,
    /// Members that refuse this member's own store, and as what last.
    refused_by: BTreeMap<NodeId, Refusal>,
    /// Members that hold committed entries which this member's log lacks: their stores, and the term of this member
    /// that they refused.
    conflicts: BTreeMap<NodeId, (StoreId, u64)>,
}

/// The stores of the members, as this member knows them beside the replicated record.
#[derive(Default)]
pub struct Stores {
    known: Locked<Known>,
    refused: AtomicU64,
    /// Changes when a leader turns out to lack what is committed here.
    contradicted: watch::Sender<bool>,
}

impl Stores {
    fn lock(&self) -> LockGuard<'_, Known> {
        self.known.lock()
    }

    /// The stores that count as `node`'s, by `view` and by what runs ahead of it.
    pub(crate) fn of(&self, view: Option<&View>, node: NodeId) -> Vec<StoreId> {
        let known = self.lock();
        let recorded = view.and_then(|view| view.members.get(&node)).map(|member| member.store);
        let newer =
            |attestation: &&Arc<Attestation>| view.is_none_or(|view| view.attestation.number < attestation.number);
        let attested = known.attested.as_ref().filter(newer).and_then(|attestation| attestation.voters.get(&node));
        let logged = known.logged.values().filter(|(of, _)| *of == node).map(|(_, store)| *store);
        let mut stores: Vec<StoreId> = recorded.into_iter().collect();
        for store in attested.map(|voter| voter.store).into_iter().chain(logged) {
            if !stores.contains(&store) {
                stores.push(store);
            }
        }
        stores
    }

    /// Whether an entry of the own log, applied or not, brings `store` as that of `node`.
    pub(crate) fn is_logged(&self, node: NodeId, store: StoreId) -> bool {
        self.lock().logged.values().any(|logged| *logged == (node, store))
    }

    /// `command` stands in the own log at `index`.
    pub(crate) fn logged(&self, index: u64, command: &Command) {
        let Effect::BindsStore { node, store } = command.effect() else { return };
        let brings = (node, store);
        let mut known = self.lock();
        known.logged.insert(index, brings);
        while known.logged.len() > LOGGED_MAX {
            known.logged.pop_first();
        }
    }

    /// The own log was cut: what it held from `index` on was never committed.
    pub(crate) fn truncated(&self, index: u64) {
        self.lock().logged.split_off(&index);
    }

    /// Entries up to `index` are applied, or replaced by a snapshot: the record says what came of them.
    pub(crate) fn applied(&self, index: u64) {
        let mut known = self.lock();
        known.logged = known.logged.split_off(&index.saturating_add(1));
    }

    /// A majority of the voters has attested what the cluster has become.
    pub(crate) fn attested(&self, newest: &Arc<Attestation>) {
        self.lock().attested = Some(Arc::clone(newest));
    }

    /// What a member said was refused for its store.
    pub(crate) fn distrusted(&self, fault: &StoreFault) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let before = self.lock().faults.insert(fault.node(), (*fault, Instant::now())).map(|(before, _)| before);
        let told = match (before, fault) {
            (Some(before), fault) if before == *fault => true,
            (Some(StoreFault::Log { .. } | StoreFault::Vote { .. }), StoreFault::Before { .. }) => true,
            (_, _) => false,
        };
        if matches!(fault, StoreFault::Conflict { .. }) {
            self.contradicted.send_replace(true);
        }
        if !told {
            tracing::error!(%fault, "what a member says does not count: it must return with a new store");
        }
    }

    /// Whether a leader turned out to lack what is committed here, and that was not noted yet.
    pub(crate) fn contradicted(&self) -> watch::Receiver<bool> {
        self.contradicted.subscribe()
    }

    /// It is noted.
    pub(crate) fn noted(&self) {
        self.contradicted.send_replace(false);
    }

    /// How often something was refused for the store of the member that said it.
    pub fn refusals(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Why `node` was refused last, if its store still is the one that was refused.
    pub(crate) fn fault(&self, node: NodeId) -> Option<StoreFault> {
        let (fault, at) = self.lock().faults.get(&node).copied()?;
        // A leader tries again and again: one that has stopped does so no more, or lacks nothing any more.
        let over = matches!(fault, StoreFault::Conflict { .. }) && at.elapsed() > CONFLICT_LASTS;
        (!over).then_some(fault)
    }

    /// `peer` refused a request of this member's for this member's store or log, by `view` that of the members.
    pub(crate) fn refused(&self, peer: NodeId, refusal: Refusal, view: Option<&View>, term: u64) {
        match refusal {
            Refusal::Conflict => {
                let store = view.and_then(|view| view.members.get(&peer)).map(|member| member.store);
                if store.is_some_and(|store| self.conflicts_with(peer, store, term)) {
                    tracing::error!(%peer, "a voter holds committed entries that this leader's log lacks");
                }
            }
            Refusal::OtherStore | Refusal::RolledBack => {
                if self.refused_by(peer, refusal) {
                    tracing::error!(%peer, %refusal, "this node's store is refused: it must return with a new one");
                }
            }
            Refusal::NotYet | Refusal::NotAssigned | Refusal::Outsider | Refusal::Invalid | Refusal::Stopped => {}
        }
    }

    /// `peer` refuses what this member says, for this member's store. True if that is news.
    pub(crate) fn refused_by(&self, peer: NodeId, refusal: Refusal) -> bool {
        self.lock().refused_by.insert(peer, refusal) != Some(refusal)
    }

    /// `peer`, whose store on record is `store`, holds committed entries that the log of this member lacks, the leader
    /// of `term`. True if that is news.
    pub(crate) fn conflicts_with(&self, peer: NodeId, store: StoreId, term: u64) -> bool {
        self.lock().conflicts.insert(peer, (store, term)) != Some((store, term))
    }

    /// The members that hold committed entries which the log of this member lacks, the leader of `term`. What it was
    /// refused for in an earlier term may have been mended since.
    pub(crate) fn conflicts(&self, term: u64) -> BTreeMap<NodeId, StoreId> {
        let mut known = self.lock();
        known.conflicts.retain(|_, (_, of)| *of == term);
        known.conflicts.iter().map(|(peer, (store, _))| (*peer, *store)).collect()
    }

    /// `peer` takes what this member says.
    pub(crate) fn taken_by(&self, peer: NodeId) {
        self.lock().refused_by.remove(&peer);
    }

    /// The members that refuse this member's own store, and as what.
    pub(crate) fn refusing(&self) -> BTreeMap<NodeId, Refusal> {
        self.lock().refused_by.clone()
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::key::SecretKey;
    use countersign_core::secret::Secret;
    use countersign_core::trust::attestation::AttestedVoter;
    use countersign_core::trust::command::ReportFeatureLevel;

    use countersign_core::trust::command::BindStore;

    use super::*;
    use crate::trust::replica::tests::view;

    const OLD: StoreId = StoreId([7; 16]);
    const NEW: StoreId = StoreId([8; 16]);
    const NODE: NodeId = NodeId(2);

    /// A view in which node 2 has the store `OLD`.
    fn recorded() -> View {
        let mut view = view(1, &[1, 2], 2);
        view.members.update(&NODE, |member| member.store = OLD).unwrap();
        view
    }

    fn bind(store: StoreId) -> Command {
        Command::BindStore(BindStore { node: NODE, store })
    }

    #[test]
    fn entry_on_its_way_counts_beside_the_record_until_it_is_applied_or_cut() {
        let (stores, view) = (Stores::default(), recorded());
        assert_eq!(stores.of(Some(&view), NODE), [OLD]);
        assert_eq!(stores.of(Some(&view), NodeId(9)), []);
        stores.logged(5, &bind(NEW));
        stores.logged(6, &Command::ReportFeatureLevel(ReportFeatureLevel { node: NODE, level: 1 }));
        assert_eq!(stores.of(Some(&view), NODE), [OLD, NEW]);
        assert!(stores.is_logged(NODE, NEW) && !stores.is_logged(NodeId(1), NEW));
        stores.truncated(6);
        assert_eq!(stores.of(Some(&view), NODE), [OLD, NEW]);
        stores.truncated(5);
        assert_eq!(stores.of(Some(&view), NODE), [OLD]);
        stores.logged(5, &bind(NEW));
        stores.applied(4);
        assert_eq!(stores.of(Some(&view), NODE), [OLD, NEW]);
        stores.applied(5);
        assert_eq!(stores.of(Some(&view), NODE), [OLD]);
    }

    #[test]
    fn attested_store_counts_only_while_it_is_newer_than_the_record() {
        let (stores, mut view) = (Stores::default(), recorded());
        let identity = SecretKey::from_seed(Secret::new([1; 32])).public();
        let mut attestation = Attestation::clone(&view.attestation);
        attestation.voters.insert(NODE, AttestedVoter { identity, store: NEW });
        stores.attested(&Arc::new(attestation.clone()));
        assert_eq!(stores.of(Some(&view), NODE), [OLD], "no newer than what is known here");
        attestation.number += 1;
        stores.attested(&Arc::new(attestation.clone()));
        assert_eq!(stores.of(Some(&view), NODE), [OLD, NEW]);
        view.attestation = Arc::new(attestation);
        assert_eq!(stores.of(Some(&view), NODE), [OLD]);
    }

    #[test]
    fn entries_on_their_way_are_bounded() {
        let stores = Stores::default();
        for index in 0..=LOGGED_MAX as u64 {
            stores.logged(index, &bind(NEW));
        }
        assert_eq!(stores.lock().logged.len(), LOGGED_MAX);
        assert_eq!(stores.lock().logged.keys().next(), Some(&1));
    }

    #[test]
    fn refusals_are_counted_and_the_last_reason_is_known() {
        let stores = Stores::default();
        let fault = StoreFault::Other { node: NODE, expected: OLD, got: NEW };
        for _ in 0..3 {
            stores.distrusted(&fault);
        }
        assert_eq!((stores.refusals(), stores.fault(NODE)), (3, Some(fault)));
        assert!(stores.refused_by(NODE, Refusal::RolledBack) && !stores.refused_by(NODE, Refusal::RolledBack));
        assert_eq!(stores.refusing(), BTreeMap::from([(NODE, Refusal::RolledBack)]));
        stores.taken_by(NODE);
        assert!(stores.refusing().is_empty());
    }
}
