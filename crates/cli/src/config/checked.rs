//! The configuration as the server uses it: every text parsed, every contradiction refused, before anything is opened.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use countersign::{
    CACHE_TTL_SECS, ClientLimits, ClusterToken, FilesMode, KeyAlgorithm, LeaseLength, RuleError, ServedName,
};
use countersign_core::authz::Requirement;
use countersign_core::authz::change::checked;
use countersign_core::authz::text::{PolicyTextError, parse_requirements};
use countersign_core::limits::{
    CACHE_TTL_SECS_MAX, LEASE_SECS_MAX, PRINCIPAL_TTL_SECS_MAX, TOKEN_TTL_SECS_MAX, TOKEN_USES_MAX,
};
use countersign_core::name::{Address, HostName, Name, NameError};
use countersign_core::principal::{PrincipalError, TrustDomain};
use countersign_core::trust::member::Suffrage;
use tracing_subscriber::EnvFilter;

use crate::config::layer::Layer;
use crate::config::schema::{CLUSTER_ADDR, LOG_DEFAULT, find};
use crate::config::sections;
use crate::config::unavailable::unavailable;
use crate::config::value::{Setting, Value, in_file};
use crate::duration::{parse_secs, rendered};
use crate::secret_arg::SecretArg;

/// Why a configuration makes no sense. Each names the text written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error("{written} is `{value}`: {reason}")]
    Name { written: String, value: String, reason: NameError },
    #[error("{written} is `{value}`: {reason}")]
    TrustDomain { written: String, value: String, reason: PrincipalError },
    #[error("{written} is `{value}`: expected HOST:PORT")]
    Listen { written: String, value: String },
    #[error("{written} is not a log filter")]
    Log { written: String },
    #[error("{given} is given without {missing}")]
    Missing { given: String, missing: String },
    #[error("{one} and {other} exclude each other")]
    Excluded { one: String, other: String },
    #[error("{written} is {value}: expected {bounds}")]
    Bounds { written: String, value: String, bounds: String },
    #[error("principal mapping: {0}")]
    Mapping(#[from] RuleError),
    #[error("{written}: {reason}")]
    Capabilities { written: String, reason: String },
}

impl CheckError {
    /// What to try next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Missing { given, missing } => format!("add {missing}, or take {given} away"),
            Self::Excluded { one, other } => format!("take {one} or {other} away"),
            Self::Capabilities { .. } => {
                r#"write ["Worker"] or ["Worker[gpu=true]"], with one expression at least"#.to_owned()
            }
            Self::Mapping(_) => r#"write uri, "dns:(.*)\\.example\\.org=node/$1" or "cn:(.*)=node/$1""#.to_owned(),
            Self::Name { .. }
            | Self::TrustDomain { .. }
            | Self::Listen { .. }
            | Self::Log { .. }
            | Self::Bounds { .. } => "correct it, and look at the result with `countersign server --check`".to_owned(),
        }
    }
}

/// The settings given, by key.
pub(crate) struct Settings(pub(crate) Layer);

impl Settings {
    pub(crate) fn find(&self, path: &str) -> Option<&Setting> {
        self.0.get(path)
    }

    /// The key as it was written, or as the file has it.
    pub(crate) fn written(&self, path: &str) -> String {
        match (self.find(path), find(path)) {
            (Some(setting), _) => setting.written(),
            (None, Some(key)) => key.flag.map_or_else(|| in_file(key), |flag| format!("`--{flag}`")),
            (None, None) => format!("`{path}`"),
        }
    }

    pub(crate) fn missing(&self, given: &str, missing: &[&str]) -> CheckError {
        let missing: Vec<String> = missing.iter().map(|path| self.written(path)).collect();
        CheckError::Missing { given: given.to_owned(), missing: missing.join(", ") }
    }

    pub(crate) fn excluded(&self, one: &str, other: &str) -> CheckError {
        CheckError::Excluded { one: self.written(one), other: self.written(other) }
    }

    pub(crate) fn flag(&self, path: &str) -> bool {
        matches!(self.find(path), Some(Setting { value: Value::Flag(true), .. }))
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        match self.find(path)? {
            Setting { value: Value::Text(text), .. } => Some(text),
            _ => None,
        }
    }

