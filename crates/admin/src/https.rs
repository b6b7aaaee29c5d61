//! The HTTPS port: the admin API for holders of a certificate that policy allows, health and metrics for every caller.
//!
//! Authority comes from the TLS connection alone. Headers in which a proxy claims to have seen a certificate are not
//! read: behind a proxy that ends TLS no caller is an admin.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{Extension, RawPathParams, Request, State};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use countersign_core::id::RequestId;
use countersign_core::limits::{ADMIN_BODY_MILLIS_MAX, HANDSHAKES_IN_FLIGHT_MAX};
use countersign_core::name::Host;
use countersign_core::peer::Refusal;
use countersign_core::trust::view::View;
use countersign_net::acceptor::pause_after;
use countersign_net::https::{HttpsCertificate, HttpsPeer, HttpsRefusals, accept_https};
use countersign_node::service::site::{self, Elsewhere, Named, Names, ServedName, Target};
use countersign_node::{Endpoints, Local, Node, Settings, bind_again, chain};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::ServeError;
use crate::access::{Access, Admin, Asked, Asker, Checked, log_refused};
use crate::body::received;
use crate::https_files::HttpsFiles;
use crate::problem::{AdminError, new_request, numbered};
use crate::routes::{Port, Row, Terms, router};

/// How long a connection may be silent.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How long a connection lasts of a caller that the cluster does not know, whatever happens on it: places are few, and
/// it needs one answer.
const ANONYMOUS_MAX: Duration = Duration::from_secs(10);
/// How long the body of a request may take to arrive, unless it is long.
const BODY_MAX: Duration = Duration::from_millis(ADMIN_BODY_MILLIS_MAX);
/// How often it is looked whether a request under way is still allowed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Serves HTTPS on `address`; returns where it is bound, and the operator's files.
pub(crate) async fn spawn(
    node: &Node,
    address: SocketAddr,
    settings: &Settings,
) -> Result<(SocketAddr, Option<Arc<HttpsFiles>>), ServeError> {
    let files = settings.https_files.as_ref().map(HttpsFiles::open).transpose()?.map(Arc::new);
    let reloadable = files.clone();
    let cannot = |source| ServeError::Bind { address, source };
    let listener = bind_again(address, Endpoints::load(&node.local.data).https).await.map_err(cannot)?;
    let bound = listener.local_addr().map_err(cannot)?;
    let (admin, local) = (Admin::of(node), Arc::clone(&node.local));
    let app = router(&admin, &Https(admin.clone()));
    let (refusals, tasks) = (Arc::new(HttpsRefusals::new(node.local.endpoint.clone())), node.tasks.clone());
    let served = settings.https_names.clone();
    let places = Arc::new(Semaphore::new(HANDSHAKES_IN_FLIGHT_MAX));
    node.tasks.spawn(async move {
        loop {
            // A place first: connections beyond the limit wait in the kernel's queue, which is bounded too.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((socket, remote)) => {
                    let Some(share) = refusals.share(remote) else { continue };
                    let (refusals, certificate) = (Arc::clone(&refusals), shown(files.as_deref()));
                    let names = names_of(&local, &certificate, &served);
                    let app = app.clone().layer(Extension(Site(names)));
                    tasks.spawn(async move {
                        serve(&refusals, app, certificate, socket, remote).await;
                        drop((place, share));
                    });
                }
                Err(error) => pause_after(&error).await,
            }
        }
    });
    Ok((bound, reloadable))
}

/// The certificate of the next connection: renewed and replaced ones are taken up at once.
fn shown(files: Option<&HttpsFiles>) -> HttpsCertificate {
    files.map_or(HttpsCertificate::Node, |files| HttpsCertificate::Operator(files.current()))
}

/// The hosts that a connection answers for: those of the certificate that it shows, those of the settings, and the
/// shared names of the cluster.
fn names_of(local: &Arc<Local>, certificate: &HttpsCertificate, served: &[ServedName]) -> Names {
    let (local, served) = (Arc::clone(local), served.to_vec());
    let shown = match certificate {
        HttpsCertificate::Node => local.endpoint.trust().load().credential.clone(),
        HttpsCertificate::Operator(own) => Some(Arc::clone(own)),
    };
    Arc::new(move |host: &Host, port| {
        let told = served.iter().map(|name| name.named(host, port)).find(|named| *named != Named::Not);
        if let Some(named) = told {
            named
        } else if local.view().client_names.contains(host) {
            Named::Shared
        } else if shown.as_ref().is_some_and(|shown| shown.is_for(host)) {
            Named::Own
        } else {
            Named::Not
        }
    })
}

/// The hosts that a connection answers for.
#[derive(Clone)]
struct Site(Names);

