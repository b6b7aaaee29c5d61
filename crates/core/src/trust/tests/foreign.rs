//! Clusters whose CA key is held elsewhere: nothing is sealed, nothing is issued, and a mapped name is one member's.

use super::rig::*;
use crate::enroll::EnrollmentRequest;
use crate::id::{KeyId, NodeId, RequestId};
use crate::key::Endorsement;
use crate::name::HostName;
use crate::peer::{CertificateClaims, CertificateProof, Proof, Refusal, Wanted, verify};
use crate::principal::{Principal, Role};
use crate::time::Validity;
use crate::trust::command::{
    AddJoinToken, Bootstrap, Command, ConfirmAuthority, Evict, IssuePrincipal, RevokeKey, SealAuthority, SetSuffrage,
};
use crate::trust::member::{ForeignLeaf, Suffrage};
use crate::trust::outcome::{Outcome, Refused, Signer};

fn foreign(mapped: &str) -> ForeignLeaf {
    let validity = Validity { not_before: NOW.minus_secs(9), not_after: NOW.plus_secs(99) };
    ForeignLeaf { mapped: HostName::parse(mapped).unwrap(), validity }
}

fn bootstrap_with(change: impl FnOnce(&mut Bootstrap)) -> Command {
    let Command::Bootstrap(mut b) = bootstrap() else { panic!() };
    (b.authority_key, b.foreign) = (None, Some(foreign("n1")));
    change(&mut b);
    Command::Bootstrap(b)
}

/// A request for node `seed`, whose certificate maps to `mapped`.
fn bringing(seed: u8, mapped: &str) -> EnrollmentRequest {
    EnrollmentRequest { foreign: Some(foreign(mapped)), ..request(seed, 5) }.signed(&token(5).key())
}

fn admit(request: EnrollmentRequest) -> Command {
    Command::Admit(Box::new(request.into()))
}

fn founded() -> Rig {
    let mut rig = Rig::empty();
    assert!(matches!(rig.apply(bootstrap_with(|_| {})), Outcome::Admitted(_)));
    rig.apply(Command::AddJoinToken(AddJoinToken(voter_record(5, 9))));
    rig
}

#[test]
fn a_node_is_admitted_with_the_certificate_that_it_brings_and_nothing_is_granted() {
    let mut rig = founded();
    let Outcome::Admitted(admitted) = rig.apply(admit(bringing(2, "n2.example.org"))) else { panic!() };
    assert_eq!((admitted.grant, admitted.leaf.key), (None, leaf_key(2)));
    assert_eq!(admitted.leaf.validity, foreign("x").validity);
    let view = rig.0.view().unwrap();
    assert!(view.key_is_elsewhere() && view.authorities.get(&pin()).unwrap().imported);
    let named = |name: &str| view.node_mapped(&HostName::parse(name).unwrap());
    assert_eq!([named("n1"), named("n2.example.org"), named("n2")], [Some(NodeId(1)), Some(NodeId(2)), None]);
    assert!(rig.0.sealed().is_empty());
}

#[test]
fn a_cluster_has_either_the_ca_key_or_nodes_with_certificates_of_their_own() {
    let mut rig = Rig::empty();
    assert_eq!(rig.refused(bootstrap_with(|b| b.foreign = None)), Refused::CertificateMissing);
    let Command::Bootstrap(issuing) = bootstrap() else { panic!() };
    let both = bootstrap_with(|b| b.authority_key = issuing.authority_key);
    assert_eq!(rig.refused(both), Refused::CertificateUnwanted);
    let mut elsewhere = founded();
    assert_eq!(elsewhere.refused(admit(request(2, 5))), Refused::CertificateMissing);
    let mut issuing = Rig::founded();
    issuing.apply(Command::AddJoinToken(AddJoinToken(record(5, 9))));
    assert_eq!(issuing.refused(admit(bringing(2, "n2"))), Refused::CertificateUnwanted);
}

#[test]
fn a_mapped_name_belongs_to_one_member() {
    let mut rig = founded();
    rig.apply(admit(bringing(2, "n2")));
    for (taken, node) in [("n1", 1), ("n2", 2)] {
        let name = HostName::parse(taken).unwrap();
        assert_eq!(rig.refused(admit(bringing(3, taken))), Refused::MappedTaken { name, node: NodeId(node) });
    }
    // The same key under another name is the same certificate holder.
    let again = EnrollmentRequest { request: RequestId([9; 16]), name: name("n9"), ..bringing(2, "n9") };
    assert_eq!(rig.refused(admit(again.signed(&token(5).key()))), Refused::KeyTaken(NodeId(2)));
}

#[test]
fn what_the_certificate_says_cannot_be_changed_after_the_token_signed_it() {
    let mut rig = founded();
    let later = Validity { not_after: NOW.plus_secs(100), ..foreign("n2").validity };
    let claims = [None, Some(foreign("n3")), Some(ForeignLeaf { validity: later, ..foreign("n2") })];
    for claim in claims {
        let tampered = EnrollmentRequest { foreign: claim, ..bringing(2, "n2") };
        assert_eq!(rig.refused(admit(tampered)), Refused::Signature(Signer::Token));
    }
}

