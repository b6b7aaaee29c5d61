//! Whether members' states agree: what is digested when, what raises the alarm, and what ends it.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::rig::*;
use crate::codec;
use crate::id::{KeyId, NodeId, StateDigest, StoreId};
use crate::limits::{DIGEST_EVERY, DIGESTS_MAX, REVOCATIONS_COMPARED_MAX, REVOCATIONS_LISTED_MAX};
use crate::principal::Role;
use crate::trust::TrustState;
use crate::trust::agreement::{Agreement, Incomparable, Report, Revocation, RevocationsCompared, Speaker};
use crate::trust::command::Command;
use crate::trust::digest::{DigestAt, Digests};
use crate::trust::member::Suffrage;
use crate::trust::view::View;

const RIGHT: StateDigest = StateDigest([1; 32]);
const WRONG: StateDigest = StateDigest([2; 32]);
const OTHER: StateDigest = StateDigest([3; 32]);
const AT: u64 = 2 * DIGEST_EVERY;

/// Voters 1 to 3 and learner 4.
fn view() -> View {
    let mut rig = Rig::empty();
    rig.apply(bootstrap());
    for node in [2, 3, 4] {
        rig.apply(Command::AddJoinToken(record(node, 1)));
        rig.apply(Command::Admit(Box::new(request(node, node).into())));
    }
    for node in [2, 3] {
        rig.apply(Command::SetSuffrage { node: NodeId(node), suffrage: Suffrage::Voter, keep_authority: false });
    }
    View::clone(rig.0.view().unwrap())
}

fn speaker(view: &View, node: u64) -> Speaker {
    (NodeId(node), view.members[&NodeId(node)].store)
}

fn own() -> Digests {
    let mut digests = Digests::default();
    (1..=4).for_each(|n| digests.enter(n * DIGEST_EVERY, RIGHT));
    digests
}

/// What node 1 knows as leader after these words, in their order.
fn heard(view: &View, words: &[(u64, u64, StateDigest)]) -> Agreement {
    let (mut agreement, own) = (Agreement::default(), own());
    for (node, index, digest) in words {
        let said = DigestAt { index: *index, digest: *digest };
        agreement.compare(speaker(view, 1), &own, speaker(view, *node), said);
    }
    agreement
}

fn alarm(agreement: &Agreement, view: &View) -> Option<Report> {
    agreement.alarm(view, &BTreeSet::new())
}

/// Who said what, in the order of the indexes.
fn words(report: &Report) -> Vec<(u64, u64, StateDigest)> {
    let by = report.disagreements.iter();
    by.flat_map(|(index, by)| by.iter().map(|(node, said)| (*index, node.0, said.digest))).collect()
}

#[test]
fn digest_is_due_once_at_each_index_and_not_at_one_that_a_snapshot_skips() {
    let mut digests = Digests::default();
    assert_eq!(digests.due(0), None);
    assert_eq!(digests.due(DIGEST_EVERY - 1), None);
    assert_eq!(digests.due(DIGEST_EVERY), Some(DIGEST_EVERY));
    // Asked late, it is still the digest at the index.
    assert_eq!(digests.due(2 * DIGEST_EVERY - 1), Some(DIGEST_EVERY));
    digests.enter(DIGEST_EVERY, RIGHT);
    assert_eq!(digests.due(2 * DIGEST_EVERY - 1), None);
    assert_eq!(digests.due(2 * DIGEST_EVERY), Some(2 * DIGEST_EVERY));
    // Past the index, a snapshot does not say what the state was there.
    digests.replaced(2 * DIGEST_EVERY + 1);
    assert_eq!((digests.newest(), digests.due(3 * DIGEST_EVERY - 1)), (None, None));
    assert_eq!(digests.due(3 * DIGEST_EVERY), Some(3 * DIGEST_EVERY));
    // At the index, it does.
    digests.replaced(4 * DIGEST_EVERY);
    assert_eq!(digests.due(4 * DIGEST_EVERY), Some(4 * DIGEST_EVERY));
}

