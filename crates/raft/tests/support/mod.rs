//! A cluster in one process: real stores in temporary directories, a network that can lose messages and be cut.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(dead_code, unreachable_pub)]

mod roster;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_core::codec;
use countersign_core::group::GroupMembers;
use countersign_core::id::{ClusterId, GroupId, Incarnation, NodeId, StoreId};
use countersign_raft::{
    ApplyError, Binding, BoxFuture, Group, GroupConfig, GroupMachine, GroupState, GroupStatus, Groups, HubError,
    LogPosition, OpenError, RaftRpc, RestoreError, Store, StoreKind, StorePlace, Transport, TransportError,
};
use tempfile::TempDir;

pub use roster::*;

pub const TRUST: GroupId = GroupId::TRUST;

pub fn id(number: u64) -> NodeId {
    NodeId(number)
}

pub fn ids(numbers: &[u64]) -> BTreeSet<NodeId> {
    numbers.iter().copied().map(NodeId).collect()
}

/// Short enough to test with, long enough for a machine that compiles something else meanwhile.
pub fn config() -> GroupConfig {
    GroupConfig {
        heartbeat: Duration::from_millis(250),
        election_min: Duration::from_millis(800),
        election_max: Duration::from_millis(1400),
        deadline: Duration::from_secs(5),
        ..GroupConfig::default()
    }
}

/// The commands applied, in order, as last published.
pub type Journal = Arc<Mutex<Vec<Vec<u8>>>>;

/// Remembers every command; its outcome is the command's number.
pub struct Recorder {
    commands: Vec<Vec<u8>>,
    published: Journal,
    updated: bool,
}

/// A command whose outcome names the members of the group when it was applied.
pub const ROLL_CALL: &[u8] = b"roll call";

/// A command that only an updated recorder knows.
pub const NEWER: &[u8] = b"newer";

impl Recorder {
    pub fn publishing() -> (Box<dyn GroupMachine>, Journal) {
        Self::of_version(false)
    }

    pub fn of_version(updated: bool) -> (Box<dyn GroupMachine>, Journal) {
        let published = Journal::default();
        (Box::new(Self { commands: Vec::new(), published: Arc::clone(&published), updated }), published)
    }
}

impl GroupMachine for Recorder {
    fn apply(&mut self, at: LogPosition, members: &GroupMembers, command: &[u8]) -> Result<Vec<u8>, ApplyError> {
        assert!(at.index > 0);
        if command == NEWER && !self.updated {
            return Err(ApplyError::new(std::io::Error::other("it needs a newer recorder")));
        }
        if command == ROLL_CALL {
            return Ok(format!("{:?} {:?}", members.voters, members.learners).into_bytes());
        }
        self.commands.push(command.to_vec());
        Ok(self.commands.len().to_string().into_bytes())
    }

    fn snapshot(&self) -> Vec<u8> {
        codec::encode(&self.commands).unwrap()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.commands = codec::decode(bytes).map_err(RestoreError::new)?;
        Ok(())
    }

    fn applied_batch(&mut self, _upto: Option<LogPosition>) {
        self.published.lock().unwrap().clone_from(&self.commands);
    }
}

#[derive(Default)]
struct Wires {
    /// Who is reachable, each under the number of its attachment.
    nodes: Mutex<BTreeMap<NodeId, (u64, Groups)>>,
    attached: AtomicU64,
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    lost_percent: AtomicU64,
    seed: AtomicU64,
    refused: Mutex<Vec<HubError>>,
}

/// The network: knows who really sends, as mutual TLS would.
#[derive(Clone, Default)]
pub struct Net(Arc<Wires>);

impl Net {
    pub fn seeded(seed: u64) -> Self {
        println!("seed {seed}");
        let net = Self::default();
        net.0.seed.store(seed, Ordering::Relaxed);
        net
    }

    pub fn wire(&self, from: NodeId) -> Arc<dyn Transport> {
        Arc::new(Wire { net: self.clone(), from })
    }

    pub fn attach(&self, node: NodeId, groups: Groups) {
        let attachment = self.0.attached.fetch_add(1, Ordering::Relaxed);
        self.0.nodes.lock().unwrap().insert(node, (attachment, groups));
    }

    pub fn detach(&self, node: NodeId) {
        self.0.nodes.lock().unwrap().remove(&node);
    }

    /// Cuts every wire of `node`, or mends them.
    pub fn isolate(&self, node: NodeId, others: &[u64], isolated: bool) {
        let mut cut = self.0.cut.lock().unwrap();
        for other in others.iter().copied().map(NodeId).filter(|other| *other != node) {
            for wire in [(node, other), (other, node)] {
                if isolated {
                    cut.insert(wire)
                } else {
                    cut.remove(&wire)
                };
            }
        }
    }

