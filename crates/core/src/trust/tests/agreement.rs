//! Agreement of members' states: which entries are digested, what raises the alarm, and what ends it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::rig::*;
use crate::codec;
use crate::id::{Generation, KeyId, NodeId, StateDigest, StoreId};
use crate::limits::{
    DIGEST_EVERY, DIGESTS_MAX, REVOCATIONS_COMPARED_MAX, REVOCATIONS_LISTED_MAX, REVOCATIONS_PAGE_MIN, VOTERS_MAX,
};
use crate::principal::Role;
use crate::trust::TrustState;
use crate::trust::agreement::{
    Agreement, Incomparable, Judge, News, Report, Revocation, RevocationsCompared, Said, Speaker,
};
use crate::trust::command::{AddJoinToken, Command, FEATURE_LEVEL, RevokeKey, SetSuffrage};
use crate::trust::digest::{DigestAt, Digests};
use crate::trust::member::{Evicted, Suffrage};
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

fn judge<'a>(view: &'a View, me: u64, own: &'a Digests) -> Judge<'a> {
    Judge { me: speaker(view, me), own, applied: 5 * DIGEST_EVERY, view }
}

/// What node 1 knows as leader after these words, in their order.
fn heard(view: &View, words: &[(u64, u64, StateDigest)]) -> Agreement {
    let (mut agreement, own) = (Agreement::default(), own());
    for (node, index, digest) in words {
        let said = DigestAt { index: *index, digest: *digest };
        agreement.compare(judge(view, 1, &own), speaker(view, *node), said);
    }
    agreement
}

fn alarm(agreement: &Agreement) -> Option<Report> {
    let (view, own) = (view(), own());
    agreement.alarm(judge(&view, 1, &own), &BTreeMap::new(), &BTreeSet::new())
}

/// A report with these words.
fn report(view: &View, words: &[(u64, u64, StateDigest)]) -> Report {
    let mut report = Report::default();
    for (index, node, digest) in words {
        let said = Said { store: speaker(view, *node).1, digest: *digest };
        report.disagreements.entry(*index).or_default().insert(NodeId(*node), said);
    }
    report
}

/// Who said what, in the order of the indexes.
fn words(report: &Report) -> Vec<(u64, u64, StateDigest)> {
    let by = report.disagreements.iter();
    by.flat_map(|(index, by)| by.iter().map(|(node, said)| (*index, node.0, said.digest))).collect()
}

#[test]
fn digest_is_due_once_at_each_index_no_snapshot_skips() {
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
    rig.apply(Command::RevokeKey(RevokeKey(key)));
    let revoked = rig.0.digest().unwrap();
    assert_ne!(revoked, before);
    assert_eq!(TrustState::decode(FEATURE_LEVEL, &rig.0.encode().unwrap()).unwrap().digest().unwrap(), revoked);
    rig.0.forget_key_for_testing(key);
    assert_ne!(rig.0.digest().unwrap(), revoked);
}

#[test]
fn differing_voter_raises_the_alarm_and_the_report_names_it() {
    let view = view();
    let agreement = heard(&view, &[(2, AT, RIGHT), (3, AT, WRONG)]);
    let report = alarm(&agreement).unwrap();
    assert_eq!(words(&report), [(AT, 1, RIGHT), (AT, 3, WRONG)]);
    // Who agrees after the alarm is on record as well.
    let agreement = heard(&view, &[(3, AT, WRONG), (2, AT, RIGHT)]);
    assert_eq!(words(&alarm(&agreement).unwrap()), [(AT, 1, RIGHT), (AT, 2, RIGHT), (AT, 3, WRONG)]);
    // Three states, at two indexes.
    let agreement = heard(&view, &[(3, AT, WRONG), (2, AT + DIGEST_EVERY, OTHER)]);
    let all = [(AT, 1, RIGHT), (AT, 3, WRONG), (AT + DIGEST_EVERY, 1, RIGHT), (AT + DIGEST_EVERY, 2, OTHER)];
    assert_eq!(words(&alarm(&agreement).unwrap()), all);
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
        assert!(agreement.is_empty() && alarm(&agreement).is_none(), "{said:?}");
    }
}

