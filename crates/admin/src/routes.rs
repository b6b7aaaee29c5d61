//! Every endpoint of the admin API, with who may use it. A port's router is made of this table and of nothing else, so
//! that nothing is served that it does not authorize.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, delete, get, post};
use countersign_api::admin::OPENAPI;
use countersign_core::authz::{Action, Kind};
use countersign_core::limits::{ADMIN_BODY_LEN_MAX, POLICY_BODY_LEN_MAX};

use crate::access::{Access, Admin, ELSEWHERE, Named, Permitted};
use crate::problem::AdminError;
use crate::{acl, apply, asked, certificates, hosts, labels, nodes, refusals, status, tokens};

/// One endpoint.
pub(crate) struct Endpoint {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    /// Whether it is answered over HTTPS by a member without a lease: the state of this member must be readable when it
    /// is not doing well. The other endpoints serve only callers that this member knows are not revoked.
    pub(crate) leaseless: bool,
    /// Bytes that its body may have.
    pub(crate) body_len_max: usize,
    handler: MethodRouter,
}

fn endpoint(method: Method, path: &'static str, access: Access, handler: MethodRouter) -> Endpoint {
    Endpoint { method, path, access, leaseless: false, body_len_max: ADMIN_BODY_LEN_MAX, handler }
}

impl Endpoint {
    fn leaseless(self) -> Self {
        Self { leaseless: true, ..self }
    }

    fn long(self) -> Self {
        Self { body_len_max: POLICY_BODY_LEN_MAX, ..self }
    }
}

const fn policy(action: Action, kind: Kind, named: Named) -> Access {
    Access::Policy(action, kind, named)
}

/// All endpoints.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    let mut all = well();
    all.extend(belonging());
    all.extend(rules());
    all
}

/// The health of this member, and what it knows of the cluster; the settings of the whole cluster.
fn well() -> Vec<Endpoint> {
    let open = |path, handler| endpoint(Method::GET, path, Access::Open, handler);
    let cluster =
        |path, handler| endpoint(Method::GET, path, policy(Action::Describe, Kind::CLUSTER, Named::Cluster), handler);
    vec![
        open("/healthz", get(async || "ok\n")),
        open("/readyz", get(readyz)),
        open("/metrics", get(metrics)),
        open("/openapi.json", get(openapi)),
        cluster("/v1/openapi.json", get(openapi)).leaseless(),
        cluster("/v1/status", get(status::status)).leaseless(),
        cluster("/v1/nodes", get(status::nodes)),
        cluster("/v1/refusals", get(refusals::of_source)),
        cluster("/v1/refusals/{id}", get(refusals::one)),
        cluster("/v1/cluster", get(hosts::cluster)),
        endpoint(
            Method::POST,
            "/v1/cluster",
            policy(Action::Alter, Kind::CLUSTER, Named::Cluster),
            post(hosts::set_cluster),
        ),
        endpoint(
            Method::POST,
            "/v1/cluster/level",
            policy(Action::Alter, Kind::CLUSTER, Named::Cluster),
            post(hosts::raise_level),
        ),
    ]
}

/// Who belongs: tokens, members, certificates.
fn belonging() -> Vec<Endpoint> {
    let read = |path, kind, handler| endpoint(Method::GET, path, policy(Action::Describe, kind, Named::All), handler);
    let create = |path, kind, handler| endpoint(Method::POST, path, Access::Body(Action::Create, kind), handler);
    let alter = |path, kind, named, handler| endpoint(Method::POST, path, policy(Action::Alter, kind, named), handler);
    let remove =
        |method, path, kind, named, handler| endpoint(method, path, policy(Action::Delete, kind, named), handler);
    vec![
        read("/v1/tokens", Kind::TOKEN, get(tokens::list)),
        create("/v1/tokens", Kind::TOKEN, post(tokens::create)),
        alter("/v1/tokens/rotate", Kind::TOKEN, Named::All, post(tokens::rotate)),
        remove(Method::DELETE, "/v1/tokens/{id}", Kind::TOKEN, Named::Id, delete(tokens::revoke)),
        alter("/v1/nodes/{node}/promote", Kind::MEMBER, Named::Node, post(nodes::promote)),
        alter("/v1/nodes/{node}/demote", Kind::MEMBER, Named::Node, post(nodes::demote)),
        remove(Method::POST, "/v1/nodes/{node}/evict", Kind::MEMBER, Named::Node, post(nodes::evict)),
        endpoint(Method::POST, "/v1/nodes/{node}/quarantine", Access::Local, post(nodes::quarantine)),
        endpoint(Method::DELETE, "/v1/nodes/{node}/quarantine", Access::Local, delete(nodes::lift_quarantine)),
        read("/v1/certificates", Kind::CERTIFICATE, get(certificates::list)),
        create("/v1/certificates", Kind::CERTIFICATE, post(certificates::issue)),
        remove(Method::DELETE, "/v1/certificates/{key}", Kind::CERTIFICATE, Named::Key, delete(certificates::revoke)),
        remove(
            Method::DELETE,
            "/v1/principals/{kind}/{name}",
            Kind::CERTIFICATE,
            Named::Principal,
            delete(certificates::revoke_principal),
        ),
        alter("/v1/nodes/{node}/hosts", Kind::MEMBER, Named::Node, post(hosts::change)),
        alter("/v1/nodes/{node}/label", Kind::MEMBER, Named::Node, post(labels::node)),
        alter("/v1/principals/{kind}/{name}/label", Kind::CERTIFICATE, Named::Principal, post(labels::principal)),
    ]
}

