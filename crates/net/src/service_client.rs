//! For programs outside the cluster: a client with a certificate and a trust bundle, and no view.
//!
//! It accepts only a node or broker of its trust domain whose certificate holds the host that was dialed; that it cannot
//! know of evictions is why certificates are short-lived. The same bundle signs clients: none of them passes as a server.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use countersign_core::name::{Address, Host};
use countersign_core::peer::Refusal;
use countersign_core::principal::{Principal, TrustDomain};
use countersign_pki::verify::{Bundle, Usage, VerifiedChain, verify_chain};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::alpn::Alpn;
use crate::clock::Clock;
use crate::credential::Credential;
use crate::dial_error::{DialCause, DialError};
use crate::dialer::{DEADLINE, Handshaken, attempt, handshake, read_welcome, serves_host};
use crate::sni;
use crate::stream::{Unregistered, delegate_io, key_exchange};
use crate::verifier::ChainVerifier;

/// Dials as a client, from outside the cluster.
#[derive(Clone)]
pub struct ServiceClient {
    bundle: Arc<Bundle>,
    trust_domain: TrustDomain,
    credential: Arc<Credential>,
    clock: Arc<dyn Clock>,
    deadline: Duration,
}

impl ServiceClient {
    /// Trusts `bundle` within `trust_domain` and shows `credential`.
    pub fn new(
        bundle: Arc<Bundle>,
        trust_domain: TrustDomain,
        credential: Arc<Credential>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { bundle, trust_domain, credential, clock, deadline: DEADLINE }
    }

    /// With another limit on the time from dialing to `Welcome`.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Connects to a member or broker under the service protocol.
    pub async fn dial(&self, address: &Address) -> Result<ClientStream, DialError> {
        attempt(address, self.deadline, |failure_id| async move {
            let name = sni::server_name(failure_id, "service", &self.trust_domain);
            let (client, host) = (self.clone(), address.host.clone());
            let verifier = ChainVerifier::new(move |presented| {
                let chain = verify_chain(&client.bundle, presented, Usage::Server, None);
                client.accept(chain.map_err(DialCause::Untrusted)?, &host)
            });
            let Handshaken { mut tls, verified, remote } =
                handshake(address, Alpn::Service, Some(&self.credential), &verifier, name).await?;
            read_welcome(&mut tls).await?;
            tls.get_mut().0.lift();
            let server = verified.evidence().parts().principal.clone();
            Ok(ClientStream { inner: Unregistered(tls.into()), server, remote })
        })
        .await
    }

    fn accept(&self, chain: VerifiedChain, host: &Host) -> Result<VerifiedChain, DialCause> {
        let (parts, now) = (chain.evidence().parts(), self.clock.now());
        if parts.principal.trust_domain != self.trust_domain {
            return Err(DialCause::Judged(Refusal::TrustDomain));
        }
        if !parts.validity.contains(now) {
            let early = now.secs() < parts.validity.not_before.secs();
            return Err(DialCause::Judged(if early { Refusal::NotYetValid } else { Refusal::Expired }));
        }
        if serves_host(&chain, host) { Ok(chain) } else { Err(DialCause::Host) }
    }
}

/// A client's connection to a member or broker.
pub struct ClientStream {
    inner: Unregistered,
    server: Principal,
    remote: SocketAddr,
}

impl ClientStream {
    /// Who serves.
    pub const fn server(&self) -> &Principal {
        &self.server
    }

    /// Where the other end is.
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The key exchange that protects this connection, by its IANA name.
    pub fn key_exchange(&self) -> Option<&'static str> {
        key_exchange(&self.inner.0)
    }
}

impl core::fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ClientStream({} at {})", self.server, self.remote)
    }
}

delegate_io!(ClientStream, inner);
