//! Requests to a process without its command line, for tests whose subject is HTTP. Answers come as they were sent.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};

/// A member that does not answer within this time stands still: longer than its watchdog waits.
const ANSWER: Duration = Duration::from_secs(40);

pub fn request(method: &str, path: &str) -> Request<Empty<Bytes>> {
    Request::builder().method(method).uri(path).header("host", "x").body(Empty::new()).unwrap()
}

/// The answer on a connection. None if the connection ends before the answer does.
pub async fn exchanged<S>(stream: S, request: Request<Empty<Bytes>>) -> Option<Response<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = format!("{} {}", request.method(), request.uri());
    let answer = async {
        let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let (head, body) = client.send_request(request).await.ok()?.into_parts();
        Some(Response::from_parts(head, body.collect().await.ok()?.to_bytes()))
    };
    tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(|_| panic!("{asked} is not answered"))
}

/// The answer on the socket of a member. None if no member listens there.
pub fn on_socket(socket: &Path, method: &str, path: &str) -> Option<Response<Bytes>> {
    runtime().block_on(async { exchanged(UnixStream::connect(socket).await.ok()?, request(method, path)).await })
}

pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}
