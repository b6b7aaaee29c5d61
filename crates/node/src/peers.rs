//! Channels to other members, and Raft's messages over them. The messages of data groups have a connection of their
//! own, so that no lease, vote or eviction waits behind bulk data.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use countersign_api::cluster::RaftRequest;
use countersign_api::cluster::raft_client::RaftClient;
use countersign_api::cluster::snapshots_client::SnapshotsClient;
use countersign_core::id::{GroupId, NodeId};
use countersign_core::locked::Locked;
use countersign_net::{DialError, Dialer};
use countersign_raft::{BoxFuture, RaftRpc, Refusal, StoreKind, Transport, TransportError};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint, Uri};

/// Seconds without an answer to a ping after which a connection is given up.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Channels to members. Clones are the same.
#[derive(Clone, Default)]
pub struct Peers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    endpoint: OnceLock<countersign_net::Endpoint>,
    links: Locked<BTreeMap<(NodeId, StoreKind), Link>>,
    failed: watch::Sender<Option<Failed>>,
}

/// The target of the last attempt that failed, and why it failed.
pub(crate) type Failed = (NodeId, Arc<DialError>);

#[derive(Clone)]
struct Link {
    channel: Channel,
    /// Why the last attempt to connect failed; tonic hides it. None while connected.
    failure: Arc<Locked<Option<Arc<DialError>>>>,
}

/// Why a channel has no connection.
#[derive(Debug, thiserror::Error)]
enum Unreached {
    #[error("not a member any more")]
    NotAMember,
    #[error(transparent)]
    Dial(Arc<DialError>),
}

impl Peers {
    /// Members are dialed from now on.
    pub(crate) fn connect_with(&self, endpoint: countersign_net::Endpoint) {
        let _ = self.0.endpoint.set(endpoint);
    }

    /// The channel to a member: dials when used, and again when the connection is lost. None before the member can
    /// dial.
    pub fn channel(&self, node: NodeId) -> Option<Channel> {
        self.link(node, StoreKind::Trust).map(|link| link.channel)
    }

    /// Whether the last attempt to reach `node` failed before anything was sent.
    pub(crate) fn unconnected(&self, node: NodeId) -> bool {
        self.failure(node).is_some()
    }

    /// Why `node` was not reached last time.
    pub fn failure(&self, node: NodeId) -> Option<Arc<DialError>> {
        let failure = self.0.links.lock().get(&(node, StoreKind::Trust)).map(|link| Arc::clone(&link.failure))?;
        let failure = failure.lock();
        failure.clone()
    }

    /// Changes with each attempt that fails.
    pub(crate) fn failures(&self) -> watch::Receiver<Option<Failed>> {
        self.0.failed.subscribe()
    }

    /// Has every connection dialed again when it is next used; calls under way end on the old ones.
    pub(crate) fn redial(&self) {
        self.0.links.lock().clear();
    }

    /// Forgets the channels of members that are gone.
    pub(crate) fn retain(&self, keep: impl Fn(NodeId) -> bool) {
        self.0.links.lock().retain(|(node, _), _| keep(*node));
    }

    fn link(&self, node: NodeId, kind: StoreKind) -> Option<Link> {
        let endpoint = self.0.endpoint.get()?;
        let mut links = self.0.links.lock();
        Some(
            links
                .entry((node, kind))
                .or_insert_with(|| Link::new(endpoint.clone(), node, self.0.failed.clone()))
                .clone(),
        )
    }
}

impl Link {
    fn new(endpoint: countersign_net::Endpoint, node: NodeId, failed: watch::Sender<Option<Failed>>) -> Self {
        let failure: Arc<Locked<Option<Arc<DialError>>>> = Arc::default();
        let told = Arc::clone(&failure);
        let connector = tower::service_fn(move |_: Uri| {
            let (endpoint, told, failed) = (endpoint.clone(), Arc::clone(&told), failed.clone());
            async move {
                // The address of now: members move.
                let member = endpoint.trust().load().view.members.get(&node).cloned();
                let address = member.and_then(|m| m.addresses.into_iter().next());
                let Some(address) = address else { return Err(Unreached::NotAMember) };
                let dialed = Dialer::new(endpoint).dial_peer(&address, node).await;
                let mut told = told.lock();
                match dialed {
                    Ok(stream) => {
                        *told = None;
                        Ok(TokioIo::new(stream))
                    }
                    Err(error) => {
                        if told.is_none() {
                            tracing::warn!(%node, error = %crate::chain(&error), "cannot reach member");
                        }
                        let error = Arc::new(error);
                        *told = Some(Arc::clone(&error));
                        failed.send_replace(Some((node, Arc::clone(&error))));
                        Err(Unreached::Dial(error))
                    }
                }
            }
        });
        let channel = Endpoint::from_static("http://member")
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .initial_connection_window_size(4 * 1024 * 1024)
            .initial_stream_window_size(4 * 1024 * 1024)
            .connect_with_connector_lazy(connector);
        Self { channel, failure }
    }
}

impl Transport for Peers {
    #[allow(clippy::wildcard_enum_match_arm, reason = "gRPC has codes that no member of ours answers with")]
    fn call(
        &self,
        target: NodeId,
        group: GroupId,
        kind: RaftRpc,
        body: Vec<u8>,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Vec<u8>, TransportError>> {
        Box::pin(async move {
            let link = self.link(target, StoreKind::of(group)).ok_or(TransportError::Unreachable)?;
            let channel = link.channel;
            let request = RaftRequest {
                group: group.0,
                kind: countersign_core::codec::encode(&kind).unwrap_or_default().into(),
                body: body.into(),
            };
            let calling = async {
                match kind {
                    RaftRpc::Snapshot => SnapshotsClient::new(channel).install(request).await,
                    RaftRpc::Vote | RaftRpc::Append | RaftRpc::TimeoutNow => {
                        RaftClient::new(channel).call(request).await
                    }
                }
            };
            match tokio::time::timeout(deadline, calling).await {
                Err(_) => Err(TransportError::Timeout),
                Ok(Err(status)) => Err(match status.code() {
                    // Judged before the body was read.
                    tonic::Code::PermissionDenied => TransportError::Refused(Refusal::NotAssigned),
                    tonic::Code::FailedPrecondition => TransportError::Refused(Refusal::NotYet),
                    _ => TransportError::Unreachable,
                }),
                Ok(Ok(reply)) => {
                    let reply = reply.into_inner();
                    if reply.refused.is_empty() {
                        return Ok(reply.body.into());
                    }
                    // A refusal that this build does not know is one all the same.
                    let refused = countersign_core::codec::decode(&reply.refused);
                    Err(TransportError::Refused(refused.unwrap_or(Refusal::Invalid)))
                }
            }
        })
    }
}
