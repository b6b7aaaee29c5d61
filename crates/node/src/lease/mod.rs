//! This member's lease: asked for well before it runs out, counted by the clock that no suspend stops.

mod book;
mod desk;
mod sublease;
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use countersign_api::cluster::leases_client::LeasesClient;
use countersign_api::cluster::{LeaseReply, LeaseRequest};
use countersign_core::codec;
use countersign_core::id::{Generation, NodeId};
use countersign_core::lease::{Fresh, Holder, LeaseClock, NoLease};
use countersign_core::locked::Locked;
use countersign_core::time::{BootMillis, UnixMillis};
use countersign_core::trust::agreement::Report;
use countersign_core::trust::digest::Digests;
use countersign_net::{Clock, SystemClock};
use countersign_raft::{Group, Refusal};

use crate::boot::boot_now;
use crate::identity::keys::{KeysError, random};
use crate::identity::local::Local;
use crate::peers::Peers;
use crate::time::ClusterTime;
use crate::trust::divergence::{Compared, Divergence};
use crate::trust::gate::Gate;
use crate::trust::machine::SharedState;
use crate::trust::stores::Stores;
pub(crate) use book::Book;
pub use desk::LeaseManager;
pub(crate) use desk::{Answered, Ask, Grant, NotLeader};
pub(crate) use sublease::Place;
pub use sublease::Subleases;
pub use wait::Barriers;

/// How long an answer may take; a request that got none is made again.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// How long to wait before asking again after a failure.
const RETRY: Duration = Duration::from_millis(200);
/// How long to wait before asking again where states differ: that ends by what an operator does.
const DIFFERS_RETRY: Duration = Duration::from_secs(1);
/// Receipts in one request.
const RECEIPTS_MAX: usize = 32;

/// What this member knows of its own lease.
pub struct Leasehold {
    holder: Locked<Holder>,
    clock: Arc<LeaseClock>,
    gate: Arc<Gate>,
    /// Given up for good.
    surrendered: AtomicBool,
    /// Another process of this member counts.
    replaced: AtomicBool,
    pub(crate) book: Arc<Book>,
    /// Leases that this member gives out of its own.
    pub subleases: Subleases,
}

impl Leasehold {
    /// Begins without a lease, as every start does. When it lapses, nothing is believed beyond `gate`.
    pub(crate) fn new(gate: Arc<Gate>, subleases: Subleases) -> Result<Self, KeysError> {
        let boot = *random::<16>()?.expose();
        Ok(Self {
            holder: Locked::default(),
            clock: Arc::default(),
            gate,
            surrendered: AtomicBool::new(false),
            replaced: AtomicBool::new(false),
            book: Arc::new(Book::new(boot)),
            subleases,
        })
    }

    fn update<T>(&self, with: impl FnOnce(&mut Holder) -> T) -> T {
        let mut holder = self.holder.lock();
        let result = with(&mut holder);
        if self.surrendered.load(Ordering::Acquire) {
            holder.surrender();
        }
        self.clock.follow(&holder);
        if let Some(deadline) = holder.deadline() {
            self.gate.leased(deadline);
        }
        result
    }

    /// Gives the lease up for good: this member learned that it is out. Nothing that a leader grants counts from now on.
    pub(crate) fn surrender(&self) {
        self.surrendered.store(true, Ordering::Release);
        self.update(Holder::surrender);
    }

    /// Notes whether the leader counts another process as this member.
    fn replaced(&self, replaced: bool) {
        if replaced && !self.replaced.swap(replaced, Ordering::AcqRel) {
            tracing::error!("another process runs with this node's keys and store, and the leader counts that one");
        }
        self.replaced.store(replaced, Ordering::Release);
    }

    /// Whether the leader counts another process as this member.
    pub fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// Whether it was given up for good.
    pub fn is_surrendered(&self) -> bool {
        self.surrendered.load(Ordering::Acquire)
    }

    /// Proof, by one reading of the clock, that this member has heard lately what is revoked.
    ///
    /// # Errors
    /// There is no lease now.
    pub fn fresh(&self) -> Result<Fresh<'_>, NoLease> {
        self.clock.fresh(boot_now())
    }

    /// The end of the lease, for whoever decides by it.
    pub(crate) fn clock(&self) -> Arc<LeaseClock> {
        Arc::clone(&self.clock)
    }

    /// The moment at which the lease ends or ended; none if there was none.
    pub(crate) fn deadline(&self) -> Option<BootMillis> {
        self.holder.lock().deadline()
    }

    /// When the lease ends, in milliseconds from now; none without one.
    pub fn millis_left(&self) -> Option<u64> {
        let deadline = self.holder.lock().deadline();
        deadline.map(|deadline| deadline.since(boot_now())).filter(|left| *left > 0)
    }
}

/// An encoded field that may be absent.
fn encoded<T: serde::Serialize>(value: Option<&T>) -> Bytes {
    value.and_then(|value| codec::encode(value).ok()).unwrap_or_default().into()
}