async fn serve(
    refusals: &Arc<HttpsRefusals>,
    app: Router,
    certificate: HttpsCertificate,
    socket: TcpStream,
    remote: SocketAddr,
) {
    match accept_https(refusals, certificate, socket, remote).await {
        Ok((stream, peer)) => {
            let lasts = (!peer.is_known()).then_some(ANONYMOUS_MAX);
            if let Err(error) = serve_http(stream, app.layer(Extension(peer)), IDLE_MAX, lasts).await {
                tracing::debug!(%remote, %error, "HTTPS connection ended");
            }
        }
        Err(error) => tracing::debug!(%remote, error = %chain(&error), "HTTPS handshake failed"),
    }
}

/// A client that is silent for `idle`, before a request or between two, loses its place. A client with a `lasts` loses
/// it after one answer, or once that time is over.
async fn serve_http<S>(stream: S, app: Router, idle: Duration, lasts: Option<Duration>) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .keep_alive(lasts.is_none())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    match lasts {
        None => served.await,
        Some(lasts) => tokio::time::timeout(lasts, served).await.unwrap_or(Ok(())),
    }
}

/// Serves every endpoint that is not for the socket alone, to callers that policy allows it.
struct Https(Admin);

impl Port for Https {
    fn serves(&self, access: &Access) -> bool {
        !matches!(access, Access::Local)
    }

    fn checked(&self, row: Row, handler: MethodRouter) -> MethodRouter {
        let sent_on = from_fn_with_state(self.0.clone(), crate::leader::send_to_leader);
        handler.layer(sent_on).layer(from_fn_with_state(row, check))
    }
}

