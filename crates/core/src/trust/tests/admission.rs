//! Admission: who admits, in which role, and how often.

use super::rig::*;
use crate::enroll::EnrollmentRequest;
use crate::id::{ClusterId, NodeId, RequestId, StoreId, ed25519_spki};
use crate::key::Endorsement;
use crate::limits::{ADDRESSES_MAX, VOTERS_MAX};
use crate::name::{Address, Host, HostName};
use crate::principal::Role;
use crate::trust::addresses_transcript;
use crate::trust::command::{AddJoinToken, Admission, Command, Evict, IssuePrincipal, SetAddresses};
use crate::trust::hosts::Witness;
use crate::trust::join_token::{TokenRecord, TokenUnusable};
use crate::trust::member::Suffrage;
use crate::trust::outcome::{Limited, Outcome, Refused, Signer};

fn admit(request: EnrollmentRequest) -> Command {
    Command::Admit(Box::new(request.into()))
}

fn with_token(uses: u32) -> Rig {
    let mut rig = Rig::founded();
    rig.apply(Command::AddJoinToken(AddJoinToken(record(5, uses))));
    rig
}

#[test]
fn one_use_admits_one_node_however_many_ask() {
    let mut rig = with_token(1);
    assert!(matches!(rig.apply(admit(request(2, 5))), Outcome::Admitted(_)));
    for seed in 3..9 {
        assert_eq!(rig.refused(admit(request(seed, 5))), TokenUnusable::UsedUp.into());
    }
}

#[test]
fn a_repeated_request_gets_its_answer_again_though_the_token_is_spent_and_expired() {
    let mut rig = with_token(1);
    let Outcome::Admitted(first) = rig.apply(admit(request(2, 5))) else { panic!() };
    // A retry comes over another connection: another exporter, another signature.
    let retry = EnrollmentRequest { exporter: [8; 32], ..request(2, 5) }.signed(&token(5).key());
    let Outcome::Admitted(again) = rig.apply_at(NOW.plus_secs(99_999), admit(retry)) else { panic!() };
    assert!(again.repeated && !first.repeated);
    assert_eq!((first.node, &first.grant, &first.leaf), (again.node, &again.grant, &again.leaf));
    assert_eq!(rig.0.view().unwrap().members.len(), 2);
}

#[test]
fn a_request_id_does_not_serve_other_keys() {
    let mut rig = with_token(2);
    rig.apply(admit(request(2, 5)));
    let other = EnrollmentRequest { request: RequestId([2; 16]), ..request(3, 5) }.signed(&token(5).key());
    assert_eq!(rig.refused(admit(other)), Refused::RequestReused);
}

#[test]
fn an_evicted_node_joins_by_no_old_request_or_fresh_token() {
    let mut rig = with_token(1);
    rig.apply(admit(request(2, 5)));
    rig.apply(Command::Evict(Evict { node: NodeId(2), compromised: false, keep_authority: false }));
    assert_eq!(rig.refused(admit(request(2, 5))), Refused::EvictedSince(NodeId(2)));
    rig.apply(Command::AddJoinToken(AddJoinToken(record(6, 1))));
    assert_eq!(rig.refused(admit(request(2, 6))), Refused::KeyRevoked);
    // A rebuilt host with the same name and address and new keys is welcome.
    let rebuilt = EnrollmentRequest { name: name("n2"), addresses: request(2, 6).addresses, ..request(7, 6) };
    assert!(matches!(rig.apply(admit(rebuilt.signed(&token(6).key()))), Outcome::Admitted(_)));
}

#[test]
fn no_field_of_a_request_can_be_changed_after_the_token_signed_it() {
    let good = || request(2, 5);
    let tampered: Vec<EnrollmentRequest> = vec![
        EnrollmentRequest { name: name("root"), ..good() },
        EnrollmentRequest { addresses: vec![Address::parse("10.9.9.9:1").unwrap()], ..good() },
        EnrollmentRequest { addresses: [good().addresses, good().addresses].concat(), ..good() },
        EnrollmentRequest { request: RequestId([9; 16]), ..good() },
        EnrollmentRequest { leaf_key: leaf_key(9), ..good() },
        EnrollmentRequest { keys: keys(9), ..good() },
        EnrollmentRequest { store: StoreId([9; 16]), ..good() },
        EnrollmentRequest { feature_level: 9, ..good() },
        EnrollmentRequest { exporter: [9; 32], ..good() },
        EnrollmentRequest { sponsor_leaf: [9; 32], ..good() },
        EnrollmentRequest { signature: [9; 64], ..good() },
        EnrollmentRequest { cluster: ClusterId([9; 16]), ..good() },
        EnrollmentRequest { pin: crate::id::AuthorityId([9; 32]), ..good() },
    ];
    let mut rig = with_token(1);
    for request in tampered {
        assert_eq!(rig.refused(admit(request)), Refused::Signature(Signer::Token));
    }
}

