//! Members and leaders together, in any order of events: once a barrier has passed, no member with a lease lacks what
//! it was over. Messages are late, twice, out of order or lost; leaders change; processes start again.

use proptest::prelude::*;

use super::{TEN, at, view};
use crate::id::{BootId, Generation, NodeId};
use crate::lease::{
    Action, Answer, Ask, Leader, LeaseKeeper, LeaseManager, PendingBarrier, PendingGrant, Request, Roster,
};
use crate::time::{BootMillis, UnixMillis};
use crate::trust::member::Suffrage;
use crate::trust::view::View;

const MEMBERS: usize = 3;

#[derive(Debug, Clone)]
enum Event {
    Pass(u64),
    /// Something is revoked.
    Commit,
    /// A member comes to enforce what is committed.
    Enforce(usize),
    Poll(usize),
    /// The leader takes in a request; it stays to be taken in once more.
    Take(usize),
    Confirm(usize),
    /// A member takes in an answer; it stays to be taken in once more.
    Answer(usize),
    Lose(usize),
    Elect,
    Restart(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let member = || 0..MEMBERS;
    prop_oneof![
        2 => (0_u64..3000).prop_map(Event::Pass),
        1 => Just(Event::Commit),
        3 => member().prop_map(Event::Enforce),
        6 => member().prop_map(Event::Poll),
        6 => (0..REMEMBERED).prop_map(Event::Take),
        6 => (0..REMEMBERED).prop_map(Event::Confirm),
        6 => (0..REMEMBERED).prop_map(Event::Answer),
        1 => (0..REMEMBERED).prop_map(Event::Lose),
        1 => Just(Event::Elect),
        1 => member().prop_map(Event::Restart),
    ]
}

struct Member {
    keeper: LeaseKeeper,
    enforced: u64,
    process: u8,
}

/// Messages that are remembered, to come late or once more.
const REMEMBERED: usize = 3;

/// Where a message comes from or goes to, so that none reaches another process.
type Process = (usize, u8);

struct World {
    now: BootMillis,
    view: View,
    members: Vec<Member>,
    leader: Leader,
    manager: LeaseManager,
    asks: Vec<(Process, Ask)>,
    unconfirmed: Vec<(Process, u64, PendingGrant)>,
    answers: Vec<(Process, u64, Answer)>,
    /// The barriers over all that was revoked, and the newest generation of which one has passed.
    barriers: Vec<(u64, PendingBarrier)>,
    passed: u64,
}

/// Puts `new` first, and forgets the oldest.
fn remember<T>(messages: &mut Vec<T>, new: impl IntoIterator<Item = T>) {
    new.into_iter().for_each(|message| messages.insert(0, message));
    messages.truncate(REMEMBERED);
}

fn started(leader: Leader) -> LeaseKeeper {
    let mut keeper = LeaseKeeper::default();
    keeper.handle_length(TEN);
    keeper.handle_leader(Some(leader));
    keeper
}

impl World {
    fn new() -> Self {
        let leader = Leader { node: NodeId(1), term: 1 };
        let member = |_| Member { keeper: started(leader), enforced: 0, process: 0 };
        let mut manager = LeaseManager::default();
        manager.handle_term(leader.term, TEN, at(1_000_000));
        Self {
            now: at(1_000_000),
            view: view(1, MEMBERS as u64),
            members: (0..MEMBERS).map(member).collect(),
            leader,
            manager,
            asks: Vec::new(),
            unconfirmed: Vec::new(),
            answers: Vec::new(),
            barriers: Vec::new(),
            passed: 0,
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Pass(millis) => self.now = self.now.plus(millis),
            Event::Commit => {
                self.view.generation.0 += 1;
                let generation = self.view.generation;
                self.barriers.push((generation.0, PendingBarrier::new(generation)));
            }
            Event::Enforce(at) => {
                let member = &mut self.members[at];
                member.enforced = self.view.generation.0;
                member.keeper.handle_enforced(self.view.generation);
            }
            Event::Poll(at) => {
                let member = &mut self.members[at];
                let ask = member.keeper.poll_ask(self.now);
                remember(&mut self.asks, ask.map(|ask| ((at, member.process), ask)));
            }
            Event::Take(at) => self.take(at),
            Event::Confirm(at) if at < self.unconfirmed.len() => {
                let (to, number, pending) = self.unconfirmed.remove(at);
                let answer = self.manager.handle_confirmed(pending, &self.view, true, self.now);
                remember(&mut self.answers, answer.ok().map(|answer| (to, number, answer)));
            }
            Event::Answer(at) => {
                let Some(((to, process), number, answer)) = self.answers.get(at) else { return };
                let member = &mut self.members[*to];
                if member.process == *process {
                    member.keeper.handle_answer(*number, *answer, self.now);
                }
            }
            Event::Lose(at) if at < self.asks.len() => drop(self.asks.remove(at)),
            Event::Confirm(_) | Event::Lose(_) => {}
            Event::Elect => {
                self.leader = Leader { node: NodeId(1 + self.leader.term % 3), term: self.leader.term + 1 };
                self.manager.handle_term(self.leader.term, TEN, self.now);
                self.members.iter_mut().for_each(|member| member.keeper.handle_leader(Some(self.leader)));
            }
            Event::Restart(at) => {
                let member = &mut self.members[at];
                let process = member.process.wrapping_add(1);
                *member = Member { keeper: started(self.leader), enforced: 0, process };
            }
        }
    }

