//! Rules: listed, added, removed. Each change is one command, decided by the state machine.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use countersign_api::admin::{AclAdd, AclChanged, AclPolicy, MadeInfo};
use countersign_control::{Control, PolicyChanged};
use countersign_core::authz::RuleId;
use countersign_core::authz::text::{PolicyText, RuleText};
use serde::Deserialize;

use crate::access::Permitted;
use crate::enforcement;
use crate::problem::AdminError;
use crate::tokens::parsed;

pub(crate) async fn list(admin: Permitted) -> Result<Json<AclPolicy>, AdminError> {
    let view = admin.member()?.local.view();
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
    let rendered = RuleText::of(&rule);
    let control = admin.control()?;
    let changed = control.add_rule(rule).await?;
    Ok(Json(rendered_change(&control, changed, vec![rendered], wait).await))
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
    let control = admin.control()?;
    let (changed, rule) = control.remove_rule(id).await?;
    let rules = rule.iter().map(|rule| RuleText::of(rule)).collect();
    Ok(Json(rendered_change(&control, changed, rules, wait).await))
}

/// What a change did, and if asked for, where it is in force.
pub(super) async fn rendered_change(
    control: &Control,
    PolicyChanged { generation, changed }: PolicyChanged,
    rules: Vec<RuleText>,
    wait: bool,
) -> AclChanged {
    let enforcement = enforcement::wait_for(control, generation, wait).await;
    AclChanged { generation: generation.0, put: changed.put, removed: changed.removed, rules, enforcement }
}

/// Work that takes longer than a task may without a pause.
pub(super) async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, AdminError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| {
        AdminError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the work broke off", "report this as a bug")
    })
}

/// Such work for a question about all rules, of which few are answered at once. The place is held until the work is
/// done, even if the caller goes away.
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
