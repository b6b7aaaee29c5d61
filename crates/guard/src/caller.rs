//! The caller at the other end of a call.

use std::net::SocketAddr;

use countersign_core::peer::VerifiedPeer;

/// The caller at the other end of a call: in the extensions of each request served on the client port.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The peer, verified.
    pub peer: VerifiedPeer,
    /// Where it is.
    pub remote: SocketAddr,
}
