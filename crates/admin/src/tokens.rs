//! Join tokens: made, listed, revoked, rotated. The secret is in one answer and nowhere else.

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::JsonRejection;
use countersign_api::admin::{MadeInfo, TokenCreate, TokenCreated, TokenInfo, job_and_attributes, labels};
use countersign_control::{CreatedToken, NewToken};
use countersign_core::id::TokenId;
use countersign_core::name::{Host, Name};
use countersign_core::time::UnixMillis;
use countersign_core::trust::join_token::{Token, TokenUnusable, token_id};

use crate::access::{Asking, Permitted};
use crate::problem::AdminError;

pub(crate) async fn create(
    asking: Asking,
    body: Result<Json<TokenCreate>, JsonRejection>,
) -> Result<Json<TokenCreated>, AdminError> {
    let wanted = parsed(body)?;
    // About the one node that it admits; without a name it admits any.
    let control = asking.about(wanted.name.as_deref().unwrap_or_default())?.control()?;
    let TokenCreate { role: suffrage, ttl_secs, uses, name, hosts: named, labels } = wanted;
    let (role, attributes) = job_and_attributes(labels);
    let name = name.as_deref().map(Name::parse).transpose();
    let name = name.map_err(|e| AdminError::invalid(e.to_string(), "use a-z, 0-9 and `-`, at most 63 of them"))?;
    let wanted = NewToken { suffrage, uses, ttl_secs, name, hosts: hosts(&named)?, role, attributes };
    Ok(Json(created(control.create_token(wanted).await?)))
}

pub(crate) async fn rotate(admin: Permitted) -> Result<Json<TokenCreated>, AdminError> {
    Ok(Json(created(admin.control()?.rotate_cluster_token().await?)))
}

pub(crate) async fn list(admin: Permitted) -> Result<Json<Vec<TokenInfo>>, AdminError> {
    let control = admin.control()?;
    let now = control.now();
    Ok(Json(control.tokens().iter().map(|(id, token)| info(*id, token, now)).collect()))
}

pub(crate) async fn revoke(admin: Permitted, Path(id): Path<String>) -> Result<Json<TokenInfo>, AdminError> {
    let token = TokenId::parse(&id).ok_or_else(|| {
        AdminError::invalid(format!("`{id}` is no token id"), "give an id as `countersign token list` shows it")
    })?;
    let control = admin.control()?;
    let known = control.revoke_token(token).await?;
    Ok(Json(TokenInfo { state: "revoked".to_owned(), ..info(token, &known, control.now()) }))
}

/// The answer. The id comes from the record: to ask the token would draw its key once more.
fn created(created: CreatedToken) -> TokenCreated {
    let CreatedToken { token, record, join_addr } = created;
    TokenCreated {
        id: token_id(record.verifier).to_string(),
        token: token.reveal(),
        not_after: record.not_after.secs(),
        uses: record.uses,
        role: record.suffrage,
        join_addr: join_addr.map(|address| address.to_string()).unwrap_or_default(),
    }
}

fn info(id: TokenId, token: &Token, now: UnixMillis) -> TokenInfo {
    let Token { record, made } = token;
    let state = match record.usable(now) {
        Ok(()) => "usable",
        Err(TokenUnusable::Expired) => "expired",
        Err(TokenUnusable::UsedUp) => "used-up",
        Err(TokenUnusable::Revoked | TokenUnusable::Unknown | TokenUnusable::Authority) => "revoked",
    };
    TokenInfo {
        id: id.to_string(),
        role: record.suffrage,
        uses: record.uses,
        uses_left: record.uses_left,
        not_after: record.not_after.secs(),
        name: record.name.as_ref().map(ToString::to_string),
        hosts: record.hosts.iter().map(ToString::to_string).collect(),
        labels: labels(record.role.as_ref(), &record.attributes),
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
