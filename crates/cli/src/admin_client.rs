//! Asks a member: JSON over HTTP/1.1, on the local socket or on the HTTPS port with an admin's certificate.
//!
//! One request, one connection. Nothing is retried: a command that changes something is carried out once. Only a member
//! that may not carry it out sends it on, to the leader, who is verified as strictly as the first.

mod context;
mod https;
mod socket;

use std::path::PathBuf;
use std::time::Duration;

use countersign_api::admin::Problem;
use countersign_core::limits::LEASE_SECS_MAX;
use countersign_core::name::Address;
use countersign_net::DialError;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::admin_client::context::{Door, resolve};
use crate::args::Target;
use crate::failure::{Exit, Failure, chain};

/// Bytes of an answer: the longest lists all rules of a policy.
const ANSWER_LEN_MAX: usize = 256 * 1024 * 1024;
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// How long one may take that waits until members enforce a revocation: no longer than twice the longest lease, and
/// some. The member that is asked gives up by itself much sooner, as its cluster's lease has it.
const PATIENT_TIMEOUT: Duration = Duration::from_secs(2 * LEASE_SECS_MAX + 300);

/// Why there is no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error("no member answers in `{}`", data.display())]
    Socket {
        data: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the connection to {server} broke")]
    Http {
        server: String,
        #[source]
        source: hyper::Error,
    },
    #[error("{server} did not answer within {} seconds", within.as_secs())]
    Deadline { server: String, within: Duration },
    #[error("the answer of {server} holds more than {ANSWER_LEN_MAX} bytes")]
    TooLong { server: String },
    #[error("the answer of {server} cannot be understood (HTTP status {status})")]
    Answer { server: String, status: StatusCode },
    #[error("{}", problem.message)]
    Problem { status: StatusCode, problem: Problem },
}

impl AdminError {
    fn exit(&self) -> Exit {
        match self {
            Self::Problem { status, .. } | Self::Answer { status, .. } => match *status {
                StatusCode::BAD_REQUEST => Exit::Usage,
                status if status.is_client_error() => Exit::Refused,
                _ => Exit::Unreachable,
            },
            Self::Socket { .. } | Self::Dial(_) | Self::Http { .. } | Self::Deadline { .. } | Self::TooLong { .. } => {
                Exit::Unreachable
            }
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Socket { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                "run this as root or as the user of the server".to_owned()
            }
            Self::Socket { .. } => {
                "is the server running? start it with `countersign server`, or name its directory with \
                                    --data, or another member with --server"
                    .to_owned()
            }
            Self::Dial(_) => "check --server and --ca, and that the member serves HTTPS (--https-addr)".to_owned(),
            Self::Problem { problem: Problem { next: Some(next), .. }, .. } => next.clone(),
            Self::Problem { status, .. } if *status == StatusCode::FORBIDDEN => {
                "use the certificate of an admin, or the socket of a voter".to_owned()
            }
            Self::Http { .. }
            | Self::Deadline { .. }
            | Self::TooLong { .. }
            | Self::Answer { .. }
            | Self::Problem { .. } => "look at the member with `countersign status`, and at its log".to_owned(),
        }
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        Self::new(error.exit(), chain(&error), error.advice())
    }
}

/// What asks one member.
pub(crate) struct AdminClient {
    door: Door,
}

impl AdminClient {
    /// For the member that the flags, the environment or the context file name.
    pub(crate) fn to(target: &Target) -> Result<Self, Failure> {
        Ok(Self { door: resolve(target)? })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        Ok(self.ask(Method::GET, path, Vec::new()).await?)
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::usage(error, "report this as a bug"))?;
        Ok(self.ask(Method::POST, path, body).await?)
    }

    /// For what waits until other members enforce it.
    pub(crate) async fn post_patiently<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::usage(error, "report this as a bug"))?;
        Ok(self.ask_within(PATIENT_TIMEOUT, Method::POST, path, body).await?)
    }

    /// For what waits until other members enforce it.
    pub(crate) async fn delete_patiently<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        Ok(self.ask_within(PATIENT_TIMEOUT, Method::DELETE, path, Vec::new()).await?)
    }

    pub(crate) async fn delete_to<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        Ok(self.ask(Method::DELETE, path, Vec::new()).await?)
    }

    /// For answers that say nothing but that it is done.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.exchange(ANSWER_TIMEOUT, Method::DELETE, path, Vec::new()).await?;
        Ok(())
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T, AdminError> {
        self.ask_within(ANSWER_TIMEOUT, method, path, body).await
    }

    async fn ask_within<T: DeserializeOwned>(
        &self,
        within: Duration,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, AdminError> {
        let (status, bytes) = self.exchange(within, method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|_| AdminError::Answer { server: self.door.to_string(), status })
    }

    /// A member that is no voter sends an admin on to the leader: that is followed once.
    async fn exchange(
        &self,
        within: Duration,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), AdminError> {
        let body = Bytes::from(body);
        match (exchange_at(&self.door, within, method.clone(), path, body.clone()).await, &self.door) {
            (Err(AdminError::Problem { status, problem }), Door::Https(remote)) if is_redirect(status, &problem) => {
                match problem.leader.as_deref().map(Address::parse) {
                    Some(Ok(leader)) => exchange_at(&Door::Https(remote.at(leader)), within, method, path, body).await,
                    _ => Err(AdminError::Problem { status, problem }),
                }
            }
            (answer, _) => answer,
        }
    }
}

fn is_redirect(status: StatusCode, problem: &Problem) -> bool {
    status == StatusCode::TEMPORARY_REDIRECT && problem.leader.is_some()
}

async fn exchange_at(
    door: &Door,
    within: Duration,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), AdminError> {
    let server = || door.to_string();
    let asked = async {
        match door {
            Door::Socket { data } => {
                let stream = socket::connect(data).await?;
                send(stream, request(method, path, "localhost", body), &server).await
            }
            Door::Https(remote) => {
                let stream = https::connect(remote).await?;
                send(stream, request(method, path, &remote.server.to_string(), body), &server).await
            }
        }
    };
    let (status, bytes) =
        tokio::time::timeout(within, asked).await.map_err(|_| AdminError::Deadline { server: server(), within })??;
    if status.is_success() {
        return Ok((status, bytes));
    }
    match serde_json::from_slice(&bytes) {
        Ok(problem) => Err(AdminError::Problem { status, problem }),
        Err(_) => Err(AdminError::Answer { server: server(), status }),
    }
}

fn request(method: Method, path: &str, host: &str, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    // Paths are made of constants, checked names and hexadecimal digits: they always parse.
    *request.uri_mut() = path.parse().unwrap_or_default();
    if let Ok(host) = host.parse() {
        request.headers_mut().insert(header::HOST, host);
    }
    request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    request.headers_mut().insert(header::ACCEPT, header::HeaderValue::from_static("application/json"));
    request
}

async fn send<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    server: &dyn Fn() -> String,
) -> Result<(StatusCode, Bytes), AdminError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broke = |source| AdminError::Http { server: server(), source };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
    // Errors of the connection reach the request too.
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(broke)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_LEN_MAX).collect().await;
    connection.abort();
    match body {
        Ok(body) => Ok((status, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(AdminError::TooLong { server: server() }),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(source) => Err(broke(*source)),
            Err(_) => Err(AdminError::Answer { server: server(), status }),
        },
    }
}
