//! Dialing over QUIC, as a member: the same verifier, the same judgements, connected only after `Welcome`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_core::id::FailureId;
use countersign_core::name::{Address, Host};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, VarInt};
use rustls::client::danger::ServerCertVerifier;

use crate::config::client_config;
use crate::dial_error::{DialCause, DialError, Foreign};
use crate::dialer::{DEADLINE, Expected, accept_frame, attempt, server_verifier};
use crate::endpoint::Endpoint;
use crate::frame::{FRAME_LEN, RefusalCode};
use crate::quic::{QuicConnection, QuicPurpose};
use crate::registry::{Closer, Connection};

/// Dials over QUIC as a member; all its connections share one socket.
#[derive(Clone)]
pub struct QuicDialer {
    endpoint: Endpoint,
    quic: quinn::Endpoint,
    deadline: Duration,
}

impl QuicDialer {
    /// Dials from `local`, with the trust and the credential of `endpoint`.
    pub fn bind(local: SocketAddr, endpoint: Endpoint) -> io::Result<Self> {
        Ok(Self { endpoint, quic: quinn::Endpoint::client(local)?, deadline: DEADLINE })
    }

    /// With another limit on the time from dialing to `Welcome`.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Connects to a port of this purpose. A port for clients says no `Welcome`: there a refusal ends the connection,
    /// or the first stream, with an error.
    pub async fn dial(
        &self,
        address: &Address,
        purpose: QuicPurpose,
        expected: Expected,
    ) -> Result<QuicConnection, DialError> {
        attempt(address, self.deadline, |failure_id| self.connect(address, purpose, expected, failure_id)).await
    }

    async fn connect(
        &self,
        address: &Address,
        purpose: QuicPurpose,
        expected: Expected,
        failure_id: FailureId,
    ) -> Result<QuicConnection, DialCause> {
        let trust = self.endpoint.trust().load();
        let credential = trust.credential.clone().ok_or(DialCause::NoCredential)?;
        let (wanted, name) = (expected.wanted(), expected.name(failure_id, &trust));
        let verifier = server_verifier(&self.endpoint, &trust, expected, &address.host);
        let verifying = Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>;
        let config = client_config(purpose.alpn(), Some(&credential), verifying).map_err(DialCause::Tls)?;
        let config = QuicClientConfig::try_from(config).map_err(|e| DialCause::Connect(io::Error::other(e)))?;
        let remote = resolve(address).await.map_err(DialCause::Connect)?;
        let connecting = self.quic.connect_with(quinn::ClientConfig::new(Arc::new(config)), remote, &name.to_str());
        let ended = connecting.map_err(|e| DialCause::Connect(io::Error::other(e)))?.await;
        let (connection, chain) = match (ended, verifier.take_outcome()) {
            (Ok(connection), Some(Ok(chain))) => (connection, chain),
            (_, Some(Err(cause))) => return Err(cause),
            (Err(error), _) => return Err(of_connection(error)),
            (Ok(_), None) => return Err(DialCause::NotCountersign(Foreign::Protocol)),
        };
        if protocol(&connection).as_deref() != Some(purpose.alpn().id()) {
            return Err(DialCause::NotCountersign(Foreign::Protocol));
        }
        let proof = chain.proof();
        let closer = Closer::Quic(connection.clone());
        let entry = Connection { proof, wanted, alpn: purpose.alpn(), remote, dialed: true, closer };
        let (registration, peer) = self.endpoint.admit(entry).map_err(|refusal| {
            connection.close(VarInt::from_u32(0), b"");
            DialCause::Judged(refusal)
        })?;
        let judged = QuicConnection::new(connection.clone(), registration, peer);
        if purpose.has_first_frame() {
            read_welcome(&connection).await?;
        }
        match judged.refusal() {
            None => Ok(judged),
            Some(refusal) => Err(DialCause::Judged(refusal)),
        }
    }
}

fn protocol(connection: &quinn::Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?.protocol
}

async fn resolve(address: &Address) -> io::Result<SocketAddr> {
    match &address.host {
        Host::Ip(ip) => Ok(SocketAddr::new(*ip, address.port)),
        Host::Dns(name) => {
            let mut found = tokio::net::lookup_host((name.as_str(), address.port)).await?;
            found.next().ok_or_else(|| io::ErrorKind::NotFound.into())
        }
    }
}

/// The acceptor's first stream carries the first frame.
async fn read_welcome(connection: &quinn::Connection) -> Result<(), DialCause> {
    let mut stream = connection.accept_uni().await.map_err(of_connection)?;
    let mut frame = [0; FRAME_LEN];
    stream.read_exact(&mut frame).await.map_err(|error| match error {
        quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(lost)) => of_connection(lost),
        early @ quinn::ReadExactError::FinishedEarly(_) => DialCause::Closed(io::Error::other(early)),
        failed @ quinn::ReadExactError::ReadError(_) => DialCause::Closed(io::Error::other(failed)),
    })?;
    accept_frame(&frame)
}

/// A TLS alert travels as the error code 0x100 and its number (RFC 9001 §4.8).
fn of_connection(error: ConnectionError) -> DialCause {
    const NO_APPLICATION_PROTOCOL: u8 = 120;
    if let ConnectionError::ConnectionClosed(close) = &error {
        let alert = u64::from(close.error_code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok());
        match alert {
            Some(NO_APPLICATION_PROTOCOL) => return DialCause::NotCountersign(Foreign::Protocol),
            Some(alert) => return DialCause::Alert { alert },
            None => {}
        }
    }
    if let ConnectionError::ApplicationClosed(close) = &error
        && let Some(code) = RefusalCode::of_close(close.error_code.into())
    {
        return DialCause::Refused { code };
    }
    if error == ConnectionError::VersionMismatch {
        DialCause::NotCountersign(Foreign::Protocol)
    } else {
        DialCause::Closed(error.into())
    }
}
