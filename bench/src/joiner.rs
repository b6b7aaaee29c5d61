//! A joiner as a node's own start has it, from the pinned connection to the checked answer, without a data directory.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use countersign_api::cluster::enrollment_client::EnrollmentClient;
use countersign_api::cluster::members_client::MembersClient;
use countersign_api::cluster::{EnrollRequest, ProposeRequest, ViewRequest};
use countersign_api::convert::{ClusterInfo, Enrollment, decoded};
use countersign_core::codec;
use countersign_core::enroll::joiner::{Candidate, Unpinned};
use countersign_core::id::{ClusterId, NodeId, RequestId, StoreId};
use countersign_core::key::{Endorsement, SecretKey};
use countersign_core::name::{Address, Name};
use countersign_core::secret::Secret;
use countersign_core::time::UnixMillis;
use countersign_core::trust::author::Claim;
use countersign_core::trust::command::{Command, FEATURE_LEVEL, Renew};
use countersign_core::trust::join_token::JoinToken;
use countersign_core::trust::member::MemberKeys;
use countersign_core::trust::outcome::Refused;
use countersign_net::{Credential, Dialer, LoggedRefusals, SystemClock, Trust, dial_enroll};
use countersign_pki::csr::create_csr;
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use countersign_pki::seal::SealingKey;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Uri};

/// How an attempt ended.
pub(crate) enum Attempt {
    /// Admitted, with a certificate for its key.
    Admitted(Box<Enrollment>),
    /// Busy there: the same request may go again a little later.
    Later,
}

/// One node to be, with keys of its own.
pub(crate) struct Joiner {
    identity: SecretKey,
    leaf: KeyPair,
    candidate: Candidate,
}

impl Joiner {
    pub(crate) fn new(name: &str, address: Address) -> Result<Self> {
        let identity = SecretKey::from_seed(random()?);
        let ucan = SecretKey::from_seed(random()?);
        let leaf = KeyPair::generate(KeyAlgorithm::default())?;
        let keys =
            MemberKeys { identity: identity.public(), sealing: SealingKey::generate()?.public(), ucan: ucan.public() };
        let candidate = Candidate {
            request: RequestId(*random::<16>()?.expose()),
            name: Name::parse(name)?,
            addresses: vec![address],
            leaf_key: leaf.id(),
            foreign: None,
            keys,
            store: StoreId(*random::<16>()?.expose()),
            level: FEATURE_LEVEL,
        };
        Ok(Self { identity, leaf, candidate })
    }

    /// Asks once.
    pub(crate) async fn attempt(&self, token: &JoinToken, sponsor: &Address) -> Result<Attempt> {
        let pinned = match dial_enroll(sponsor, token.pin()).await {
            Ok(pinned) => pinned,
            Err(error) if error.is_passing() || busy(&error) => return Ok(Attempt::Later),
            Err(error) => return Err(error.into()),
        };
        let joiner = Unpinned::new(token, self.candidate.clone()).pin(pinned.channel())?;
        let Ok(channel) = single_use(pinned).await else { return Ok(Attempt::Later) };
        let mut client = EnrollmentClient::new(channel).max_decoding_message_size(64 << 20);
        let Some(info) = later(client.view(ViewRequest::default()).await)? else { return Ok(Attempt::Later) };
        let info: ClusterInfo = info.try_into()?;
        let asked = joiner.request(info.cluster, &self.identity);
        let request = EnrollRequest {
            request: codec::encode(asked.message())?.into(),
            csr: create_csr(&self.leaf)?.into(),
            ..Default::default()
        };
        let Some(reply) = later(client.enroll(request).await)? else { return Ok(Attempt::Later) };
        if !reply.refused.is_empty() {
            return Err(decoded::<Refused>("refused", &reply.refused)?.into());
        }
        let enrollment: Enrollment = reply.try_into()?;
        asked.accept(enrollment.node, &enrollment.view)?;
        enrollment.chain.first().context("no certificate was signed")?;
        Ok(Attempt::Admitted(Box::new(enrollment)))
    }
}

/// A joiner that was admitted, connected to a member as the member that it is now.
pub(crate) struct Admitted {
    node: NodeId,
    cluster: ClusterId,
    identity: SecretKey,
    client: MembersClient<Channel>,
}

impl Joiner {
    /// Connects to the member that admitted it.
    pub(crate) async fn connect(self, admitted: Enrollment, sponsor: &Address) -> Result<Admitted> {
        let (node, cluster) = (admitted.node, admitted.view.cluster);
        let chain = admitted.chain.iter().map(|der| der.to_vec());
        let credential = Arc::new(Credential::new(chain, &self.leaf)?);
        let trust = Trust::of_view(Arc::new(admitted.view), Some(credential), UnixMillis(0))?;
        let endpoint = countersign_net::Endpoint::new(trust, SystemClock, Arc::new(LoggedRefusals::default()));
        let stream = Dialer::new(endpoint).dial_peer(sponsor, NodeId(1)).await?;
        let client = MembersClient::new(single_use(stream).await?);
        Ok(Admitted { node, cluster, identity: self.identity, client })
    }
}

impl Admitted {
    /// Renews its certificate for the first time, on a new key; the signing member puts the certificate into the
    /// answer.
    pub(crate) async fn renew(&mut self) -> Result<()> {
        let key = KeyPair::generate(KeyAlgorithm::default())?;
        let endorsement = Endorsement::sign(&self.identity, self.cluster, key.id(), 1);
        let command = Command::Renew(Renew { node: self.node, key: key.id(), endorsement });
        let claim = Claim::of_member(self.node, RequestId([0; 16]));
        let request = ProposeRequest {
            command: command.encode()?.into(),
            spki: key.spki().into(),
            claim: codec::encode(&claim)?.into(),
        };
        let reply = self.client.propose(request).await?.into_inner();
        reply.chain.first().context("no certificate was signed")?;
        Ok(())
    }
}

/// Refused within TLS, before there is a frame to say why in (RFC 8446 §6.2: internal_error).
fn busy(error: &countersign_net::DialError) -> bool {
    matches!(error.cause, countersign_net::DialCause::Alert { alert: 80 })
}

fn random<const N: usize>() -> Result<Secret<N>> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| anyhow!("no randomness: {e}"))?;
    Ok(Secret::new(bytes))
}

/// The answer, or none where a node would ask again.
fn later<T>(answer: Result<tonic::Response<T>, tonic::Status>) -> Result<Option<T>> {
    use tonic::Code::{Aborted, ResourceExhausted, Unavailable, Unknown};
    match answer {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if matches!(status.code(), Unavailable | Aborted | ResourceExhausted | Unknown) => Ok(None),
        Err(status) => Err(status.into()),
    }
}

/// A channel over the one connection that was made.
async fn single_use<S>(stream: S) -> Result<Channel, tonic::transport::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Mutex::new(Some(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.lock().ok().and_then(|mut stream| stream.take());
        async move { stream.map(TokioIo::new).ok_or_else(|| std::io::Error::other("connection was closed")) }
    });
    Endpoint::from_static("http://sponsor").connect_with_connector(connector).await
}
