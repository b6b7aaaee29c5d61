//! Clients that send the bytes that they are told, and say how a port answered: for tests of what is spoken on a port.

#![allow(dead_code, unreachable_pub)]

pub mod app;
pub mod http2;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use countersign_control::{IssuedCertificate, NewCertificate};
use countersign_core::principal::Role;
use countersign_pki::key::{KeyAlgorithm, KeyPair};
use countersign_pki::pem::certificates_from_pem;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, Error, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::support::{Node, PATIENCE};

/// A chain, leaf first and authority last, with the key of its leaf.
pub struct Identity {
    chain: Vec<Vec<u8>>,
    key: KeyPair,
}

impl Identity {
    /// With a new certificate of the cluster.
    pub async fn issue(node: &Node, role: &str) -> Self {
        let key = KeyPair::generate(KeyAlgorithm::default()).unwrap();
        let wanted = NewCertificate { role: Role::parse(role).unwrap(), spki: key.spki(), ttl_secs: Some(600) };
        let IssuedCertificate { leaf, authority, .. } = node.control().issue_certificate(wanted).await.unwrap();
        Self { chain: vec![leaf, authority], key }
    }

    /// A member's own, from its files.
    pub fn of_member(node: &Node) -> Self {
        let read = |name: &str| std::fs::read_to_string(node.data.path().join(name)).unwrap();
        let chain = certificates_from_pem(&read("leaf.pem")).unwrap();
        let key = KeyPair::from_pem(&read("keys/leaf.key")).unwrap();
        Self { chain: chain.iter().map(|der| der.to_vec()).collect(), key }
    }

    /// A stock client that trusts this identity's authority, offers these protocols, and shows the identity if it is
    /// to.
    pub fn config(&self, shown: bool, protocols: &[&[u8]]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.chain.last().unwrap().clone())).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap().with_root_certificates(roots);
        let mut config = if shown {
            let key = PrivateKeyDer::try_from(self.key.to_pkcs8().unwrap().expose().to_vec()).unwrap();
            let chain = self.chain.iter().cloned().map(CertificateDer::from).collect();
            config.with_client_auth_cert(chain, key).unwrap()
        } else {
            config.with_no_client_auth()
        };
        config.alpn_protocols = protocols.iter().map(|id| id.to_vec()).collect();
        config
    }
}

/// What came back, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub bytes: Vec<u8>,
    pub alert: Option<AlertDescription>,
    /// Whether the other end ended the connection.
    pub ended: bool,
}

impl Said {
    /// What the server says to `bytes` in TLS, until it ends the connection or `enough` came.
    pub async fn in_tls(
        (address, name): (SocketAddr, &str),
        config: ClientConfig,
        bytes: &[u8],
        enough: impl Fn(&[u8]) -> bool,
    ) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        match TlsConnector::from(Arc::new(config)).connect(name, socket).await {
            Ok(tls) => Self::to(tls, bytes, enough).await,
            Err(error) => Self { bytes: vec![], alert: alert(&error), ended: true },
        }
    }

    /// The same, without TLS.
    pub async fn plainly(address: SocketAddr, bytes: &[u8], enough: impl Fn(&[u8]) -> bool) -> Self {
        let mut said = Self::to(TcpStream::connect(address).await.unwrap(), bytes, enough).await;
        // A fatal alert in the clear (RFC 8446 section 5.1).
        if let [21, 3, _, 0, 2, 2, description] = said.bytes[..] {
            (said.bytes, said.alert) = (vec![], Some(AlertDescription::from(description)));
        }
        said
    }

    /// What comes back on a connection to which `bytes` are written, whether all of them are taken or not.
    pub async fn to<S: AsyncRead + AsyncWrite>(stream: S, bytes: &[u8], enough: impl Fn(&[u8]) -> bool) -> Self {
        let (mut read, mut write) = tokio::io::split(stream);
        let writing = async {
            let _ = write.write_all(bytes).await;
            let _ = write.flush().await;
            std::future::pending::<()>().await;
        };
        let reading = async {
            let (mut said, mut buffer) = (Self { bytes: vec![], alert: None, ended: false }, vec![0; 16 * 1024]);
            while !enough(&said.bytes) {
                match read.read(&mut buffer).await {
                    Ok(0) => said.ended = true,
                    Ok(len) => said.bytes.extend(&buffer[..len]),
                    Err(error) => {
                        let cut = [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof, ErrorKind::BrokenPipe];
                        said.alert = alert(&error);
                        assert!(said.alert.is_some() || cut.contains(&error.kind()), "{error:?}");
                        said.ended = true;
                    }
                }
                if said.ended {
                    break;
                }
            }
            said
        };
        let said = async {
            tokio::select! {
                said = reading => said,
                () = writing => unreachable!("it waits"),
            }
        };
        tokio::time::timeout(PATIENCE, said).await.expect("the connection goes on without an answer")
    }

    /// The first line of HTTP/1.1, or nothing.
    pub fn first_line(&self) -> String {
        String::from_utf8_lossy(&self.bytes).lines().next().unwrap_or_default().to_owned()
    }
}

/// The TLS alert that an IO error carries.
fn alert(error: &std::io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}
