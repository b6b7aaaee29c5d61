//! The trust state behind Raft, and the one place where what was applied becomes what handshakes judge by.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use countersign_core::authz::Affected;
use countersign_core::codec;
use countersign_core::group::GroupMembers;
use countersign_core::id::{Generation, KeyId};
use countersign_core::locked::Locked;
use countersign_core::principal::Role;
use countersign_core::time::UnixMillis;
use countersign_core::trust::author::Author;
use countersign_core::trust::clocks::Anchor;
use countersign_core::trust::command::{Command, Effect, Revoked, Stamped};
use countersign_core::trust::digest::Digests;
use countersign_core::trust::event::Event;
use countersign_core::trust::outcome::Outcome;
use countersign_core::trust::view::View;
use countersign_core::trust::{Recorded, TrustState};
use countersign_raft::{ApplyError, GroupMachine, LogPosition, RestoreError};
use tokio::sync::watch;

use crate::boot::boot_now;
use crate::trust::denylist::Denylist;
use crate::trust::events::{EventCounts, EventLog};
use crate::trust::stores::Stores;

/// Called with each new view and what was revoked on the way to it, before anything else learns of it. True once this
/// view, or a newer one, is in force: else nothing may be acknowledged.
pub(crate) type Publish = Box<dyn Fn(&Arc<View>, UnixMillis, &[Revocation]) -> bool + Send + Sync>;

/// A revocation that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revocation {
    /// From when on it counts: its id.
    pub(crate) generation: Generation,
    pub(crate) revoked: Revoked,
}

impl Revocation {
    fn of(command: &Command, outcome: &Outcome) -> Option<Self> {
        let revoked = match command.effect() {
            Effect::Revokes(revoked) => revoked,
            Effect::Evicts(node) => Revoked::Principal(Role::Node(node)),
            Effect::Nothing | Effect::BindsStore { .. } | Effect::CertifiesNode(_) | Effect::CertifiesPrincipal(_) => {
                return None;
            }
        };
        let (Outcome::Evicted { generation, .. } | Outcome::Revoked { generation, .. }) = outcome else { return None };
        Some(Self { generation: *generation, revoked })
    }
}

/// Changes that are remembered, for those outside who ask what they missed.
const CHANGES_MAX: usize = 1024;

/// The principals that the last changes concerned.
#[derive(Default)]
struct Changes {
    /// What came up to here is forgotten.
    forgotten: Generation,
    by: VecDeque<(Generation, Affected)>,
}

impl Changes {
    fn enter(&mut self, generation: Generation, affected: Affected) {
        self.by.push_back((generation, affected));
        if self.by.len() > CHANGES_MAX
            && let Some((generation, _)) = self.by.pop_front()
        {
            self.forgotten = generation;
        }
    }

    fn forget(&mut self, upto: Generation) {
        *self = Self { forgotten: upto, by: VecDeque::new() };
    }

    fn between(&self, told: Generation, upto: Generation) -> Affected {
        if told < self.forgotten {
            return Affected::everything();
        }
        let mut all = Affected::default();
        let news = self.by.iter().filter(|(generation, _)| *generation > told && *generation <= upto);
        news.for_each(|(_, affected)| all.join(affected.clone()));
        all
    }
}

/// The replicated state, readable by the rest of the member.
#[derive(Clone)]
pub struct SharedState(Arc<Inner>);

struct Inner {
    applied_state: Locked<AppliedState>,
    publish: OnceLock<Publish>,
    applied: watch::Sender<Generation>,
    anchor: Locked<Anchor>,
    digests: Locked<Digests>,
    events: OnceLock<Arc<EventCounts>>,
}

/// What was applied, and what that concerned: a reader of a generation finds its change, too.
struct AppliedState {
    /// Shared with its readers: `apply` copies what a reader still holds, and never waits for one.
    state: Arc<TrustState>,
    changes: Changes,
}