#[test]
fn no_more_digests_are_kept_than_the_limit() {
    let mut digests = Digests::default();
    for n in 1..=DIGESTS_MAX as u64 {
        digests.enter(n * DIGEST_EVERY, RIGHT);
    }
    assert_eq!(digests.at(DIGEST_EVERY), Some(RIGHT));
    digests.enter((DIGESTS_MAX as u64 + 1) * DIGEST_EVERY, RIGHT);
    assert_eq!((digests.at(DIGEST_EVERY), digests.at(2 * DIGEST_EVERY)), (None, Some(RIGHT)));
}

#[test]
fn states_that_differ_in_anything_have_different_digests() {
    let mut rig = Rig::empty();
    rig.apply(bootstrap());
    let before = rig.0.digest().unwrap();
    let key = KeyId([7; 32]);
    rig.apply(Command::RevokeKey(key));
    let revoked = rig.0.digest().unwrap();
    assert_ne!(revoked, before);
    assert_eq!(TrustState::decode(1, &rig.0.encode().unwrap()).unwrap().digest().unwrap(), revoked);
    rig.0.forget_key_for_testing(key);
    assert_ne!(rig.0.digest().unwrap(), revoked);
}

#[test]
fn voter_that_differs_raises_the_alarm_and_the_report_names_who_said_what() {
    let view = view();
    let agreement = heard(&view, &[(2, AT, RIGHT), (3, AT, WRONG)]);
    let report = alarm(&agreement, &view).unwrap();
    assert_eq!(words(&report), [(AT, 1, RIGHT), (AT, 3, WRONG)]);
    // Who agrees after the alarm is on record as well.
    let agreement = heard(&view, &[(3, AT, WRONG), (2, AT, RIGHT)]);
    assert_eq!(words(&alarm(&agreement, &view).unwrap()), [(AT, 1, RIGHT), (AT, 2, RIGHT), (AT, 3, WRONG)]);
    // Three states, at two indexes.
    let agreement = heard(&view, &[(3, AT, WRONG), (2, AT + DIGEST_EVERY, OTHER)]);
    let all = [(AT, 1, RIGHT), (AT, 3, WRONG), (AT + DIGEST_EVERY, 1, RIGHT), (AT + DIGEST_EVERY, 2, OTHER)];
    assert_eq!(words(&alarm(&agreement, &view).unwrap()), all);
}

#[test]
fn nothing_is_concluded_where_states_agree_or_cannot_be_compared() {
    let view = view();
    for said in [
        vec![],
        vec![(2, AT, RIGHT), (3, AT, RIGHT), (2, AT + DIGEST_EVERY, RIGHT)],
        // An index that the leader has not reached, or does not keep.
        vec![(3, 9 * DIGEST_EVERY, WRONG), (3, 0, WRONG), (3, u64::MAX, WRONG), (3, AT + 1, WRONG)],
    ] {
        let agreement = heard(&view, &said);
        assert!(agreement.is_empty() && alarm(&agreement, &view).is_none(), "{said:?}");
    }
}

#[test]
fn learner_that_differs_raises_no_alarm_and_is_known_to_differ() {
    let view = view();
    let agreement = heard(&view, &[(4, AT, WRONG), (2, AT, RIGHT)]);
    assert!(alarm(&agreement, &view).is_none());
    let between = |speaker| agreement.between(NodeId(1), speaker).map(|report| words(&report));
    assert_eq!(between(speaker(&view, 4)), Some(vec![(AT, 1, RIGHT), (AT, 4, WRONG)]));
    assert_eq!(between(speaker(&view, 2)), None);
    assert_eq!(between((NodeId(4), StoreId([99; 16]))), None, "it came back with another store");
    // Promoted, it counts.
    let mut promoted = view;
    promoted.members.get_mut(&NodeId(4)).unwrap().suffrage = Suffrage::Voter;
    assert!(alarm(&agreement, &promoted).is_some());
}

#[test]
fn alarm_ends_where_the_voter_is_in_quarantine_has_another_store_or_is_gone() {
    let before = view();
    let agreement = heard(&before, &[(3, AT, WRONG)]);
    let quarantined = |node| agreement.alarm(&before, &BTreeSet::from([NodeId(node)]));
    assert!(quarantined(3).is_none() && quarantined(1).is_none());
    assert!(quarantined(2).is_some(), "of those that differ one must not count");
    for (what, change) in [
        (
            "another store",
            (|view| view.members.get_mut(&NodeId(3)).unwrap().store = StoreId([99; 16])) as fn(&mut View),
        ),
        ("evicted", |view| drop(view.members.remove(&NodeId(3)))),
        ("a learner", |view| view.members.get_mut(&NodeId(3)).unwrap().suffrage = Suffrage::Learner),
    ] {
        let mut view = before.clone();
        change(&mut view);
        assert!(alarm(&agreement, &view).is_none(), "{what}");
    }
}