#[test]
fn differing_learner_raises_no_alarm_and_is_reported() {
    let view = view();
    let mut agreement = heard(&view, &[(4, AT, WRONG), (2, AT, RIGHT)]);
    assert!(alarm(&agreement).is_none() && agreement.is_empty(), "nothing to keep");
    let learner = |agreement: &Agreement, speaker| agreement.learner(NodeId(1), speaker).map(|report| words(&report));
    assert_eq!(learner(&agreement, speaker(&view, 4)), Some(vec![(AT, 1, RIGHT), (AT, 4, WRONG)]));
    assert_eq!(learner(&agreement, speaker(&view, 2)), None);
    assert_eq!(learner(&agreement, (NodeId(4), StoreId([99; 16]))), None, "it came back with another store");
    // Told once, whatever it says next, until it agrees.
    let own = own();
    let mut say = |index, digest| {
        let news = agreement.compare(judge(&view, 1, &own), speaker(&view, 4), DigestAt { index, digest });
        (news, agreement.learners().count())
    };
    assert_eq!(say(AT, OTHER), (News::None, 1));
    assert_eq!(say(9 * DIGEST_EVERY, RIGHT), (News::None, 1), "it cannot be compared");
    assert_eq!(say(AT, RIGHT), (News::None, 0));
    assert_eq!(say(AT, WRONG), (News::Learner, 1));
    // Promoted, it counts.
    let mut promoted = view.clone();
    promoted.members.update(&NodeId(4), |member| member.suffrage = Suffrage::Voter).unwrap();
    assert_eq!(
        agreement.compare(judge(&promoted, 1, &own), speaker(&view, 4), DigestAt { index: AT, digest: WRONG }),
        News::Voters
    );
    assert!(alarm(&agreement).is_some() && agreement.learners().count() == 0);
}

#[test]
fn alarm_ends_when_the_voter_is_quarantined_replaced_or_gone() {
    let before = view();
    let agreement = heard(&before, &[(3, AT, WRONG)]);
    let own = own();
    let by = judge(&before, 1, &own);
    let quarantined = |node| agreement.alarm(by, &BTreeMap::new(), &BTreeSet::from([NodeId(node)]));
    assert!(quarantined(3).is_none() && quarantined(1).is_none());
    assert!(quarantined(2).is_some(), "of those that differ one must not count");
    for (what, change) in [
        (
            "another store",
            (|view| view.members.update(&NodeId(3), |member| member.store = StoreId([99; 16])).unwrap())
                as fn(&mut View),
        ),
        ("evicted", |view| drop(view.members.remove(&NodeId(3)))),
        ("a learner", |view| view.members.update(&NodeId(3), |member| member.suffrage = Suffrage::Learner).unwrap()),
    ] {
        let (mut view, mut agreement) = (before.clone(), agreement.clone());
        change(&mut view);
        agreement.refresh(judge(&view, 1, &own));
        assert!(alarm(&agreement).is_none() && agreement.is_empty(), "{what}");
    }
}

#[test]
fn older_word_does_not_revive_an_ended_disagreement() {
    let view = view();
    let later = AT + DIGEST_EVERY;
    assert!(heard(&view, &[(3, AT, WRONG), (3, later, RIGHT)]).is_empty());
    assert!(
        heard(&view, &[(3, AT, WRONG), (3, AT, RIGHT)]).is_empty(),
        "it was started again and has what the log says"
    );
    let agreement = heard(&view, &[(3, later, WRONG), (3, AT, RIGHT)]);
    assert_eq!(words(&alarm(&agreement).unwrap()), [(later, 1, RIGHT), (later, 3, WRONG)]);
    // Of each member one word is kept, however many it says.
    let agreement = heard(&view, &[(3, AT, WRONG), (3, later, OTHER), (3, later, WRONG)]);
    assert_eq!(words(&alarm(&agreement).unwrap()), [(later, 1, RIGHT), (later, 3, WRONG)]);
}

