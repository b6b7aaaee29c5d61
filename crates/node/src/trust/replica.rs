//! This member's part in the trust group: store, Raft, and the state that was applied.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use countersign_api::convert::{MessageError, decoded};
use countersign_core::codec::CodecError;
use countersign_core::id::{GroupId, NodeId, StoreId};
use countersign_core::trust::command::Stamped;
use countersign_core::trust::outcome::Outcome;
use countersign_core::trust::view::View;
use countersign_net::Endpoint;
use countersign_raft::{Group, GroupConfig, Groups, InitializeError, OpenError, ProposeError, StartError, Store};

use crate::peers::Peers;
use crate::trust::assignments::{AssignedByView, WeakAssigned};
use crate::trust::denylist::Denylist;
use crate::trust::events::EventLog;
use crate::trust::gate::Gate;
use crate::trust::machine::SharedState;
use crate::trust::stores::Stores;

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
    /// Whether Raft's messages are believed. Open until a member is put together around this.
    pub(crate) gate: Arc<Gate>,
    /// The members that this member refuses by itself.
    pub(crate) denylist: Arc<Denylist>,
    /// Which stores count as whose, ahead of what is applied.
    pub(crate) stores: Arc<Stores>,
    /// The id of this member's store.
    pub(crate) store: StoreId,
    assigned: Arc<AssignedByView>,
}

impl Replica {
    /// Starts the trust group on an open store; `stored` is the view that this member was admitted under, which says
    /// who belongs to the group until the log does.
    pub(crate) async fn open(
        (store, node): (Store, NodeId),
        known: u32,
        stored: Option<Arc<View>>,
        events: EventLog,
    ) -> Result<Self, ReplicaError> {
        let state = SharedState::knowing(known);
        let peers = Peers::default();
        let (gate, denylist, stores) = (Arc::<Gate>::default(), Arc::<Denylist>::default(), Arc::<Stores>::default());
        let own = store.binding().store;
        let assigned = Arc::new(AssignedByView {
            me: node,
            own,
            data_store: OnceLock::new(),
            stores: Arc::clone(&stores),
            known,
            gate: Arc::clone(&gate),
            denylist: Arc::clone(&denylist),
            stored,
            state: state.clone(),
            endpoint: OnceLock::new(),
            group: OnceLock::new(),
        });
        let weak: Weak<AssignedByView> = Arc::downgrade(&assigned);
        let groups = Groups::new(node, own, store, Arc::new(peers.clone()), Arc::new(WeakAssigned(weak)));
        let machine = state.machine(Arc::clone(&denylist), Arc::clone(&stores), events);
        let group = groups.start(GroupId::TRUST, Box::new(machine), GroupConfig::default()).await?;
        let _ = assigned.group.set(group.clone());
        Ok(Self { state, groups, group, peers, gate, denylist, stores, store: own, assigned })
    }

    /// From now on, the view in force on this endpoint says who belongs to a group.
    pub(crate) fn assign_by(&self, endpoint: Endpoint) {
        let _ = self.assigned.endpoint.set(endpoint);
    }

    /// The store of all other groups is open, under this id.
    pub(crate) fn keeps_data_in(&self, store: StoreId) {
        let _ = self.assigned.data_store.set(store);
    }