impl SharedState {
    /// Of a member that can apply what needs level `known`.
    pub(crate) fn knowing(known: u32) -> Self {
        let state = Arc::new(TrustState::knowing(known));
        Self(Arc::new(Inner {
            applied_state: Locked::new(AppliedState { state, changes: Changes::default() }),
            publish: OnceLock::new(),
            applied: watch::Sender::new(Generation(0)),
            anchor: Locked::default(),
            digests: Locked::default(),
            events: OnceLock::new(),
        }))
    }

    /// The state as applied so far: a snapshot, which stays as it is while more is applied.
    pub fn read(&self) -> Arc<TrustState> {
        Arc::clone(&self.0.applied_state.lock().state)
    }

    /// The principals that the changes after `told` concerned, up to the generation that is given.
    pub(crate) fn affected(&self, told: Generation, upto: Generation) -> Affected {
        self.0.applied_state.lock().changes.between(told, upto)
    }

    /// The last applied stamp, with the moment at which it was applied here.
    pub(crate) fn anchor(&self) -> Anchor {
        *self.0.anchor.lock()
    }

    /// Looks at the digests of this member's own state.
    pub(crate) fn with_digests<T>(&self, look: impl FnOnce(&Digests) -> T) -> T {
        look(&self.0.digests.lock())
    }

    /// Has `publish` called for the present view and for each one to come. To be called once.
    pub(crate) fn publish_to(&self, publish: Publish) {
        let publish = self.0.publish.get_or_init(|| publish);
        let state = self.read();
        if let Some(view) = state.view()
            && !publish(view, state.time(), &[])
        {
            // Applied before there was anywhere to publish it.
            self.0.applied.send_replace(Generation(0));
        }
    }

    /// Whether the state could be read at this moment.
    pub(crate) fn is_free(&self) -> bool {
        self.0.applied_state.is_free()
    }

    /// Never gives the state back.
    pub(crate) fn stall_for_testing(&self) {
        std::mem::forget(self.0.applied_state.lock());
    }

    /// Loses a revocation, as a state does that was damaged.
    pub(crate) fn forget_key_for_testing(&self, key: KeyId) {
        Arc::make_mut(&mut self.0.applied_state.lock().state).forget_key_for_testing(key);
    }

    /// Changes whenever something was applied: by then it is in force, and every connection that it refuses is closed.
    pub fn applied(&self) -> watch::Receiver<Generation> {
        self.0.applied.subscribe()
    }

    /// The machine to hand to Raft. `denylist` refuses for what stands in the log until it is applied.
    pub(crate) fn machine(&self, denylist: Arc<Denylist>, stores: Arc<Stores>, events: EventLog) -> TrustMachine {
        let _ = self.0.events.set(events.counts());
        let events = Locked::new(events);
        let known = self.read().known();
        let (published, revocations) = (Generation(0), Vec::new());
        TrustMachine { shared: self.clone(), known, denylist, stores, events, published, revocations, replaced: false }
    }

    /// How writing events went since the start: lines that failed, and events without a line.
    pub fn event_counts(&self) -> (u64, u64) {
        self.0
            .events
            .get()
            .map_or((0, 0), |counts| (counts.failed.load(Ordering::Relaxed), counts.missing.load(Ordering::Relaxed)))
    }
}

/// Applies entries of the trust group.
pub(crate) struct TrustMachine {
    shared: SharedState,
    /// The newest level that this member can apply.
    known: u32,
    denylist: Arc<Denylist>,
    stores: Arc<Stores>,
    events: Locked<EventLog>,
    published: Generation,
    /// Applied since the last view was published.
    revocations: Vec<Revocation>,
    /// The state was replaced, and what it includes is not known yet.
    replaced: bool,
}

impl TrustMachine {
    /// Digests the state, which includes the entries up to `applied`, if that is due.
    fn digest(&self, applied: u64) {
        let Some(index) = self.shared.with_digests(|digests| digests.due(applied)) else { return };
        let digest = self.shared.read().digest().unwrap_or_else(|error| stop(&error));
        self.shared.0.digests.lock().enter(index, digest);
    }

