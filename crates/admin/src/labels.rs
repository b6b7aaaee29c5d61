//! Roles and attributes: given by an admin, never claimed by the principal that they describe.

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::JsonRejection;
use countersign_api::admin::{LabelChange, Labelled, labels};
use countersign_control::Control;
use countersign_core::authz::Subject;
use countersign_core::authz::label::LabelEdit;
use countersign_core::principal::Role;

use crate::access::Permitted;
use crate::problem::AdminError;
use crate::tokens::parsed;
use crate::{enforcement, nodes};

pub(crate) async fn node(
    admin: Permitted,
    Path(node): Path<String>,
    body: Result<Json<LabelChange>, JsonRejection>,
) -> Result<Json<Labelled>, AdminError> {
    let change = parsed(body)?;
    let (control, target) = nodes::target(&admin, &node)?;
    labelled(&control, Role::Node(target.id), change).await
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
    labelled(&admin.control()?, role, change).await
}

async fn labelled(control: &Control, role: Role, change: LabelChange) -> Result<Json<Labelled>, AdminError> {
    let LabelChange { edits, wait } = change;
    let edits = edits.into_iter().map(|edit| LabelEdit { name: edit.name, value: edit.value }).collect();
    let generation = control.label(role.clone(), edits).await?;
    let enforcement = enforcement::wait_for(control, generation, wait).await;
    let Subject { roles, attributes, .. } = Subject::of(&control.view(), &role);
    let labels = labels(roles.first(), &attributes);
    let (principal, generation) = (role.to_string(), generation.0);
    Ok(Json(Labelled { principal, generation, labels, enforcement }))
}
