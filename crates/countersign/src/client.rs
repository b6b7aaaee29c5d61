//! For programs outside the cluster: calls to members, and the next certificate.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::http::uri::{Authority, Scheme};
use axum::http::{Request, Response, Uri};
use countersign_api::cluster::RenewRequest;
use countersign_api::cluster::certificates_client::CertificatesClient;
use countersign_core::name::Address;
use countersign_net::{ClientDialer, ClientFilesError, Credential, CredentialError, Unverified};
use countersign_node::chain;
use countersign_node::service::clients::VOTERS;
use countersign_pki::csr::{CsrError, create_csr};
use countersign_pki::key::KeyPair;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Mutex;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

/// Silence after which a member is asked whether it is there, and how long it may take to say so, while calls wait.
const PING_AFTER: Duration = Duration::from_secs(20);
const PING_MAX: Duration = Duration::from_secs(10);
/// Voters that one renewal asks at most because others named them.
const NAMED_ASKS_MAX: usize = 16;
/// How long a member may take to renew a certificate: longer than it looks for a leader.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(30);

/// A principal with a certificate, as a program outside the cluster. Clones are the same client.
#[derive(Debug, Clone)]
pub struct Client {
    dialer: ClientDialer,
    patience: Duration,
}

impl Client {
    /// A client that dials so.
    pub const fn new(dialer: ClientDialer) -> Self {
        Self { dialer, patience: RENEWAL_PATIENCE }
    }

    /// With another time that each member has to renew a certificate, before the next one is asked.
    #[must_use]
    pub fn with_renewal_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// With a certificate and its key, and the authorities that it trusts, all PEM: what `countersign cert issue`
    /// writes.
    ///
    /// # Errors
    /// [`ClientFilesError`].
    pub fn from_pem(certificate: &str, key: &str, authorities: &str) -> Result<Self, ClientFilesError> {
        ClientDialer::from_pem(certificate, key, authorities).map(Self::new)
    }

    /// What dials.
    pub const fn dialer(&self) -> &ClientDialer {
        &self.dialer
    }

    /// Calls one of these members, given by their client ports, and another one once that is lost. It dials with the
    /// first call.
    pub fn channel(&self, members: impl IntoIterator<Item = Address>) -> ClientChannel {
        let members = members.into_iter().collect();
        let shared = Shared { dialer: self.dialer.clone(), members, open: Mutex::default() };
        ClientChannel { shared: Arc::new(shared) }
    }

    /// Renews the certificate for `key`, a new one, at one of these members, given by their client ports. A member that
    /// cannot issue certificates names voters, of which a few are asked next. One that does not answer is given up
    /// ([`Client::with_renewal_patience`]). The certificate in use goes on until its end.
    ///
    /// # Errors
    /// What the last of them said. Whatever fails, nothing was changed at this end.
    pub async fn renew(&self, members: &[Address], key: &KeyPair) -> Result<RenewedCertificate, RenewError> {
        let csr = create_csr(key)?;
        let (mut given, mut named, mut known) = (members.iter(), Named::default(), BTreeSet::new());
        let mut last = RenewError::NoMember;
        while let Some(member) = given.next().cloned().or_else(|| named.next(&known)) {
            if !known.insert(member.clone()) {
                continue;
            }
            let mut certificates = CertificatesClient::new(self.channel([member.clone()]));
            let asked = certificates.renew(RenewRequest { csr: csr.clone().into() });
            let silent = |_| Status::deadline_exceeded(format!("`{member}` did not answer in time"));
            match tokio::time::timeout(self.patience, asked).await.map_err(silent).flatten() {
                Ok(reply) => return self.renewed(reply.into_inner().chain.iter().map(|der| der.to_vec()), key),
                Err(status) => {
                    named.answers.push_back(voters(&status));
                    last = RenewError::Member(Box::new(status));
                }
            }
        }
        Err(last)
    }

    fn renewed(&self, chain: impl Iterator<Item = Vec<u8>>, key: &KeyPair) -> Result<RenewedCertificate, RenewError> {
        let chain: Vec<Vec<u8>> = chain.collect();
        let dialer = self.dialer.renewed(Arc::new(Credential::new(chain.iter().cloned(), key)?))?;
        Ok(RenewedCertificate { chain, client: Self { dialer, ..self.clone() } })
    }
}

/// The voters that answers name, of each answer one in its turn: an answer with many hides those of no other.
#[derive(Default)]
struct Named {
    answers: VecDeque<VecDeque<Address>>,
    /// How many were given out.
    asked: usize,
}

