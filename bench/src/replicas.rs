//! Three replicas of one Raft group in this process: real stores, fsynced, and mutual TLS on loopback between them.
//! What a server does for a proposal, without HTTP and without the trust state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use countersign_api::cluster::raft_client::RaftClient;
use countersign_api::cluster::raft_server::{Raft, RaftServer};
use countersign_api::cluster::{RaftReply, RaftRequest};
use countersign_core::codec;
use countersign_core::group::GroupMembers;
use countersign_core::id::{ClusterId, GroupId, Incarnation, NodeId, StoreId};
use countersign_net::{Acceptor, AcceptorLimits, Dialer, Endpoint, PeerStream};
use countersign_raft::{
    ApplyError, Assignments, Binding, BoxFuture, Group, GroupConfig, GroupMachine, GroupState, Groups, LogPosition,
    RaftRpc, Refusal, RestoreError, Store, StorePlace, Transport, TransportError,
};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Server, Uri};
use tonic::{Request, Response, Status};

use crate::cluster::{Cluster, dialed, loopback};
use crate::peer_io::{Caller, Served};

const WINDOW: u32 = 4 * 1024 * 1024;

/// The last command of each key: as much state as a put leaves behind.
#[derive(Default)]
struct Latest(BTreeMap<Vec<u8>, Vec<u8>>);

impl GroupMachine for Latest {
    fn apply(&mut self, _at: LogPosition, _members: &GroupMembers, command: &[u8]) -> Result<Vec<u8>, ApplyError> {
        let key: Vec<u8> = command.iter().copied().take_while(|byte| *byte != b'Z').collect();
        self.0.insert(key, command.to_vec());
        Ok(Vec::new())
    }

    fn snapshot(&self) -> Vec<u8> {
        codec::encode(&self.0).unwrap_or_default()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.0 = codec::decode(bytes).map_err(RestoreError::new)?;
        Ok(())
    }
}

/// All replicas speak under one store here.
const STORE: StoreId = StoreId([1; 16]);

struct Everybody;

impl Assignments for Everybody {
    fn assigned(&self, _group: GroupId, _node: NodeId) -> Option<bool> {
        Some(true)
    }

    fn stores(&self, _group: GroupId, _node: NodeId) -> Vec<StoreId> {
        vec![STORE]
    }

    fn may_vote(&self, _group: GroupId) -> bool {
        true
    }
}

/// One channel to each other replica.
struct Wires(BTreeMap<NodeId, Channel>);

impl Wires {
    fn new(endpoint: &Endpoint, addresses: &BTreeMap<NodeId, SocketAddr>) -> Self {
        let channel = |(node, address): (&NodeId, &SocketAddr)| {
            let (endpoint, node, address) = (endpoint.clone(), *node, dialed(*address));
            let connector = tower::service_fn(move |_: Uri| {
                let (dialer, address) = (Dialer::new(endpoint.clone()), address.clone());
                async move { dialer.dial_peer(&address, node).await.map(TokioIo::new) }
            });
            let channel = tonic::transport::Endpoint::from_static("http://member")
                .initial_connection_window_size(WINDOW)
                .initial_stream_window_size(WINDOW)
                .connect_with_connector_lazy(connector);
            (node, channel)
        };
        Self(addresses.iter().map(channel).collect())
    }
}

