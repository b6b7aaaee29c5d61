//! The settings of a program that embeds a member.

use std::net::SocketAddr;
use std::path::PathBuf;

use countersign_core::authz::change::PolicyChange;
use countersign_core::lease::LeaseLength;
use countersign_core::limits::{
    CLIENT_STREAMS_MAX, CLIENT_UNREAD_BYTES_MAX, CONNECTIONS_PER_PRINCIPAL_MAX, REQUESTS_PER_PRINCIPAL_MAX,
    SERVICE_CONNECTIONS_MAX,
};
use countersign_core::name::{Address, Name};
use countersign_core::principal::TrustDomain;
use countersign_core::trust::command::FEATURE_LEVEL;
use countersign_core::trust::join_token::JoinToken;
use countersign_core::trust::member::Suffrage;
use countersign_pki::key::KeyAlgorithm;
use countersign_pki::mapping::Rules;

use crate::service::site::ServedName;

/// Where a member lives and listens.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its data directory.
    pub data: PathBuf,
    /// Its name; the host's name if none is given.
    pub name: Option<Name>,
    /// Where the cluster port is bound; port 0 takes the port of the last start, or any that is free.
    pub cluster_addr: SocketAddr,
    /// Where others reach the cluster port; the bound address if empty.
    pub advertise: Vec<Address>,
    /// Where the client port is bound; none if this member serves no principals.
    pub client_addr: Option<SocketAddr>,
    /// Where clients reach the client port; the first advertised host, at the bound port, if none is named. A client
    /// takes only a host that this member's certificate names.
    pub client_advertise: Option<Address>,
    /// What one client may take there.
    pub client_limits: ClientLimits,
    /// Where the HTTPS port is bound, if it is wanted.
    pub https_addr: Option<SocketAddr>,
    /// The operator's certificate chain and key for the HTTPS port, PEM files; without them the node's own leaf serves
    /// it.
    pub https_files: Option<(PathBuf, PathBuf)>,
    /// Hosts that the HTTPS port answers for besides those of its certificate, as through a proxy.
    pub https_names: Vec<ServedName>,
    /// Seconds that certificates of nodes live, if this node makes the cluster.
    pub node_ttl_secs: u64,
    /// Seconds that a certificate of a client, broker or admin lives that is asked for here without a word about it.
    pub client_ttl_secs: u64,
    /// Seconds that guards outside the cluster may keep what this member tells them of a principal, if it tells them
    /// of no change: 1 to [`CACHE_TTL_SECS_MAX`](countersign_core::limits::CACHE_TTL_SECS_MAX), else the nearer of
    /// these.
    pub cache_ttl_secs: u64,
    /// How long leases last, if this node makes the cluster: that long a member that hears nothing goes on serving
    /// clients, and a revocation waits for one that does not answer.
    pub lease: LeaseLength,
    /// What this node's leaf keys sign with, and the cluster's authority, if this node makes it.
    pub key: KeyAlgorithm,
    /// This node's certificate, where certificates are made elsewhere; none where the cluster issues them.
    pub files: Option<FilesMode>,
    /// The newest level that the member knows, for tests of rolling updates; what the build knows if none is given.
    #[doc(hidden)]
    pub level_for_testing: Option<u32>,
}

impl Settings {
    /// A member in this directory, reached at this address, with the default lifetimes.
    pub fn new(data: impl Into<PathBuf>, cluster_addr: SocketAddr) -> Self {
        Self {
            data: data.into(),
            name: None,
            cluster_addr,
            advertise: vec![],
            client_addr: Self::client_addr_beside(cluster_addr),
            client_advertise: None,
            client_limits: ClientLimits::default(),
            https_addr: None,
            https_files: None,
            https_names: vec![],
            node_ttl_secs: NODE_TTL_SECS,
            client_ttl_secs: CLIENT_TTL_SECS,
            cache_ttl_secs: CACHE_TTL_SECS,
            lease: LeaseLength::DEFAULT,
            key: KeyAlgorithm::default(),
            files: None,
            level_for_testing: None,
        }
    }

    /// The client port if none is named: on the host of the cluster port, two ports above it; any that is free if that
    /// is so for the cluster port. None if there is no such port.
    pub fn client_addr_beside(cluster_addr: SocketAddr) -> Option<SocketAddr> {
        let port = match cluster_addr.port() {
            0 => 0,
            port => port.checked_add(2)?,
        };
        Some(SocketAddr::new(cluster_addr.ip(), port))
    }

    /// The newest level that the member knows.
    pub(crate) fn level(&self) -> u32 {
        self.level_for_testing.unwrap_or(FEATURE_LEVEL)
    }
}

/// What one client may take on a client port. Each member has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// Connections of one principal, over TCP and QUIC together: 1 to [`ClientLimits::CONNECTIONS_MAX`].
    pub connections: usize,
    /// Requests of one principal under way, over all its connections: 1 to [`ClientLimits::REQUESTS_MAX`].
    pub requests: usize,
    /// Requests under way on one connection of HTTP/2: 1 to [`ClientLimits::STREAMS_MAX`].
    pub streams: u32,
    /// Bytes that one connection of HTTP/2 may have sent and the member not read:
    /// [`ClientLimits::UNREAD_BYTES_MIN`] to [`ClientLimits::UNREAD_BYTES_MAX`].
    pub unread_bytes: u32,
}

