//! Many Raft groups on one authenticated transport and two durable stores: one for the trust group, one for all others.
//!
//! - [`Groups`] starts and stops the groups of a member, and judges each request before a group sees it.
//! - [`Group`] is one of them: propose, read, change its members, watch it.
//! - [`Store`] says what is promised of the disk; [`StoreKind`] tells the two stores apart.
//! - [`GroupMachine`] applies the commands, [`Transport`] carries the messages, and [`Assignments`] says who belongs to
//!   a group. The user of this crate implements these three.
//!
//! This crate replicates bytes. It must never know TLS, or the meaning of the bytes.
//!
//! A broker keeps each partition in a data group, which is any group but the
//! [trust group](countersign_core::id::GroupId::TRUST):
//!
//! - Its machine has a [retention floor](GroupMachine::retention_floor): the log is the data, and nothing copies it.
//! - The broker proposes records with [`Group::propose`], reads them with [`Group::read`], and waits for them with
//!   [`Group::watch_committed`]. A command that moves the floor deletes them.
//! - The data groups of a member share the [bulk store](Groups::open_bulk) and the budgets of [`limits`]. Neither can
//!   hold up the trust group, whose store and budgets are its own.
//! - A lost bulk store is replaced by one with a new id. In each group its member is a learner first, as
//!   [`Assignments::may_vote`] says.
//! - A group that ends is [removed](Groups::remove), and its id is not used again.

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
