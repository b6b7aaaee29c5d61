//! Each way to be refused, and the two ways to be a known member.

use std::sync::Arc;

use super::{CertificateClaims, CertificateProof, Proof, Refusal, Scope, Wanted, still_known, verify, verify_again};
use crate::id::{AuthorityId, ClusterId, NodeId, ed25519_spki};
use crate::key::Endorsement;
use crate::principal::{Principal, Role, TrustDomain};
use crate::time::Validity;
use crate::trust::command::{AdoptLeaf, Command, Evict, IssuePrincipal, Renew, RevokeKey, RevokePrincipal};
use crate::trust::tests::rig::{self, CLUSTER, NOW, Rig, key, leaf_key, name};
use crate::trust::view::{AuthorityPhase, View};

/// What node `seed` proves with its recorded leaf.
fn parts(seed: u8) -> CertificateClaims {
    CertificateClaims {
        principal: Principal { trust_domain: domain("east.internal"), role: Role::Node(NodeId(u64::from(seed))) },
        key: leaf_key(seed),
        authority: rig::pin(),
        cluster: Some(CLUSTER),
        endorsement: Some(Endorsement::sign(&key(seed), CLUSTER, leaf_key(seed), 0)),
        validity: Validity { not_before: NOW.minus_secs(60), not_after: NOW.plus_secs(60) },
    }
}

fn proof(claims: CertificateClaims) -> Proof {
    Proof::Certificate(CertificateProof::asserted(claims))
}

fn domain(text: &str) -> TrustDomain {
    TrustDomain::parse(text).unwrap()
}

fn client(seed: u8) -> CertificateClaims {
    let principal = Principal { role: Role::Client(name("pay")), ..parts(1).principal };
    CertificateClaims { principal, key: key(seed).public().id(), endorsement: None, ..parts(1) }
}

fn view() -> Arc<View> {
    let mut rig = Rig::three_voters();
    let spki = ed25519_spki(&key(60).public().0).to_vec();
    rig.apply(Command::IssuePrincipal(IssuePrincipal { role: Role::Client(name("pay")), spki, ttl_secs: 60 }));
    rig.apply(Command::RevokeKey(RevokeKey(key(61).public().id())));
    rig.apply(Command::Evict(Evict { node: NodeId(3), compromised: false, keep_authority: true }));
    Arc::clone(rig.0.view().unwrap())
}

fn check(parts: CertificateClaims, wanted: Wanted, expected: Result<(), Refusal>) {
    let shown = format!("{parts:?} {wanted:?}");
    assert_eq!(verify(&proof(parts), &view(), wanted, NOW).map(|_| ()), expected, "{shown}");
}

#[test]
fn a_member_with_its_recorded_key_may_speak() {
    for wanted in [Wanted::AnyNode, Wanted::AnyPrincipal, Wanted::Node(NodeId(2))] {
        check(parts(2), wanted, Ok(()));
    }
    let peer = verify(&proof(parts(2)), &view(), Wanted::AnyNode, NOW).unwrap();
    assert_eq!((peer.node_id(), peer.key()), (Some(NodeId(2)), leaf_key(2)));
}

#[test]
fn another_trust_domain_cluster_or_authority_is_refused() {
    let elsewhere = Principal { trust_domain: domain("west.internal"), ..parts(2).principal };
    check(CertificateClaims { principal: elsewhere, ..parts(2) }, Wanted::AnyNode, Err(Refusal::TrustDomain));
    let cluster = Some(ClusterId([9; 16]));
    check(CertificateClaims { cluster, ..parts(2) }, Wanted::AnyNode, Err(Refusal::Cluster));
    let authority = AuthorityId([9; 32]);
    check(CertificateClaims { authority, ..parts(2) }, Wanted::AnyNode, Err(Refusal::Authority));
}

#[test]
fn a_tainted_authority_is_trusted_for_nothing() {
    let mut tainted = (*view()).clone();
    tainted.authorities.get_mut(&rig::pin()).unwrap().phase = AuthorityPhase::Tainted;
    let refused = verify(&proof(parts(2)), &tainted, Wanted::AnyNode, NOW);
    assert_eq!(refused.map(|_| ()), Err(Refusal::Authority));
}

