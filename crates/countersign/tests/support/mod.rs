//! A member in a temporary directory on an ephemeral port. Tests administer it by functions, never by requests:
//! only tests of a port make requests, with `http`.

#![allow(dead_code, unreachable_pub)]

pub mod http;
pub mod rules;

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use countersign::REFUSAL;
use countersign::{
    CACHE_TTL_SECS, ClusterToken, Control, ControlError, Evicted, FilesMode, IssuedCertificate, LeaseLength, Leaving,
    Member, NODE_TTL_SECS, NewCertificate, NewCluster, NewToken, Services, Settings, Start, StartError, Started,
    WhoamiService, chain, channel_to,
};
use countersign_api::admin::Status;
use countersign_api::cluster::WhoamiRequest;
use countersign_api::cluster::whoami_client::WhoamiClient;
use countersign_core::authz::change::PolicyChange;
use countersign_core::authz::{Policy, Rule, RuleId};
use countersign_core::id::{Generation, KeyId};
use countersign_core::name::{Address, Name};
use countersign_core::principal::Role;
use countersign_core::trust::join_token::JoinToken;
use countersign_core::trust::member::Suffrage;
use countersign_net::{ClientDialer, Credential, SystemClock};
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use countersign_pki::verify::Bundle;
use rules::rule;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::Channel;
use tonic::transport::server::Connected;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// Longer than anything takes on a loaded machine; only a failure waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Node {
    member: Option<Member>,
    pub started: Started,
    pub data: TempDir,
    name: Name,
    files: Option<FilesMode>,
}

#[derive(Clone)]
pub struct Token(String);

impl Token {
    pub fn parse(&self) -> JoinToken {
        JoinToken::parse(&self.0).unwrap()
    }

    pub fn secret(&self) -> &str {
        self.0.split(':').next().unwrap()
    }
}

/// How long certificates and leases live in the cluster that a test founds.
#[derive(Clone, Copy)]
pub struct Lifetimes {
    pub node_ttl_secs: u64,
    pub lease: LeaseLength,
    pub cache_ttl_secs: u64,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { node_ttl_secs: NODE_TTL_SECS, lease: LeaseLength::DEFAULT, cache_ttl_secs: CACHE_TTL_SECS }
    }
}

fn settings(data: &TempDir, name: &Name, files: Option<FilesMode>, lifetimes: Lifetimes) -> Settings {
    let any = "127.0.0.1:0".parse().unwrap();
    Settings {
        name: Some(name.clone()),
        https_addr: Some(any),
        https_names: vec!["console.example:8443".parse().unwrap(), "proxy.example".parse().unwrap()],
        node_ttl_secs: lifetimes.node_ttl_secs,
        cache_ttl_secs: lifetimes.cache_ttl_secs,
        lease: lifetimes.lease,
        files,
        ..Settings::new(data.path(), any)
    }
}

pub fn new_cluster() -> NewCluster {
    NewCluster {
        name: Name::parse("test").unwrap(),
        trust_domain: None,
        token: Some(ClusterToken::default()),
        authority: None,
        policy: PolicyChange { put: vec![whoami_rule()], ..PolicyChange::default() },
    }
}

/// Every principal may ask who it is.
fn whoami_rule() -> Rule {
    rule("whoami", "*", "write", "service:countersign.v1.Whoami/Whoami")
}

/// What a node of a test serves unless the test says otherwise.
fn whoami(member: &Member) -> Services {
    Services::builder().grpc(WhoamiService::of(member)).build()
}

async fn serving(
    settings: Settings,
    start: Start,
    services: impl FnOnce(&Member) -> Services,
) -> Result<(Member, Started), StartError> {
    let (opened, started) = Member::open(settings, start).await?;
    let services = services(opened.member());
    Ok((opened.serve(services).await?, started))
}

impl Node {
    pub async fn start(data: TempDir, name: &Name, start: Start) -> Result<Self, StartError> {
        Self::start_with(data, name, start, None).await
    }

    /// With a certificate made elsewhere.
    pub async fn start_with(
        data: TempDir,
        name: &Name,
        start: Start,
        files: Option<FilesMode>,
    ) -> Result<Self, StartError> {
        let settings = settings(&data, name, files.clone(), Lifetimes::default());
        let (member, started) = serving(settings, start, whoami).await?;
        Ok(Self { member: Some(member), started, data, name: name.clone(), files })
    }

    pub async fn bootstrap(name: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        Self::start(data, &Name::parse(name).unwrap(), Start::Bootstrap(new_cluster())).await.unwrap()
    }

