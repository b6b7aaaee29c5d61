//! Identity, enrollment, leases and authorization of a cluster: every decision, as pure functions.
//!
//! Nothing here does IO, reads a clock, draws randomness, or depends on the order of a hash map. Time, randomness and
//! bytes come in as arguments, and outcomes go out as values. So every decision can be replayed from a seed.
//!
//! - [`trust`]: the replicated trust state. [`trust::TrustState`] applies commands, [`trust::command`] has one file for
//!   each kind, [`trust::view`] is what handshakes judge by, [`trust::placement`] says where groups live.
//! - [`peer`]: the judgement on a connection, from a proof to a verified peer.
//! - [`enroll`]: how a node joins and how a member returns.
//! - [`authz`]: who may do what.
//! - [`lease`]: how a member that hears nothing any more comes to deny. Its machines say what to do and when.
//! - [`member`]: what a member does next about Raft's membership, its certificate, its recognition and its return.
//!
//! A decision by rules:
//!
//! ```
//! use countersign_core::authz::text::RuleText;
//! use countersign_core::authz::{Action, Effect, Kind, Policy, Question, Subject, decide};
//! use countersign_core::id::Generation;
//! use countersign_core::time::UnixMillis;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let rule = RuleText {
//!     principal: "client/pay".to_owned(),
//!     actions: vec!["read".to_owned()],
//!     topic: Some("orders".to_owned()),
//!     ..RuleText::default()
//! };
//! let policy = Policy::of([], [rule.rule()?]);
//! let subject = Subject { name: "client/pay".to_owned(), ..Subject::default() };
//! let (kind, name, now) = (Kind::TOPIC, "orders", UnixMillis(0));
//! let ask = |action| {
//!     let question = Question { subject: &subject, action, kind: &kind, name, from: None, now };
//!     decide(&policy, Generation(1), &question).effect
//! };
//! assert_eq!(ask(Action::Read), Effect::Allow);
//! assert_eq!(ask(Action::Write), Effect::Deny); // no rule allows it
//! # Ok(())
//! # }
//! ```

// Tests may say "any other".
#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

pub mod authz;
pub mod codec;
pub mod enroll;
pub mod group;
pub mod id;
mod json;
pub mod key;
pub mod lease;
pub mod limits;
pub mod locked;
pub mod map;
pub mod mapped;
pub mod member;
pub mod name;
pub mod peer;
pub mod principal;
pub mod receipt;
pub mod secret;
pub mod table;
pub mod time;
pub mod transcript;
pub mod trust;
