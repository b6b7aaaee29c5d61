//! Brokers, clients and admins.

use super::rig::*;
use crate::id::{KeyId, NodeId, ed25519_spki};
use crate::limits::{PRINCIPAL_KEYS_MAX, PRINCIPAL_TTL_SECS_MAX};
use crate::principal::Role;
use crate::trust::command::{Command, IssuePrincipal, RenewPrincipal, RevokeKey, RevokePrincipal};
use crate::trust::outcome::{Limited, Outcome, Refused};

fn issue(seed: u8, ttl_secs: u64) -> Command {
    let spki = ed25519_spki(&key(seed).public().0).to_vec();
    Command::IssuePrincipal(IssuePrincipal { role: Role::Client(name("pay")), spki, ttl_secs })
}

#[test]
fn a_client_has_a_bounded_number_of_live_keys() {
    let mut rig = Rig::founded();
    for seed in 0..PRINCIPAL_KEYS_MAX as u8 {
        assert!(matches!(rig.apply(issue(50 + seed, 60)), Outcome::Issued(_)) || seed == 1, "{seed}");
    }
    let past = Refused::Limit { what: Limited::PrincipalKeys, max: PRINCIPAL_KEYS_MAX as u64 };
    rig.apply(issue(90, 60));
    assert_eq!(rig.refused(issue(99, 60)), past);
    assert!(matches!(rig.apply_at(NOW.plus_secs(61), issue(99, 60)), Outcome::Issued(_)), "expired keys make room");
}

#[test]
fn lifetimes_keys_and_roles_are_checked() {
    let mut rig = Rig::founded();
    let limit = Refused::Limit { what: Limited::CertificateTtl, max: PRINCIPAL_TTL_SECS_MAX };
    assert_eq!(rig.refused(issue(60, 0)), limit);
    assert_eq!(rig.refused(issue(60, PRINCIPAL_TTL_SECS_MAX + 1)), limit);
    for spki in [vec![], vec![0x30], [ed25519_spki(&[1; 32]).as_slice(), &[0]].concat()] {
        let key = KeyId::of_spki(&spki);
        let command = Command::IssuePrincipal(IssuePrincipal { role: Role::Admin(name("root")), spki, ttl_secs: 60 });
        assert_eq!(rig.refused(command), Refused::KeyUnsuitable(key));
    }
    let node = Command::IssuePrincipal(IssuePrincipal { role: Role::Node(NodeId(1)), spki: vec![], ttl_secs: 60 });
    assert_eq!(rig.refused(node), Refused::NotIssued(Role::Node(NodeId(1))));
}

#[test]
fn no_principal_has_the_key_of_another_certified_as_its_own() {
    let mut rig = Rig::founded();
    let spki = ed25519_spki(&key(70).public().0).to_vec();
    let of_root = Command::IssuePrincipal(IssuePrincipal { role: Role::Admin(name("root")), spki, ttl_secs: 60 });
    rig.apply(of_root.clone());
    rig.apply(issue(60, 60));
    // The request for a certificate is no secret, and signed by the right key.
    assert_eq!(rig.refused(renew(60, 70)), Refused::KeyReused);
    assert_eq!(rig.refused(issue(70, 60)), Refused::KeyReused);
    // So it does not go with them.
    rig.apply(Command::RevokePrincipal(RevokePrincipal(Role::Client(name("pay")))));
    assert!(!rig.0.view().unwrap().revoked_keys.contains(&key(70).public().id()));
    assert!(matches!(rig.apply(of_root), Outcome::Issued(_)), "for its holder it is");
}

/// The client `pay` with the key `in_use` asks for the key `next`.
fn renew(in_use: u8, next: u8) -> Command {
    let id = key(in_use).public().id();
    let spki = ed25519_spki(&key(next).public().0).to_vec();
    Command::RenewPrincipal(RenewPrincipal { role: Role::Client(name("pay")), in_use: id, spki })
}

#[test]
fn a_client_renews_with_a_key_that_counts_and_keeps_it() {
    let mut rig = Rig::founded();
    rig.apply(issue(60, 60));
    let Outcome::Issued(grant) = rig.apply_at(NOW.plus_secs(30), renew(60, 61)) else { panic!() };
    assert_eq!(grant.validity.not_after, NOW.plus_secs(90));
    let keys = rig.0.view().unwrap().principals[&Role::Client(name("pay"))].clone();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[&key(60).public().id()].not_after, NOW.plus_secs(60), "the one in use ends when it would have");
}

