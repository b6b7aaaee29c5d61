//! What a handler asks about its caller.

use std::sync::Arc;

use axum::http::Extensions;
use countersign_core::authz::{Action, Kind};
use countersign_core::peer::Refusal;

use crate::caller::Caller;
use crate::guard::Guard;
use crate::permit::{Denial, Permit};

/// Permits for the caller of one request. With the feature `axum-08`, a handler takes it as an argument.
///
/// The caller was let in to the handler by a rule about the `service`. So what rules say of it is known here.
#[derive(Clone)]
pub struct Permits {
    guard: Guard,
    caller: Arc<Caller>,
}

impl core::fmt::Debug for Permits {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Permits({})", self.caller.peer.principal())
    }
}

impl Permits {
    /// For the caller in the extensions of a request that the client port served.
    ///
    /// # Errors
    /// [`Denial::Refused`] if there is none: the request did not come over the client port.
    pub fn of(guard: &Guard, extensions: &Extensions) -> Result<Self, Denial> {
        let caller = extensions.get::<Caller>().ok_or(Denial::Refused(Refusal::PrincipalUnknown))?;
        Ok(Self { guard: guard.clone(), caller: Arc::new(caller.clone()) })
    }

    /// The caller.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// A permit for one action, by the rules in force now.
    ///
    /// # Errors
    /// [`Denial`]: no rule allows it to the caller, or this member has no lease.
    pub fn permit<'a>(&self, action: Action, kind: &'a Kind, name: &'a str) -> Result<Permit<'a>, Denial> {
        let session = self.guard.session(&self.caller.peer, Some(self.caller.remote.ip()))?;
        let fresh = self.guard.fresh()?;
        session.authorize_named(&fresh, action, kind, name)
    }
}
