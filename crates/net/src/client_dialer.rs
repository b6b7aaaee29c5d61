//! For programs outside the cluster: a client with a certificate and a trust bundle, and no view.
//!
//! It accepts only a node or broker of its trust domain whose certificate holds the host that was dialed; that it
//! cannot know of evictions is why certificates are short-lived. The same bundle signs clients: none of them passes as
//! a server.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use countersign_core::mapped::MappedName;
use countersign_core::name::{Address, Host};
use countersign_core::peer::{Proof, Refusal};
use countersign_core::principal::{Principal, TrustDomain};
use countersign_core::time::Validity;
use countersign_pki::foreign::verify_foreign_chain;
use countersign_pki::key::{KeyError, KeyPair};
use countersign_pki::mapping::Rules;
use countersign_pki::pem::{PemError, certificates_from_pem};
use countersign_pki::verify::{Bundle, BundleError, ChainError, Usage, verify_chain};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::alpn::Alpn;
use crate::clock::{Clock, SystemClock};
use crate::credential::{Credential, CredentialError};
use crate::dial_error::{DialCause, DialError};
use crate::dialer::{DEADLINE, Handshaken, attempt_as_client, handshake, serves_host, welcomed};
use crate::session::{Protection, Session};
use crate::sni;
use crate::stream::{Unregistered, delegate_session};
use crate::verifier::ChainVerifier;

/// Dials as a client, from outside the cluster. Shown without its certificate's key.
#[derive(Clone)]
pub struct ClientDialer {
    bundle: Arc<Bundle>,
    trust_domain: TrustDomain,
    credential: Arc<Credential>,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    mapping: Option<Rules>,
    judge: Option<Judge>,
}

/// Decides about a server whose chain was verified, beyond what its certificate says.
pub type Judge = Arc<dyn Fn(&Proof) -> Result<(), Refusal> + Send + Sync>;

impl core::fmt::Debug for ClientDialer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ClientDialer({}, {:?})", self.trust_domain, self.credential)
    }
}

/// Why a client does not take another certificate for its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// It is under no authority that the client trusts.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// It is another principal's.
    #[error("certificate is of `{got}`, not of `{expected}`")]
    Principal {
        /// Whose certificate is in use.
        expected: Box<Principal>,
        /// Whose it is.
        got: Box<Principal>,
    },
}

/// Why files make no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientFilesError {
    /// The client's certificate.
    #[error("certificate cannot be read")]
    Certificate(#[source] PemError),
    /// The client's key.
    #[error("key cannot be read")]
    Key(#[source] KeyError),
    /// The trusted authorities.
    #[error("authorities cannot be read")]
    Authorities(#[source] PemError),
    /// An authority that cannot be trusted.
    #[error("authority cannot be trusted")]
    Bundle(#[source] BundleError),
    /// Certificate and key do not belong together.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The certificate is under none of the authorities.
    #[error("certificate is not under these authorities")]
    Chain(#[from] ChainError),
}

/// Who serves a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServedBy {
    /// As a certificate issued by the cluster says.
    Issued(Principal),
    /// As the client's own mapping rules make it of a certificate made elsewhere.
    Mapped(MappedName),
}

impl core::fmt::Display for ServedBy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Issued(principal) => principal.fmt(f),
            Self::Mapped(name) => name.fmt(f),
        }
    }
}

impl ClientDialer {
    /// Trusts `bundle` within `trust_domain` and shows `credential`.
    pub fn new(
        bundle: Arc<Bundle>,
        trust_domain: TrustDomain,
        credential: Arc<Credential>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { bundle, trust_domain, credential, clock, deadline: DEADLINE, mapping: None, judge: None }
    }

    /// For a cluster whose certificates are made elsewhere: `rules` must make a node or broker of the server's.
    #[must_use]
    pub fn with_mapping(self, rules: Rules) -> Self {
        Self { mapping: Some(rules), ..self }
    }

    /// For a client that knows more of the cluster than its authority: `judge` must accept each server, before this end
    /// has shown its certificate. Servers whose certificates were made elsewhere prove nothing that it could judge, and
    /// are refused.
    #[must_use]
    pub fn with_judge(self, judge: Judge) -> Self {
        Self { judge: Some(judge), ..self }
    }

    /// The same client with `credential`, which must be the same principal's, under the same authorities, and valid
    /// now.
    pub fn renewed(&self, credential: Arc<Credential>) -> Result<Self, Unverified> {
        let now = self.clock.now();
        let principal = |of: &Credential, now| {
            let verified = of.verify_at(&self.bundle, Usage::Client, now)?;
            Ok::<_, ChainError>(Box::new(verified.claims().principal.clone()))
        };
        // The one in use may have ended by now: that was for the server to judge.
        let (expected, got) = (principal(&self.credential, None)?, principal(&credential, Some(now))?);
        if expected == got {
            Ok(Self { credential, ..self.clone() })
        } else {
            Err(Unverified::Principal { expected, got })
        }
    }

