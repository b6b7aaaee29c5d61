//! Cluster recognition, answer by answer and round after round; and the pages in which attestations are shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use crate::id::{AuthorityId, ClusterId, Generation, NodeId, StoreId};
use crate::limits::ATTESTATIONS_PER_ANSWER_MAX;
use crate::member::recognition::{Answer, Asker, Excerpt, History, Page, Question, Recognizer, UncountedAnswer};
use crate::name::Address;
use crate::time::BootMillis;
use crate::trust::attestation::{Attestation, AttestedVoter, Signature, SignedAttestation};
use crate::trust::recognition::AttestationClaim;
use crate::trust::tests::rig::{Rig, key};
use crate::trust::view::View;

/// The member that was away. It votes where a test says so.
const NODE: NodeId = NodeId(9);
const VOTER: NodeId = NodeId(1);
const PAGE: u64 = ATTESTATIONS_PER_ANSWER_MAX as u64;

fn at(millis: u64) -> BootMillis {
    BootMillis(millis)
}

fn voter(id: u64) -> AttestedVoter {
    let id = u8::try_from(id).unwrap();
    AttestedVoter { identity: key(id).public(), store: StoreId([id; 16]) }
}

/// The founding by these voters, and as many attestations after it, each evicting one member more, from 101.
fn history(voters: &[u64], after: u64) -> (Arc<Attestation>, Vec<SignedAttestation>) {
    let founding = Attestation::founding(ClusterId([1; 16]), VOTER, voter(1), AuthorityId([2; 32]));
    let voters: BTreeMap<_, _> = voters.iter().map(|id| (NodeId(*id), voter(*id))).collect();
    let founding = Arc::new(Attestation { voters: voters.clone(), ..founding });
    let mut newest = Arc::clone(&founding);
    let mut chain = Vec::new();
    for number in 1..=after {
        let attestation = Arc::new(Attestation {
            number,
            generation: Generation(number + 1),
            previous: newest.digest(),
            evicted: BTreeSet::from([NodeId(100 + number)]),
            ..Attestation::clone(&newest)
        });
        let sign = |id: &NodeId| Signature(key(u8::try_from(id.0).unwrap()).sign(&attestation.transcript()));
        let signatures = voters.keys().map(|id| (*id, sign(id))).collect();
        newest = Arc::clone(&attestation);
        chain.push(SignedAttestation { attestation, signatures });
    }
    (founding, chain)
}

/// A view with the addresses of voters 1 to 3.
fn view() -> View {
    View::clone(Rig::three_voters().0.view().unwrap())
}

/// What a voter that knows the first `len` attestations of `chain` answers.
fn answer(
    of: (&Arc<Attestation>, &[SignedAttestation]),
    len: u64,
    by: NodeId,
    known: u64,
    nonce: &[u8; 32],
    view: &View,
) -> Answer {
    let (founding, chain) = of;
    let chain = &chain[..usize::try_from(len).unwrap()];
    let rest = chain.get(usize::try_from(known).unwrap()..).unwrap_or_default();
    let newest = chain.last().map_or(founding, |signed| &signed.attestation);
    Excerpt::of(rest, newest).answer(by, &key(u8::try_from(by.0).unwrap()), nonce, view)
}

fn begin(recognizer: &mut Recognizer, nonce: u8, view: &View, now: u64) -> Vec<Question> {
    assert!(recognizer.poll_round(at(now)));
    let asker = Asker { identity: &key(9), view };
    recognizer.begin_round([nonce; 32], asker, |_| false, at(now))
}

fn voters(questions: &[Question]) -> Vec<u64> {
    questions.iter().map(|question| question.voter.0).collect()
}

/// Asks the one voter until its answer counts. Returns the rounds that took, the newest generation, and the evicted
/// members.
fn asked(founding: &Arc<Attestation>, chain: &[SignedAttestation]) -> (usize, u64, BTreeSet<NodeId>) {
    let view = view();
    let mut recognizer = Recognizer::new(NODE, Arc::clone(founding));
    for round in 1_u8.. {
        // None waits: each page leads on.
        let questions = begin(&mut recognizer, round, &view, 0);
        let [Question { voter, nonce, known, .. }] = questions.as_slice() else { panic!("{questions:?}") };
        let answer = answer((founding, chain), chain.len() as u64, *voter, *known, nonce, &view);
        assert!(answer.page.attestations().len() <= ATTESTATIONS_PER_ANSWER_MAX);
        recognizer.handle_answer(nonce, *voter, answer, at(0)).unwrap();
        if let Some(cluster) = recognizer.recognized() {
            assert!(!recognizer.poll_round(at(9_999)) && recognizer.poll_timeout().is_none());
            return (round.into(), cluster.newest.number, cluster.refused);
        }
    }
    unreachable!()
}

#[test]
fn attestations_come_in_pages_and_all_of_them_are_followed_before_an_answer_counts() {
    for (after, answers) in [(0, 1), (1, 1), (PAGE, 1), (PAGE + 1, 2), (2 * PAGE, 2), (3 * PAGE + 1, 4)] {
        let (founding, chain) = history(&[1], after);
        let evicted = (1..=after).map(|number| NodeId(100 + number)).collect();
        assert_eq!(asked(&founding, &chain), (answers, after, evicted));
    }
}