    /// Puts what was applied in force.
    fn publish(&mut self, upto: Option<LogPosition>) {
        let state = self.shared.read();
        {
            let mut anchor = self.shared.0.anchor.lock();
            // The same stamp again says nothing: time went on meanwhile.
            if state.time() > anchor.time {
                *anchor = Anchor { time: state.time(), at: boot_now() };
            }
        }
        let Some(view) = state.view() else { return };
        if view.generation != self.published {
            let in_force = |publish: &Publish| publish(view, state.time(), &self.revocations);
            if !self.shared.0.publish.get().is_none_or(in_force) {
                // A barrier that waits for this member's acknowledgment goes on waiting; the next entry tries again.
                tracing::error!(
                    generation = %view.generation,
                    "what was applied is not in force and is not acknowledged"
                );
                return;
            }
            self.published = view.generation;
            self.revocations.clear();
        }
        // Not before the view is in force: in between, neither would refuse an evicted member.
        if let Some(upto) = upto {
            self.denylist.applied(upto.index);
            self.stores.applied(upto.index);
        }
        self.shared.0.applied.send_replace(view.generation);
    }
}

impl GroupMachine for TrustMachine {
    /// A command that this binary does not know was written by a newer one. Skipping it would make this member's state
    /// differ from all others', so the member stops; a newer binary goes on from here.
    fn apply(&mut self, at: LogPosition, members: &GroupMembers, command: &[u8]) -> Result<Vec<u8>, ApplyError> {
        let stamped = Stamped::decode(self.known, command).map_err(ApplyError::new)?;
        self.digest(at.index.saturating_sub(1));
        let mut applied = self.shared.0.applied_state.lock();
        let AppliedState { state, changes } = &mut *applied;
        let state = Arc::make_mut(state);
        // Before, and without keeping the view: a view that a reader holds is copied when it is changed.
        let affected = Affected::by(&stamped.command, state.view().map(|view| &**view));
        let before = state.view().map(|view| view.generation);
        let Recorded { outcome, event } = state.apply_recorded(&stamped, members).map_err(ApplyError::new)?;
        if let Some(view) = state.view().filter(|view| before.is_none_or(|before| before < view.generation)) {
            changes.enter(view.generation, affected);
        }
        drop(applied);
        if let Some(event) = event
            && self.events.lock().append(&event)
        {
            told(at, &stamped.author, &event);
        }
        self.revocations.extend(Revocation::of(&stamped.command, &outcome));
        codec::encode(&outcome).map_err(ApplyError::new)
    }

    fn snapshot(&self) -> Vec<u8> {
        // A snapshot may take the place of entries: their events are not written again.
        self.events.lock().sync();
        self.shared.read().encode().unwrap_or_else(|error| stop(&error))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let restored = TrustState::decode(self.known, bytes).map_err(RestoreError::new)?;
        let upto = restored.view().map_or(Generation(0), |view| view.generation);
        self.events.lock().restored(restored.chain());
        let mut applied = self.shared.0.applied_state.lock();
        applied.changes.forget(upto);
        applied.state = Arc::new(restored);
        self.replaced = true;
        Ok(())
    }

    fn applied_batch(&mut self, upto: Option<LogPosition>) {
        self.publish(upto);
        let Some(upto) = upto else { return };
        if core::mem::take(&mut self.replaced) {
            self.shared.0.digests.lock().replaced(upto.index);
        }
        // Last: it takes time that grows with the state, and no caller waits for it.
        self.digest(upto.index);
    }
}

/// Characters of an event's details in the log; the events file has all of them.
const DETAILS_MAX: usize = 1024;

/// One line for each change that is applied here for the first time.
fn told(at: LogPosition, author: &Author, event: &Event) {
    let details: String = event.details.chars().take(DETAILS_MAX).collect();
    let (number, generation) = (event.number, event.generation);
    let (request, index) = (author.request, at.index);
    tracing::info!(event = event.name, %author, %request, details, %generation, index, number, "change applied");
}

