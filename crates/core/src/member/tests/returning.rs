//! What a refusal means, which voters the member asks, how often, and what the answer leads to.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use crate::id::{AuthorityId, NodeId};
use crate::member::recognition::History;
use crate::member::returning::{Action, Finding, Meaning, RefusalFollower, Standing, finding};
use crate::peer::Refusal;
use crate::time::BootMillis;
use crate::trust::tests::rig::{Rig, pin};
use crate::trust::view::View;

const NODE: NodeId = NodeId(1);

fn at(millis: u64) -> BootMillis {
    BootMillis(millis)
}

fn view() -> Arc<View> {
    Arc::clone(Rig::three_voters().0.view().unwrap())
}

/// The voter that an action names: dialed, or asked.
fn named(action: Option<Action>) -> Option<(&'static str, u64)> {
    action.map(|action| match action {
        Action::Dial(node, _) => ("dial", node.0),
        Action::Ask { node, .. } => ("ask", node.0),
        Action::Leave => ("leave", 0),
    })
}

#[test]
fn only_what_this_member_could_answer_is_acted_on() {
    for refusal in Refusal::ALL {
        let expected = match refusal {
            Refusal::Evicted => Some(Meaning::Evicted),
            Refusal::KeyRevoked | Refusal::Superseded | Refusal::Authority | Refusal::KeyUnknown => {
                Some(Meaning::Certificate)
            }
            _ => None,
        };
        assert_eq!(Meaning::of_refusal(refusal), expected, "{refusal}");
    }
    assert_eq!((Meaning::of_alert(48), Meaning::of_alert(80)), (Some(Meaning::Unsaid), None));
}

#[test]
fn a_proven_answer_leads_to_another_certificate_only_where_one_would_help() {
    let known = Arc::clone(&view().attestation);
    let history = History { newest: known, evicted: BTreeSet::new() };
    let (gone, own) = (AuthorityId([8; 32]), Standing { leased: false, authority: Some(pin()), foreign: false });
    let old = Standing { authority: Some(gone), ..own };
    for (meaning, own, expected) in [
        (Meaning::Evicted, old, Finding::Member),
        (Meaning::Certificate, own, Finding::Outdated),
        (Meaning::Certificate, Standing { leased: true, ..own }, Finding::Member),
        (Meaning::Unsaid, own, Finding::Member),
        (Meaning::Unsaid, old, Finding::Outdated),
        (Meaning::Unsaid, Standing { authority: None, ..own }, Finding::Outdated),
        (Meaning::Unsaid, Standing { foreign: true, ..old }, Finding::Member),
        (Meaning::Certificate, Standing { foreign: true, ..own }, Finding::Member),
    ] {
        assert_eq!(finding(NODE, meaning, &history, own), expected, "{meaning:?}, {own:?}");
    }
    let history = History { evicted: BTreeSet::from([NODE]), ..history };
    for meaning in [Meaning::Evicted, Meaning::Certificate, Meaning::Unsaid] {
        assert_eq!(finding(NODE, meaning, &history, own), Finding::Evicted);
    }
}

#[test]
fn a_member_without_a_lease_dials_one_voter_after_the_other() {
    let view = view();
    let mut follower = RefusalFollower::new(NODE, at(0));
    let mut dialed = Vec::new();
    for second in 1..=4 {
        assert_eq!(follower.poll_action(&view, false, at(second * 1000 - 1)), None);
        assert_eq!(follower.poll_timeout(), Some(at(second * 1000)));
        dialed.extend(named(follower.poll_action(&view, false, at(second * 1000))));
        follower.handle_dialed(at(second * 1000));
    }
    assert!(dialed.windows(2).all(|pair| pair[0] != pair[1]), "{dialed:?}");
    assert_eq!(dialed.iter().collect::<BTreeSet<_>>().len(), 2, "the other two");
    assert_eq!(follower.poll_action(&view, true, at(9000)), None, "a lease says enough");
    follower.handle_applied(at(9500));
    assert_eq!(follower.poll_action(&view, false, at(10_499)), None, "it hears of its cluster");
}

#[test]
fn the_peer_that_refused_is_asked_first_and_the_others_after_it() {
    let view = view();
    for refused_by in [2, 3] {
        let mut follower = RefusalFollower::new(NODE, at(0));
        follower.handle_failure(NodeId(refused_by), Some(Meaning::Certificate), at(0));
        let mut asked = Vec::new();
        while let Some(action) = follower.poll_action(&view, true, at(0)) {
            let Action::Ask { node, ref address, meaning } = action else { panic!("{action:?}") };
            assert_eq!((meaning, address), (Meaning::Certificate, &view.members[&node].addresses[0]));
            asked.push(node.0);
        }
        assert_eq!(asked, [refused_by, 5 - refused_by]);
        assert_eq!(follower.poll_timeout(), Some(at(1000)), "no voter answered: a pause");
    }
}

