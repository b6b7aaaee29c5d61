//! etcd as a peer: three processes on loopback without TLS, asked over gRPC. Only the few fields that are used are
//! named.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: bytes::Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: bytes::Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutReply {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusReply {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

/// Three processes; killed when dropped.
pub(crate) struct Etcd {
    children: Vec<Child>,
    clients: Vec<String>,
    _data: TempDir,
}

/// Whether it is installed, and which version.
pub(crate) fn version() -> Option<String> {
    let said = Command::new("etcd").arg("--version").output().ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    Some(text.lines().next()?.replace("etcd Version: ", ""))
}

impl Etcd {
    pub(crate) fn start() -> Result<Self> {
        // Bound together, so that they differ; free again when this returns.
        let sockets = (0..6).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<std::io::Result<Vec<_>>>()?;
        let urls = sockets.iter().map(|socket| Ok(format!("http://{}", socket.local_addr()?)));
        let urls = urls.collect::<std::io::Result<Vec<_>>>()?;
        drop(sockets);
        let (clients, peers) = urls.split_at(3);
        let roster: Vec<String> = peers.iter().enumerate().map(|(at, url)| format!("e{at}={url}")).collect();
        let data = TempDir::new()?;
        let mut started = Self { children: Vec::new(), clients: clients.to_vec(), _data: data };
        for (at, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let name = format!("e{at}");
            let child = Command::new("etcd")
                .args(["--name", &name, "--initial-cluster", &roster.join(","), "--initial-cluster-state", "new"])
                .args(["--listen-client-urls", client, "--advertise-client-urls", client])
                .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
                .args(["--logger", "zap", "--log-level", "error", "--data-dir"])
                .arg(started._data.path().join(&name))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot start etcd")?;
            started.children.push(child);
        }
        Ok(started)
    }

    /// Connections to the leader, once there is one.
    pub(crate) async fn leader(&self, connections: usize) -> Result<Vec<EtcdClient>> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            for url in &self.clients {
                let Ok(channel) = Endpoint::from_shared(url.clone())?.connect().await else { continue };
                if EtcdClient(channel).leads().await.unwrap_or(false) {
                    let mut clients = Vec::new();
                    for _ in 0..connections {
                        let endpoint = Endpoint::from_shared(url.clone())?.tcp_nodelay(true);
                        clients.push(EtcdClient(endpoint.connect().await?));
                    }
                    return Ok(clients);
                }
            }
            // why: another process does not tell when it is ready
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("etcd elects no leader")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// One connection; clones share it.
#[derive(Clone)]
pub(crate) struct EtcdClient(Channel);

impl EtcdClient {
    pub(crate) async fn put(&self, key: Vec<u8>, value: bytes::Bytes) -> Result<()> {
        let request = PutRequest { key: key.into(), value };
        let _: PutReply = self.call("/etcdserverpb.KV/Put", request).await?;
        Ok(())
    }

    async fn leads(&self) -> Result<bool> {
        let status: StatusReply = self.call("/etcdserverpb.Maintenance/Status", StatusRequest {}).await?;
        Ok(status.header.is_some_and(|header| header.member_id == status.leader && status.leader != 0))
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await?;
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        let reply = grpc.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec).await?;
        Ok(reply.into_inner())
    }
}