#[test]
fn a_renewal_lives_as_long_as_was_recorded_and_a_repeated_one_gets_the_same_certificate() {
    let mut rig = Rig::founded();
    rig.apply(issue(60, 600));
    let first = rig.apply_at(NOW.plus_secs(30), renew(60, 61));
    let Outcome::Issued(grant) = &first else { panic!("{first:?}") };
    assert_eq!(grant.validity.not_after, NOW.plus_secs(630));
    let before = rig.0.view().unwrap().clone();
    assert_eq!(rig.0.answered(&renew(60, 61), NOW.plus_secs(99)), Some(first.clone()));
    assert_eq!(rig.apply_at(NOW.plus_secs(99), renew(60, 61)), first);
    assert_eq!(*rig.0.view().unwrap(), before);
    // The second renewal has the recorded lifetime, not the time that was left of the first.
    let Outcome::Issued(grant) = rig.apply_at(NOW.plus_secs(601), renew(61, 62)) else { panic!() };
    assert_eq!(grant.validity.not_after, NOW.plus_secs(1201));
}

#[test]
fn a_line_has_two_keys_at_a_time_so_that_one_stolen_key_does_not_lock_the_others_out() {
    let mut rig = Rig::founded();
    for seed in [60, 90] {
        rig.apply(issue(seed, 60));
    }
    rig.apply(renew(60, 61));
    let past = Refused::RenewedBefore { until: NOW.plus_secs(60).secs() };
    assert_eq!(rig.refused(renew(60, 62)), past, "a second successor");
    assert_eq!(rig.refused(renew(61, 62)), past, "a successor's successor");
    assert_eq!(rig.refused(renew(90, 61)), Refused::KeyReused, "the successor of another");
    assert!(rig.0.answered(&renew(61, 62), NOW).is_some(), "known before it is proposed");
    assert!(matches!(rig.apply(renew(90, 91)), Outcome::Issued(_)), "others renew");
    // By the time of now, not of the last applied entry.
    assert_eq!(
        rig.0.answered(&renew(61, 62), NOW.plus_secs(61)),
        Some(Outcome::Refused(Refused::NoSuchPrincipal(Role::Client(name("pay")))))
    );
    let mut rig = Rig::founded();
    rig.apply(issue(60, 60));
    rig.apply_at(NOW.plus_secs(30), renew(60, 61));
    assert_eq!(rig.0.answered(&renew(61, 62), NOW.plus_secs(61)), None, "its predecessor has ended");
    assert!(matches!(rig.apply_at(NOW.plus_secs(61), renew(61, 62)), Outcome::Issued(_)));
}

#[test]
fn who_loses_a_renewed_key_renews_again_once_it_is_revoked() {
    let mut rig = Rig::founded();
    rig.apply(issue(60, 60));
    rig.apply(renew(60, 61));
    assert_eq!(
        rig.apply(Command::RevokeKey(RevokeKey(key(61).public().id()))),
        revoked(&rig, 1),
        "not the key before it"
    );
    assert!(matches!(rig.apply(renew(60, 62)), Outcome::Issued(_)));
}

fn revoked(rig: &Rig, keys: usize) -> Outcome {
    Outcome::Revoked { generation: rig.0.view().unwrap().generation, keys }
}

#[test]
fn what_was_renewed_from_a_stolen_key_is_revoked_with_it() {
    let mut rig = Rig::founded();
    for seed in [60, 90] {
        rig.apply(issue(seed, 60));
    }
    rig.apply_at(NOW.plus_secs(30), renew(60, 61));
    rig.apply_at(NOW.plus_secs(61), renew(61, 62));
    rig.apply_at(NOW.plus_secs(61), issue(90, 60));
    // The first has ended and is off the record.
    let outcome = rig.apply(Command::RevokeKey(RevokeKey(key(60).public().id())));
    assert_eq!(outcome, revoked(&rig, 3));
    let view = rig.0.view().unwrap();
    let is_revoked = |seed| view.revoked_keys.contains(&key(seed).public().id());
    assert_eq!([60, 61, 62, 90].map(is_revoked), [true, true, true, false]);
    assert_eq!(rig.refused_at(NOW.plus_secs(61), renew(62, 63)), Refused::KeyRevoked);
    let outcome = rig.apply(Command::RevokeKey(RevokeKey(key(60).public().id())));
    assert_eq!(outcome, revoked(&rig, 0));
}

