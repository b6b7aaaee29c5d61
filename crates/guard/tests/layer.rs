//! Whole services behind a guard: no call begins without a permit, and none goes on without.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::any;
use countersign_core::id::Generation;
use countersign_core::lease::LeaseLength;
use countersign_core::trust::command::{Command, RevokePrincipal};
use countersign_guard::{Caller, GENERATION, GuardLayer, MIN_GENERATION};
use http_body_util::BodyExt;
use support::{NOW, World, client, rule};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tower::ServiceExt;

fn caller(world: &World) -> Caller {
    Caller { peer: world.peer("pay"), remote: "10.0.0.7:1".parse().unwrap() }
}

/// Echoes a body; streams the bytes that are sent into a channel.
fn app(world: &World, stream: Option<mpsc::Receiver<Bytes>>) -> Router {
    let stream = Arc::new(Mutex::new(stream));
    let streaming = any(async move || {
        let receiver = stream.lock().await.take().unwrap();
        Body::from_stream(ReceiverStream::new(receiver).map(Ok::<_, std::io::Error>))
    });
    let grpc = Router::new()
        .route("/pkg.Svc/Stream", streaming.clone())
        // As tonic routes: whatever the method and the content type.
        .route("/pkg.Svc/{*rest}", any(async || "SERVED"))
        .layer(GuardLayer::grpc(world.guard.clone()));
    let http = Router::new()
        .route("/echo", any(async |body: Body| body))
        .route("/other", any(async || "other"))
        .route("/topics/{topic}", any(async |Path(topic): Path<String>| format!("SERVED {topic}")))
        .route("/stream", streaming)
        .route("/own", any(async || "own"))
        .layer(GuardLayer::http(world.guard.clone()).without_rule(|path| path == "/own"));
    http.merge(grpc)
}

async fn call(world: &World, app: Router, method: &str, path: &str, grpc: bool, headers: &[(&str, &str)]) -> Response {
    let content = if grpc { "application/grpc" } else { "text/plain" };
    let mut request = Request::builder().method(method).uri(path).header("content-type", content);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    app.oneshot(request.extension(caller(world)).body(Body::from("x")).unwrap()).await.unwrap()
}

async fn status(world: &World, method: &str, path: &str) -> u16 {
    call(world, app(world, None), method, path, false, &[]).await.status().as_u16()
}

#[tokio::test]
async fn a_route_is_open_for_the_methods_that_a_rule_allows() {
    let world = World::new(&["pay"]);
    assert_eq!(status(&world, "GET", "/echo").await, 403);
    world.put([rule("a", "allow client/pay read service:/echo")]);
    for (method, path, expected) in [
        ("GET", "/echo", 200),
        ("HEAD", "/echo", 200),
        ("POST", "/echo", 403),
        ("PUT", "/echo", 403),
        ("DELETE", "/echo", 403),
        ("GET", "/echo/", 400),
        ("GET", "/other", 403),
        ("GET", "/absent", 400),
        ("GET", "/own", 200),
    ] {
        assert_eq!(status(&world, method, path).await, expected, "{method} {path}");
    }
    world.put([rule("b", "allow client/pay write,delete service:/ec…")]);
    assert_eq!((status(&world, "POST", "/echo").await, status(&world, "DELETE", "/echo").await), (200, 200));
    world.apply(Command::RevokePrincipal(RevokePrincipal(client("pay"))));
    assert_eq!(world.guard.generation(), world.view().generation);
}

