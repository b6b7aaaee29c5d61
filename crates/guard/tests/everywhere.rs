//! A revocation on three and five members whose messages are late or lost: once its barrier has passed, no session on
//! any of them allows what it took away. Seeded; and with the lease, or another of the rules, left out it is seen to
//! fail.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use countersign_core::id::{Generation, NodeId};
use countersign_core::lease::{Grantor, Holder, LeaseLength, Standing};
use countersign_core::time::BootMillis;
use countersign_core::trust::view::View;
use countersign_guard::{Action, Kind, Resource, Session};
use support::{World, rule};

const STEP_MILLIS: u64 = 50;
const LEASE: LeaseLength = LeaseLength::DEFAULT;

/// A rule left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Danger {
    None,
    /// Members serve without a lease.
    NoLease,
    /// The barrier waits for acknowledgements of those alone who answer.
    NoWaiting,
    /// A lease counts at once, whatever generation it names.
    LeaseCountsAtOnce,
}

/// Numbers from a seed (SplitMix64, Steele et al. 2014).
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// One member: what it has applied, and the lease that it has.
struct Member {
    world: World,
    session: Session,
    holder: Holder,
    enforced: Generation,
    /// Views on their way, with the step in which they come.
    coming: VecDeque<(u64, Arc<View>)>,
    /// Cut off until this step.
    cut_until: u64,
}

impl Member {
    fn clock(&self) -> BootMillis {
        BootMillis(self.world.clocks.boot.load(Ordering::Relaxed))
    }

    /// Asked by a client that asks all the time.
    fn allows(&self, orders: &Resource) -> bool {
        let Ok(fresh) = self.world.guard.fresh() else { return false };
        let allowed = self.session.authorize(&fresh, Action::Read, orders).is_ok();
        let named = self.session.authorize_named(&fresh, Action::Read, &Kind::TOPIC, "orders").is_ok();
        assert_eq!(allowed, named);
        allowed
    }
}

struct Run {
    rng: Seeded,
    /// The committed state.
    log: World,
    members: Vec<Member>,
    grantor: Grantor,
    danger: Danger,
    step: u64,
}

impl Run {
    fn new(seed: u64, size: u64, danger: Danger) -> Self {
        let log = World::new(&["pay"]);
        log.put([rule("a", "allow client/pay read topic:orders")]);
        let member = |_| {
            let world = World::new(&["pay"]);
            world.publish_view(&log.view());
            let mut holder = Holder::default();
            holder.enforced(log.view().generation);
            world.lease.follow(&holder);
            Member {
                session: world.session("pay"),
                world,
                holder,
                enforced: log.view().generation,
                coming: VecDeque::new(),
                cut_until: 0,
            }
        };
        let members = (0..size).map(member).collect();
        Self { rng: Seeded(seed), log, members, grantor: Grantor::new(BootMillis(1000), LEASE), danger, step: 0 }
    }

    /// Commits; each member hears of it late.
    fn revoke(&mut self) -> Generation {
        if self.rng.chance(50) {
            self.log.remove("a");
        } else {
            self.log.put([rule("d", "deny client/* read topic:ord…")]);
        }
        let view = self.log.view();
        for member in &mut self.members {
            let late = self.rng.next() % 40;
            member.coming.push_back((self.step + late, Arc::clone(&view)));
        }
        view.generation
    }

    fn tick(&mut self) {
        self.step += 1;
        let newest = self.log.view().generation;
        for (at, member) in self.members.iter_mut().enumerate() {
            member.world.clocks.boot.fetch_add(STEP_MILLIS, Ordering::Relaxed);
            if self.rng.chance(1) {
                member.cut_until = self.step + self.rng.next() % 600;
            }
            let (cut, clock, node) = (self.step < member.cut_until, member.clock(), NodeId(at as u64));
            while !cut && member.coming.front().is_some_and(|(due, _)| *due <= self.step) {
                let (_, view) = member.coming.pop_front().unwrap();
                member.world.publish_view(&view);
                member.enforced = view.generation;
                member.holder.enforced(view.generation);
            }
            if self.danger == Danger::LeaseCountsAtOnce {
                member.holder.enforced(newest);
            }
            if !cut {
                self.grantor.acknowledge(node, member.enforced);
                if self.rng.chance(10) {
                    self.grantor.grant(node, newest, clock);
                    // The answer may be lost.
                    if self.rng.chance(80) {
                        member.holder.granted(clock, newest, LEASE);
                    }
                }
            }
            if self.danger == Danger::NoLease {
                member.holder.granted_for(clock, Generation(0), 60_000);
            }
            member.world.lease.follow(&member.holder);
        }
    }

    fn passed(&self, generation: Generation) -> bool {
        let now = self.members[0].clock();
        (0..self.members.len()).all(|at| match self.grantor.standing(NodeId(at as u64), generation, now) {
            Standing::Enforced | Standing::Lapsed => true,
            Standing::Until(_) => self.danger == Danger::NoWaiting,
        })
    }
}

/// Whether any caller is allowed after the barrier, and how often one was before it.
fn run(seed: u64, size: u64, danger: Danger) -> (bool, u64) {
    let mut run = Run::new(seed, size, danger);
    let orders = Resource::new(Kind::TOPIC, "orders");
    let mut served = 0;
    for _ in 0..run.rng.next() % 400 {
        run.tick();
        served += run.members.iter().filter(|member| member.allows(&orders)).count() as u64;
    }
    let generation = run.revoke();
    let mut after = 0;
    for _ in 0..2000 {
        run.tick();
        let passed = run.passed(generation);
        let allowed = run.members.iter().any(|member| member.allows(&orders));
        if passed && allowed {
            return (true, served);
        }
        after += u64::from(passed);
        if after > 300 {
            break;
        }
    }
    assert!(after > 0, "seed {seed}: the barrier never passed");
    (false, served)
}

#[test]
fn once_the_barrier_has_passed_no_member_allows_what_was_revoked() {
    let mut served = 0;
    for size in [3, 5] {
        for seed in 0..150 {
            let (violated, before) = run(seed, size, Danger::None);
            assert!(!violated, "seed {seed}, {size} members");
            served += before;
        }
    }
    assert!(served > 10_000, "there was something to revoke: {served}");
}

#[test]
fn without_the_lease_or_the_waiting_a_member_that_heard_nothing_goes_on_allowing() {
    for danger in [Danger::NoLease, Danger::NoWaiting, Danger::LeaseCountsAtOnce] {
        assert!((0..150).any(|seed| run(seed, 3, danger).0), "{danger:?} makes no difference");
    }
}
