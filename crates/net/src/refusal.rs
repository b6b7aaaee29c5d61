//! Where refusals are told: the precise reason, at this end only, under the id that both ends know.
//!
//! A record holds no secret: no key, no token, and of the peer's bytes only the parsed fields.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use countersign_core::id::FailureId;
use countersign_core::locked::Locked;
use countersign_core::peer::Refusal;
use countersign_core::principal::Principal;

use crate::alpn::Alpn;

/// One refused connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalRecord {
    /// The attempt; the dialer prints the same.
    pub failure_id: FailureId,
    /// Where it came from.
    pub source: SocketAddr,
    /// The principal that it proved to be, if it came that far.
    pub principal: Option<Principal>,
    /// What it wanted, if it said so.
    pub alpn: Option<Alpn>,
    /// Why it was refused.
    pub refusal: Refusal,
    /// What exactly was wrong, where the refusal alone does not say it.
    pub detail: Option<String>,
    /// The same source was refused for the same reason just before: to be counted, not told again.
    pub repeated: bool,
}

/// Takes the records.
pub trait Refusals: Send + Sync + 'static {
    /// Takes one.
    fn record(&self, record: RefusalRecord);
}

/// Warns of each refusal once, and counts them by reason.
#[derive(Debug, Default)]
pub struct LoggedRefusals(Locked<BTreeMap<Refusal, u64>>);

impl LoggedRefusals {
    /// How many connections were refused, by reason.
    pub fn counts(&self) -> BTreeMap<Refusal, u64> {
        self.0.lock().clone()
    }
}

impl Refusals for LoggedRefusals {
    fn record(&self, record: RefusalRecord) {
        let mut counts = self.0.lock();
        let count = counts.entry(record.refusal).or_default();
        *count = count.saturating_add(1);
        drop(counts);
        if record.repeated {
            return;
        }
        tracing::warn!(
            failure_id = %record.failure_id,
            source = %record.source,
            principal = record.principal.as_ref().map(tracing::field::display),
            protocol = record.alpn.map(Alpn::label),
            reason = record.refusal.label(),
            detail = record.detail,
            "connection refused: {}",
            record.refusal
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_reason_told_or_not() {
        let refusals = LoggedRefusals::default();
        let of = |refusal, repeated| RefusalRecord {
            failure_id: FailureId([1; 8]),
            source: ([127, 0, 0, 1], 1).into(),
            principal: None,
            alpn: Some(Alpn::Peer),
            refusal,
            detail: None,
            repeated,
        };
        refusals.record(of(Refusal::Overloaded, false));
        refusals.record(of(Refusal::Overloaded, true));
        refusals.record(of(Refusal::Evicted, false));
        assert_eq!(refusals.counts(), BTreeMap::from([(Refusal::Overloaded, 2), (Refusal::Evicted, 1)]));
    }
}