    pub fn lose(&self, percent: u64) {
        self.0.lost_percent.store(percent, Ordering::Relaxed);
    }

    pub fn refused(&self) -> Vec<String> {
        self.0.refused.lock().unwrap().iter().map(ToString::to_string).collect()
    }

    fn loses(&self) -> bool {
        // SplitMix64: enough to lose messages by.
        let mut z = self.0.seed.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % 100 < self.0.lost_percent.load(Ordering::Relaxed)
    }
}

struct Wire {
    net: Net,
    from: NodeId,
}

impl Transport for Wire {
    fn call(
        &self,
        target: NodeId,
        group: GroupId,
        kind: RaftRpc,
        body: Vec<u8>,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Vec<u8>, TransportError>> {
        Box::pin(async move {
            let wires = Arc::clone(&self.net.0);
            let from = self.from;
            if wires.cut.lock().unwrap().contains(&(from, target)) {
                return Err(TransportError::Unreachable);
            }
            let lost = async {
                // why: a message that is lost is missed when its deadline has passed, not before.
                tokio::time::sleep(deadline).await;
                Err(TransportError::Timeout)
            };
            if self.net.loses() {
                return lost.await;
            }
            let reached = || wires.nodes.lock().unwrap().get(&target).cloned().ok_or(TransportError::Unreachable);
            let (attachment, groups) = reached()?;
            // Spawned: a request that arrived is carried out even if its sender gives up.
            let handling = tokio::spawn(async move { groups.handle(from, group, kind, &body).await });
            let answer = tokio::time::timeout(deadline, handling).await.map_err(|_| TransportError::Timeout)?;
            // A member that crashed meanwhile has answered nothing: what it wrote since is not in the image of its
            // store.
            if self.net.loses() || reached()?.0 != attachment {
                return lost.await;
            }
            answer.map_err(|_| TransportError::Unreachable)?.map_err(|error| {
                let refusal = error.refusal();
                wires.refused.lock().unwrap().push(error);
                TransportError::Refused(refusal)
            })
        })
    }
}

/// Where a member's store is, within its directory.
pub fn place(number: u64, dir: &Path) -> StorePlace {
    let binding = Binding {
        cluster: ClusterId([1; 16]),
        node: id(number),
        incarnation: Incarnation(0),
        store: StoreId([number as u8; 16]),
    };
    StorePlace { path: dir.join("store"), record: dir.join("record"), binding }
}

/// Where a member's bulk store of this id is, within its directory.
pub fn bulk_place(number: u64, dir: &Path, store: StoreId) -> StorePlace {
    let binding = Binding { store, ..place(number, dir).binding };
    StorePlace { path: dir.join("bulk"), record: dir.join("bulk-record"), binding }
}

/// Opens a member's store, which the first call makes. A lost store is not made again.
pub fn open_store(number: u64, dir: &Path) -> Result<Store, OpenError> {
    let place = place(number, dir);
    if !place.record.exists() {
        Store::create(&place, StoreId([0xee; 16]))?;
    }
    Store::open(&place)
}

/// A member: its directory outlives it.
pub struct Member {
    pub id: NodeId,
    pub dir: TempDir,
    pub store: Store,
    /// Open once it has a data group.
    pub bulk: Option<Store>,
    pub groups: Groups,
    pub net: Net,
    pub journals: BTreeMap<GroupId, Journal>,
}

impl Member {
    pub fn open(number: u64, dir: TempDir, net: &Net, roster: &Roster) -> Self {
        Self::copied(number, first_store(id(number)), dir, net, roster)
    }

    /// As a copy of the member that speaks under another store.
    pub fn copied(number: u64, own: StoreId, dir: TempDir, net: &Net, roster: &Roster) -> Self {
        let store = open_store(number, dir.path()).unwrap();
        let groups = Groups::new(id(number), own, store.clone(), net.wire(id(number)), roster.of(id(number), own));
        net.attach(id(number), groups.clone());
        Self { id: id(number), dir, store, bulk: None, groups, net: net.clone(), journals: BTreeMap::new() }
    }

    /// With a bulk store that was made there.
    pub fn with_bulk(number: u64, dir: TempDir, bulk: &StorePlace, net: &Net, roster: &Roster) -> Self {
        let (me, own) = (id(number), first_store(id(number)));
        let store = open_store(number, dir.path()).unwrap();
        let assignments = roster.of_stores(me, own, bulk.binding.store);
        let groups = Groups::new(me, own, store.clone(), net.wire(me), assignments);
        let bulk = Some(groups.open_bulk(bulk).unwrap());
        net.attach(me, groups.clone());
        Self { id: me, dir, store, bulk, groups, net: net.clone(), journals: BTreeMap::new() }
    }