#[test]
fn a_certificate_counts_within_its_validity_only() {
    let at = |from: i64, to: i64| {
        let shift = |secs: i64| if secs < 0 { NOW.minus_secs(-secs as u64) } else { NOW.plus_secs(secs as u64) };
        CertificateClaims { validity: Validity { not_before: shift(from), not_after: shift(to) }, ..parts(2) }
    };
    for wanted in [Wanted::AnyNode, Wanted::Node(NodeId(2)), Wanted::AnyPrincipal] {
        check(at(0, 0), wanted, Ok(()));
        check(at(1, 9), wanted, Err(Refusal::NotYetValid));
    }
    check(at(-9, -1), Wanted::AnyPrincipal, Err(Refusal::Expired));
    check(
        CertificateClaims { validity: at(-9, -1).validity, ..client(60) },
        Wanted::AnyPrincipal,
        Err(Refusal::Expired),
    );
}

#[test]
fn an_expired_member_may_recover_and_no_more() {
    let expired = Validity { not_before: NOW.minus_secs(9), not_after: NOW.minus_secs(1) };
    let scope = |parts: CertificateClaims, wanted| {
        let parts = CertificateClaims { validity: expired, ..parts };
        verify(&proof(parts), &view(), wanted, NOW).map(|peer| peer.scope())
    };
    for wanted in [Wanted::AnyNode, Wanted::Node(NodeId(2))] {
        assert_eq!(scope(parts(2), wanted), Ok(Scope::Recovery));
        let endorsed = Some(Endorsement::sign(&key(2), CLUSTER, leaf_key(40), 1));
        assert_eq!(
            scope(CertificateClaims { key: leaf_key(40), endorsement: endorsed, ..parts(2) }, wanted),
            Ok(Scope::Recovery)
        );
    }
    // Nothing else may be wrong with it.
    assert_eq!(scope(parts(2), Wanted::AnyPrincipal), Err(Refusal::Expired));
    assert_eq!(scope(parts(2), Wanted::Node(NodeId(1))), Err(Refusal::WrongNode));
    assert_eq!(scope(parts(3), Wanted::AnyNode), Err(Refusal::Evicted));
    assert_eq!(scope(parts(9), Wanted::AnyNode), Err(Refusal::NotAMember));
    assert_eq!(scope(CertificateClaims { key: leaf_key(40), ..parts(2) }, Wanted::AnyNode), Err(Refusal::Endorsement));
    assert_eq!(
        scope(CertificateClaims { authority: AuthorityId([9; 32]), ..parts(2) }, Wanted::AnyNode),
        Err(Refusal::Authority)
    );
    assert_eq!(scope(client(60), Wanted::AnyNode), Err(Refusal::NotANode));
}

#[test]
fn the_next_certificate_and_the_one_in_use_both_count() {
    let mut rig = Rig::three_voters();
    let next = leaf_key(40);
    let endorsement = Endorsement::sign(&key(2), CLUSTER, next, 1);
    rig.apply(Command::Renew(Renew { node: NodeId(2), key: next, endorsement }));
    let ask = |rig: &Rig, key, endorsement| {
        let proof = proof(CertificateClaims { key, endorsement, ..parts(2) });
        verify(&proof, rig.0.view().unwrap(), Wanted::AnyNode, NOW).map(|_| ())
    };
    let first = Some(Endorsement::sign(&key(2), CLUSTER, leaf_key(2), 0));
    assert_eq!((ask(&rig, leaf_key(2), first.clone()), ask(&rig, next, None)), (Ok(()), Ok(())));
    let other = Some(Endorsement::sign(&key(2), CLUSTER, leaf_key(41), 1));
    assert_eq!(ask(&rig, leaf_key(41), other), Err(Refusal::Superseded), "a number counts for one key");
    rig.apply(Command::AdoptLeaf(AdoptLeaf { node: NodeId(2), renewal: 1 }));
    assert_eq!((ask(&rig, leaf_key(2), first), ask(&rig, next, None)), (Err(Refusal::Superseded), Ok(())));
}

