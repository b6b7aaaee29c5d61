//! Both sides of an enrollment: what makes them stop.

use super::joiner::{Candidate, JoinError, SponsorChannel, Unpinned};
use super::sponsor::{SponsorError, SponsorSide, SponsoredRequest};
use crate::enroll::EnrollmentRequest;
use crate::id::{AuthorityId, ClusterId, NodeId, RequestId};
use crate::key::Endorsement;
use crate::name::HostName;
use crate::trust::command::{AddJoinToken, Command};
use crate::trust::member::ForeignLeaf;
use crate::trust::outcome::Outcome;
use crate::trust::tests::rig::{self, CLUSTER, Rig};

fn candidate(seed: u8) -> Candidate {
    let request = rig::request(seed, 5);
    Candidate {
        level: crate::trust::command::FEATURE_LEVEL,
        request: RequestId([seed; 16]),
        name: request.name,
        addresses: request.addresses,
        leaf_key: request.leaf_key,
        foreign: None,
        keys: request.keys,
        store: request.store,
    }
}

const CHANNEL: [[u8; 32]; 2] = [[3; 32], [4; 32]];

fn channel(authority: AuthorityId) -> SponsorChannel {
    let [leaf, exporter] = CHANNEL;
    SponsorChannel { authority, leaf, exporter }
}

fn side(seed: u8) -> SponsorSide {
    let [leaf, exporter] = CHANNEL;
    SponsorSide { leaf, exporter, csr_key: rig::leaf_key(seed), foreign: None }
}

#[test]
fn a_joiner_signs_nothing_for_a_server_under_another_authority() {
    let other = AuthorityId([9; 32]);
    let refused = Unpinned::new(&rig::token(5), candidate(2)).pin(channel(other)).map(|_| ());
    assert_eq!(refused, Err(JoinError::Pin { expected: rig::pin(), got: other }));
}

#[test]
fn an_enrollment_goes_from_unpinned_to_enrolled() {
    let mut cluster = Rig::founded();
    cluster.apply(Command::AddJoinToken(AddJoinToken(rig::record(5, 1))));
    let token = rig::token(5);
    let asked = Unpinned::new(&token, candidate(2)).pin(channel(rig::pin())).unwrap().request(CLUSTER, &rig::key(2));
    let view = cluster.0.view().unwrap().clone();
    let sponsored = SponsoredRequest::check(asked.message().clone(), &side(2), &view).unwrap();
    let outcome = cluster.apply(Command::Admit(Box::new(sponsored.into_request().into())));
    let Outcome::Admitted(admitted) = outcome else { panic!("{outcome:?}") };
    let enrolled = asked.accept(admitted.node, cluster.0.view().unwrap()).unwrap();
    assert_eq!(enrolled.node, NodeId(2));
}

#[test]
fn a_joiner_accepts_no_answer_that_is_not_about_its_own_keys() {
    let cluster = Rig::three_voters();
    let view = cluster.0.view().unwrap();
    let token = rig::token(5);
    let asked = || {
        let pinned = Unpinned::new(&token, candidate(4)).pin(channel(rig::pin())).unwrap();
        pinned.request(CLUSTER, &rig::key(4))
    };
    assert_eq!(asked().accept(NodeId(2), view), Err(JoinError::NotAdmitted), "another member");
    assert_eq!(asked().accept(NodeId(9), view), Err(JoinError::NotAdmitted), "an unknown node");
    let mut foreign = (**view).clone();
    foreign.cluster = ClusterId([9; 16]);
    let expected = JoinError::Cluster { expected: CLUSTER, got: foreign.cluster };
    assert_eq!(asked().accept(NodeId(2), &foreign), Err(expected));
    let mut bare = (**view).clone();
    bare.authorities.clear();
    assert_eq!(asked().accept(NodeId(2), &bare), Err(JoinError::AuthorityMissing(rig::pin())));
    let mut forged = (**view).clone();
    forged.authorities.get_mut(&rig::pin()).unwrap().certificate = b"the attacker's".to_vec();
    assert_eq!(asked().accept(NodeId(2), &forged), Err(JoinError::AuthorityMissing(rig::pin())));
}

#[test]
fn a_sponsor_passes_on_only_what_was_made_for_its_own_connection() {
    let cluster = Rig::founded();
    let view = cluster.0.view().unwrap();
    let check = |request, side: SponsorSide| SponsoredRequest::check(request, &side, view).map(|_| ());
    assert_eq!(check(rig::request(2, 5), side(2)), Ok(()));
    let replayed = SponsorSide { exporter: [9; 32], ..side(2) };
    assert_eq!(check(rig::request(2, 5), replayed), Err(SponsorError::Relayed));
    let relayed = SponsorSide { leaf: [9; 32], ..side(2) };
    assert_eq!(check(rig::request(2, 5), relayed), Err(SponsorError::Relayed));
    assert_eq!(check(rig::request(2, 5), side(3)), Err(SponsorError::CsrKey));
    let mut elsewhere = rig::request(2, 5);
    elsewhere.cluster = ClusterId([9; 16]);
    assert_eq!(check(elsewhere, side(2)), Err(SponsorError::Cluster));
    let mut unproven = rig::request(2, 5);
    unproven.endorsement = Endorsement::sign(&rig::key(9), CLUSTER, unproven.leaf_key, 0);
    assert!(matches!(check(unproven, side(2)), Err(SponsorError::Identity(_))));
}

#[test]
fn a_sponsor_believes_no_claim_about_a_certificate_that_it_does_not_find_itself() {
    let cluster = Rig::founded();
    let view = cluster.0.view().unwrap();
    let validity = view.members.get(&NodeId(1)).unwrap().leaf.validity;
    let leaf = |mapped: &str| Some(ForeignLeaf { mapped: HostName::parse(mapped).unwrap(), validity });
    let check = |claimed, found| {
        let request = EnrollmentRequest { foreign: claimed, ..rig::request(2, 5) };
        SponsoredRequest::check(request, &SponsorSide { foreign: found, ..side(2) }, view).map(|_| ())
    };
    assert_eq!(check(leaf("n2"), leaf("n2")), Ok(()));
    for (claimed, found) in [(leaf("n1"), leaf("n2")), (leaf("n2"), None), (None, leaf("n2"))] {
        assert_eq!(check(claimed, found), Err(SponsorError::Certificate));
    }
}
