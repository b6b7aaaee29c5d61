//! Rules: listed, added, removed. Each change is one command, decided by the state machine.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use countersign_api::admin::{AclAdd, AclChanged, AclPolicy, MadeInfo};
use countersign_core::authz::RuleId;
use countersign_core::authz::change::{Changed, PolicyChange, PolicyError};
use countersign_core::authz::text::{PolicyText, RuleText};
use countersign_core::id::Generation;
use countersign_core::trust::command::Command;
use countersign_core::trust::outcome::{Outcome, Refused};
use countersign_core::trust::view::View;
use serde::Deserialize;

use super::access::{Acting, Permitted};
use super::enforcement;
use super::problem::AdminError;
use super::tokens::parsed;
use crate::member::Inner;
use crate::propose::CommandError;

pub(crate) async fn list(admin: Permitted) -> Result<Json<AclPolicy>, AdminError> {
    let view = in_force(&*admin.member()?);
    let (generation, changed) = (view.generation.0, view.policy.changed().0);
    let listed = answered(&admin, move || {
        let made = view.policy.rules().filter_map(|rule| {
            let made = view.policy.made(&rule.id)?;
            Some((rule.id.to_string(), MadeInfo::of(made)))
        });
        (PolicyText::of(&view.policy), made.collect())
    });
    let (policy, made) = listed.await?;
    Ok(Json(AclPolicy { generation, changed, policy, made }))
}

pub(crate) async fn add(
    admin: Permitted,
    body: Result<Json<AclAdd>, JsonRejection>,
) -> Result<Json<AclChanged>, AdminError> {
    let AclAdd { rule: text, wait } = parsed(body)?;
    let rule = text.rule().map_err(|error| AdminError::invalid(error.to_string(), "correct the rule"))?;
    let shown = RuleText::of(&rule);
    let change = PolicyChange { put: vec![rule], ..PolicyChange::default() };
    let member = admin.acting()?;
    let (generation, changed) = command(&member, change).await?;
    Ok(Json(shown_change(&member, generation, changed, vec![shown], wait).await))
}

/// What a request says besides its path.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wait {
    #[serde(default)]
    wait: bool,
}

pub(crate) async fn remove(
    admin: Permitted,
    Path(id): Path<String>,
    query: Result<Query<Wait>, QueryRejection>,
) -> Result<Json<AclChanged>, AdminError> {
    let Query(Wait { wait }) =
        query.map_err(|rejected| AdminError::invalid(rejected.body_text(), "see `/v1/openapi.json`"))?;
    let id =
        RuleId::parse(&id).map_err(|error| AdminError::invalid(error.to_string(), "see `countersign acl list`"))?;
    let member = admin.acting()?;
    // Before and after: this member may be behind the leader.
    let known = || in_force(&member).policy.rule(&id).map(|rule| RuleText::of(rule));
    let before = known();
    let change = PolicyChange { remove: vec![id.clone()], ..PolicyChange::default() };
    let (generation, changed) = command(&member, change).await?;
    let rules = before.into_iter().collect();
    Ok(Json(shown_change(&member, generation, changed, rules, wait).await))
}

/// Has a change carried out; the generation that shows it.
pub(super) async fn command(member: &Acting, change: PolicyChange) -> Result<(Generation, Changed), CommandError> {
    let done = member.command(Command::ChangePolicy(Box::new(change)), &[]).await?;
    let Outcome::Policy { generation, changed } = done.outcome else { return Err(CommandError::Unknown) };
    Ok((generation, changed))
}

/// What a change did, and if asked for, where it is in force.
pub(super) async fn shown_change(
    member: &Inner,
    generation: Generation,
    changed: Changed,
    rules: Vec<RuleText>,
    wait: bool,
) -> AclChanged {
    let enforcement = if wait { Some(enforcement::of(member, generation).await) } else { None };
    AclChanged { generation: generation.0, put: changed.put, removed: changed.removed, rules, enforcement }
}

/// What this member decides by.
pub(super) fn in_force(member: &Inner) -> Arc<View> {
    Arc::clone(&member.endpoint.trust().load().view)
}

/// Work that takes longer than a task may without a pause.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AdminError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| {
        AdminError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the work broke off", "report this as a bug")
    })
}

/// Such work for a question about all rules, of which few are answered at once. The place is held until the work is done,
/// whoever waits for it.
pub(super) async fn answered<T: Send + 'static>(
    admin: &Permitted,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AdminError> {
    let place = admin.question()?;
    aside(move || {
        let answer = work();
        drop(place);
        answer
    })
    .await
}

/// Somebody was faster.
pub(super) fn overtaken(changed: Generation, expected: Generation) -> AdminError {
    CommandError::Refused(Refused::Policy(PolicyError::Changed { changed, expected })).into()
}
