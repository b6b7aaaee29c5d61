//! The guard before whole services: each gRPC call is a `write` of the `service` `package.Service/Method`, each HTTP
//! request a `read`, `write` or `delete` of the `service` that is its path.
//!
//! Which of the two is spoken the embedder says, never a request: a header or another spelling must not choose the
//! rule.
//!
//! A call begins only with a permit, and goes on only as long as a permit would be given: each frame of it is asked
//! about again once anything has changed, and a stream without traffic is woken to be ended.

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
use countersign_core::limits::RESOURCE_NAME_LEN_MAX;
use countersign_core::time::BootMillis;
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
/// How often a call is decided again because something changed meanwhile.
const OVERTAKEN_MAX: usize = 8;
/// How long a request waits for the generation that it names.
const BEHIND_MAX: Duration = Duration::from_secs(2);

/// Puts a guard before a service. The connection's [`Caller`] must be in the extensions of each request.
#[derive(Debug, Clone)]
pub struct GuardLayer {
    guard: Guard,
    unguarded: fn(&str) -> bool,
    speaks: Speaks,
}

impl GuardLayer {
    /// Asks `guard` about each call of gRPC services. Other requests are refused.
    pub const fn grpc(guard: Guard) -> Self {
        Self { guard, unguarded: |_| false, speaks: Speaks::Grpc }
    }

    /// Asks `guard` about each request to HTTP routes.
    pub const fn http(guard: Guard) -> Self {
        Self { guard, unguarded: |_| false, speaks: Speaks::Http }
    }

    /// Calls of the paths that `unguarded` picks need no rule about `service`: what they do asks for itself. They need
    /// a lease, as all do.
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

/// By what a call may go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Going {
    pub(crate) generation: Generation,
    /// When it is to be asked about again although nothing was told to have changed.
    pub(crate) until: BootMillis,
}

impl Needed {
    /// Whether the call may go on now, by what, and until when.
    pub(crate) fn check(&self) -> Result<Going, Denial> {
        let fresh = self.guard.fresh()?;
        let Some((action, name)) = &self.rule else {
            return Ok(Going { generation: self.guard.generation(), until: BootMillis(u64::MAX) });
        };
        let session = self.guard.session(&self.caller.peer, Some(self.caller.remote.ip()))?;
        let mut tries = 0..OVERTAKEN_MAX;
        loop {
            let permit = session.authorize_named(&fresh, *action, &Kind::SERVICE, name)?;
            match permit.holds(&self.guard, &fresh) {
                // A call that a change overtook is decided again.
                Err(Denial::Outdated { .. }) if tries.next().is_some() => {}
                held => break held.map(|()| Going { generation: permit.generation(), until: session.until() }),
            }
        }
    }

    /// Sees to it that what rules say of the caller is known.
    pub(crate) fn fetch(&self) -> Fetching {
        Arc::clone(&self.guard.0.source).fetch(&self.caller.peer)
    }

    /// Whether a call that went on by an earlier decision still may.
    async fn again(&self, before: Going) -> Result<Going, Denial> {
        let still = self.guard.fresh()?.now() < before.until && self.guard.generation() <= before.generation;
        if still { Ok(before) } else { self.checked().await }
    }

    /// [`Needed::check`], once what rules say of the caller is known.
    async fn checked(&self) -> Result<Going, Denial> {
        match self.check() {
            Err(Denial::Unfetched) => {
                self.fetch().await?;
                self.check()
            }
            checked => checked,
        }
    }

    fn log(&self, denial: &Denial) {
        let shared = &self.guard.0;
        let told = shared.denials.count(&self.caller.peer.principal().role, shared.time.boot());
        if told.missed > 0 {
            tracing::warn!(denials = told.missed, "denials of the minute before were too many to be logged");
        }
        if !told.logged {
            return;
        }
        let (action, name) = self.rule.as_ref().map_or(("", ""), |(action, name)| (action.word(), name.as_str()));
        // A longer name is never allowed, and a caller chooses it.
        let name = name.get(..name.floor_char_boundary(RESOURCE_NAME_LEN_MAX)).unwrap_or_default();
        tracing::info!(principal = %self.caller.peer.principal(), remote = %self.caller.remote, action, service = name,
            %denial, "denied");
    }
}

impl Guard {
    /// Whether `caller` may do `action` to the `service` of this name now, for protocols that are not HTTP; the
    /// generation that says so. A denial is logged. To be asked again where the effect begins.
    ///
    /// # Errors
    /// [`Denial`].
    pub async fn admit(&self, caller: &Caller, action: Action, service: &str) -> Result<Generation, Denial> {
        let rule = Some((action, service.to_owned()));
        let needed = Needed { guard: self.clone(), caller: caller.clone(), rule };
        let checked = needed.checked().await;
        if let Err(denial) = &checked {
            needed.log(denial);
        }
        checked.map(|going| going.generation)
    }
}

