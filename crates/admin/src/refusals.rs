//! Refused connections and enrollments, as this member recorded them.

use std::net::{IpAddr, SocketAddr};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query};
use countersign_api::admin::RefusalInfo;
use countersign_core::id::FailureId;
use countersign_node::RefusedSource;
use serde::Deserialize;

use crate::access::Permitted;
use crate::problem::AdminError;

/// How long ago a refusal may be, in seconds, where nothing is said about it.
const SINCE_SECS: u64 = 3600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    source: String,
    #[serde(default = "since")]
    since: u64,
}

const fn since() -> u64 {
    SINCE_SECS
}

pub(crate) async fn of_source(
    admin: Permitted,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Vec<RefusalInfo>>, AdminError> {
    let Query(Asked { source, since }) =
        query.map_err(|rejected| AdminError::invalid(rejected.body_text(), "see `/v1/openapi.json`"))?;
    let of = source.parse().map(|ip: IpAddr| RefusedSource::Ip(ip.to_canonical()));
    let of = of.or_else(|_| source.parse().map(|address: SocketAddr| RefusedSource::Address(address)));
    let of = of.map_err(|_| {
        AdminError::invalid(format!("`{source}` is no IP address"), "give one, such as 192.0.2.7 or 192.0.2.7:50000")
    })?;
    Ok(Json(admin.member()?.refusals.of_source(of, since)))
}

pub(crate) async fn one(admin: Permitted, Path(id): Path<String>) -> Result<Json<RefusalInfo>, AdminError> {
    let parsed = FailureId::parse(&id).ok_or_else(|| {
        AdminError::invalid(format!("`{id}` is no failure id"), "give the 16 hexadecimal digits that were printed")
    })?;
    admin.member()?.refusals.find(parsed).map(Json).ok_or_else(|| {
        AdminError::not_found(
            format!("failure `{id}` is not on record here"),
            "ask the member that refused: the record is kept where the connection was accepted",
        )
    })
}