    fn take(&mut self, at: usize) {
        let Some((from, ask)) = self.asks.get(at) else { return };
        let request = Request {
            from: NodeId(from.0 as u64 + 1),
            boot: BootId([from.1; 16]),
            enforced: ask.enforced,
            clock: UnixMillis(0),
            renew: ask.renew,
            delegates: false,
            receipts: Vec::new(),
        };
        match self.manager.handle_request(request, &self.view, true, self.now).unwrap() {
            Action::Answer(answer) => remember(&mut self.answers, [(*from, ask.number, answer)]),
            Action::Confirm(pending) => self.unconfirmed.push((*from, ask.number, pending)),
        }
    }

    /// Looks at each barrier. Returns whether no member serves what the passed ones revoked.
    fn holds(&mut self) -> bool {
        let roster = Roster {
            generation: self.view.generation,
            attested: true,
            members: self.view.members.scan().values().map(|member| (member.id, Suffrage::Voter)).collect(),
            evictions: Vec::new(),
        };
        let term = self.manager.term().unwrap();
        for (generation, barrier) in &mut self.barriers {
            if term.progress(barrier, &roster, self.now).passed {
                self.passed = self.passed.max(*generation);
            }
        }
        self.members.iter().all(|member| member.enforced >= self.passed || !member.keeper.holds(self.now))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_leased_member_lacks_a_generation_whose_barrier_passed(
        events in proptest::collection::vec(event(), 0..300),
    ) {
        let mut world = World::new();
        for event in events {
            world.happens(event);
            prop_assert!(world.holds(), "generation {} has passed", world.passed);
        }
    }
}

#[test]
fn leases_are_held_and_barriers_pass_in_these_worlds() {
    let mut world = World::new();
    let round = |world: &mut World| {
        for at in 0..MEMBERS {
            let asked = [Event::Enforce(at), Event::Poll(at), Event::Take(0), Event::Lose(0)];
            asked.into_iter().chain([Event::Confirm(0), Event::Answer(0)]).for_each(|event| world.happens(event));
            world.answers.clear();
        }
    };
    round(&mut world);
    assert!(world.members.iter().all(|member| member.keeper.holds(world.now)));
    world.happens(Event::Commit);
    assert!(world.holds() && world.passed == 0);
    round(&mut world);
    assert!(world.holds());
    assert_eq!(Generation(world.passed), world.view.generation);
}
