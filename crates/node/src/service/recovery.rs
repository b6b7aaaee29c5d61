//! Recovery: what members carry between them while the certificate of one of the two has expired. It lets a cluster
//! that was off past every expiry form again and renew, and serves nothing else.
//!
//! Two ends, two ways to be expired: the caller, which its connection says, or this member itself.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use countersign_core::id::{GroupId, NodeId};
use countersign_core::peer::Scope;
use countersign_core::trust::author::permit_in_recovery;
use countersign_core::trust::command::Command;
use countersign_guard::Caller;
use tonic::Status;

use crate::identity::local::Local;

/// Methods that recovery needs; what they carry is looked at where it is read.
const CARRIED: [&str; 4] = [
    "/countersign.v1.Raft/Call",
    "/countersign.v1.Snapshots/Install",
    "/countersign.v1.Leases/Lease",
    "/countersign.v1.Members/Propose",
];

/// Whose certificate has expired, in the extensions of a request that may carry recovery only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    Caller,
    Here,
}

impl Expired {
    fn of(caller: &Caller, local: &Local) -> Option<Self> {
        if caller.peer.scope() == Scope::Recovery {
            Some(Self::Caller)
        } else if local.leaf_expired() {
            Some(Self::Here)
        } else {
            None
        }
    }

    /// Why something is not carried.
    fn refuse(self, what: &str) -> Status {
        let whose = match self {
            Self::Caller => "the caller's certificate",
            Self::Here => "this member's own certificate",
        };
        Status::permission_denied(format!("{whose} has expired: until it is renewed, {what} is not carried"))
    }
}

/// The layer around the services of the peer protocol: marks a request of a connection in recovery, and refuses
/// whatever recovery does not need.
pub(super) async fn recovering(State(local): State<Arc<Local>>, mut request: Request, next: Next) -> Response {
    match judge(&local, &request) {
        Ok(None) => {}
        Ok(Some(expired)) => drop(request.extensions_mut().insert(expired)),
        Err(status) => return status.into_http(),
    }
    next.run(request).await
}

fn judge(local: &Local, request: &Request) -> Result<Option<Expired>, Status> {
    // Absent only if the router were wired wrongly: refuse.
    let caller = request.extensions().get::<Caller>().ok_or_else(|| Status::unauthenticated("not a member"))?;
    let expired = Expired::of(caller, local);
    let path = request.uri().path();
    match expired {
        Some(expired) if !CARRIED.contains(&path) => Err(expired.refuse(path)),
        _ => Ok(expired),
    }
}

fn expired<T>(request: &tonic::Request<T>) -> Option<Expired> {
    request.extensions().get::<Expired>().copied()
}

/// Whether `request` may carry Raft of `group`.
pub(super) fn may_carry_group<T>(request: &tonic::Request<T>, group: GroupId) -> Result<(), Status> {
    match expired(request) {
        Some(expired) if group != GroupId::TRUST => Err(expired.refuse("raft of any group but the trust group")),
        _ => Ok(()),
    }
}

/// Whether the caller may be granted a lease: no member serves without a certificate.
pub(super) fn may_lease<T>(request: &tonic::Request<T>) -> bool {
    expired(request).is_none()
}

/// A check of the commands that `request` may carry, to be asked once the command is decoded.
pub(super) fn may_propose<T>(
    request: &tonic::Request<T>,
    from: NodeId,
) -> impl FnOnce(&Command) -> Result<(), Status> + use<T> {
    let expired = expired(request);
    move |command| match expired {
        Some(expired) => {
            permit_in_recovery(from, command).map_err(|_| expired.refuse("any command but a member's own"))
        }
        None => Ok(()),
    }
}
