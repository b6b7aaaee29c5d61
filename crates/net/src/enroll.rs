//! Dialing with nothing but a pin: how a joiner reaches a cluster that it does not know yet.
//!
//! Not one byte that depends on the join token is sent before the chain has been verified *to the leaf*, under the
//! pinned authority alone. An attacker's leaf with the real, public CA certificate appended is refused, and the
//! system's trust store is never asked.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use countersign_core::enroll::joiner::SponsorChannel;
use countersign_core::id::AuthorityId;
use countersign_core::name::Address;
use countersign_pki::foreign::{ForeignChain, pinned_foreign_chain};
use countersign_pki::mapping::Rules;
use countersign_pki::verify::{Bundle, ChainError, VerifiedChain, pinned_chain};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::alpn::Alpn;
use crate::dial_error::{DialCause, DialError};
use crate::dialer::{DEADLINE, Handshaken, attempt, handshake, read_welcome};
use crate::session::{ENROLL_EXPORTER, Protection, Session};
use crate::sni;
use crate::stream::{Unregistered, delegate_session};
use crate::verifier::ChainVerifier;

/// A connection to a member of the pinned cluster, verified from its leaf up.
pub struct PinnedStream {
    inner: Unregistered,
    channel: SponsorChannel,
    chain: SponsorChain,
    bundle: Bundle,
    remote: SocketAddr,
}

impl PinnedStream {
    /// What the joiner's signature is bound to: authority, sponsor's leaf, exporter.
    pub const fn channel(&self) -> SponsorChannel {
        self.channel
    }

    /// The sponsor's chain. Its validity was not judged: a joiner's clock may be wrong.
    pub const fn sponsor_chain(&self) -> &SponsorChain {
        &self.chain
    }

    /// The pinned authority, and nothing else.
    pub const fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Where the other end is.
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }
}

impl core::fmt::Debug for PinnedStream {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PinnedStream({})", self.remote)
    }
}

delegate_session!(PinnedStream, inner);

/// The chain that a sponsor proved to hold the key of, down to a node's leaf.
#[derive(Debug, Clone)]
pub enum SponsorChain {
    /// Issued by the cluster.
    Issued(Box<VerifiedChain>),
    /// Made elsewhere; the joiner's own mapping rules make a node of it.
    Foreign(Box<ForeignChain>),
}

struct Pinned {
    bundle: Bundle,
    chain: SponsorChain,
    leaf: [u8; 32],
}

/// Connects to a member of the cluster whose authority is `pin`, to enroll or to return.
pub async fn dial_enroll(address: &Address, pin: AuthorityId) -> Result<PinnedStream, DialError> {
    dial_enroll_within(address, pin, DEADLINE).await
}

/// As [`dial_enroll`], where certificates are made elsewhere: `rules` must make a node of the sponsor's.
pub async fn dial_enroll_mapped(address: &Address, pin: AuthorityId, rules: &Rules) -> Result<PinnedStream, DialError> {
    let rules = rules.clone();
    dial(address, pin, DEADLINE, move |chain| {
        pinned_foreign_chain(pin, chain, &rules).map(|(bundle, chain)| (bundle, SponsorChain::Foreign(Box::new(chain))))
    })
    .await
}

/// As [`dial_enroll`], with another limit on the time from dialing to `Welcome`.
pub async fn dial_enroll_within(
    address: &Address,
    pin: AuthorityId,
    deadline: Duration,
) -> Result<PinnedStream, DialError> {
    dial(address, pin, deadline, move |chain| {
        pinned_chain(pin, chain).map(|(bundle, chain)| (bundle, SponsorChain::Issued(Box::new(chain))))
    })
    .await
}

async fn dial(
    address: &Address,
    pin: AuthorityId,
    deadline: Duration,
    read: impl Fn(&[CertificateDer<'_>]) -> Result<(Bundle, SponsorChain), ChainError> + Send + Sync + 'static,
) -> Result<PinnedStream, DialError> {
    attempt(address, deadline, |failure_id| async move {
        let verifier = ChainVerifier::new(move |chain| verify(pin, chain, &read));
        let name = sni::enroll_name(failure_id);
        let Handshaken { tls, verified, remote } = handshake(address, Alpn::Enroll, None, &verifier, name).await?;
        let session = read_welcome(tls).await?;
        let exporter = session.channel_binding(ENROLL_EXPORTER).map_err(DialCause::of_io)?;
        let Pinned { bundle, chain, leaf } = verified;
        let channel = SponsorChannel { authority: pin, leaf, exporter };
        Ok(PinnedStream { inner: Unregistered { session }, channel, chain, bundle, remote })
    })
    .await
}

fn verify(
    pin: AuthorityId,
    presented: &[CertificateDer<'_>],
    read: impl Fn(&[CertificateDer<'_>]) -> Result<(Bundle, SponsorChain), ChainError>,
) -> Result<Pinned, DialCause> {
    let leaf = presented.first().map(|leaf| Sha256::digest(leaf).into()).unwrap_or_default();
    match read(presented) {
        Ok((bundle, chain)) => Ok(Pinned { bundle, chain, leaf }),
        Err(ChainError::PinNotInChain) => {
            let got = presented.last().map(|der| AuthorityId::of_certificate(der));
            Err(DialCause::Pin { expected: pin, got })
        }
        // The pinned certificate was shown, but the leaf is not its own: certificates are public, any server can show
        // one.
        Err(error) => Err(DialCause::Untrusted(error)),
    }
}
