//! What one peer may do, remembered: the fast path, and the slow one that fills it.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;

use countersign_core::authz::{
    Action, ActionSet, Decision, Effect, Kind, Policy, Question, Reason, Recorded, Subject, decide,
};
use countersign_core::id::Generation;
use countersign_core::lease::Fresh;
use countersign_core::limits::RESOURCE_NAME_LEN_MAX;
use countersign_core::peer::VerifiedPeer;
use countersign_core::time::{BootMillis, UnixMillis};

use crate::cells::{Cells, Said, Sought, hash};
use crate::guard::Guard;
use crate::permit::{About, Denial, Permit};
use crate::recent::WINDOW_SECS;
use crate::resource::Resource;
use crate::source::Standing;

/// Answers that a session remembers; a power of two. The next resource with the same last bits takes the place of one.
const SLOTS: usize = 64;

/// How often rules are compiled for one answer, if they change all the while: after that it is decided without.
const REFRESHES_MAX: usize = 2;

/// An answer: of this resource, these actions were asked for and granted.
#[derive(Default)]
struct Slot {
    resource: Cell<u64>,
    granted: Cell<u8>,
}

/// What rules say of the peer, as of one generation.
struct Known {
    policy: Arc<Policy>,
    subject: Subject,
    kinds: Vec<OfKind>,
    /// The actions granted on everything, if they do not depend on names.
    of_everything: Option<ActionSet>,
}

/// What they say of one kind of thing.
struct OfKind {
    kind: Kind,
    /// Of every name, by groups that say the same of each.
    allow: u8,
    deny: u8,
    /// The other groups.
    cells: Vec<Arc<Cells>>,
}

impl Known {
    fn new(standing: Standing, groups: &[Arc<[Arc<Cells>]>]) -> Self {
        let Standing { policy, subject, .. } = standing;
        let mut kinds: Vec<OfKind> = Vec::new();
        for cells in groups.iter().flat_map(|group| group.iter()) {
            let at = kinds.iter().position(|of| of.kind == *cells.kind()).unwrap_or_else(|| {
                kinds.push(OfKind { kind: cells.kind().clone(), allow: 0, deny: 0, cells: Vec::new() });
                kinds.len() - 1
            });
            let Some(of) = kinds.get_mut(at) else { continue };
            match cells.of_every_name() {
                Some(cell) => (of.allow, of.deny) = (of.allow | cell.allow, of.deny | cell.deny),
                None => of.cells.push(Arc::clone(cells)),
            }
        }
        let unevaluable = (!policy.unevaluable().is_empty()).then_some(ActionSet::NONE);
        let of_everything = if policy.is_super(&subject) { Some(ActionSet::ALL) } else { unevaluable };
        Self { policy, subject, kinds, of_everything }
    }
}

/// The rights of one verified peer, as asked by one task. Answers are remembered until anything changes. Then each is
/// decided again, and a peer that is known no longer gets none.
///
/// It is `Send` but not `Sync`: each task of a connection has its own ([`Session::another`]).
pub struct Session {
    guard: Guard,
    peer: VerifiedPeer,
    from: Option<IpAddr>,
    generation: Cell<u64>,
    /// From then on, remembered answers may be different by themselves.
    until: Cell<BootMillis>,
    slots: Box<[Slot; SLOTS]>,
    /// Requests that were recorded: a Bloom filter, two bits each. One that is taken for others is not recorded.
    seen: Box<[Cell<u64>; SLOTS]>,
    known: RefCell<Option<Known>>,
}

impl Session {
    pub(crate) fn new(guard: Guard, peer: VerifiedPeer, from: Option<IpAddr>) -> Result<Self, Denial> {
        let session = Self {
            guard,
            peer,
            from: from.map(|from| from.to_canonical()),
            generation: Cell::new(0),
            until: Cell::new(BootMillis(0)),
            slots: Box::new([const { Slot { resource: Cell::new(0), granted: Cell::new(0) } }; SLOTS]),
            seen: Box::new([const { Cell::new(0) }; SLOTS]),
            known: RefCell::new(None),
        };
        session.refresh()?;
        Ok(session)
    }

