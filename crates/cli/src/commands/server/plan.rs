//! What a start will do, from the configuration and from what the data directory holds. Opens no socket, changes
//! nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use countersign::datadir::{MemberFile, file, read_optional};
use countersign::{ClusterToken, ImportedAuthority, Lifetimes, NewCluster, Settings, Start};
use countersign_core::authz::change::PolicyChange;
use countersign_core::authz::text::RuleText;
use countersign_core::authz::{Requirement, Rule};
use countersign_core::name::{Address, Name};
use countersign_core::secret::SecretBytes;
use countersign_core::trust::join_token::JoinToken;

use crate::config::checked::{ClientAddr, ListenAddr, Mode, Said, ServerConfig};
use crate::config::clients::clients_shut_out;
use crate::duration::rendered;
use crate::failure::{Failure, chain};
use crate::files::{exposed, read_private, read_text};
use crate::secret_arg::{SecretArg, SecretError};

/// The name of a cluster that was given none.
const CLUSTER_NAME: &str = "countersign";

/// What to start, and what to tell about it.
pub(super) struct Plan {
    pub(super) settings: Settings,
    pub(super) start: Start,
    pub(super) notes: Vec<String>,
    pub(super) said: Said,
    /// The requirements of tasks that the configuration names.
    pub(super) requirements: Vec<Requirement>,
}

/// Decides how to start.
pub(super) fn plan(config: &ServerConfig) -> Result<Plan, Failure> {
    let cluster_addr = resolve(&config.cluster_addr, "--cluster-addr")?;
    let settings = Settings {
        client_addr: match &config.client_addr {
            ClientAddr::Default => Settings::client_addr_beside(cluster_addr),
            ClientAddr::Off => None,
            ClientAddr::At(address) => Some(resolve(address, "--client-addr")?),
        },
        client_advertise: config.client_advertise.clone(),
        client_limits: config.client_limits,
        https_names: config.https_names.clone(),
        name: config.name.clone(),
        advertise: config.advertise.clone(),
        https_addr: config.https_addr.as_ref().map(|address| resolve(address, "--https-addr")).transpose()?,
        https_files: config.https_files.clone(),
        node_ttl_secs: config.node_ttl_secs,
        lease: config.lease,
        key: config.key,
        client_ttl_secs: config.client_ttl_secs,
        cache_ttl_secs: config.cache_ttl_secs,
        files: config.files.clone(),
        ..Settings::new(&config.data, cluster_addr)
    };
    let (said, requirements) = (config.said, config.requirements.clone());
    if let Some(member) = stored_member(&config.data)? {
        let mut notes = ignored(config, &member)?;
        notes.extend(clients_shut_out(config));
        let start = match &config.mode {
            Mode::Return { hint } => Start::ReturnAsLearner { hints: hint.iter().cloned().collect() },
            Mode::Alone | Mode::Bootstrap | Mode::Join { .. } => Start::Existing,
        };
        return Ok(Plan { settings, start, notes, said, requirements });
    }
    let mut notes = clients_shut_out(config);
    let start = match &config.mode {
        Mode::Alone => {
            check_alone(config, &settings)?;
            notes.push("no flag says how to start: one member on loopback, which no node can join".to_owned());
            Start::Bootstrap(new_cluster(config, None)?)
        }
        Mode::Bootstrap => Start::Bootstrap(new_cluster(config, Some(config.cluster_token))?),
        Mode::Join { token, sponsor } => {
            let token = join_token(token)?;
            check_reachable(&settings, sponsor)?;
            Start::Join { token, sponsor: sponsor.clone() }
        }
        Mode::Return { .. } => {
            return Err(Failure::usage(
                format!("data directory `{}` holds no member that could return", config.data.display()),
                "give the member's own directory with --data",
            ));
        }
    };
    Ok(Plan { settings, start, notes, said, requirements })
}

fn resolve(address: &ListenAddr, flag: &str) -> Result<std::net::SocketAddr, Failure> {
    address.resolve().map_err(|error| {
        let reason = format!("`{flag} {address}` is not an address of this host: {}", chain(&error));
        Failure::usage(reason, format!("give {flag} an IP address of this host"))
    })
}