    pub(crate) fn path(&self, path: &str) -> Option<PathBuf> {
        match self.find(path)? {
            Setting { value: Value::Path(path), .. } => Some(path.clone()),
            _ => None,
        }
    }

    pub(crate) fn list(&self, path: &str) -> Vec<String> {
        match self.find(path) {
            Some(Setting { value: Value::List(list), .. }) => list.clone(),
            _ => Vec::new(),
        }
    }

    fn table(&self, path: &str) -> BTreeMap<String, Vec<String>> {
        match self.find(path) {
            Some(Setting { value: Value::Table(table), .. }) => table.clone(),
            _ => BTreeMap::new(),
        }
    }

    fn secs(&self, path: &str) -> Option<u64> {
        match self.find(path)? {
            Setting { value: Value::Secs(secs), .. } => Some(*secs),
            _ => None,
        }
    }

    fn number(&self, path: &str) -> Option<u64> {
        match self.find(path)? {
            Setting { value: Value::Number(number), .. } => Some(*number),
            _ => None,
        }
    }

    /// The setting's value lies outside of its bounds.
    fn outside(&self, path: &str, value: String, bounds: String) -> CheckError {
        CheckError::Bounds { written: self.written(path), value, bounds }
    }

    fn secret(&self, path: &str) -> Option<SecretArg> {
        match self.find(path)? {
            Setting { value: Value::Secret(secret), .. } => Some(secret.clone()),
            _ => None,
        }
    }

    fn name(&self, path: &str) -> Result<Option<Name>, CheckError> {
        let Some(text) = self.text(path) else { return Ok(None) };
        Name::parse(text).map(Some).map_err(|reason| self.name_error(path, text, reason))
    }

    fn address(&self, path: &str, text: &str) -> Result<Address, CheckError> {
        Address::parse(text).map_err(|reason| self.name_error(path, text, reason))
    }

    fn name_error(&self, path: &str, text: &str, reason: NameError) -> CheckError {
        CheckError::Name { written: self.written(path), value: text.to_owned(), reason }
    }

    fn listen(&self, path: &str, default: Option<&str>) -> Result<Option<ListenAddr>, CheckError> {
        let Some(text) = self.text(path).or(default) else { return Ok(None) };
        let wrong = || CheckError::Listen { written: self.written(path), value: text.to_owned() };
        ListenAddr::parse(text).map(Some).ok_or_else(wrong)
    }
}

/// Where the client port is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClientAddr {
    /// Beside the cluster port.
    Default,
    /// Nowhere.
    Off,
    /// There.
    At(ListenAddr),
}

fn client_addr(settings: &Settings) -> Result<ClientAddr, CheckError> {
    if settings.text("client_addr") == Some("none") {
        return Ok(ClientAddr::Off);
    }
    Ok(settings.listen("client_addr", None)?.map_or(ClientAddr::Default, ClientAddr::At))
}

/// Where to listen: an address, or a name of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListenAddr {
    Socket(SocketAddr),
    Named(HostName, u16),
}

impl ListenAddr {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Socket(address));
        }
        let (host, port) = text.rsplit_once(':')?;
        Some(Self::Named(HostName::parse(host).ok()?, port.parse().ok()?))
    }

    /// The address; a name is looked up.
    pub(crate) fn resolve(&self) -> std::io::Result<SocketAddr> {
        match self {
            Self::Socket(address) => Ok(*address),
            Self::Named(host, port) => {
                let mut found = (host.as_str(), *port).to_socket_addrs()?;
                found.next().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))
            }
        }
    }
}

