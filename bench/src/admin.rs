//! The admin API over a member's socket: one connection kept open, one request at a time.

use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// One client.
pub(crate) struct AdminClient(SendRequest<Full<Bytes>>);

impl AdminClient {
    pub(crate) async fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    pub(crate) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn post<T: DeserializeOwned>(&mut self, path: &str, body: &impl Serialize) -> Result<T> {
        self.call(Method::POST, path, serde_json::to_vec(body)?.into()).await
    }

    /// Deletes what the caller knows to exist. It may be gone by the time of the answer: many revoked tokens are
    /// forgotten together, and then the answer is "not found".
    pub(crate) async fn delete(&mut self, path: &str) -> Result<()> {
        match self.send(Method::DELETE, path, Bytes::new()).await? {
            (status, _) if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
            (status, body) => bail!("{path}: {status}: {}", String::from_utf8_lossy(&body)),
        }
    }

    pub(crate) async fn delete_to<T: DeserializeOwned>(&mut self, path: &str) -> Result<T> {
        self.call(Method::DELETE, path, Bytes::new()).await
    }

    async fn call<T: DeserializeOwned>(&mut self, method: Method, path: &str, body: Bytes) -> Result<T> {
        let (status, body) = self.send(method, path, body).await?;
        if !status.is_success() {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        serde_json::from_slice(&body).with_context(|| format!("{path}: unexpected answer"))
    }

    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        self.0.ready().await?;
        let response = self.0.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}