#[test]
fn history_goes_on_page_after_page_and_by_none_that_does_not_lead_on() {
    let (founding, chain) = history(&[1], 3 * PAGE + 1);
    let (all, view) = (chain.len() as u64, view());
    let mut history = History::from(Arc::clone(&founding));
    let ask = |known: u64| answer((&founding, &chain), all, VOTER, known, &[1; 32], &view).page;
    let first = ask(0);
    let mut seen = Vec::new();
    loop {
        let page = ask(history.newest.number);
        history.follow(&page).unwrap();
        seen.push(history.newest.number);
        if !page.has_more() {
            break;
        }
        assert!(seen.len() < 5, "it does not go on");
    }
    assert_eq!(seen, [PAGE, 2 * PAGE, 3 * PAGE, 3 * PAGE + 1]);
    assert_eq!(history.evicted.len() as u64, all);
    history.follow(&first).unwrap_err();
    assert_eq!(history.newest.number, all, "no page leads back");
}

#[test]
fn a_page_passes_for_no_answer_and_only_what_is_signed_is_followed() {
    let (founding, chain) = history(&[1], PAGE + 1);
    let (nonce, view) = ([7; 32], view());
    let good = answer((&founding, &chain), PAGE + 1, VOTER, 0, &nonce, &view);
    assert_eq!(good.signature, None, "nothing is said of what is not the newest");
    let attestations = |page: &Page| page.attestations().to_vec();
    let refused = |answer: Answer, claim: &str| {
        let mut recognizer = Recognizer::new(NODE, Arc::clone(&founding));
        begin(&mut recognizer, 7, &view, 0);
        let why = recognizer.handle_answer(&nonce, VOTER, answer, at(5)).expect_err(claim);
        assert!(recognizer.recognized().is_none(), "{claim}");
        assert_eq!(recognizer.poll_timeout(), Some(at(305)), "the only voter has spoken: {claim}");
        why
    };

    let last = &chain[ATTESTATIONS_PER_ANSWER_MAX - 1].attestation;
    let claim = AttestationClaim::of(VOTER, last);
    let whole = Page::of(attestations(&good.page), last.number);
    let unsigned = Answer { claim, page: whole.clone(), ..good.clone() };
    assert_eq!(refused(unsigned, "said to be the last"), UncountedAnswer::Unsigned);
    let other = Some(claim.sign(&key(1), &[8; 32]));
    refused(Answer { claim, page: whole, signature: other, ..good.clone() }, "of another nonce");
    refused(Answer { page: Page::of(vec![], PAGE + 1), signature: other, ..good.clone() }, "it leads nowhere");
    let of_two = Answer { claim: AttestationClaim { node: NodeId(2), ..good.claim }, ..good.clone() };
    assert_eq!(refused(of_two, "of another voter"), UncountedAnswer::Another);
    let gap = attestations(&good.page)[1..].to_vec();
    refused(Answer { page: Page::of(gap, PAGE + 1), ..good.clone() }, "one is left out");
    let mut forged = attestations(&good.page);
    let signature = Signature(key(9).sign(&forged[1].attestation.transcript()));
    forged[1].signatures.insert(VOTER, signature);
    refused(Answer { page: Page::of(forged, PAGE + 1), ..good }, "one is not signed by the voter");
}

#[test]
fn a_round_asks_every_voter_that_is_not_denied_and_has_an_address() {
    let (founding, _) = history(&[1, 2, 3, 4, 9], 0);
    let (view, identity) = (view(), key(9));
    let mut recognizer = Recognizer::new(NODE, founding);
    let asker = Asker { identity: &identity, view: &view };
    let questions = recognizer.begin_round([1; 32], asker, |node| node == NodeId(2), at(0));
    assert_eq!(voters(&questions), [1, 3], "2 is denied, no address of 4 is known, and 9 knows what it knows");
    assert_eq!(questions[0].address.to_string(), "10.0.0.1:7001");
    assert!(!recognizer.poll_round(at(3_999)));
    assert!(recognizer.poll_round(at(4_300)), "a round ends, and the next begins after a pause");
}

#[test]
fn where_voters_say_that_voters_are_is_asked_in_turn_with_what_is_on_record() {
    let (founding, chain) = history(&[1, 2, 4], 0);
    let (view, new) = (view(), Address::parse("10.9.9.9:7001").unwrap());
    let mut recognizer = Recognizer::new(NODE, Arc::clone(&founding));
    assert_eq!(voters(&begin(&mut recognizer, 1, &view, 0)), [1, 2]);
    let good = answer((&founding, &chain), 0, VOTER, 0, &[1; 32], &view);
    let hinting = Answer { voters: vec![(NodeId(2), new.clone()), (NodeId(4), new.clone())], ..good };
    recognizer.handle_answer(&[1; 32], VOTER, hinting, at(0)).unwrap();
    recognizer.handle_failure(&[1; 32], NodeId(2), at(10));
    assert_eq!(recognizer.poll_timeout(), Some(at(310)), "one of three is no majority");
    let mut addresses = Vec::new();
    for (round, now) in [(2, 310), (3, 5_000), (4, 10_000)] {
        let questions = begin(&mut recognizer, round, &view, now);
        assert_eq!(voters(&questions), [1, 2, 4]);
        assert_eq!(questions[2].address, new);
        addresses.push(questions[1].address == new);
    }
    assert_eq!(addresses, [true, false, true]);
}

