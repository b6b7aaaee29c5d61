//! May this principal do this? Services ask before each effect; the guard answers in nanoseconds.
//!
//! A [`Guard`] holds the rules in force. A service takes a [`Session`] for each verified peer and asks it for each
//! request, with proof that the answer is fresh ([`Guard::fresh`]). The answer is a [`Permit`] or a [`Denial`]. A
//! function that takes a permit cannot be called without one:
//!
//! ```
//! use countersign_guard::{Action, Caller, Denial, Guard, Kind, Permit};
//!
//! fn read_topic(permit: &Permit<'_>) -> String {
//!     format!("what is in {}", permit.name())
//! }
//!
//! fn serve(guard: &Guard, caller: &Caller, topic: &str) -> Result<String, Denial> {
//!     let session = guard.session(&caller.peer, Some(caller.remote.ip()))?;
//!     let fresh = guard.fresh()?;
//!     let permit = session.authorize_named(&fresh, Action::Read, &Kind::TOPIC, topic)?;
//!     Ok(read_topic(&permit))
//! }
//! ```
//!
//! [`GuardLayer`] stands before whole services. [`RemoteGuard`] is a guard outside the cluster, which members inform.
//!
//! This crate must never answer from rules that are not in force, allow what [`decide`] would deny, or grow with the
//! names that callers invent. It knows nothing of Raft, of certificates or of the daemon.
//!
//! [`decide`]: countersign_core::authz::decide

// Tests may say "any other".
#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

#[cfg(feature = "axum-08")]
mod axum_08;
mod body;
mod caller;
mod cells;
mod denials;
mod groups;
mod guard;
mod layer;
mod permit;
mod permits;
mod recent;
mod remote;
mod replica;
mod resource;
mod session;
mod source;
mod time;
#[cfg(feature = "tonic-014")]
mod tonic_014;

pub use body::GuardedBody;
pub use caller::Caller;
pub use guard::{Guard, Publisher};
pub use layer::{GENERATION, GuardLayer, GuardService, MIN_GENERATION};
pub use permit::{Denial, Permit};
pub use permits::Permits;
pub use remote::{ConnectError, Connecting, Controllers, RemoteGuard};
pub use resource::Resource;
pub use session::Session;
pub use time::Time;

pub use countersign_core::authz::{Action, ActionSet, Decision, Effect, Kind, Reason, RuleId};
pub use countersign_core::lease::{Fresh, LeaseClock, NoLease};