#[test]
fn no_renewal_is_by_a_key_that_does_not_count() {
    let unknown = Refused::NoSuchPrincipal(Role::Client(name("pay")));
    let mut rig = Rig::founded();
    assert_eq!(rig.refused(renew(60, 61)), unknown, "never issued");
    rig.apply(issue(60, 60));
    assert_eq!(rig.refused(renew(60, 60)), unknown, "the same key: its end would move");
    let node = Role::Node(NodeId(1));
    let Command::RenewPrincipal(RenewPrincipal { in_use, spki, .. }) = renew(60, 61) else { panic!() };
    let as_node = Command::RenewPrincipal(RenewPrincipal { role: node.clone(), in_use, spki: spki.clone() });
    assert_eq!(rig.refused(as_node), Refused::NotIssued(node));
    let role = Role::Admin(name("pay"));
    let promoted = Command::RenewPrincipal(RenewPrincipal { role: role.clone(), in_use, spki });
    assert_eq!(rig.refused(promoted), Refused::NoSuchPrincipal(role), "another role than the key's");
    rig.apply(Command::RevokeKey(RevokeKey(key(60).public().id())));
    assert_eq!(rig.refused(renew(60, 61)), Refused::KeyRevoked);
    rig.apply(issue(62, 60));
    rig.apply(Command::RevokePrincipal(RevokePrincipal(Role::Client(name("pay")))));
    assert_eq!(rig.refused(renew(62, 63)), Refused::KeyRevoked, "under way when it was revoked");
    rig.apply(issue(64, 60));
    assert_eq!(rig.refused_at(NOW.plus_secs(61), renew(64, 65)), unknown, "expired");
}

#[test]
fn a_revoked_or_taken_key_is_not_certified_again() {
    let mut rig = Rig::founded();
    rig.apply(issue(60, 60));
    rig.apply(Command::RevokeKey(RevokeKey(key(60).public().id())));
    assert_eq!(rig.refused(issue(60, 60)), Refused::KeyRevoked);
    assert_eq!(rig.refused(issue(1, 60)), Refused::KeyTaken(NodeId(1)), "a member's identity key");
    assert_eq!(rig.refused(issue(51, 60)), Refused::KeyTaken(NodeId(1)), "a member's leaf key");
}

#[test]
fn a_shorter_certificate_of_the_same_key_does_not_end_the_longer_one() {
    let mut rig = Rig::founded();
    rig.apply(issue(60, 600));
    rig.apply(issue(60, 60));
    let record = |rig: &Rig| {
        let view = rig.0.view().unwrap();
        view.principals[&Role::Client(name("pay"))][&key(60).public().id()].not_after
    };
    assert_eq!(record(&rig), NOW.plus_secs(600));
    rig.apply(issue(60, 6000));
    assert_eq!(record(&rig), NOW.plus_secs(6000));
}

#[test]
fn issuing_raises_the_generation_and_is_reproducible() {
    let (mut a, mut b) = (Rig::founded(), Rig::founded());
    let before = a.0.view().unwrap().generation;
    assert_eq!(a.apply(issue(60, 60)), b.apply(issue(60, 60)));
    assert!(a.0.view().unwrap().generation > before);
    assert_eq!(a.0.digest(), b.0.digest());
}

#[test]
fn revoking_a_principal_revokes_its_keys_and_says_how_many() {
    let mut rig = Rig::founded();
    let role = Role::Client(name("pay"));
    assert_eq!(
        rig.refused(Command::RevokePrincipal(RevokePrincipal(role.clone()))),
        Refused::NoSuchPrincipal(role.clone())
    );
    let node = Role::Node(NodeId(1));
    assert_eq!(rig.refused(Command::RevokePrincipal(RevokePrincipal(node.clone()))), Refused::NotIssued(node));
    rig.apply(issue(60, 60));
    rig.apply(issue(61, 60));
    let Outcome::Revoked { generation, keys: 2 } = rig.apply(Command::RevokePrincipal(RevokePrincipal(role.clone())))
    else {
        panic!()
    };
    assert_eq!(rig.0.view().unwrap().generation, generation);
    let again = rig.apply(Command::RevokePrincipal(RevokePrincipal(role)));
    assert_eq!(again, Outcome::Revoked { generation, keys: 0 });
    assert_eq!(rig.refused(issue(60, 60)), Refused::KeyRevoked);
    assert!(matches!(rig.apply(issue(62, 60)), Outcome::Issued(_)), "a new key may be certified");
}

#[test]
fn revoking_a_key_again_changes_nothing() {
    let mut rig = Rig::founded();
    let revoke = || Command::RevokeKey(RevokeKey(key(60).public().id()));
    let Outcome::Revoked { generation, keys: 1 } = rig.apply(revoke()) else { panic!() };
    assert_eq!(rig.apply(revoke()), Outcome::Revoked { generation, keys: 0 });
}
