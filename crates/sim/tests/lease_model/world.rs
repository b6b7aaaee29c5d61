//! The world of the lease model: what is in it, and what can happen next. What it decides about leases it asks the
//! code of the core, never a copy; only the network, the clocks and Raft's elections are abstract here.
//!
//! Raft appears as what it promises: a quorum confirms a leader only until another is elected, and an elected leader
//! knows everything committed before it once it has applied the first entry of its own term.

use countersign_core::id::{Generation, NodeId};
use countersign_core::lease::{Holder, LeaseClock, LeaseLength, PendingBarrier, Roster, Standing, TermState};
use countersign_core::time::BootMillis;
use countersign_core::trust::member::Suffrage;

use crate::clocks::{DRIFT_MILLIS, clock};
use crate::fault::Fault;

/// What is in force before the revocation, and with it.
pub(crate) const BEFORE: Generation = Generation(0);
pub(crate) const REVOKED: Generation = Generation(1);

/// The leader at the beginning, and the one that may be elected after it. Both are members, and so hold leases too.
pub(crate) const OLD: usize = 0;
pub(crate) const NEW: usize = 1;

/// A voter that enforces everything and is looked at no further: a barrier needs a majority of the voters.
const VOTER: NodeId = NodeId(1000);

pub(crate) fn length() -> LeaseLength {
    LeaseLength::from_secs(1).unwrap()
}

/// A term of the leader at this place.
fn term(at: usize, elected: BootMillis) -> TermState {
    let mut term = TermState::new(at as u64, length(), elected);
    term.acknowledge(VOTER, REVOKED);
    term
}

/// How far a member is with the revocation, and what the revoked client has open there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stage {
    /// Not in force: the client may be connected, and may connect.
    Before,
    /// In force, but a handshake of the client that was judged before goes on.
    Handshake,
    /// In force, but a connection of the client is open.
    Open,
    /// In force, and nothing of the client is left.
    Enforced,
}

/// A request for a lease on its way, or its answer. It may be delivered late, twice, after a later one, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Call {
    pub(crate) to: usize,
    pub(crate) asked: BootMillis,
    /// What the member acknowledges with it.
    pub(crate) acknowledged: Generation,
    /// The process that asked has ended.
    pub(crate) orphan: bool,
    pub(crate) step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Step {
    Asked,
    /// A quorum confirmed the leader since the request came; the leader's clock then, if the grant counts from it.
    Confirmed(Option<BootMillis>),
    /// Only with [`Fault::TwoSteps`]: the newest generation is read, and nothing recorded.
    Read(Generation),
    Answered(Generation),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    pub(crate) holder: Holder,
    pub(crate) stage: Stage,
    pub(crate) paused: bool,
    /// Only with [`Fault::FreshBeforePause`]: the task woke up with requests in hand, and took its proof then.
    pub(crate) held: bool,
    pub(crate) calls: Vec<Call>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) phase: u8,
    /// Who committed the revocation.
    pub(crate) committed: Option<usize>,
    pub(crate) elected: bool,
    /// The new leader has applied the first entry of its term.
    pub(crate) applied: bool,
    pub(crate) terms: [TermState; 2],
    pub(crate) members: Vec<Member>,
    pub(crate) pauses: u8,
    pub(crate) restarts: u8,
    /// The barrier has returned: the operator was told that no member serves the client.
    pub(crate) returned: bool,
}

/// How much of the world is looked at, and what is broken in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope {
    /// Which members enforce, as their places; the leaders are 0 and 1.
    pub(crate) enforcers: &'static [usize],
    /// The member whose clock is slow by the drift bound.
    pub(crate) slow: usize,
    pub(crate) phases: u8,
    /// Requests of one member that may be under way at once.
    pub(crate) calls: usize,
    /// Whether a member asks again when as many are under way: one that it had is lost.
    pub(crate) renews: bool,
    /// The leader reads its clock when it is confirmed, which may be long before it records the grant.
    pub(crate) early: bool,
    pub(crate) pauses: u8,
    pub(crate) restarts: u8,
    pub(crate) fault: Option<Fault>,
}