/// What was told to whom last.
#[derive(Default)]
struct Told {
    /// Leader and term.
    to: Option<(NodeId, u64)>,
    enforced: Generation,
    receipts: Generation,
    /// That it leases to others.
    subtenants: bool,
    /// When a lease was last asked for and granted.
    granted: Option<BootMillis>,
}

/// The task that keeps this member's lease alive and its leader informed.
pub(crate) struct LeaseKeeping {
    pub(crate) local: Arc<Local>,
    pub(crate) state: SharedState,
    pub(crate) group: Group,
    pub(crate) peers: Peers,
    pub(crate) lease: Arc<Leasehold>,
    pub(crate) leases: Arc<LeaseManager>,
    pub(crate) time: Arc<ClusterTime>,
    pub(crate) stores: Arc<Stores>,
    pub(crate) divergence: Arc<Divergence>,
}

impl LeaseKeeping {
    /// Runs until the member stops, or has given its lease up for good.
    pub(crate) async fn run(self) {
        let mut applied = self.state.applied();
        let mut status = self.group.watch();
        let mut acknowledged = self.lease.subleases.acknowledged();
        let mut told = Told::default();
        loop {
            if self.lease.is_surrendered() {
                return; // whom it asked would only refuse it
            }
            applied.mark_unchanged();
            status.mark_unchanged();
            acknowledged.mark_unchanged();
            let next = self.keep_lease(&mut told).await;
            // why: a lease runs out by the passing of time alone, and a lost message leaves nothing to wait for
            let due = tokio::time::sleep(next);
            tokio::pin!(due);
            loop {
                let leader = self.group.status();
                let leader = leader.leader.map(|node| (node, leader.term));
                tokio::select! {
                    _ = applied.changed() => break,
                    _ = acknowledged.changed() => break,
                    _ = status.changed() => if leader != told.to && leader.is_some() { break },
                    () = &mut due => break,
                }
            }
        }
    }

    /// Says to the leader what is new, and asks for a lease when it is time. Returns when to come again.
    async fn keep_lease(&self, told: &mut Told) -> Duration {
        let own = *self.state.applied().borrow();
        self.lease.update(|holder| holder.enforced(own));
        // What is said to be enforced is enforced by those outside as well, who have their leases from here.
        let (enforced, lapse) = self.lease.subleases.enforced(&self.state, boot_now());
        let status = self.group.status();
        let Some(leader) = status.leader else { return RETRY };
        let subtenants = self.lease.subleases.are_wanted();
        if told.to != Some((leader, status.term)) {
            // Another leader knows nothing of this member yet.
            *told = Told { to: Some((leader, status.term)), ..Told::default() };
            self.lease.update(Holder::led_anew);
        }
        // Before the state is here, nobody knows how long a lease lasts.
        let Some(length) = self.state.read().lease() else { return RETRY };
        let asked = boot_now();
        let due = told.granted.is_none_or(|at| asked.since(at) >= length.renew_millis());
        // Nobody serves without a certificate, the leader itself neither.
        let renew = due && !self.local.leaf_expired();
        let receipts = self.lease.book.newest(enforced);
        // Also where no lease is wanted: the leader counts this member's clock, without which a cluster that was off may not
        // know what time it is.
        if due || enforced > told.enforced || receipts > told.receipts || subtenants != told.subtenants {
            let ask = Ask { subtenants, ..self.ask(enforced, renew, told.receipts) };
            let last = ask.receipts.last().map_or(receipts, |receipt| receipt.generation);
            match self.ask_lease(leader, ask).await {
                Some(answered) => {
                    (told.enforced, told.receipts, told.subtenants) = (enforced, last, subtenants);
                    if subtenants {
                        self.lease.subleases.announced_to(leader, status.term);
                    }
                    if !self.time.is_right() {
                        // Whoever judges by a wrong clock serves nobody.
                        self.lease.update(Holder::surrender);
                    }
                    match answered {
                        // As long as the replicated state says, whatever the leader says.
                        Answered::Granted(Grant { generation }) => {
                            self.lease.replaced(false);
                            if leader != self.local.node {
                                self.divergence.states_agree();
                            }
                            told.granted = Some(asked);
                            if self.time.is_right() {
                                self.lease.update(|holder| holder.granted(asked, generation, length));
                            }
                        }
                        Answered::Replaced => {
                            told.granted = None;
                            self.lease.update(Holder::surrender);
                            self.lease.replaced(true);
                            return DIFFERS_RETRY;
                        }
                        // Asked for and not given: this member's certificate or the leader's has expired.
                        Answered::Differs(report) => {
                            told.granted = None;
                            self.lease.update(Holder::surrender);
                            if leader != self.local.node {
                                self.divergence.states_differ(report);
                            }
                            return DIFFERS_RETRY;
                        }
                        Answered::Heard if renew => return RETRY,
                        Answered::Heard => {}
                    }
                }
                None => return RETRY,
            }
        }
        if due && !renew {
            return RETRY;
        }
        let again = told.granted.map_or(0, |at| length.renew_millis().saturating_sub(boot_now().since(at)));
        let lapse = lapse.map_or(again, |lapse| lapse.since(boot_now()));
        Duration::from_millis(again.min(lapse).max(1))
    }

