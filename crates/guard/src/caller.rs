//! Who is at the other end of a call.

use std::net::SocketAddr;

use countersign_core::peer::VerifiedPeer;
use countersign_core::time::Validity;

/// Who is at the other end of a call: in the extensions of each request served on the service protocol.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The peer, verified.
    pub peer: VerifiedPeer,
    /// When the certificate that it shows is valid.
    pub validity: Validity,
    /// Where it is.
    pub remote: SocketAddr,
}
