//! No client is connected without a lease: what it sends and is answered stops with the guard, and its connection here.

use std::time::Duration;

use countersign_core::peer::Refusal;
use countersign_guard::Guard;
use countersign_net::Endpoint;

/// How often it is looked whether the lease was given up before its end.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Closes the connections of clients whenever the lease is over. A stream without traffic asks no guard, and a call
/// that has begun works on. Never ends.
pub async fn close_when_lapsed(guard: Guard, endpoint: Endpoint) {
    let mut held = false;
    loop {
        let left = guard.fresh().map(|fresh| fresh.deadline().since(fresh.now())).ok();
        if left.is_none() && held {
            let closed = endpoint.registry().close_services(Refusal::NoLease).len();
            tracing::warn!(connections = closed, "no lease any more: connections of clients closed");
        }
        held = left.is_some();
        // why: a lease lapses by the passing of time alone
        tokio::time::sleep(left.map_or(LOOK_AGAIN, |left| LOOK_AGAIN.min(Duration::from_millis(left)))).await;
    }
}