impl ClientLimits {
    /// All connections of principals that a member takes.
    pub const CONNECTIONS_MAX: usize = SERVICE_CONNECTIONS_MAX;
    /// A member with more under way for one client has no memory left for others.
    pub const REQUESTS_MAX: usize = 65_536;
    /// As [`ClientLimits::REQUESTS_MAX`], on one connection.
    pub const STREAMS_MAX: u32 = 4096;
    /// HTTP/2 cannot begin with less (RFC 9113 section 6.9.2).
    pub const UNREAD_BYTES_MIN: u32 = 65_535;
    /// 16 MiB.
    pub const UNREAD_BYTES_MAX: u32 = 16 * 1024 * 1024;
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_PER_PRINCIPAL_MAX,
            requests: REQUESTS_PER_PRINCIPAL_MAX,
            streams: CLIENT_STREAMS_MAX,
            unread_bytes: CLIENT_UNREAD_BYTES_MAX,
        }
    }
}

/// What of a founder's [`Settings`] is the whole cluster's, replicated since its bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// How long leases last.
    pub lease: LeaseLength,
    /// Seconds that certificates of nodes live.
    pub node_ttl_secs: u64,
}

/// A certificate made elsewhere: three PEM files, and the rules by which certificates become principals.
#[derive(Debug, Clone)]
pub struct FilesMode {
    /// This node's certificate, intermediates after it.
    pub cert: PathBuf,
    /// Its key, readable by its owner only.
    pub key: PathBuf,
    /// The one authority. A founder makes a cluster of it, without its key.
    pub ca: PathBuf,
    /// Who the holder of a certificate is. The same on all nodes.
    pub mapping: Rules,
}

/// Seconds that a node's certificate lives: a day. It is renewed between half and four fifths of its life.
pub const NODE_TTL_SECS: u64 = 86_400;
/// Seconds that a certificate of a client, broker or admin lives: ninety days.
pub const CLIENT_TTL_SECS: u64 = 90 * 86_400;
/// Seconds that guards outside the cluster may keep what they were told: five minutes, through which they know at once
/// what changes, as long as a member tells them.
pub const CACHE_TTL_SECS: u64 = 300;
/// Seconds that an authority lives: ten years.
pub const AUTHORITY_TTL_SECS: u64 = 3650 * 86_400;

/// The reusable token that a bootstrap makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterToken {
    /// How many nodes it admits.
    pub uses: u32,
    /// Seconds that it lives.
    pub ttl_secs: u64,
    /// What they become.
    pub suffrage: Suffrage,
}

impl Default for ClusterToken {
    /// 32 learners within 7 days.
    fn default() -> Self {
        Self { uses: 32, ttl_secs: 7 * 86_400, suffrage: Suffrage::Learner }
    }
}

/// A new cluster.
#[derive(Debug, Clone)]
pub struct NewCluster {
    /// Its name.
    pub name: Name,
    /// Its trust domain; derived from name and id if none is given.
    pub trust_domain: Option<TrustDomain>,
    /// The token for others to join by; none for a cluster of one.
    pub token: Option<ClusterToken>,
    /// An authority made elsewhere: certificate and key, PEM.
    pub authority: Option<ImportedAuthority>,
    /// The rules that it begins with, besides admins being super-users. Without any rule, no other principal may do
    /// anything.
    pub policy: PolicyChange,
}

impl NewCluster {
    /// A cluster of this name: an authority of its own, no token, no rule.
    pub fn new(name: Name) -> Self {
        Self { name, trust_domain: None, token: None, authority: None, policy: PolicyChange::default() }
    }
}

/// An authority made elsewhere.
#[derive(Clone)]
pub struct ImportedAuthority {
    /// The certificate, PEM.
    pub certificate: String,
    /// The key, PEM.
    pub key: std::sync::Arc<countersign_core::secret::SecretBytes>,
}

impl core::fmt::Debug for ImportedAuthority {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ImportedAuthority(…)")
    }
}

/// How a member comes to be, on a data directory that holds none yet; or back, on one whose store is lost.
#[derive(Debug)]
pub enum Start {
    /// Only if the directory holds a member.
    Existing,
    /// As the first member of a new cluster.
    Bootstrap(NewCluster),
    /// By a join token, through any member of the cluster.
    Join {
        /// The token.
        token: JoinToken,
        /// A member's cluster port.
        sponsor: Address,
    },
    /// Only if the directory holds a member: with a new store and as a learner, if the member's store is lost or other
    /// members refuse it. A member with a store that counts starts as it is.
    ReturnAsLearner {
        /// Cluster ports of members to ask, before those that the directory knows.
        hints: Vec<Address>,
    },
}
