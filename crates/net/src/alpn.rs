//! What a connection is for, said in the ClientHello before any certificate is chosen (RFC 7301).
//!
//! A ClientHello is taken only if it offers exactly one protocol and that one is ours. An offer of several would let
//! the two ends settle on something that neither asked for (the ALPACA attacks); an absent one passes in rustls unless
//! refused.

use countersign_core::peer::Wanted;

/// What a connection is for: one of the two purposes of the cluster port, or the client port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alpn {
    /// An unauthenticated caller with a join token, or a member that returns. No client certificate.
    Enroll,
    /// Between members: Raft and what belongs to it.
    Peer,
    /// Any principal, on the client port: embedded services, policy, renewal.
    Client,
}

impl Alpn {
    /// Every protocol of the cluster port.
    pub const ALL: [Self; 2] = [Self::Enroll, Self::Peer];

    /// The protocol name on the wire; for the client port, that over QUIC. Over TCP the client port speaks
    /// [`HttpVersion`]s.
    pub const fn id(self) -> &'static [u8] {
        match self {
            Self::Enroll => b"countersign/1 enroll",
            Self::Peer => b"countersign/1 peer",
            Self::Client => b"countersign/1 client",
        }
    }

    /// A stable word for logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Enroll => "enroll",
            Self::Peer => "peer",
            Self::Client => "client",
        }
    }

    /// Whose certificates it takes; none where it asks for no certificate.
    pub(crate) const fn wanted(self) -> Option<Wanted> {
        match self {
            Self::Enroll => None,
            Self::Peer => Some(Wanted::AnyNode),
            Self::Client => Some(Wanted::AnyPrincipal),
        }
    }

    /// Whether it serves principals. Their accepted connections are counted for each principal, and end with the lease
    /// of the member that serves them.
    pub(crate) const fn serves_principals(self) -> bool {
        match self {
            Self::Enroll | Self::Peer => false,
            Self::Client => true,
        }
    }

    /// Whether a member whose proof has expired may use it, over TCP: members' own protocol, and nothing that an
    /// embedder serves.
    pub(crate) const fn recovers(self) -> bool {
        match self {
            Self::Peer => true,
            Self::Enroll | Self::Client => false,
        }
    }

    /// Whether a peer has proven itself once its handshake has ended.
    pub(crate) const fn proves_peer(self) -> bool {
        self.wanted().is_some()
    }

    /// The protocol that a ClientHello to the cluster port asks for: the only one it offers, and a known one.
    pub(crate) fn of_offer<'a>(offered: Option<impl Iterator<Item = &'a [u8]>>) -> Result<Self, OfferError> {
        match Self::of_quic_offer(offered)? {
            of_cluster_port @ (Self::Enroll | Self::Peer) => Ok(of_cluster_port),
            Self::Client => Err(OfferError::Unknown),
        }
    }

    /// As [`Alpn::of_offer`], on a QUIC port, which may be that for clients.
    pub(crate) fn of_quic_offer<'a>(offered: Option<impl Iterator<Item = &'a [u8]>>) -> Result<Self, OfferError> {
        let mut offered = offered.ok_or(OfferError::Absent)?;
        let only = offered.next().ok_or(OfferError::Absent)?;
        if offered.next().is_some() {
            return Err(OfferError::Several);
        }
        let mut known = Self::ALL.into_iter().chain([Self::Client]);
        known.find(|alpn| alpn.id() == only).ok_or(OfferError::Unknown)
    }
}

/// What is spoken on a TCP connection of the client port (RFC 9113, RFC 9112).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HttpVersion {
    /// HTTP/2.
    Http2,
    /// HTTP/1.1, which is also spoken with a caller that offers no protocol.
    Http1,
}

impl HttpVersion {
    /// Every version, the preferred one first.
    pub const ALL: [Self; 2] = [Self::Http2, Self::Http1];

