//! What a link believes of an answer, and what it does not.

use std::sync::Mutex;

use openraft::testing::log_id;

use super::*;
use crate::memory::Position;
use crate::store::{Store, StoreKind};
use crate::transport::BoxFuture;
use crate::types::SnapshotMeta;

const TERM: u64 = 5;

const PEER: NodeId = NodeId(2);
const THEIRS: StoreId = StoreId([2; 16]);

/// A member that always gives the same answer.
struct Answering(Result<Vec<u8>, Refusal>);

impl Transport for Answering {
    fn call(
        &self,
        _: NodeId,
        _: GroupId,
        _: RaftRpc,
        _: Vec<u8>,
        _: Duration,
    ) -> BoxFuture<'_, Result<Vec<u8>, TransportError>> {
        Box::pin(async { self.0.clone().map_err(TransportError::Refused) })
    }
}

/// Everybody belongs to the group; whether they may lead it is another question.
struct MayLead {
    may_lead: Option<bool>,
    stores: Vec<StoreId>,
    may_vote: bool,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Assignments for MayLead {
    fn assigned(&self, _: GroupId, _: NodeId) -> Option<bool> {
        Some(true)
    }

    fn may_lead(&self, _: GroupId, _: NodeId) -> Option<bool> {
        self.may_lead
    }

    fn stores(&self, _: StoreKind, _: NodeId) -> Vec<StoreId> {
        self.stores.clone()
    }

    fn may_vote(&self, _: GroupId) -> bool {
        self.may_vote
    }

    fn distrusted(&self, _: GroupId, fault: &StoreFault) {
        self.seen.lock().unwrap().push(fault.to_string());
    }

    fn refused_by(&self, _: GroupId, peer: NodeId, refusal: Refusal) {
        self.seen.lock().unwrap().push(format!("{peer}: {refusal}"));
    }
}

struct Rig {
    memory: Memory,
    seen: Arc<Mutex<Vec<String>>>,
    _store: Store,
    _dir: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::store::suite::store_in(dir.path());
        let memory = Memory::open(&store, GroupId::TRUST).await.unwrap();
        Self { memory, seen: Arc::default(), _store: store, _dir: dir }
    }

    fn assignments(&self) -> MayLead {
        MayLead { may_lead: Some(true), stores: vec![THEIRS], may_vote: true, seen: Arc::clone(&self.seen) }
    }

    fn link(&self, answer: Result<Vec<u8>, Refusal>, assignments: MayLead) -> Link {
        let network = Network {
            me: NodeId(1),
            own: StoreId([1; 16]),
            group: GroupId::TRUST,
            memory: self.memory.clone(),
            contacts: Contacts::default(),
            transport: Arc::new(Answering(answer)),
            assignments: Arc::new(assignments),
            backoff: Duration::ZERO,
            snapshot_stale: Arc::default(),
        };
        Link { network, target: PEER }
    }

    /// A link to a member whose store `store` is at `position`, and which answers so.
    fn to(&self, store: StoreId, position: Position, answer: impl Serialize) -> Link {
        self.link(Ok(codec::encode(&Answered { store, position, answer }).unwrap()), self.assignments())
    }