impl Named {
    /// The next one that is not `known`, unless so many were given out.
    fn next(&mut self, known: &BTreeSet<Address>) -> Option<Address> {
        while self.asked < NAMED_ASKS_MAX {
            let mut answer = self.answers.pop_front()?;
            let next = answer.pop_front();
            if !answer.is_empty() {
                self.answers.push_back(answer);
            }
            if let Some(next) = next.filter(|next| !known.contains(next)) {
                self.asked += 1;
                return Some(next);
            }
        }
        None
    }
}

/// The voters that an answer names.
fn voters(status: &Status) -> VecDeque<Address> {
    let named = status.metadata().get(VOTERS).and_then(|named| named.to_str().ok()).unwrap_or_default();
    named.split(',').filter_map(|address| Address::parse(address.trim()).ok()).collect()
}

/// Why a client's certificate was not renewed. The one in use is as good as it was.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// No member was named.
    #[error("no member is named")]
    NoMember,
    /// The certificate request cannot be made.
    #[error("certificate request cannot be made")]
    Csr(#[from] CsrError),
    /// The member was not reached, or did not renew it.
    #[error("{}", .0.message())]
    Member(#[source] Box<Status>),
    /// The certificate is not of our key.
    #[error("the certificate in the answer does not fit our key")]
    Credential(#[from] CredentialError),
    /// The certificate is not this client's, or not under the authorities that it trusts.
    #[error("the certificate in the answer cannot be used")]
    Unverified(#[from] Unverified),
}

/// A renewed certificate.
#[derive(Debug)]
pub struct RenewedCertificate {
    /// The chain, DER, leaf first, the authority last: to be stored with its key.
    pub chain: Vec<Vec<u8>>,
    /// The same client, with the new certificate.
    pub client: Client,
}

/// Calls of a client to members. A generated gRPC client takes it as its channel. Clones share one connection.
///
/// A call that was sent when the connection was lost fails with `UNAVAILABLE`: only the caller knows whether it may be
/// sent twice. The next call dials.
#[derive(Clone)]
pub struct ClientChannel {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: ClientDialer,
    members: Vec<Address>,
    open: Mutex<Open>,
}

/// The connection in use, and the member that is dialed next.
#[derive(Default)]
struct Open {
    next: usize,
    connection: Option<Connection>,
}

#[derive(Clone)]
struct Connection {
    requests: SendRequest<Body>,
    authority: Authority,
}

impl Shared {
    async fn connected(&self) -> Result<Connection, Status> {
        let mut open = self.open.lock().await;
        if let Some(connection) = open.connection.as_ref().filter(|connection| !connection.requests.is_closed()) {
            return Ok(connection.clone());
        }
        let mut why = "no member is named".to_owned();
        for _ in 0..self.members.len() {
            let member = open.next.checked_rem(self.members.len()).and_then(|at| self.members.get(at));
            let Some(member) = member else { break };
            open.next = open.next.wrapping_add(1);
            match self.dial(member).await {
                Ok(connection) => {
                    open.connection = Some(connection.clone());
                    return Ok(connection);
                }
                Err(error) => why = error,
            }
        }
        Err(Status::unavailable(why))
    }

    async fn dial(&self, member: &Address) -> Result<Connection, String> {
        let stream = self.dialer.dial(member).await.map_err(|error| chain(&error).to_string())?;
        let authority = Authority::try_from(member.to_string()).map_err(|error| format!("`{member}`: {error}"))?;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_MAX)
            .handshake(TokioIo::new(stream));
        let (requests, connection) = handshake.await.map_err(|error| format!("`{member}`: {}", chain(&error)))?;
        // It ends with the connection, or once no request can be made any more.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %chain(&error), "connection to a member ended");
            }
        });
        Ok(Connection { requests, authority })
    }

    async fn call(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Status> {
        let Connection { mut requests, authority } = self.connected().await?;
        let mut parts = core::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(authority);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let lost = |error: hyper::Error| Status::unavailable(chain(&error).to_string());
        requests.ready().await.map_err(lost)?;
        requests.send_request(request).await.map_err(lost)
    }
}

impl Service<Request<Body>> for ClientChannel {
    type Response = Response<Incoming>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.call(request).await })
    }
}

impl core::fmt::Debug for ClientChannel {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ClientChannel").field("members", &self.shared.members).finish_non_exhaustive()
    }
}
