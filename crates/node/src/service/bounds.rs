//! What one member may make this one hold, whichever connections it comes over: requests under way, and bytes of them.
//! And whether it may send Raft anything, asked before a byte of the body is read.
//!
//! What is past a bound is refused at once, never queued: a request that waits unread holds the window that others on
//! its connection need.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use countersign_api::cluster::raft_server::SERVICE_NAME as RAFT;
use countersign_api::cluster::snapshots_server::SERVICE_NAME as SNAPSHOTS;
use countersign_core::id::NodeId;
use countersign_core::limits::{PEER_BYTES_MAX, PEER_REQUESTS_MAX, PEER_SNAPSHOTS_MAX};
use countersign_core::locked::{LockGuard, Locked, Order};
use countersign_guard::Caller;
use countersign_raft::Groups;
use hyper::body::{Frame, SizeHint};
use tonic::Status;

/// Why a request is not taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Full {
    #[error("{PEER_REQUESTS_MAX} requests of this member are under way: try again")]
    Requests,
    #[error("{PEER_BYTES_MAX} bytes of this member's requests are under way: try again")]
    Bytes,
    #[error("a snapshot of this member is under way: try again")]
    Snapshot,
}

impl From<Full> for Status {
    fn from(full: Full) -> Self {
        Self::resource_exhausted(full.to_string())
    }
}

/// What the requests of one member hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Held {
    requests: usize,
    bytes: usize,
    snapshots: usize,
}

/// What all members' requests hold; those that hold nothing are absent.
#[derive(Clone, Default)]
struct Account(Arc<Locked<BTreeMap<NodeId, Held>>>);

impl Account {
    fn lock(&self) -> LockGuard<'_, BTreeMap<NodeId, Held>> {
        self.0.lock()
    }

    fn enter(&self, peer: NodeId, snapshot: bool) -> Result<Place, Full> {
        let mut account = self.lock();
        let held = account.get(&peer).copied().unwrap_or_default();
        if held.requests >= PEER_REQUESTS_MAX {
            return Err(Full::Requests);
        }
        let snapshots = held.snapshots + usize::from(snapshot);
        if snapshots > PEER_SNAPSHOTS_MAX {
            return Err(Full::Snapshot);
        }
        account.insert(peer, Held { requests: held.requests + 1, snapshots, ..held });
        Ok(Place { account: self.clone(), peer, snapshot, bytes: 0 })
    }
}

/// One request's share; given back when it is dropped.
struct Place {
    account: Account,
    peer: NodeId,
    snapshot: bool,
    bytes: usize,
}

impl Place {
    /// Takes note of bytes that arrived. A snapshot's are bounded by its own length limit, and there is only one.
    fn take(&mut self, bytes: usize) -> Result<(), Full> {
        if self.snapshot {
            return Ok(());
        }
        let mut account = self.account.lock();
        let held = account.entry(self.peer).or_default();
        if held.bytes.saturating_add(bytes) > PEER_BYTES_MAX {
            return Err(Full::Bytes);
        }
        held.bytes += bytes;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut account = self.account.lock();
        if let Some(held) = account.get_mut(&self.peer) {
            held.requests = held.requests.saturating_sub(1);
            held.bytes = held.bytes.saturating_sub(self.bytes);
            held.snapshots = held.snapshots.saturating_sub(usize::from(self.snapshot));
            if *held == Held::default() {
                account.remove(&self.peer);
            }
        }
    }
}

/// The bounds of the peer protocol.
#[derive(Clone)]
pub(super) struct Bounds {
    groups: Groups,
    account: Account,
}

impl Bounds {
    pub(super) fn of(groups: Groups) -> Self {
        Self { groups, account: Account::default() }
    }

    fn admit(&self, request: &Request) -> Result<Place, Status> {
        // Absent only if the router were wired wrongly: refuse.
        let caller = request.extensions().get::<Caller>().and_then(|caller| caller.peer.node_id());
        let peer = caller.ok_or_else(|| Status::unauthenticated("not a member"))?;
        let service = request.uri().path().split('/').nth(1);
        if service == Some(RAFT) || service == Some(SNAPSHOTS) {
            match self.groups.may_lead_any(peer) {
                Some(true) => {}
                Some(false) => return Err(Status::permission_denied("leads no group here")),
                None => return Err(Status::failed_precondition("not known here yet")),
            }
        }
        Ok(self.account.enter(peer, service == Some(SNAPSHOTS))?)
    }
}

/// The layer around the services of the peer protocol.
pub(super) async fn bounded(State(bounds): State<Bounds>, request: Request, next: Next) -> Response {
    let place = match bounds.admit(&request) {
        Ok(place) => Arc::new(Locked::of(Order::Middle, place)),
        Err(status) => return status.into_http(),
    };
    let request = request.map(|body| Body::new(Counted { body, place: Arc::clone(&place) }));
    let response = next.run(request).await;
    // Held until here: what was decoded lives as long as its request.
    drop(place);
    response
}

/// A body whose bytes count.
struct Counted {
    body: Body,
    /// Held while the account is charged.
    place: Arc<Locked<Place>>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into_inner())))),
            Some(Ok(frame)) => frame,
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let taken = self.place.lock().take(bytes);
        Poll::Ready(Some(taken.map(|()| frame).map_err(Status::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    const ONE: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    #[test]
    fn member_has_so_many_requests_under_way_and_no_more() {
        let account = Account::default();
        let mut places: Vec<Place> = (0..PEER_REQUESTS_MAX).map(|_| account.enter(ONE, false).unwrap()).collect();
        assert_eq!(account.enter(ONE, false).err(), Some(Full::Requests));
        assert!(account.enter(OTHER, false).is_ok(), "another member is not held up");
        places.pop();
        assert!(account.enter(ONE, false).is_ok());
        drop(places);
        assert!(account.lock().is_empty(), "what is over leaves nothing behind");
    }

    #[test]
    fn a_member_has_one_snapshot_under_way() {
        let account = Account::default();
        let mut first = account.enter(ONE, true).unwrap();
        assert_eq!(account.enter(ONE, true).err(), Some(Full::Snapshot));
        assert!(account.enter(ONE, false).is_ok() && account.enter(OTHER, true).is_ok());
        // It is longer than all other requests together, and does not count among them.
        assert_eq!(first.take(2 * PEER_BYTES_MAX), Ok(()));
        assert_eq!(account.enter(ONE, false).unwrap().take(PEER_BYTES_MAX), Ok(()));
        drop(first);
        assert!(account.enter(ONE, true).is_ok());
    }

    #[tokio::test]
    async fn bytes_of_all_requests_of_a_member_are_bounded_together() {
        let account = Account::default();
        let body = |peer, len| {
            let place = Arc::new(Locked::of(Order::Middle, account.enter(peer, false).unwrap()));
            (Counted { body: Body::from(vec![0; len]), place: Arc::clone(&place) }, place)
        };
        let (half, held) = body(ONE, PEER_BYTES_MAX / 2);
        half.collect().await.unwrap();
        let (rest, held_too) = body(ONE, PEER_BYTES_MAX / 2);
        rest.collect().await.unwrap();
        let (past, _) = body(ONE, 1);
        let refused = past.collect().await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        let (of_another, _) = body(OTHER, PEER_BYTES_MAX);
        of_another.collect().await.unwrap();
        // A request that is answered gives its bytes back.
        drop((held, held_too));
        let (again, _) = body(ONE, PEER_BYTES_MAX);
        again.collect().await.unwrap();
        assert!(account.lock().is_empty());
    }
}
