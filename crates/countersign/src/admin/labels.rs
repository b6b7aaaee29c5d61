//! Roles and attributes: given by an admin, never claimed by whom they describe.

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::JsonRejection;
use countersign_api::admin::{LabelChange, Labelled};
use countersign_core::authz::Subject;
use countersign_core::authz::label::LabelEdit;
use countersign_core::principal::Role;
use countersign_core::trust::command::Command;
use countersign_core::trust::outcome::Outcome;

use super::access::{Acting, Permitted};
use super::problem::AdminError;
use super::tokens::parsed;
use super::{apply, enforcement, nodes};
use crate::propose::CommandError;

pub(crate) async fn node(
    admin: Permitted,
    Path(node): Path<String>,
    body: Result<Json<LabelChange>, JsonRejection>,
) -> Result<Json<Labelled>, AdminError> {
    let change = parsed(body)?;
    let (member, target) = nodes::target(&admin, &node)?;
    labelled(&member, Role::Node(target.id), change).await
}

pub(crate) async fn principal(
    admin: Permitted,
    Path((kind, name)): Path<(String, String)>,
    body: Result<Json<LabelChange>, JsonRejection>,
) -> Result<Json<Labelled>, AdminError> {
    let change = parsed(body)?;
    let text = format!("{kind}/{name}");
    let role = Role::parse(&text)
        .map_err(|error| AdminError::invalid(format!("`{text}`: {error}"), "see `countersign cert list`"))?;
    // The path says whose certificate; a member is labelled as one.
    if let Some(node) = role.node_id() {
        let next = format!("countersign node label {node} NAME=VALUE");
        return Err(AdminError::invalid(format!("`{text}` is a member"), next));
    }
    labelled(&admin.acting()?, role, change).await
}

async fn labelled(member: &Acting, role: Role, change: LabelChange) -> Result<Json<Labelled>, AdminError> {
    let LabelChange { edits, wait } = change;
    let edits = edits.into_iter().map(|edit| LabelEdit { name: edit.name, value: edit.value }).collect();
    let done = member.command(Command::Label { role: role.clone(), edits }, &[]).await?;
    let Outcome::Done(generation) = done.outcome else { return Err(CommandError::Unknown.into()) };
    apply::applied(member, generation, apply::BEHIND_MAX).await?;
    let enforcement = if wait { Some(enforcement::of(member, generation).await) } else { None };
    let Subject { roles, attributes, .. } = Subject::of(&super::acl::in_force(member), &role);
    let role_now = roles.into_iter().next();
    let (principal, generation) = (role.to_string(), generation.0);
    Ok(Json(Labelled { principal, generation, role: role_now, attributes, enforcement }))
}