#[test]
fn member_that_agrees_later_ends_its_disagreement_and_an_older_word_does_not_bring_it_back() {
    let view = view();
    let later = AT + DIGEST_EVERY;
    assert!(heard(&view, &[(3, AT, WRONG), (3, later, RIGHT)]).is_empty());
    assert!(
        heard(&view, &[(3, AT, WRONG), (3, AT, RIGHT)]).is_empty(),
        "it was started again and has what the log says"
    );
    let agreement = heard(&view, &[(3, later, WRONG), (3, AT, RIGHT)]);
    assert_eq!(words(&alarm(&agreement, &view).unwrap()), [(later, 1, RIGHT), (later, 3, WRONG)]);
    // Of each member one word is kept, however many it says.
    let agreement = heard(&view, &[(3, AT, WRONG), (3, later, OTHER), (3, later, WRONG)]);
    assert_eq!(words(&alarm(&agreement, &view).unwrap()), [(later, 1, RIGHT), (later, 3, WRONG)]);
}

#[test]
fn next_leader_has_the_alarm_from_the_report_and_over_a_restart() {
    let view = view();
    let report = alarm(&heard(&view, &[(3, AT, WRONG), (2, AT, RIGHT)]), &view).unwrap();
    let mut next = Agreement::default();
    assert!(next.take_up(&report) && !next.take_up(&report));
    let next: Agreement = codec::decode(&codec::encode(&next).unwrap()).unwrap();
    assert_eq!(alarm(&next, &view), Some(report.clone()));
    // Node 2 leads: node 3 agrees with it by now.
    let mut agrees = next.clone();
    let later = DigestAt { index: AT + DIGEST_EVERY, digest: RIGHT };
    assert!(agrees.compare(speaker(&view, 2), &own(), speaker(&view, 3), later));
    assert!(agrees.is_empty());
    // Node 3 leads, and is the one whose state is wrong: no lease either.
    let mut wrong = Digests::default();
    wrong.enter(later.index, WRONG);
    let mut third = next;
    assert!(third.compare(speaker(&view, 3), &wrong, speaker(&view, 1), later));
    assert!(alarm(&third, &view).is_some());
    assert!(third.clear() && !third.clear());
}

/// A state in which these keys are revoked, with an eviction and a principal that all have.
fn revoking(keys: &[u8]) -> View {
    let mut view = view();
    view.revoked_keys = keys.iter().map(|key| KeyId([*key; 32])).collect();
    view.revoked_principals.insert(Role::Client("a".to_owned().try_into().unwrap()));
    view
}

fn key(key: u8) -> Revocation {
    Revocation::Key(KeyId([key; 32]))
}

/// Compares page by page of `size`.
fn compared<'a>(ours: &'a View, theirs: &View, size: usize) -> RevocationsCompared<'a> {
    let mut compared = RevocationsCompared::new(ours);
    loop {
        let rest: Vec<Revocation> = theirs.revocations(compared.after()).collect();
        let last = rest.len() <= size;
        compared.page(rest.into_iter().take(size).collect(), last).unwrap();
        if last {
            return compared;
        }
    }
}

#[test]
fn report_says_who_holds_revocations_that_others_lack() {
    let (ours, second, third) = (revoking(&[1, 2, 3]), revoking(&[1, 3, 4]), revoking(&[3]));
    let with = [(NodeId(2), compared(&ours, &second, 2)), (NodeId(3), compared(&ours, &third, 1))];
    let mut report = Report::default();
    report.enter(NodeId(1), &ours, with.iter().map(|(node, with)| (*node, with)));
    let who = |uneven: &crate::trust::agreement::Uneven| {
        let ids = |of: &BTreeSet<NodeId>| of.iter().map(|node| node.0).collect::<Vec<_>>();
        (ids(&uneven.held_by), ids(&uneven.lacked_by))
    };
    let found: Vec<_> = report.uneven.iter().map(|(what, uneven)| (what.clone(), who(uneven))).collect();
    let expected = [(key(1), (vec![1, 2], vec![3])), (key(2), (vec![1], vec![2, 3])), (key(4), (vec![2], vec![1, 3]))];
    assert_eq!(found, expected);
    assert_eq!(report.unlisted, 0);
}

