//! The level of a cluster: who must know it before it rises, what it forbids until then, and what it leaves readable.

use std::collections::BTreeSet;

use super::rig::*;
use crate::codec;
use crate::group::GroupMembers;
use crate::id::NodeId;
use crate::limits::LEVEL_PROVEN_SECS;
use crate::time::UnixMillis;
use crate::trust::command::{
    AddJoinToken, ClusterSetting, Command, FEATURE_LEVEL, LEVEL_FOR_TESTING, NoteForTesting, RaiseLevel,
    ReportFeatureLevel, SetSuffrage, Stamped,
};
use crate::trust::member::Suffrage;
use crate::trust::outcome::{Outcome, Refused};
use crate::trust::{TrustState, UnreadableState, UnsupportedLevel};

const NEXT: u32 = LEVEL_FOR_TESTING;

/// Three voters and a learner, 4, on a member that knows the next level; the cluster is at the first.
fn cluster() -> Rig {
    let mut rig = Rig::of(TrustState::knowing(NEXT));
    rig.apply(bootstrap());
    for node in [2, 3, 4] {
        rig.apply(Command::AddJoinToken(AddJoinToken(record(node, 1))));
        rig.apply(Command::Admit(Box::new(request(node, node).into())));
    }
    for node in [2, 3] {
        rig.apply(Command::SetSuffrage(SetSuffrage {
            node: NodeId(node),
            suffrage: Suffrage::Voter,
            keep_authority: false,
        }));
    }
    assert_eq!(rig.0.level(), FEATURE_LEVEL);
    rig
}

fn report(node: u8, level: u32) -> Command {
    Command::ReportFeatureLevel(ReportFeatureLevel { node: NodeId(node.into()), level })
}

fn raise(level: u32, without: &[u64], by_itself: bool) -> Command {
    Command::RaiseLevel(RaiseLevel { level, without: without.iter().copied().map(NodeId).collect(), by_itself })
}

fn later(rig: &Rig, secs: u64) -> UnixMillis {
    rig.0.time().plus_secs(secs)
}