impl Transport for Wires {
    fn call(
        &self,
        target: NodeId,
        group: GroupId,
        kind: RaftRpc,
        body: Vec<u8>,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Vec<u8>, TransportError>> {
        Box::pin(async move {
            let channel = self.0.get(&target).cloned().ok_or(TransportError::Unreachable)?;
            let mut client = RaftClient::new(channel).max_decoding_message_size(kind.len_max() + 1024);
            let kind = codec::encode(&kind).unwrap_or_default().into();
            let request = RaftRequest { group: group.0, kind, body: body.into() };
            match tokio::time::timeout(deadline, client.call(request)).await {
                Err(_) => Err(TransportError::Timeout),
                Ok(Err(_)) => Err(TransportError::Unreachable),
                Ok(Ok(reply)) => match reply.into_inner() {
                    RaftReply { body, refused } if refused.is_empty() => Ok(body.into()),
                    _ => Err(TransportError::Refused(Refusal::Invalid)),
                },
            }
        })
    }
}

#[derive(Clone)]
struct Service(Groups);

#[tonic::async_trait]
impl Raft for Service {
    async fn call(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        let from = request.extensions().get::<Caller>().and_then(|caller| caller.0);
        let from = from.ok_or_else(|| Status::unauthenticated("not a member"))?;
        let RaftRequest { group, kind, body } = request.into_inner();
        let kind: RaftRpc = codec::decode(&kind).map_err(|_| Status::invalid_argument("unknown kind"))?;
        let refused = b"refused".as_slice();
        let reply = match self.0.handle(from, GroupId(group), kind, &body).await {
            Ok(body) => RaftReply { body: body.into(), refused: Default::default() },
            Err(_) => RaftReply { body: Default::default(), refused: refused.into() },
        };
        Ok(Response::new(reply))
    }
}

/// The replicas; their tasks end with the runtime.
pub(crate) struct Replicas {
    leader: Group,
    _groups: Vec<(Groups, TempDir)>,
}

impl Replicas {
    pub(crate) fn leader(&self) -> Group {
        self.leader.clone()
    }
}

/// Three replicas, and a leader among them.
pub(crate) async fn three() -> Result<Replicas> {
    let cluster = Cluster::of(3)?;
    let (mut listeners, mut addresses) = (Vec::new(), BTreeMap::new());
    for node in cluster.members.keys() {
        let listener = TcpListener::bind(loopback()).await?;
        addresses.insert(*node, listener.local_addr()?);
        listeners.push((*node, listener));
    }
    let mut members = Vec::new();
    for (node, listener) in listeners {
        let endpoint = cluster.endpoint(node.0)?;
        let directory = TempDir::new()?;
        let binding = Binding { cluster: ClusterId([1; 16]), node, incarnation: Incarnation(0), store: STORE };
        let at = |name| directory.path().join(name);
        let place = StorePlace { path: at("store"), record: at("record"), binding };
        Store::create(&place, StoreId([2; 16]))?;
        let store = Store::open(&place)?;
        let groups = Groups::new(node, STORE, store, Arc::new(Wires::new(&endpoint, &addresses)), Arc::new(Everybody));
        serve(listener, endpoint, groups.clone());
        groups.start(GroupId::TRUST, Box::new(Latest::default()), GroupConfig::default()).await?;
        members.push((groups, directory));
    }
    let first = members.first().and_then(|(groups, _)| groups.group(GroupId::TRUST)).context("no replica")?;
    let voters: BTreeSet<NodeId> = addresses.keys().copied().collect();
    first.initialize(&voters).await?;
    let elected = first.watch().wait_for(|status| status.leader.is_some()).await?.leader;
    let place = voters.iter().position(|node| Some(*node) == elected).context("the leader is no voter")?;
    let leader = members.get(place).and_then(|(groups, _)| groups.group(GroupId::TRUST)).context("no leader")?;
    leader.watch().wait_for(|status| status.state == GroupState::Leader).await?;
    Ok(Replicas { leader, _groups: members })
}

fn serve(listener: TcpListener, endpoint: Endpoint, groups: Groups) {
    let acceptor = Acceptor::on(listener, endpoint, AcceptorLimits::default());
    let accepted = acceptor.routes().peers(16);
    tokio::spawn(async move { match acceptor.run().await {} });
    let incoming = ReceiverStream::new(accepted).map(|stream: PeerStream| Ok::<_, std::io::Error>(Served(stream)));
    let service = RaftServer::new(Service(groups)).max_decoding_message_size(RaftRpc::Snapshot.len_max() + 1024);
    let server = Server::builder()
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .add_service(service)
        .serve_with_incoming(incoming);
    tokio::spawn(server);
}
