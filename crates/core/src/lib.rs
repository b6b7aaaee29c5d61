//! Identity, enrollment and trust of a cluster: the pure decisions.
//!
//! Nothing here does IO, reads a clock, draws randomness, or depends on the order of a hash map: time, randomness and
//! bytes come in as arguments, outcomes go out as values. So every decision can be replayed from a seed.
//!
//! Read [`peer`] for how a connection is judged, [`trust`] for what is replicated, [`authz`] for who may do what, [`lease`]
//! for how a member that hears nothing any more comes to deny.

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