    fn ask(&self, enforced: Generation, renew: bool, told: Generation) -> Ask {
        let cluster = self.local.view().cluster;
        let receipts =
            self.lease.book.receipts(told, enforced, cluster, self.local.node, &self.local.keys.identity, RECEIPTS_MAX);
        let clock: UnixMillis = SystemClock.now();
        let compared =
            Compared { digest: self.state.with_digests(Digests::newest), disputed: self.divergence.disputed() };
        Ask {
            enforced,
            clock,
            renew,
            receipts,
            subtenants: false,
            store: self.local.store,
            boot: self.lease.book.boot(),
            compared,
        }
    }

    /// A leader refuses this member's store.
    fn refused_for_store(&self, peer: NodeId, refusal: Refusal) {
        match refusal {
            Refusal::OtherStore | Refusal::RolledBack if self.stores.refused_by(peer, refusal) => {
                tracing::error!(%peer, %refusal, "this node's store is refused: it must return with a new one");
                if let Err(error) = crate::identity::store_return::note_refused(&self.local.data, self.local.store) {
                    tracing::error!(error = %crate::chain(&error), "that the store is refused was not noted");
                }
            }
            Refusal::OtherStore | Refusal::RolledBack => {}
            // On its way back: its new store counts once the member has left the group and the record says so.
            Refusal::Conflict
            | Refusal::NotYet
            | Refusal::NotAssigned
            | Refusal::Outsider
            | Refusal::Invalid
            | Refusal::Stopped => {
                tracing::debug!(%peer, %refusal, "no lease");
            }
        }
    }

    /// Whether the leader takes this member's store for the one on record, and answers under the one that is on record of it.
    fn takes_store(&self, leader: NodeId, reply: &LeaseReply) -> bool {
        if !reply.refused.is_empty() {
            let refusal = codec::decode(&reply.refused).unwrap_or(Refusal::Invalid);
            self.refused_for_store(leader, refusal);
            return false;
        }
        self.stores.taken_by(leader);
        let view = self.state.read().view().cloned();
        let known = self.stores.of(view.as_deref(), leader);
        let counts = known.iter().any(|store| store.0 == *reply.store);
        if !counts {
            // This member is behind, or that one is a copy: a lease of its would be worth nothing.
            tracing::debug!(%leader, "no lease: the leader answers under another store than the one on record");
        }
        counts
    }

    /// The leader's answer; none if there was none.
    async fn ask_lease(&self, leader: NodeId, ask: Ask) -> Option<Answered> {
        if leader == self.local.node {
            let answer = self.leases.serve(leader, ask).await.ok();
            self.time.compare(self.time.own_stamp());
            return answer;
        }
        let receipts = ask.receipts.iter().filter_map(|receipt| codec::encode(receipt).ok());
        let request = LeaseRequest {
            generation: ask.enforced.0,
            clock_millis: ask.clock.0,
            renew: ask.renew,
            receipts: receipts.map(Into::into).collect(),
            subtenants: ask.subtenants,
            store: Bytes::copy_from_slice(&ask.store.0),
            boot: Bytes::copy_from_slice(&ask.boot.0),
            digest: encoded(ask.compared.digest.as_ref()),
            disputed: encoded(ask.compared.disputed.as_ref()),
        };
        let mut client = LeasesClient::new(self.peers.channel(leader)?);
        let answer = tokio::time::timeout(ANSWER_DEADLINE, client.lease(request)).await.ok()?;
        let reply = match answer {
            Ok(reply) => reply.into_inner(),
            Err(status) => {
                tracing::debug!(%leader, %status, "no lease");
                return None;
            }
        };
        if !self.takes_store(leader, &reply) {
            return None;
        }
        self.time.compare((reply.time_millis > 0).then_some(UnixMillis(reply.time_millis)));
        let report = |bytes: &[u8]| codec::decode::<Report>(bytes).ok().map(Report::bounded);
        let disputed = if reply.disputed.is_empty() { Some(Report::default()) } else { report(&reply.disputed) };
        if let Some(disputed) = disputed {
            self.divergence.follow_leader(&disputed);
        }
        if reply.replaced {
            return Some(Answered::Replaced);
        }
        if !reply.differs.is_empty() {
            // Unreadable, it still says that there is no lease.
            return Some(Answered::Differs(report(&reply.differs)));
        }
        if !reply.granted {
            return Some(Answered::Heard);
        }
        Some(Answered::Granted(Grant { generation: Generation(reply.generation) }))
    }
}