impl std::fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Named(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// What to do on an empty data directory.
#[derive(Debug, Clone)]
pub(crate) enum Mode {
    /// Nothing was said: one member, on loopback only.
    Alone,
    /// A new cluster, that others can join.
    Bootstrap,
    /// Joining one.
    Join { token: SecretArg, sponsor: Address },
    /// Coming back with a new store, where the directory holds a member.
    Return { hint: Option<Address> },
}

/// The configuration of a server.
#[derive(Debug)]
pub(crate) struct ServerConfig {
    pub(crate) data: PathBuf,
    pub(crate) log: String,
    pub(crate) name: Option<Name>,
    pub(crate) mode: Mode,
    pub(crate) authority: Option<PathBuf>,
    pub(crate) cluster_name: Option<Name>,
    pub(crate) trust_domain: Option<TrustDomain>,
    pub(crate) cluster_addr: ListenAddr,
    pub(crate) advertise: Vec<Address>,
    pub(crate) client_addr: ClientAddr,
    pub(crate) client_advertise: Option<Address>,
    pub(crate) client_limits: ClientLimits,
    pub(crate) https_addr: Option<ListenAddr>,
    pub(crate) https_files: Option<(PathBuf, PathBuf)>,
    pub(crate) https_names: Vec<ServedName>,
    /// Seconds that certificates of nodes live, if this makes the cluster.
    pub(crate) node_ttl_secs: u64,
    /// What keys of this node's certificates sign with, and the authority's, if this makes the cluster.
    pub(crate) key: KeyAlgorithm,
    /// How long leases last, if this makes the cluster.
    pub(crate) lease: LeaseLength,
    /// Seconds that certificates of clients live that are asked for here without a word about it.
    pub(crate) client_ttl_secs: u64,
    /// Seconds that guards outside the cluster may keep what this member tells them of a principal.
    pub(crate) cache_ttl_secs: u64,
    /// The configured values that the whole cluster shares, to be compared with the cluster's.
    pub(crate) said: Said,
    /// The reusable token of a bootstrap.
    pub(crate) cluster_token: ClusterToken,
    /// This node's certificate, if it is made elsewhere.
    pub(crate) files: Option<FilesMode>,
    /// What tasks require, if this makes the cluster.
    pub(crate) requirements: Vec<Requirement>,
    /// The settings of absent features, as they were written.
    pub(crate) unavailable: Vec<String>,
}

/// The configured values that are the cluster's since its bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) lease: Option<LeaseLength>,
    pub(crate) node_ttl_secs: Option<u64>,
}

impl ServerConfig {
    /// Judges the settings given.
    pub(crate) fn check(settings: &Settings) -> Result<Self, CheckError> {
        let files = sections::check(settings)?;
        let https_addr = settings.listen("https_addr", None)?;
        let trust_domain = match settings.text("trust_domain") {
            None => None,
            Some(text) => Some(TrustDomain::parse(text).map_err(|reason| CheckError::TrustDomain {
                written: settings.written("trust_domain"),
                value: text.to_owned(),
                reason,
            })?),
        };
        let log = settings.text("log").unwrap_or(LOG_DEFAULT).to_owned();
        EnvFilter::try_new(&log).map_err(|_| CheckError::Log { written: settings.written("log") })?;
        let cluster_addr = settings.listen("cluster_addr", Some(CLUSTER_ADDR))?;
        let advertise = settings.list("advertise_addr");
        let advertise = advertise.iter().map(|text| settings.address("advertise_addr", text));
        Ok(Self {
            data: settings.path("data").unwrap_or_else(default_data),
            log,
            name: settings.name("name")?,
            mode: mode(settings)?,
            authority: settings.path("ca"),
            cluster_name: settings.name("cluster_name")?,
            trust_domain,
            cluster_addr: cluster_addr.unwrap_or(ListenAddr::Socket(SocketAddr::from(([127, 0, 0, 1], 7100)))),
            advertise: advertise.collect::<Result<_, _>>()?,
            https_files: https_files(settings, https_addr.is_some())?,
            https_addr,
            client_addr: client_addr(settings)?,
            client_advertise: client_advertise(settings)?,
            client_limits: client_limits(settings)?,
            https_names: https_names(settings)?,
            cluster_token: cluster_token(settings)?,
            node_ttl_secs: settings.secs(NODE_TTL).unwrap_or_else(|| default_secs(NODE_TTL)),
            // One of the words that the schema allows, if any.
            key: settings.text("pki.key").and_then(KeyAlgorithm::parse).unwrap_or_default(),
            lease: lease(settings)?.unwrap_or(LeaseLength::DEFAULT),
            client_ttl_secs: client_ttl(settings)?,
            cache_ttl_secs: cache_ttl(settings)?,
            said: Said { lease: lease(settings)?, node_ttl_secs: settings.secs(NODE_TTL) },
            files,
            requirements: requirements(settings)?,
            unavailable: unavailable(settings),
        })
    }
}