/// The rules. A caller that may see them may ask about them, and plan.
fn rules() -> Vec<Endpoint> {
    let about =
        |method, path, action, handler| endpoint(method, path, policy(action, Kind::POLICY, Named::Cluster), handler);
    let read = |path, handler| about(Method::GET, path, Action::Describe, handler);
    let ask = |path, handler| about(Method::POST, path, Action::Describe, handler);
    let alter = |method, path, handler| about(method, path, Action::Alter, handler);
    vec![
        read("/v1/acl", get(acl::list)),
        read("/v1/acl/lint", get(asked::lint)),
        ask("/v1/acl/check", post(asked::check)),
        ask("/v1/acl/explain", post(asked::explain)),
        ask("/v1/acl/who-can", post(asked::who_can)),
        ask("/v1/acl/plan", post(apply::plan)).long(),
        alter(Method::POST, "/v1/acl/apply", post(apply::apply)).long(),
        alter(Method::POST, "/v1/acl/rules", post(acl::add)),
        alter(Method::DELETE, "/v1/acl/rules/{id}", delete(acl::remove)),
    ]
}

/// Method, path and authorization of every endpoint, for the tests that walk them.
#[doc(hidden)]
pub fn endpoints_for_testing() -> Vec<(String, &'static str, String)> {
    let told = |row: Endpoint| (row.method.to_string(), row.path, row.access.to_string());
    endpoints().into_iter().map(told).collect()
}

/// What stands before the endpoints of a port: each handler behind the check that its row asks for.
pub(super) trait Port {
    /// Whether the port serves it.
    fn serves(&self, access: &Access) -> bool;
    /// The handler behind its check.
    fn checked(&self, row: Row, handler: MethodRouter) -> MethodRouter;
}

/// What a check knows of its endpoint.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) admin: Admin,
    method: Option<Method>,
    access: Access,
    leaseless: bool,
    body_len_max: usize,
}

impl Row {
    /// What holds for a request by `method`. A method that the endpoint does not have is answered as a path that is
    /// none.
    pub(super) fn terms(&self, method: &Method) -> Terms {
        // A GET without its body (RFC 9110 §9.3.2), which the router answers as one.
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        let Self { access, leaseless, body_len_max, .. } = self.clone();
        if self.method.as_ref() == Some(method) {
            Terms { access, leaseless, body_len_max }
        } else {
            Terms::elsewhere()
        }
    }
}

/// How a request is authorized, whether it needs no lease, and how long its body may be.
pub(super) struct Terms {
    pub(super) access: Access,
    pub(super) leaseless: bool,
    pub(super) body_len_max: usize,
}

impl Terms {
    /// Of a request that no endpoint is for.
    fn elsewhere() -> Self {
        Self { access: ELSEWHERE, leaseless: false, body_len_max: ADMIN_BODY_LEN_MAX }
    }
}

/// The router of a port.
pub(super) fn router(admin: &Admin, port: &impl Port) -> Router {
    let mut router = Router::new();
    for Endpoint { method, path, access, leaseless, body_len_max, handler } in endpoints() {
        if port.serves(&access) {
            let handler = handler.layer(DefaultBodyLimit::max(body_len_max));
            let row = Row { admin: admin.clone(), method: Some(method), access, leaseless, body_len_max };
            router = router.route(path, port.checked(row, handler));
        }
    }
    let Terms { access, leaseless, body_len_max } = Terms::elsewhere();
    let row = Row { admin: admin.clone(), method: None, access, leaseless, body_len_max };
    let nowhere = any(async |_: Permitted| AdminError::not_found("no such route", "see `/v1/openapi.json`"));
    router.fallback(port.checked(row, nowhere))
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn readyz(admin: Permitted) -> Result<String, AdminError> {
    let health = &admin.member()?.health;
    if health.is_ready() {
        return Ok(health.readiness());
    }
    Err(AdminError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "not-ready",
        "this member hears no leader, holds no lease, is not counted in yet, or its certificate ends",
        "see `countersign status`",
    ))
}

async fn metrics(admin: Permitted) -> Result<Response, AdminError> {
    let text = admin.member()?.health.metrics();
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response())
}