#[test]
fn a_refusal_in_a_pause_is_followed_after_it_and_the_newest_failure_counts() {
    let view = view();
    let mut follower = RefusalFollower::new(NODE, at(0));
    follower.handle_failure(NodeId(2), Some(Meaning::Evicted), at(0));
    assert_eq!(named(follower.poll_action(&view, true, at(0))), Some(("ask", 2)));
    follower.handle_finding(Finding::Member, at(0));
    follower.handle_failure(NodeId(3), Some(Meaning::Unsaid), at(10));
    assert_eq!(follower.poll_action(&view, true, at(999)), None);
    assert_eq!(named(follower.poll_action(&view, true, at(1000))), Some(("ask", 3)));
    follower.handle_finding(Finding::Member, at(1000));
    follower.handle_failure(NodeId(3), Some(Meaning::Unsaid), at(1010));
    follower.handle_failure(NodeId(3), None, at(1020));
    assert_eq!(follower.poll_action(&view, true, at(3000)), None, "the network is to blame");
}

#[test]
fn pauses_double_up_to_a_minute_until_a_lease_is_there() {
    let view = view();
    let mut follower = RefusalFollower::new(NODE, at(0));
    let mut now = 0;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        follower.handle_failure(NodeId(2), Some(Meaning::Unsaid), at(now));
        assert_eq!(named(follower.poll_action(&view, false, at(now))), Some(("ask", 2)));
        follower.handle_finding(Finding::Outdated, at(now));
        let until = follower.poll_timeout().unwrap().0;
        pauses.push((until - now) / 1000);
        now = until;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(follower.poll_action(&view, true, at(now)), None);
    assert_eq!(follower.poll_action(&view, true, at(now + 1000)), None);
    follower.handle_failure(NodeId(2), Some(Meaning::Unsaid), at(now + 1000));
    assert_eq!(named(follower.poll_action(&view, true, at(now + 1000))), Some(("ask", 2)));
    follower.handle_finding(Finding::Member, at(now + 1000));
    assert_eq!(follower.poll_timeout(), Some(at(now + 2000)));
}

/// A member that was cut off for long comes back as soon as it is no more.
#[test]
fn pause_after_voters_that_did_not_answer_stays_short() {
    let view = view();
    let mut follower = RefusalFollower::new(NODE, at(0));
    for now in (0..8_u64).map(|round| round * 1000) {
        follower.handle_failure(NodeId(2), Some(Meaning::Certificate), at(now));
        assert_eq!(named(follower.poll_action(&view, false, at(now))), Some(("ask", 2)));
        assert_eq!(named(follower.poll_action(&view, false, at(now))), Some(("ask", 3)));
        assert_eq!(follower.poll_action(&view, false, at(now)), None);
        assert_eq!(follower.poll_timeout(), Some(at(now + 1000)));
    }
}

#[test]
fn an_evicted_member_leaves_and_asks_for_nothing_more() {
    let view = view();
    let mut proven = RefusalFollower::new(NODE, at(0));
    proven.handle_failure(NodeId(2), Some(Meaning::Evicted), at(0));
    assert_eq!(named(proven.poll_action(&view, true, at(0))), Some(("ask", 2)));
    proven.handle_finding(Finding::Evicted, at(0));
    let mut logged = RefusalFollower::new(NODE, at(0));
    logged.handle_evicted();
    for follower in [&mut proven, &mut logged] {
        follower.handle_failure(NodeId(2), Some(Meaning::Unsaid), at(1));
        follower.handle_applied(at(1));
        assert_eq!(follower.poll_action(&view, false, at(5000)), Some(Action::Leave));
        assert_eq!(follower.poll_timeout(), None);
    }
}

proptest! {
    /// Whatever fails and whenever: a word of one peer alone never makes a member leave, no voter is asked in a pause,
    /// and the follower always says when to come again.
    #[test]
    fn only_proof_makes_a_member_leave(
        events in proptest::collection::vec((0_u8..6, 2_u64..4, 0_u64..2_000, any::<bool>()), 0..80),
    ) {
        let view = view();
        let mut follower = RefusalFollower::new(NODE, at(0));
        let (mut now, mut paused_until) = (at(0), at(0));
        for (kind, peer, passed, leased) in events {
            now = now.plus(passed);
            let meanings = [Some(Meaning::Evicted), Some(Meaning::Certificate), Some(Meaning::Unsaid), None];
            match meanings.get(usize::from(kind)) {
                Some(meaning) => follower.handle_failure(NodeId(peer), *meaning, now),
                None => follower.handle_applied(now),
            }
            match follower.poll_action(&view, leased, now) {
                Some(Action::Ask { .. }) => {
                    prop_assert!(paused_until <= now);
                    if leased {
                        follower.handle_finding(Finding::Member, now);
                        paused_until = follower.poll_timeout().unwrap();
                    }
                }
                Some(Action::Dial(..)) => {
                    prop_assert!(!leased && paused_until <= now);
                    follower.handle_dialed(now);
                }
                Some(Action::Leave) => prop_assert!(false, "no proof was given"),
                None => prop_assert!(follower.poll_timeout().is_some_and(|until| until > now)),
            }
        }
    }
}