#[test]
fn revocations_past_the_list_are_counted() {
    let all: Vec<u8> = (0..=REVOCATIONS_LISTED_MAX as u8).collect();
    let (ours, full, over) = (revoking(&[]), revoking(&all[1..]), revoking(&all));
    assert_eq!(compared(&ours, &full, 1000).unlisted, 0);
    let with = compared(&ours, &over, 1000);
    let mut report = Report::default();
    report.enter(NodeId(1), &ours, [(NodeId(2), &with)].into_iter());
    assert_eq!((report.uneven.len(), report.unlisted), (REVOCATIONS_LISTED_MAX, 1));
}

#[test]
fn pages_out_of_order_or_without_end_are_refused() {
    let ours = revoking(&[5]);
    let refused = |pages: Vec<Vec<Revocation>>| {
        let mut compared = RevocationsCompared::new(&ours);
        pages.into_iter().try_for_each(|page| compared.page(page, false))
    };
    assert_eq!(refused(vec![vec![key(2), key(1)]]), Err(Incomparable::Order));
    assert_eq!(refused(vec![vec![key(1), key(1)]]), Err(Incomparable::Order));
    assert_eq!(refused(vec![vec![key(1)], vec![key(1)]]), Err(Incomparable::Order));
    assert_eq!(refused(vec![vec![key(1)], vec![Revocation::Member(NodeId(9))]]), Err(Incomparable::Order));
    assert_eq!(refused(vec![vec![Revocation::Member(NodeId(9))], vec![key(1)]]), Ok(()));
    let many = |count: u64| (0..count).map(|n| Revocation::Member(NodeId(n))).collect::<Vec<_>>();
    assert_eq!(refused(vec![many(REVOCATIONS_COMPARED_MAX as u64)]), Ok(()));
    assert_eq!(refused(vec![many(REVOCATIONS_COMPARED_MAX as u64), vec![key(1)]]), Err(Incomparable::TooMany));
}

proptest! {
    /// Whatever the pages are, the comparison finds exactly the differences.
    #[test]
    fn comparison_page_by_page_is_the_difference_of_the_sets(
        ours in prop::collection::btree_set(0_u8..40, 0..20),
        theirs in prop::collection::btree_set(0_u8..40, 0..20),
        size in 1_usize..9,
    ) {
        let bytes = |of: &BTreeSet<u8>| of.iter().copied().collect::<Vec<_>>();
        let (a, b) = (revoking(&bytes(&ours)), revoking(&bytes(&theirs)));
        let compared = compared(&a, &b, size);
        prop_assert_eq!(&compared.ours_alone, &ours.difference(&theirs).map(|k| key(*k)).collect());
        prop_assert_eq!(&compared.theirs_alone, &theirs.difference(&ours).map(|k| key(*k)).collect());
    }

    /// Whatever voters say in whatever order, the alarm stands exactly if the last word of one of them is not the leader's.
    #[test]
    fn alarm_stands_as_long_as_the_newest_word_of_a_voter_differs(
        said in prop::collection::vec((2_u64..=3, 1_u64..=5, any::<bool>()), 0..24),
    ) {
        let view = view();
        let words: Vec<(u64, u64, StateDigest)> =
            said.iter().map(|(node, n, right)| (*node, n * DIGEST_EVERY, if *right { RIGHT } else { WRONG })).collect();
        let agreement = heard(&view, &words);
        // The model: a word that differs stands until one at the same or a later index takes its place.
        let stands = |of: u64| {
            let mut last: Option<(u64, StateDigest)> = None;
            for (node, index, digest) in &words {
                let comparable = *node == of && own().at(*index).is_some();
                if comparable && last.is_none_or(|(at, standing)| standing == RIGHT || at <= *index) {
                    last = Some((*index, *digest));
                }
            }
            last.is_some_and(|(_, digest)| digest == WRONG)
        };
        prop_assert_eq!(alarm(&agreement, &view).is_some(), stands(2) || stands(3));
    }
}
