//! Requests under way on the client port: so many of each principal, over all its connections, be they TCP or QUIC.
//! Each holds memory of this member: its head, what of its body was read, and its answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::HttpBody;
use axum::response::Response;
use countersign_core::locked::Locked;
use countersign_core::principal::Role;

use super::unread::in_pieces;

/// Bytes of an answer that are handed to the connection at once: a frame of HTTP/2 (RFC 9113 section 4.2). The member
/// cannot know whether these were read.
const PIECE_LEN: usize = 16 * 1024;

/// How many requests of each principal are under way; a principal without any has no entry.
#[derive(Clone)]
pub(super) struct UnderWay {
    requests: Arc<Locked<BTreeMap<Role, usize>>>,
    max: usize,
}

/// The place of one request, given up when dropped.
pub(super) struct Place {
    all: UnderWay,
    role: Role,
}

impl UnderWay {
    /// Of each principal `max` requests at once.
    pub(super) fn new(max: usize) -> Self {
        Self { requests: Arc::default(), max }
    }

    /// A place for one more request of this principal; none if it has as many under way as it may.
    pub(super) fn begin(&self, role: &Role) -> Option<Place> {
        let mut all = self.requests.lock();
        let own = all.get(role).copied().unwrap_or(0);
        if own >= self.max {
            return None;
        }
        all.insert(role.clone(), own + 1);
        drop(all);
        Some(Place { all: self.clone(), role: role.clone() })
    }

    /// What a principal is told that has as many requests under way as it may.
    pub(super) fn too_many(&self, role: &Role) -> String {
        format!("{} requests of {role} are under way here", self.max)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.all.requests.lock();
        if let Some(own) = all.get_mut(&self.role) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                all.remove(&self.role);
            }
        }
    }
}

impl Place {
    /// Holds the place until the answer was handed over to its last piece.
    pub(super) fn until_answered(self, response: Response) -> Response {
        response.map(|body| if body.is_end_stream() { body } else { in_pieces(body, PIECE_LEN, self) })
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    const MAX: usize = 3;

    #[test]
    fn principal_has_so_many_requests_and_takes_no_place_of_others() {
        let under_way = UnderWay::new(MAX);
        let role = |name: &str| Role::parse(name).unwrap();
        let mut own: Vec<Place> = Vec::new();
        for _ in 0..MAX {
            own.push(under_way.begin(&role("client/pay")).unwrap());
        }
        assert!(under_way.begin(&role("client/pay")).is_none());
        assert!(under_way.begin(&role("client/shop")).is_some());
        // A place lasts as long as its answer.
        let response = own.pop().unwrap().until_answered("answer".into_response());
        assert!(under_way.begin(&role("client/pay")).is_none());
        drop(response);
        assert!(under_way.begin(&role("client/pay")).is_some());
        drop(own);
        assert!(under_way.requests.lock().is_empty(), "no principal is remembered");
    }
}
