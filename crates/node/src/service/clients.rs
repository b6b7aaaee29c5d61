//! The client port as it is served: HTTP/2 and HTTP/1.1 for principals, each request decided by the guard.
//!
//! A request that speaks gRPC goes to the services, any other to the embedder's HTTP app. A caller that the cluster
//! refuses gets the reason as the answer to its first request, and then its connection ends.

use core::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use countersign_core::id::FailureId;
use countersign_core::peer::Refusal;
use countersign_core::principal::Role;
use countersign_guard::{Caller, Guard, GuardLayer};
use countersign_net::{ClientConnection, HttpVersion};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;
use tower::ServiceExt;

use super::pace::{HEAD_MAX, Heads, Paced};
use super::site::{self, Elsewhere, Names, Target};
use super::slow::{SILENCE_MAX, timely};
use super::under_way::UnderWay;
use super::unread::in_pieces;
use super::{endpoints, upload};
use crate::settings::ClientLimits;
use crate::tasks::Tasks;

/// How long an HTTP/1.1 connection may be silent between requests.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Silence after which an HTTP/2 caller is asked whether it is there, and how long it may take to say so.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_MAX: Duration = Duration::from_secs(20);
/// The header in which the answer to a call names the code of a refusal; problem details have it in their `code`.
pub const REFUSAL: &str = "countersign-refusal";
/// The header in which a member or guard that cannot issue certificates names the client ports of voters, separated by
/// commas.
pub const VOTERS: &str = "countersign-voters";
/// How long requests under way may take to end once no more are taken.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Bytes of an answer that wait for one stream of HTTP/2 to take them.
const SEND_BUFFER_LEN_MAX: usize = 16 * 1024;
/// Bytes of one stream that a caller may send before they are read, if the whole connection may have more.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes of the headers of one request.
const HEADERS_LEN_MAX: u32 = 16 * 1024;
/// Bytes of a message to `grpc.health.v1`.
const HEALTH_LEN_MAX: usize = 1024;

/// gRPC services and an HTTP app, both behind the guard. A request goes to one of them by what it speaks; neither sees
/// what is meant for the other, and the app may have a fallback of its own.
#[derive(Clone)]
struct Guarded {
    grpc: Router,
    http: Router,
}

impl Guarded {
    /// Beside the services, health is served, which every principal may ask for.
    fn new(guard: &Guard, services: Routes, app: Option<Router>) -> Self {
        // Behind the guard as well: a member without a lease is not healthy for clients, and a watch ends with it.
        let (_, health) = tonic_health::server::health_reporter();
        let services = services.add_service(health.max_decoding_message_size(HEALTH_LEN_MAX));
        let layer = GuardLayer::grpc(guard.clone()).without_rule(endpoints::without_rule);
        Self {
            grpc: services.into_axum_router().layer(layer),
            http: app.unwrap_or_default().layer(GuardLayer::http(guard.clone())),
        }
    }

