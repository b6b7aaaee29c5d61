//! Dialing as a member that comes back: it knows its cluster by the voters' attestations only, and so learns which
//! authorities are trusted over the very connection whose server it is to verify under them.
//!
//! Until then nothing may be said that is not for everybody: the stream is handed out with the server unrecognized, and
//! what a signature is bound to only by [`UnrecognizedServer::recognize`].

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use countersign_core::enroll::returning::ReturnChannel;
use countersign_core::id::{AuthorityId, ClusterId, NodeId};
use countersign_core::name::Address;
use countersign_core::peer::Refusal;
use countersign_pki::verify::{Bundle, ChainError, Usage, pinned_chain};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::alpn::Alpn;
use crate::credential::Credential;
use crate::dial_error::{DialCause, DialError};
use crate::dialer::{DEADLINE, Handshaken, attempt, handshake, read_welcome};
use crate::session::{ENROLL_EXPORTER, Protection, Session};
use crate::sni;
use crate::stream::{Unregistered, delegate_session};
use crate::verifier::ChainVerifier;

/// Why a server is not believed to be a member of the recognized cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unrecognized {
    /// None of the authorities that the cluster trusts is in the server's chain, or its leaf is not under it.
    #[error("server's certificate is under no authority that the cluster trusts")]
    Chain(#[from] ChainError),
    /// It is no member, of another cluster, or evicted.
    #[error(transparent)]
    Judged(#[from] Refusal),
}

/// A connection to the holder of the key of the certificate that the server sent. Nothing more is known of the other
/// end.
pub struct ReturnStream {
    inner: Unregistered,
    remote: SocketAddr,
}

delegate_session!(ReturnStream, inner);

impl core::fmt::Debug for ReturnStream {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ReturnStream({})", self.remote)
    }
}

/// The server of a [`ReturnStream`], by the chain that it sent. TLS has proven that it holds the leaf's key.
#[derive(Debug)]
pub struct UnrecognizedServer {
    chain: Vec<CertificateDer<'static>>,
    exporter: [u8; 32],
}

/// A server that is a member under an authority that the cluster trusts.
#[derive(Debug)]
pub struct RecognizedServer {
    channel: ReturnChannel,
    bundle: Bundle,
}

/// Connects to what listens at `address`, showing nothing. Who it is, is not known.
pub async fn dial_return(address: &Address) -> Result<(ReturnStream, UnrecognizedServer), DialError> {
    attempt(address, DEADLINE, |failure_id| async move {
        // Possession of the leaf's key is verified by TLS; whose it is, once the authorities are known.
        let verifier: Arc<ChainVerifier<Vec<CertificateDer<'static>>, DialCause>> =
            ChainVerifier::new(|chain| Ok(chain.iter().map(|der| der.clone().into_owned()).collect()));
        let name = sni::enroll_name(failure_id);
        let handshaken = handshake(address, Alpn::Enroll, None, &verifier, name).await?;
        let Handshaken { tls, verified: chain, remote } = handshaken;
        let session = read_welcome(tls).await?;
        let exporter = session.channel_binding(ENROLL_EXPORTER).map_err(DialCause::of_io)?;
        Ok((ReturnStream { inner: Unregistered { session }, remote }, UnrecognizedServer { chain, exporter }))
    })
    .await
}

impl UnrecognizedServer {
    /// Verifies the server under `authorities`, those of an attestation that the caller has recognized: it must be a
    /// member of `cluster` that is not among the `evicted`. Its validity in time is not judged: a whole cluster may
    /// have been off.
    pub fn recognize(
        &self,
        cluster: ClusterId,
        authorities: &BTreeSet<AuthorityId>,
        evicted: &BTreeSet<NodeId>,
    ) -> Result<RecognizedServer, Unrecognized> {
        let mut sent = self.chain.iter().map(|der| AuthorityId::of_certificate(der));
        let pin = sent.find(|id| authorities.contains(id)).ok_or(ChainError::PinNotInChain)?;
        let (bundle, verified) = pinned_chain(pin, &self.chain)?;
        let claims = verified.claims();
        if claims.cluster != Some(cluster) {
            return Err(Refusal::Cluster.into());
        }
        if claims.principal.role.node_id().is_none_or(|node| evicted.contains(&node)) {
            return Err(Refusal::Evicted.into());
        }
        let leaf = self.chain.first().map(|leaf| Sha256::digest(leaf).into()).unwrap_or_default();
        Ok(RecognizedServer { channel: ReturnChannel { leaf, exporter: self.exporter }, bundle })
    }
}

impl RecognizedServer {
    /// What a return is signed for.
    pub const fn channel(&self) -> ReturnChannel {
        self.channel
    }

    /// Whether `credential`, which it gave, is one of `node` under the same authority, in both roles, now.
    pub fn check(
        &self,
        credential: &Credential,
        node: NodeId,
        now: countersign_core::time::UnixMillis,
    ) -> Result<(), Unrecognized> {
        for usage in [Usage::Server, Usage::Client] {
            let verified = credential.verify(&self.bundle, usage, now)?;
            if verified.claims().principal.role.node_id() != Some(node) {
                return Err(Refusal::WrongNode.into());
            }
        }
        Ok(())
    }
}
