//! `countersign acl`: rules, and questions about them. The same words say a rule and take it out again.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use crate::args::Target;
use crate::duration::parse_secs;

/// `countersign acl`
#[derive(Debug, Args)]
pub(crate) struct Acl {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(subcommand)]
    pub(crate) verb: AclVerb,
}

/// By itself, clap writes each usage in one line that is too long for a terminal.
macro_rules! usage {
    (question $verb:literal) => {
        usage!(said $verb, "<A> [OPTIONS]\n       <--topic <T>|--resource <KIND:NAME>>")
    };
    (rule $verb:literal) => {
        usage!(
            said $verb,
            "<A[,A]> [OPTIONS]\n       <--topic <T>|--topic-prefix <T>|--resource <KIND:NAME>|\n        \
             --resource-prefix <KIND:PREFIX>|--any <KIND>>"
        )
    };
    (said $verb:literal, $rest:literal) => {
        concat!("countersign acl ", $verb, " --principal <P> --action ", $rest)
    };
}

/// What to do with rules.
#[derive(Debug, Subcommand)]
pub(crate) enum AclVerb {
    /// Add a rule; nothing is allowed without one, and a deny wins over every allow
    #[command(override_usage = usage!(rule "add"))]
    Add(AclAddArgs),
    /// Remove a rule, by the words that it was added with or by its id
    #[command(override_usage = concat!("countersign acl remove --id <ID> [OPTIONS]\n       ", usage!(rule "remove")))]
    Remove(AclRemoveArgs),
    /// List the rules
    List {
        /// As a file that `acl apply` takes
        #[arg(long)]
        toml: bool,
    },
    /// Say whether a principal may do something: exit code 0 if so, 1 if not
    #[command(override_usage = usage!(question "check"))]
    Check(AclQuestion),
    /// Tell why a principal may do something, or may not: every rule that was weighed
    #[command(override_usage = usage!(question "explain"))]
    Explain(AclQuestion),
    /// List who may do something
    WhoCan(AclWhoCanArgs),
    /// Look for rules that never count, say the same twice, or allow too much: exit code 1 if there are any
    Lint,
    /// Put the policy of a file in place of the cluster's, in one step
    Apply(AclApplyArgs),
}

/// What a rule says. Which of it must be said is for the verbs to tell.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("what").args(["topic", "topic_prefix", "resource", "resource_prefix", "any"])))]
pub(crate) struct RuleWords {
    /// The principal: client/NAME, client/PREFIX*, broker/HOST, admin/NAME, node/N, `*` or role:Worker[gpu=true]
    #[arg(long, value_name = "P")]
    pub(crate) principal: Option<String>,
    /// What they do: read, write, create, delete, alter, describe, administer, several with commas, or all
    #[arg(long, value_name = "A[,A]")]
    pub(crate) action: Option<String>,
    /// To the topic of exactly this name
    #[arg(long, value_name = "T")]
    pub(crate) topic: Option<String>,
    /// To topics whose names begin so
    #[arg(long, value_name = "T")]
    pub(crate) topic_prefix: Option<String>,
    /// To the one of exactly this name, such as service:pay.v1.Pay/Charge
    #[arg(long, value_name = "KIND:NAME")]
    pub(crate) resource: Option<String>,
    /// To those whose names begin so
    #[arg(long, value_name = "KIND:PREFIX")]
    pub(crate) resource_prefix: Option<String>,
    /// To all of a kind
    #[arg(long, value_name = "KIND")]
    pub(crate) any: Option<String>,
    /// Deny it
    #[arg(long)]
    pub(crate) deny: bool,
    /// From this network alone
    #[arg(long, value_name = "CIDR")]
    pub(crate) from: Option<String>,
}

/// `countersign acl add`
#[derive(Debug, Args)]
#[command(
    mut_arg("principal", |arg| arg.required(true)),
    mut_arg("action", |arg| arg.required(true)),
    mut_group("what", |group| group.required(true))
)]
pub(crate) struct AclAddArgs {
    #[command(flatten)]
    pub(crate) words: RuleWords,
    /// How long it counts [default: until it is removed]
    #[arg(long, value_name = "SPAN", value_parser = parse_secs)]
    pub(crate) ttl: Option<u64>,
    /// Its id [default: one that follows from what it says]
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Return once every member decides by it, or serves no client
    #[arg(long)]
    pub(crate) wait: bool,
}

/// `countersign acl remove`
#[derive(Debug, Args)]
#[command(
    mut_arg("principal", |arg| arg.required_unless_present("id")),
    mut_arg("action", |arg| arg.required_unless_present("id"))
)]
pub(crate) struct AclRemoveArgs {
    #[command(flatten)]
    pub(crate) words: RuleWords,
    /// Its id, as `acl list` shows it: for rules with an id or a span of their own
    #[arg(long, value_name = "ID", conflicts_with_all = ["principal", "action", "what", "deny", "from"])]
    pub(crate) id: Option<String>,
    /// Return once every member decides without it, or serves no client
    #[arg(long)]
    pub(crate) wait: bool,
}

/// `countersign acl check` and `countersign acl explain`
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["topic", "resource"])))]
pub(crate) struct AclQuestion {
    /// Who: client/NAME, broker/HOST, admin/NAME, or node/N
    #[arg(long, value_name = "P")]
    pub(crate) principal: String,
    /// Would do what: one action
    #[arg(long, value_name = "A")]
    pub(crate) action: String,
    /// To the topic of this name
    #[arg(long, value_name = "T")]
    pub(crate) topic: Option<String>,
    /// To the one of this kind and name
    #[arg(long, value_name = "KIND:NAME")]
    pub(crate) resource: Option<String>,
    /// From this address [default: from nowhere that is known]
    #[arg(long, value_name = "IP")]
    pub(crate) from: Option<IpAddr>,
    /// Not before the member that is asked has this generation
    #[arg(long, value_name = "G")]
    pub(crate) min_generation: Option<u64>,
}

/// `countersign acl who-can`
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["topic", "resource"])))]
pub(crate) struct AclWhoCanArgs {
    /// Do what: one action
    #[arg(long, value_name = "A")]
    pub(crate) action: String,
    /// To the topic of this name
    #[arg(long, value_name = "T")]
    pub(crate) topic: Option<String>,
    /// To the one of this kind and name
    #[arg(long, value_name = "KIND:NAME")]
    pub(crate) resource: Option<String>,
}

/// `countersign acl apply`
#[derive(Debug, Args)]
pub(crate) struct AclApplyArgs {
    /// A policy, TOML: super_users, [required_capabilities], and a [[rule]] for each rule
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Show what would change, which requests of late would be decided otherwise, and change nothing
    #[arg(long)]
    pub(crate) plan: bool,
    /// Only if the policy has not changed since this generation
    #[arg(long, value_name = "G")]
    pub(crate) if_generation: Option<u64>,
    /// Return once every member decides by it, or serves no client
    #[arg(long)]
    pub(crate) wait: bool,
}
