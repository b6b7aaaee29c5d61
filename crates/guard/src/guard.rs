//! The guard: rules in force, and the proof that they are.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::authz::Recorded;
use countersign_core::id::Generation;
use countersign_core::lease::{Fresh, LeaseClock, NoLease};
use countersign_core::limits::RESOURCE_NAME_LEN_MAX;
use countersign_core::peer::{Scope, VerifiedPeer};
use countersign_core::trust::view::View;
use tokio::sync::watch;

use crate::denials::Denials;
use crate::groups::Groups;
use crate::permit::Denial;
use crate::recent::Recent;
use crate::replica::Replica;
use crate::session::Session;
use crate::source::Source;
use crate::time::Time;

/// Decides who may do what, by the rules in force. Cheap to clone: all clones are one guard.
#[derive(Clone)]
pub struct Guard(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    /// The generation in force. Sessions compare it on each request, so nothing else is on its line.
    generation: Line,
    pub(crate) lease: Arc<LeaseClock>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) time: Arc<dyn Time>,
    pub(crate) groups: Groups,
    pub(crate) recent: Recent,
    pub(crate) denials: Denials,
    changed: watch::Sender<Generation>,
}

/// A cache line of its own.
#[repr(align(128))]
struct Line(AtomicU64);

impl core::fmt::Debug for Guard {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Guard(generation {})", self.generation())
    }
}

/// Puts a member's views in force at its guard. There is one.
pub struct Publisher {
    replica: Arc<Replica>,
    guard: Guard,
}

impl Publisher {
    /// From here on no session answers by an earlier view. A view older than the one in force changes nothing. The
    /// member calls this before it tells others that the view is in force.
    pub fn publish(&self, view: &Arc<View>) {
        if self.replica.replace(view) {
            self.guard.in_force(view.generation);
        }
    }
}

impl Guard {
    /// The guard of a member: it decides by what its publisher puts in force, while `lease` lasts.
    pub fn of_member(lease: Arc<LeaseClock>, time: Arc<dyn Time>) -> (Self, Publisher) {
        let replica = Arc::<Replica>::default();
        let guard = Self::new(Arc::clone(&replica) as Arc<dyn Source>, lease, time);
        (guard.clone(), Publisher { replica, guard })
    }

    pub(crate) fn new(source: Arc<dyn Source>, lease: Arc<LeaseClock>, time: Arc<dyn Time>) -> Self {
        Self(Arc::new(Shared {
            generation: Line(AtomicU64::new(0)),
            lease,
            source,
            time,
            groups: Groups::default(),
            recent: Recent::default(),
            denials: Denials::default(),
            changed: watch::Sender::new(Generation(0)),
        }))
    }

    /// Everything that is known at `generation` can be asked for by now.
    pub(crate) fn in_force(&self, generation: Generation) {
        self.0.generation.0.store(generation.0, Ordering::Release);
        self.0.changed.send_replace(generation);
    }

    /// The generation in force.
    #[inline]
    pub fn generation(&self) -> Generation {
        self.0.generation()
    }

    /// Proof, by one reading of the clock, that the rules in force are fresh. Taken after the read that delivered the
    /// requests which it is to cover.
    ///
    /// Errors: without a lease nothing is allowed.
    pub fn fresh(&self) -> Result<Fresh<'_>, NoLease> {
        self.0.lease.fresh(self.0.time.boot())
    }

    /// A session for a peer that was verified, whose requests come from `from`. One for each task: it remembers answers
    /// without a lock.
    ///
    /// Errors: the cluster does not know the peer, or knows it no longer; or the rules about it are not here yet
    /// ([`Guard::fetch`]), which does not happen on a member.
    pub fn session(&self, peer: &VerifiedPeer, from: Option<IpAddr>) -> Result<Session, Denial> {
        match peer.scope() {
            Scope::Full => Session::new(self.clone(), peer.clone(), from),
            Scope::Recovery => Err(Denial::RecoveryOnly),
        }
    }

    /// Makes sure that the rules about `peer` are known here: on a member they always are, a remote guard asks a
    /// member.
    ///
    /// Errors: no member answered, or this remote guard may not ask.
    pub async fn fetch(&self, peer: &VerifiedPeer) -> Result<(), Denial> {
        Arc::clone(&self.0.source).fetch(peer).await
    }

    /// Returns once `generation`, or a later one, is in force.
    pub async fn reached(&self, generation: Generation) {
        let mut changed = self.0.changed.subscribe();
        // The sender lives as long as this guard does.
        let _ = changed.wait_for(|now| *now >= generation).await;
    }

    /// Changes with the generation in force.
    pub fn changes(&self) -> watch::Receiver<Generation> {
        self.0.changed.subscribe()
    }

    /// Records a request that was decided by the same rules without a session.
    pub fn record(&self, request: Recorded) {
        if request.name.len() <= RESOURCE_NAME_LEN_MAX {
            self.0.recent.record(request, self.0.time.now());
        }
    }

    /// Requests of the last hours, each once: what a change of rules is tried on before it is made.
    pub fn recent(&self) -> Vec<Recorded> {
        self.0.recent.all()
    }

    /// Groups of rules that are compiled. Bounded by what the rules name.
    pub fn compiled_groups(&self) -> usize {
        self.0.groups.len()
    }
}

impl Shared {
    #[inline]
    pub(crate) fn generation(&self) -> Generation {
        Generation(self.generation.0.load(Ordering::Acquire))
    }
}