#[test]
fn a_revoked_principal_is_refused_with_every_certificate_it_had() {
    let mut rig = Rig::founded();
    let role = Role::Client(name("pay"));
    let issue = |seed: u8| {
        Command::IssuePrincipal(IssuePrincipal {
            role: Role::Client(name("pay")),
            spki: ed25519_spki(&key(seed).public().0).to_vec(),
            ttl_secs: 60,
        })
    };
    rig.apply(issue(60));
    rig.apply(issue(61));
    rig.apply(Command::RevokePrincipal(RevokePrincipal(role)));
    rig.apply(issue(62));
    let mut imported = View::clone(rig.0.view().unwrap());
    imported.authorities.get_mut(&rig::pin()).unwrap().imported = true;
    let ask = |seed| verify(&proof(client(seed)), &imported, Wanted::AnyPrincipal, NOW).map(|_| ());
    assert_eq!((ask(60), ask(61)), (Err(Refusal::KeyRevoked), Err(Refusal::KeyRevoked)));
    assert_eq!(ask(62), Ok(()), "issued since");
    assert_eq!(ask(63), Err(Refusal::PrincipalRevoked), "made elsewhere, never on record");
}

#[test]
fn an_evicted_unknown_or_other_node_is_refused() {
    check(parts(3), Wanted::AnyNode, Err(Refusal::Evicted));
    let renewed = CertificateClaims {
        key: leaf_key(30),
        endorsement: Some(Endorsement::sign(&key(3), CLUSTER, leaf_key(30), 7)),
        ..parts(3)
    };
    check(renewed, Wanted::AnyNode, Err(Refusal::Evicted));
    check(parts(9), Wanted::AnyNode, Err(Refusal::NotAMember));
    check(parts(2), Wanted::Node(NodeId(1)), Err(Refusal::WrongNode));
}

#[test]
fn a_stolen_ca_key_alone_impersonates_no_member() {
    // Any chain and any SAN can be made with it, but not the identity key's word for the leaf key.
    let forged = |endorsement| CertificateClaims { key: leaf_key(40), endorsement, ..parts(2) };
    check(forged(None), Wanted::AnyNode, Err(Refusal::KeyUnknown));
    let own = Endorsement::sign(&key(40), CLUSTER, leaf_key(40), 5);
    check(forged(Some(own)), Wanted::AnyNode, Err(Refusal::Endorsement));
    let copied = Endorsement::sign(&key(2), CLUSTER, leaf_key(2), 5);
    check(forged(Some(copied)), Wanted::AnyNode, Err(Refusal::Endorsement));
    let of_another_cluster = Endorsement::sign(&key(2), ClusterId([9; 16]), leaf_key(40), 5);
    check(forged(Some(of_another_cluster)), Wanted::AnyNode, Err(Refusal::Endorsement));
}

#[test]
fn a_newer_endorsed_key_is_accepted_and_an_earlier_one_never() {
    let renewal = |n| CertificateClaims {
        key: leaf_key(40),
        endorsement: Some(Endorsement::sign(&key(2), CLUSTER, leaf_key(40), n)),
        ..parts(2)
    };
    check(renewal(1), Wanted::AnyNode, Ok(()));
    check(renewal(0), Wanted::AnyNode, Err(Refusal::Superseded));
}

#[test]
fn clients_speak_to_services_only_and_only_with_a_key_on_record() {
    check(client(60), Wanted::AnyPrincipal, Ok(()));
    check(client(60), Wanted::AnyNode, Err(Refusal::NotANode));
    check(client(60), Wanted::Node(NodeId(1)), Err(Refusal::NotANode));
    check(client(61), Wanted::AnyPrincipal, Err(Refusal::KeyRevoked));
    check(client(62), Wanted::AnyPrincipal, Err(Refusal::PrincipalUnknown));
    let other = Principal { role: Role::Client(name("other")), ..parts(1).principal };
    check(CertificateClaims { principal: other, ..client(60) }, Wanted::AnyPrincipal, Err(Refusal::PrincipalUnknown));
}

#[test]
fn a_certificate_that_outlives_its_record_is_of_no_use() {
    // A holder of the CA key may date a certificate as it likes; the record ended after 60 seconds.
    let late = NOW.plus_secs(61);
    let forged =
        CertificateClaims { validity: Validity { not_before: NOW, not_after: NOW.plus_secs(9999) }, ..client(60) };
    let judged = |now| verify(&proof(forged.clone()), &view(), Wanted::AnyPrincipal, now).map(|_| ());
    assert_eq!((judged(NOW.plus_secs(60)), judged(late)), (Ok(()), Err(Refusal::Expired)));
    // It is not accepted on an open connection either.
    let peer = verify(&proof(forged.clone()), &view(), Wanted::AnyPrincipal, NOW).unwrap();
    assert_eq!(peer.not_after(), NOW.plus_secs(60));
    assert_eq!(still_known(&view(), &peer, NOW.plus_secs(60)), Ok(()));
    assert_eq!(still_known(&view(), &peer, late), Err(Refusal::Expired));
}

