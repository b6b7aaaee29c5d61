//! A session: what the users of a connection need of it, whatever protects it. Bytes both ways, a binding to this
//! connection, and the protection by name. Nothing outside an implementation may ask how the keys were agreed on.

use std::io;

use rustls::{CommonState, ConnectionCommon};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{client, server};

/// The label of the binding of an enrollment, or of a return, to its connection.
pub(crate) const ENROLL_EXPORTER: &[u8] = b"EXPORTER-countersign-enroll";

/// Bytes between two ends that agreed on fresh keys.
pub trait Session: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// 32 bytes for `label` that both ends of this connection hold and no other connection has: a signature over them
    /// counts here alone (RFC 9266). Over TLS they are the exporter (RFC 5705, RFC 8446 §7.5) without a context.
    ///
    /// Errors: the keys are not agreed on yet.
    fn channel_binding(&self, label: &[u8]) -> io::Result<[u8; 32]>;

    /// What protects the bytes.
    fn protection(&self) -> Protection;
}

/// What protects the bytes of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// TLS 1.3 (RFC 8446): encrypted and authenticated, with forward secrecy.
    Tls {
        /// The key exchange by its IANA name; none if it has no name here.
        key_exchange: Option<&'static str>,
    },
}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Session for client::TlsStream<S> {
    fn channel_binding(&self, label: &[u8]) -> io::Result<[u8; 32]> {
        exported(self.get_ref().1, label)
    }

    fn protection(&self) -> Protection {
        protection(self.get_ref().1)
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Session for server::TlsStream<S> {
    fn channel_binding(&self, label: &[u8]) -> io::Result<[u8; 32]> {
        exported(self.get_ref().1, label)
    }

    fn protection(&self) -> Protection {
        protection(self.get_ref().1)
    }
}

fn exported<D>(tls: &ConnectionCommon<D>, label: &[u8]) -> io::Result<[u8; 32]> {
    tls.export_keying_material([0; 32], label, None).map_err(io::Error::other)
}

fn protection(tls: &CommonState) -> Protection {
    Protection::Tls { key_exchange: tls.negotiated_key_exchange_group().and_then(|group| group.name().as_str()) }
}
