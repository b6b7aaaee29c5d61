//! What a member says of itself and of its cluster.

use axum::Json;
use countersign_api::admin::{MemberStatus, Status};

use crate::access::Permitted;
use crate::problem::AdminError;

pub(crate) async fn status(admin: Permitted) -> Result<Json<Status>, AdminError> {
    Ok(Json(admin.member()?.health.status().await))
}

pub(crate) async fn nodes(admin: Permitted) -> Result<Json<Vec<MemberStatus>>, AdminError> {
    Ok(Json(admin.member()?.health.members()))
}