/// One thing that happens. Members are named by their place among the enforcers, calls by theirs in the member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    TimePasses,
    Commit,
    Elect,
    ApplyFirstEntry,
    Ask { member: usize, to: usize, over: Option<usize> },
    HearAcknowledgement { member: usize, call: usize },
    Confirm { member: usize, call: usize },
    ReadNewest { member: usize, call: usize },
    Answer { member: usize, call: usize },
    Deliver { member: usize, call: usize },
    Publish { member: usize },
    HandshakeEnds { member: usize },
    Close { member: usize },
    Wake { member: usize },
    Pause { member: usize },
    Resume { member: usize },
    Restart { member: usize },
    Forget { member: usize },
    BarrierReturns { at: usize },
}

impl Scope {
    pub(crate) fn breaks(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    pub(crate) fn now(&self, node: usize, world: &World) -> BootMillis {
        clock(node, node == self.slow, world.phase)
    }

    fn node(member: usize) -> NodeId {
        NodeId(member as u64 + 1)
    }

    pub(crate) fn begin(&self) -> World {
        let member =
            Member { holder: Holder::default(), stage: Stage::Before, paused: false, held: false, calls: Vec::new() };
        World {
            phase: 0,
            committed: None,
            elected: false,
            applied: false,
            // The old leader was elected long ago; the new one is replaced when it is.
            terms: [OLD, NEW].map(|at| term(at, BootMillis(0))),
            members: vec![member; self.enforcers.len()],
            pauses: 0,
            restarts: 0,
            returned: false,
        }
    }

    /// The newest committed generation, as this leader knows it.
    pub(crate) fn newest(world: &World, leader: usize) -> Generation {
        let knows = match leader {
            OLD => world.committed == Some(OLD),
            _ => world.committed.is_some() && world.applied,
        };
        if knows { REVOKED } else { BEFORE }
    }

    /// What the barrier at `leader` takes for the time.
    fn judging_time(&self, world: &World, leader: usize) -> BootMillis {
        let now = self.now(leader, world);
        if self.breaks(Fault::IgnoresDrift) { now.plus(DRIFT_MILLIS) } else { now }
    }

    /// Where each member stands with the revocation, as the barrier at `leader` sees it.
    pub(crate) fn standings(&self, world: &World, leader: usize) -> Vec<Standing> {
        let now = self.judging_time(world, leader);
        let standing = |m: &usize| world.terms[leader].standing(Self::node(*m), REVOKED, now);
        self.enforcers.iter().map(standing).collect()
    }

    /// Whether a barrier at `leader` may return. One that was deposed meanwhile may too: it need not ask again.
    pub(crate) fn may_return(&self, world: &World, leader: usize) -> bool {
        let leads = leader == OLD || world.elected;
        if !leads || Self::newest(world, leader) != REVOKED {
            return false;
        }
        let enforcers = self.enforcers.iter().map(|at| (Self::node(*at), Suffrage::Learner));
        let roster = Roster {
            generation: REVOKED,
            attested: true,
            members: enforcers.chain([(VOTER, Suffrage::Voter)]).collect(),
            evictions: Vec::new(),
        };
        let (mut barrier, now) = (PendingBarrier::new(REVOKED), self.judging_time(world, leader));
        world.terms[leader].progress(&mut barrier, &roster, now).passed
    }

    /// Whether this member has a proof that its lease counts.
    pub(crate) fn is_fresh(&self, world: &World, at: usize) -> bool {
        let member = &world.members[at];
        let lease = LeaseClock::default();
        lease.follow(&member.holder);
        member.held || lease.fresh(self.now(self.enforcers[at], world)).is_ok()
    }

    /// Whether the member would do now what the revoked client asks, on a connection that is open or a new one.
    pub(crate) fn allows(&self, world: &World, at: usize) -> bool {
        let member = &world.members[at];
        let admits = matches!(member.stage, Stage::Before | Stage::Open);
        !member.paused && admits && (self.breaks(Fault::NoLeaseCheck) || self.is_fresh(world, at))
    }

    /// What the member acknowledges with a request.
    fn acknowledged(&self, member: &Member) -> Generation {
        let enough = match member.stage {
            Stage::Before => false,
            Stage::Handshake => self.breaks(Fault::AcknowledgesDuringHandshake),
            Stage::Open => self.breaks(Fault::AcknowledgesBeforeClosing),
            Stage::Enforced => true,
        };
        if enough { REVOKED } else { BEFORE }
    }

    /// What happens to one call at the leader it went to, or at its member.
    fn call(&self, world: &mut World, at: usize, n: usize, event: Event) -> Option<()> {
        let member = self.enforcers[at];
        let call = *world.members[at].calls.get(n)?;
        let (leader, now) = (call.to, self.now(call.to, world));
        let term = &mut world.terms[leader];
        let step = match event {
            Event::HearAcknowledgement { .. } if call.acknowledged == REVOKED => {
                term.acknowledge(Self::node(member), call.acknowledged);
                // Hearing it again changes nothing.
                world.members[at].calls[n].acknowledged = BEFORE;
                call.step
            }
            Event::Confirm { .. } if call.step == Step::Asked => {
                let leads = leader == NEW || !world.elected || self.breaks(Fault::AnswersUnconfirmed);
                let ready = leader == OLD || world.applied || self.breaks(Fault::GrantsBeforeItsTermBegan);
                (leads && ready).then_some(Step::Confirmed(self.early.then_some(now)))?
            }
            Event::ReadNewest { .. } if self.breaks(Fault::TwoSteps) => Step::Read(Self::newest(world, leader)),
            Event::Answer { .. } => {
                let (newest, at) = match call.step {
                    Step::Confirmed(then) if !self.breaks(Fault::TwoSteps) => (Self::newest(world, leader), then),
                    Step::Read(newest) => (newest, None),
                    // The request came twice. The same answer again only makes the barrier wait longer.
                    Step::Answered(named) if named < Self::newest(world, leader) => (REVOKED, None),
                    _ => return None,
                };
                world.terms[leader].grant(Self::node(member), newest, at.unwrap_or(now));
                Step::Answered(newest)
            }
            Event::Deliver { .. } => {
                let Step::Answered(named) = call.step else { return None };
                if call.orphan && !self.breaks(Fault::AnswerOutlivesRestart) {
                    return None;
                }
                let named = if self.breaks(Fault::CountsBeforeEnforced) { BEFORE } else { named };
                let asked = if self.breaks(Fault::CountsFromAnswer) { self.now(member, world) } else { call.asked };
                world.members[at].holder.granted(asked, named, length());
                call.step
            }
            _ => return None,
        };
        world.members[at].calls[n].step = step;
        Some(())
    }

    /// What happens in a member.
    fn step(&self, world: &mut World, at: usize, event: Event) -> Option<()> {
        let proof = self.is_fresh(world, at);
        let asked = self.now(self.enforcers[at], world);
        let acknowledged = self.acknowledged(&world.members[at]);
        let member = &mut world.members[at];
        match event {
            Event::Ask { to, over, .. } => {
                let call = Call { to, asked, acknowledged, orphan: false, step: Step::Asked };
                match over {
                    Some(n) => *member.calls.get_mut(n)? = call,
                    None => member.calls.push(call),
                }
            }
            // What the client had there is the worst that it could have: if it has nothing, nothing can go wrong.
            Event::Publish { .. } if member.stage == Stage::Before => member.stage = Stage::Handshake,
            Event::HandshakeEnds { .. } if member.stage == Stage::Handshake => member.stage = Stage::Open,
            Event::Close { .. } if matches!(member.stage, Stage::Handshake | Stage::Open) => {
                member.stage = Stage::Enforced;
                member.holder.enforced(REVOKED);
            }
            Event::Wake { .. } if proof => member.held = true,
            Event::Pause { .. } => (member.paused, world.pauses) = (true, world.pauses + 1),
            Event::Resume { .. } => member.paused = false,
            Event::Restart { .. } => {
                // The generation in force may have been ahead of the durable one: it is lost, with the lease.
                (member.holder, member.stage, member.held, member.paused) =
                    (Holder::default(), Stage::Before, false, false);
                member.calls.iter_mut().for_each(|call| call.orphan = true);
                world.restarts += 1;
            }
            _ => return None,
        }
        Some(())
    }

    /// The world after `event`, if it can happen and changes anything.
    pub(crate) fn after(&self, before: &World, event: Event) -> Option<World> {
        let mut world = before.clone();
        match event {
            Event::TimePasses => {
                world.phase += 1;
                // A turn of a task is short: only a pause makes it last.
                world.members.iter_mut().filter(|m| !m.paused).for_each(|m| m.held = false);
            }
            Event::Commit => world.committed = Some(if world.elected { NEW } else { OLD }),
            Event::Elect => {
                world.elected = true;
                let now = if self.breaks(Fault::ForgetsPredecessor) { BootMillis(0) } else { self.now(NEW, &world) };
                world.terms[NEW] = term(NEW, now);
            }
            Event::ApplyFirstEntry => world.applied = true,
            Event::BarrierReturns { .. } => world.returned = true,
            Event::Forget { member } => world.terms[OLD].forget(Self::node(self.enforcers[member])),
            Event::HearAcknowledgement { member, call }
            | Event::Confirm { member, call }
            | Event::ReadNewest { member, call }
            | Event::Answer { member, call }
            | Event::Deliver { member, call } => self.call(&mut world, member, call, event)?,
            Event::Ask { member, .. }
            | Event::Publish { member }
            | Event::HandshakeEnds { member }
            | Event::Close { member }
            | Event::Wake { member }
            | Event::Pause { member }
            | Event::Resume { member }
            | Event::Restart { member } => self.step(&mut world, member, event)?,
        }
        self.reduce(&mut world);
        (world != *before).then_some(world)
    }

    /// Leaves out what decides nothing any more, so that there are fewer states to look at.
    fn reduce(&self, world: &mut World) {
        if world.returned {
            // No leader is asked now.
            world.terms = [OLD, NEW].map(|at| term(at, BootMillis(0)));
        }
        for at in 0..world.members.len() {
            let now = self.now(self.enforcers[at], world);
            let Member { holder, calls, .. } = &mut world.members[at];
            let mut later = holder.clone();
            later.enforced(REVOKED);
            if !later.holds(now) {
                // What has run out is as good as nothing.
                holder.surrender();
            }
            // A grant that cannot count here any more can only make the barrier wait longer; an acknowledgement
            // matters.
            let lost = |call: &Call| {
                let late = now >= call.asked.plus(length().millis()) && !self.breaks(Fault::CountsFromAnswer);
                let ended = call.orphan && !self.breaks(Fault::AnswerOutlivesRestart);
                call.acknowledged == BEFORE && (late || ended)
            };
            calls.retain(|call| !lost(call));
            // The order in which they were made decides nothing.
            calls.sort_unstable();
        }
    }

    /// Everything that may happen next.
    pub(crate) fn events(&self, world: &World, events: &mut Vec<Event>) {
        let mut may = |yes: bool, event: Event| events.extend(yes.then_some(event));
        may(world.phase < self.phases, Event::TimePasses);
        may(world.committed.is_none() && (!world.elected || world.applied), Event::Commit);
        may(!world.elected, Event::Elect);
        may(world.elected && !world.applied, Event::ApplyFirstEntry);
        for at in [OLD, NEW] {
            may(!world.returned && self.may_return(world, at), Event::BarrierReturns { at });
        }
        for (member, m) in world.members.iter().enumerate() {
            for to in [OLD, NEW].into_iter().take(1 + usize::from(world.elected)).filter(|_| !m.paused) {
                let full = m.calls.len() == self.calls;
                may(!full, Event::Ask { member, to, over: None });
                for n in 0..m.calls.len() {
                    may(full && self.renews, Event::Ask { member, to, over: Some(n) });
                }
            }
            for (call, c) in m.calls.iter().enumerate() {
                may(c.acknowledged == REVOKED, Event::HearAcknowledgement { member, call });
                may(c.step == Step::Asked, Event::Confirm { member, call });
                may(matches!(c.step, Step::Confirmed(_)), Event::ReadNewest { member, call });
                may(!matches!(c.step, Step::Asked | Step::Answered(REVOKED)), Event::Answer { member, call });
                may(!m.paused && matches!(c.step, Step::Answered(_)), Event::Deliver { member, call });
            }
            let runs = |stage: Stage| !m.paused && m.stage == stage;
            may(runs(Stage::Before) && world.committed.is_some(), Event::Publish { member });
            may(runs(Stage::Handshake), Event::HandshakeEnds { member });
            may(runs(Stage::Handshake) || runs(Stage::Open), Event::Close { member });
            may(self.breaks(Fault::ForgetsMember), Event::Forget { member });
            may(!m.paused && self.breaks(Fault::FreshBeforePause), Event::Wake { member });
            may(!m.paused && world.pauses < self.pauses, Event::Pause { member });
            may(m.paused, Event::Resume { member });
            may(world.restarts < self.restarts, Event::Restart { member });
        }
    }
}
