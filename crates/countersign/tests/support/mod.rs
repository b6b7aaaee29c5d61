//! A member in a temporary directory on an ephemeral port, and what tests ask of it over its admin socket.

#![allow(dead_code, unreachable_pub)]

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use countersign::{
    CACHE_TTL_SECS, ClusterToken, FilesMode, LeaseLength, Member, NODE_TTL_SECS, NewCluster, Services, Settings, Start,
    StartError, Started, WhoamiService, channel_over,
};
use countersign_api::admin::{
    CertificateIssued, CertificateRequest, NodeChanged, NodeRemove, Status, TokenCreate, TokenCreated,
};
use countersign_api::cluster::WhoamiRequest;
use countersign_api::cluster::whoami_client::WhoamiClient;
use countersign_core::authz::Rule;
use countersign_core::authz::change::PolicyChange;
use countersign_core::authz::text::RuleText;
use countersign_core::name::{Address, Name};
use countersign_core::trust::join_token::JoinToken;
use countersign_core::trust::member::Suffrage;
use countersign_net::{Credential, DialError, ServiceClient, SystemClock};
use countersign_pki::csr::{create_csr, csr_pem};
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use countersign_pki::pem::certificates_from_pem;
use countersign_pki::verify::Bundle;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// Longer than anything takes on a loaded machine; only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// Everybody may ask who they are.
pub fn whoami_rule() -> Rule {
    let text = RuleText {
        id: Some("whoami".to_owned()),
        principal: "*".to_owned(),
        actions: vec!["write".to_owned()],
        resource: Some("service:countersign.v1.Whoami/Whoami".to_owned()),
        ..RuleText::default()
    };
    text.rule().unwrap()
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

/// The body of a request for a certificate.
pub fn certificate_request(role: &str) -> String {
    let key = KeyPair::generate(KeyAlgorithm::default()).unwrap();
    let csr = csr_pem(&create_csr(&key).unwrap());
    serde_json::to_string(&CertificateRequest { role: role.to_owned(), ttl_secs: Some(600), csr }).unwrap()
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

    /// One request over the admin socket.
    pub async fn ask(&self, method: &str, path: &str, body: String) -> (u16, String) {
        let socket = self.data.path().join("admin.sock");
        let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
        let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "local")
            .header("content-type", "application/json")
            .body(Full::new(bytes::Bytes::from(body)))
            .unwrap();
        let response = client.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The same, for a request that is carried out.
    pub async fn local(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, said) = self.ask(method, path, body.to_string()).await;
        assert_eq!(status, 200, "{method} {path}: {said}");
        serde_json::from_str(&said).unwrap()
    }

    pub async fn status(&self) -> Status {
        serde_json::from_str(&self.ask("GET", "/v1/status", String::new()).await.1).unwrap()
    }

    pub async fn token(&self, suffrage: Suffrage, uses: u32) -> Token {
        let wanted = TokenCreate {
            suffrage,
            ttl_secs: 600,
            uses,
            name: None,
            hosts: vec![],
            role: None,
            attributes: Default::default(),
        };
        let (status, body) = self.ask("POST", "/v1/tokens", serde_json::to_string(&wanted).unwrap()).await;
        assert_eq!(status, 200, "{body}");
        Token(serde_json::from_str::<TokenCreated>(&body).unwrap().token)
    }

    pub async fn evict(&self, node: &str) -> NodeChanged {
        let how = NodeRemove { compromised: false, keep_authority: true };
        let path = format!("/v1/nodes/{node}/evict");
        let (status, body) = self.ask("POST", &path, serde_json::to_string(&how).unwrap()).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// A client with a certificate of this cluster.
    pub async fn client(&self, name: &str) -> Client {
        let Issued { key, bundle, credential } = self.issue(&format!("client/{name}")).await;
        let domain = self.member().view().trust_domain.clone();
        let dialer = ServiceClient::new(bundle, domain, credential, Arc::new(SystemClock));
        Client { key, dialer }
    }

    /// A certificate of this cluster.
    pub async fn issue(&self, role: &str) -> Issued {
        let key = KeyPair::generate(KeyAlgorithm::default()).unwrap();
        let csr = csr_pem(&create_csr(&key).unwrap());
        let wanted = CertificateRequest { role: role.to_owned(), ttl_secs: Some(600), csr };
        let (status, body) = self.ask("POST", "/v1/certificates", serde_json::to_string(&wanted).unwrap()).await;
        assert_eq!(status, 200, "{body}");
        let issued: CertificateIssued = serde_json::from_str(&body).unwrap();
        let chain = certificates_from_pem(&issued.chain).unwrap();
        let credential = Arc::new(Credential::new(chain.iter().map(|der| der.to_vec()), &key).unwrap());
        let bundle = Arc::new(Bundle::new([chain[1].as_ref()]).unwrap());
        Issued { key: issued.key, bundle, credential }
    }

    pub async fn revoke(&self, key: &str) {
        let (status, body) = self.ask("DELETE", &format!("/v1/certificates/{key}"), String::new()).await;
        assert_eq!(status, 200, "{body}");
    }

    /// Waits until the view shows `members` members, all settled, each voter holding the CA key.
    pub async fn settled(&self, members: usize) {
        self.until(|status| {
            status.ready
                && status.members.len() == members
                && status.members.iter().all(|m| m.settled && (m.suffrage == Suffrage::Learner || m.holds_authority))
        })
        .await;
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
            // why: the socket is asked again; nothing tells when its answer changes
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub struct Issued {
    pub key: String,
    pub bundle: Arc<Bundle>,
    pub credential: Arc<Credential>,
}

pub struct Client {
    pub key: String,
    pub dialer: ServiceClient,
}

impl Client {
    /// One connection, kept: it is not dialed anew when it is lost.
    pub async fn connect(&self, node: &Node) -> Result<Whoami, DialError> {
        let stream = self.dialer.dial(&node.address()).await?;
        let endpoint = tonic::transport::Endpoint::from_static("http://cluster");
        Ok(Whoami(WhoamiClient::new(channel_over(&endpoint, stream))))
    }
}

pub struct Whoami(WhoamiClient<tonic::transport::Channel>);

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
            node.settled(i).await;
        }
    }
    nodes
}

/// Compares with what is checked in; writes it anew with `COUNTERSIGN_BLESS=1`.
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