#[test]
fn a_token_holder_cannot_claim_an_identity_key_that_it_does_not_hold() {
    let mut rig = with_token(1);
    let forged = [
        // Another's endorsement, a later renewal, a leaf that was not endorsed.
        EnrollmentRequest { endorsement: Endorsement::sign(&key(9), CLUSTER, leaf_key(2), 0), ..request(2, 5) },
        EnrollmentRequest { endorsement: Endorsement::sign(&key(2), CLUSTER, leaf_key(2), 1), ..request(2, 5) },
        EnrollmentRequest { endorsement: Endorsement::sign(&key(2), CLUSTER, leaf_key(3), 0), ..request(2, 5) },
    ];
    for request in forged {
        let refused = rig.refused(admit(request.signed(&token(5).key())));
        assert_eq!(refused, Refused::Signature(Signer::Identity));
    }
}

#[test]
fn suffrage_role_and_name_come_from_the_token() {
    let mut rig = Rig::founded();
    let gpu = std::collections::BTreeMap::from([("gpu".to_owned(), "true".to_owned())]);
    rig.apply(Command::AddJoinToken(AddJoinToken(TokenRecord {
        name: Some(name("n2")),
        role: Some("Worker".to_owned()),
        attributes: gpu.clone(),
        ..voter_record(5, 2)
    })));
    assert_eq!(rig.refused(admit(request(3, 5))), Refused::NameNotAdmitted(name("n2")));
    rig.apply(admit(request(2, 5)));
    let member = rig.0.view().unwrap().members.get(&NodeId(2)).unwrap();
    assert_eq!((member.suffrage, member.role.as_deref()), (Suffrage::Voter, Some("Worker")));
    assert_eq!(member.attributes, gpu);
}

#[test]
fn names_addresses_and_keys_belong_to_one_member() {
    let mut rig = with_token(9);
    rig.apply(admit(request(2, 5)));
    let two = || request(2, 5);
    let signed = |request: EnrollmentRequest| admit(request.signed(&token(5).key()));
    let taken = Refused::NameTaken { name: name("n2"), node: NodeId(2) };
    assert_eq!(rig.refused(signed(EnrollmentRequest { name: name("n2"), ..request(3, 5) })), taken);
    let address = two().addresses;
    let taken = Refused::AddressTaken { address: address[0].clone(), node: NodeId(2) };
    assert_eq!(rig.refused(signed(EnrollmentRequest { addresses: address, ..request(3, 5) })), taken);
    let fresh = EnrollmentRequest { request: RequestId([77; 16]), name: name("x"), ..two() };
    assert_eq!(rig.refused(signed(fresh)), Refused::KeyTaken(NodeId(2)));
    let mut reused = request(3, 5);
    reused.keys.ucan = reused.keys.identity;
    assert_eq!(rig.refused(signed(reused)), Refused::KeyReused);
}

#[test]
fn a_host_belongs_to_one_member_or_broker_whatever_the_port() {
    let mut rig = with_token(9);
    rig.apply(admit(request(2, 5)));
    let at = |seed, address: &str| {
        let addresses = vec![Address::parse(address).unwrap()];
        admit(EnrollmentRequest { addresses, ..request(seed, 5) }.signed(&token(5).key()))
    };
    let taken = |address: &str, node| Refused::AddressTaken { address: Address::parse(address).unwrap(), node };
    assert_eq!(rig.refused(at(3, "10.0.0.2:9")), taken("10.0.0.2:9", NodeId(2)));
    let broker = Role::Broker(HostName::parse("b1.example.org").unwrap());
    let spki = ed25519_spki(&key(77).public().0).to_vec();
    rig.apply(Command::IssuePrincipal(IssuePrincipal { role: broker.clone(), spki: spki.clone(), ttl_secs: 60 }));
    let refused = rig.refused(at(3, "b1.example.org:9"));
    assert_eq!(refused, Refused::HostTaken { host: Host::parse("b1.example.org").unwrap(), by: broker });
    rig.apply(at(3, "n3.example.org:1"));
    let role = Role::Broker(HostName::parse("n3.example.org").unwrap());
    assert!(matches!(
        rig.refused(Command::IssuePrincipal(IssuePrincipal { role, spki, ttl_secs: 60 })),
        Refused::HostTaken { .. }
    ));
}