    async fn answer(self, request: Request<Body>) -> Response {
        let router = if speaks_grpc(&request) { self.grpc } else { self.http };
        match router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// What the client port serves.
#[derive(Clone)]
pub struct ClientApp {
    guarded: Guarded,
    names: Names,
    under_way: UnderWay,
    limits: ClientLimits,
}

impl ClientApp {
    /// Services and an HTTP app behind the guard. Requests for hosts that `names` does not know are refused.
    pub fn new(guard: &Guard, services: Routes, app: Option<Router>, names: Names) -> Self {
        let limits = ClientLimits::default();
        Self { guarded: Guarded::new(guard, services, app), names, under_way: UnderWay::new(limits.requests), limits }
    }

    /// With other bounds on what one caller may take.
    #[must_use]
    pub fn within(self, limits: ClientLimits) -> Self {
        Self { under_way: UnderWay::new(limits.requests), limits, ..self }
    }

    /// The requests under way. Those over QUIC are counted among them.
    pub(super) fn under_way(&self) -> UnderWay {
        self.under_way.clone()
    }

    /// Answers a request of `caller` on its connection to `local`.
    async fn answer(self, mut request: Request<Body>, caller: Caller, local: SocketAddr) -> Response {
        let role = &caller.peer.principal().role;
        let Some(place) = self.under_way.begin(role) else {
            return too_many(&self.under_way.too_many(role), speaks_grpc(&request));
        };
        request.extensions_mut().insert(caller);
        place.until_answered(self.answer_one(request, local).await)
    }

    async fn answer_one(self, request: Request<Body>, local: SocketAddr) -> Response {
        if let Some(refused) = tunnel(&request) {
            return refused;
        }
        let target = if speaks_grpc(&request) { Target::Call } else { Target::Page };
        let request = request.map(|body| timely(body, target == Target::Call, SILENCE_MAX));
        let elsewhere = site::check(&request, target, (local, &self.names)).err();
        let answer = async |request| match elsewhere {
            None => self.guarded.answer(request).await,
            Some(elsewhere) => misdirected(&elsewhere),
        };
        match target {
            // A call is read to its end by the gRPC server, or is answered by trailers alone.
            Target::Call => answer(request).await,
            Target::Page if request.body().is_end_stream() => answer(request).await,
            Target::Page => {
                let (parts, body) = request.into_parts();
                let (lent, kept) = upload::lend(body);
                let answered = answer(Request::from_parts(parts, lent)).await;
                // Others wait for nothing: they were decided about just now.
                if answered.status().is_client_error() || answered.status().is_server_error() {
                    kept.finish().await;
                }
                answered
            }
        }
    }
}

/// Whether a request is a gRPC call by its content type.
fn speaks_grpc<B>(request: &Request<B>) -> bool {
    let content = request.headers().get(header::CONTENT_TYPE);
    content.is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"))
}

/// The answer to a request that would leave HTTP, and so the guard, behind.
fn tunnel<B>(request: &Request<B>) -> Option<Response> {
    if *request.method() == Method::CONNECT || *request.method() == Method::TRACE {
        return Some((StatusCode::METHOD_NOT_ALLOWED, "no tunnels and no traces\n").into_response());
    }
    let upgrades = request.headers().contains_key(header::UPGRADE);
    upgrades.then(|| (StatusCode::NOT_IMPLEMENTED, "no other protocol is spoken here\n").into_response())
}

/// Serves accepted connections until the member stops.
pub fn serve(tasks: &Tasks, mut accepted: Receiver<ClientConnection>, app: ClientApp) {
    let (stop, spawning) = (tasks.stopping(), tasks.clone());
    tasks.spawn(async move {
        while let Some(connection) = accepted.recv().await {
            spawning.spawn_finishing(serve_one(connection, app.clone(), stop.clone()));
        }
    });
}

async fn serve_one(connection: ClientConnection, app: ClientApp, stop: CancellationToken) {
    match connection {
        ClientConnection::Accepted { stream, http, local } => {
            let app_limits = app.limits;
            let caller = Caller { peer: stream.peer().clone(), remote: stream.remote() };
            let answer = move |request: Request<Body>| app.clone().answer(request, caller.clone(), local);
            speak(stream, http, app_limits, answer, stop.cancelled_owned()).await;
        }
        ClientConnection::Refused { stream, http, principal, refusal, failure_id } => {
            let why = reason(refusal, &principal.role, app.limits);
            let told = Arc::new(Notify::new());
            let telling = Arc::clone(&told);
            let answer = move |request: Request<Body>| {
                let (telling, why) = (Arc::clone(&telling), why.clone());
                async move {
                    let refused = refused((refusal, &why), failure_id, speaks_grpc(&request));
                    upload::read_rest(request.into_body()).await;
                    telling.notify_one();
                    refused
                }
            };
            speak(stream, http, app.limits, answer, async move {
                tokio::select! {
                    () = told.notified() => {}
                    () = stop.cancelled() => {}
                }
            })
            .await;
        }
    }
}

/// The answer to a caller that has as many requests under way as it may.
fn too_many(text: &str, grpc: bool) -> Response {
    if grpc {
        return Status::resource_exhausted(text).into_http::<Body>();
    }
    problem(StatusCode::TOO_MANY_REQUESTS, text, "requests", None)
}

/// The answer to a request that is not for this port.
fn misdirected(elsewhere: &Elsewhere) -> Response {
    problem(elsewhere.status(), &elsewhere.to_string(), elsewhere.code(), None)
}

/// Problem details (RFC 9457), with a code and, for a refused connection, its failure id.
fn problem(status: StatusCode, title: &str, code: &str, failure_id: Option<FailureId>) -> Response {
    // As it is printed everywhere, and as `countersign explain` takes it.
    let failure_id = failure_id.map(|id| id.to_string());
    let details = Problem { r#type: "about:blank", title, status: status.as_u16(), code, failure_id };
    let text = serde_json::to_string(&details).unwrap_or_default();
    let content = (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    (status, [content], text).into_response()
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_id: Option<String>,
}

/// Speaks HTTP until the connection ends. Once `end` does, no further request is taken.
async fn speak<S, A, F>(stream: S, http: HttpVersion, limits: ClientLimits, answer: A, end: impl Future<Output = ()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Body>) -> F + Clone + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let heads = match http {
        HttpVersion::Http1 => Some(Heads::default()),
        HttpVersion::Http2 => None,
    };
    let read = heads.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let answering = read.as_ref().map(Heads::answering);
        let answered = answer(request.map(|body| match &answering {
            Some(answering) => answering.with_body(Body::new(body)),
            None => Body::new(body),
        }));
        async move {
            let answered: Response = answered.await;
            Ok::<_, Infallible>(match answering {
                Some(answering) if !answered.body().is_end_stream() => {
                    answered.map(|body| in_pieces(body, SEND_BUFFER_LEN_MAX, answering))
                }
                Some(_) | None => answered,
            })
        }
    });
    let io = TokioIo::new(Paced::new(stream, heads, HEAD_MAX));
    macro_rules! drive {
        ($connection:expr) => {{
            let mut connection = core::pin::pin!($connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = end => {
                    connection.as_mut().graceful_shutdown();
                    match tokio::time::timeout(DRAIN_MAX, connection).await {
                        Ok(ended) => ended,
                        Err(_) => return tracing::debug!("connection of a client was cut: it did not end"),
                    }
                }
            };
            if let Err(error) = ended {
                tracing::debug!(error = %crate::chain(&error), "connection of a client ended");
            }
        }};
    }
    match http {
        HttpVersion::Http2 => drive!(
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING_AFTER)
                .keep_alive_timeout(PING_MAX)
                .max_concurrent_streams(limits.streams)
                .initial_stream_window_size(STREAM_WINDOW.min(limits.unread_bytes))
                .initial_connection_window_size(limits.unread_bytes)
                .max_header_list_size(HEADERS_LEN_MAX)
                .max_send_buf_size(SEND_BUFFER_LEN_MAX)
                .serve_connection(io, service)
        ),
        HttpVersion::Http1 => drive!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE_MAX)
                .max_buf_size(HEADERS_LEN_MAX as usize)
                .serve_connection(io, service)
        ),
    }
}

