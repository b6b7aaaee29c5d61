//! Join tokens: added, used up, revoked, rotated. A token that was on record once never comes back with new uses.

use serde::{Deserialize, Serialize};

use super::operation::{Applied, Checked, Effect, Entry, Operation, Precondition};
use crate::authz::Affected;
use crate::codec::FIRST_LEVEL;
use crate::id::{RequestId, TokenId};
use crate::json::Object;
use crate::limits::{
    ATTRIBUTE_LEN_MAX, ATTRIBUTES_MAX, EVENT_LIST_LEN_MAX, TOKEN_HOSTS_MAX, TOKEN_TTL_SECS_MAX, TOKEN_USES_MAX,
    TOKENS_MAX,
};
use crate::time::UnixMillis;
use crate::trust::author::{Authorship, Made};
use crate::trust::event::{Account, Draft};
use crate::trust::join_token::{Token, TokenRecord, TokenUnusable, token_id};
use crate::trust::member::Attributes;
use crate::trust::outcome::{Limited, Outcome, Refused};
use crate::trust::state::TrustState;
use crate::trust::view::View;

/// Records a join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddJoinToken(pub TokenRecord);

/// Ends a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeJoinToken(pub TokenId);

/// Ends the cluster token and records its successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateClusterToken(pub TokenRecord);

impl Operation for AddJoinToken {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Voter
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Nothing
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::default()
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, entry: &Entry<'_>) -> Applied {
        state.add_token(&self.0, &entry.made)
    }

    fn event(&self, _: &Draft<'_>) -> Account {
        ("token.created", told(&self.0))
    }
}

impl Operation for RevokeJoinToken {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Voter
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Nothing
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::default()
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, _: &Entry<'_>) -> Applied {
        let generation = state.current()?.generation;
        let before = state.tokens.update(&self.0, |token| core::mem::replace(&mut token.record.revoked, true));
        if !before.ok_or(Refused::NoSuchToken(self.0))? {
            state.revise();
        }
        Ok(Outcome::Done(generation))
    }

    fn event(&self, _: &Draft<'_>) -> Account {
        ("token.revoked", Object::default().text("token", self.0))
    }
}

impl Operation for RotateClusterToken {
    fn level(&self) -> u32 {
        FIRST_LEVEL
    }

    fn authorship(&self) -> Authorship {
        Authorship::Voter
    }

    fn effect(&self) -> Effect<'_> {
        Effect::Nothing
    }

    fn precondition(&self) -> Precondition {
        Precondition::None
    }

    fn affects(&self, _: &View) -> Affected {
        Affected::identities()
    }

    fn unchanged(&self, _: &TrustState, _: UnixMillis) -> Checked {
        Ok(None)
    }

    fn apply(&self, state: &mut TrustState, entry: &Entry<'_>) -> Applied {
        let old = state.tokens.usable_of_cluster(state.time);
        let record = TokenRecord { cluster_token: true, ..self.0.clone() };
        let added = state.add_token(&record, &entry.made)?;
        state.revoke_tokens(&old);
        Ok(added)
    }

    fn event(&self, _: &Draft<'_>) -> Account {
        ("token.rotated", told(&self.0))
    }
}

fn told(record: &TokenRecord) -> Object {
    let TokenRecord { verifier, pin, suffrage, uses, not_after, name, role, attributes, hosts, .. } = record;
    let details = Object::default().text("token", token_id(*verifier)).text("authority", pin);
    let details = details.text("role", suffrage).number("uses", u64::from(*uses));
    let details = details.number("not_after_millis", not_after.0).maybe("name", name.as_ref());
    let labels = role.iter().map(|role| format!("role={role}"));
    let labels = labels.chain(attributes.iter().map(|(key, value)| format!("{key}={value}")));
    details.texts("labels", labels, EVENT_LIST_LEN_MAX).texts("hosts", hosts, EVENT_LIST_LEN_MAX)
}

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

fn check_attributes(role: Option<&str>, attributes: &Attributes) -> Result<(), Refused> {
    let words = role.into_iter().chain(attributes.iter().flat_map(|(k, v)| [k.as_str(), v.as_str()]));
    let fits = words.into_iter().all(|word| word.len() <= ATTRIBUTE_LEN_MAX);
    if fits && attributes.len() <= ATTRIBUTES_MAX {
        return Ok(());
    }
    Err(Refused::Limit { what: Limited::Attributes, max: ATTRIBUTES_MAX as u64 })
}

impl TrustState {
    fn add_token(&mut self, record: &TokenRecord, made: &Made) -> Applied {
        let view = self.current()?;
        check_limits(record, self.time)?;
        if !view.authorities.contains_key(&record.pin) {
            return Err(Refused::NoSuchAuthority(record.pin));
        }
        let id = token_id(record.verifier);
        let of_this = (id, RequestId([0; 16]))..=(id, RequestId([0xff; 16]));
        // A token that was forgotten for want of room does not come back with new uses.
        if self.tokens.contains_key(&id) || self.enrollments.range(of_this).next().is_some() {
            return Err(Refused::TokenExists);
        }
        let now = self.time;
        if self.tokens.len() >= TOKENS_MAX {
            // Spent and expired ones stay only as long as there is room: they make a refusal say why.
            let unusable: Vec<TokenId> = self.tokens.unusable(now).collect();
            unusable.iter().for_each(|id| drop(self.tokens.remove(id)));
        }
        if self.tokens.len() >= TOKENS_MAX {
            return Err(Refused::Limit { what: Limited::Tokens, max: TOKENS_MAX as u64 });
        }
        self.tokens.insert(id, Token { record: record.clone(), made: made.clone() });
        self.revise();
        Ok(Outcome::Token(id))
    }

    /// Revokes the tokens that could still be used; returns them.
    pub(super) fn revoke_tokens(&mut self, ids: &[TokenId]) -> Vec<TokenId> {
        let now = self.time;
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
        token.record.usable(self.time)?;
        if self.current()?.authorities.contains_key(&token.record.pin) {
            return Ok(token);
        }
        Err(TokenUnusable::Authority.into())
    }

    pub(super) fn spend_token(&mut self, id: TokenId) {
        self.tokens.update(&id, |token| token.record.uses_left = token.record.uses_left.saturating_sub(1));
    }
}
