//! Dialing a member to ask what the cluster has become, under the enrollment protocol. The caller is a member that was
//! away: its own certificate may have expired, and it does not know yet which members to believe. It shows nothing to
//! the other end.
//!
//! The other end's chain must lead to an authority of the view in force, and to the very member that was dialed; its
//! validity in time is not judged, since a whole cluster may have been off past every expiry. What it says is believed
//! only by its signature.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use countersign_core::id::NodeId;
use countersign_core::name::Address;
use countersign_core::peer::Refusal;
use countersign_pki::verify::Usage;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::alpn::Alpn;
use crate::dial_error::{DialCause, DialError};
use crate::dialer::{Handshaken, attempt, handshake, read_welcome};
use crate::endpoint::Endpoint;
use crate::session::{Protection, Session};
use crate::sni;
use crate::stream::{Unregistered, delegate_session};
use crate::verifier::ChainVerifier;

/// A connection to a member that proved its certificate; this end stays anonymous.
pub struct ViewStream {
    inner: Unregistered,
    remote: SocketAddr,
}

impl core::fmt::Debug for ViewStream {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "ViewStream({})", self.remote)
    }
}

delegate_session!(ViewStream, inner);

/// Connects to the member `node` to ask for what it knows, within `deadline`.
pub async fn dial_view(
    endpoint: &Endpoint,
    address: &Address,
    node: NodeId,
    deadline: Duration,
) -> Result<ViewStream, DialError> {
    attempt(address, deadline, |failure_id| async move {
        let (judging, trust) = (endpoint.clone(), endpoint.trust().load());
        let verifier = ChainVerifier::new(move |chain| {
            let verified = judging.chains().verify(&trust, chain, Usage::Server).map_err(DialCause::Untrusted)?;
            let role = &verified.claims().principal.role;
            if role.node_id() == Some(node) { Ok(()) } else { Err(DialCause::Judged(Refusal::WrongNode)) }
        });
        let name = sni::enroll_name(failure_id);
        let Handshaken { tls, remote, .. } = handshake(address, Alpn::Enroll, None, &verifier, name).await?;
        let session = read_welcome(tls).await?;
        Ok(ViewStream { inner: Unregistered { session }, remote })
    })
    .await
}
