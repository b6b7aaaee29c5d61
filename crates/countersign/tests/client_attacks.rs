//! Attacks on programs outside the cluster that renew their certificates, and on what a member writes into its log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use countersign::{Client, KeyPair, Services, Suffrage, VOTERS};
use countersign_api::admin::RefusalInfo;
use countersign_api::cluster::certificates_server::{Certificates, CertificatesServer};
use countersign_api::cluster::{RenewReply, RenewRequest};
use countersign_control::NewCertificate;
use countersign_core::limits::{FAILURES_PER_SOURCE_MINUTE_MAX, HANDSHAKE_MILLIS_MAX, HANDSHAKES_IN_FLIGHT_MAX};
use countersign_core::name::Address;
use countersign_core::principal::Role;
use countersign_net::{
    AcceptorLimits, ClientAcceptor, ClientConnection, Clock, Endpoint, LoggedRefusals, SystemClock, Trust,
};
use countersign_pki::key::KeyAlgorithm;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use support::rules::rule;
use support::{Node, PATIENCE, Plain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Shorter than anything that is waited for in vain.
const SHORT: Duration = Duration::from_millis(500);
/// Attempts of one source that may fail in a minute, on each port.
const BUDGET: usize = FAILURES_PER_SOURCE_MINUTE_MAX as usize;

fn key() -> KeyPair {
    KeyPair::generate(KeyAlgorithm::default()).unwrap()
}

/// A service with a certificate of the cluster that means ill.
enum Guard {
    /// It never answers.
    Silent,
    /// It names these as voters.
    Names(String),
}

#[tonic::async_trait]
impl Certificates for Guard {
    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let Self::Names(voters) = self else { return std::future::pending().await };
        let mut status = Status::failed_precondition("ask these");
        status.metadata_mut().insert(VOTERS, voters.parse().unwrap());
        Err(status)
    }
}

