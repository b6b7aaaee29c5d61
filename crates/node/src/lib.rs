//! The running member: parts that own state, tasks that act, and what is served on the cluster port.
//!
//! Start with [`Node`]: its fields are the parts. [`Node::open`] makes a member and puts its parts together;
//! [`Node::run`] serves the cluster port, and starts the capabilities and the tasks of the trust group. Each task names
//! the parts that it is handed and never gets the whole node.
//!
//! - `identity`: who the member is, and where it keeps that.
//! - `trust`: the replicated state on this member, commands on their way into it, and refusals of this member alone.
//! - `lease`: drives the lease machines of `countersign-core`, and waits for barriers.
//! - `capabilities`: enrollment, leases, certificates and remote guards, each with its calls, services and tasks.
//! - `tasks`: tasks that keep something right. A task that belongs to one part stands beside that part.
//! - `hosts`: looks for members at the addresses that they advertise.
//! - [`service`]: the gRPC services of the cluster port.
//!
//! A decision belongs in `countersign-core`; this crate asks and acts. It must never know HTTP administration.

#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

mod boot;
mod capabilities;
mod chain;
mod channel;
mod hosts;
mod identity;
#[cfg(test)]
mod killed;
mod leader_contact;
mod lease;
mod node;
mod peers;
mod refusals;
pub mod service;
mod settings;
mod start_error;
mod tasks;
#[doc(hidden)]
pub mod testing;
mod time;
mod trust;

pub use boot::boot_now;
pub use chain::chain;
pub use channel::{channel_over, channel_to};
pub use identity::bootstrap::BootstrapError;
pub use identity::bound::bind_again;
pub use identity::data_store::DataStoreError;
pub use identity::datadir;
pub use identity::endpoints::{Endpoints, OwnEndpoints};
pub use identity::files::FilesError;
pub use identity::join::JoinError;
pub use identity::keys::{KeysError, random};
pub use identity::local::Local;
pub use identity::store_return::{NotTaken, StoreReturnError};
pub use leader_contact::LeaderContact;
pub use lease::{Barriers, DelegatedLeases, Granting, Leasehold};
pub use node::{Node, Started};
pub use peers::Peers;
pub use refusals::{RefusalLog, RefusedSource, advice, advice_enrollment};
pub use service::site::ServedName;
pub use settings::{
    AUTHORITY_TTL_SECS, CACHE_TTL_SECS, CLIENT_TTL_SECS, ClientLimits, ClusterToken, FilesMode, ImportedAuthority,
    Lifetimes, NODE_TTL_SECS, NewCluster, Settings, Start,
};
pub use start_error::{StartError, WayBack};
pub use tasks::Tasks;
pub use tasks::renewal::Renewals;
pub use time::{Clocks, ClusterTime};
pub use trust::authority::{KeyHolder, SignError};
pub use trust::denylist::Denylist;
pub use trust::divergence::Divergence;
pub use trust::in_flight::Busy;
pub use trust::machine::SharedState;
pub use trust::own_status::OwnStatus;
pub use trust::propose::{CommandError, Done, Proposer, new_request};
pub use trust::replica::ReplicaError;
pub use trust::store_warnings::StoreWarnings;
pub use trust::stores::Stores;