#[test]
fn repaired_leader_ends_the_alarm_by_itself() {
    let view = view();
    let mut wrong = Digests::default();
    wrong.enter(AT, WRONG);
    let mut agreement = Agreement::default();
    for node in [2, 3] {
        let said = DigestAt { index: AT, digest: RIGHT };
        agreement.compare(judge(&view, 1, &wrong), speaker(&view, node), said);
    }
    assert_eq!(words(&alarm(&agreement).unwrap()), [(AT, 1, WRONG), (AT, 2, RIGHT), (AT, 3, RIGHT)]);
    // Restarted, it has what the log says.
    agreement.refresh(judge(&view, 1, &own()));
    assert!(agreement.is_empty());
}

#[test]
fn alarm_survives_a_new_leader_and_a_restart() {
    let (view, own) = (view(), own());
    let found = heard(&view, &[(3, AT, WRONG), (2, AT, RIGHT)]);
    let mut next = Agreement::default();
    assert!(next.follow(judge(&view, 2, &own), &found.known()));
    assert!(!next.follow(judge(&view, 2, &own), &found.known()));
    let mut next: Agreement = codec::decode(&codec::encode(&next).unwrap()).unwrap();
    assert_eq!(alarm(&next), alarm(&found));
    // It leads: node 3 agrees with it by now, and what another member still remembers of node 3 is over.
    let later = DigestAt { index: AT + DIGEST_EVERY, digest: RIGHT };
    assert_eq!(next.compare(judge(&view, 2, &own), speaker(&view, 3), later), News::Voters);
    assert!(next.is_empty());
    assert_eq!(next.merge(judge(&view, 2, &own), &found.known()), News::None);
    // What node 3 says after that is not.
    let newest = report(&view, &[(AT + 2 * DIGEST_EVERY, 2, RIGHT), (AT + 2 * DIGEST_EVERY, 3, WRONG)]);
    assert_eq!(next.merge(judge(&view, 2, &own), &newest), News::Voters);
    assert!(alarm(&next).is_some());
    // A leader that does not know it learns it from a follower.
    let mut unknowing = Agreement::default();
    assert_eq!(unknowing.merge(judge(&view, 2, &Digests::default()), &found.known()), News::Voters);
    assert_eq!(alarm(&unknowing), alarm(&found));
    // And a follower forgets what its leader has found to be over.
    assert!(unknowing.follow(judge(&view, 3, &own), &Report::default()) && unknowing.is_empty());
}

#[test]
fn attack_impossible_words_of_voters_are_not_taken_from_others() {
    let (view, own) = (view(), own());
    let by = judge(&view, 2, &own);
    let other_store = |report: &mut Report, node| {
        report.disagreements.values_mut().for_each(|by| by.get_mut(&NodeId(node)).unwrap().store = StoreId([99; 16]));
    };
    let mut elsewhere = report(&view, &[(AT, 1, RIGHT), (AT, 3, WRONG)]);
    other_store(&mut elsewhere, 3);
    for (what, lie) in [
        ("an index that no member has reached", report(&view, &[(u64::MAX, 1, RIGHT), (u64::MAX, 3, WRONG)])),
        ("the next index", report(&view, &[(6 * DIGEST_EVERY, 1, RIGHT), (6 * DIGEST_EVERY, 3, WRONG)])),
        ("an index at which nothing is digested", report(&view, &[(AT + 1, 1, RIGHT), (AT + 1, 3, WRONG)])),
        ("one word alone", report(&view, &[(AT, 3, WRONG)])),
        ("a learner's word", report(&view, &[(AT, 1, RIGHT), (AT, 4, WRONG)])),
        ("this member's own word", report(&view, &[(AT, 1, RIGHT), (AT, 2, WRONG)])),
        ("a word of another store", elsewhere),
    ] {
        let mut agreement = Agreement::default();
        assert_eq!(agreement.merge(by, &lie), News::None, "{what}");
        assert!(!agreement.follow(by, &lie) && agreement.is_empty(), "{what}");
    }
    // A report that a voter may have made raises an alarm. The alarm ends as soon as the members that the report is
    // about have reported themselves.
    let mut agreement = Agreement::default();
    agreement.merge(by, &report(&view, &[(AT, 1, OTHER), (AT, 3, WRONG)]));
    assert!(alarm(&agreement).is_some());
    for node in [1, 3] {
        agreement.compare(by, speaker(&view, node), DigestAt { index: 4 * DIGEST_EVERY, digest: RIGHT });
    }
    assert!(agreement.is_empty());
    // However much is said, little is kept.
    let many: Vec<(u64, u64, StateDigest)> =
        (1..=5).flat_map(|n| [(n * DIGEST_EVERY, 1, OTHER), (n * DIGEST_EVERY, 3, WRONG)]).collect();
    let far: Vec<_> = (1..=100).flat_map(|n| [(n * DIGEST_EVERY, 1, OTHER), (n * DIGEST_EVERY, 3, WRONG)]).collect();
    assert_eq!(report(&view, &far).bounded().disagreements.len(), VOTERS_MAX);
    let mut agreement = Agreement::default();
    agreement.merge(Judge { applied: u64::MAX, ..by }, &report(&view, &[many, far].concat()));
    assert_eq!(agreement.known().disagreements.len(), VOTERS_MAX);
}

