//! What a session answers, and when it stops to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::sync::atomic::Ordering;

use countersign_core::authz::change::PolicyChange;
use countersign_core::id::Generation;
use countersign_core::lease::LeaseLength;
use countersign_core::limits::RESOURCE_NAME_LEN_MAX;
use countersign_core::peer::Refusal;
use countersign_core::time::UnixMillis;
use countersign_core::trust::command::{Command, RevokeKey, RevokePrincipal};
use countersign_guard::{Action, Decision, Denial, Effect, Kind, Reason, Resource, RuleId, Session};
use support::{NOW, World, client, rule};

/// Asked twice by handle and twice by name: the remembered answer is the decision.
fn may(world: &World, session: &Session, action: Action, topic: &Resource) -> Result<(), Denial> {
    let fresh = world.guard.fresh().map_err(Denial::from)?;
    let first = session.authorize(&fresh, action, topic).map(|_| ());
    for _ in 0..2 {
        assert_eq!(session.authorize(&fresh, action, topic).map(|_| ()), first);
        assert_eq!(session.authorize_named(&fresh, action, topic.kind(), topic.name()).map(|_| ()), first);
    }
    first
}

fn topic(name: &str) -> Resource {
    Resource::new(Kind::TOPIC, name)
}

fn by(denied: Result<(), Denial>) -> Reason {
    match denied.unwrap_err() {
        Denial::Denied(decision) => decision.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_allowed_by_default_and_a_grant_is_seen_at_once() {
    let world = World::new(&["pay"]);
    let (session, orders) = (world.session("pay"), topic("orders"));
    assert_eq!(by(may(&world, &session, Action::Write, &orders)), Reason::NoRule);
    world.put([rule("a", "allow client/pay write topic:orders")]);
    assert_eq!(may(&world, &session, Action::Write, &orders), Ok(()));
    assert_eq!(may(&world, &session, Action::Describe, &orders), Ok(()));
    assert_eq!(by(may(&world, &session, Action::Read, &orders)), Reason::NoRule);
    assert_eq!(by(may(&world, &session, Action::Write, &topic("orders2"))), Reason::NoRule);
}

#[test]
fn a_removed_grant_and_a_new_deny_end_what_was_remembered() {
    let world = World::new(&["pay"]);
    let (session, orders) = (world.session("pay"), topic("orders"));
    world.put([rule("a", "allow client/* all topic")]);
    assert_eq!(may(&world, &session, Action::Read, &orders), Ok(()));
    world.put([rule("d", "deny client/pay read topic:ord…")]);
    assert_eq!(by(may(&world, &session, Action::Read, &orders)), Reason::Rule(RuleId::parse("d").unwrap()));
    assert_eq!(may(&world, &session, Action::Describe, &orders), Ok(()), "a deny of read denies nothing else");
    world.remove("d");
    assert_eq!(may(&world, &session, Action::Read, &orders), Ok(()), "a grant after a deny is seen");
    world.remove("a");
    assert_eq!(by(may(&world, &session, Action::Read, &orders)), Reason::NoRule);
}

#[test]
fn an_answer_that_was_decided_before_a_revocation_and_remembered_after_it_counts_for_nothing() {
    let world = World::new(&["pay"]);
    world.put([rule("a", "allow client/pay read topic:orders")]);
    let (session, orders) = (world.session("pay"), topic("orders"));
    let fresh = world.guard.fresh().unwrap();
    let permit = session.authorize(&fresh, Action::Read, &orders).unwrap();
    assert_eq!(permit.holds(&world.guard, &fresh), Ok(()));
    world.remove("a");
    let outdated = permit.holds(&world.guard, &fresh).unwrap_err();
    assert!(matches!(outdated, Denial::Outdated { .. }), "{outdated:?}");
    assert!(session.authorize(&fresh, Action::Read, &orders).is_err());
}

#[test]
fn a_revoked_principal_is_denied_on_the_session_that_it_has() {
    let world = World::new(&["pay", "shop"]);
    world.put([rule("a", "allow client/* read topic")]);
    let (pay, shop, orders) = (world.session("pay"), world.session("shop"), topic("orders"));
    assert_eq!(may(&world, &pay, Action::Read, &orders), Ok(()));
    world.apply(Command::RevokePrincipal(RevokePrincipal(client("pay"))));
    assert_eq!(may(&world, &pay, Action::Read, &orders), Err(Denial::Refused(Refusal::KeyRevoked)));
    assert_eq!(may(&world, &shop, Action::Read, &orders), Ok(()));
    world.apply(Command::RevokeKey(RevokeKey(world.key_id("shop"))));
    assert_eq!(may(&world, &shop, Action::Read, &orders), Err(Denial::Refused(Refusal::KeyRevoked)));
    assert!(matches!(world.guard.session(shop.peer(), None), Err(Denial::Refused(_))));
}

#[test]
fn without_a_lease_there_is_no_proof_and_what_was_proven_before_ends_with_it() {
    let world = World::new(&["pay"]);
    world.renew_lease(LeaseLength::from_secs(2).unwrap());
    world.put([rule("a", "allow client/pay read topic:orders")]);
    let (session, orders) = (world.session("pay"), topic("orders"));
    let fresh = world.guard.fresh().unwrap();
    let permit = session.authorize(&fresh, Action::Read, &orders).unwrap();
    world.clocks.boot.fetch_add(2000, Ordering::Relaxed);
    assert!(world.guard.fresh().is_err());
    // A process that was paused takes another proof where the effect begins, and there is none.
    world.renew_lease(LeaseLength::from_secs(2).unwrap());
    let later = world.guard.fresh().unwrap();
    assert!(matches!(permit.holds(&world.guard, &later), Err(Denial::NoLease(_))));
    assert!(session.authorize(&later, Action::Read, &orders).is_ok());
}

#[test]
fn roles_and_attributes_count_as_long_as_they_are_given() {
    let world = World::new(&["pay"]);
    world.put([rule("a", "allow role:Worker[gpu=true] write topic:orders")]);
    let (session, orders) = (world.session("pay"), topic("orders"));
    let asked = || may(&world, &session, Action::Write, &orders).is_ok();
    assert!(!asked());
    world.label(client("pay"), "role", Some("Worker"));
    assert!(!asked());
    world.label(client("pay"), "gpu", Some("true"));
    assert!(asked());
    world.label(client("pay"), "gpu", Some("false"));
    assert!(!asked());
    world.label(client("pay"), "gpu", Some("true"));
    assert!(asked());
    world.label(client("pay"), "role", None);
    assert!(!asked());
}

#[test]
fn a_rule_that_ends_ends_in_a_session_that_asks_all_the_time() {
    let world = World::new(&["pay"]);
    let until = |effect: &str, id: &str| {
        let mut ends = rule(id, &format!("{effect} client/pay read topic:orders"));
        ends.not_after = Some(NOW.plus_secs(10));
        ends
    };
    world.put([until("allow", "a")]);
    let (session, orders) = (world.session("pay"), topic("orders"));
    let after = |millis: u64| {
        world.clocks.boot.store(1000 + millis, Ordering::Relaxed);
        world.clocks.unix.store(NOW.0 + millis, Ordering::Relaxed);
        may(&world, &session, Action::Read, &orders)
    };
    assert_eq!(after(0), Ok(()));
    assert_eq!(after(10_999), Ok(()), "its last second counts");
    assert_eq!(by(after(11_000)), Reason::NoRule);
    after(0).unwrap();
    world.put([until("deny", "d"), rule("b", "allow client/pay read topic:orders")]);
    assert_eq!(by(after(10_999)), Reason::Rule(RuleId::parse("d").unwrap()));
    assert_eq!(after(11_000), Ok(()));
}

#[test]
fn a_wall_clock_that_jumps_changes_no_answer_of_a_lasting_rule_and_prolongs_none_that_ends() {
    let world = World::new(&["pay"]);
    let mut ends = rule("e", "allow client/pay read topic:ends");
    ends.not_after = Some(NOW.plus_secs(10));
    world.put([ends, rule("a", "allow client/pay read topic:lasts")]);
    let (session, lasts, ends) = (world.session("pay"), topic("lasts"), topic("ends"));
    assert!(may(&world, &session, Action::Read, &ends).is_ok());
    for jump in [3600, -3600_i64] {
        world.clocks.unix.store(NOW.0.saturating_add_signed(jump * 1000), Ordering::Relaxed);
        assert_eq!(may(&world, &session, Action::Read, &lasts), Ok(()), "{jump}");
    }
    // The wall clock is an hour behind, and ten seconds have passed: the answer that was remembered has ended, and the
    // next goes by the clock that the member is given, which is never behind what the cluster has applied.
    world.clocks.boot.store(12_000, Ordering::Relaxed);
    world.clocks.unix.store(NOW.0 + 11_000, Ordering::Relaxed);
    assert_eq!(by(may(&world, &session, Action::Read, &ends)), Reason::NoRule);
}

#[test]
fn a_certificate_that_ends_ends_its_session() {
    let world = World::new(&["pay"]);
    world.put([rule("a", "allow client/pay read topic:orders")]);
    let (session, orders) = (world.session("pay"), topic("orders"));
    assert_eq!(may(&world, &session, Action::Read, &orders), Ok(()));
    let end = session.peer().not_after().secs() + 1 - NOW.secs();
    world.clocks.boot.store(1000 + end * 1000, Ordering::Relaxed);
    world.clocks.unix.store(UnixMillis::from_secs(NOW.secs() + end).0, Ordering::Relaxed);
    world.renew_lease(LeaseLength::DEFAULT);
    assert_eq!(may(&world, &session, Action::Read, &orders), Err(Denial::Refused(Refusal::Expired)));
}

#[test]
fn a_deny_and_an_allow_of_one_change_are_never_half_seen() {
    let world = World::new(&["pay"]);
    let (open, shut) = (rule("a", "allow client/pay read topic:left"), rule("b", "allow client/pay read topic:right"));
    world.put([open.clone()]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (session, left, right) = (world.session("pay"), topic("left"), topic("right"));
            let (mut seen, mut changes) = (Generation(0), 0);
            while !stop.load(Ordering::Relaxed) {
                let fresh = world.guard.fresh().unwrap();
                let answers =
                    [&left, &right].map(|t| session.authorize(&fresh, Action::Read, t).map(|p| p.generation()));
                let generation = |answer: &Result<Generation, Denial>| match answer {
                    Ok(generation) => *generation,
                    Err(Denial::Denied(Decision { generation, effect: Effect::Deny, .. })) => *generation,
                    Err(other) => panic!("{other:?}"),
                };
                let [one, other] = [generation(&answers[0]), generation(&answers[1])];
                assert!(one >= seen && other >= one, "generations only grow");
                if one == other {
                    assert_ne!(answers[0].is_ok(), answers[1].is_ok(), "half a change in {one}");
                    changes += u32::from(one != seen);
                    seen = one;
                }
            }
            changes
        });
        for turn in 0..2000 {
            let (from, to) = if turn % 2 == 0 { (&open, &shut) } else { (&shut, &open) };
            let change =
                PolicyChange { remove: vec![from.id.clone()], put: vec![to.clone()], ..PolicyChange::default() };
            world.apply(Command::ChangePolicy(Box::new(change)));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}

#[test]
fn no_caller_is_denied_because_rules_change_fast() {
    let world = World::new(&["pay"]);
    let many = (0..2000).map(|i| rule(&format!("m{i}"), &format!("allow client/pay write topic:t{i}")));
    let mut ends = rule("a", "allow client/pay read topic:orders");
    ends.not_after = Some(NOW.plus_secs(10));
    world.put(many.chain([ends]));
    world.renew_lease(LeaseLength::from_secs(3600).unwrap());
    let (orders, done) = (topic("orders"), std::sync::atomic::AtomicBool::new(false));
    let session = world.session("pay");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                world.put([rule("z", "allow client/pay read topic:other")]);
                world.remove("z");
            }
        });
        // Ends the other thread, also where an assertion fails.
        let _done = Done(&done);
        for _ in 0..100 {
            let fresh = world.guard.fresh().unwrap();
            let before = world.guard.generation();
            let permit = session.authorize(&fresh, Action::Read, &orders).unwrap();
            assert!(permit.generation() >= before && permit.deadline().0 == 1000 + 11_000);
            let denied = session.authorize_named(&fresh, Action::Write, &Kind::TOPIC, "orders");
            assert!(matches!(denied, Err(Denial::Denied(_))), "{denied:?}");
        }
    });
}