impl Guard {
    async fn serve(self, node: &Node) -> Address {
        let broker = node.issue("broker/localhost").await;
        let trust = Trust::of_view(node.member().view(), Some(broker.credential), SystemClock.now()).unwrap();
        let endpoint = Endpoint::new(trust, SystemClock, Arc::<LoggedRefusals>::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        let acceptor = ClientAcceptor::on(listener, endpoint, AcceptorLimits::default());
        let accepted = acceptor.connections(16);
        tokio::spawn(async move { match acceptor.run().await {} });
        let incoming = ReceiverStream::new(accepted).filter_map(|connection| match connection {
            ClientConnection::Accepted { stream, .. } => Some(Ok::<_, std::io::Error>(Plain(stream))),
            ClientConnection::Refused { .. } => None,
        });
        let served = tonic::transport::Server::builder().add_service(CertificatesServer::new(self));
        tokio::spawn(served.serve_with_incoming(incoming));
        Address::parse(&address).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_guard_that_never_answers_stops_a_renewal() {
    let node = Node::bootstrap("n1").await;
    node.converged(1).await;
    let client = node.client("pay").await;
    let silent = Guard::Silent.serve(&node).await;
    let client = Client::new(client.dialer).with_renewal_patience(SHORT);
    let members = [silent, node.client_address()];
    let renewed = tokio::time::timeout(PATIENCE, client.renew(&members, &key())).await;
    renewed.expect("it waits for the guard").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_guard_names_so_many_that_no_voter_is_asked() {
    let node = Node::bootstrap("n1").await;
    node.converged(1).await;
    let token = node.token(Suffrage::Learner, 1).await;
    let learner = Node::join("n2", &token, &node).await.unwrap();
    learner.converged(2).await;
    learner.until(|_| learner.member().node_for_testing().state.read().client_ports_of_voters().count() == 1).await;
    let client = node.client("pay").await;
    learner.knows(1).await;
    // No service is at any of these.
    let nowhere: Vec<String> = (1..=64).map(|port| format!("127.0.0.1:{port}")).collect();
    let names = Guard::Names(nowhere.join(", ")).serve(&node).await;
    let client = Client::new(client.dialer);
    client.renew(&[names, learner.client_address()], &key()).await.unwrap();

    // All that the program was given are asked, however many are gone.
    let client = Client::new(node.client("mail").await.dialer);
    let gone = nowhere.iter().map(|address| Address::parse(address).unwrap());
    let members: Vec<Address> = gone.chain([node.client_address()]).collect();
    client.renew(&members, &key()).await.unwrap();
}

/// What was logged, in lines.
fn logged() -> Vec<String> {
    let text = log().lock().unwrap().clone();
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

fn log() -> &'static Mutex<Vec<u8>> {
    static LOG: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();
    LOG.get_or_init(|| {
        tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).init();
        Mutex::default()
    })
}

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        log().lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A client of the HTTPS port without a certificate.
async fn anonymous(node: &Node, authority: &[u8]) -> TlsStream<TcpStream> {
    let port = node.member().https_addr().unwrap();
    anonymous_on(TcpStream::connect(port).await.unwrap(), authority).await
}

async fn anonymous_on(socket: TcpStream, authority: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::from(socket.peer_addr().unwrap().ip());
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

/// The certificate of the cluster's authority.
async fn authority(node: &Node) -> Vec<u8> {
    let role = Role::parse("client/any").unwrap();
    let wanted = NewCertificate { role, spki: key().spki(), ttl_secs: Some(600) };
    node.control().issue_certificate(wanted).await.unwrap().authority
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_callers_without_certificates_fill_the_log() {
    log();
    let node = Node::bootstrap("n1").await;
    node.converged(1).await;
    let authority = authority(&node).await;
    let port = node.member().https_addr().unwrap().to_string();
    for at in 0..2 * BUDGET {
        let host = if at % 2 == 0 { &port } else { "evil.example" };
        let mut tls = anonymous(&node, &authority).await;
        tls.write_all(format!("GET /v1/nodes HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await.unwrap();
        let mut got = String::new();
        let _ = tls.read_to_string(&mut got).await;
        let expected = if at % 2 == 0 { "HTTP/1.1 401" } else { "HTTP/1.1 421" };
        assert!(got.starts_with(expected), "{got}");
    }
    let refused = logged().iter().filter(|line| line.contains("admin request refused")).count();
    // A little more than the budget: it grows again while this runs.
    assert!(refused < BUDGET + BUDGET / 2, "{refused} lines");
    assert!(refused >= BUDGET / 2, "{refused} lines");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_revoked_holder_keeps_its_place_on_the_https_port() {
    let node = Node::bootstrap("n1").await;
    node.converged(1).await;
    let thief = node.issue("client/thief").await;
    // One connection from before, and one from after.
    let before = node.dial_https(&thief).await;
    node.revoke(thief.key).await;
    let after = node.dial_https(&thief).await;
    for stream in [before, after] {
        let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = node.for_https(support::http::request("GET", "/v1/nodes", Empty::<bytes::Bytes>::new()));
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 403);
        answer.into_body().collect().await.unwrap();
        let ended = tokio::time::timeout(SHORT, connection).await;
        assert!(ended.is_ok(), "it has its place still");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_joiners_past_their_budget_fill_the_record_of_refusals() {
    let node = Node::bootstrap("n1").await;
    node.converged(1).await;
    let token = node.token(Suffrage::Learner, 1).await;
    let cluster_port = node.member().cluster_addr().unwrap();
    let enrollments = async || {
        let answer = node.on_socket("GET", "/v1/refusals?source=127.0.0.1", "").await;
        answer.json::<Vec<RefusalInfo>>().iter().filter(|info| info.reason == "enrollment").count()
    };
    // The name is taken.
    assert!(Node::try_join("n1", &token, &node.address()).await.is_err());
    assert_eq!(enrollments().await, 1);
    let fail = async move || {
        let mut failed = TcpStream::connect(cluster_port).await.unwrap();
        let _ = failed.write_all(b"no TLS").await;
        let _ = failed.read_to_end(&mut Vec::new()).await;
    };
    for _ in 0..2 * BUDGET {
        fail().await;
    }
    // The budget grows again, and others of the same source take it.
    let others = tokio::spawn(async move {
        loop {
            fail().await;
        }
    });
    for _ in 0..6 {
        assert!(Node::try_join("n1", &token, &node.address()).await.is_err());
    }
    others.abort();
    let kept = enrollments().await;
    assert!(kept < 4, "{kept} of the last hundred");
    let counted = node.member().node_for_testing().refusals.counts();
    assert!(counted.contains(&("enrollment", 7)), "{counted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_one_source_takes_all_places_of_the_https_port() {
    let node = Node::bootstrap("n1").await;
    node.converged(1).await;
    let authority = authority(&node).await;
    let port = node.member().https_addr().unwrap();
    // The kernel keeps more of them than there are places.
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES_IN_FLIGHT_MAX + 10 {
        silent.push(TcpStream::connect(port).await.unwrap());
    }
    let elsewhere = TcpSocket::new_v4().unwrap();
    elsewhere.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let socket = elsewhere.connect(port).await.unwrap();
    let asked = async {
        let mut tls = anonymous_on(socket, &authority).await;
        tls.write_all(format!("GET /metrics HTTP/1.1\r\nhost: {port}\r\n\r\n").as_bytes()).await.unwrap();
        let mut got = String::new();
        let _ = tls.read_to_string(&mut got).await;
        got
    };
    // Before the first of the others has taken too long.
    let answered = tokio::time::timeout(Duration::from_millis(HANDSHAKE_MILLIS_MAX / 2), asked).await;
    assert!(answered.expect("there is no place").starts_with("HTTP/1.1 200"));
}

/// Counts the requests whose handlers have not ended.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_byte_of_another_request_hides_the_end_of_its_connection() {
    let under_way = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&under_way);
    let wait = async move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let _under_way = UnderWay(counted.clone());
        std::future::pending::<()>().await;
    };
    let app = Router::new().route("/wait", get(wait));
    let node = Node::bootstrap_serving("n1", |_| Services::builder().http(app).build()).await;
    node.add_rule(rule("all", "client/*", "read", "service:/*")).await;
    let authority = authority(&node).await;
    let port = node.member().client_addr().unwrap();
    let (role, pair) = (Role::parse("client/pay").unwrap(), key());
    let wanted = NewCertificate { role, spki: pair.spki(), ttl_secs: Some(600) };
    let leaf = node.control().issue_certificate(wanted).await.unwrap().leaf;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority)).unwrap();
    let der = PrivateKeyDer::try_from(pair.to_pkcs8().unwrap().expose().to_vec()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let config = Arc::new(config.with_client_auth_cert(vec![CertificateDer::from(leaf)], der).unwrap());
    // With the first bytes of another request behind it, the server reads no more until it has answered.
    for behind in ["", "G"] {
        let socket = TcpStream::connect(port).await.unwrap();
        let mut tls =
            TlsConnector::from(Arc::clone(&config)).connect(ServerName::from(port.ip()), socket).await.unwrap();
        let request = format!("GET /wait HTTP/1.1\r\nhost: {port}\r\n\r\n{behind}");
        tls.write_all(request.as_bytes()).await.unwrap();
        node.until(|_| under_way.load(Ordering::SeqCst) > 0).await;
        match behind {
            "" => drop(tls),
            _ => {
                node.revoke(pair.id()).await;
                assert_eq!(tls.read(&mut [0]).await.unwrap_or_default(), 0, "the connection is cut");
            }
        }
        node.until(|_| under_way.load(Ordering::SeqCst) == 0).await;
    }
}
