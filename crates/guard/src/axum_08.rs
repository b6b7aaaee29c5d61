//! For handlers of axum 0.8.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use crate::caller::Caller;
use crate::guard::Guard;
use crate::permit::Denial;
use crate::permits::Permits;

impl From<Denial> for StatusCode {
    /// 403 where the rules or the cluster say no, 503 where this end cannot tell now.
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Denied(_) | Denial::Refused(_) | Denial::RecoveryOnly => Self::FORBIDDEN,
            Denial::NoLease(_) | Denial::Outdated { .. } | Denial::Behind { .. } | Denial::Unfetched => {
                Self::SERVICE_UNAVAILABLE
            }
        }
    }
}

impl IntoResponse for Denial {
    /// The status alone: which rule denies is for the log.
    fn into_response(self) -> Response {
        StatusCode::from(self).into_response()
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = StatusCode;

    /// The caller that the connection proved; 401 for a request that did not come over the client port.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        parts.extensions.get().cloned().ok_or(StatusCode::UNAUTHORIZED)
    }
}

impl<S: Sync> FromRequestParts<S> for Permits
where
    Guard: FromRef<S>,
{
    type Rejection = Denial;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Denial> {
        Self::of(&Guard::from_ref(state), &parts.extensions)
    }
}