#[test]
fn voter_with_committed_entries_beyond_the_leaders_raises_the_alarm() {
    let (view, own) = (view(), own());
    let by = judge(&view, 1, &own);
    let conflict = |node: u64, store| BTreeMap::from([(NodeId(node), store)]);
    let stored = |node| speaker(&view, node).1;
    let found = |conflicts: &BTreeMap<NodeId, StoreId>, quarantined: &[u64]| {
        let quarantined = quarantined.iter().copied().map(NodeId).collect();
        Agreement::default().alarm(by, conflicts, &quarantined).map(|report| report.conflicts)
    };
    assert_eq!(found(&conflict(3, stored(3)), &[]), Some(BTreeSet::from([NodeId(3)])));
    for (what, conflicts, quarantined) in [
        ("in quarantine", conflict(3, stored(3)), &[3][..]),
        ("a learner", conflict(4, stored(4)), &[]),
        ("a store that it had before", conflict(3, StoreId([99; 16])), &[]),
        ("no member", BTreeMap::new(), &[]),
    ] {
        assert_eq!(found(&conflicts, quarantined), None, "{what}");
    }
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

/// Compares page by page; each page but the last is as short as it may be.
fn compared<'a>(ours: &'a View, theirs: &View) -> RevocationsCompared<'a> {
    let mut compared = RevocationsCompared::new(ours);
    loop {
        let rest: Vec<Revocation> = theirs.revocations(compared.after()).collect();
        let last = rest.len() <= REVOCATIONS_PAGE_MIN;
        compared.page(rest.into_iter().take(REVOCATIONS_PAGE_MIN).collect(), last).unwrap();
        if last {
            return compared;
        }
    }
}

#[test]
fn report_says_who_holds_revocations_that_others_lack() {
    let (ours, second, third) = (revoking(&[1, 2, 3]), revoking(&[1, 3, 4]), revoking(&[3]));
    let with = [(NodeId(2), compared(&ours, &second)), (NodeId(3), compared(&ours, &third))];
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
    assert_eq!(compared(&ours, &full).unlisted, 0);
    let with = compared(&ours, &over);
    let mut report = Report::default();
    report.enter(NodeId(1), &ours, [(NodeId(2), &with)].into_iter());
    assert_eq!((report.uneven.len(), report.unlisted), (REVOCATIONS_LISTED_MAX, 1));
}

fn keys(from: u32, count: usize) -> Vec<KeyId> {
    let key = |n: u32| KeyId(core::array::from_fn(|i| n.to_be_bytes().get(i).copied().unwrap_or(0)));
    (from..).map(key).take(count).collect()
}

