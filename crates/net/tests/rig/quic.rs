//! A client port over QUIC that runs, and clients of quinn that do as they are told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::peer::Refusal;
use countersign_net::{AcceptorLimits, Endpoint, QuicAcceptor, QuicConnection, QuicPurpose, RefusalRecord};
use quinn::ConnectionError;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::task::JoinHandle;

use super::raw::Raw;
use super::{Cluster, ManualClock, Sink, until};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Port {
    pub endpoint: Endpoint,
    pub acceptor: Arc<QuicAcceptor>,
    pub address: SocketAddr,
    pub clock: ManualClock,
    pub refusals: UnboundedReceiver<RefusalRecord>,
    pub connections: Receiver<QuicConnection>,
    task: JoinHandle<()>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Port {
    pub fn of(cluster: &Cluster) -> Self {
        Self::with(cluster, AcceptorLimits::default(), 16)
    }

    /// With at most `bound` connections waiting.
    pub fn with(cluster: &Cluster, limits: AcceptorLimits, bound: usize) -> Self {
        let mut port = Self::idle(cluster, limits, bound);
        port.run();
        port
    }

    pub fn run(&mut self) {
        let running = Arc::clone(&self.acceptor);
        self.task = tokio::spawn(async move { match running.run().await {} });
    }

    /// Bound, and accepting nothing.
    pub fn idle(cluster: &Cluster, limits: AcceptorLimits, bound: usize) -> Self {
        let ((sink, refusals), clock) = (Sink::new(), ManualClock::new());
        let endpoint = Endpoint::new(cluster.trust(cluster.nodes[&1].credential()), clock.clone(), sink);
        let acceptor = QuicAcceptor::bind(loopback(), endpoint.clone(), QuicPurpose::Client, limits).unwrap();
        let (address, connections) = (acceptor.local_addr().unwrap(), acceptor.connections(bound));
        let task = tokio::spawn(async {});
        Self { endpoint, acceptor: Arc::new(acceptor), address, clock, refusals, connections, task }
    }

    pub async fn connect(&self, raw: &Raw) -> Result<quinn::Connection, ConnectionError> {
        client().connect_with(config(raw), self.address, &raw.name).unwrap().await
    }

    pub async fn next(&mut self) -> QuicConnection {
        tokio::time::timeout(PATIENCE, self.connections.recv()).await.expect("no connection").unwrap()
    }

    pub async fn refused(&mut self) -> RefusalRecord {
        tokio::time::timeout(PATIENCE, self.refusals.recv()).await.expect("no refusal").unwrap()
    }

    /// Until so many connections wait to be taken up.
    pub async fn until_waiting(&self, many: usize) {
        until(|| self.connections.len() == many).await;
    }

    /// The caller is told, by the application, with this code, the reason, and the id that is on record.
    pub async fn is_refused(&mut self, raw: &Raw, expected: Refusal, code: u64) {
        let error = match self.connect(raw).await {
            Ok(connection) => ended(&connection).await,
            Err(error) => error,
        };
        let record = self.refused().await;
        assert_eq!(record.refusal, expected);
        assert!(record.principal.is_some(), "{expected}: what it proved is on record");
        assert_eq!(told(&error), (code, true), "{expected}: {error:?}");
        assert_eq!(phrase(&error), format!("{expected} (failure {})", record.failure_id));
    }
}

pub fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub fn client() -> quinn::Endpoint {
    quinn::Endpoint::client(loopback()).unwrap()
}

pub fn config(raw: &Raw) -> quinn::ClientConfig {
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(raw.config.clone()).unwrap()))
}

/// How a connection ends. One that goes on fails the test.
pub async fn ended(connection: &quinn::Connection) -> ConnectionError {
    tokio::time::timeout(PATIENCE, connection.closed()).await.expect("the connection goes on")
}

/// The code that the other end closed with, and whether its application did.
pub fn told(error: &ConnectionError) -> (u64, bool) {
    match error {
        ConnectionError::ConnectionClosed(close) => (close.error_code.into(), false),
        ConnectionError::ApplicationClosed(close) => (close.error_code.into(), true),
        other => panic!("{other:?}"),
    }
}

pub fn phrase(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => String::from_utf8(close.reason.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}