    /// With services of its own.
    pub async fn bootstrap_serving(name: &str, services: impl FnOnce(&Member) -> Services) -> Self {
        let (data, name) = (tempfile::tempdir().unwrap(), Name::parse(name).unwrap());
        let (settings, start) = (settings(&data, &name, None, Lifetimes::default()), Start::Bootstrap(new_cluster()));
        let (member, started) = serving(settings, start, services).await.unwrap();
        Self { member: Some(member), started, data, name, files: None }
    }

    /// With lifetimes of its own.
    pub async fn bootstrap_living(name: &str, lifetimes: Lifetimes) -> Self {
        let (data, name) = (tempfile::tempdir().unwrap(), Name::parse(name).unwrap());
        let start = Start::Bootstrap(new_cluster());
        let (member, started) = serving(settings(&data, &name, None, lifetimes), start, whoami).await.unwrap();
        Self { member: Some(member), started, data, name, files: None }
    }

    pub async fn try_join(name: &str, token: &Token, sponsor: &Address) -> Result<Self, StartError> {
        let start = Start::Join { token: token.parse(), sponsor: sponsor.clone() };
        Self::start(tempfile::tempdir().unwrap(), &Name::parse(name).unwrap(), start).await
    }

    pub async fn join(name: &str, token: &Token, sponsor: &Node) -> Result<Self, StartError> {
        Self::try_join(name, token, &sponsor.address()).await
    }

    pub async fn open(data: TempDir, name: Name) -> Self {
        Self::start(data, &name, Start::Existing).await.unwrap()
    }

    pub fn member(&self) -> &Member {
        self.member.as_ref().unwrap()
    }

    pub fn address(&self) -> Address {
        Address::parse(&self.member().cluster_addr().unwrap().to_string()).unwrap()
    }

    /// Where clients call it.
    pub fn client_address(&self) -> Address {
        Address::parse(&self.member().client_addr().unwrap().to_string()).unwrap()
    }

    pub async fn stop(mut self) -> (TempDir, Name) {
        let member = self.member.take().unwrap();
        member.shutdown().await;
        drop(member);
        (self.data, self.name)
    }

    pub async fn restart(self) -> Self {
        let files = self.files.clone();
        let (data, name) = self.stop().await;
        Self::start_with(data, &name, Start::Existing, files).await.unwrap()
    }

    /// Administers the cluster through this member, as a program that embeds it does.
    pub fn control(&self) -> Control {
        self.member().control().unwrap()
    }

    pub async fn status(&self) -> Status {
        self.member().health().status().await
    }

    pub async fn token(&self, suffrage: Suffrage, uses: u32) -> Token {
        let (name, hosts, role, attributes) = (None, vec![], None, Default::default());
        let wanted = NewToken { suffrage, uses, ttl_secs: 600, name, hosts, role, attributes };
        Token(self.control().create_token(wanted).await.unwrap().token.reveal())
    }

    /// Adds a rule. Returns the generation that shows it.
    pub async fn add_rule(&self, rule: Rule) -> Generation {
        self.control().add_rule(rule).await.unwrap().generation
    }

    /// Removes a rule. Returns the generation that shows it.
    pub async fn remove_rule(&self, id: &str) -> Generation {
        let (changed, _) = self.control().remove_rule(RuleId::parse(id).unwrap()).await.unwrap();
        changed.generation
    }

    /// Puts a policy in place of the one in force.
    pub async fn apply(&self, policy: Policy) {
        self.control().apply_policy(&Arc::new(policy), None).await.unwrap();
    }

    /// Evicts the member of a name or number, whose machine was wiped.
    pub async fn try_evict(&self, node: &str) -> Result<Evicted, ControlError> {
        let control = self.control();
        let how = Leaving { compromised: false, keep_authority: true };
        control.evict(control.find(node)?, how).await
    }

    pub async fn evict(&self, node: &str) -> Evicted {
        self.try_evict(node).await.unwrap()
    }

    /// A client with a certificate of this cluster.
    pub async fn client(&self, name: &str) -> Client {
        let Issued { key, bundle, credential } = self.issue(&format!("client/{name}")).await;
        let domain = self.member().view().trust_domain.clone();
        let dialer = ClientDialer::new(bundle, domain, credential, Arc::new(SystemClock));
        Client { key, dialer }
    }

    /// A certificate of this cluster.
    pub async fn issue(&self, role: &str) -> Issued {
        let key = KeyPair::generate(KeyAlgorithm::default()).unwrap();
        let wanted = NewCertificate { role: Role::parse(role).unwrap(), spki: key.spki(), ttl_secs: Some(600) };
        let IssuedCertificate { leaf, authority, .. } = self.control().issue_certificate(wanted).await.unwrap();
        let bundle = Arc::new(Bundle::new([authority.as_slice()]).unwrap());
        let credential = Arc::new(Credential::new([leaf, authority], &key).unwrap());
        Issued { key: key.id(), bundle, credential }
    }