#[test]
fn a_member_that_moved_gets_no_certificate_for_its_new_host_by_repeating_its_old_request() {
    let mut rig = with_token(1);
    let witness = Some(Witness { by: NodeId(1), hosts: vec![Host::parse("10.0.0.2").unwrap()] });
    rig.apply(Command::Admit(Box::new(Admission { request: request(2, 5), witness })));
    let moved = vec![Address::parse("10.9.9.9:1").unwrap()];
    let view = rig.0.view().unwrap().clone();
    let signature = key(2).sign(&addresses_transcript(&view, NodeId(2), &moved));
    rig.apply(Command::SetAddresses(SetAddresses { node: NodeId(2), addresses: moved, signature }));
    let Outcome::Admitted(again) = rig.apply(admit(request(2, 5))) else { panic!() };
    assert_eq!(again.hosts, [Host::parse("10.0.0.2").unwrap()]);
}

#[test]
fn a_repeated_request_is_verified_like_the_first() {
    let mut rig = with_token(1);
    rig.apply(admit(request(2, 5)));
    let forged = EnrollmentRequest { exporter: [8; 32], ..request(2, 5) };
    assert_eq!(rig.refused(admit(forged)), Refused::Signature(Signer::Token));
    let endorsement = Endorsement::sign(&key(9), CLUSTER, leaf_key(2), 0);
    let forged = EnrollmentRequest { endorsement, ..request(2, 5) }.signed(&token(5).key());
    assert_eq!(rig.refused(admit(forged)), Refused::Signature(Signer::Identity));
}

#[test]
fn what_would_be_refused_is_known_before_it_is_proposed() {
    let mut rig = with_token(1);
    let known = |rig: &Rig, request| rig.0.check_admission(&request);
    assert_eq!(known(&rig, request(2, 6)), Err(TokenUnusable::Unknown.into()));
    assert_eq!(known(&rig, request(2, 5)), Ok(()));
    rig.apply(admit(request(2, 5)));
    assert_eq!(known(&rig, request(2, 5)), Ok(()), "a retry is answered again");
    assert_eq!(known(&rig, request(3, 5)), Err(TokenUnusable::UsedUp.into()));
}

#[test]
fn loopback_addresses_may_be_shared() {
    let mut rig = with_token(9);
    for seed in [2, 3] {
        let addresses = vec![Address::parse("127.0.0.1:7001").unwrap()];
        let request = EnrollmentRequest { addresses, ..request(seed, 5) }.signed(&token(5).key());
        assert!(matches!(rig.apply(admit(request)), Outcome::Admitted(_)));
    }
}

#[test]
fn a_member_has_one_to_eight_addresses() {
    let mut rig = with_token(9);
    let with = |n: usize| {
        let addresses = (0..n).map(|i| Address::parse(&format!("10.1.0.1:{}", 7000 + i)).unwrap()).collect();
        admit(EnrollmentRequest { addresses, ..request(2, 5) }.signed(&token(5).key()))
    };
    let past = Refused::Limit { what: Limited::Addresses, max: ADDRESSES_MAX as u64 };
    assert_eq!(rig.refused(with(0)), Refused::NoAddress);
    assert_eq!(rig.refused(with(ADDRESSES_MAX + 1)), past);
    assert!(matches!(rig.apply(with(ADDRESSES_MAX)), Outcome::Admitted(_)));
}

#[test]
fn voters_are_bounded() {
    let mut rig = Rig::founded();
    rig.apply(Command::AddJoinToken(AddJoinToken(voter_record(5, 20))));
    for seed in 2..=VOTERS_MAX as u8 {
        assert!(matches!(rig.apply(admit(request(seed, 5))), Outcome::Admitted(_)), "{seed}");
    }
    let past = Refused::Limit { what: Limited::Voters, max: VOTERS_MAX as u64 };
    assert_eq!(rig.refused(admit(request(20, 5))), past);
}

#[test]
fn nothing_is_admitted_before_there_is_a_cluster_and_none_is_made_twice() {
    let mut rig = Rig::empty();
    assert_eq!(rig.refused(Command::AddJoinToken(AddJoinToken(record(5, 1)))), Refused::NoCluster);
    assert_eq!(rig.refused(admit(request(2, 5))), TokenUnusable::Unknown.into());
    rig.apply(bootstrap());
    assert_eq!(rig.refused(bootstrap()), Refused::ClusterExists);
}

#[test]
fn a_certificate_never_outlives_its_authority() {
    let mut rig = with_token(1);
    rig.0.node_ttl_secs = 86_400 * 9999;
    let Outcome::Admitted(admitted) = rig.apply(admit(request(2, 5))) else { panic!() };
    let authority = rig.0.view().unwrap().active_authority().unwrap().1.validity;
    assert_eq!(admitted.grant.unwrap().validity.not_after, authority.not_after);
}