    pub fn new(number: u64, net: &Net, roster: &Roster) -> Self {
        Self::open(number, tempfile::tempdir().unwrap(), net, roster)
    }

    /// Opens its first bulk store, made at the first time. One that is gone is not made again.
    fn open_bulk(&self) -> Store {
        let place = bulk_place(self.id.0, self.dir.path(), first_bulk_store(self.id));
        if !place.record.exists() {
            Store::create(&place, StoreId([0xdd; 16])).unwrap();
        }
        self.groups.open_bulk(&place).unwrap()
    }

    /// Its bulk store, opened at the first time.
    pub fn bulk(&mut self) -> &Store {
        if self.bulk.is_none() {
            self.bulk = Some(self.open_bulk());
        }
        self.bulk.as_ref().unwrap()
    }

    pub async fn start(&mut self, group: GroupId, config: GroupConfig) -> Group {
        if StoreKind::of(group) == StoreKind::Bulk {
            self.bulk();
        }
        let (machine, journal) = Recorder::publishing();
        let started = self.groups.start(group, machine, config).await.unwrap();
        self.journals.insert(group, journal);
        started
    }

    pub fn group(&self, group: GroupId) -> Group {
        self.groups.group(group).unwrap()
    }

    pub fn journal(&self, group: GroupId) -> Vec<Vec<u8>> {
        self.journals[&group].lock().unwrap().clone()
    }

    /// Stops in good order.
    pub async fn shutdown(self) -> TempDir {
        self.net.detach(self.id);
        self.groups.shutdown().await;
        self.dir
    }

    /// Ends as by `kill -9`: what was written so far is all that a later start finds. Taken from the running member,
    /// which learns nothing of it; it is put away afterwards so that its tasks do not go on.
    pub async fn crash(self) -> TempDir {
        self.net.detach(self.id);
        let image = tempfile::tempdir().unwrap();
        copy(self.dir.path(), image.path());
        self.groups.shutdown().await;
        image
    }
}

/// Copies a store as it is now. Files before directories: the mark of what was confirmed is not newer than what it
/// confirms.
pub fn copy(from: &Path, to: &Path) {
    let mut entries: Vec<_> = std::fs::read_dir(from).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(|entry| entry.file_type().unwrap().is_dir());
    for entry in entries {
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Waits for a status; a test that waits in vain says what it saw.
pub async fn until(group: &Group, what: &str, condition: impl Fn(&GroupStatus) -> bool) -> GroupStatus {
    let mut watch = group.watch();
    let reached = async { watch.wait_for(|status| condition(status)).await.map(|status| status.clone()) };
    match tokio::time::timeout(Duration::from_secs(60), reached).await {
        Ok(Ok(status)) => status,
        _ => panic!("waited in vain: {what}; last seen: {:?}, running: {:?}", group.status(), group.running()),
    }
}

/// Waits until one of the members leads, and returns its place.
pub async fn leader(members: &[Member], group: GroupId) -> usize {
    let elected = |place: usize, member: &Member| {
        let group = member.group(group);
        async move {
            let mut watch = group.watch();
            if watch.wait_for(|status| status.state == GroupState::Leader).await.is_err() {
                std::future::pending::<()>().await;
            }
            place
        }
    };
    let mut waiting = tokio::task::JoinSet::new();
    for (place, member) in members.iter().enumerate() {
        waiting.spawn(elected(place, member));
    }
    match tokio::time::timeout(Duration::from_secs(60), waiting.join_next()).await {
        Ok(Some(Ok(place))) => place,
        _ => panic!("no leader: {:?}", members.iter().map(|m| m.group(group).status()).collect::<Vec<_>>()),
    }
}

/// Three members of one group, initialized.
pub async fn trio(net: &Net, roster: &Roster, group: GroupId, config: &GroupConfig) -> Vec<Member> {
    founded(net, roster, group, config, &[1, 2, 3]).await
}

/// Members of one group, initialized.
pub async fn founded(net: &Net, roster: &Roster, group: GroupId, config: &GroupConfig, numbers: &[u64]) -> Vec<Member> {
    roster.set(group, numbers);
    let mut members = Vec::new();
    for number in numbers {
        let mut member = Member::new(*number, net, roster);
        member.start(group, config.clone()).await;
        members.push(member);
    }
    members[0].group(group).initialize(&ids(numbers)).await.unwrap();
    members
}

/// Waits until every member has applied all that any of them answered so far.
pub async fn level(members: &[Member], group: GroupId) {
    let upto = loop {
        let lead = &members[leader(members, group).await];
        if let Ok(upto) = lead.group(group).ensure_linearizable().await {
            break upto;
        }
    };
    for member in members {
        until(&member.group(group), "level", |status| status.applied >= upto).await;
    }
}
