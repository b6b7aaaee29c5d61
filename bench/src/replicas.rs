//! Three replicas of Raft groups in this process: real stores, fsynced, and mutual TLS on loopback between them. What a
//! server does for a proposal, without HTTP and without the trust state.
//!
//! As members do, each replica has a trust store and a bulk store, and two connections to each other replica, one for
//! each kind of store.

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
    RaftRpc, Refusal, RestoreError, Store, StoreKind, StorePlace, Transport, TransportError,
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

/// All replicas speak under these stores here.
const STORE: StoreId = StoreId([1; 16]);
const BULK_STORE: StoreId = StoreId([3; 16]);
/// Entries of a data group that are kept: they are its data.
const KEPT: u64 = 256;

/// What a broker keeps of a partition beside the log: from where on the log is kept.
#[derive(Default)]
struct Floor(u64);

impl GroupMachine for Floor {
    fn apply(&mut self, at: LogPosition, _members: &GroupMembers, _command: &[u8]) -> Result<Vec<u8>, ApplyError> {
        self.0 = self.0.max(at.index.saturating_sub(KEPT));
        Ok(Vec::new())
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }

    fn retention_floor(&self) -> Option<u64> {
        Some(self.0)
    }

    fn base(&self) -> Vec<u8> {
        self.snapshot()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.0 = bytes.try_into().map(u64::from_be_bytes).map_err(RestoreError::new)?;
        Ok(())
    }
}

struct Everybody;

impl Assignments for Everybody {
    fn assigned(&self, _group: GroupId, _node: NodeId) -> Option<bool> {
        Some(true)
    }

    fn stores(&self, kind: StoreKind, _node: NodeId) -> Vec<StoreId> {
        match kind {
            StoreKind::Trust => vec![STORE],
            StoreKind::Bulk => vec![BULK_STORE],
        }
    }

    fn may_vote(&self, _group: GroupId) -> bool {
        true
    }
}

/// A channel of each kind to each other replica.
struct Wires(BTreeMap<(NodeId, StoreKind), Channel>);

impl Wires {
    fn new(endpoint: &Endpoint, addresses: &BTreeMap<NodeId, SocketAddr>) -> Self {
        let channel = |node: NodeId, address: SocketAddr| {
            let (endpoint, address) = (endpoint.clone(), dialed(address));
            let connector = tower::service_fn(move |_: Uri| {
                let (dialer, address) = (Dialer::new(endpoint.clone()), address.clone());
                async move { dialer.dial_peer(&address, node).await.map(TokioIo::new) }
            });
            tonic::transport::Endpoint::from_static("http://member")
                .initial_connection_window_size(WINDOW)
                .initial_stream_window_size(WINDOW)
                .connect_with_connector_lazy(connector)
        };
        let kinds = [StoreKind::Trust, StoreKind::Bulk];
        let each = addresses.iter().flat_map(|(node, address)| kinds.map(|kind| (*node, *address, kind)));
        Self(each.map(|(node, address, kind)| ((node, kind), channel(node, address))).collect())
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
            let channel = self.0.get(&(target, StoreKind::of(group))).cloned().ok_or(TransportError::Unreachable)?;
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
    members: Vec<(Groups, TempDir)>,
}

impl Replicas {
    /// The leader of the trust group.
    pub(crate) fn leader(&self) -> Group {
        self.leader.clone()
    }

    /// Starts a data group on every replica; its leader.
    pub(crate) async fn data_group(&self, group: GroupId) -> Result<Group> {
        for (groups, _) in &self.members {
            groups.start(group, Box::new(Floor::default()), GroupConfig::default()).await?;
        }
        led(&self.members, group).await
    }
}

fn place(directory: &TempDir, name: &str, node: NodeId, store: StoreId) -> StorePlace {
    let binding = Binding { cluster: ClusterId([1; 16]), node, incarnation: Incarnation(0), store };
    StorePlace { path: directory.path().join(name), record: directory.path().join(format!("{name}.record")), binding }
}

/// Three replicas, and a leader of the trust group among them.
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
        let (trust, bulk) = (place(&directory, "store", node, STORE), place(&directory, "bulk", node, BULK_STORE));
        Store::create(&trust, StoreId([2; 16]))?;
        Store::create(&bulk, StoreId([4; 16]))?;
        let (store, wires) = (Store::open(&trust)?, Wires::new(&endpoint, &addresses));
        let groups = Groups::new(node, STORE, store, Arc::new(wires), Arc::new(Everybody));
        groups.open_bulk(&bulk)?;
        serve(listener, endpoint, groups.clone());
        groups.start(GroupId::TRUST, Box::new(Latest::default()), GroupConfig::default()).await?;
        members.push((groups, directory));
    }
    let leader = led(&members, GroupId::TRUST).await?;
    Ok(Replicas { leader, members })
}

/// Makes every replica a voter of a group that has none yet, and waits for a leader.
async fn led(members: &[(Groups, TempDir)], id: GroupId) -> Result<Group> {
    let group = |place: usize| members.get(place).and_then(|(groups, _)| groups.group(id)).context("no replica");
    let voters: BTreeSet<NodeId> = (1..).map(NodeId).take(members.len()).collect();
    let first = group(0)?;
    first.initialize(&voters).await?;
    let elected = first.watch().wait_for(|status| status.leader.is_some()).await?.leader;
    let leader = group(voters.iter().position(|node| Some(*node) == elected).context("the leader is no voter")?)?;
    leader.watch().wait_for(|status| status.state == GroupState::Leader).await?;
    Ok(leader)
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
