//! Two ends of a connection, again and again: ours over TCP and QUIC, and the bare ones.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use countersign_core::id::NodeId;
use countersign_core::name::Address;
use countersign_net::frame::FRAME_LEN;
use countersign_net::{
    Acceptor, AcceptorLimits, Dialer, Endpoint, Expected, PeerStream, QuicAcceptor, QuicConnection, QuicDialer,
    QuicPurpose,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Receiver;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::bare;
use crate::cluster::{Cluster, dialed, loopback};

/// Connects two ends.
pub(crate) trait Connect {
    /// The dialer's end, then the acceptor's.
    type Ends;
    async fn connect(&mut self) -> Result<Self::Ends>;
    /// The members at the ends; a bare pair has none.
    fn members(&self) -> &[Endpoint] {
        &[]
    }
}

const ACCEPTOR: u64 = 1;
const DIALER: u64 = 2;

/// Our acceptor and dialer over TCP.
pub(crate) struct Tcp {
    ends: [Endpoint; 2],
    dialer: Dialer,
    address: Address,
    accepted: Receiver<PeerStream>,
}

impl Tcp {
    pub(crate) async fn new(cluster: &Cluster) -> Result<Self> {
        let ends = [cluster.endpoint(ACCEPTOR)?, cluster.endpoint(DIALER)?];
        let [acceptor, dialer] = ends.clone();
        let acceptor = Acceptor::bind(loopback(), acceptor, AcceptorLimits::default()).await?;
        let (address, accepted) = (dialed(acceptor.local_addr()?), acceptor.routes().peers(16));
        tokio::spawn(async move { match acceptor.run().await {} });
        Ok(Self { ends, dialer: Dialer::new(dialer), address, accepted })
    }
}

impl Connect for Tcp {
    type Ends = (PeerStream, PeerStream);

    async fn connect(&mut self) -> Result<(PeerStream, PeerStream)> {
        let dial = self.dialer.dial_peer(&self.address, NodeId(ACCEPTOR));
        let (dialed, accepted) = tokio::join!(dial, self.accepted.recv());
        Ok((dialed?, accepted.context("acceptor is gone")?))
    }

    fn members(&self) -> &[Endpoint] {
        &self.ends
    }
}

/// tokio-rustls alone.
pub(crate) struct BareTcp {
    /// Whether the acceptor sends a first frame that the dialer waits for, as ours does: without one, a dialer does not
    /// know whether its certificate was accepted.
    greets: bool,
    listener: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

type BareStreams = (client::TlsStream<TcpStream>, server::TlsStream<TcpStream>);

impl BareTcp {
    pub(crate) async fn new(cluster: &Cluster, greets: bool) -> Result<Self> {
        let listener = TcpListener::bind(loopback()).await?;
        Ok(Self {
            greets,
            address: listener.local_addr()?,
            listener,
            acceptor: TlsAcceptor::from(Arc::new(bare::server(cluster)?)),
            connector: TlsConnector::from(Arc::new(bare::client(cluster)?)),
        })
    }
}

impl Connect for BareTcp {
    type Ends = BareStreams;

    async fn connect(&mut self) -> Result<BareStreams> {
        let accept = async {
            let (socket, _) = self.listener.accept().await?;
            socket.set_nodelay(true)?;
            let mut tls = self.acceptor.accept(socket).await?;
            if self.greets {
                tls.write_all(&[0; FRAME_LEN]).await?;
                tls.flush().await?;
            }
            Ok::<_, std::io::Error>(tls)
        };
        let dial = async {
            let socket = TcpStream::connect(self.address).await?;
            socket.set_nodelay(true)?;
            let mut tls = self.connector.connect(ServerName::from(self.address.ip()), socket).await?;
            if self.greets {
                tls.read_exact(&mut [0; FRAME_LEN]).await?;
            }
            Ok(tls)
        };
        Ok(tokio::try_join!(dial, accept)?)
    }
}

/// Our acceptor and dialer over QUIC.
pub(crate) struct Quic {
    ends: [Endpoint; 2],
    dialer: QuicDialer,
    address: Address,
    accepted: Receiver<QuicConnection>,
}

impl Quic {
    pub(crate) fn new(cluster: &Cluster) -> Result<Self> {
        let ends = [cluster.endpoint(ACCEPTOR)?, cluster.endpoint(DIALER)?];
        let [acceptor, dialer] = ends.clone();
        let acceptor = QuicAcceptor::bind(loopback(), acceptor, QuicPurpose::Peer, AcceptorLimits::default())?;
        let (address, accepted) = (dialed(acceptor.local_addr()?), acceptor.connections(16));
        tokio::spawn(async move { match acceptor.run().await {} });
        Ok(Self { ends, dialer: QuicDialer::bind(loopback(), dialer)?, address, accepted })
    }
}

impl Connect for Quic {
    type Ends = (QuicConnection, QuicConnection);

    async fn connect(&mut self) -> Result<(QuicConnection, QuicConnection)> {
        let dial = self.dialer.dial(&self.address, QuicPurpose::Peer, Expected::Node(NodeId(ACCEPTOR)));
        let (dialed, accepted) = tokio::join!(dial, self.accepted.recv());
        Ok((dialed?, accepted.context("acceptor is gone")?))
    }

    fn members(&self) -> &[Endpoint] {
        &self.ends
    }
}

/// quinn alone.
pub(crate) struct BareQuic {
    acceptor: quinn::Endpoint,
    dialer: quinn::Endpoint,
    address: SocketAddr,
    config: quinn::ClientConfig,
}

impl BareQuic {
    pub(crate) fn new(cluster: &Cluster) -> Result<Self> {
        let server = QuicServerConfig::try_from(bare::server(cluster)?)?;
        let client = QuicClientConfig::try_from(bare::client(cluster)?)?;
        let acceptor = quinn::Endpoint::server(quinn::ServerConfig::with_crypto(Arc::new(server)), loopback())?;
        Ok(Self {
            address: acceptor.local_addr()?,
            acceptor,
            dialer: quinn::Endpoint::client(loopback())?,
            config: quinn::ClientConfig::new(Arc::new(client)),
        })
    }
}

impl Connect for BareQuic {
    type Ends = (quinn::Connection, quinn::Connection);

    async fn connect(&mut self) -> Result<(quinn::Connection, quinn::Connection)> {
        let accept = async { anyhow::Ok(self.acceptor.accept().await.context("acceptor is gone")?.await?) };
        let dial =
            async { anyhow::Ok(self.dialer.connect_with(self.config.clone(), self.address, "127.0.0.1")?.await?) };
        tokio::try_join!(dial, accept)
    }
}