    pub async fn revoke(&self, key: KeyId) {
        self.control().revoke_key(key).await.unwrap();
    }

    /// Waits until the view shows `members` members, all converged, each voter holding the CA key.
    pub async fn converged(&self, members: usize) {
        self.until(|status| {
            status.ready
                && status.members.len() == members
                && status.members.iter().all(|m| m.converged && (m.role == Suffrage::Learner || m.holds_authority))
        })
        .await;
    }

    /// As [`Self::converged`], and the voters have signed what the cluster has become: nothing more changes by itself.
    pub async fn settled(&self, members: usize) {
        self.converged(members).await;
        self.until(|_| {
            let view = self.member().view();
            view.attested == view.attestation.number
        })
        .await;
    }

    /// Waits until it knows so many keys of clients: a new one is known first where it was committed.
    pub async fn knows(&self, keys: usize) {
        self.until(|_| self.member().view().principals.scan().values().flatten().count() == keys).await;
    }

    pub async fn sees_member(&self, name: &str) {
        self.until(|status| status.members.iter().any(|m| m.name == name)).await;
    }

    pub async fn until(&self, reached: impl Fn(&Status) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            if reached(&status) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{status:#?}");
            // why: the member is asked again; nothing tells when its answer changes
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub struct Issued {
    pub key: KeyId,
    pub bundle: Arc<Bundle>,
    pub credential: Arc<Credential>,
}

pub struct Client {
    pub key: KeyId,
    pub dialer: ClientDialer,
}

impl Client {
    /// One connection, kept: it is not dialed again when it is lost. An error if the member refuses the client.
    pub async fn connect(&self, node: &Node) -> Result<Whoami, tonic::Status> {
        connect(&self.dialer, &node.client_address()).await.map(|channel| Whoami(WhoamiClient::new(channel)))
    }
}

/// A connection to a client port whose caller the cluster does not refuse.
pub async fn connect(dialer: &ClientDialer, address: &Address) -> Result<Channel, tonic::Status> {
    let stream = dialer.dial(address).await.map_err(|error| tonic::Status::unavailable(chain(&error).to_string()))?;
    let channel = channel_to(address, stream).unwrap();
    // A refused caller is told so with its first answer.
    let asked = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await;
    match asked {
        Err(status) if status.metadata().contains_key(REFUSAL) => Err(status),
        Ok(_) | Err(_) => Ok(channel),
    }
}

pub struct Whoami(WhoamiClient<Channel>);

impl Whoami {
    pub async fn ask(&mut self) -> Result<String, tonic::Status> {
        Ok(self.0.whoami(WhoamiRequest {}).await?.into_inner().principal)
    }
}

/// `n` voters, each of which opened the CA key.
pub async fn cluster_of(n: usize) -> Vec<Node> {
    cluster_living(n, Lifetimes::default()).await
}

/// The same, with lifetimes of its own.
pub async fn cluster_living(n: usize, lifetimes: Lifetimes) -> Vec<Node> {
    cluster_around(Node::bootstrap_living("n1", lifetimes).await, n).await
}

/// The same, of a founder that runs already.
pub async fn cluster_around(founder: Node, n: usize) -> Vec<Node> {
    let mut nodes = vec![founder];
    for i in 2..=n {
        let token = nodes[0].token(Suffrage::Voter, 1).await;
        let joined = Node::join(&format!("n{i}"), &token, &nodes[i - 2]).await.unwrap();
        nodes.push(joined);
        for node in &nodes {
            node.converged(i).await;
        }
    }
    nodes
}

/// Compares with the checked-in golden file; `COUNTERSIGN_BLESS=1` writes the file.
pub fn agrees_with_golden(file: &str, seen: &str) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("COUNTERSIGN_BLESS").is_some() {
        std::fs::write(&golden, seen).unwrap();
    }
    let agreed = std::fs::read_to_string(&golden).unwrap();
    let differs = seen.lines().zip(agreed.lines()).find(|(now, then)| now != then);
    assert!(seen == agreed, "differs from {}, first: {differs:#?}", golden.display());
}

/// A connection as tonic serves it, for servers that are no members.
pub struct Plain<S>(pub S);

impl<S> Connected for Plain<S> {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl<S: AsyncRead + Unpin> AsyncRead for Plain<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Plain<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
