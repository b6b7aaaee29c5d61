//! When a certificate is adopted and renewed, and how often at most.

use proptest::prelude::*;

use crate::id::{KeyId, NodeId};
use crate::key::Endorsement;
use crate::member::renewal::{Action, CertificateKeeper, renewal_number};
use crate::name::Host;
use crate::time::{BootMillis, UnixMillis, Validity};
use crate::trust::clocks::Anchor;
use crate::trust::command::{AdoptLeaf, Command, Renew};
use crate::trust::tests::rig::*;
use crate::trust::view::View;

const NODE: NodeId = NodeId(2);
/// Milliseconds of the life that counts: certificates are backdated by the skew.
const LIFE: u64 = 1_000_000;
const ADOPT: Action = Action::Adopt(AdoptLeaf { node: NODE, renewal: 1 });

fn at(millis: u64) -> BootMillis {
    BootMillis(millis)
}

fn after(millis: u64) -> UnixMillis {
    UnixMillis(NOW.0 + millis)
}

/// Three members, the second with a certificate that lives [`LIFE`] from [`NOW`].
fn view() -> View {
    let mut view = View::clone(Rig::three_voters().0.view().unwrap());
    view.members.update(&NODE, |member| {
        member.leaf.validity = Validity { not_before: NOW.minus_secs(60), not_after: after(LIFE) };
    });
    view
}

/// A keeper of the certificate of the second member.
fn keeper(drawn: u16) -> CertificateKeeper {
    let mut keeper = CertificateKeeper::new(NODE);
    keeper.handle_certificate(leaf_key(2), drawn);
    keeper
}

const RENEW: fn() -> Option<Action> = || Some(Action::Renew { in_use: leaf_key(2) });

#[test]
fn a_renewal_is_due_at_the_drawn_point_between_half_and_four_fifths_of_a_life() {
    let view = view();
    for (drawn, due) in [(0, 500_000), (u16::MAX / 2, 649_000), (u16::MAX, 800_000)] {
        let mut keeper = keeper(drawn);
        assert_eq!(keeper.poll_action(&view, after(due - 1), at(7)), None, "{drawn}");
        assert_eq!((keeper.due(), keeper.poll_timeout()), (Some(after(due)), at(8)));
        assert_eq!(keeper.poll_action(&view, after(due), at(8)), RENEW());
    }
    let mut keeper = keeper(0);
    assert_eq!(keeper.poll_action(&view, NOW, at(7)), None);
    assert_eq!(keeper.poll_timeout(), at(30_007), "the wall clock may be set in between");
}

/// Its clock is behind, and the log stands still: only what the leader stamps goes on.
#[test]
fn clock_that_is_behind_renews_by_the_stamp_of_the_leader() {
    let view = view();
    let mut keeper = keeper(0);
    keeper.handle_stamp(Anchor { time: after(400_000), at: at(7_000) });
    assert_eq!(keeper.poll_action(&view, NOW, at(106_999)), None);
    assert_eq!((keeper.due(), keeper.poll_timeout()), (Some(after(500_000)), at(107_000)));
    assert_eq!(keeper.poll_action(&view, NOW, at(107_000)), RENEW());
    let mut keeper = self::keeper(0);
    keeper.handle_stamp(Anchor { time: NOW, at: at(7_000) });
    assert_eq!(keeper.poll_action(&view, after(500_000), at(7_000)), RENEW(), "the later of the two counts");
}

#[test]
fn one_point_is_drawn_for_each_certificate() {
    let view = view();
    let mut keeper = keeper(u16::MAX);
    keeper.handle_certificate(leaf_key(2), 0);
    assert_eq!(keeper.poll_action(&view, after(500_000), at(0)), None, "drawn before");
    keeper.handle_certificate(leaf_key(3), 0);
    assert_eq!(keeper.poll_action(&view, after(500_000), at(0)), None, "it is not on record");
    assert_eq!(keeper.poll_timeout(), at(1000));
    keeper.handle_certificate(leaf_key(2), 0);
    assert_eq!(keeper.poll_action(&view, after(500_000), at(0)), RENEW());
}

#[test]
fn a_failure_is_tried_again_after_a_part_of_the_life() {
    let view = view();
    let mut keeper = keeper(0);
    assert_eq!(keeper.poll_action(&view, after(LIFE), at(1)), RENEW());
    keeper.handle_failure(at(1));
    assert_eq!(keeper.poll_action(&view, after(LIFE), at(5_300)), None);
    assert_eq!(keeper.poll_timeout(), at(5_301), "the life and the skew by 200");
    assert_eq!(keeper.poll_action(&view, after(LIFE), at(5_301)), RENEW());
}

