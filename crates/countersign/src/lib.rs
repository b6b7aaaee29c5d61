//! A member of a cluster, as a library.
//!
//! - [`Member::open`] founds, joins, returns or reopens a member on a data directory, and accepts nothing yet.
//! - [`Opened::serve`] starts it with the embedder's own [`Services`]. Each call carries the [`Caller`] that the
//!   connection proved, and comes in only if a rule allows it.
//! - [`Member::control`] administers the cluster by functions; [`Member::guard`] decides by its rules;
//!   [`Member::dialer`] reaches other members.
//! - [`RemoteGuard`] decides by a cluster's rules on a host that is no member.
//! - [`Client`] calls members and guarded services, and renews its certificate.
//!
//! ```no_run
//! use countersign::{Member, NewCluster, Services, Settings, Start};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings { name: Some("n1".parse()?), ..Settings::new("data", "127.0.0.1:7100".parse()?) };
//! let (opened, _) = Member::open(settings, Start::Bootstrap(NewCluster::new("example".parse()?))).await?;
//! let member = opened.serve(Services::default()).await?;
//! println!("{} serves at generation {}", member.name(), member.view().generation);
//! member.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Types of axum and tonic stand in this interface behind the features `axum-08` and `tonic-014`, which are on unless
//! they are turned off. The next version of either gets a feature of its own.
//!
//! This crate is a facade: the parts of a member are `countersign-node`'s, its use cases `countersign-control`'s, its
//! decisions `countersign-core`'s. It must never hold a second list of parts or tasks.

#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

mod client;
mod member;
mod remote_guard;
mod services;
mod standing;
mod whoami;

pub use client::{Client, ClientChannel, RenewError, RenewedCertificate};
#[doc(hidden)]
pub use countersign_admin::endpoints_for_testing;
pub use countersign_admin::{HttpsError, ServeError};
pub use countersign_control::{
    Control, ControlError, CreatedToken, Evicted, Health, IssuedCertificate, Leaving, NewCertificate, NewToken,
    PolicyChanged, PolicyPlan, RevokedCertificates,
};
pub use countersign_core::authz::RuleId;
pub use countersign_core::authz::change::PolicyChange;
pub use countersign_core::id::{Generation, KeyId, NodeId};
pub use countersign_core::lease::{Fresh, LeaseLength, NoLease};
pub use countersign_core::name::{Address, Host, Name};
pub use countersign_core::peer::{Refusal, VerifiedPeer};
pub use countersign_core::principal::{Principal, Role, TrustDomain};
pub use countersign_core::trust::join_token::JoinToken;
pub use countersign_core::trust::member::Suffrage;
pub use countersign_core::trust::view::View;
pub use countersign_guard::{
    Action, Caller, Denial, GENERATION, Guard, GuardLayer, Kind, MIN_GENERATION, Permit, Permits, Resource, Session,
};
pub use countersign_net::{ClientDialer, ClientFilesError};
pub use countersign_node::service::clients::{REFUSAL, VOTERS};
#[doc(hidden)]
pub use countersign_node::service::endpoints::calls_for_testing;
pub use countersign_node::{
    AUTHORITY_TTL_SECS, BootstrapError, Busy, CACHE_TTL_SECS, CLIENT_TTL_SECS, ClientLimits, ClusterToken,
    CommandError, FilesError, FilesMode, ImportedAuthority, JoinError, KeysError, Lifetimes, NODE_TTL_SECS, NewCluster,
    NotTaken, ReplicaError, ServedName, Settings, SignError, Start, StartError as NodeError, Started, StoreReturnError,
    WayBack, advice, advice_enrollment, chain, channel_over, channel_to, datadir,
};
pub use countersign_pki::key::{KeyAlgorithm, KeyPair};
pub use countersign_pki::mapping::{RULE_DEFAULT, RuleError, Rules};
pub use member::{Member, Opened, StartError};
pub use remote_guard::{ConnectedGuard, RemoteGuard, RemoteGuardError, RemoteGuardSettings};
pub use services::{Services, ServicesBuilder};
pub use standing::Standing;
pub use whoami::WhoamiService;
