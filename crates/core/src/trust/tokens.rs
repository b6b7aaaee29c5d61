//! Join tokens in the state: added, spent, revoked, rotated.

use super::author::Made;
use super::join_token::{Token, TokenRecord, TokenUnusable, token_id};
use super::member::Attributes;
use super::outcome::{Limited, Outcome, Refused};
use super::state::{Applied, TrustState};
use crate::id::{RequestId, TokenId};
use crate::limits::{
    ATTRIBUTE_LEN_MAX, ATTRIBUTES_MAX, TOKEN_HOSTS_MAX, TOKEN_TTL_SECS_MAX, TOKEN_USES_MAX, TOKENS_MAX,
};
use crate::time::UnixMillis;

pub(super) fn check_limits(token: &TokenRecord, now: UnixMillis) -> Result<(), Refused> {
    let limit = |what, max| Err(Refused::Limit { what, max });
    if token.uses > TOKEN_USES_MAX || token.uses == 0 || token.uses_left != token.uses {
        return limit(Limited::TokenUses, u64::from(TOKEN_USES_MAX));
    }
    if token.not_after > now.plus_secs(TOKEN_TTL_SECS_MAX) {
        return limit(Limited::TokenTtl, TOKEN_TTL_SECS_MAX);
    }
    if token.hosts.len() > TOKEN_HOSTS_MAX {
        return limit(Limited::TokenHosts, TOKEN_HOSTS_MAX as u64);
    }
    check_attributes(token.role.as_deref(), &token.attributes)
}

pub(super) fn check_attributes(role: Option<&str>, attributes: &Attributes) -> Result<(), Refused> {
    let words = role.into_iter().chain(attributes.iter().flat_map(|(k, v)| [k.as_str(), v.as_str()]));
    let fits = words.into_iter().all(|word| word.len() <= ATTRIBUTE_LEN_MAX);
    if fits && attributes.len() <= ATTRIBUTES_MAX {
        return Ok(());
    }
    Err(Refused::Limit { what: Limited::Attributes, max: ATTRIBUTES_MAX as u64 })
}

impl TrustState {
    pub(super) fn add_token(&mut self, record: &TokenRecord, made: &Made) -> Applied {
        let view = self.current()?;
        check_limits(record, self.time())?;
        if !view.authorities.contains_key(&record.pin) {
            return Err(Refused::NoSuchAuthority(record.pin));
        }
        let id = token_id(record.verifier);
        let of_this = (id, RequestId([0; 16]))..=(id, RequestId([0xff; 16]));
        // A token that was forgotten for want of room does not come back with new uses.
        if self.tokens.contains_key(&id) || self.enrollments.range(of_this).next().is_some() {
            return Err(Refused::TokenExists);
        }
        let now = self.time();
        if self.tokens.len() >= TOKENS_MAX {
            // Spent and expired ones stay only as long as there is room: they make a refusal say why.
            self.tokens.retain(|_, token| token.record.usable(now).is_ok());
        }
        if self.tokens.len() >= TOKENS_MAX {
            return Err(Refused::Limit { what: Limited::Tokens, max: TOKENS_MAX as u64 });
        }
        self.tokens.insert(id, Token { record: record.clone(), made: made.clone() });
        self.revise();
        Ok(Outcome::Token(id))
    }

    pub(super) fn revoke_token(&mut self, id: TokenId) -> Applied {
        let generation = self.current()?.generation;
        let before = self.tokens.update(&id, |token| core::mem::replace(&mut token.record.revoked, true));
        if !before.ok_or(Refused::NoSuchToken(id))? {
            self.revise();
        }
        Ok(Outcome::Done(generation))
    }

    pub(super) fn rotate_cluster_token(&mut self, record: &TokenRecord, made: &Made) -> Applied {
        let ends = |token: &Token| token.record.cluster_token && !token.record.revoked;
        let old: Vec<TokenId> = self.tokens.iter().filter(|(_, token)| ends(token)).map(|(id, _)| *id).collect();
        let added = self.add_token(&TokenRecord { cluster_token: true, ..record.clone() }, made)?;
        self.revoke_tokens(&old);
        Ok(added)
    }

    /// Revokes those tokens that could still be used; returns them.
    pub(super) fn revoke_tokens(&mut self, ids: &[TokenId]) -> Vec<TokenId> {
        let now = self.time();
        let mut revoked = Vec::new();
        for id in ids {
            if self.tokens.get(id).is_some_and(|token| token.record.usable(now).is_ok()) {
                self.tokens.update(id, |token| token.record.revoked = true);
                revoked.push(*id);
            }
        }
        revoked
    }

    /// The token, if one more use of it is allowed now.
    pub(super) fn usable_token(&self, id: TokenId) -> Result<&Token, Refused> {
        let token = self.tokens.get(&id).ok_or(TokenUnusable::Unknown)?;
        token.record.usable(self.time())?;
        if self.current()?.authorities.contains_key(&token.record.pin) {
            return Ok(token);
        }
        Err(TokenUnusable::Authority.into())
    }

    pub(super) fn spend_token(&mut self, id: TokenId) {
        self.tokens.update(&id, |token| token.record.uses_left = token.record.uses_left.saturating_sub(1));
    }
}
