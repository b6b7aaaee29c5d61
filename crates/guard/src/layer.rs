//! The guard before whole services: each call is a `write` of `service` `package.Service/Method`, or of an HTTP route's path.
//!
//! A call begins only with a permit, and goes on only as long as a permit would be given: each frame of it is asked about
//! again once anything has changed, and a stream without traffic is woken to be ended.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use countersign_core::authz::{Action, Kind};
use countersign_core::id::Generation;
use tonic::Status;
use tower_layer::Layer;
use tower_service::Service;

use crate::body::{GuardedBody, Half};
use crate::caller::Caller;
use crate::guard::Guard;
use crate::permit::Denial;
use crate::source::Fetching;

/// The header in which a request names the generation that it must be decided by, or a later one.
pub const MIN_GENERATION: &str = "countersign-min-generation";
/// The header in which an answer names the generation that its request was decided by.
pub const GENERATION: &str = "countersign-generation";
/// How long a request waits for the generation that it names.
const BEHIND_MAX: Duration = Duration::from_secs(2);

/// Puts a guard before a service. The connection's [`Caller`] must be in the extensions of each request.
#[derive(Debug, Clone)]
pub struct GuardLayer {
    guard: Guard,
    unguarded: fn(&str) -> bool,
}

impl GuardLayer {
    /// Asks `guard` about each call.
    pub const fn new(guard: Guard) -> Self {
        Self { guard, unguarded: |_| false }
    }

    /// Calls of the paths that `unguarded` picks need no rule about `service`: what they do asks for itself. They need a
    /// lease, as all do.
    #[must_use]
    pub fn without_rule(self, unguarded: fn(&str) -> bool) -> Self {
        Self { unguarded, ..self }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = GuardService<S>;

    fn layer(&self, inner: S) -> GuardService<S> {
        GuardService { layer: self.clone(), inner }
    }
}

/// A service behind a guard.
#[derive(Debug, Clone)]
pub struct GuardService<S> {
    layer: GuardLayer,
    inner: S,
}

/// What a call needs.
#[derive(Debug, Clone)]
pub(crate) struct Needed {
    pub(crate) guard: Guard,
    pub(crate) caller: Caller,
    /// None where a lease is enough.
    pub(crate) rule: Option<(Action, String)>,
}

impl Needed {
    /// Whether the call may go on now; returns by which generation.
    pub(crate) fn check(&self) -> Result<Generation, Denial> {
        let fresh = self.guard.fresh()?;
        let Some((action, name)) = &self.rule else { return Ok(self.guard.generation()) };
        let session = self.guard.session(&self.caller.peer, Some(self.caller.remote.ip()))?;
        Ok(session.authorize_named(&fresh, *action, &Kind::SERVICE, name)?.generation())
    }

    /// Sees to it that what rules say of the caller is known.
    pub(crate) fn fetch(&self) -> Fetching {
        Arc::clone(&self.guard.0.source).fetch(&self.caller.peer)
    }

    /// The same, once what rules say of the caller is known.
    async fn checked(&self) -> Result<Generation, Denial> {
        match self.check() {
            Err(Denial::Unfetched) => {
                self.fetch().await?;
                self.check()
            }
            checked => checked,
        }
    }

    fn log(&self, denial: &Denial) {
        let (action, name) = self.rule.as_ref().map_or(("", ""), |(action, name)| (action.word(), name.as_str()));
        tracing::info!(principal = %self.caller.peer.principal(), remote = %self.caller.remote, action, service = name,
            %denial, "denied");
    }
}

/// What a request of this method does to its route.
fn action_of(method: &Method) -> Action {
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS => Action::Read,
        Method::DELETE => Action::Delete,
        _ => Action::Write,
    }
}

/// How to say no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Grpc,
    Http,
}

impl Speaks {
    fn of(headers: &HeaderMap) -> Self {
        let grpc = headers.get(CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
        if grpc { Self::Grpc } else { Self::Http }
    }

    fn refuse(self, denial: &Denial) -> Response {
        let status = status(denial);
        if self == Self::Grpc {
            return status.into_http::<Body>().into_response();
        }
        let code = match status.code() {
            tonic::Code::PermissionDenied => StatusCode::FORBIDDEN,
            tonic::Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        (code, format!("{}\n", status.message())).into_response()
    }
}

/// What whoever asked is told: not by which rule, which is for the log.
pub(crate) fn status(denial: &Denial) -> Status {
    match denial {
        Denial::Denied(decision) => Status::permission_denied(format!("denied (generation {})", decision.generation)),
        Denial::Refused(_) | Denial::RecoveryOnly => Status::unauthenticated(denial.to_string()),
        Denial::NoLease(_) | Denial::Outdated { .. } | Denial::Behind { .. } | Denial::Unfetched => {
            Status::unavailable(denial.to_string())
        }
    }
}

/// The generation that the request asks for, if any. What is no number asks for what will never be.
fn wanted(headers: &HeaderMap) -> Option<Generation> {
    let text = headers.get(MIN_GENERATION)?;
    Some(Generation(text.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)))
}

impl<S> Service<Request<Body>> for GuardService<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that is ready serves; its clone waits its turn.
        let next = self.inner.clone();
        let inner = core::mem::replace(&mut self.inner, next);
        let layer = self.layer.clone();
        Box::pin(async move { Ok(layer.serve(inner, request).await) })
    }
}

impl GuardLayer {
    async fn serve<S>(self, mut inner: S, request: Request<Body>) -> Response
    where
        S: Service<Request<Body>, Response = Response, Error = Infallible>,
    {
        let speaks = Speaks::of(request.headers());
        // Absent only if the router were wired wrongly: refuse.
        let Some(caller) = request.extensions().get::<Caller>().cloned() else {
            return (StatusCode::UNAUTHORIZED, "nobody\n").into_response();
        };
        let path = request.uri().path();
        let rule = (!(self.unguarded)(path)).then(|| {
            let action = if speaks == Speaks::Grpc { Action::Write } else { action_of(request.method()) };
            let name = if speaks == Speaks::Grpc { path.trim_start_matches('/') } else { path };
            (action, name.to_owned())
        });
        let needed = Needed { guard: self.guard.clone(), caller, rule };
        let checked = match self.reach(wanted(request.headers())).await {
            Ok(()) => needed.checked().await,
            Err(behind) => Err(behind),
        };
        let generation = match checked {
            Ok(generation) => generation,
            Err(denial) => {
                needed.log(&denial);
                return speaks.refuse(&denial);
            }
        };
        let asked = needed.clone();
        let request = request.map(|body| Body::new(GuardedBody::new(body, asked, generation, Half::Asked)));
        let Ok(response) = inner.call(request).await;
        let half = if speaks == Speaks::Grpc { Half::AnsweredGrpc } else { Half::Answered };
        let mut response = response.map(|body| Body::new(GuardedBody::new(body, needed, generation, half)));
        response.headers_mut().insert(GENERATION, HeaderValue::from(generation.0));
        response
    }

    /// Waits, not long, until the generation is in force that a request asks for.
    async fn reach(&self, wanted: Option<Generation>) -> Result<(), Denial> {
        let Some(wanted) = wanted else { return Ok(()) };
        // What is no number will never be.
        if wanted.0 != u64::MAX && tokio::time::timeout(BEHIND_MAX, self.guard.reached(wanted)).await.is_ok() {
            return Ok(());
        }
        Err(Denial::Behind { wanted, generation: self.guard.generation() })
    }
}
