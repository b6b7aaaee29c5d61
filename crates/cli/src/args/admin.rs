//! Commands that ask a member: where to find one, and what to ask.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use countersign_core::name::{Address, Host};
use countersign_core::trust::member::Suffrage;
use countersign_pki::key::KeyAlgorithm;

use crate::args::key_kinds;
use crate::duration::parse_secs;

/// Which member to ask: the one on this host by its socket, or any by its HTTPS port.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which member")]
pub(crate) struct Target {
    /// The data directory of the member on this host [default: as for `countersign server`]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The HTTPS port of any member
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
    /// With --server: the certificate of an admin, PEM
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
    /// With --server: its private key, PEM
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) identity_key: Option<PathBuf>,
    /// With --server: the authority that the server's certificate must chain to, PEM
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// With --server: write these into the context file, for the commands to come
    #[arg(long, global = true)]
    pub(crate) remember: bool,
}

/// `countersign status`
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `countersign explain`
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The failure id: 16 hexadecimal digits, printed on both ends
    #[arg(value_name = "FAILURE-ID", required_unless_present = "source")]
    pub(crate) failure_id: Option<String>,
    /// Lists what this address was refused for instead, such as 192.0.2.7: a TLS library that is refused knows no id
    #[arg(long, value_name = "ADDRESS", conflicts_with = "failure_id", value_parser = source)]
    pub(crate) source: Option<String>,
    /// How long ago at most, with --source
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = parse_secs, requires = "source")]
    pub(crate) since: u64,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// An IP address, or one with a port.
fn source(text: &str) -> Result<String, String> {
    let is_one = text.parse::<std::net::IpAddr>().is_ok() || text.parse::<std::net::SocketAddr>().is_ok();
    if is_one {
        Ok(text.to_owned())
    } else {
        Err("give an IP address, such as 192.0.2.7 or 192.0.2.7:50000".to_owned())
    }
}

/// `countersign token`
#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: TokenVerb,
}

/// What to do with join tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make a join token and show it, this once
    Create(TokenCreateArgs),
    /// List the join tokens
    List,
    /// End a join token
    Revoke {
        /// Its id, as `token list` shows it
        id: String,
    },
    /// Replace the cluster's reusable token and show the new one, this once
    Rotate,
}

/// `countersign token create`
#[derive(Debug, Args)]
pub(crate) struct TokenCreateArgs {
    /// The role of a joiner
    #[arg(long, value_enum, default_value_t = RoleArg::Voter)]
    pub(crate) role: RoleArg,
    /// A label that a joiner gets, such as role=Worker; can be repeated
    #[arg(long = "label", value_name = "K=V", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// How long it lives
    #[arg(long, value_name = "SPAN", default_value = "30m", value_parser = parse_secs)]
    pub(crate) ttl: u64,
    /// How many may join by it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uses: u32,
    /// The only node name that it admits
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<countersign_core::name::Name>,
    /// A name or IP address that a joiner's certificate may hold, if the joiner advertises it; can be repeated
    #[arg(long = "host", value_name = "HOST", value_parser = Host::parse)]
    pub(crate) hosts: Vec<Host>,
}

/// The role of a member.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleArg {
    Voter,
    Learner,
}

impl From<RoleArg> for Suffrage {
    fn from(arg: RoleArg) -> Self {
        match arg {
            RoleArg::Voter => Self::Voter,
            RoleArg::Learner => Self::Learner,
        }
    }
}

fn label(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected K=V")?;
    if name.is_empty() { Err("expected K=V") } else { Ok((name.to_owned(), value.to_owned())) }
}

/// `countersign node`
#[derive(Debug, Args)]
pub(crate) struct Node {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: NodeVerb,
}

/// What to do with members.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// List the members
    List,
    /// Make a learner a voter
    Promote {
        /// Its name or number
        #[arg(value_name = "N")]
        node: String,
    },
    /// Make a voter a learner
    Demote {
        /// Its name or number
        #[arg(value_name = "N")]
        node: String,
        /// Keep the authority although a voter that could sign leaves: its machine was wiped
        #[arg(long)]
        keep_authority: bool,
    },
    /// Remove a member, refuse its credential everywhere, and wait until every member says so
    Evict {
        /// Its name or number
        #[arg(value_name = "N")]
        node: String,
        /// Its keys are in wrong hands: every join token ends too
        #[arg(long)]
        compromised: bool,
        /// Keep the authority although a voter that could sign leaves: its machine was wiped
        #[arg(long)]
        keep_authority: bool,
    },
    /// Change the labels of a member, or of a client, broker or admin
    Label {
        /// A node's name or number, or client/NAME, broker/HOST or admin/NAME
        #[arg(value_name = "N")]
        principal: String,
        /// role=Worker, gpu=true; zone- takes zone away
        #[arg(value_name = "EDIT", required = true)]
        edits: Vec<String>,
        /// Return once every member decides by it, or serves no client
        #[arg(long)]
        wait: bool,
    },
    /// Add a name or IP address to what certificates of a member hold, or take it away
    Hosts {
        /// Its name or number
        #[arg(value_name = "N")]
        node: String,
        /// What to do
        #[arg(value_enum, value_name = "EDIT")]
        edit: HostEdit,
        /// The name or IP address, without a port
        #[arg(value_name = "NAME", value_parser = Host::parse)]
        host: Host,
    },
    /// Have the member on this host refuse another by itself, where a leader does not let the cluster evict it
    Quarantine {
        /// Its name or number
        #[arg(value_name = "N")]
        node: String,
        /// Let it in again
        #[arg(long)]
        lift: bool,
    },
}

