//! A remote guard does not believe an evicted member, which has its key, at the address that the guard knows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use countersign::{Client, LeaseLength, RemoteGuard, RemoteGuardSettings, Services};
use countersign_api::cluster::policy_server::{Policy, PolicyServer};
use countersign_api::cluster::whoami_client::WhoamiClient;
use countersign_api::cluster::whoami_server::{Whoami, WhoamiServer};
use countersign_api::cluster::{
    FetchReply, FetchRequest, RuleReply, WatchReply, WatchRequest, WhoamiReply, WhoamiRequest,
};
use countersign_core::codec;
use countersign_core::id::Generation;
use countersign_core::limits::SKEW_SECS;
use countersign_core::name::Address;
use countersign_core::principal::TrustDomain;
use countersign_core::trust::view::View;
use countersign_net::{
    AcceptorLimits, ClientAcceptor, ClientConnection, ClientDialer, Clock, Credential, Endpoint, LoggedRefusals,
    SystemClock, Trust,
};
use countersign_pki::key::KeyPair;
use countersign_pki::pem::certificates_from_pem;
use support::rules::rule;
use support::{Issued, Lifetimes, Node, Plain, cluster_living};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

struct Greeter;
#[tonic::async_trait]
impl Whoami for Greeter {
    async fn whoami(&self, _: Request<WhoamiRequest>) -> Result<Response<WhoamiReply>, Status> {
        Ok(Response::new(WhoamiReply { principal: "served".to_owned(), generation: 0, node: 0 }))
    }
}

