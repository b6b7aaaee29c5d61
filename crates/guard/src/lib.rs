//! May this principal do this? The question that a service asks before it does anything, answered in nanoseconds.
//!
//! A [`Guard`] holds the rules in force. For each connection a service takes a [`Session`] with the peer that was
//! verified; for each request it asks the session, with proof that the answer is fresh ([`Guard::fresh`]), and gets a
//! [`Permit`] or a [`Denial`]. What happens without a permit does not compile, if the function that does it takes one.
//!
//! This crate must never answer from rules that are no longer in force, allow what [`decide`] would deny, or grow with
//! the names that unauthenticated callers invent. It knows nothing of Raft, of certificates or of the daemon.
//!
//! [`decide`]: countersign_core::authz::decide

// Tests may say "any other".
#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

mod body;
mod caller;
mod cells;
mod groups;
mod guard;
mod layer;
mod outpost;
mod permit;
mod recent;
mod replica;
mod resource;
mod session;
mod source;
mod time;

pub use body::GuardedBody;
pub use caller::Caller;
pub use guard::{Guard, Publisher};
pub use layer::{GENERATION, GuardLayer, GuardService, MIN_GENERATION};
pub use outpost::{ConnectError, Connecting, Controllers, Outpost};
pub use permit::{Denial, Permit};
pub use resource::Resource;
pub use session::Session;
pub use time::Time;

pub use countersign_core::authz::{Action, ActionSet, Decision, Effect, Kind, Reason, RuleId};
pub use countersign_core::lease::{Fresh, LeaseClock, NoLease};