#[test]
fn a_clock_far_ahead_renews_with_a_pause() {
    let view = view();
    let mut keeper = keeper(0);
    assert_eq!(keeper.poll_action(&view, after(9 * LIFE), at(1)), RENEW());
    keeper.handle_renewed(at(1));
    // As if the next certificate were as old.
    assert_eq!(keeper.poll_action(&view, after(9 * LIFE), at(2)), None);
    assert_eq!(keeper.poll_timeout(), at(5_301));
    assert_eq!(keeper.poll_action(&view, after(9 * LIFE), at(5_301)), RENEW());
}

#[test]
fn the_next_certificate_is_adopted_before_anything_else_until_the_cluster_knows() {
    let mut rig = Rig::three_voters();
    let next = leaf_key(42);
    let endorsement = Endorsement::sign(&key(2), CLUSTER, next, 1);
    rig.apply(Command::Renew(Renew { node: NODE, key: next, endorsement }));
    let view = rig.0.view().unwrap();
    let mut keeper = keeper(0);
    assert_eq!(keeper.poll_action(view, NOW, at(0)), None, "it is not in use");
    keeper.handle_certificate(next, 0);
    assert_eq!(keeper.poll_action(view, NOW, at(0)), Some(ADOPT));
    keeper.handle_not_adopted(at(0));
    assert_eq!(keeper.poll_action(view, NOW, at(999)), None);
    assert_eq!(keeper.poll_timeout(), at(1000));
    assert_eq!(keeper.poll_action(view, after(9 * LIFE * 1000), at(999)), None, "it is not renewed before");
    assert_eq!(keeper.poll_action(view, NOW, at(1000)), Some(ADOPT));
    keeper.handle_adopted();
    assert_eq!(keeper.poll_action(view, NOW, at(1000)), None);

    let mut again = CertificateKeeper::new(NODE);
    again.handle_certificate(next, 0);
    rig.apply(Command::AdoptLeaf(AdoptLeaf { node: NODE, renewal: 1 }));
    assert_eq!(again.poll_action(rig.0.view().unwrap(), NOW, at(0)), None, "on record as in use");
}

#[test]
fn other_hosts_make_a_renewal_due_soon_and_once_for_several_changes() {
    let (plain, mut changed) = (view(), view());
    changed.client_names.insert(Host::parse("lb.example.org").unwrap());
    let mut keeper = keeper(u16::MAX);
    assert_eq!(keeper.poll_action(&changed, after(5_000), at(0)), None);
    assert_eq!(keeper.due(), Some(after(6_060)), "a second, and 20 ms for each of three members");
    changed.client_names.insert(Host::parse("lb2.example.org").unwrap());
    assert_eq!(keeper.poll_action(&changed, after(6_059), at(1)), None);
    keeper.handle_renewed(at(1));
    assert_eq!(keeper.poll_action(&changed, after(6_060), at(2)), RENEW(), "however soon after another");
    assert_eq!(keeper.poll_action(&plain, after(6_061), at(3)), None, "they are as they were");
    assert_eq!(keeper.due(), Some(after(800_000)));
}

#[test]
fn an_attempt_on_record_goes_on_under_its_number_until_its_certificate_has_ended() {
    let mut rig = Rig::three_voters();
    let number = |rig: &Rig, key: KeyId, time| renewal_number(&rig.0.view().unwrap().members[&NODE], key, time);
    let next = leaf_key(42);
    assert_eq!(number(&rig, next, NOW), 1);
    let endorsement = Endorsement::sign(&key(2), CLUSTER, next, 1);
    rig.apply(Command::Renew(Renew { node: NODE, key: next, endorsement }));
    assert_eq!((number(&rig, next, NOW), number(&rig, leaf_key(43), NOW)), (1, 2));
    assert_eq!(number(&rig, next, NOW.plus_secs(86_400 * 3)), 2);
}

proptest! {
    /// Whatever the clocks do and whatever fails: no renewal by age before half of the life, and neither two of them
    /// nor an attempt after a failure without a pause; and the keeper always says when to come again.
    #[test]
    fn renewals_are_never_early_and_never_without_a_pause(
        drawn in any::<u16>(),
        steps in proptest::collection::vec((0_u64..2 * LIFE, 0_u64..4_000, 0_u8..3), 1..80),
    ) {
        let view = view();
        let mut keeper = keeper(drawn);
        let (mut now, mut last) = (at(0), None);
        for (time, passed, outcome) in steps {
            now = now.plus(passed);
            match keeper.poll_action(&view, after(time), now) {
                Some(Action::Renew { .. }) => {
                    prop_assert!(time >= LIFE / 2);
                    prop_assert!(last.is_none_or(|last| now.since(last) >= 5_300));
                    match outcome {
                        0 => keeper.handle_renewed(now),
                        1 => keeper.handle_failure(now),
                        // The process was busy: it is asked again.
                        _ => continue,
                    }
                    last = Some(now);
                }
                Some(Action::Adopt(_)) => prop_assert!(false, "the certificate is adopted"),
                None => prop_assert!(keeper.poll_timeout() > now),
            }
        }
    }
}
