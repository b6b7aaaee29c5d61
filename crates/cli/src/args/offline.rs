//! Commands that need no member: authorities and certificates on files, evaluation, completions.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use countersign_core::name::{HostName, Name};
use countersign_core::principal::TrustDomain;
use countersign_pki::key::KeyAlgorithm;

use crate::args::key_kinds;
use crate::duration::parse_secs;

/// `countersign security`
#[derive(Debug, Args)]
pub(crate) struct Security {
    #[command(subcommand)]
    pub(crate) verb: SecurityVerb,
}

/// What to make.
#[derive(Debug, Subcommand)]
pub(crate) enum SecurityVerb {
    /// Make an authority
    Ca {
        #[command(subcommand)]
        verb: CaVerb,
    },
    /// Make certificates of an authority
    Certs {
        #[command(subcommand)]
        verb: CertsVerb,
    },
}

/// What to do about authorities.
#[derive(Debug, Subcommand)]
pub(crate) enum CaVerb {
    /// Make an authority: ca.pem and ca.key
    Create(CaCreate),
}

/// `countersign security ca create`
#[derive(Debug, Args)]
pub(crate) struct CaCreate {
    /// The namespace of its principals [default: countersign-<8 random digits>.internal]
    #[arg(long, value_name = "DOMAIN", value_parser = TrustDomain::parse)]
    pub(crate) trust_domain: Option<TrustDomain>,
    /// How long it lives
    #[arg(long, value_name = "SPAN", default_value = "10y", value_parser = parse_secs)]
    pub(crate) ttl: u64,
    /// What its key signs with
    #[arg(long, value_name = "KIND", default_value = "p256", value_parser = key_kinds())]
    pub(crate) key: KeyAlgorithm,
    /// Where to write ca.pem and ca.key
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// Replace existing files
    #[arg(long)]
    pub(crate) force: bool,
}

/// Whose certificate to make.
#[derive(Debug, Subcommand)]
pub(crate) enum CertsVerb {
    /// Make a broker's certificate: broker.pem and broker.key
    CreateBroker(BrokerCreate),
    /// Make a client's certificate: PRINCIPAL.pem and PRINCIPAL.key
    CreateClient(ClientCreate),
}

/// `countersign security certs create-broker`
#[derive(Debug, Args)]
pub(crate) struct BrokerCreate {
    /// A host name that it is reached by, can be repeated; the first names the broker
    #[arg(long = "host", value_name = "HOST", required = true)]
    pub(crate) hosts: Vec<HostName>,
    /// An IP address that it is reached by, can be repeated
    #[arg(long = "ip", value_name = "IP")]
    pub(crate) ips: Vec<std::net::IpAddr>,
    #[command(flatten)]
    pub(crate) cert: CertCreate,
}

/// `countersign security certs create-client`
#[derive(Debug, Args)]
pub(crate) struct ClientCreate {
    /// The client's name
    #[arg(long, value_name = "NAME")]
    pub(crate) principal: Name,
    #[command(flatten)]
    pub(crate) cert: CertCreate,
}

/// What all certificates have in common.
#[derive(Debug, Args)]
pub(crate) struct CertCreate {
    /// Where ca.pem and ca.key are
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) ca: PathBuf,
    /// The namespace, if the authority's certificate names none
    #[arg(long, value_name = "DOMAIN", value_parser = TrustDomain::parse)]
    pub(crate) trust_domain: Option<TrustDomain>,
    /// How long it lives
    #[arg(long, value_name = "SPAN", default_value = "90d", value_parser = parse_secs)]
    pub(crate) ttl: u64,
    /// What its key signs with
    #[arg(long, value_name = "KIND", default_value = "p256", value_parser = key_kinds())]
    pub(crate) key: KeyAlgorithm,
    /// Where to write the certificate and the key
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// Replace existing files
    #[arg(long)]
    pub(crate) force: bool,
}

/// `countersign eval`
#[derive(Debug, Args)]
pub(crate) struct Eval {
    #[command(subcommand)]
    pub(crate) verb: EvalVerb,
}

/// What to judge.
#[derive(Debug, Subcommand)]
pub(crate) enum EvalVerb {
    /// Certificate chains: one x509-limbo document; a JSON line for each case
    Chain,
    /// Kafka ACLs: JSON lines {id, super_users, default, acls, checks}; a JSON line of verdicts for each
    Acl,
    /// SPIFFE ids: JSON lines {"in": "spiffe://..."}; a JSON line for each
    Principal,
}

/// `countersign completions`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `countersign man`
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write the pages of all commands into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}