    /// The protocol name on the wire.
    pub const fn id(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"h2",
            Self::Http1 => b"http/1.1",
        }
    }

    /// What both ends agreed on; HTTP/1.1 if the caller offered nothing.
    pub(crate) fn of_agreed(id: Option<&[u8]>) -> Option<Self> {
        let Some(id) = id else { return Some(Self::Http1) };
        Self::ALL.into_iter().find(|version| version.id() == id)
    }

    /// Whether the client port takes an offer: none at all, or one with a version and without a protocol of the cluster
    /// port. A caller that offers both could be led by a third party from one port to the other (the ALPACA attacks).
    pub(crate) fn check_offer<'a>(offered: Option<impl Iterator<Item = &'a [u8]>>) -> Result<(), OfferError> {
        let Some(offered) = offered else { return Ok(()) };
        let mut known = false;
        for id in offered {
            if id.starts_with(PRIVATE) {
                return Err(OfferError::Several);
            }
            known |= Self::ALL.iter().any(|version| version.id() == id);
        }
        if known { Ok(()) } else { Err(OfferError::Unknown) }
    }
}

/// How the names of our own protocols begin.
const PRIVATE: &[u8] = b"countersign/";

impl core::fmt::Display for Alpn {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.label())
    }
}

/// Why an offer is refused. Stays in this end's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OfferError {
    /// No protocol was offered.
    #[error("no application protocol was offered")]
    Absent,
    /// More than one was offered.
    #[error("more than one application protocol was offered")]
    Several,
    /// One was offered that is not ours.
    #[error("an unknown application protocol was offered")]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_port_takes_http_or_nothing_and_no_private_protocol() {
        let offer = |names: &[&'static [u8]]| HttpVersion::check_offer(Some(names.iter().copied()));
        assert_eq!(HttpVersion::check_offer(None::<std::iter::Empty<&[u8]>>), Ok(()));
        assert_eq!(offer(&[b"h2"]), Ok(()));
        assert_eq!(offer(&[b"http/1.1"]), Ok(()));
        assert_eq!(offer(&[b"h3", b"http/1.1", b"h2"]), Ok(()));
        assert_eq!(offer(&[]), Err(OfferError::Unknown));
        assert_eq!(offer(&[b"h3"]), Err(OfferError::Unknown));
        for alpn in [Alpn::Enroll, Alpn::Peer, Alpn::Client] {
            assert_eq!(offer(&[alpn.id()]), Err(OfferError::Several), "{alpn}");
            assert_eq!(offer(&[b"h2", alpn.id()]), Err(OfferError::Several), "{alpn}");
        }
        assert_eq!(HttpVersion::of_agreed(None), Some(HttpVersion::Http1));
        assert_eq!(HttpVersion::of_agreed(Some(b"h2")), Some(HttpVersion::Http2));
        assert_eq!(HttpVersion::of_agreed(Some(b"h3")), None);
        let clients = Alpn::of_offer(Some([Alpn::Client.id()].into_iter()));
        assert_eq!(clients, Err(OfferError::Unknown), "the cluster port does not speak it");
        assert_eq!(Alpn::of_quic_offer(Some([Alpn::Client.id()].into_iter())), Ok(Alpn::Client));
    }

    #[test]
    fn exactly_one_known_protocol_is_taken() {
        let offer = |names: &[&'static [u8]]| Alpn::of_offer(Some(names.iter().copied()));
        for alpn in Alpn::ALL {
            assert_eq!(offer(&[alpn.id()]), Ok(alpn));
        }
        assert_eq!(Alpn::of_offer(None::<std::iter::Empty<&[u8]>>), Err(OfferError::Absent));
        assert_eq!(offer(&[]), Err(OfferError::Absent));
        assert_eq!(offer(&[b"h2"]), Err(OfferError::Unknown));
        assert_eq!(offer(&[b"countersign/1 peer "]), Err(OfferError::Unknown));
        assert_eq!(offer(&[Alpn::Peer.id(), b"h2"]), Err(OfferError::Several));
        assert_eq!(offer(&[Alpn::Peer.id(), Alpn::Peer.id()]), Err(OfferError::Several));
        assert_eq!(offer(&[Alpn::Enroll.id(), Alpn::Peer.id()]), Err(OfferError::Several));
    }
}
