//! Requests on the ports of a member, for tests whose subject is HTTP. Other tests never ask so: see `Node::control`.

use std::sync::Arc;

use bytes::Bytes;
use countersign_api::admin::Problem;
use countersign_core::name::Address;
use countersign_net::https::{HttpsClientStream, dial_https};
use countersign_net::{Clock, SystemClock};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Body;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Issued, Node, PATIENCE};

#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    /// The body, read as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The status, and the code of the problem that the body tells.
    pub fn refused(&self) -> (u16, String) {
        (self.status, self.json::<Problem>().code)
    }
}

pub fn request<B>(method: &str, path: &str, body: B) -> Request<B> {
    let request = Request::builder().method(method).uri(path).header("host", "x");
    request.header("content-type", "application/json").body(body).unwrap()
}

/// The whole answer to one request on a connection.
pub async fn exchanged<S, B>(stream: S, request: Request<B>) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let answer = async {
        let answer = client.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        Answer { status, body: String::from_utf8_lossy(&body).into_owned() }
    };
    tokio::time::timeout(PATIENCE, answer).await.expect("no answer")
}

impl Node {
    /// Asks on the socket, as the operator of the host.
    pub async fn on_socket(&self, method: &str, path: &str, body: &str) -> Answer {
        let stream = tokio::net::UnixStream::connect(self.data.path().join("admin.sock")).await.unwrap();
        exchanged(stream, request(method, path, Full::from(body.to_owned()))).await
    }

    /// Asks on the HTTPS port, with a certificate.
    pub async fn over_https(&self, caller: &Issued, method: &str, path: &str, body: &str) -> Answer {
        let request = self.for_https(request(method, path, Full::from(body.to_owned())));
        exchanged(self.dial_https(caller).await, request).await
    }

    /// A request that asks for this member's HTTPS port.
    pub fn for_https<B>(&self, mut request: Request<B>) -> Request<B> {
        let host = self.member().https_addr().unwrap().to_string().parse().unwrap();
        request.headers_mut().insert("host", host);
        request
    }

    pub async fn dial_https(&self, Issued { bundle, credential, .. }: &Issued) -> HttpsClientStream {
        let address = Address::parse(&self.member().https_addr().unwrap().to_string()).unwrap();
        dial_https(&address, Arc::clone(bundle), credential, SystemClock.now()).await.unwrap()
    }
}