struct Done<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_request_may_ask_for_a_generation_and_is_not_answered_by_an_earlier_one() {
    let world = World::new(&["pay"]);
    let session = world.session("pay");
    let generation = world.guard.generation();
    assert_eq!(session.at_least(generation), Ok(()));
    let wanted = Generation(generation.0 + 1);
    assert_eq!(session.at_least(wanted), Err(Denial::Behind { wanted, generation }));
    world.put([rule("a", "allow client/pay read topic:orders")]);
    assert_eq!(session.at_least(wanted), Ok(()));
}

#[test]
fn what_is_committed_and_not_published_is_not_in_force_and_is_whole_when_it_is() {
    let world = World::new(&["pay"]);
    world.put([rule("a", "allow client/pay read topic:orders")]);
    let (session, orders) = (world.session("pay"), topic("orders"));
    world.commit(Command::RevokePrincipal(RevokePrincipal(client("pay"))));
    assert_eq!(may(&world, &session, Action::Read, &orders), Ok(()));
    world.publish();
    assert!(may(&world, &session, Action::Read, &orders).is_err());
}

#[test]
fn names_that_callers_invent_are_kept_nowhere() {
    let world = World::new(&["pay"]);
    world.put([rule("a", "allow client/pay read topic:a…"), rule("b", "allow * read topic:b")]);
    let session = world.session("pay");
    let fresh = world.guard.fresh().unwrap();
    for i in 0..50_000 {
        let name = format!("a{i}");
        assert!(session.authorize_named(&fresh, Action::Read, &Kind::TOPIC, &name).is_ok());
        assert!(session.authorize_named(&fresh, Action::Read, &Kind::TOPIC, &format!("x{i}")).is_err());
    }
    assert_eq!(world.guard.compiled_groups(), 2);
    assert!(world.guard.recent().len() <= 256);
}