#[tokio::test]
async fn a_call_without_a_caller_is_nobodys() {
    let world = World::new(&["pay"]);
    world.put([rule("a", "allow * all service")]);
    let request = Request::builder().uri("/echo").body(Body::empty()).unwrap();
    let response = app(&world, None).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn without_a_lease_nothing_is_served_not_even_what_needs_no_rule() {
    let world = World::new(&["pay"]);
    world.put([rule("a", "allow client/pay all service")]);
    let granted = call(&world, app(&world, None), "GET", "/echo", false, &[]).await;
    world.renew_lease(LeaseLength::from_secs(1).unwrap());
    world.clocks.boot.fetch_add(1000, std::sync::atomic::Ordering::Relaxed);
    assert_eq!((status(&world, "GET", "/echo").await, status(&world, "GET", "/own").await), (503, 503));
    // A body that was granted before and not read is not handed over.
    assert!(granted.into_body().collect().await.is_err());
}

#[tokio::test]
async fn grpc_is_told_in_its_own_way_and_not_by_which_rule() {
    let world = World::new(&["pay"]);
    world.put([rule("secret-rule", "deny client/pay write service:pkg.Svc/Stream")]);
    let response = call(&world, app(&world, None), "POST", "/pkg.Svc/Stream", true, &[]).await;
    assert_eq!((response.status().as_u16(), response.headers()["grpc-status"].to_str().unwrap()), (200, "7"));
    let message = response.headers()["grpc-message"].to_str().unwrap();
    assert!(message.contains("generation") && !message.contains("secret-rule"), "{message}");
}

#[tokio::test]
async fn a_request_is_not_answered_by_rules_older_than_it_asks_for() {
    let world = World::new(&["pay"]);
    world.put([rule("a", "allow client/pay read service")]);
    let at = |generation: u64| generation.to_string();
    let now = world.guard.generation().0;
    let asked = async |wanted: &str| {
        let response = call(&world, app(&world, None), "GET", "/echo", false, &[(MIN_GENERATION, wanted)]).await;
        (response.status().as_u16(), response.headers().get(GENERATION).map(|g| g.to_str().unwrap().to_owned()))
    };
    assert_eq!(asked(&at(now)).await, (200, Some(at(now))));
    assert_eq!(asked(&at(now - 1)).await, (200, Some(at(now))));
    assert_eq!(asked(&at(now + 1)).await, (503, None));
    for nonsense in ["", "-1", "x", "99999999999999999999"] {
        assert_eq!(asked(nonsense).await.0, 503, "{nonsense}");
    }
    // It waits for the rules that are on their way.
    let next = at(now + 1);
    let waiting = asked(&next);
    let coming = async {
        tokio::task::yield_now().await;
        world.put([rule("b", "allow client/pay write service")]);
    };
    assert_eq!(tokio::join!(waiting, coming).0, (200, Some(at(now + 1))));
    assert!(world.guard.generation() > Generation(now));
}

/// The next frame, if there is one by now.
async fn ready(body: &mut Body) -> Option<Option<Result<Bytes, ()>>> {
    poll_fn(|cx| {
        let frame = Pin::new(&mut *body).poll_frame(cx);
        Poll::Ready(match frame {
            Poll::Pending => None,
            Poll::Ready(None) => Some(None),
            Poll::Ready(Some(Err(_))) => Some(Some(Err(()))),
            Poll::Ready(Some(Ok(frame))) => Some(Some(frame.into_data().map_err(|_| ()))),
        })
    })
    .await
}

async fn stream_of(world: &World, path: &str, grpc: bool) -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel(4);
    let response = call(world, app(world, Some(receiver)), "POST", path, grpc, &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    (sender, response.into_body())
}

#[tokio::test]
async fn a_stream_opened_before_a_revocation_hands_over_nothing_after_it() {
    let world = World::new(&["pay", "shop"]);
    world.put([rule("a", "allow client/pay write service:/stream")]);
    let (sender, mut body) = stream_of(&world, "/stream", false).await;
    sender.send(Bytes::from_static(b"one")).await.unwrap();
    assert_eq!(ready(&mut body).await, Some(Some(Ok(Bytes::from_static(b"one")))));
    // What concerns others ends nothing.
    world.put([rule("b", "deny client/shop write service:/stream")]);
    sender.send(Bytes::from_static(b"two")).await.unwrap();
    assert_eq!(ready(&mut body).await, Some(Some(Ok(Bytes::from_static(b"two")))));
    // Already sent, not yet handed over.
    sender.send(Bytes::from_static(b"three")).await.unwrap();
    world.remove("a");
    assert_eq!(ready(&mut body).await, Some(Some(Err(()))));
    assert_eq!(ready(&mut body).await, Some(None), "ended for good");
}

#[tokio::test]
async fn a_stream_without_traffic_is_woken_to_be_ended() {
    let world = World::new(&["pay"]);
    world.put([rule("a", "allow client/pay write service")]);
    let (_sender, mut body) = stream_of(&world, "/pkg.Svc/Stream", true).await;
    assert_eq!(ready(&mut body).await, None, "nothing to say");
    let ending = async { body.frame().await.unwrap().unwrap().into_trailers().unwrap() };
    let revoking = async {
        tokio::task::yield_now().await;
        world.apply(Command::RevokePrincipal(RevokePrincipal(client("pay"))));
    };
    let (trailers, ()) = tokio::join!(ending, revoking);
    assert_eq!(trailers["grpc-status"], "16");
}

#[tokio::test]
async fn what_a_caller_goes_on_sending_after_a_revocation_is_not_read() {
    let world = World::new(&["pay"]);
    world.put([rule("a", "allow client/pay write service:/echo")]);
    let (sender, receiver) = mpsc::channel::<Bytes>(4);
    let body = Body::from_stream(ReceiverStream::new(receiver).map(Ok::<_, std::io::Error>));
    let request = Request::builder().method("POST").uri("/echo").extension(caller(&world)).body(body).unwrap();
    let response = app(&world, None).oneshot(request).await.unwrap();
    let mut echoed = response.into_body();
    sender.send(Bytes::from_static(b"one")).await.unwrap();
    assert_eq!(ready(&mut echoed).await, Some(Some(Ok(Bytes::from_static(b"one")))));
    world.remove("a");
    sender.send(Bytes::from_static(b"two")).await.unwrap();
    assert_eq!(ready(&mut echoed).await, Some(Some(Err(()))));
}

async fn said(world: &World, method: &str, path: &str, content: Option<&str>) -> (u16, String) {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(content) = content {
        request = request.header("content-type", content);
    }
    let request = request.extension(caller(world)).body(Body::empty()).unwrap();
    let response = app(world, None).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn what_a_request_says_of_itself_does_not_choose_the_rule_that_it_is_decided_by() {
    let world = World::new(&["pay"]);
    world.put([
        rule("all", "allow client/pay write,read,delete service"),
        rule("method", "deny client/pay write service:pkg.Svc/Secret"),
        rule("path", "deny client/pay delete service:/topics/secret"),
    ]);
    let grpc = Some("application/grpc");
    assert_eq!(said(&world, "POST", "/pkg.Svc/Open", grpc).await.1, "SERVED");
    for (method, path, content) in [
        ("POST", "/pkg.Svc/Secret", grpc),
        ("POST", "/pkg.Svc/Secret", None),
        ("POST", "/pkg.Svc/Secret", Some("text/plain")),
        ("GET", "/pkg.Svc/Secret", grpc),
        ("GET", "/pkg.Svc/Secret", None),
        ("DELETE", "/pkg.Svc/Secret", grpc),
        ("POST", "/pkg.Svc/Open", None),
        ("POST", "/pkg.Svc/Secret/", grpc),
        ("DELETE", "/topics/secret", None),
        ("DELETE", "/topics/secret", grpc),
    ] {
        let (status, body) = said(&world, method, path, content).await;
        assert!(!body.contains("SERVED"), "{method} {path} {content:?}: {status} {body}");
    }
}

#[tokio::test]
async fn a_path_is_decided_about_by_its_one_spelling() {
    let world = World::new(&["pay"]);
    world.put([
        rule("all", "allow client/pay read service:/topics/…"),
        rule("no", "deny client/pay read service:/topics/secret"),
    ]);
    assert_eq!(said(&world, "GET", "/topics/a%20b", None).await, (200, "SERVED a b".to_owned()));
    assert_eq!(said(&world, "GET", "/topics/s%65cret", None).await.0, 403);
    for path in [
        "/topics/%73%65%63%72%65%74",
        "/topics/secre%74",
        "/topics//secret",
        "/topics/./secret",
        "/topics/x%2f..%2fsecret",
        "/topics/x%2Fsecret",
        "/topics/%2e%2e",
        "/topics/%",
        "/topics/%4",
        "/topics/%zz",
        "/topics/%ff",
        "/topics/%00",
        "/topics/%25secret",
        "/topics/a%5cb",
        "/topics/a\\..\\secret",
        "//topics/secret",
    ] {
        let (status, body) = said(&world, "GET", path, None).await;
        assert!(matches!(status, 400 | 403 | 404) && !body.contains("SERVED"), "{path}: {status} {body}");
    }
}

/// What a handler answers that takes its time, after `meanwhile`.
async fn late(world: &World, grpc: bool, meanwhile: impl FnOnce()) -> Response {
    let (going_on, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = Arc::new(Mutex::new(Some(wait)));
    let (begun, mut begins) = mpsc::channel(1);
    let handler = any(async move || {
        begun.send(()).await.unwrap();
        wait.lock().await.take().unwrap().await.unwrap();
        // It says all in the head.
        (StatusCode::FOUND, [("location", "/SERVED"), ("grpc-status", "5"), ("grpc-message", "SERVED")])
    });
    let guard = world.guard.clone();
    let layer = if grpc { GuardLayer::grpc(guard) } else { GuardLayer::http(guard) };
    let app = Router::new().route("/late/Call", handler).layer(layer);
    let answer = call(world, app, "POST", "/late/Call", grpc, &[]);
    tokio::pin!(answer);
    tokio::select! {
        _ = &mut answer => panic!("it waits"),
        _ = begins.recv() => {}
    }
    meanwhile();
    going_on.send(()).unwrap();
    answer.await
}

#[tokio::test]
async fn what_a_handler_says_in_the_head_alone_is_held_back_once_it_is_denied() {
    for grpc in [true, false] {
        let world = World::new(&["pay"]);
        let path = if grpc { "late/Call" } else { "/late/Call" };
        world.put([rule("a", &format!("allow client/pay write service:{path}"))]);
        let served = late(&world, grpc, || ()).await;
        assert_eq!(served.headers()["location"], "/SERVED");
        let changed = late(&world, grpc, || drop(world.put([rule("b", "allow client/pay read topic:t")]))).await;
        assert_eq!(changed.headers()["location"], "/SERVED", "what changed was about something else");
        assert_eq!(changed.headers()[GENERATION], *world.guard.generation().0.to_string());
        let denied = late(&world, grpc, || drop(world.remove("a"))).await;
        assert!(!format!("{:?}", denied.headers()).contains("SERVED"), "{denied:?}");
        assert!(grpc && denied.headers()["grpc-status"] == "7" || denied.status() == StatusCode::FORBIDDEN);
        world.put([rule("a", &format!("allow client/pay write service:{path}"))]);
        let lapsed = late(&world, grpc, || {
            world.clocks.boot.fetch_add(1_000_000_000, std::sync::atomic::Ordering::Relaxed);
        });
        let lapsed = lapsed.await;
        assert!(!format!("{:?}", lapsed.headers()).contains("SERVED"), "{lapsed:?}");
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_rule_that_let_it_begin() {
    let world = World::new(&["pay"]);
    let mut ends = rule("a", "allow client/pay write service:/stream");
    ends.not_after = Some(NOW.plus_secs(10));
    world.put([ends]);
    let (sender, mut body) = stream_of(&world, "/stream", false).await;
    let after = |millis: u64| {
        world.clocks.boot.store(1000 + millis, std::sync::atomic::Ordering::Relaxed);
        world.clocks.unix.store(NOW.0 + millis, std::sync::atomic::Ordering::Relaxed);
    };
    after(10_999);
    sender.send(Bytes::from_static(b"one")).await.unwrap();
    assert_eq!(ready(&mut body).await, Some(Some(Ok(Bytes::from_static(b"one")))));
    sender.send(Bytes::from_static(b"two")).await.unwrap();
    after(11_000);
    assert_eq!(ready(&mut body).await, Some(Some(Err(()))));
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_traffic_ends_with_the_rule_that_let_it_begin() {
    let world = World::new(&["pay"]);
    let mut ends = rule("a", "allow client/pay write service:/stream");
    ends.not_after = Some(NOW.plus_secs(10));
    world.put([ends]);
    let (_sender, mut body) = stream_of(&world, "/stream", false).await;
    assert_eq!(ready(&mut body).await, None);
    let ending = async { body.frame().await.unwrap().is_err() };
    let passing = async {
        world.clocks.boot.fetch_add(11_000, std::sync::atomic::Ordering::Relaxed);
        world.clocks.unix.fetch_add(11_000, std::sync::atomic::Ordering::Relaxed);
        tokio::time::advance(std::time::Duration::from_secs(11)).await;
    };
    let (ended, ()) = tokio::join!(ending, passing);
    assert!(ended);
}
