//! The trust state machine: what Raft applies.

pub mod member;
pub mod view;
