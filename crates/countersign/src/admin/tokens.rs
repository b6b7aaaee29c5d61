//! Join tokens: made, listed, revoked, rotated. The secret is in one answer and nowhere else.

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::JsonRejection;
use countersign_api::admin::{MadeInfo, TokenCreate, TokenCreated, TokenInfo};
use countersign_core::id::TokenId;
use countersign_core::name::{Host, Name};
use countersign_core::time::UnixMillis;
use countersign_core::trust::command::Command;
use countersign_core::trust::join_token::{JoinToken, Token, TokenRecord, TokenUnusable, token_id};

use super::access::{Asking, Permitted};
use super::problem::AdminError;
use crate::keys::random;
use crate::member::Inner;
use crate::propose::CommandError;
use crate::settings::ClusterToken;

pub(crate) async fn create(
    asking: Asking,
    body: Result<Json<TokenCreate>, JsonRejection>,
) -> Result<Json<TokenCreated>, AdminError> {
    let wanted = parsed(body)?;
    // About the one node that it admits; without a name it admits any.
    let member = asking.about(wanted.name.as_deref().unwrap_or_default())?.acting()?;
    let (token, record) = make(&member, &wanted)?;
    member.command(Command::AddJoinToken(record.clone()), &[]).await?;
    Ok(Json(created(&member, &token, &record)))
}

pub(crate) async fn rotate(admin: Permitted) -> Result<Json<TokenCreated>, AdminError> {
    let member = admin.acting()?;
    let ClusterToken { uses, ttl_secs, suffrage } = ClusterToken::default();
    let (name, role, hosts) = (None, None, vec![]);
    let wanted = TokenCreate { suffrage, ttl_secs, uses, name, hosts, role, attributes: Default::default() };
    let (token, record) = make(&member, &wanted)?;
    let record = TokenRecord { cluster_token: true, ..record };
    member.command(Command::RotateClusterToken(record.clone()), &[]).await?;
    Ok(Json(created(&member, &token, &record)))
}

pub(crate) async fn list(admin: Permitted) -> Result<Json<Vec<TokenInfo>>, AdminError> {
    let member = admin.member()?;
    let now = member.now();
    let state = member.state.read();
    Ok(Json(state.tokens().iter().map(|(id, token)| info(*id, token, now)).collect()))
}

pub(crate) async fn revoke(admin: Permitted, Path(id): Path<String>) -> Result<Json<TokenInfo>, AdminError> {
    let token = TokenId::parse(&id).ok_or_else(|| {
        AdminError::invalid(format!("`{id}` is no token id"), "give an id as `countersign token list` shows it")
    })?;
    let member = admin.acting()?;
    // Before and after: a record that was ended may be forgotten at once, and this member may be behind the leader.
    let known = || member.state.read().tokens().get(&token).cloned();
    let before = known();
    member.command(Command::RevokeJoinToken(token), &[]).await?;
    let known = before.or_else(known).ok_or(CommandError::Unknown)?;
    Ok(Json(TokenInfo { state: "revoked".to_owned(), ..info(token, &known, member.now()) }))
}

fn make(member: &Inner, wanted: &TokenCreate) -> Result<(JoinToken, TokenRecord), AdminError> {
    let name = wanted.name.as_deref().map(Name::parse).transpose();
    let name = name.map_err(|e| AdminError::invalid(e.to_string(), "use a-z, 0-9 and `-`, at most 63 of them"))?;
    let hosts = hosts(&wanted.hosts)?;
    let trust = member.endpoint.trust().load();
    let (authority, _) = trust.view.active_authority().ok_or_else(|| {
        AdminError::new(
            axum::http::StatusCode::CONFLICT,
            "no-authority",
            "no authority signs",
            "see `countersign status`",
        )
    })?;
    let secret = random::<32>().map_err(|e| {
        AdminError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "random", e.to_string(), "repeat the command")
    })?;
    let token = JoinToken::new(secret, authority);
    let record = TokenRecord {
        verifier: token.key().public(),
        pin: authority,
        suffrage: wanted.suffrage,
        uses: wanted.uses,
        uses_left: wanted.uses,
        not_after: member.now().plus_secs(wanted.ttl_secs),
        name,
        hosts,
        role: wanted.role.clone(),
        attributes: wanted.attributes.clone(),
        revoked: false,
        cluster_token: false,
    };
    Ok((token, record))
}

/// The answer. The id comes from the record: to ask the token would draw its key once more.
fn created(member: &Inner, token: &JoinToken, record: &TokenRecord) -> TokenCreated {
    let join_addr = member.lock_endpoints().advertise.first().map(ToString::to_string).unwrap_or_default();
    TokenCreated {
        id: token_id(record.verifier).to_string(),
        token: token.reveal(),
        not_after: record.not_after.secs(),
        uses: record.uses,
        suffrage: record.suffrage,
        join_addr,
    }
}

fn info(id: TokenId, token: &Token, now: UnixMillis) -> TokenInfo {
    let Token { record, made } = token;
    let state = match record.usable(now) {
        Ok(()) => "usable",
        Err(TokenUnusable::Expired) => "expired",
        Err(TokenUnusable::Spent) => "spent",
        Err(_) => "revoked",
    };
    TokenInfo {
        id: id.to_string(),
        suffrage: record.suffrage,
        uses: record.uses,
        uses_left: record.uses_left,
        not_after: record.not_after.secs(),
        name: record.name.as_ref().map(ToString::to_string),
        hosts: record.hosts.iter().map(ToString::to_string).collect(),
        role: record.role.clone(),
        state: state.to_owned(),
        cluster_token: record.cluster_token,
        made: MadeInfo::of(made),
    }
}

/// Names and IP addresses, as certificates hold them.
pub(super) fn hosts(texts: &[String]) -> Result<Vec<Host>, AdminError> {
    let host = |text: &String| {
        let next = "give a DNS name in lower case or an IP address, without a port";
        Host::parse(text).map_err(|error| AdminError::invalid(format!("`{text}`: {error}"), next))
    };
    texts.iter().map(host).collect()
}

/// A body that does not parse is the caller's error, and says so as JSON.
pub(crate) fn parsed<T>(body: Result<Json<T>, JsonRejection>) -> Result<T, AdminError> {
    body.map(|Json(body)| body).map_err(|rejected| AdminError::invalid(rejected.body_text(), "see `/v1/openapi.json`"))
}
