//! The trust state machine: what Raft applies.
//!
//! [`TrustState::apply`] is total and deterministic: the same commands in the same order give the same bytes on every
//! member. What handshakes need of it is its [`view::View`], copied on write and published whole.

pub mod agreement;
pub mod attestation;
pub mod author;
pub mod chain;
pub mod client_ports;
pub mod clocks;
pub mod command;
pub mod digest;
pub mod event;
pub mod hosts;
mod invariants;
pub mod join_token;
mod levels;
pub mod member;
pub mod outcome;
pub mod placement;
pub mod recognition;
pub mod seal;
mod state;
pub mod tables;
pub mod view;

pub use command::addresses_transcript;
pub use invariants::InvariantBroken;
pub use state::{Recorded, TrustState, UnreadableState, UnsupportedLevel};

#[cfg(test)]
pub(crate) mod tests;