fn stored_member(data: &Path) -> Result<Option<MemberFile>, Failure> {
    let path = data.join(file::MEMBER);
    let bytes = read_optional(&path).map_err(|error| {
        Failure::unreachable(chain(&error), "run this as the user of the data directory, or choose another with --data")
    })?;
    // A damaged one is told by the library, which reads it again under the directory's lock.
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// The settings that do not apply to a directory that holds a member. Another cluster's name is a mistaken directory.
fn ignored(config: &ServerConfig, member: &MemberFile) -> Result<Vec<String>, Failure> {
    if let Some(asked) = config.cluster_name.as_ref().filter(|asked| **asked != member.cluster_name) {
        return Err(Failure::usage(
            format!(
                "data directory `{}` belongs to cluster `{}`, asked was `{asked}`",
                config.data.display(),
                member.cluster_name
            ),
            "choose another directory with --data, or leave --cluster-name out",
        ));
    }
    let holds = format!("data directory holds node `{}` of cluster `{}`", member.name, member.cluster_name);
    let mut notes = Vec::new();
    match config.mode {
        Mode::Alone | Mode::Return { .. } => {}
        Mode::Bootstrap => notes.push(format!("{holds}: --bootstrap is ignored")),
        Mode::Join { .. } => notes.push(format!("{holds}: --join-token and --join-addr are ignored")),
    }
    if config.name.as_ref().is_some_and(|asked| *asked != member.name) {
        notes.push(format!("{holds}: --name is ignored"));
    }
    Ok(notes)
}

/// The settings that the whole cluster shares, where this cluster has other values: they count at the bootstrap alone.
pub(super) fn differing(said: Said, lifetimes: Lifetimes) -> Option<String> {
    let Lifetimes { lease, node_ttl_secs } = lifetimes;
    let asked = said.lease.filter(|asked| *asked != lease);
    let lease = asked.map(|asked| ("[trust] lease_secs", asked.millis() / 1000, lease.millis() / 1000));
    let asked = said.node_ttl_secs.filter(|asked| *asked != node_ttl_secs);
    let ttl = asked.map(|asked| ("[pki] node_ttl", asked, node_ttl_secs));
    let differing = lease.into_iter().chain(ttl).map(|(key, asked, here)| {
        format!("`{key}` is {} here and {} in this cluster", rendered(asked), rendered(here))
    });
    let differing: Vec<String> = differing.collect();
    (!differing.is_empty())
        .then(|| format!("{}: it counts at the bootstrap only, and is ignored", differing.join(", ")))
}

/// The same of what tasks require, which rules are changed with.
pub(super) fn differing_requirements(said: &[Requirement], here: &BTreeMap<String, Requirement>) -> Option<String> {
    let same = said.iter().eq(here.values());
    (!said.is_empty() && !same).then(|| {
        "`[cluster.authentication] required_capabilities` is otherwise in this cluster: it counts at the bootstrap \
         only, and is ignored; `countersign acl apply` changes it"
            .to_owned()
    })
}

/// Without a word about how to start, nothing is offered to the network.
fn check_alone(config: &ServerConfig, settings: &Settings) -> Result<(), Failure> {
    let next = "add --bootstrap to make a cluster, or --join-token and --join-addr to join one";
    if !settings.cluster_addr.ip().to_canonical().is_loopback() {
        let reason = format!("`--cluster-addr {}` is not loopback, and nothing says how to start", config.cluster_addr);
        return Err(Failure::usage(reason, next));
    }
    match settings.advertise.iter().find(|address| !address.host.is_loopback()) {
        Some(address) => {
            let reason = format!("`--advertise-addr {address}` is not loopback, and nothing says how to start");
            Err(Failure::usage(reason, next))
        }
        None => Ok(()),
    }
}

/// A member of a cluster on other hosts must be reached by them.
fn check_reachable(settings: &Settings, sponsor: &Address) -> Result<(), Failure> {
    let loopback = settings.cluster_addr.ip().to_canonical().is_loopback();
    if loopback && settings.advertise.is_empty() && !sponsor.host.is_loopback() {
        let reason =
            format!("`{sponsor}` is on another host, which cannot reach this one at `{}`", settings.cluster_addr);
        return Err(Failure::usage(
            reason,
            "give --cluster-addr an address that other hosts reach, such as 0.0.0.0:7100",
        ));
    }
    Ok(())
}

fn new_cluster(config: &ServerConfig, token: Option<ClusterToken>) -> Result<NewCluster, Failure> {
    let name = match &config.cluster_name {
        Some(name) => name.clone(),
        None => {
            Name::parse(CLUSTER_NAME).map_err(|error| Failure::usage(error, "give the cluster a --cluster-name"))?
        }
    };
    let authority = config.authority.as_deref().map(imported).transpose()?;
    let policy = PolicyChange {
        put: vec![whoami()?],
        requirements: (!config.requirements.is_empty()).then(|| config.requirements.clone()),
        ..PolicyChange::default()
    };
    Ok(NewCluster { name, trust_domain: config.trust_domain.clone(), token, authority, policy })
}

/// The one service that this binary serves is everybody's: it tells callers who they are.
fn whoami() -> Result<Rule, Failure> {
    let text = RuleText {
        id: Some("whoami".to_owned()),
        principal: "*".to_owned(),
        actions: vec!["write".to_owned()],
        resource: Some("service:countersign.v1.Whoami/Whoami".to_owned()),
        ..RuleText::default()
    };
    text.rule().map_err(|error| Failure::unreachable(error, "report this as a bug"))
}

fn imported(directory: &Path) -> Result<ImportedAuthority, Failure> {
    let next = "check --ca: the directory holds ca.pem and ca.key, as `countersign security ca create` makes them";
    let certificate = read_text(&directory.join("ca.pem"), next)?;
    let key = read_private(&directory.join("ca.key"), next)?;
    Ok(ImportedAuthority { certificate, key: Arc::new(SecretBytes::new(key.as_bytes().to_vec())) })
}

/// A mistyped token is caught here, before any network.
fn join_token(arg: &SecretArg) -> Result<JoinToken, Failure> {
    let next = "copy the whole token again; `countersign token create` on a voter makes a new one";
    let secret = arg.read().map_err(|error| {
        let next = match &error {
            SecretError::NotPrivate(error) => exposed(error, next),
            SecretError::Io { .. } | SecretError::Empty { .. } | SecretError::TooLong { .. } => next.to_owned(),
        };
        Failure::usage(format!("join token: {}", chain(&error)), next)
    })?;
    let text = std::str::from_utf8(secret.expose());
    let text = text.map_err(|_| Failure::usage("join token is not text", next))?;
    JoinToken::parse(text).map_err(|error| Failure::usage(error, next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use countersign::LeaseLength;

    #[test]
    fn what_tasks_require_is_noted_where_the_cluster_has_it_otherwise_and_not_where_nothing_was_said() {
        let requirement = |task: &str| Requirement { task: task.to_owned(), any_of: vec!["Worker".parse().unwrap()] };
        let here = |tasks: &[&str]| tasks.iter().map(|task| ((*task).to_owned(), requirement(task))).collect();
        let noted = |said: &[&str], tasks: &[&str]| {
            let said: Vec<_> = said.iter().map(|task| requirement(task)).collect();
            differing_requirements(&said, &here(tasks)).is_some()
        };
        assert!(!noted(&[], &[]) && !noted(&[], &["a"]) && !noted(&["a", "b"], &["a", "b"]));
        assert!(noted(&["a"], &[]) && noted(&["a"], &["b"]) && noted(&["a"], &["a", "b"]));
    }

    #[test]
    fn what_was_said_otherwise_is_one_line_and_what_was_not_said_is_none() {
        let here = Lifetimes { lease: LeaseLength::DEFAULT, node_ttl_secs: 86_400 };
        let minute = LeaseLength::from_secs(60).unwrap();
        let differing = |lease, node_ttl_secs| differing(Said { lease, node_ttl_secs }, here);
        assert_eq!(differing(None, None), None);
        assert_eq!(differing(Some(LeaseLength::DEFAULT), Some(86_400)), None);
        assert_eq!(
            differing(Some(minute), Some(3600)).unwrap(),
            "`[trust] lease_secs` is 1m here and 10s in this cluster, `[pki] node_ttl` is 1h here and 1d in this \
             cluster: it counts at the bootstrap only, and is ignored"
        );
        assert!(!differing(None, Some(5)).unwrap().contains("lease"));
    }
}
