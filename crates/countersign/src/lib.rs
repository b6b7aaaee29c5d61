//! A member of a cluster that knows its own, as a library.
//!
//! [`Member::open`] bootstraps, joins or reopens a member on a data directory; [`Opened::serve`] starts it with the
//! embedder's own services, each call carrying the [`Caller`] that the connection proved; [`Member::control`] administers the
//! cluster by functions; [`Member::dialer`] reaches the other members. [`RemoteGuard`] decides by a cluster's rules on a host
//! that is no member. What a member decides is decided in `countersign-core`.

#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

mod client_renewal;
mod member;
mod remote_guard;
mod services;
mod standing;
mod whoami;

pub use client_renewal::{RenewError, RenewedCertificate, renew_certificate};
#[doc(hidden)]
pub use countersign_admin::endpoints_for_testing;
pub use countersign_admin::{HttpsError, ServeError};
pub use countersign_control::{
    Control, ControlError, CreatedToken, Evicted, Health, IssuedCertificate, Leaving, NewCertificate, NewToken,
    PolicyChanged, PolicyPlan, RevokedCertificates,
};
pub use countersign_core::lease::{Fresh, LeaseLength, NoLease};
pub use countersign_guard::{
    Action, Caller, Denial, GENERATION, Guard, GuardLayer, Kind, MIN_GENERATION, Permit, Resource, Session,
};
#[doc(hidden)]
pub use countersign_node::service::endpoints::calls_for_testing;
pub use countersign_node::{
    AUTHORITY_TTL_SECS, BootstrapError, Busy, CACHE_TTL_SECS, CLIENT_TTL_SECS, ClusterToken, CommandError, FilesError,
    FilesMode, ImportedAuthority, JoinError, KeysError, Lifetimes, NODE_TTL_SECS, NewCluster, NotTaken, ReplicaError,
    Settings, SignError, Start, StartError as NodeError, Started, StoreReturnError, WayBack, advice, advice_enrollment,
    chain, channel_over, datadir,
};
pub use countersign_pki::key::KeyAlgorithm;
pub use countersign_pki::mapping::{RULE_DEFAULT, RuleError, Rules};
pub use member::{Member, Opened, StartError};
pub use remote_guard::{ConnectedGuard, RemoteGuard, RemoteGuardError, RemoteGuardSettings};
pub use services::{Services, ServicesBuilder};
pub use standing::Standing;
pub use whoami::WhoamiService;
