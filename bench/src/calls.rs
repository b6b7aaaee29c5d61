//! Guarded unary calls on a member's client port, beside the same handler on tonic's routes and hyper over the same
//! mutual TLS, which guards nothing. Both serve in this process, each on a runtime and a thread of its own; one client
//! calls them in turns.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use countersign::{Member, NewCluster, PolicyChange, Role, Services, Settings, Start};
use countersign_api::cluster::whoami_server::{Whoami, WhoamiServer};
use countersign_api::cluster::{WhoamiReply, WhoamiRequest};
use countersign_control::{IssuedCertificate, NewCertificate};
use countersign_core::authz::text::RuleText;
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::bare::provider;
use crate::report::{Line, Report, Target};
use crate::rounds::{Contender, Sampling, interleave};

const ROUNDS: usize = 31;
const IN_FLIGHT: [(usize, &str); 3] = [
    (1, "guarded unary calls, 1 in flight"),
    (16, "guarded unary calls, 16 in flight"),
    (64, "guarded unary calls, 64 in flight"),
];
const CALLS: usize = 4096;
const PATH: &str = "/countersign.v1.Whoami/Whoami";

/// The handler of both.
struct Constant;

#[tonic::async_trait]
impl Whoami for Constant {
    async fn whoami(&self, _: Request<WhoamiRequest>) -> Result<Response<WhoamiReply>, Status> {
        Ok(Response::new(WhoamiReply { principal: "client/load".to_owned(), generation: 1, node: 1 }))
    }
}

/// Certificates of one cluster: of its member, and of a client.
struct Files {
    roots: Arc<RootCertStore>,
    member: (Vec<CertificateDer<'static>>, Vec<u8>),
    client: (Vec<CertificateDer<'static>>, Vec<u8>),
}

impl Files {
    fn server(&self) -> Result<ServerConfig> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), provider()).build()?;
        let (chain, key) = self.member.clone();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, PrivateKeyDer::try_from(key).map_err(|error| anyhow!(error))?)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn client(&self) -> Result<ClientConfig> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), provider()).build()?;
        let (chain, key) = self.client.clone();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(chain, PrivateKeyDer::try_from(key).map_err(|error| anyhow!(error))?)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// A connection to one of the two.
struct Called {
    requests: SendRequest<Full<Bytes>>,
    address: SocketAddr,
    in_flight: usize,
}

impl Called {
    async fn connect(files: &Files, address: SocketAddr, in_flight: usize) -> Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(files.client()?));
        let stream = connector.connect(ServerName::from(address.ip()), socket).await?;
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (requests, connection) = handshake.await?;
        tokio::spawn(connection);
        Ok(Self { requests, address, in_flight })
    }

    async fn call(mut requests: SendRequest<Full<Bytes>>, address: SocketAddr, calls: usize) -> Result<()> {
        for _ in 0..calls {
            let request = hyper::Request::post(format!("https://{address}{PATH}"));
            let request = request.header("content-type", "application/grpc").header("te", "trailers");
            requests.ready().await?;
            let answer = requests.send_request(request.body(Full::from(&[0_u8; 5][..]))?).await?;
            let body = answer.into_body().collect().await?;
            let status = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
            ensure!(status.is_some_and(|status| status == "0"), "refused: {status:?}");
        }
        Ok(())
    }
}

impl Contender for Called {
    fn sample(&mut self) -> Sampling<'_> {
        Box::pin(async move {
            let begun = Instant::now();
            let mut tasks = JoinSet::new();
            for _ in 0..self.in_flight {
                tasks.spawn(Self::call(self.requests.clone(), self.address, CALLS / self.in_flight));
            }
            while let Some(ended) = tasks.join_next().await {
                ended??;
            }
            Ok(CALLS as f64 / begun.elapsed().as_secs_f64())
        })
    }
}

/// Runs `serve` on a thread and a runtime of its own. Returns what it told; it serves until the process ends.
fn aside<T: Send + 'static, F: Future<Output = Result<T>>>(serve: impl FnOnce() -> F + Send + 'static) -> Result<T> {
    let (told, tell) = sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async move {
            let _ = told.send(serve().await);
            std::future::pending::<()>().await;
        });
    });
    tell.recv().context("the server ended")?
}

async fn member(data: std::path::PathBuf) -> Result<(SocketAddr, Files)> {
    let rule = RuleText {
        id: Some("load".to_owned()),
        principal: "client/load".to_owned(),
        actions: vec!["write".to_owned()],
        resource: Some(format!("service:{}", PATH.trim_start_matches('/'))),
        ..RuleText::default()
    };
    let settings = Settings { name: Some("n1".parse()?), ..Settings::new(&data, "127.0.0.1:0".parse()?) };
    let policy = PolicyChange { put: vec![rule.rule()?], ..PolicyChange::default() };
    let cluster = NewCluster { policy, ..NewCluster::new("bench".parse()?) };
    let (opened, _) = Member::open(settings, Start::Bootstrap(cluster)).await?;
    let member = opened.serve(Services::builder().grpc(WhoamiServer::new(Constant)).build()).await?;
    let key = KeyPair::generate(KeyAlgorithm::default())?;
    let role = Role::parse("client/load").map_err(|error| anyhow!("{error}"))?;
    let wanted = NewCertificate { role, spki: key.spki(), ttl_secs: Some(3600) };
    let issued = loop {
        match member.control()?.issue_certificate(wanted.clone()).await {
            Ok(issued) => break issued,
            // why: a member that was just founded has no lease yet
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    };
    let IssuedCertificate { leaf, authority, .. } = issued;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.clone()))?;
    let chain = CertificateDer::pem_file_iter(data.join("leaf.pem"))?.collect::<Result<Vec<_>, _>>()?;
    let own = PrivateKeyDer::from_pem_file(data.join("keys/leaf.key"))?.secret_der().to_vec();
    let files = Files {
        roots: Arc::new(roots),
        member: (chain, own),
        client: (vec![CertificateDer::from(leaf), CertificateDer::from(authority)], key.to_pkcs8()?.expose().to_vec()),
    };
    Ok((member.client_addr().context("no client port")?, files))
}

async fn bare(config: ServerConfig) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = Routes::new(WhoamiServer::new(Constant)).into_axum_router();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, app) = (acceptor.clone(), app.clone());
            tokio::spawn(async move {
                let _ = socket.set_nodelay(true);
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let service = TowerToHyperService::new(app);
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(address)
}

pub(crate) fn run() -> Result<Report> {
    let data = tempfile::tempdir()?;
    let report = measure(data.path());
    // The member's threads end with the process.
    std::mem::forget(data);
    report
}

fn measure(data: &Path) -> Result<Report> {
    let data = data.join("data");
    let (guarded, files) = aside(move || member(data))?;
    let config = files.server()?;
    let unguarded = aside(move || bare(config))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut report = Report::default();
        for (in_flight, work) in IN_FLIGHT {
            let mut floor = Called::connect(&files, unguarded, in_flight).await?;
            let mut ours = Called::connect(&files, guarded, in_flight).await?;
            let medians = interleave(&mut [&mut floor, &mut ours], ROUNDS).await?;
            let [theirs, ours] = medians.as_slice() else { continue };
            let peer = "tonic on hyper over the same TLS";
            let (theirs, target) = (Some(*theirs), Target::Ratio(0.95));
            report.lines.push(Line { work, unit: "calls/s", peer, theirs, ours: *ours, target });
        }
        Ok(report)
    })
}