#[test]
fn pages_out_of_order_too_short_or_without_end_are_refused() {
    let ours = revoking(&[5]);
    let refused = |pages: Vec<Vec<Revocation>>| {
        let mut compared = RevocationsCompared::new(&ours);
        pages.into_iter().try_for_each(|page| compared.page(page, false))
    };
    let page = |from, count| keys(from, count).into_iter().map(Revocation::Key).collect::<Vec<_>>();
    let full = REVOCATIONS_PAGE_MIN;
    assert_eq!(refused(vec![page(0, full), page(full as u32, full)]), Ok(()));
    assert_eq!(refused(vec![page(0, full - 1)]), Err(Incomparable::Short { got: full - 1 }));
    assert_eq!(refused(vec![vec![]]), Err(Incomparable::Short { got: 0 }));
    let mut swapped = page(0, full);
    swapped.swap(1, 2);
    let mut twice = page(0, full);
    twice[1] = twice[0].clone();
    let mut back = page(0, full);
    *back.last_mut().unwrap() = Revocation::Member(NodeId(9));
    for pages in [vec![swapped], vec![twice], vec![back], vec![page(0, full), page(full as u32 - 1, full)]] {
        assert_eq!(refused(pages), Err(Incomparable::Order));
    }
    let members = |count: u64| (0..count).map(|n| Revocation::Member(NodeId(n))).collect::<Vec<_>>();
    assert_eq!(refused(vec![members(REVOCATIONS_COMPARED_MAX as u64)]), Ok(()));
    assert_eq!(refused(vec![members(REVOCATIONS_COMPARED_MAX as u64), page(0, full)]), Err(Incomparable::TooMany));
}

#[test]
fn revocations_begin_behind_any_of_them() {
    let mut view = revoking(&[1, 2, 3]);
    let identity = super::rig::key(9).public();
    let evicted = Evicted { name: name("gone"), mapped: None, identity, at: NOW, generation: Generation(2) };
    view.evicted = [7, 8].map(|node| (NodeId(node), evicted.clone())).into_iter().collect();
    let all: Vec<Revocation> = view.revocations(None).collect();
    assert_eq!(all.len(), 6);
    for (at, revocation) in all.iter().enumerate() {
        assert!(view.holds(revocation));
        assert_eq!(view.revocations(Some(revocation)).collect::<Vec<_>>(), all[at + 1..]);
    }
    let before = view.revocations(Some(&key(0))).next();
    assert_eq!(before, Some(key(1)), "behind one that is not held");
}

proptest! {
    /// Whatever is revoked, the comparison over several pages finds exactly the differences.
    #[test]
    fn comparison_page_by_page_is_the_difference_of_the_sets(
        ours in prop::collection::btree_set(0_u32..3_000, 0..20),
        theirs in prop::collection::btree_set(0_u32..3_000, 0..20),
    ) {
        // Both hold all but a few, so that there are several pages.
        let held = |without: &BTreeSet<u32>| {
            let mut view = revoking(&[]);
            view.revoked_keys = (0..3_000).filter(|n| !without.contains(n)).flat_map(|n| keys(n, 1)).collect();
            view
        };
        let (a, b) = (held(&theirs), held(&ours));
        let compared = compared(&a, &b);
        let of = |set: &BTreeSet<u32>, other: &BTreeSet<u32>| {
            set.difference(other).flat_map(|n| keys(*n, 1)).map(Revocation::Key).collect::<BTreeSet<_>>()
        };
        prop_assert_eq!(&compared.ours_alone, &of(&ours, &theirs));
        prop_assert_eq!(&compared.theirs_alone, &of(&theirs, &ours));
    }

    /// Whatever voters say in whatever order, the alarm stands exactly if the last word of one of them is not the
    /// leader's.
    #[test]
    fn alarm_stands_while_the_newest_word_of_a_voter_differs(
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
        prop_assert_eq!(alarm(&agreement).is_some(), stands(2) || stands(3));
    }
}
