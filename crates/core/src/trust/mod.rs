//! The trust state machine: what Raft applies.
//!
//! [`TrustState::apply`] is total and deterministic: the same commands in the same order give the same bytes on every
//! member. What handshakes need of it is its [`view::View`], copied on write and published whole.

pub mod agreement;
pub mod author;
mod authorization;
pub mod chain;
mod check;
pub mod clocks;
pub mod command;
pub mod digest;
pub mod event;
pub mod hosts;
mod invariants;
pub mod join_token;
mod levels;
pub mod member;
mod members;
pub mod outcome;
mod principals;
pub mod recognition;
mod renewal;
pub mod seal;
mod state;
pub mod statement;
mod store_return;
pub mod tables;
mod tokens;
pub mod view;

pub use invariants::InvariantBroken;
pub use members::addresses_transcript;
pub use state::{Recorded, TrustState, UnreadableState, UnsupportedLevel};

#[cfg(test)]
pub(crate) mod tests;
