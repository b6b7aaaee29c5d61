//! A broker that is no member decides by the cluster's rules: told by a member, over its own certificate, and silent
//! when the cluster is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use countersign::{
    Action, Client, Denial, Kind, LeaseLength, RemoteGuard, RemoteGuardError, RemoteGuardSettings, Resource, Services,
};
use countersign_api::cluster::whoami_client::WhoamiClient;
use countersign_api::cluster::whoami_server::{Whoami, WhoamiServer};
use countersign_api::cluster::{WhoamiReply, WhoamiRequest};
use countersign_core::authz::Rule;
use countersign_core::id::Generation;
use countersign_core::name::Address;
use countersign_core::peer::VerifiedPeer;
use countersign_core::receipt::{Answer, Barrier};
use countersign_net::{ClientDialer, SystemClock};
use support::rules::rule;
use support::{Issued, Lifetimes, Node, cluster_living};
use tonic::{Request, Response, Status};

/// Answers with the name of the caller.
struct Greeter;

#[tonic::async_trait]
impl Whoami for Greeter {
    async fn whoami(&self, request: Request<WhoamiRequest>) -> Result<Response<WhoamiReply>, Status> {
        let caller = request.extensions().get::<countersign::Caller>().unwrap();
        let principal = caller.peer.principal().to_string();
        Ok(Response::new(WhoamiReply { principal, generation: 0, node: 0 }))
    }
}

fn short() -> Lifetimes {
    Lifetimes { lease: LeaseLength::from_secs(2).unwrap(), ..Lifetimes::default() }
}

/// A remote guard that has a lease.
async fn guard_of(nodes: &[&Node], issued: &Issued, services: Services) -> Result<RemoteGuard, RemoteGuardError> {
    let domain = nodes[0].member().view().trust_domain.clone();
    let dialer =
        ClientDialer::new(Arc::clone(&issued.bundle), domain, Arc::clone(&issued.credential), Arc::new(SystemClock));
    let remote = RemoteGuard::connect(RemoteGuardSettings::new(
        Client::new(dialer),
        nodes.iter().map(|node| node.client_address()).collect(),
        "127.0.0.1:0".parse().unwrap(),
    ))
    .await?;
    let leased = async {
        while remote.guard().fresh().is_err() {
            // why: nothing tells when the first lease begins
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), leased).await.expect("no lease");
    Ok(remote.serve(services))
}

fn greeting() -> Services {
    Services::builder().grpc(WhoamiServer::new(Greeter)).build()
}

/// Adds a rule, and waits until every member and remote decides by it. Returns the generation that shows it.
async fn put(node: &Node, rule: Rule) -> Generation {
    let generation = node.add_rule(rule).await;
    assert!(node.control().await_barrier(generation).await.unwrap().passed);
    generation
}

/// Removes a rule. Returns what each member said about enforcing that.
async fn remove(node: &Node, id: &str) -> Barrier {
    let generation = node.remove_rule(id).await;
    let barrier = node.control().await_barrier(generation).await.unwrap();
    assert!(barrier.passed, "{barrier:?}");
    barrier
}

fn fetch_policy() -> Rule {
    rule("fetch-policy", "broker/*", "read", "policy")
}

struct Called(WhoamiClient<tonic::transport::Channel>);

impl Called {
    async fn ask(&mut self) -> Result<String, Status> {
        Ok(self.0.whoami(WhoamiRequest {}).await?.into_inner().principal)
    }
}

fn address_of(remote: &RemoteGuard) -> Address {
    Address::parse(&format!("localhost:{}", remote.local_addr().unwrap().port())).unwrap()
}

