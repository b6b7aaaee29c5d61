//! Members over HTTP: each handler calls one function of [`Control`].

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use countersign_api::admin::{NodeChanged, NodeQuarantined, NodeRemove};
use countersign_control::{Control, Evicted, Leaving};
use countersign_core::trust::member::Member;

use crate::access::Permitted;
use crate::enforcement;
use crate::problem::AdminError;
use crate::tokens::parsed;

pub(crate) async fn promote(admin: Permitted, Path(node): Path<String>) -> Result<Json<NodeChanged>, AdminError> {
    let (control, target) = target(&admin, &node)?;
    control.promote(target.id).await?;
    Ok(Json(changed(&control, &target)))
}

pub(crate) async fn demote(
    admin: Permitted,
    Path(node): Path<String>,
    body: Result<Json<NodeRemove>, JsonRejection>,
) -> Result<Json<NodeChanged>, AdminError> {
    let NodeRemove { keep_authority, compromised: _ } = parsed(body)?;
    let (control, target) = target(&admin, &node)?;
    control.demote(target.id, keep_authority).await?;
    Ok(Json(changed(&control, &target)))
}

pub(crate) async fn evict(
    admin: Permitted,
    Path(node): Path<String>,
    body: Result<Json<NodeRemove>, JsonRejection>,
) -> Result<Json<NodeChanged>, AdminError> {
    let NodeRemove { compromised, keep_authority } = parsed(body)?;
    let (control, target) = target(&admin, &node)?;
    let evicted = control.evict(target.id, Leaving { compromised, keep_authority }).await?;
    let Evicted { generation, tokens_revoked, barrier } = evicted;
    let tokens_revoked = tokens_revoked.iter().map(ToString::to_string).collect();
    let enforcement = Some(enforcement::rendered_for(&control.view(), generation, barrier.as_ref()));
    Ok(Json(NodeChanged { tokens_revoked, enforcement, ..changed(&control, &target) }))
}

/// Has this member refuse another by itself, at once and after each start, until it is lifted.
pub(crate) async fn quarantine(
    admin: Permitted,
    Path(node): Path<String>,
) -> Result<Json<NodeQuarantined>, AdminError> {
    let (control, target) = target(&admin, &node)?;
    let closed = control.quarantine(target.id)?;
    Ok(Json(quarantined(&target, closed, true)))
}

/// Lets another in again, as far as the cluster does.
pub(crate) async fn lift_quarantine(
    admin: Permitted,
    Path(node): Path<String>,
) -> Result<Json<NodeQuarantined>, AdminError> {
    let (control, target) = target(&admin, &node)?;
    let closed = control.lift_quarantine(target.id)?;
    Ok(Json(quarantined(&target, closed, false)))
}

fn quarantined(target: &Member, closed: usize, quarantined: bool) -> NodeQuarantined {
    let (node, name) = (target.id.0, target.name.to_string());
    NodeQuarantined { node, name, quarantined, connections_closed: closed as u64 }
}

/// The member that a path names, if the request was judged by the name that it has.
pub(super) fn target(admin: &Permitted, text: &str) -> Result<(Control, Member), AdminError> {
    let control = admin.control()?;
    let target = control.member(text)?;
    if admin.is_about(target.name.as_str()) {
        return Ok((control, target));
    }
    let message = format!("members have changed: `{text}` is node {} now", target.name);
    Err(AdminError::new(
        StatusCode::CONFLICT,
        "changed",
        message,
        "see `countersign node list`, and repeat the command",
    ))
}

fn changed(control: &Control, target: &Member) -> NodeChanged {
    NodeChanged {
        node: target.id.0,
        name: target.name.to_string(),
        generation: control.view().generation.0,
        tokens_revoked: vec![],
        enforcement: None,
    }
}

#[cfg(test)]
mod tests {
    use countersign_core::id::NodeId;

    use super::*;
    use countersign_node::testing::founded;

    #[tokio::test]
    async fn only_the_member_that_the_request_was_judged_by_is_acted_on() {
        let data = tempfile::tempdir().unwrap();
        let running = founded(data.path()).await.unwrap();
        let found = |judged: &str, text: &str| {
            let found = target(&Permitted::for_testing(&running, judged), text);
            found.map(|(_, member)| member.id).map_err(|error| error.problem.code)
        };
        assert_eq!((found("n1", "n1"), found("n1", "1")), (Ok(NodeId(1)), Ok(NodeId(1))));
        // Judged when there was no such member, and when another had the name.
        assert_eq!(found("1", "1"), Err("changed".to_owned()));
        assert_eq!(found("other", "n1"), Err("changed".to_owned()));
        running.shutdown().await;
    }
}