/// Says that everything is allowed, and gives leases.
struct Liar {
    view: View,
    lease_millis: u64,
    /// By which its clock is wrong.
    off_millis: Arc<AtomicI64>,
}
#[tonic::async_trait]
impl Policy for Liar {
    type WatchStream = ReceiverStream<Result<WatchReply, Status>>;
    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let (view, lease_millis, off_millis) = (self.view.clone(), self.lease_millis, Arc::clone(&self.off_millis));
        tokio::spawn(async move {
            let mut requests = request.into_inner();
            while let Ok(Some(request)) = requests.message().await {
                let reply = WatchReply {
                    generation: view.generation.0,
                    asked: request.asked,
                    lease_millis,
                    time_millis: 0,
                    view: codec::encode(&view).unwrap().into(),
                    everybody: true,
                    principals: vec![],
                    clock_millis: SystemClock.now().0.saturating_add_signed(off_millis.load(Ordering::Relaxed)),
                };
                if sender.send(Ok(reply)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Response<FetchReply>, Status> {
        let rule = codec::encode(&rule("evil", "*", "all", "service")).unwrap();
        Ok(Response::new(FetchReply {
            generation: self.view.generation.0,
            rules: vec![RuleReply { id: "evil".to_owned(), rule: rule.into() }],
            ..FetchReply::default()
        }))
    }
}

impl Liar {
    /// Serves in the place of the member whose directory this is, with its key.
    async fn serve(self, data: &Path, address: SocketAddr) {
        let read = |name: &str| std::fs::read_to_string(data.join(name)).unwrap();
        let chain = certificates_from_pem(&read("leaf.pem")).unwrap();
        let key = KeyPair::from_pem(&read("keys/leaf.key")).unwrap();
        let credential = Arc::new(Credential::new(chain.iter().map(|der| der.to_vec()), &key).unwrap());
        let trust = Trust::of_view(Arc::new(self.view.clone()), Some(credential), SystemClock.now()).unwrap();
        let endpoint = Endpoint::new(trust, SystemClock, Arc::<LoggedRefusals>::default());
        let listener = TcpListener::bind(address).await.unwrap();
        let acceptor = ClientAcceptor::on(listener, endpoint, AcceptorLimits::default());
        let accepted = acceptor.connections(16);
        tokio::spawn(async move { match acceptor.run().await {} });
        let incoming = ReceiverStream::new(accepted).filter_map(|connection| match connection {
            ClientConnection::Accepted { stream, .. } => Some(Ok::<_, std::io::Error>(Plain(stream))),
            ClientConnection::Refused { .. } => None,
        });
        let served = tonic::transport::Server::builder().add_service(PolicyServer::new(self));
        tokio::spawn(served.serve_with_incoming(incoming));
    }
}

async fn remote(controllers: Vec<Address>, broker: &Issued, domain: TrustDomain) -> RemoteGuard {
    let (bundle, credential) = (Arc::clone(&broker.bundle), Arc::clone(&broker.credential));
    RemoteGuard::connect(RemoteGuardSettings::new(
        Client::new(ClientDialer::new(bundle, domain, credential, Arc::new(SystemClock))),
        controllers,
        "127.0.0.1:0".parse().unwrap(),
    ))
    .await
    .unwrap()
    .serve(Services::builder().grpc(WhoamiServer::new(Greeter)).build())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_guard_believes_nothing_that_an_evicted_member_tells() {
    let lifetimes = Lifetimes { lease: LeaseLength::from_secs(2).unwrap(), ..Lifetimes::default() };
    let mut nodes = cluster_living(3, lifetimes).await;
    let broker = nodes[0].issue("broker/localhost").await;
    let pay = nodes[0].client("pay").await;
    let generation = nodes[0].add_rule(rule("fetch-policy", "broker/*", "read", "policy")).await;
    assert!(nodes[0].control().await_barrier(generation).await.unwrap().passed);
    let domain = nodes[0].member().view().trust_domain.clone();
    let n3: SocketAddr = nodes[2].member().client_addr().unwrap();
    let before = View::clone(&nodes[0].member().view());

    nodes[0].remove_rule("whoami").await;
    // n3 is evicted, and its key is the attacker's. The cluster and the remote know.
    nodes[0].evict("n3").await;
    let (data, _) = nodes.pop().unwrap().stop().await;
    let controllers = vec![nodes[1].client_address(), Address::parse(&n3.to_string()).unwrap()];
    let remote = remote(controllers, &broker, domain).await;
    let honest = remote.guard().generation();
    assert!(honest > before.generation, "it knows of the eviction");
    let port = remote.local_addr().unwrap().port();
    let address = Address::parse(&format!("localhost:{port}")).unwrap();
    let dial = async || support::connect(&pay.dialer, &address).await.map(WhoamiClient::new);
    assert_eq!(dial().await.unwrap().whoami(WhoamiRequest {}).await.unwrap_err().code(), tonic::Code::PermissionDenied);

    // The attacker serves with the evicted key at the address that the remote knows.
    let forged = View { generation: Generation(1 << 60), ..before };
    let liar = Liar { view: forged, lease_millis: 1_000_000_000_000, off_millis: Arc::default() };
    liar.serve(data.path(), n3).await;

    // The wire: the connection to n2 breaks once. Here n2 restarts.
    let (data2, name2) = nodes.pop().unwrap().stop().await;
    // The liar is dialed, and dialed again; meanwhile the remote's lease runs out.
    while remote.guard().fresh().is_ok() {
        // why: a lease lapses by the passing of time alone
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(remote.guard().generation(), honest);
    nodes.push(Node::open(data2, name2).await);
    let served = match dial().await {
        Ok(mut client) => client.whoami(WhoamiRequest {}).await.map(|reply| reply.into_inner().principal),
        Err(status) => Err(status),
    };
    assert!(served.is_err(), "{served:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_guard_denies_while_its_clock_differs_from_the_members() {
    let mut nodes = cluster_living(3, Lifetimes::default()).await;
    let broker = nodes[0].issue("broker/localhost").await;
    let view = View::clone(&nodes[0].member().view());
    let (domain, n3) = (view.trust_domain.clone(), nodes[2].member().client_addr().unwrap());
    // A member in good standing, whose clock can be set.
    let (data, _) = nodes.pop().unwrap().stop().await;
    let off_millis: Arc<AtomicI64> = Arc::default();
    Liar { view, lease_millis: 1500, off_millis: Arc::clone(&off_millis) }.serve(data.path(), n3).await;
    let remote = remote(vec![Address::parse(&n3.to_string()).unwrap()], &broker, domain).await;
    let bound = i64::try_from(SKEW_SECS * 1000).unwrap();
    // A second on either side of the bound: both clocks go on while the answer is under way.
    for (off, serves) in
        [(0, true), (bound + 1000, false), (bound - 1000, true), (-bound - 1000, false), (-bound + 1000, true)]
    {
        off_millis.store(off, Ordering::Relaxed);
        let reached = async {
            while remote.guard().fresh().is_ok() != serves {
                // why: nothing tells when a lease begins or ends
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap_or_else(|_| panic!("{off}: not {serves}"));
        if serves {
            continue;
        }
        // Nor is a lease given while it stays like this.
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            assert!(remote.guard().fresh().is_err(), "{off}");
            // why: it is asked for as long as several leases would have been given in
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
