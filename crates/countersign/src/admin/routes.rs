//! The routes. `public` says nothing but whether this member is well; `api` is for those whom the port has identified.

use std::sync::{Arc, Weak};

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use countersign_api::admin::{OPENAPI, RefusalInfo};
use countersign_core::id::FailureId;

use super::problem::AdminError;
use super::{certificates, nodes, status, tokens};
use crate::member::Inner;

/// The member behind the routes. Weak: a server's task must not keep a stopped member alive.
#[derive(Clone)]
pub(crate) struct Admin(Weak<Inner>);

impl Admin {
    pub(crate) fn of(member: &Arc<Inner>) -> Self {
        Self(Arc::downgrade(member))
    }

    pub(crate) fn member(&self) -> Result<Arc<Inner>, AdminError> {
        self.0.upgrade().ok_or_else(|| {
            AdminError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "shutdown",
                "this member is shutting down",
                "start it again",
            )
        })
    }
}

/// Routes for anybody: health, metrics, and the API's description.
pub(crate) fn public() -> Router<Admin> {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
}

/// Routes for administrators.
pub(crate) fn api() -> Router<Admin> {
    Router::new()
        .route("/v1/openapi.json", get(openapi))
        .route("/v1/status", get(status::status))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/rotate", post(tokens::rotate))
        .route("/v1/tokens/{id}", delete(tokens::revoke))
        .route("/v1/nodes", get(status::nodes))
        .route("/v1/nodes/{node}/promote", post(nodes::promote))
        .route("/v1/nodes/{node}/demote", post(nodes::demote))
        .route("/v1/nodes/{node}/evict", post(nodes::evict))
        .route("/v1/certificates", get(certificates::list).post(certificates::issue))
        .route("/v1/certificates/{key}", delete(certificates::revoke))
        .route("/v1/principals/{kind}/{name}", delete(certificates::revoke_principal))
        .route("/v1/refusals/{id}", get(refusal))
        .fallback(async || AdminError::not_found("no such route", "see `/v1/openapi.json`"))
}

/// Routes of the member on this host alone, for whom the socket lets in: they need no lease, leader or quorum.
pub(crate) fn local() -> Router<Admin> {
    Router::new().route("/v1/nodes/{node}/quarantine", post(nodes::quarantine).delete(nodes::lift_quarantine))
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn readyz(State(admin): State<Admin>) -> Result<String, AdminError> {
    let member = admin.member()?;
    if status::is_ready(&member) {
        return Ok(status::readiness(&member));
    }
    Err(AdminError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "not-ready",
        "this member hears no leader, holds no lease, is not counted in yet, or its certificate ends",
        "see `countersign status`",
    ))
}

async fn metrics(State(admin): State<Admin>) -> Result<Response, AdminError> {
    let text = crate::metrics::render(&*admin.member()?);
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response())
}

async fn refusal(State(admin): State<Admin>, Path(id): Path<String>) -> Result<Json<RefusalInfo>, AdminError> {
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