    async fn append(&self, link: &mut Link, term: u64, upto: u64) -> bool {
        let (vote, prev) = (Vote::new_committed(term, 1), Some(log_id(term, 1, upto)));
        let append = AppendEntriesRequest { vote, prev_log_id: prev, entries: vec![], leader_commit: None };
        link.append_entries(append, RPCOption::new(Duration::from_secs(60))).await.is_ok()
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

fn at(term: u64, last: u64) -> Position {
    Position { vote: Vote::new_committed(term, 1), last: Some(last) }
}

async fn link(answer: &impl Serialize, may_lead: Option<bool>) -> (Rig, Link) {
    let rig = Rig::new().await;
    let answered = Answered { store: THEIRS, position: Position::default(), answer };
    let link = rig.link(Ok(codec::encode(&answered).unwrap()), MayLead { may_lead, ..rig.assignments() });
    (rig, link)
}

#[tokio::test]
async fn answer_counts_under_a_store_on_record_only() {
    let rig = Rig::new().await;
    let success = AppendEntriesResponse::<u64>::Success;
    assert!(rig.append(&mut rig.to(THEIRS, at(5, 9), &success), 5, 9).await);
    assert_eq!(rig.seen(), Vec::<String>::new());
    let other = StoreId([9; 16]);
    let mut link = rig.to(other, at(5, 9), &success);
    assert!(!rig.append(&mut link, 5, 9).await);
    assert!(link.network.contacts.last(PEER).is_none(), "a second copy is no contact");
    let fault = StoreFault::Other { node: PEER, expected: THEIRS, got: other };
    assert_eq!(rig.seen(), [fault.to_string()]);
    // A change that is on its way counts beside it; a member of which nothing is known does not.
    let answer = |store| Ok(codec::encode(&Answered { store, position: at(5, 9), answer: &success }).unwrap());
    let both = || MayLead { stores: vec![THEIRS, other], ..rig.assignments() };
    assert!(rig.append(&mut rig.link(answer(other), both()), 5, 9).await);
    assert!(rig.append(&mut rig.link(answer(THEIRS), both()), 5, 9).await);
    let unknown = MayLead { stores: vec![], ..rig.assignments() };
    assert!(!rig.append(&mut rig.link(answer(THEIRS), unknown), 5, 9).await);
}

#[tokio::test]
async fn votes_and_snapshots_of_another_store_count_for_nothing() {
    let rig = Rig::new().await;
    let (vote, option) = (Vote::new(TERM, 1), || RPCOption::new(Duration::from_secs(60)));
    let standing = || VoteRequest { vote, last_log_id: None };
    let granted = VoteResponse { vote, vote_granted: true, last_log_id: None::<LogId> };
    assert!(rig.to(THEIRS, Position::default(), &granted).vote(standing(), option()).await.is_ok());
    let other = StoreId([9; 16]);
    assert!(rig.to(other, Position::default(), &granted).vote(standing(), option()).await.is_err());
    let leading = Vote::new_committed(TERM, 1);
    let meta = SnapshotMeta { last_log_id: Some(log_id(1, 1, 1)), ..SnapshotMeta::default() };
    let snapshot = || Snapshot { meta: meta.clone(), snapshot: Box::default() };
    let installed = SnapshotResponse { vote: leading };
    for (store, counts) in [(THEIRS, true), (other, false)] {
        let mut link = rig.to(store, at(TERM, 9), &installed);
        let sent = link.full_snapshot(leading, snapshot(), std::future::pending(), option()).await;
        assert_eq!(sent.is_ok(), counts);
    }
    // And this member asks for no vote while its own store is not on record.
    let answer = Answered { store: THEIRS, position: at(TERM, 9), answer: &granted };
    let unrecorded = MayLead { may_vote: false, ..rig.assignments() };
    let mut link = rig.link(Ok(codec::encode(&answer).unwrap()), unrecorded);
    assert!(link.vote(standing(), option()).await.is_err());
}

#[tokio::test]
async fn answer_below_what_was_acknowledged_and_committed_is_refused() {
    let rig = Rig::new().await;
    let success = AppendEntriesResponse::<u64>::Success;
    assert!(rig.append(&mut rig.to(THEIRS, at(TERM, 50), &success), TERM, 50).await);
    let _ = rig.memory.committed(&log_id(TERM, 1, 50)).unwrap();
    assert!(rig.append(&mut rig.to(THEIRS, at(TERM, 50), &success), TERM, 50).await);
    // An older copy: also where it has what it is asked about, and where it says that it has not.
    for answer in [success, AppendEntriesResponse::Conflict] {
        assert!(!rig.append(&mut rig.to(THEIRS, at(TERM, 49), &answer), TERM, 10).await);
    }
    let seen = rig.seen();
    assert!(seen[0].contains("node 2 was rolled back: its log ends at 49, and it acknowledged 50"), "{seen:?}");
    assert!(!rig.append(&mut rig.to(THEIRS, at(TERM, 50), &AppendEntriesResponse::<u64>::Success), TERM, 50).await);
}

#[tokio::test]
async fn learner_may_come_back_from_an_older_copy() {
    let rig = Rig::new().await;
    let answer = |last| {
        let answer = AppendEntriesResponse::<u64>::Success;
        Ok(codec::encode(&Answered { store: THEIRS, position: at(TERM, last), answer }).unwrap())
    };
    let learner = || MayLead { may_lead: Some(false), ..rig.assignments() };
    assert!(rig.append(&mut rig.link(answer(50), learner()), TERM, 50).await);
    let _ = rig.memory.committed(&log_id(TERM, 1, 50)).unwrap();
    assert!(rig.append(&mut rig.link(answer(20), learner()), TERM, 20).await);
}

#[tokio::test]
async fn member_learns_that_its_own_store_is_refused() {
    let rig = Rig::new().await;
    for (refusal, told) in [
        (Refusal::OtherStore, true),
        (Refusal::RolledBack, true),
        (Refusal::Conflict, true),
        (Refusal::NotYet, false),
        (Refusal::NotAssigned, false),
    ] {
        let mut link = rig.link(Err(refusal), rig.assignments());
        assert!(!rig.append(&mut link, TERM, 1).await);
        assert_eq!(!rig.seen().is_empty(), told, "{refusal}");
    }
}

/// Whether this member, leader of `TERM`, believes another that answers each of its requests with `vote`.
async fn believes(vote: Vote, may_lead: Option<bool>) -> [bool; 3] {
    let (mine, option) = (Vote::new_committed(TERM, 1), || RPCOption::new(Duration::from_secs(60)));
    let append = AppendEntriesRequest { vote: mine, prev_log_id: None, entries: vec![], leader_commit: None };
    let refused: AppendEntriesResponse<u64> = AppendEntriesResponse::HigherVote(vote);
    let standing = VoteRequest { vote: mine, last_log_id: None };
    let denied = VoteResponse { vote, vote_granted: false, last_log_id: None::<LogId> };
    let meta = SnapshotMeta { last_log_id: Some(log_id(1, 1, 1)), ..SnapshotMeta::default() };
    let snapshot = Snapshot { meta, snapshot: Box::default() };
    let never = std::future::pending();
    [
        link(&refused, may_lead).await.1.append_entries(append, option()).await.is_ok(),
        link(&denied, may_lead).await.1.vote(standing, option()).await.is_ok(),
        link(&SnapshotResponse { vote }, may_lead).await.1.full_snapshot(mine, snapshot, never, option()).await.is_ok(),
    ]
}

#[tokio::test]
async fn an_answer_that_raises_the_vote_is_believed_only_from_who_may_lead() {
    let higher = [Vote::new(TERM + 1, 2), Vote::new_committed(TERM, 2), Vote::new_committed(TERM + 1, 2)];
    for vote in higher {
        assert_eq!(believes(vote, Some(true)).await, [true; 3], "{vote}");
        assert_eq!(believes(vote, Some(false)).await, [false; 3], "{vote}");
        assert_eq!(believes(vote, None).await, [false; 3], "{vote}");
    }
    // What raises nothing is an answer like any other.
    for vote in [Vote::new(TERM - 1, 2), Vote::new(TERM, 1), Vote::new_committed(TERM, 1)] {
        assert_eq!(believes(vote, Some(false)).await, [true; 3], "{vote}");
    }
}

#[tokio::test]
async fn an_answer_may_not_exhaust_the_terms() {
    let vote = |ahead| Vote::new(TERM + ahead, 2);
    assert_eq!(believes(vote(TERM_JUMP_MAX), Some(true)).await, [true; 3]);
    assert_eq!(believes(vote(TERM_JUMP_MAX + 1), Some(true)).await, [false; 3]);
}