/// Why a caller is refused, in words.
fn reason(refusal: Refusal, role: &Role, limits: ClientLimits) -> String {
    if refusal == Refusal::Connections {
        return format!("{} connections of {role} are open here", limits.connections);
    }
    refusal.to_string()
}

/// The answer to a caller that the cluster refuses: a gRPC status, or problem details (RFC 9457).
fn refused((refusal, why): (Refusal, &str), failure_id: FailureId, grpc: bool) -> Response {
    let busy = matches!(refusal, Refusal::Overloaded | Refusal::Connections | Refusal::NotReady | Refusal::NoLease);
    let text = format!("{why} (failure {failure_id})");
    if grpc {
        let status = if busy { Status::unavailable(text) } else { Status::permission_denied(text) };
        let mut answer = status.into_http::<Body>();
        answer.headers_mut().insert(REFUSAL, HeaderValue::from_static(refusal.label()));
        return answer;
    }
    let code = if busy { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::FORBIDDEN };
    problem(code, why, refusal.label(), Some(failure_id))
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    /// The other end of a connection of HTTP/1.1 on which `answer` is served.
    fn http1<A, F>(answer: A) -> DuplexStream
    where
        A: Fn(Request<Body>) -> F + Clone + Send + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let (client, server) = tokio::io::duplex(4096);
        let end = std::future::pending();
        tokio::spawn(speak(server, HttpVersion::Http1, ClientLimits::default(), answer, end));
        client
    }

    /// The head of the next answer, without a body.
    async fn answered(client: &mut DuplexStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match client.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8(head).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn body_read_on_after_its_answer_is_no_head_that_is_slow() {
        let (sender, mut read) = tokio::sync::mpsc::unbounded_channel();
        let mut client = http1(move |request| {
            let sender = sender.clone();
            async move {
                tokio::spawn(
                    async move { sender.send(request.into_body().collect().await.map(|body| body.to_bytes())) },
                );
                StatusCode::ACCEPTED.into_response()
            }
        });
        client.write_all(b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n").await.unwrap();
        assert!(answered(&mut client).await.starts_with("HTTP/1.1 202"));
        for byte in *b"abcd" {
            // why: the clock is paused, and this moves it
            tokio::time::sleep(HEAD_MAX * 2 / 3).await;
            client.write_all(&[byte]).await.unwrap();
        }
        assert_eq!(read.recv().await.unwrap().unwrap(), Bytes::from_static(b"abcd"));
        // The next request is as good as the first.
        // why: the clock is paused, and this moves it
        tokio::time::sleep(HEAD_MAX * 2).await;
        client.write_all(b"POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        assert!(answered(&mut client).await.starts_with("HTTP/1.1 202"));
    }

    #[tokio::test(start_paused = true)]
    async fn head_that_came_with_the_last_one_has_its_own_time() {
        let slow = |request: Request<Body>| async move {
            if request.uri().path() == "/slow" {
                // why: the clock is paused, and this moves it
                tokio::time::sleep(HEAD_MAX * 2).await;
            }
            StatusCode::NO_CONTENT.into_response()
        };
        let mut client = http1(slow);
        client.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\nGET /two HTTP/1.1\r\n").await.unwrap();
        assert!(answered(&mut client).await.starts_with("HTTP/1.1 204"));
        client.write_all(b"host: x\r\n\r\n").await.unwrap();
        assert!(answered(&mut client).await.starts_with("HTTP/1.1 204"), "the second head was cut");
        // A handler that does not read the body leaves no deadline behind.
        client.write_all(b"POST /three HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc").await.unwrap();
        assert!(answered(&mut client).await.starts_with("HTTP/1.1 204"));
        // why: the clock is paused, and this moves it
        tokio::time::sleep(HEAD_MAX * 2).await;
        client.write_all(b"GET /four HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(answered(&mut client).await.starts_with("HTTP/1.1 204"), "the silence was cut");
    }

    #[tokio::test(start_paused = true)]
    async fn attack_head_that_never_ends_is_cut_wherever_it_begins() {
        let gone = |_: Request<Body>| async { StatusCode::NO_CONTENT.into_response() };
        for before in
            ["", "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\na"]
        {
            let mut client = http1(gone);
            client.write_all(before.as_bytes()).await.unwrap();
            let begun = tokio::time::Instant::now();
            // It drips, and nothing is answered any more.
            while client.write_all(b"G").await.is_ok() && begun.elapsed() < IDLE_MAX {
                // why: the clock is paused, and this moves it
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            assert!(begun.elapsed() < HEAD_MAX * 2, "{before:?}: {:?}", begun.elapsed());
        }
    }
}