    /// Makes this member the only voter of a new group. Done already: nothing.
    pub(crate) async fn found(&self) -> Result<(), ReplicaError> {
        match self.group.initialize(&BTreeSet::from([crate::identity::bootstrap::FOUNDER])).await {
            // Founded by an earlier start.
            Ok(()) | Err(InitializeError::NotPristine) => {}
            Err(error) => return Err(error.into()),
        }
        let mut status = self.group.watch();
        let leads = status.wait_for(|s| s.leader == Some(crate::identity::bootstrap::FOUNDER));
        match tokio::time::timeout(FOUND_DEADLINE, leads).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ReplicaError::NoLeader),
        }
    }

    pub(crate) async fn propose(&self, stamped: &Stamped) -> Result<Outcome, ReplicaError> {
        let proposed = self.group.propose(stamped.encode()?).await?;
        Ok(decoded("outcome", &proposed.outcome)?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use countersign_core::lease::LeaseLength;
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use countersign_core::group::GroupMembers;
    use countersign_core::id::{ClusterId, Generation, Incarnation, KeyId, RequestId, StoreId};
    use countersign_core::key::SecretKey;
    use countersign_core::name::{Address, Name};
    use countersign_core::principal::TrustDomain;
    use countersign_core::secret::Secret;
    use countersign_core::time::{UnixMillis, Validity};
    use countersign_core::trust::TrustState;
    use countersign_core::trust::author::Author;
    use countersign_core::trust::chain::Chain;
    use countersign_core::trust::command::{Bootstrap, Command, Evict, FEATURE_LEVEL, RevokeKey, SealedKey};
    use countersign_core::trust::member::{Member, MemberKeys};
    use countersign_core::trust::view::AuthorityKey;
    use countersign_raft::{
        Binding, GroupMachine, GroupState, GroupStopped, HubError, LogPosition, RaftRpc, StorePlace,
    };

    use countersign_core::codec;
    use countersign_core::locked::Locked;

    use super::*;
    use crate::identity::datadir::DataDir;

    const LEADER: NodeId = NodeId(1);
    const ME: NodeId = NodeId(2);
    const NOW: UnixMillis = UnixMillis::from_secs(1_800_000_000);

    /// The store of this member in `dir`, made at the first time.
    fn store_in(dir: &tempfile::TempDir, node: NodeId) -> Store {
        let binding =
            Binding { cluster: ClusterId([1; 16]), node, incarnation: Incarnation(0), store: StoreId([1; 16]) };
        let at = |name| dir.path().join(name);
        let place = StorePlace { path: at("store"), record: at("record"), binding };
        Store::create(&place, StoreId([2; 16])).unwrap();
        Store::open(&place).unwrap()
    }

    fn events(dir: &tempfile::TempDir) -> EventLog {
        let data = DataDir::open(&dir.path().join("data")).unwrap();
        EventLog::open(&data).unwrap()
    }

    fn stamped(command: Command) -> Stamped {
        let author = Author::of_member(NodeId(1), RequestId([0; 16]));
        Stamped { level: FEATURE_LEVEL, time: NOW, author, command }
    }

    fn evict(node: u64) -> Command {
        Command::Evict(Evict { node: NodeId(node), compromised: false, keep_authority: true })
    }

    pub(crate) fn bootstrap(cluster: u8) -> Command {
        let key = SecretKey::from_seed(Secret::new([3; 32])).public();
        Command::Bootstrap(Box::new(Bootstrap {
            cluster: ClusterId([cluster; 16]),
            name: Name::parse("east").unwrap(),
            trust_domain: TrustDomain::parse("td").unwrap(),
            authority: vec![1],
            authority_key: Some(SealedKey { public: AuthorityKey::Ed25519(key), sealed: vec![] }),
            authority_validity: Validity { not_before: NOW, not_after: NOW.plus_secs(3600) },
            imported: false,
            node_name: Name::parse("n1").unwrap(),
            addresses: vec![Address::parse("10.0.0.1:1").unwrap()],
            keys: MemberKeys { identity: key, sealing: [4; 32], ucan: key },
            store: StoreId([1; 16]),
            leaf_key: KeyId([9; 32]),
            foreign: None,
            node_ttl_secs: 60,
            lease: LeaseLength::DEFAULT,
            token: None,
            policy: Default::default(),
        }))
    }

    /// A cluster of these members, all of them voters.
    pub(crate) fn view(cluster: u8, members: &[u64], generation: u64) -> View {
        let mut state = TrustState::new();
        state.apply(&stamped(bootstrap(cluster)), &GroupMembers::default()).unwrap();
        let mut view = View::clone(state.view().unwrap());
        let founder = view.members.remove(&LEADER).unwrap();
        let member = |id: &u64| (NodeId(*id), Member { id: NodeId(*id), ..founder.clone() });
        view.members = members.iter().map(member).collect();
        view.generation = Generation(generation);
        view
    }

    /// The state with this view and nothing else, as a snapshot has it.
    fn state(view: &View) -> Vec<u8> {
        type Nothing = BTreeMap<u8, u8>;
        let none = Nothing::new;
        codec::encode(&(
            Some(view),
            none(),
            none(),
            none(),
            9_u64,
            60_u64,
            10_000_u64,
            none(),
            none(),
            0_u64,
            Chain::default(),
            NOW,
            true,
        ))
        .unwrap()
    }

    /// A snapshot message of the leader, as it travels: it names `members` as voters and carries `data`.
    fn snapshot(members: &[u64], data: &[u8]) -> Vec<u8> {
        let leader = (7_u64, LEADER.0);
        let last = Some((leader, 500_u64));
        let voters: BTreeSet<u64> = members.iter().copied().collect();
        let nodes: BTreeMap<u64, ()> = members.iter().map(|id| (*id, ())).collect();
        let body = ((leader, true), (last, (last, (vec![voters], nodes)), "id"), data);
        codec::encode(&(StoreId([1; 16]), body)).unwrap()
    }

    #[tokio::test]
    async fn snapshot_may_name_only_newcomers_that_its_own_state_knows() {
        let store = tempfile::tempdir().unwrap();
        let stored = Arc::new(view(1, &[1, 2], 2));
        let replica =
            Replica::open((store_in(&store, ME), ME), FEATURE_LEVEL, Some(stored), events(&store)).await.unwrap();
        let handle = async |body: &[u8]| replica.groups.handle(LEADER, GroupId::TRUST, RaftRpc::Snapshot, body).await;
        let grown = state(&view(1, &[1, 2, 5], 9));
        for (body, outsider, claim) in [
            (snapshot(&[1, 2, 5, 6], &grown), 6, "named by Raft's members alone"),
            (snapshot(&[1, 2, 5], &state(&view(1, &[1, 2], 9))), 5, "named by Raft's members alone"),
            (snapshot(&[1, 2, 5], &state(&view(8, &[1, 2, 5], 9))), 5, "known to another cluster"),
            (snapshot(&[1, 2, 5], b"no state"), 5, "known to nothing"),
        ] {
            let refused = handle(&body).await.unwrap_err();
            let is = |error: &HubError| matches!(error, HubError::Outsider { member, .. } if member.0 == outsider);
            assert!(is(&refused), "{claim}: {refused}");
        }
        assert!(replica.state.read().view().is_none(), "nothing of them was taken");
        handle(&snapshot(&[1, 2, 5], &grown)).await.unwrap();
        let applied = replica.state.read().view().cloned().unwrap();
        assert_eq!(applied.members.scan().keys().copied().collect::<Vec<_>>(), [1, 2, 5].map(NodeId));
        assert_eq!(replica.group.status().voters, BTreeSet::from([1, 2, 5].map(NodeId)));
        // The newcomer is known from now on: it may lead.
        assert_eq!(replica.groups.may_lead_any(NodeId(5)), Some(true));
        assert_eq!(replica.groups.may_lead_any(NodeId(6)), Some(false));
        replica.groups.shutdown().await;
    }

    #[tokio::test]
    async fn eviction_refused_at_apply_cuts_off_no_member() {
        let store = tempfile::tempdir().unwrap();
        let replica =
            Replica::open((store_in(&store, LEADER), LEADER), FEATURE_LEVEL, None, events(&store)).await.unwrap();
        replica.found().await.unwrap();
        replica.propose(&stamped(bootstrap(1))).await.unwrap();
        assert!(matches!(replica.propose(&stamped(evict(9))).await.unwrap(), Outcome::Refused(_)));
        assert!(replica.denylist.refuses().is_empty());
        // What is not applied yet counts.
        replica.denylist.logged(1_000, NodeId(9));
        replica.propose(&stamped(evict(9))).await.unwrap();
        assert_eq!(replica.denylist.refuses(), BTreeSet::from([NodeId(9)]));
        replica.groups.shutdown().await;
    }

    #[tokio::test]
    async fn eviction_replaced_by_a_snapshot_does_not_count() {
        let store = tempfile::tempdir().unwrap();
        let stored = Arc::new(view(1, &[1, 2, 5, 6, 7], 2));
        let replica =
            Replica::open((store_in(&store, ME), ME), FEATURE_LEVEL, Some(Arc::clone(&stored)), events(&store))
                .await
                .unwrap();
        for (index, node) in [(400, 5), (500, 6), (501, 7)] {
            replica.denylist.logged(index, NodeId(node));
        }
        let body = snapshot(&[1, 2], &state(&stored));
        replica.groups.handle(LEADER, GroupId::TRUST, RaftRpc::Snapshot, &body).await.unwrap();
        assert_eq!(replica.denylist.refuses(), BTreeSet::from([NodeId(7)]));
        replica.groups.shutdown().await;
    }

    #[test]
    fn view_that_is_not_in_force_is_not_acknowledged() {
        let data = tempfile::tempdir().unwrap();
        let (state, denylist) = (SharedState::knowing(FEATURE_LEVEL), Arc::<Denylist>::default());
        let mut machine = state.machine(Arc::clone(&denylist), Arc::default(), events(&data));
        let (works, told) = (Arc::new(AtomicBool::new(false)), Arc::new(Locked::new(Vec::new())));
        let (working, telling) = (Arc::clone(&works), Arc::clone(&told));
        state.publish_to(Box::new(move |view, _, revocations| {
            telling.lock().push((view.generation, revocations.len()));
            working.load(Ordering::Relaxed)
        }));
        let mut apply = |index, command| {
            let at = LogPosition { term: 1, index };
            machine.apply(at, &GroupMembers::default(), &stamped(command).encode().unwrap()).unwrap();
            machine.applied_batch(Some(at));
            (*state.applied().borrow(), *told.lock().last().unwrap())
        };
        let nothing = Generation(0);
        assert_eq!(apply(1, bootstrap(1)), (nothing, (Generation(1), 0)));
        let revoke = |key| Command::RevokeKey(RevokeKey(KeyId([key; 32])));
        denylist.logged(2, NodeId(9));
        assert_eq!(apply(2, revoke(1)), (nothing, (Generation(2), 1)));
        assert_eq!(denylist.refuses(), BTreeSet::from([NodeId(9)]));
        assert_eq!(apply(3, evict(9)), (nothing, (Generation(2), 1)), "an entry that changes nothing tries again");
        // The next one is, with all that was waiting.
        works.store(true, Ordering::Relaxed);
        assert_eq!(apply(4, revoke(2)), (Generation(3), (Generation(3), 2)));
        assert!(denylist.refuses().is_empty());
        works.store(false, Ordering::Relaxed);
        assert_eq!(apply(5, revoke(3)), (Generation(3), (Generation(4), 1)), "it stays where it was");
    }

    #[tokio::test]
    async fn newer_entry_stops_the_member_with_the_level_it_needs() {
        let store = tempfile::tempdir().unwrap();
        let replica =
            Replica::open((store_in(&store, LEADER), LEADER), FEATURE_LEVEL, None, events(&store)).await.unwrap();
        replica.found().await.unwrap();
        let newer = codec::encode_at(FEATURE_LEVEL + 1, &(NOW, 250_u32)).unwrap();
        replica.group.propose(newer).await.unwrap_err();
        let mut status = replica.group.watch();
        status.wait_for(|s| s.state == GroupState::Stopped).await.unwrap();
        let needs = format!("level {} is needed", FEATURE_LEVEL + 1);
        let stopped = replica.group.running().unwrap_err();
        assert!(matches!(stopped, GroupStopped::Apply(_)), "{stopped:?}");
        assert!(crate::chain(&stopped).to_string().contains(&needs), "{}", crate::chain(&stopped));
        replica.groups.shutdown().await;
        let Err(again) = Replica::open((store_in(&store, LEADER), LEADER), FEATURE_LEVEL, None, events(&store)).await
        else {
            panic!("it started")
        };
        assert!(crate::chain(&again).to_string().contains(&needs), "{}", crate::chain(&again));
    }
}