    /// Another session of the same peer, for another task.
    pub fn another(&self) -> Result<Self, Denial> {
        Self::new(self.guard.clone(), self.peer.clone(), self.from)
    }

    /// Whose it is.
    pub const fn peer(&self) -> &VerifiedPeer {
        &self.peer
    }

    /// Whether the peer may do `action` to `resource`. An answer that is remembered costs one comparison of generations
    /// and one load.
    ///
    /// # Errors
    /// [`Denial::Denied`] with the rule; [`Denial::Refused`] if the peer is known no longer; [`Denial::Unfetched`]
    /// outside the cluster, where [`Guard::fetch`] comes first.
    #[inline]
    pub fn authorize<'a>(
        &self,
        fresh: &Fresh<'_>,
        action: Action,
        resource: &'a Resource,
    ) -> Result<Permit<'a>, Denial> {
        let generation = self.guard.generation();
        if generation.0 == self.generation.get()
            && fresh.now() < self.until.get()
            && let Some(slot) = self.slot(resource)
            && slot.resource.get() == resource.id()
            && slot.granted.get() & action.bit() != 0
        {
            let about = About::Resource(resource);
            return Ok(Permit { about, action, generation, deadline: self.ends(fresh) });
        }
        self.authorize_again(fresh, action, resource)
    }

    #[inline]
    fn slot(&self, resource: &Resource) -> Option<&Slot> {
        self.slots.get((resource.id() as usize) & (SLOTS - 1))
    }

    #[cold]
    fn authorize_again<'a>(
        &self,
        fresh: &Fresh<'_>,
        action: Action,
        resource: &'a Resource,
    ) -> Result<Permit<'a>, Denial> {
        let Some(generation) = self.current(fresh)? else {
            return self.uncompiled(fresh, action, About::Resource(resource));
        };
        self.ask(action, resource.kind(), resource.name())?;
        if let Some(slot) = self.slot(resource) {
            let before = if slot.resource.get() == resource.id() { slot.granted.get() } else { 0 };
            slot.resource.set(resource.id());
            slot.granted.set(before | action.bit());
        }
        Ok(Permit { about: About::Resource(resource), action, generation, deadline: self.ends(fresh) })
    }

    /// The same for a thing that is named once: its name is looked up.
    pub fn authorize_named<'a>(
        &self,
        fresh: &Fresh<'_>,
        action: Action,
        kind: &'a Kind,
        name: &'a str,
    ) -> Result<Permit<'a>, Denial> {
        let Some(generation) = self.current(fresh)? else {
            return self.uncompiled(fresh, action, About::Named(kind, name));
        };
        self.ask(action, kind, name)?;
        Ok(Permit { about: About::Named(kind, name), action, generation, deadline: self.ends(fresh) })
    }

    /// Looks a name up in the compiled rules.
    #[inline]
    fn ask(&self, action: Action, kind: &Kind, name: &str) -> Result<(), Denial> {
        let hash = self.hash(name);
        let granted = self.granted(kind, name, hash)?;
        if self.is_new(action, hash) {
            self.record(action, kind, name);
        }
        if granted.contains(action) { Ok(()) } else { Err(self.denied(action, kind, name)) }
    }

    /// An answer by the rules in force, which are too many and change too often to be compiled first.
    #[cold]
    fn uncompiled<'a>(&self, fresh: &Fresh<'_>, action: Action, about: About<'a>) -> Result<Permit<'a>, Denial> {
        let shared = &self.guard.0;
        let now = shared.time.now();
        let Standing { generation, policy, subject, until, .. } = shared.source.standing(&self.peer, now)?;
        let mut permit = Permit { about, action, generation, deadline: fresh.deadline() };
        let (kind, name) = (permit.kind(), permit.name());
        if self.is_new(action, self.hash(name)) {
            self.record(action, kind, name);
        }
        let decision =
            decide(&policy, generation, &Question { subject: &subject, action, kind, name, from: self.from, now });
        if decision.effect == Effect::Deny {
            return Err(Denial::Denied(decision));
        }
        let rule = if let Reason::Rule(id) = &decision.reason { policy.rule(id) } else { None };
        let ends =
            rule.and_then(|rule| rule.not_after).map_or(self.peer.not_after(), |last| last.min(self.peer.not_after()));
        self.until.set(self.until.get().min(until));
        self.ends_at(ends.next_second(), now);
        permit.deadline = self.ends(fresh);
        Ok(permit)
    }

    /// When the answers of now end by themselves: with the lease, with a rule that was weighed, with the proof of the
    /// peer.
    #[inline]
    fn ends(&self, fresh: &Fresh<'_>) -> BootMillis {
        fresh.deadline().min(self.until.get())
    }

    /// From then on, earlier answers are to be asked for again, whatever else happens.
    pub(crate) fn until(&self) -> BootMillis {
        self.until.get()
    }

    /// Whether a request is to be recorded, which it is once.
    #[inline]
    fn is_new(&self, action: Action, hash: u64) -> bool {
        let mark = hash.rotate_left(action as u32);
        let mut is_new = false;
        for bit in [mark >> 8, mark >> 24] {
            if let Some(seen) = self.seen.get((bit >> 6) as usize & (SLOTS - 1)) {
                let bits = seen.get() | 1 << (bit & 63);
                if bits != seen.get() {
                    seen.set(bits);
                    is_new = true;
                }
            }
        }
        is_new
    }

    /// The decision, with its reason, by the rules that this session answers by.
    pub fn explain(&self, fresh: &Fresh<'_>, action: Action, kind: &Kind, name: &str) -> Result<Decision, Denial> {
        match self.current(fresh)? {
            Some(_) => self.decision(action, kind, name),
            None => Err(Denial::Outdated {
                permitted: Generation(self.generation.get()),
                generation: self.guard.generation(),
            }),
        }
    }

    /// Refuses to answer by anything older than `wanted`: for a request that says what it has seen.
    ///
    /// # Errors
    /// [`Denial::Behind`].
    pub fn at_least(&self, wanted: Generation) -> Result<(), Denial> {
        let generation = self.guard.generation();
        if generation >= wanted { Ok(()) } else { Err(Denial::Behind { wanted, generation }) }
    }

    /// The generation that answers are of from here on. Everything remembered is of it. None if whatever is compiled is
    /// overtaken meanwhile.
    #[inline]
    fn current(&self, fresh: &Fresh<'_>) -> Result<Option<Generation>, Denial> {
        for refreshes in 0..=REFRESHES_MAX {
            // It may be ahead, too, of a view that is just being put in force.
            if self.guard.generation().0 <= self.generation.get() && fresh.now() < self.until.get() {
                return Ok(Some(Generation(self.generation.get())));
            }
            if refreshes < REFRESHES_MAX {
                self.refresh()?;
            }
        }
        Ok(None)
    }

    #[inline]
    fn hash(&self, name: &str) -> u64 {
        hash(self.guard.0.groups.hasher(), name)
    }

    /// Forgets the remembered answers and takes up the rules in force. On an error nothing is allowed until it works.
    #[cold]
    fn refresh(&self) -> Result<(), Denial> {
        self.generation.set(0);
        self.known.replace(None);
        for slot in self.slots.iter() {
            slot.resource.set(0);
        }
        for seen in self.seen.iter() {
            seen.set(0);
        }
        let shared = &self.guard.0;
        let now = shared.time.now();
        let standing = shared.source.standing(&self.peer, now)?;
        let (generation, until) = (standing.generation, standing.until);
        let (policy, subject) = (&standing.policy, &standing.subject);
        let groups = match &standing.compiled {
            Some(compiled) => compiled.get_or_init(|| shared.groups.of_slice(policy, subject)).clone(),
            None => shared.groups.of(policy, subject),
        };
        self.known.replace(Some(Known::new(standing, &groups)));
        let over = self.peer.not_after().next_second();
        // After a window what it asks for is to be recorded again, and so is no longer remembered as recorded.
        self.until.set(until);
        self.ends_at(over.min(now.plus_secs(WINDOW_SECS)), now);
        self.generation.set(generation.0);
        Ok(())
    }

    /// Remembered answers may be different from `over` on, a moment of the wall clock that now reads `now`.
    fn ends_at(&self, over: UnixMillis, now: UnixMillis) {
        let until = self.guard.0.time.boot().plus(over.0.saturating_sub(now.0));
        self.until.set(self.until.get().min(until));
    }

    /// What the peer may do to a thing of this name.
    #[inline]
    fn granted(&self, kind: &Kind, name: &str, hash: u64) -> Result<ActionSet, Denial> {
        let known = self.known.borrow();
        let known = known.as_ref().ok_or(Denial::Unfetched)?;
        let nothing = ActionSet::NONE;
        if name.len() > RESOURCE_NAME_LEN_MAX {
            return Ok(nothing);
        }
        if let Some(granted) = known.of_everything {
            return Ok(granted);
        }
        let (mut allow, mut deny) = (0, 0);
        if let Some(of) = known.kinds.iter().find(|of| is_same(&of.kind, kind)) {
            (allow, deny) = (of.allow, of.deny);
            let sought = Sought::new(name, hash);
            let mut is_conditional = false;
            for cells in &of.cells {
                let cell = cells.said(sought);
                allow |= cell.allow;
                deny |= cell.deny;
                is_conditional |= cell.is_conditional();
            }
            if is_conditional {
                let said = self.conditions(known, of, sought);
                allow |= said.allow;
                deny |= said.deny;
            }
        }
        if !known.policy.requirements().is_empty() && *kind == Kind::TASK {
            let required = known.policy.requirements().get(name);
            match required.map(|required| required.is_met(&known.subject)) {
                Some(true) => allow |= ActionSet::ALL.bits(),
                Some(false) => return Ok(nothing),
                None => {}
            }
        }
        Ok(ActionSet::try_from(allow & !deny).unwrap_or(nothing))
    }

    /// What rules say besides that depend on where requests come from, or on the time, which is read once and only if
    /// it matters. Such rules are few.
    #[cold]
    fn conditions(&self, known: &Known, of: &OfKind, sought: Sought<'_>) -> Said {
        let now = if known.policy.is_timeless() { UnixMillis(0) } else { self.guard.0.time.now() };
        let mut said = Said::default();
        for cells in &of.cells {
            let more = cells.conditions(cells.said(sought), self.from, now);
            said.allow |= more.allow;
            said.deny |= more.deny;
            if let Some(over) = more.until {
                self.ends_at(over, now);
            }
        }
        said
    }

    fn decision(&self, action: Action, kind: &Kind, name: &str) -> Result<Decision, Denial> {
        let known = self.known.borrow();
        let known = known.as_ref().ok_or(Denial::Unfetched)?;
        let question =
            Question { subject: &known.subject, action, kind, name, from: self.from, now: self.guard.0.time.now() };
        Ok(decide(&known.policy, Generation(self.generation.get()), &question))
    }

    /// Denied in any case; the reason is that of the decision.
    #[cold]
    fn denied(&self, action: Action, kind: &Kind, name: &str) -> Denial {
        match self.decision(action, kind, name) {
            Ok(decision) if decision.effect == Effect::Deny => Denial::Denied(decision),
            // A rule came or went with the second in between: the first decision counts.
            Ok(decision) => Denial::Outdated { permitted: decision.generation, generation: self.guard.generation() },
            Err(denial) => denial,
        }
    }

    #[cold]
    fn record(&self, action: Action, kind: &Kind, name: &str) {
        let (principal, kind, name) = (self.peer.principal().role.clone(), kind.clone(), name.to_owned());
        self.guard.record(Recorded { principal, action, kind, name, from: self.from });
    }
}

/// Equality of texts that most often are in one place, and so short that a loop is done before another function is
/// called.
#[inline]
fn is_same(a: &Kind, b: &Kind) -> bool {
    let (a, b) = (a.as_str(), b.as_str());
    core::ptr::eq(a, b) || a.len() == b.len() && a.bytes().eq(b.bytes())
}