    /// Of a certificate that the cluster issued: `chain` and `key` are the client's own, `authorities` those that it
    /// trusts, all PEM. The trust domain is that of the certificate.
    ///
    /// # Errors
    /// [`ClientFilesError`].
    pub fn from_pem(chain: &str, key: &str, authorities: &str) -> Result<Self, ClientFilesError> {
        let chain = certificates_from_pem(chain).map_err(ClientFilesError::Certificate)?;
        let key = KeyPair::from_pem(key).map_err(ClientFilesError::Key)?;
        let authorities = certificates_from_pem(authorities).map_err(ClientFilesError::Authorities)?;
        let bundle = Bundle::new(authorities.iter().map(AsRef::as_ref)).map_err(ClientFilesError::Bundle)?;
        let credential = Credential::new(chain.iter().map(|der| der.to_vec()), &key)?;
        let own = credential.verify_at(&bundle, Usage::Client, None)?;
        let domain = own.claims().principal.trust_domain.clone();
        Ok(Self::new(Arc::new(bundle), domain, Arc::new(credential), Arc::new(SystemClock)))
    }

    /// The principal that its certificate names; none if that is under no authority that it trusts.
    pub fn principal(&self) -> Option<Principal> {
        let verified = self.credential.verify_at(&self.bundle, Usage::Client, None).ok()?;
        Some(verified.claims().principal.clone())
    }

    /// The certificate that it shows.
    pub const fn credential(&self) -> &Arc<Credential> {
        &self.credential
    }

    /// With another limit on the time until the handshake ends.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Connects to the client port of a member or broker, to speak HTTP/2 there. A server that refuses this client says
    /// so as the answer to the first request.
    pub async fn dial(&self, address: &Address) -> Result<ServerStream, DialError> {
        attempt_as_client(address, self.deadline, async move {
            let name = sni::host_name(&address.host)?;
            let (client, host) = (self.clone(), address.host.clone());
            let verifier = ChainVerifier::new(move |presented| match &client.mapping {
                None => client.accept(presented, &host),
                Some(rules) => client.accept_mapped(rules, presented, &host),
            });
            let Handshaken { tls, verified, remote } =
                handshake(address, Alpn::Client, Some(&self.credential), &verifier, name).await?;
            let session = welcomed(Alpn::Client, tls).await?;
            Ok(ServerStream { inner: Unregistered { session }, server: verified, remote })
        })
        .await
    }

    fn accept(&self, presented: &[CertificateDer<'_>], host: &Host) -> Result<ServedBy, DialCause> {
        let chain = verify_chain(&self.bundle, presented, Usage::Server, None).map_err(DialCause::Untrusted)?;
        let claims = chain.claims();
        if claims.principal.trust_domain != self.trust_domain {
            return Err(DialCause::Judged(Refusal::TrustDomain));
        }
        self.check_time(claims.validity)?;
        if let Some(judge) = &self.judge {
            judge(&chain.proof()).map_err(DialCause::Judged)?;
        }
        if serves_host(&chain, host) { Ok(ServedBy::Issued(claims.principal.clone())) } else { Err(DialCause::Host) }
    }

    fn accept_mapped(
        &self,
        rules: &Rules,
        presented: &[CertificateDer<'_>],
        host: &Host,
    ) -> Result<ServedBy, DialCause> {
        if self.judge.is_some() {
            return Err(DialCause::Judged(Refusal::KeyUnknown));
        }
        let chain = verify_foreign_chain(&self.bundle, presented, Usage::Server, None).map_err(DialCause::Untrusted)?;
        let mapped = rules.map(chain.names(), Some(&self.trust_domain)).map_err(|e| DialCause::Untrusted(e.into()))?;
        self.check_time(chain.validity())?;
        let serves = matches!(mapped, MappedName::Node(_) | MappedName::Broker(_));
        if serves && chain.hosts().contains(host) { Ok(ServedBy::Mapped(mapped)) } else { Err(DialCause::Host) }
    }

    fn check_time(&self, validity: Validity) -> Result<(), DialCause> {
        let now = self.clock.now();
        if validity.contains(now) {
            return Ok(());
        }
        let early = now.secs() < validity.not_before.secs();
        Err(DialCause::Judged(if early { Refusal::NotYetValid } else { Refusal::Expired }))
    }
}

/// A client's connection to a member or broker.
pub struct ServerStream {
    inner: Unregistered,
    server: ServedBy,
    remote: SocketAddr,
}

impl ServerStream {
    /// The server, as its certificate names it.
    pub const fn server(&self) -> &ServedBy {
        &self.server
    }

    /// Where the other end is.
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }
}

impl core::fmt::Debug for ServerStream {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ServerStream({} at {})", self.server, self.remote)
    }
}

delegate_session!(ServerStream, inner);