/// What to do with a host of a member.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum HostEdit {
    Add,
    Remove,
}

/// `countersign cluster`
#[derive(Debug, Args)]
pub(crate) struct Cluster {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: ClusterVerb,
}

/// What to do with settings of the whole cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterVerb {
    /// Show the settings of the whole cluster
    Show,
    /// Change a setting of the whole cluster
    Set {
        /// client_names=a.example,b.example: names that the certificates of all members hold;
        /// level_auto=true|false: whether the level rises by itself
        #[arg(value_name = "KEY=VALUE")]
        setting: String,
    },
    /// Show the level of the cluster, which says what its members may use, or raise it
    Level {
        /// Raise it to the newest that all members know, at once
        #[arg(long)]
        raise: bool,
        /// Do not wait for this learner, which is off or behind (repeat it for more)
        #[arg(long, value_name = "NODE", requires = "raise")]
        without: Vec<String>,
    },
}

/// `countersign cert`
#[derive(Debug, Args)]
pub(crate) struct Cert {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: CertVerb,
}

/// What to do with certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum CertVerb {
    /// Make a key here and have the cluster issue its certificate
    Issue(CertIssue),
    /// Renew a certificate with a new key at a client port, and replace its files together, if half of its life is over
    Renew(CertRenew),
    /// List the issued certificates
    List,
    /// Refuse a key, or all keys of a principal, everywhere, and wait until every member says so
    Revoke {
        /// A key's SHA-256, as `cert list` shows it, or client/NAME, broker/HOST or admin/NAME
        #[arg(value_name = "KEY|PRINCIPAL")]
        what: String,
    },
}

/// `countersign cert issue`
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("principal").required(true).args(["client", "broker", "admin"])))]
pub(crate) struct CertIssue {
    /// For a client of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) client: Option<String>,
    /// For a broker on this host
    #[arg(long, value_name = "HOST")]
    pub(crate) broker: Option<String>,
    /// For an admin of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) admin: Option<String>,
    /// How long it lives [default: `[pki] client_ttl` of the member that is asked, 90d]
    #[arg(long, value_name = "SPAN", value_parser = parse_secs)]
    pub(crate) ttl: Option<u64>,
    /// What its key signs with
    #[arg(long, value_name = "KIND", default_value = "p256", value_parser = key_kinds())]
    pub(crate) key: KeyAlgorithm,
    /// Where to write NAME.pem, NAME.key and ca.pem
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// Replace existing files
    #[arg(long)]
    pub(crate) force: bool,
}

/// `countersign cert renew`
#[derive(Debug, Args)]
pub(crate) struct CertRenew {
    /// The directory of NAME.pem, NAME.key and ca.pem, as `cert issue --out DIR` leaves it; or name them with
    /// --identity, --key and --ca
    #[arg(value_name = "DIR", conflicts_with = "bundle")]
    pub(crate) dir: Option<PathBuf>,
    /// Instead of DIR: one PEM file with the certificate, the authority's and the key
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,
    /// Which certificate, if DIR holds several
    #[arg(long, value_name = "NAME", conflicts_with = "bundle")]
    pub(crate) name: Option<String>,
    /// With --identity: the key, DIR/NAME.key
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// The client port of a member or of a remote guard; can be repeated, the next one is asked where one is not
    /// reached. --server names one, too
    #[arg(long = "member", value_name = "HOST:PORT", value_parser = Address::parse)]
    pub(crate) members: Vec<Address>,
    /// Renew although half of its life is not over
    #[arg(long)]
    pub(crate) force: bool,
    /// After a renewal, run this program without a shell, 30 seconds at most; takes the rest of the line
    #[arg(long, value_name = "CMD", num_args = 1.., allow_hyphen_values = true)]
    pub(crate) then: Vec<std::ffi::OsString>,
}