/// The one spelling of a path: percent-decoded once. None for what could be read as another path: a separator or a
/// percent sign that is encoded, empty or dot segments, and bytes that are no text.
fn route(path: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            // It stands in paths as it is, though no standard has it there; some take it for a separator.
            if byte == b'\\' {
                return None;
            }
            decoded.push(byte);
            continue;
        }
        let hex = |digit: Option<u8>| char::from(digit?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (high, low) = (hex(bytes.next())?, hex(bytes.next())?);
        match high * 16 + low {
            b'/' | b'\\' | b'%' | 0..0x20 | 0x7f => return None,
            byte => decoded.push(byte),
        }
    }
    let decoded = String::from_utf8(decoded).ok()?;
    let inner = decoded.strip_prefix('/')?;
    let last = inner.split('/').count().saturating_sub(1);
    let segment = |(at, segment): (usize, &str)| !matches!(segment, "." | "..") && (!segment.is_empty() || at == last);
    inner.split('/').enumerate().all(segment).then_some(decoded)
}

/// The protocol spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Grpc,
    Http,
}

impl Speaks {
    /// The action of the request, and the service; none if it does not speak the protocol spoken here.
    fn asks(self, request: &Request<Body>) -> Option<(Action, String)> {
        let path = request.uri().path();
        match self {
            Self::Grpc => {
                let grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
                let is_call = request.method() == Method::POST && request.headers().get(CONTENT_TYPE).is_some_and(grpc);
                let name = path.strip_prefix('/').filter(|name| name.split('/').count() == 2)?;
                is_call.then(|| (Action::Write, name.to_owned()))
            }
            Self::Http => {
                let action = match *request.method() {
                    Method::GET | Method::HEAD | Method::OPTIONS => Action::Read,
                    Method::DELETE => Action::Delete,
                    // A tunnel would leave the guard behind.
                    Method::CONNECT => return None,
                    _ => Action::Write,
                };
                route(path).map(|name| (action, name))
            }
        }
    }

    fn refuse(self, denial: &Denial) -> Response {
        let status = status(denial);
        if self == Self::Grpc {
            return status.into_http::<Body>().into_response();
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "an enum of another crate, of which a denial uses few")]
        let code = match status.code() {
            tonic::Code::PermissionDenied => StatusCode::FORBIDDEN,
            tonic::Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        (code, format!("{}\n", status.message())).into_response()
    }
}

/// The answer to a denied caller. It does not name the rule, which is for the log.
pub(crate) fn status(denial: &Denial) -> Status {
    match denial {
        Denial::Denied(decision) => Status::permission_denied(format!("denied (generation {})", decision.generation)),
        Denial::Refused(_) | Denial::RecoveryOnly => Status::unauthenticated(denial.to_string()),
        Denial::NoLease(_) | Denial::Outdated { .. } | Denial::Behind { .. } | Denial::Unfetched => {
            Status::unavailable(denial.to_string())
        }
    }
}

/// The generation that the request asks for, if any. A text that is no number asks for one that never comes.
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
        let speaks = self.speaks;
        // Absent only if the router were wired wrongly: refuse.
        let Some(caller) = request.extensions().get::<Caller>().cloned() else {
            return (StatusCode::UNAUTHORIZED, "no caller\n").into_response();
        };
        let Some(rule) = speaks.asks(&request) else {
            return (StatusCode::BAD_REQUEST, "no call that could be decided about\n").into_response();
        };
        let rule = (!(self.unguarded)(request.uri().path())).then_some(rule);
        let needed = Needed { guard: self.guard.clone(), caller, rule };
        // Before anything is waited for: a denied caller waits for nothing.
        let mut checked = needed.checked().await;
        if checked.is_ok()
            && let Some(wanted) = wanted(request.headers())
        {
            checked = match self.reach(wanted).await {
                Ok(()) => needed.checked().await,
                Err(behind) => Err(behind),
            };
        }
        let going = match checked {
            Ok(going) => going,
            Err(denial) => {
                needed.log(&denial);
                return speaks.refuse(&denial);
            }
        };
        let asked = needed.clone();
        let request = request.map(|body| Body::new(GuardedBody::new(body, asked, going, Half::Asked)));
        let Ok(response) = inner.call(request).await;
        // The handler took its time: its answer, be it the head alone, is handed over by the rules in force now.
        let going = match needed.again(going).await {
            Ok(going) => going,
            Err(denial) => {
                needed.log(&denial);
                return speaks.refuse(&denial);
            }
        };
        let half = if speaks == Speaks::Grpc { Half::AnsweredGrpc } else { Half::Answered };
        let mut response = response.map(|body| Body::new(GuardedBody::new(body, needed, going, half)));
        response.headers_mut().insert(GENERATION, HeaderValue::from(going.generation.0));
        response
    }

    /// Waits, not long, until the generation is in force that a request asks for.
    async fn reach(&self, wanted: Generation) -> Result<(), Denial> {
        // A text that is no number never comes.
        if wanted.0 != u64::MAX && tokio::time::timeout(BEHIND_MAX, self.guard.reached(wanted)).await.is_ok() {
            return Ok(());
        }
        Err(Denial::Behind { wanted, generation: self.guard.generation() })
    }
}