/// Every state has an encoding, so this is a defect of ours; a snapshot that lacked some of it would be worse.
fn stop(error: &(dyn core::error::Error + 'static)) -> ! {
    tracing::error!(error = %crate::chain(error), "the state cannot be encoded");
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use countersign_core::id::{NodeId, RequestId};
    use countersign_core::limits::DIGEST_EVERY;
    use countersign_core::trust::command::{FEATURE_LEVEL, RevokeKey};
    use countersign_core::trust::digest::DigestAt;

    use super::*;
    use crate::identity::datadir::DataDir;

    #[test]
    fn state_is_digested_at_an_index_that_blank_entries_pass() {
        let data = tempfile::tempdir().unwrap();
        let events = EventLog::open(&DataDir::open(data.path()).unwrap()).unwrap();
        let shared = SharedState::knowing(FEATURE_LEVEL);
        let mut machine = shared.machine(Arc::default(), Arc::default(), events);
        let at = |index| LogPosition { term: 1, index };
        let apply = |machine: &mut TrustMachine, index, command| {
            let author = Author::of_member(NodeId(1), RequestId([0; 16]));
            let stamped = Stamped { level: FEATURE_LEVEL, time: UnixMillis(1), author, command };
            machine.apply(at(index), &GroupMembers::default(), &stamped.encode().unwrap()).unwrap();
        };
        let newest = || shared.with_digests(Digests::newest);
        let revoke = |key| Command::RevokeKey(RevokeKey(KeyId([key; 32])));
        apply(&mut machine, 1, crate::trust::replica::tests::bootstrap(1));
        apply(&mut machine, DIGEST_EVERY - 1, revoke(1));
        let then = shared.read().digest().unwrap();
        machine.applied_batch(Some(at(DIGEST_EVERY - 1)));
        assert_eq!(newest(), None);
        // The entry at the index changes nothing, and the next one comes in the same run.
        apply(&mut machine, DIGEST_EVERY + 1, revoke(2));
        assert_eq!(newest(), Some(DigestAt { index: DIGEST_EVERY, digest: then }));
        assert_ne!(shared.read().digest().unwrap(), then);
        // With the run, where no command follows.
        machine.applied_batch(Some(at(2 * DIGEST_EVERY)));
        let now = shared.read().digest().unwrap();
        assert_eq!(newest(), Some(DigestAt { index: 2 * DIGEST_EVERY, digest: now }));
        // A snapshot past the index leaves nothing to compare until the next one.
        let snapshot = machine.snapshot();
        machine.restore(&snapshot).unwrap();
        machine.applied_batch(Some(at(3 * DIGEST_EVERY + 1)));
        assert_eq!(newest(), None);
        machine.applied_batch(Some(at(4 * DIGEST_EVERY)));
        assert_eq!(newest(), Some(DigestAt { index: 4 * DIGEST_EVERY, digest: now }));
    }

    #[test]
    fn an_entry_of_a_newer_version_is_refused_by_the_level_that_it_needs() {
        let data = tempfile::tempdir().unwrap();
        let events = EventLog::open(&DataDir::open(data.path()).unwrap()).unwrap();
        let shared = SharedState::knowing(FEATURE_LEVEL);
        let newer = codec::encode_at(FEATURE_LEVEL + 1, &(UnixMillis(1), 250_u32)).unwrap();
        let refused = shared
            .machine(Arc::default(), Arc::default(), events)
            .apply(LogPosition::default(), &GroupMembers::default(), &newer)
            .unwrap_err();
        let shown = crate::chain(&refused).to_string();
        let level = format!("level {} is needed, this binary knows level {FEATURE_LEVEL}", FEATURE_LEVEL + 1);
        assert!(shown.contains(&level), "{shown}");
        assert_eq!(*shared.read(), TrustState::new());
    }
}