async fn connect(client: &ClientDialer, remote: &RemoteGuard) -> Result<Called, Status> {
    support::connect(client, &address_of(remote)).await.map(|channel| Called(WhoamiClient::new(channel)))
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_broker_decides_by_cluster_rules_until_cut_off() {
    let nodes = cluster_living(3, short()).await;
    let broker = nodes[0].issue("broker/localhost").await;
    let pay = nodes[0].client("pay").await;
    let shop = nodes[0].client("shop").await;

    remove(&nodes[0], "whoami").await;
    put(&nodes[0], fetch_policy()).await;
    let remote = guard_of(&[&nodes[2], &nodes[1]], &broker, greeting()).await.unwrap();

    // A client that is known and has no grant is connected and denied; with a grant it is served.
    let mut called = connect(&pay.dialer, &remote).await.unwrap();
    assert_eq!(
        called.ask().await.unwrap_err().code(),
        tonic::Code::PermissionDenied,
        "the initial rule is of a method"
    );
    let grant = rule("pay-calls", "client/pay", "write", "service:countersign.v1.Whoami/Whoami");
    put(&nodes[0], grant.clone()).await;
    assert!(called.ask().await.unwrap().ends_with("client/pay"));
    let mut others = connect(&shop.dialer, &remote).await.unwrap();
    assert_eq!(others.ask().await.unwrap_err().code(), tonic::Code::PermissionDenied);

    // When the removal returns, the remote denies: it acknowledged, and the barrier waited for no lease to run out.
    let barrier = remove(&nodes[0], "pay-calls").await;
    assert_eq!(called.ask().await.unwrap_err().code(), tonic::Code::PermissionDenied);
    assert!(barrier.answers.values().all(|answer| matches!(answer, Answer::Enforced(_))), "{barrier:?}");
    put(&nodes[0], grant).await;
    assert!(called.ask().await.is_ok(), "a grant after a removal is seen");

    // A revoked client's connection is closed there, too, when the revocation returns.
    nodes[0].revoke(pay.key).await;
    assert!(called.ask().await.is_err());
    assert!(connect(&pay.dialer, &remote).await.is_err());

    // A guard that may not read policy any more is told nothing, soon holds no lease, and serves no caller.
    put(&nodes[0], rule("shop-calls", "client/shop", "write", "service")).await;
    assert!(others.ask().await.is_ok());
    remove(&nodes[0], "fetch-policy").await;
    guard_denies(&remote).await;
    assert!(others.ask().await.is_err());
    remote.shutdown().await;
}

/// A guard is no member: it says where members are, and the client goes there.
#[tokio::test(flavor = "multi_thread")]
async fn client_of_a_remote_guard_renews_at_the_members() {
    let nodes = cluster_living(1, short()).await;
    let broker = nodes[0].issue("broker/localhost").await;
    let pay = nodes[0].client("pay").await;
    put(&nodes[0], fetch_policy()).await;
    let remote = guard_of(&[&nodes[0]], &broker, greeting()).await.unwrap();
    let key = countersign::KeyPair::generate(countersign::KeyAlgorithm::default()).unwrap();
    let renewed = Client::new(pay.dialer.clone()).renew(&[address_of(&remote)], &key).await.unwrap();
    let mut called = connect(renewed.client.dialer(), &remote).await.unwrap();
    put(&nodes[0], rule("calls", "client/pay", "write", "service")).await;
    assert!(called.ask().await.unwrap().ends_with("client/pay"));
    remote.shutdown().await;
}

async fn guard_denies(remote: &RemoteGuard) {
    while remote.guard().fresh().is_ok() {
        // why: a lease lapses by the passing of time alone
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_questions_about_a_principal_are_fetched_once() {
    let nodes = cluster_living(1, short()).await;
    let broker = nodes[0].issue("broker/localhost").await;
    put(&nodes[0], fetch_policy()).await;
    put(&nodes[0], rule("reads", "client/pay", "read", "topic:orders")).await;
    let pay = nodes[0].client("pay").await;
    let (services, mut seen) = seeing();
    let remote = guard_of(&[&nodes[0]], &broker, services).await.unwrap();
    let peer = peer_of(&remote, &pay.dialer, &mut seen).await;

    assert!(matches!(remote.guard().session(&peer, None), Err(Denial::Unfetched)));
    let asks = (0..50).map(|_| {
        let (guard, peer) = (remote.guard().clone(), peer.clone());
        tokio::spawn(async move { guard.fetch(&peer).await })
    });
    for ask in asks.collect::<Vec<_>>() {
        ask.await.unwrap().unwrap();
    }
    assert_eq!(remote.fetches(), 1);
    let orders = Resource::new(Kind::TOPIC, "orders");
    let may = |action| {
        let session = remote.guard().session(&peer, None)?;
        let fresh = remote.guard().fresh()?;
        session.authorize(&fresh, action, &orders).map(|_| ())
    };
    assert_eq!(may(Action::Read), Ok(()));
    assert!(matches!(may(Action::Write), Err(Denial::Denied(_))));

    // A change that concerns other principals leaves the answer as it is. After a change that concerns it, it asks
    // again.
    put(&nodes[0], rule("other", "client/shop", "read", "topic:orders")).await;
    assert_eq!((may(Action::Read), remote.fetches()), (Ok(()), 1));
    let generation = put(&nodes[0], rule("writes", "client/pay", "write", "topic:orders")).await;
    assert!(remote.guard().generation() >= generation, "acknowledged before the command returned");
    assert!(matches!(may(Action::Write), Err(Denial::Unfetched)));
    remote.guard().fetch(&peer).await.unwrap();
    assert_eq!((may(Action::Write), remote.fetches()), (Ok(()), 2));
    remote.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_a_principal_are_kept_as_long_as_told() {
    let nodes = cluster_living(1, Lifetimes { cache_ttl_secs: 1, ..Lifetimes::default() }).await;
    let broker = nodes[0].issue("broker/localhost").await;
    put(&nodes[0], fetch_policy()).await;
    put(&nodes[0], rule("reads", "client/pay", "read", "topic:orders")).await;
    let pay = nodes[0].client("pay").await;
    let (services, mut seen) = seeing();
    let remote = guard_of(&[&nodes[0]], &broker, services).await.unwrap();
    let (peer, guard) = (peer_of(&remote, &pay.dialer, &mut seen).await, remote.guard().clone());
    guard.fetch(&peer).await.unwrap();
    let (session, orders) = (guard.session(&peer, None).unwrap(), Resource::new(Kind::TOPIC, "orders"));
    let asked = async |expected: Result<(), Denial>| {
        let reached = async {
            while session.authorize(&guard.fresh().unwrap(), Action::Read, &orders).map(drop) != expected {
                // why: what is kept ends by the passing of time alone
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap_or_else(|_| panic!("never {expected:?}"));
    };
    asked(Ok(())).await;
    asked(Err(Denial::Unfetched)).await;
    assert_eq!(remote.fetches(), 1);
    guard.fetch(&peer).await.unwrap();
    asked(Ok(())).await;
    assert_eq!(remote.fetches(), 2);
    remote.shutdown().await;
}

/// Services that tell which caller a call came from, on a path that needs no rule.
fn seeing() -> (Services, tokio::sync::mpsc::Receiver<VerifiedPeer>) {
    use axum::Router;
    use axum::routing::any;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let app = Router::new().route(
        "/countersign.v1.Policy/Fetch",
        any(move |request: axum::extract::Request| {
            let sender = sender.clone();
            async move {
                let caller = request.extensions().get::<countersign::Caller>().unwrap().clone();
                let _ = sender.send(caller.peer).await;
                "seen"
            }
        }),
    );
    (Services::builder().grpc_router(app).build(), receiver)
}

/// The client as the remote guard verified it, by a call that it serves.
async fn peer_of(
    remote: &RemoteGuard,
    client: &ClientDialer,
    seen: &mut tokio::sync::mpsc::Receiver<VerifiedPeer>,
) -> VerifiedPeer {
    let channel = support::connect(client, &address_of(remote)).await.unwrap();
    // A path that needs no rule: what is asked for here is who calls.
    let mut fetching = countersign_api::cluster::policy_client::PolicyClient::new(channel);
    let _ = fetching.fetch(countersign_api::cluster::FetchRequest::default()).await;
    seen.recv().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_the_permission_is_told_nothing() {
    let nodes = cluster_living(1, short()).await;
    let broker = nodes[0].issue("broker/localhost").await;
    put(&nodes[0], rule("elsewhere", "broker/localhost", "describe", "policy")).await;
    let refused = guard_of(&[&nodes[0]], &broker, Services::default()).await.err().unwrap();
    // At once, and by name: it does not wait for a member that would tell.
    assert!(matches!(&refused, RemoteGuardError::Refused { why } if why.contains("policy")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_remote_guard_is_waited_for_until_its_lease_ends() {
    let nodes = cluster_living(1, short()).await;
    let broker = nodes[0].issue("broker/localhost").await;
    let pay = nodes[0].client("pay").await;
    put(&nodes[0], fetch_policy()).await;
    put(&nodes[0], rule("calls", "client/pay", "write", "service")).await;
    let remote = guard_of(&[&nodes[0]], &broker, greeting()).await.unwrap();
    let mut called = connect(&pay.dialer, &remote).await.unwrap();
    called.ask().await.unwrap();
    // It goes on serving by what it knows, and hears nothing more.
    remote.deafen_for_testing();
    assert!(called.ask().await.is_ok(), "it has a lease");
    remove(&nodes[0], "calls").await;
    assert!(remote.guard().fresh().is_err(), "the removal returned when its lease was over");
    assert!(called.ask().await.is_err());
    remote.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_guard_of_an_evicted_member_denies_after_a_removal() {
    let nodes = cluster_living(3, short()).await;
    let broker = nodes[0].issue("broker/localhost").await;
    let pay = nodes[0].client("pay").await;
    put(&nodes[0], fetch_policy()).await;
    put(&nodes[0], rule("calls", "client/pay", "write", "service")).await;
    // It knows no other member, and keeps to the lease that it has.
    let remote = guard_of(&[&nodes[2]], &broker, greeting()).await.unwrap();
    let mut called = connect(&pay.dialer, &remote).await.unwrap();
    called.ask().await.unwrap();
    nodes[0].evict("n3").await;
    remove(&nodes[0], "calls").await;
    assert!(called.ask().await.is_err(), "allowed after the removal had returned");
    remote.shutdown().await;
}