#[test]
fn what_an_earlier_round_asked_counts_for_no_later_one() {
    let (founding, chain) = history(&[1, 2, 3], 0);
    let view = view();
    let mut recognizer = Recognizer::new(NODE, Arc::clone(&founding));
    begin(&mut recognizer, 1, &view, 0);
    let of = |by, nonce: u8| answer((&founding, &chain), 0, NodeId(by), 0, &[nonce; 32], &view);
    recognizer.handle_answer(&[1; 32], NodeId(1), of(1, 1), at(1)).unwrap();
    recognizer.handle_answer(&[1; 32], NodeId(1), of(1, 1), at(2)).unwrap();
    assert!(recognizer.recognized().is_none(), "one voter is counted once");
    assert!(!recognizer.poll_round(at(4_000)));
    begin(&mut recognizer, 2, &view, 4_300);
    recognizer.handle_answer(&[1; 32], NodeId(2), of(2, 1), at(4_301)).unwrap();
    recognizer.handle_answer(&[2; 32], NodeId(2), of(2, 2), at(4_302)).unwrap();
    assert!(recognizer.recognized().is_none(), "one of this round");
    recognizer.handle_answer(&[2; 32], NodeId(3), of(3, 2), at(4_303)).unwrap();
    assert!(recognizer.recognized().is_some());
}

#[test]
fn an_evicted_member_learns_so_and_a_lone_voter_recognizes_itself() {
    let (founding, chain) = history(&[1], 2);
    let view = view();
    let mut recognizer = Recognizer::new(NodeId(102), Arc::clone(&founding));
    begin(&mut recognizer, 1, &view, 0);
    let claim = answer((&founding, &chain), 2, VOTER, 0, &[1; 32], &view);
    recognizer.handle_answer(&[1; 32], VOTER, claim, at(0)).unwrap();
    let cluster = recognizer.recognized().unwrap();
    assert_eq!((cluster.is_evicted, cluster.refused), (true, BTreeSet::from([NodeId(101)])));

    let (alone, _) = history(&[9], 0);
    let mut recognizer = Recognizer::new(NODE, alone);
    assert_eq!(begin(&mut recognizer, 1, &view, 0), []);
    assert!(!recognizer.recognized().unwrap().is_evicted);
}

proptest! {
    /// However late, often and mixed answers come: the cluster is recognized only if a majority answered one nonce, at
    /// an attestation no older than any that such an answer showed.
    #[test]
    fn recognition_takes_a_majority_of_one_round(
        knows in proptest::collection::vec(0_u64..3, 3),
        events in proptest::collection::vec((0_u64..3, 0_u8..4, 0_u8..4, 0_u64..3_000), 0..40),
    ) {
        let (founding, chain) = history(&[1, 2, 3], 2);
        let (view, identity) = (view(), key(9));
        let mut recognizer = Recognizer::new(NODE, Arc::clone(&founding));
        let (mut now, mut round, mut began) = (at(0), 0_u8, at(0));
        // What each voter was asked from, while it is waited for; and what those knew that answered in this round.
        let mut waiting: BTreeMap<(u8, u64), u64> = BTreeMap::new();
        let mut counted: Vec<u64> = Vec::new();
        for (voter, back, kind, passed) in events {
            now = now.plus(passed);
            if recognizer.poll_round(now) {
                (round, began) = (round + 1, now);
                counted.clear();
                let asker = Asker { identity: &identity, view: &view };
                for question in recognizer.begin_round([round; 32], asker, |_| false, now) {
                    waiting.insert((round, question.voter.0), question.known);
                }
            }
            let of = round.saturating_sub(back);
            let (id, nonce) = (NodeId(voter + 1), [of; 32]);
            let knows = knows[usize::try_from(voter).unwrap()];
            let asked = waiting.remove(&(of, id.0));
            if kind == 0 {
                recognizer.handle_failure(&nonce, id, now);
            } else {
                let claim = answer((&founding, &chain), knows, id, asked.unwrap_or(0), &nonce, &view);
                recognizer.handle_answer(&nonce, id, claim, now).unwrap();
                if asked.is_some() && of == round && now.since(began) < 4_000 {
                    counted.push(knows);
                }
            }
            prop_assert_eq!(recognizer.recognized().is_some(), counted.len() >= 2);
            if let Some(cluster) = recognizer.recognized() {
                prop_assert!(counted.iter().all(|knows| *knows <= cluster.newest.number));
                return Ok(());
            }
            prop_assert!(recognizer.poll_timeout().is_some());
        }
    }
}
