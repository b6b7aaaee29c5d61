//! The other side, for demonstrations and tests: dialers and acceptors that check nothing. Nothing here weakens a
//! member; any attacker on the network can do the same without our code.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::limits::HANDSHAKE_MILLIS_MAX;
use countersign_core::name::Address;
use countersign_core::principal::TrustDomain;
use rustls::server::danger::ClientCertVerifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::alpn::Alpn;
use crate::config::server_config;
use crate::credential::Credential;
use crate::dial_error::{DialCause, DialError};
use crate::dialer::{Handshaken, attempt, handshake, welcomed};
use crate::session::Session;
use crate::sni;
use crate::verifier::ChainVerifier;

const DEADLINE: Duration = Duration::from_millis(HANDSHAKE_MILLIS_MAX);

/// Dials under any protocol, with any certificate or none, and trusts every server. `Ok` if it was let in; on a client
/// port, if the handshake has ended at this end.
pub async fn dial_unchecked(
    address: &Address,
    alpn: Alpn,
    credential: Option<&Credential>,
) -> Result<Box<dyn Session>, DialError> {
    attempt(address, DEADLINE, |failure_id| async move {
        let domain = TrustDomain::parse("internal").map_err(|_| DialCause::Host)?;
        let name = sni::server_name(failure_id, "unchecked", &domain);
        let verifier = ChainVerifier::new(|_| Ok::<_, DialCause>(()));
        let Handshaken { tls, .. } = handshake(address, alpn, credential, &verifier, name).await?;
        welcomed(alpn, tls).await
    })
    .await
}

/// A TLS connection accepted without being a member.
pub type HostileStream = tokio_rustls::server::TlsStream<TcpStream>;

/// Ends a handshake as a server that shows `credential` and asks for no certificate.
pub async fn accept_unchecked(
    socket: TcpStream,
    alpn: Alpn,
    credential: &Arc<Credential>,
) -> std::io::Result<HostileStream> {
    let none: Option<Arc<dyn ClientCertVerifier>> = None;
    let config = server_config(alpn, credential.resolver(), none).map_err(std::io::Error::other)?;
    TlsAcceptor::from(Arc::new(config)).accept(socket).await
}
