//! A member of a cluster that knows its own, as a library.
//!
//! [`Member::start`] bootstraps, joins or restarts a member on a data directory; [`Member::serve`] puts somebody's own gRPC
//! services on the cluster port, each call carrying the [`Caller`] whom the connection proved; [`Member::dialer`] reaches the
//! other members. What the member decides is decided in `countersign-core`.

mod admin;
mod authority;
mod boot;
mod bootstrap;
mod bound;
mod chain;
mod channel;
mod client_renewal;
pub mod control;
pub mod datadir;
mod divergence;
mod endpoints;
mod events;
mod files;
mod heard;
mod hosts;
mod join;
mod keys;
#[cfg(test)]
mod killed;
mod lease;
mod machine;
mod member;
mod member_file;
mod metrics;
mod outpost;
mod ownership;
mod peers;
mod propose;
mod quarantine;
mod recognize;
mod reconcile;
mod refusals;
mod renewal;
mod replica;
mod returning;
mod service;
mod settings;
mod standing;
mod start_error;
mod store_return;
mod store_warnings;
mod stored;
mod stores;
mod testing;
mod time;
mod turns;
mod view_file;
mod watchdog;
mod whoami;

pub use admin::https_files::HttpsError;
#[doc(hidden)]
pub use admin::routes::endpoints_for_testing;
pub use authority::SignError;
pub use bootstrap::BootstrapError;
pub use chain::chain;
pub use channel::channel_over;
pub use client_renewal::{RenewError, RenewedCertificate, renew_certificate};
pub use control::{Control, ControlError, Evicted, Leaving};
pub use countersign_core::lease::{Fresh, LeaseLength, NoLease};
pub use countersign_guard::{
    Action, Caller, Denial, GENERATION, Guard, GuardLayer, Kind, MIN_GENERATION, Permit, Resource, Session,
};
pub use countersign_pki::key::KeyAlgorithm;
pub use countersign_pki::mapping::{RULE_DEFAULT, RuleError, Rules};
pub use files::FilesError;
pub use join::JoinError;
pub use keys::KeysError;
pub use member::{Member, StartError, Started, WayBack};
pub use outpost::{Outpost, OutpostError, OutpostSettings};
pub use propose::CommandError;
pub use refusals::{advice, advice_enrollment};
pub use replica::ReplicaError;
#[doc(hidden)]
pub use service::endpoints::calls_for_testing;
pub use settings::{
    AUTHORITY_TTL_SECS, CACHE_TTL_SECS, CLIENT_TTL_SECS, ClusterToken, FilesMode, ImportedAuthority, Lifetimes,
    NODE_TTL_SECS, NewCluster, Settings, Start,
};
pub use standing::Standing;
pub use store_return::{NotTaken, StoreReturnError};
pub use turns::Busy;
pub use whoami::WhoamiService;
