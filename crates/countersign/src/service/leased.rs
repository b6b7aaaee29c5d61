//! No client is connected without a lease: what it sends and is answered stops with the guard, and its connection here.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::peer::Refusal;

use crate::member::Inner;

/// How often it is looked whether the lease was given up before its end.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Closes what clients opened whenever the lease is over: a stream without traffic asks nobody, and a call that has begun
/// works on.
pub(super) fn close_when_lapsed(member: &Arc<Inner>) {
    let this = Arc::clone(member);
    member.spawn(async move {
        let mut held = false;
        loop {
            let left = this.lease.millis_left();
            if left.is_none() && held {
                let closed = this.endpoint.registry().close_services(Refusal::NoLease).len();
                tracing::warn!(connections = closed, "no lease any more: connections of clients closed");
            }
            held = left.is_some();
            // why: a lease lapses by the passing of time alone
            tokio::time::sleep(left.map_or(LOOK_AGAIN, |left| LOOK_AGAIN.min(Duration::from_millis(left)))).await;
        }
    });
}