#[test]
fn groups_that_no_rule_names_any_more_are_forgotten() {
    let names: Vec<String> = (0..300).map(|i| format!("c{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let world = World::new(&names);
    for (i, name) in names.iter().enumerate() {
        let id = format!("r{i}");
        world.put([rule(&id, &format!("allow client/{name} read topic:orders"))]);
        assert_eq!(may(&world, &world.session(name), Action::Read, &topic("orders")), Ok(()));
        world.remove(&id);
    }
    assert!(world.guard.compiled_groups() <= 100, "{}", world.guard.compiled_groups());
}

#[test]
fn a_name_at_the_limit_is_decided_and_one_past_it_denied() {
    let world = World::new(&["pay"]);
    world.put([rule("a", "allow client/pay all topic")]);
    let session = world.session("pay");
    let named = |len: usize| topic(&"a".repeat(len));
    assert_eq!(may(&world, &session, Action::Read, &named(RESOURCE_NAME_LEN_MAX)), Ok(()));
    assert_eq!(by(may(&world, &session, Action::Read, &named(RESOURCE_NAME_LEN_MAX + 1))), Reason::NameTooLong);
}

#[test]
fn a_required_capability_is_enough_and_needed() {
    let world = World::new(&["gpu", "cpu"]);
    let requirements = Some(vec![countersign_core::authz::Requirement {
        task: "render".to_owned(),
        any_of: vec!["Worker[gpu=true]".parse().unwrap()],
    }]);
    world.apply(Command::ChangePolicy(Box::new(PolicyChange { requirements, ..PolicyChange::default() })));
    world.put([rule("a", "allow client/* write task")]);
    world.label(client("gpu"), "role", Some("Worker"));
    world.label(client("gpu"), "gpu", Some("true"));
    let task = |name: &str| Resource::new(Kind::TASK, name);
    let (gpu, cpu) = (world.session("gpu"), world.session("cpu"));
    assert_eq!(may(&world, &gpu, Action::Write, &task("render")), Ok(()));
    assert_eq!(by(may(&world, &cpu, Action::Write, &task("render"))), Reason::Requirement("render".to_owned()));
    assert_eq!(may(&world, &cpu, Action::Write, &task("other")), Ok(()));
    world.put([rule("d", "deny * write task:render")]);
    assert_eq!(by(may(&world, &gpu, Action::Write, &task("render"))), Reason::Rule(RuleId::parse("d").unwrap()));
}

#[test]
fn a_resource_is_no_other_one_though_both_take_the_same_place() {
    let world = World::new(&["pay"]);
    world.put([rule("a", "allow client/pay read topic:open")]);
    let session = world.session("pay");
    let open = topic("open");
    let shut: Vec<Resource> = (0..200).map(|i| topic(&format!("shut{i}"))).collect();
    for other in &shut {
        assert_eq!(may(&world, &session, Action::Read, &open), Ok(()));
        assert!(may(&world, &session, Action::Read, other).is_err());
        // The same kind of name under another kind.
        assert!(may(&world, &session, Action::Read, &Resource::new(Kind::GROUP, "open")).is_err());
    }
}

#[test]
fn each_request_that_was_decided_is_recorded_once_also_if_it_was_denied() {
    let world = World::new(&["pay"]);
    world.put([rule("a", "allow client/pay read topic:open")]);
    let session = world.session("pay");
    let (open, shut) = (topic("open"), topic("shut"));
    for _ in 0..3 {
        let _ = may(&world, &session, Action::Read, &open);
        let _ = may(&world, &session, Action::Write, &open);
        let _ = may(&world, &session, Action::Read, &shut);
    }
    let recent = world.guard.recent();
    let mut asked: Vec<_> = recent.iter().map(|r| (r.name.as_str(), r.action)).collect();
    asked.sort_unstable();
    assert_eq!(asked, [("open", Action::Read), ("open", Action::Write), ("shut", Action::Read)]);
    assert!(recent.iter().all(|r| r.principal == client("pay") && r.from.is_some()));
}

#[test]
fn a_view_older_than_the_one_in_force_is_not_put_in_force() {
    let world = World::new(&["pay"]);
    world.put([rule("a", "allow client/pay read topic:orders")]);
    let before = world.view();
    let (session, orders) = (world.session("pay"), topic("orders"));
    assert_eq!(may(&world, &session, Action::Read, &orders), Ok(()));
    world.remove("a");
    world.publish_view(&before);
    assert_eq!(world.guard.generation(), world.view().generation);
    assert_eq!(by(may(&world, &session, Action::Read, &orders)), Reason::NoRule);
    assert_eq!(by(may(&world, &world.session("pay"), Action::Read, &orders)), Reason::NoRule);
}

#[test]
fn a_permit_ends_with_the_rule_that_gave_it() {
    let world = World::new(&["pay"]);
    let mut ends = rule("a", "allow client/pay read topic:orders");
    ends.not_after = Some(NOW.plus_secs(10));
    world.put([ends]);
    let (session, orders) = (world.session("pay"), topic("orders"));
    let fresh = world.guard.fresh().unwrap();
    for _ in 0..2 {
        let permit = session.authorize(&fresh, Action::Read, &orders).unwrap();
        let named = session.authorize_named(&fresh, Action::Read, &Kind::TOPIC, "orders").unwrap();
        world.clocks.boot.store(1000 + 11_000, Ordering::Relaxed);
        let later = world.guard.fresh().unwrap();
        assert!(permit.holds(&world.guard, &later).is_err() && named.holds(&world.guard, &later).is_err());
        world.clocks.boot.store(1000, Ordering::Relaxed);
    }
}

#[test]
fn what_is_asked_for_all_along_stays_recorded_when_a_while_is_over() {
    let world = World::new(&["pay", "other"]);
    world.put([rule("a", "allow client/pay read topic:open")]);
    let (session, open) = (world.session("pay").another().unwrap(), topic("open"));
    for hour in 0..4 {
        // Another principal's first request begins the next window.
        assert!(may(&world, &world.session("other"), Action::Read, &topic(&format!("hour-{hour}"))).is_err());
        assert!(may(&world, &session, Action::Read, &open).is_ok());
        let fresh = world.guard.fresh().unwrap();
        assert!(session.authorize_named(&fresh, Action::Read, &Kind::TOPIC, "named").is_err());
        let recent = world.guard.recent();
        let of_pay: Vec<_> = recent.iter().filter(|r| r.principal == client("pay")).map(|r| r.name.as_str()).collect();
        assert_eq!(of_pay, ["named", "open"], "hour {hour}");
        world.clocks.boot.fetch_add(3_600_000, Ordering::Relaxed);
        world.clocks.unix.fetch_add(3_600_000, Ordering::Relaxed);
        world.renew_lease(LeaseLength::from_secs(3600).unwrap());
    }
}