#[test]
fn an_evicted_node_is_known_by_its_mapped_name_and_its_key_never_returns() {
    let mut rig = founded();
    rig.apply(admit(bringing(2, "n2")));
    let mapped = HostName::parse("n2").unwrap();
    rig.apply(Command::SetSuffrage(SetSuffrage {
        node: NodeId(2),
        suffrage: Suffrage::Learner,
        keep_authority: false,
    }));
    rig.attest();
    assert!(matches!(
        rig.apply(Command::Evict(Evict { node: NodeId(2), compromised: false, keep_authority: false })),
        Outcome::Evicted { .. }
    ));
    assert_eq!(rig.0.view().unwrap().node_mapped(&mapped), Some(NodeId(2)), "to be refused as evicted");
    rig.apply(Command::AddJoinToken(AddJoinToken(record(6, 9))));
    let with_six = |r: EnrollmentRequest| EnrollmentRequest { token: token(6).id(), ..r }.signed(&token(6).key());
    let same_certificate = EnrollmentRequest { leaf_key: leaf_key(2), ..bringing(7, "n2") };
    let endorsement = Endorsement::sign(&key(7), CLUSTER, leaf_key(2), 0);
    let same_certificate = EnrollmentRequest { endorsement, ..same_certificate };
    assert_eq!(rig.refused(admit(with_six(same_certificate))), Refused::KeyRevoked);
    // The host is rebuilt: new keys, a new certificate, the same name.
    rig.apply(admit(with_six(bringing(7, "n2"))));
    assert_eq!(rig.0.view().unwrap().node_mapped(&mapped), Some(NodeId(3)));
}

#[test]
fn voters_leave_without_a_word_about_a_key_that_they_never_held_but_one_stays() {
    let mut rig = founded();
    rig.apply(admit(bringing(2, "n2")));
    let leave =
        |node, suffrage| Command::SetSuffrage(SetSuffrage { node: NodeId(node), suffrage, keep_authority: false });
    assert!(matches!(rig.apply(leave(1, Suffrage::Learner)), Outcome::Done(_)));
    assert_eq!(rig.refused(leave(2, Suffrage::Learner)), Refused::LastVoter(NodeId(2)));
    let evict = Command::Evict(Evict { node: NodeId(2), compromised: false, keep_authority: true });
    assert_eq!(rig.refused(evict), Refused::LastVoter(NodeId(2)));
}

#[test]
fn nothing_is_issued_sealed_or_confirmed() {
    let mut rig = founded();
    let spki = crate::id::ed25519_spki(&key(60).public().0).to_vec();
    let role = Role::Client(name("pay"));
    let elsewhere = Refused::KeyElsewhere(pin());
    assert_eq!(rig.refused(Command::IssuePrincipal(IssuePrincipal { role, spki, ttl_secs: 60 })), elsewhere);
    let seal = Command::SealAuthority(SealAuthority { authority: pin(), node: NodeId(1), sealed: vec![1] });
    assert_eq!(rig.refused(seal), elsewhere);
    let confirm = Command::ConfirmAuthority(ConfirmAuthority { authority: pin(), node: NodeId(1), signature: vec![1] });
    assert_eq!(rig.refused(confirm), elsewhere);
}

#[test]
fn a_node_is_accepted_with_its_recorded_key_only_and_a_client_by_its_chain() {
    let mut rig = founded();
    rig.apply(admit(bringing(2, "n2")));
    rig.apply(Command::RevokeKey(RevokeKey(KeyId([66; 32]))));
    let view = rig.0.view().unwrap();
    let ask = |role: Role, key: KeyId, wanted: Wanted| {
        let proof = Proof::Certificate(CertificateProof::asserted(CertificateClaims {
            principal: Principal { trust_domain: view.trust_domain.clone(), role },
            key,
            authority: pin(),
            cluster: None,
            endorsement: None,
            validity: foreign("x").validity,
        }));
        verify(&proof, view, wanted, NOW).map(|_| ())
    };
    let node = |id| Role::Node(NodeId(id));
    let client = || Role::Client(name("pay"));
    assert_eq!(ask(node(2), leaf_key(2), Wanted::AnyNode), Ok(()));
    assert_eq!(ask(node(2), leaf_key(1), Wanted::AnyNode), Err(Refusal::KeyUnknown), "another's key under this name");
    assert_eq!(ask(node(2), KeyId([9; 32]), Wanted::AnyNode), Err(Refusal::KeyUnknown));
    assert_eq!(ask(client(), KeyId([9; 32]), Wanted::AnyPrincipal), Ok(()));
    assert_eq!(ask(client(), KeyId([9; 32]), Wanted::AnyNode), Err(Refusal::NotANode));
    assert_eq!(ask(client(), KeyId([66; 32]), Wanted::AnyPrincipal), Err(Refusal::KeyRevoked));
    assert_eq!(ask(Role::Admin(name("root")), KeyId([9; 32]), Wanted::AnyPrincipal), Err(Refusal::PrincipalUnknown));
}
