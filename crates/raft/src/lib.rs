//! Many Raft groups on one authenticated transport and two durable stores: one for the trust group, one for all others.
//!
//! It replicates bytes and knows neither TLS nor what the bytes mean: messages travel through a [`Transport`], commands
//! are applied by a [`GroupMachine`], and who belongs to a group is asked of [`Assignments`].
//!
//! Read [`Groups`] for how requests are judged, [`Store`] for what is promised of the disk, [`Group`] for the rest.
//!
//! A broker keeps each partition in a data group, any group but [the trust group](countersign_core::id::GroupId::TRUST):
//!
//! - Its machine has a [retention floor](GroupMachine::retention_floor): the log is the data, and nothing copies it.
//! - Records are proposed with [`Group::propose`], read with [`Group::read`], waited for with [`Group::watch_committed`],
//!   and deleted by a command that moves the floor.
//! - The data groups of a member share the [bulk store](Groups::open_bulk) and the budgets of [`limits`]. Neither can hold
//!   up the trust group, whose store and budgets are its own.
//! - A lost bulk store is replaced by one with a new id. In each group its member is a learner first, as
//!   [`Assignments::may_vote`] says.
//! - A group that is no more is [removed](Groups::remove), and its id is not used again.

#![deny(clippy::wildcard_enum_match_arm)]

mod applier;
mod assignments;
mod checkpoint;
mod config;
mod contacts;
mod group;
mod hub;
pub mod limits;
mod machine;
mod memory;
mod message;
mod network;
mod proposer;
mod status;
mod store;
mod transfer;
mod transport;
mod types;

pub use applier::Work;
pub use assignments::Assignments;
pub use config::{ConfigError, GroupConfig};
pub use group::{CommittedEntry, Group, InitializeError, LogReadError, MembershipError, ReadError};
pub use hub::{BulkStoreError, Groups, HubError, RemoveError, StartError};
pub use machine::{ApplyError, GroupMachine, LogPosition, RestoreError};
pub use memory::StoreFault;
pub use message::Implausible;
pub use proposer::{ProposeError, Proposed};
pub use status::{GroupState, GroupStatus, GroupStopped};
pub use store::{Binding, OpenError, Store, StoreKind, StorePlace};
pub use transfer::TransferError;
pub use transport::{BoxFuture, RaftRpc, Refusal, Transport, TransportError};
