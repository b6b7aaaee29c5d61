//! Join tokens: limits, expiry, revocation, rotation.

use super::rig::*;
use crate::limits::{TOKEN_TTL_SECS_MAX, TOKEN_USES_MAX, TOKENS_MAX};
use crate::trust::command::{AddJoinToken, Command, RevokeJoinToken, RotateClusterToken};
use crate::trust::join_token::{TokenRecord, TokenUnusable, token_id};
use crate::trust::outcome::{Limited, Outcome, Refused};
use crate::trust::tables::Tokens;

#[test]
fn a_token_is_bounded_in_uses_and_lifetime() {
    let mut rig = Rig::founded();
    let at = |uses, secs| {
        Command::AddJoinToken(AddJoinToken(TokenRecord { not_after: NOW.plus_secs(secs), ..record(5, uses) }))
    };
    let limit = |what, max| Refused::Limit { what, max };
    assert_eq!(rig.refused(at(0, 60)), limit(Limited::TokenUses, TOKEN_USES_MAX.into()));
    assert_eq!(rig.refused(at(TOKEN_USES_MAX + 1, 60)), limit(Limited::TokenUses, TOKEN_USES_MAX.into()));
    assert_eq!(rig.refused(at(1, TOKEN_TTL_SECS_MAX + 1)), limit(Limited::TokenTtl, TOKEN_TTL_SECS_MAX));
    assert!(matches!(rig.apply(at(TOKEN_USES_MAX, TOKEN_TTL_SECS_MAX)), Outcome::Token(_)));
    assert_eq!(rig.refused(at(TOKEN_USES_MAX, TOKEN_TTL_SECS_MAX)), Refused::TokenExists);
}

#[test]
fn an_expired_token_is_refused_whatever_the_clock_says() {
    let mut rig = Rig::founded();
    rig.apply(Command::AddJoinToken(AddJoinToken(record(5, 1))));
    let admit = || Command::Admit(Box::new(request(2, 5).into()));
    assert_eq!(rig.refused_at(NOW.plus_secs(1801), admit()), TokenUnusable::Expired.into());
    // The clock of a new leader may be behind: time in the log never runs backwards.
    assert_eq!(rig.refused_at(NOW, admit()), TokenUnusable::Expired.into());
}

#[test]
fn a_token_is_usable_up_to_its_last_moment() {
    let mut rig = Rig::founded();
    rig.apply(Command::AddJoinToken(AddJoinToken(record(5, 1))));
    let outcome = rig.apply_at(NOW.plus_secs(1800), Command::Admit(Box::new(request(2, 5).into())));
    assert!(matches!(outcome, Outcome::Admitted(_)));
}

#[test]
fn a_revoked_or_unknown_token_admits_no_node() {
    let mut rig = Rig::founded();
    rig.apply(Command::AddJoinToken(AddJoinToken(record(5, 3))));
    rig.apply(Command::RevokeJoinToken(RevokeJoinToken(token(5).id())));
    assert_eq!(rig.refused(Command::Admit(Box::new(request(2, 5).into()))), TokenUnusable::Revoked.into());
    assert_eq!(rig.refused(Command::Admit(Box::new(request(2, 6).into()))), TokenUnusable::Unknown.into());
    assert_eq!(
        rig.refused(Command::RevokeJoinToken(RevokeJoinToken(token(6).id()))),
        Refused::NoSuchToken(token(6).id())
    );
}

#[test]
fn rotating_the_cluster_token_ends_the_old_one() {
    let mut rig = Rig::founded();
    for seed in [5, 6] {
        rig.apply(Command::RotateClusterToken(RotateClusterToken(record(seed, 8))));
    }
    let revoked = |seed| rig.0.tokens().get(&token(seed).id()).unwrap().record.revoked;
    assert!(revoked(5) && !revoked(6));
}

#[test]
fn spent_tokens_make_room_and_live_ones_do_not() {
    let mut rig = Rig::founded();
    let nth = |n: usize| {
        let mut verifier = record(5, 1).verifier;
        verifier.0[..8].copy_from_slice(&(n as u64).to_be_bytes());
        TokenRecord { verifier, ..record(5, 1) }
    };
    for n in 0..TOKENS_MAX {
        let made = crate::trust::author::Made::new(&author(), NOW);
        rig.0.tokens.insert(token_id(nth(n).verifier), crate::trust::join_token::Token { record: nth(n), made });
    }
    let full = Refused::Limit { what: Limited::Tokens, max: TOKENS_MAX as u64 };
    assert_eq!(rig.refused(Command::AddJoinToken(AddJoinToken(nth(TOKENS_MAX)))), full);
    rig.apply(Command::RevokeJoinToken(RevokeJoinToken(token_id(nth(0).verifier))));
    assert!(matches!(rig.apply(Command::AddJoinToken(AddJoinToken(nth(TOKENS_MAX)))), Outcome::Token(_)));
}

#[test]
fn a_token_forgotten_for_want_of_room_does_not_come_back_with_new_uses() {
    let mut rig = Rig::founded();
    rig.apply(Command::AddJoinToken(AddJoinToken(record(5, 1))));
    rig.apply(Command::Admit(Box::new(request(2, 5).into())));
    rig.0.tokens = Tokens::default();
    assert_eq!(rig.refused(Command::AddJoinToken(AddJoinToken(record(5, 1)))), Refused::TokenExists);
}
