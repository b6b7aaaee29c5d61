//! Bounds on slow or large work that one port of the admin API does at once. Work past a bound is refused, never
//! queued. Each port has bounds of its own: the holder of a certificate must not be able to lock the operator of the
//! host out.

use std::sync::Arc;

use axum::http::StatusCode;
use countersign_core::limits::{ACL_QUESTIONS_MAX, LONG_BODIES_MAX};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::AdminError;

/// The right to be one of few; given back when it is dropped.
pub(super) type Place = OwnedSemaphorePermit;

/// The bounds of one port.
pub(super) struct Bounds {
    long_bodies: Arc<Semaphore>,
    questions: Arc<Semaphore>,
}

impl Default for Bounds {
    fn default() -> Self {
        let of = |places| Arc::new(Semaphore::new(places));
        Self { long_bodies: of(LONG_BODIES_MAX), questions: of(ACL_QUESTIONS_MAX) }
    }
}

impl Bounds {
    /// For a body that is longer than other requests may have.
    pub(super) fn long_body(&self) -> Result<Place, AdminError> {
        place(&self.long_bodies, "long requests are taken")
    }

    /// For a question about all rules.
    pub(super) fn question(&self) -> Result<Place, AdminError> {
        place(&self.questions, "questions about all rules are answered")
    }
}

fn place(places: &Arc<Semaphore>, what: &str) -> Result<Place, AdminError> {
    Arc::clone(places).try_acquire_owned().map_err(|_| {
        let message = format!("as many {what} already as this member does at once");
        let next = "repeat the command a little later, or ask another member";
        AdminError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message, next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_there_are_places_are_let_in_and_one_more_once_a_place_is_given_back() {
        let bounds = Bounds::default();
        type Enter = fn(&Bounds) -> Result<Place, AdminError>;
        let enter: [(usize, Enter); 2] = [(LONG_BODIES_MAX, Bounds::long_body), (ACL_QUESTIONS_MAX, Bounds::question)];
        for (max, enter) in enter {
            let mut places: Vec<Place> = (0..max).map(|_| enter(&bounds).unwrap()).collect();
            let refused = enter(&bounds).unwrap_err();
            assert_eq!((refused.status.as_u16(), refused.problem.code.as_str()), (503, "busy"));
            places.pop();
            assert!(enter(&bounds).is_ok());
        }
    }
}