fn behind(outcome: &Outcome) -> Vec<u64> {
    match outcome {
        Outcome::Refused(Refused::AboveLevel { behind, .. }) => behind.iter().map(|(node, _)| node.0).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn level_waits_for_every_member_and_the_refusal_names_who_is_behind() {
    let mut rig = cluster();
    for (node, rest) in [(1, vec![2, 3, 4]), (3, vec![2, 4]), (4, vec![2])] {
        rig.apply(report(node, NEXT));
        assert_eq!(behind(&rig.apply(raise(NEXT, &[], false))), rest);
        assert_eq!(behind(&rig.apply(Command::NoteForTesting(NoteForTesting("early".to_owned())))), rest);
    }
    rig.apply(report(2, NEXT));
    assert!(matches!(rig.apply(raise(NEXT, &[], false)), Outcome::Done(_)));
    assert_eq!(rig.0.level(), NEXT);
    assert!(matches!(rig.apply(Command::NoteForTesting(NoteForTesting("now".to_owned()))), Outcome::Done(_)));
    assert_eq!(rig.0.notes_for_testing(), ["now"]);
}

#[test]
fn level_rises_past_a_learner_that_is_named_and_past_no_voter() {
    let mut rig = cluster();
    for node in [1, 2, 3] {
        rig.apply(report(node, NEXT));
    }
    assert_eq!(behind(&rig.apply(raise(NEXT, &[], false))), [4]);
    let refused = rig.apply(raise(NEXT, &[3, 4], false));
    assert_eq!(refused, Outcome::Refused(Refused::LevelNeedsVoter(NodeId(3))));
    assert!(matches!(rig.apply(raise(NEXT, &[4], false)), Outcome::Done(_)));
    assert_eq!(rig.0.level(), NEXT);
}

#[test]
fn level_never_falls_and_rises_no_higher_than_members_know() {
    let mut rig = cluster();
    for node in 1..=4 {
        rig.apply(report(node, NEXT));
    }
    rig.apply(raise(NEXT, &[], false));
    let before = rig.0.clone();
    assert!(matches!(rig.apply(raise(FEATURE_LEVEL, &[], false)), Outcome::Done(_)), "it is as high already");
    assert_eq!(rig.0.level(), before.level());
    assert_eq!(behind(&rig.apply(raise(u32::MAX, &[], false))), [1, 2, 3, 4]);
    // An entry that names a level which this member does not know ends it, and changes nothing.
    let absurd = Stamped { level: u32::MAX, ..stamped(NOW, report(1, NEXT)) };
    let stopped = rig.0.apply(&absurd, &GroupMembers::default());
    assert_eq!(stopped, Err(UnsupportedLevel { needed: u32::MAX, known: NEXT }));
}

#[test]
fn refused_raise_stops_no_older_member_and_an_accepted_one_does() {
    let mut older = cluster();
    for node in [1, 2, 3] {
        older.apply(report(node, NEXT));
    }
    // The same state on a member that does not know the next level: a learner, 4.
    let mut older = Rig::of(TrustState::decode(FEATURE_LEVEL, &older.0.encode().unwrap()).unwrap());
    assert_eq!(behind(&older.apply(raise(NEXT, &[], false))), [4]);
    assert_eq!(older.apply(raise(NEXT, &[1, 4], false)), Outcome::Refused(Refused::LevelNeedsVoter(NodeId(1))));
    assert!(matches!(older.apply(raise(NEXT, &[4], true)), Outcome::Refused(Refused::AboveLevel { .. })));
    let before = older.0.digest();
    let accepted = stamped(NOW, raise(NEXT, &[4], false));
    let bytes = accepted.encode().unwrap();
    assert_eq!(Stamped::decode(FEATURE_LEVEL, &bytes).as_ref(), Ok(&accepted), "it is read by all");
    assert_eq!(
        older.0.apply(&accepted, &GroupMembers::default()),
        Err(UnsupportedLevel { needed: NEXT, known: FEATURE_LEVEL })
    );
    assert_eq!(older.0.digest(), before);
}

#[test]
fn learner_that_joined_with_the_level_does_not_begin_the_day_again() {
    let mut rig = cluster();
    for node in [1, 2, 3, 4] {
        rig.apply(report(node, NEXT));
    }
    rig.apply(Command::AddJoinToken(AddJoinToken(record(5, 1))));
    let mut newer = request(5, 5);
    newer.feature_level = NEXT;
    rig.apply_at(later(&rig, LEVEL_PROVEN_SECS), Command::Admit(Box::new(newer.signed(&token(5).key()).into())));
    assert!(rig.0.level_to_raise(|_| false).is_some());
}

#[test]
fn leader_raises_the_level_by_itself_after_all_have_known_it_for_a_day() {
    let mut rig = cluster();
    for node in [1, 2, 3] {
        rig.apply(report(node, NEXT));
    }
    let reported = rig.0.time();
    assert_eq!(rig.0.level_to_raise(|_| false), None, "a learner knows less");
    for (secs, wanted) in [(LEVEL_PROVEN_SECS - 1, false), (LEVEL_PROVEN_SECS, true)] {
        rig.apply_at(reported.plus_secs(secs), report(1, NEXT));
        assert_eq!(rig.0.level_to_raise(|node| node == NodeId(4)).is_some(), wanted, "{secs}");
        let outcome = rig.apply(raise(NEXT, &[4], true));
        assert_eq!(matches!(outcome, Outcome::Done(_)), wanted, "{secs}: {outcome:?}");
    }
    assert_eq!(rig.0.level(), NEXT);
}

#[test]
fn silent_voter_holds_the_level_back_and_so_does_the_operator() {
    let mut rig = cluster();
    for node in [1, 2, 4] {
        rig.apply(report(node, NEXT));
    }
    rig.apply_at(later(&rig, LEVEL_PROVEN_SECS), report(4, NEXT));
    let silent = |node| node == NodeId(3);
    assert_eq!(rig.0.level_to_raise(silent), None, "a voter is waited for, heard of or not");
    rig.apply(report(3, NEXT));
    rig.apply_at(later(&rig, LEVEL_PROVEN_SECS), report(4, NEXT));
    assert!(rig.0.level_to_raise(silent).is_some());
    rig.apply(Command::SetCluster(ClusterSetting::LevelAuto(false)));
    assert_eq!(rig.0.level_to_raise(silent), None);
    assert!(matches!(rig.apply(raise(NEXT, &[], true)), Outcome::Refused(Refused::AboveLevel { .. })));
    assert!(matches!(rig.apply(raise(NEXT, &[], false)), Outcome::Done(_)), "by the operator's word it rises");
}

#[test]
fn lower_report_replaces_a_higher_one_and_begins_the_day_again() {
    let mut rig = cluster();
    for node in 1..=4 {
        rig.apply(report(node, NEXT));
    }
    rig.apply_at(later(&rig, LEVEL_PROVEN_SECS - 1), report(2, FEATURE_LEVEL));
    assert_eq!(behind(&rig.apply(raise(NEXT, &[], false))), [2], "the release was taken back on one member");
    rig.apply(report(2, NEXT));
    rig.apply_at(later(&rig, 1), report(1, NEXT));
    assert_eq!(rig.0.level_to_raise(|_| false), None);
}

#[test]
fn joiner_below_the_level_keeps_its_token() {
    let mut rig = cluster();
    for node in 1..=4 {
        rig.apply(report(node, NEXT));
    }
    rig.apply(Command::AddJoinToken(AddJoinToken(record(5, 1))));
    rig.apply(raise(NEXT, &[], false));
    let refused = rig.apply(Command::Admit(Box::new(request(5, 5).into())));
    assert_eq!(refused, Outcome::Refused(Refused::BelowLevel { level: NEXT, got: FEATURE_LEVEL }));
    assert_eq!(rig.0.tokens()[&token(5).id()].record.uses_left, 1);
    let mut newer = request(5, 5);
    newer.feature_level = NEXT;
    let newer = newer.signed(&token(5).key());
    assert!(matches!(rig.apply(Command::Admit(Box::new(newer.into()))), Outcome::Admitted(_)));
}

#[test]
fn snapshot_is_read_at_its_level_and_names_it_to_others() {
    let mut rig = cluster();
    let first = rig.0.encode().unwrap();
    assert_eq!(TrustState::decode(NEXT, &first).unwrap(), rig.0);
    // Nothing of the next level is written before the level rises: the release can be taken back.
    let taken_back = TrustState::decode(FEATURE_LEVEL, &first).unwrap();
    assert_eq!((taken_back.level(), taken_back.digest()), (FEATURE_LEVEL, rig.0.digest()));
    for node in 1..=4 {
        rig.apply(report(node, NEXT));
    }
    rig.apply(raise(NEXT, &[], false));
    rig.apply(Command::NoteForTesting(NoteForTesting("kept".to_owned())));
    let next = rig.0.encode().unwrap();
    let again = TrustState::decode(NEXT, &next).unwrap();
    assert_eq!((&again, again.notes_for_testing()), (&rig.0, &["kept".to_owned()][..]));
    let old = TrustState::decode(FEATURE_LEVEL, &next);
    assert_eq!(old, Err(UnreadableState::Level(UnsupportedLevel { needed: NEXT, known: FEATURE_LEVEL })));
    let cut = next.len() - 1;
    assert!(
        TrustState::decode(NEXT, &next[..cut]).is_err()
            && TrustState::decode(NEXT, &[&next[..], &[0]].concat()).is_err()
    );
    // A field of the next level behind a state of the first is no field of it.
    let mut forged = first;
    forged.extend(codec::appended(&vec!["forged"]).unwrap());
    assert!(matches!(TrustState::decode(NEXT, &forged), Err(UnreadableState::Codec(_))));
}

#[test]
fn founder_that_knows_the_next_level_founds_at_it() {
    let mut state = TrustState::knowing(NEXT);
    state.apply(&Stamped { level: NEXT, ..stamped(NOW, bootstrap()) }, &GroupMembers::default()).unwrap();
    assert_eq!(state.level(), NEXT);
    assert!(state.behind(NEXT, &BTreeSet::new()).is_empty());
}