/// The body of an unknown caller, or of one that is denied whatever the body says, is not even read. An allowed caller
/// is judged again once the whole request is here, so that it gains nothing by withholding the last byte. From then on
/// it is judged at every step that is taken for it.
async fn check(
    State(row): State<Row>,
    Extension(peer): Extension<HttpsPeer>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let mut answer = match new_request() {
        Ok(number) => numbered(checked(&row, number, &peer, params.ok(), request, next).await, number),
        Err(error) => error.into_response(),
    };
    // Its place is for others, also where it was known when it came.
    if !peer.is_known() {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

async fn checked(
    row: &Row,
    number: RequestId,
    peer: &HttpsPeer,
    params: Option<RawPathParams>,
    mut request: Request,
    next: Next,
) -> Response {
    let admin = &row.admin;
    let Terms { access, leaseless, body_len_max } = row.terms(request.method());
    if matches!(access, Access::Open) {
        request.extensions_mut().insert(Checked::new(Asker::anonymous(admin, number), access));
        return next.run(request).await;
    }
    // A browser would send its certificate along with what another site made it ask for.
    if let Err(elsewhere) = is_for_here(peer, &request) {
        return misdirected(peer, &elsewhere).into_response();
    }
    let asked = |view: &View| access.asked(view, params.as_ref());
    let asker = match asker(admin, peer, number, asked) {
        Ok(asker) => asker,
        Err(refused) => return refused.into_response(),
    };
    let (mut request, place) = match received(request, body_len_max, BODY_MAX, admin.bounds()).await {
        Ok(received) => received,
        Err(error) => return error.into_response(),
    };
    request.extensions_mut().insert(Checked::new(asker.clone(), access));
    let allowed = || {
        asker.judge()?;
        if leaseless { Ok(()) } else { leased(admin) }
    };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = while_allowed(allowed, async {
        tracing::info!(remote = %peer.remote, request = %number, %method, path, "admin request");
        next.run(request).await
    });
    let answer = answer.await;
    drop(place);
    answer
}

/// The request, judged by all that is known of it before its body.
fn asker(
    admin: &Admin,
    peer: &HttpsPeer,
    number: RequestId,
    asked: impl FnOnce(&View) -> Option<Asked>,
) -> Result<Asker, AdminError> {
    let view = admin.member()?.local.view();
    let asker = Asker::peer(admin, peer, number, asked(&view));
    asker.judge()?;
    Ok(asker)
}

fn is_for_here(peer: &HttpsPeer, request: &Request) -> Result<(), Elsewhere> {
    // Absent only if the router were wired wrongly: refuse.
    let Some(Site(names)) = request.extensions().get::<Site>() else { return Err(Elsewhere::NoHost) };
    site::check(request, Target::Call, (peer.local, names))
}

fn misdirected(peer: &HttpsPeer, elsewhere: &Elsewhere) -> AdminError {
    let message = elsewhere.to_string();
    log_refused(peer, &message);
    let next = match elsewhere {
        Elsewhere::NoHost => "send one `Host`",
        Elsewhere::Host(_) => "ask by a host in the certificate of this port, or name the host in `[https] names`",
        Elsewhere::Site => "use `countersign --server`, not a browser's page",
    };
    AdminError::new(elsewhere.status(), elsewhere.code(), message, next)
}

/// A member that has not heard lately of revocations takes no certificate for an admin's.
fn leased(admin: &Admin) -> Result<(), AdminError> {
    let member = admin.member()?;
    member.lease.fresh().map(|_| ()).map_err(|no_lease| {
        AdminError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            Refusal::NoLease.label(),
            no_lease.to_string(),
            "see `countersign status`; use the local socket, or another member that has a lease",
        )
    })
}

/// Asks before every step whether it may be taken: a command may wait seconds for a leader, and must not outlive the
/// admin's certificate or this member's lease. A command that has been proposed by then may be carried out
/// nevertheless.
async fn while_allowed(allowed: impl Fn() -> Result<(), AdminError>, work: impl Future<Output = Response>) -> Response {
    let mut work = pin!(work);
    let mut again = tokio::time::interval(LOOK_AGAIN);
    let mut begun = false;
    poll_fn(|cx| {
        // Also while the work waits for something else, such as a connection to the leader.
        while again.poll_tick(cx).is_ready() {}
        if let Err(mut error) = allowed() {
            if begun {
                error.problem.message.push_str("; the request was under way, and may have been carried out");
            }
            return Poll::Ready(error.into_response());
        }
        begun = true;
        work.as_mut().poll(cx)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// Longer than anything takes on a loaded machine; only a failure waits so long.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_request_under_way_takes_no_step_after_its_admin_is_refused() {
        let (steps, allowed) = (Cell::new(0), Cell::new(true));
        let ask = || {
            let refused = || AdminError::new(StatusCode::FORBIDDEN, "key-revoked", "revoked", "none");
            if allowed.get() { Ok(()) } else { Err(refused()) }
        };
        let work = async {
            steps.set(1);
            tokio::task::yield_now().await;
            steps.set(2);
            allowed.set(false);
            tokio::task::yield_now().await;
            steps.set(3);
            StatusCode::OK.into_response()
        };
        assert_eq!((while_allowed(ask, work).await.status(), steps.get()), (StatusCode::FORBIDDEN, 2));
        // One that waits for something that does not come, too; and one that may not begin does not.
        allowed.set(true);
        let waiting = async {
            steps.set(4);
            allowed.set(false);
            std::future::pending().await
        };
        let begun = Instant::now();
        // A timeout polls it once more before it gives up, which would do.
        let ended = tokio::time::timeout(PATIENCE, while_allowed(ask, waiting)).await.expect("it is under way still");
        assert!(begun.elapsed() < PATIENCE, "nothing woke it");
        assert_eq!((ended.status(), steps.get()), (StatusCode::FORBIDDEN, 4));
        let refused = while_allowed(ask, async {
            steps.set(5);
            StatusCode::OK.into_response()
        });
        assert_eq!((refused.await.status(), steps.get()), (StatusCode::FORBIDDEN, 4));
    }

    fn served() -> DuplexStream {
        served_for(None)
    }

    fn served_for(lasts: Option<Duration>) -> DuplexStream {
        let (client, server) = duplex(4096);
        let app = Router::new().route("/", axum::routing::get(async || "ok"));
        let app = app.route("/long", axum::routing::get(async || "x".repeat(100_000)));
        tokio::spawn(serve_http(server, app, Duration::from_millis(20), lasts));
        client
    }

    #[tokio::test]
    async fn a_client_without_a_certificate_has_its_place_for_one_answer() {
        let mut asks_twice = served_for(Some(PATIENCE));
        asks_twice.write_all(&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2)).await.unwrap();
        let mut said = String::new();
        asks_twice.read_to_string(&mut said).await.unwrap();
        assert_eq!(said.matches("HTTP/1.1 200").count(), 1, "{said}");
        // One that does not read what it asked for.
        let mut silent = served_for(Some(Duration::from_millis(20)));
        silent.write_all(b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let gone = async {
            while silent.write_all(b"x").await.is_ok() {
                // why: nothing tells when the other end is gone
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("it has its place still");
    }

    /// The connection is ended by the other side; what it said before.
    async fn until_ended(client: &mut DuplexStream) -> String {
        let mut said = Vec::new();
        tokio::time::timeout(PATIENCE, client.read_to_end(&mut said)).await.expect("the place is kept").unwrap();
        String::from_utf8(said).unwrap()
    }

    #[tokio::test]
    async fn a_silent_client_on_the_https_port_loses_its_place() {
        for begun in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: x\r\n"] {
            let mut client = served();
            client.write_all(begun.as_bytes()).await.unwrap();
            let said = until_ended(&mut client).await;
            assert!(!said.contains("200 OK"), "{begun:?}: {said}");
        }
        // Between two requests, too.
        let mut client = served();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let said = until_ended(&mut client).await;
        assert!(said.contains("200 OK") && said.ends_with("ok"), "{said}");
    }
}
