//! A TLS client that does as it is told: any protocols, any chain with any key, any server name, every server trusted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use countersign_net::frame::{FRAME_LEN, FirstFrame};
use countersign_pki::key::KeyPair;

#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

pub struct Raw {
    pub config: ClientConfig,
    pub name: String,
}

impl Raw {
    pub fn new(protocols: &[&[u8]]) -> Self {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Self { config, name: "00000000000000aa.1.east.internal".to_owned() }
    }

    /// As `who`.
    pub fn of(who: &super::Identity, protocols: &[&[u8]]) -> Self {
        Self::new(protocols).showing(&who.chain, &who.key)
    }

    /// Shows `chain` and signs with `key`, whether they belong together or not.
    pub fn showing(mut self, chain: &[Vec<u8>], key: &KeyPair) -> Self {
        let der = PrivateKeyDer::try_from(key.to_pkcs8().unwrap().expose().to_vec()).unwrap();
        let key = default_provider().key_provider.load_private_key(der).unwrap();
        let chain = chain.iter().cloned().map(CertificateDer::from).collect();
        let certified = Arc::new(CertifiedKey::new(chain, key));
        self.config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        self
    }

    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    pub fn resuming(mut self) -> Self {
        self.config.resumption = Resumption::in_memory_sessions(8);
        self.config.enable_early_data = true;
        self
    }

    pub async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let socket = TcpStream::connect(address).await?;
        self.handshake(socket).await
    }

    pub async fn handshake<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
        &self,
        socket: S,
    ) -> io::Result<TlsStream<S>> {
        let name = ServerName::try_from(self.name.clone()).unwrap();
        TlsConnector::from(Arc::new(self.config.clone())).connect(name, socket).await
    }

    /// The acceptor's answer: its first frame, or how the connection ended instead.
    pub async fn answer(&self, address: SocketAddr) -> io::Result<FirstFrame> {
        let mut tls = self.connect(address).await?;
        first_frame(&mut tls).await
    }
}

pub async fn first_frame<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    tls: &mut TlsStream<S>,
) -> io::Result<FirstFrame> {
    let mut frame = [0; FRAME_LEN];
    tls.read_exact(&mut frame).await?;
    Ok(FirstFrame::decode(&frame).unwrap())
}

/// The TLS alert that an IO error carries.
pub fn alert(error: &io::Error) -> Option<rustls::AlertDescription> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}
