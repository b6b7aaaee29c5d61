//! Why a connection could not be made, for the dialer: the expectation, the finding, and the id under which the other
//! end may say more.

use std::io;

use countersign_core::id::{AuthorityId, FailureId};
use countersign_core::name::Address;
use countersign_core::peer::Refusal;
use countersign_pki::verify::ChainError;
use rustls::{AlertDescription, Error};

use crate::frame::{FrameError, RefusalCode};

/// A failed attempt to connect.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to `{address}`{}", id_in_words(self.failure_id))]
pub struct DialError {
    /// The address dialed.
    pub address: Address,
    /// The attempt; the acceptor logs the same id, if the attempt reached one. A client port takes no id from a client.
    pub failure_id: Option<FailureId>,
    /// Why.
    #[source]
    pub cause: DialCause,
}

fn id_in_words(failure_id: Option<FailureId>) -> String {
    failure_id.map_or_else(String::new, |id| format!(" (failure id {id})"))
}

/// Why an attempt to connect failed.
#[derive(Debug, thiserror::Error)]
pub enum DialCause {
    /// No TCP connection: no listener, no route, no such host.
    #[error("no connection")]
    Connect(#[source] io::Error),
    /// Not done in time.
    #[error("no answer within {millis} ms")]
    Deadline {
        /// How long was waited.
        millis: u64,
    },
    /// The other end hung up before it said welcome.
    #[error("the other end closed the connection during the handshake")]
    Closed(#[source] io::Error),
    /// Something else listens there.
    #[error("what listens there does not speak countersign")]
    NotCountersign(#[source] Foreign),
    /// The other end is not under the pinned authority.
    #[error(
        "authority presented there is {}, the join token pins {expected}; the token is of another cluster, or a \
         proxy that ends TLS is in the way",
        .got.map_or_else(|| "none".to_owned(), |id| id.to_string())
    )]
    Pin {
        /// The authority pinned.
        expected: AuthorityId,
        /// The last certificate of the presented chain, where authorities stand.
        got: Option<AuthorityId>,
    },
    /// The other end's certificate does not verify.
    #[error("certificate presented there is not one of this cluster; is a proxy that ends TLS in the way?")]
    Untrusted(#[source] ChainError),
    /// The other end's certificate verifies, but it is not the peer that this end wants to reach.
    #[error("the other end is refused here")]
    Judged(#[source] Refusal),
    /// The other end's certificate is not for the host that was dialed.
    #[error("certificate presented there does not hold the dialed host")]
    Host,
    /// Refused, and told why.
    #[error("refused there: {code}")]
    Refused {
        /// Why.
        code: RefusalCode,
    },
    /// Refused within TLS, which does not say why: the other end's log does, under the failure id.
    #[error("refused there during the TLS handshake (alert {alert}); its log says why")]
    Alert {
        /// The TLS alert (RFC 8446 §6).
        alert: u8,
    },
    /// This end has no certificate yet.
    #[error("this node has no certificate yet")]
    NoCredential,
    /// The TLS stack failed at this end.
    #[error("TLS failed at this end")]
    Tls(#[source] Error),
}

impl DialError {
    /// Whether the same attempt may succeed a little later: there was no listener, or the other end was busy or not
    /// ready.
    pub fn is_passing(&self) -> bool {
        match &self.cause {
            // The acceptor has no place left: it says so before it has shown a certificate (RFC 8446 §6.2,
            // internal_error).
            DialCause::Alert { alert: 80 } => true,
            DialCause::Connect(_) | DialCause::Deadline { .. } | DialCause::Closed(_) => true,
            DialCause::Refused { code } => {
                matches!(
                    code.refusal(),
                    Some(Refusal::NotReady | Refusal::Overloaded | Refusal::Connections | Refusal::Deadline)
                )
            }
            DialCause::Alert { .. }
            | DialCause::NotCountersign(_)
            | DialCause::Pin { .. }
            | DialCause::Untrusted(_)
            | DialCause::Judged(_)
            | DialCause::Host
            | DialCause::NoCredential
            | DialCause::Tls(_) => false,
        }
    }
}

/// The protocol met instead of countersign.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Foreign {
    /// It does not speak TLS 1.3.
    #[error("it does not speak TLS 1.3")]
    Tls(#[source] Error),
    /// It speaks TLS, but not this protocol in it.
    #[error("it speaks another application protocol")]
    Protocol,
    /// Its first bytes are no answer to a handshake.
    #[error("its first bytes are no answer to a handshake")]
    FirstFrame(#[source] FrameError),
}

impl DialCause {
    /// Reads what the TLS stack says about a connection that was made and then failed.
    pub(crate) fn of_io(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(tls) => Self::of_tls(tls.clone()),
            None => Self::Closed(error),
        }
    }

    fn of_tls(error: Error) -> Self {
        let other_protocol = matches!(
            error,
            Error::AlertReceived(AlertDescription::NoApplicationProtocol) | Error::NoApplicationProtocol
        );
        if other_protocol {
            return Self::NotCountersign(Foreign::Protocol);
        }
        let other_tls = matches!(
            error,
            Error::AlertReceived(AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure)
                | Error::InvalidMessage(_)
                | Error::InappropriateMessage { .. }
                | Error::InappropriateHandshakeMessage { .. }
                | Error::PeerIncompatible(_)
                | Error::PeerMisbehaved(_)
                | Error::PeerSentOversizedRecord
        );
        if other_tls {
            return Self::NotCountersign(Foreign::Tls(error));
        }
        if let Error::AlertReceived(alert) = error { Self::Alert { alert: alert.into() } } else { Self::Tls(error) }
    }
}