const NODE_TTL: &str = "pki.node_ttl";

/// The bounds are those of the cluster: said before anything is made.
fn lease(settings: &Settings) -> Result<Option<LeaseLength>, CheckError> {
    const LEASE: &str = "trust.lease_secs";
    let Some(secs) = settings.number(LEASE) else { return Ok(None) };
    let outside = |_| settings.outside(LEASE, secs.to_string(), format!("1 to {LEASE_SECS_MAX}"));
    LeaseLength::from_secs(secs).map(Some).map_err(outside)
}

fn client_advertise(settings: &Settings) -> Result<Option<Address>, CheckError> {
    const PATH: &str = "client_advertise";
    settings.text(PATH).map(|text| settings.address(PATH, text)).transpose()
}

/// The names by which a proxy asks the HTTPS port.
fn https_names(settings: &Settings) -> Result<Vec<ServedName>, CheckError> {
    const PATH: &str = "https.names";
    let expected = || "HOST or HOST:PORT, such as console.example:443".to_owned();
    let names = settings.list(PATH);
    let read = |text: &String| text.parse().map_err(|_| settings.outside(PATH, text.clone(), expected()));
    names.iter().map(read).collect()
}

/// What one client may take of this member.
fn client_limits(settings: &Settings) -> Result<ClientLimits, CheckError> {
    let default = ClientLimits::default();
    let bounded = |path: &str, default: u64, min: u64, max: u64| match settings.number(path).unwrap_or(default) {
        number if (min..=max).contains(&number) => Ok(number),
        number => Err(settings.outside(path, number.to_string(), format!("{min} to {max}"))),
    };
    let count = |path, default: usize, max: usize| {
        bounded(path, default as u64, 1, max as u64).map(|number| usize::try_from(number).unwrap_or(max))
    };
    let word = |path, default: u32, min: u32, max: u32| {
        bounded(path, default.into(), min.into(), max.into()).map(|number| u32::try_from(number).unwrap_or(max))
    };
    let connections = count("limits.connections_per_client", default.connections, ClientLimits::CONNECTIONS_MAX)?;
    let requests = count("limits.requests_per_client", default.requests, ClientLimits::REQUESTS_MAX)?;
    let streams = word("limits.streams_per_connection", default.streams, 1, ClientLimits::STREAMS_MAX)?;
    let (least, most) = (ClientLimits::UNREAD_BYTES_MIN, ClientLimits::UNREAD_BYTES_MAX);
    let unread_bytes = word("limits.unread_bytes_per_connection", default.unread_bytes, least, most)?;
    Ok(ClientLimits { connections, requests, streams, unread_bytes })
}

/// A member itself keeps nothing: it has the rules.
fn cache_ttl(settings: &Settings) -> Result<u64, CheckError> {
    const TTL: &str = "acl.cache_ttl_secs";
    match settings.number(TTL).unwrap_or(CACHE_TTL_SECS) {
        secs if (1..=CACHE_TTL_SECS_MAX).contains(&secs) => Ok(secs),
        secs => Err(settings.outside(TTL, secs.to_string(), format!("1 to {CACHE_TTL_SECS_MAX}"))),
    }
}

fn requirements(settings: &Settings) -> Result<Vec<Requirement>, CheckError> {
    const CAPABILITIES: &str = "cluster.authentication.required_capabilities";
    let read = parse_requirements(&settings.table(CAPABILITIES)).and_then(|requirements| {
        checked(&requirements)?;
        Ok(requirements)
    });
    read.map_err(|error: PolicyTextError| {
        let (written, reason) = (settings.written(CAPABILITIES), error.to_string());
        // The key is named as it was written, and once.
        let reason = reason.strip_prefix("required_capabilities: ").unwrap_or(&reason).to_owned();
        CheckError::Capabilities { written, reason }
    })
}

fn client_ttl(settings: &Settings) -> Result<u64, CheckError> {
    const TTL: &str = "pki.client_ttl";
    let secs = settings.secs(TTL).unwrap_or_else(|| default_secs(TTL));
    if secs > PRINCIPAL_TTL_SECS_MAX {
        return Err(settings.outside(TTL, rendered(secs), format!("at most {} seconds", PRINCIPAL_TTL_SECS_MAX)));
    }
    Ok(secs)
}

