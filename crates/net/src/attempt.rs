//! The facts known of one connection attempt so far, for the record if it is refused.

use std::net::SocketAddr;

use countersign_core::id::FailureId;
use countersign_core::peer::Refusal;
use countersign_core::principal::Principal;

use crate::alpn::Alpn;
use crate::refusal::RefusalRecord;
use crate::sni;

/// Fills up as the handshake goes on; what it holds survives a handshake that is cut off by its deadline.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    /// The dialer's, from its ClientHello; none before one came, or where it held none and nothing had to be told yet.
    failure_id: Option<FailureId>,
    pub(crate) source: SocketAddr,
    pub(crate) alpn: Option<Alpn>,
    pub(crate) principal: Option<Principal>,
    /// Whether its source has failed too often: its failure is counted, not told again.
    pub(crate) repeated: bool,
}

/// Why an attempt ends: the reason, and its precise form for the local log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) refusal: Refusal,
    pub(crate) detail: Option<String>,
}

impl Attempt {
    /// Begins without an id: the dialer will name one.
    pub(crate) const fn new(source: SocketAddr) -> Self {
        Self { failure_id: None, source, alpn: None, principal: None, repeated: false }
    }

    /// Takes the dialer's id from the server name, if it holds one.
    pub(crate) fn named(&mut self, server_name: Option<&str>) {
        self.failure_id = server_name.and_then(sni::attempt_id).or(self.failure_id);
    }

    /// The dialer's id; where it has named none, one of our own from now on.
    pub(crate) fn failure_id(&mut self) -> FailureId {
        *self.failure_id.get_or_insert_with(sni::draw)
    }

    pub(crate) fn record(mut self, failure: Failure) -> RefusalRecord {
        let failure_id = self.failure_id();
        let Self { source, alpn, principal, repeated, .. } = self;
        let Failure { refusal, detail } = failure;
        RefusalRecord { failure_id, source, principal, alpn, refusal, detail, repeated }
    }
}

impl Failure {
    /// With the text of `error` and of what caused it.
    pub(crate) fn of(refusal: Refusal, error: &(dyn core::error::Error + 'static)) -> Self {
        let causes = core::iter::successors(Some(error), |e| e.source()).map(ToString::to_string);
        Self { refusal, detail: Some(causes.collect::<Vec<_>>().join(": ")) }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, detail: None }
    }
}