#[test]
fn an_imported_authority_vouches_for_clients_and_brokers_but_not_for_admins_or_nodes() {
    let mut imported = (*view()).clone();
    imported.authorities.get_mut(&rig::pin()).unwrap().imported = true;
    let ask = |role: Role| {
        let principal = Principal { role, ..parts(1).principal };
        let proof = proof(CertificateClaims { principal, cluster: None, ..client(70) });
        verify(&proof, &imported, Wanted::AnyPrincipal, NOW).map(|_| ())
    };
    assert_eq!(ask(Role::Client(name("offline"))), Ok(()));
    assert_eq!(ask(Role::Admin(name("offline"))), Err(Refusal::PrincipalUnknown));
    assert_eq!(ask(Role::Node(NodeId(2))), Err(Refusal::KeyUnknown));
}

#[test]
fn a_key_proves_only_the_kind_of_principal_that_it_is_on_record_for() {
    let pay = client(60).principal;
    let of = |principal: &Principal, key| CertificateClaims {
        principal: principal.clone(),
        key,
        endorsement: None,
        ..parts(2)
    };
    // The keys of member 2, presented as a client's, and the client's as the member's.
    for key in [leaf_key(2), key(2).public().id()] {
        check(of(&pay, key), Wanted::AnyPrincipal, Err(Refusal::PrincipalUnknown));
    }
    let node = parts(2).principal;
    for (key, wanted) in [
        (client(60).key, Wanted::AnyNode),
        (client(60).key, Wanted::AnyPrincipal),
        // An identity key vouches for others; it opens no connection itself.
        (key(2).public().id(), Wanted::Node(NodeId(2))),
        (leaf_key(1), Wanted::AnyNode),
    ] {
        check(of(&node, key), wanted, Err(Refusal::KeyUnknown));
    }
    // One role's key is no other's, however alike the names are.
    for role in [Role::Admin(name("pay")), Role::Client(name("pays"))] {
        let other = Principal { role, ..pay.clone() };
        check(of(&other, client(60).key), Wanted::AnyPrincipal, Err(Refusal::PrincipalUnknown));
    }
}

#[test]
fn an_open_connection_outlives_a_renewal_and_nothing_else() {
    let mut rig = Rig::three_voters();
    let next = leaf_key(40);
    let endorsement = Endorsement::sign(&key(2), CLUSTER, next, 1);
    rig.apply(Command::Renew(Renew { node: NodeId(2), key: next, endorsement }));
    rig.apply(Command::AdoptLeaf(AdoptLeaf { node: NodeId(2), renewal: 1 }));
    let renewed = Arc::clone(rig.0.view().unwrap());
    let late = NOW.plus_secs(61);
    let again = |scope, view: &View, now| verify_again(&proof(parts(2)), scope, view, Wanted::AnyNode, now);
    assert_eq!(again(Scope::Full, &renewed, NOW), Ok(()));
    assert_eq!(again(Scope::Recovery, &renewed, NOW), Err(Refusal::Superseded));
    // Full scope ends with the proof, and recovery begins after it.
    for (scope, now, expected) in [
        (Scope::Full, NOW, Ok(())),
        (Scope::Full, late, Err(Refusal::Expired)),
        (Scope::Recovery, NOW, Ok(())),
        (Scope::Recovery, late, Ok(())),
    ] {
        assert_eq!(again(scope, &view(), now), expected, "{scope:?}");
    }
    rig.apply(Command::Evict(Evict { node: NodeId(2), compromised: false, keep_authority: true }));
    let gone = Arc::clone(rig.0.view().unwrap());
    for scope in [Scope::Full, Scope::Recovery] {
        assert_eq!(again(scope, &gone, NOW), Err(Refusal::Evicted));
    }
}

#[test]
fn refusal_codes_are_distinct_and_known() {
    for refusal in Refusal::ALL {
        assert_eq!(Refusal::from_code(refusal.code()), Some(refusal));
    }
    assert_eq!([Refusal::from_code(0), Refusal::from_code(24)], [None, None]);
}