fn default_secs(path: &str) -> u64 {
    find(path).and_then(|key| key.default).and_then(|text| parse_secs(text).ok()).unwrap_or_default()
}

fn mode(settings: &Settings) -> Result<Mode, CheckError> {
    let bootstrap = settings.flag("bootstrap");
    let replicas = settings.flag("cluster.auth.enabled");
    let token = settings.secret("join_token");
    let sponsor = settings.text("join_addr").map(|text| settings.address("join_addr", text)).transpose()?;
    for join in ["join_token", "join_addr"] {
        if bootstrap && settings.find(join).is_some() {
            return Err(settings.excluded("bootstrap", join));
        }
    }
    if settings.flag("return_as_learner") {
        for other in ["bootstrap", "join_token"] {
            if settings.find(other).is_some() {
                return Err(settings.excluded("return_as_learner", other));
            }
        }
        return Ok(Mode::Return { hint: sponsor });
    }
    if !bootstrap && settings.find("ca").is_some() {
        return Err(settings.missing(&settings.written("ca"), &["bootstrap"]));
    }
    match (token, sponsor) {
        (Some(token), Some(sponsor)) => Ok(Mode::Join { token, sponsor }),
        (Some(_), None) => Err(settings.missing(&settings.written("join_token"), &["join_addr"])),
        (None, Some(_)) if !replicas => Err(settings.missing(&settings.written("join_addr"), &["join_token"])),
        _ if bootstrap => Ok(Mode::Bootstrap),
        _ => Ok(Mode::Alone),
    }
}

/// The bounds are those that the cluster would refuse the token by: said before anything is made.
fn cluster_token(settings: &Settings) -> Result<ClusterToken, CheckError> {
    const USES: &str = "cluster.token.uses";
    const TTL: &str = "cluster.token.ttl";
    let unset = ClusterToken::default();
    let uses = settings.number(USES).unwrap_or_else(|| unset.uses.into());
    let uses = u32::try_from(uses).ok().filter(|uses| (1..=TOKEN_USES_MAX).contains(uses));
    let uses = uses.ok_or_else(|| {
        settings.outside(USES, settings.number(USES).unwrap_or_default().to_string(), format!("1 to {TOKEN_USES_MAX}"))
    })?;
    let ttl_secs = settings.secs(TTL).unwrap_or(unset.ttl_secs);
    if ttl_secs > TOKEN_TTL_SECS_MAX {
        return Err(settings.outside(TTL, rendered(ttl_secs), format!("at most {}", rendered(TOKEN_TTL_SECS_MAX))));
    }
    let suffrage = match settings.text("cluster.token.role") {
        Some("voter") => Suffrage::Voter,
        _ => unset.suffrage,
    };
    Ok(ClusterToken { uses, ttl_secs, suffrage })
}

fn https_files(settings: &Settings, served: bool) -> Result<Option<(PathBuf, PathBuf)>, CheckError> {
    for path in ["https_cert", "https_key", "https_behind_proxy"] {
        if let Some(setting) = settings.find(path).filter(|_| !served) {
            return Err(settings.missing(&setting.written(), &["https_addr"]));
        }
    }
    match (settings.path("https_cert"), settings.path("https_key")) {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (Some(_), None) => Err(settings.missing(&settings.written("https_cert"), &["https_key"])),
        (None, Some(_)) => Err(settings.missing(&settings.written("https_key"), &["https_cert"])),
        (None, None) => Ok(None),
    }
}

/// `/var/lib/countersign` for root, else `countersign` in the user's state directory (XDG Base Directory §2).
pub(crate) fn default_data() -> PathBuf {
    let root = || PathBuf::from("/var/lib/countersign");
    if rustix::process::geteuid().is_root() {
        return root();
    }
    let absolute = |path: &PathBuf| path.is_absolute();
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(absolute);
    let state = state.or_else(|| std::env::home_dir().map(|home| home.join(".local/state")));
    state.map_or_else(root, |state| state.join("countersign"))
}
