//! The command line. Verbs and flags are a contract; their texts are ours.
//!
//! Every flag takes `--f=v` and `--f v`; a flag that is true or false may also stand bare.

mod acl;
mod admin;
mod call;
mod offline;
mod server;

use std::ffi::OsString;

use clap::builder::{PossibleValuesParser, TypedValueParser, ValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

pub(crate) use acl::{Acl, AclAddArgs, AclApplyArgs, AclQuestion, AclRemoveArgs, AclVerb, AclWhoCanArgs, RuleWords};
pub(crate) use admin::{
    Cert, CertIssue, CertRenew, CertVerb, Cluster, ClusterVerb, Explain, HostEdit, Node, NodeVerb, Status, Target,
    Token, TokenCreateArgs, TokenVerb,
};
pub(crate) use call::Call;
pub(crate) use offline::{CaCreate, CertCreate, Completions, Eval, EvalVerb, Man, Security, SecurityVerb};
pub(crate) use offline::{CaVerb, CertsVerb};
pub(crate) use server::ServerArgs;

use countersign_pki::key::KeyAlgorithm;

use crate::commands::demo::DemoArgs;
use crate::failure::Failure;

/// Kinds of keys, by their words.
fn key_kinds() -> impl TypedValueParser<Value = KeyAlgorithm> {
    let words = PossibleValuesParser::new(KeyAlgorithm::ALL.map(|(word, _)| word));
    words.try_map(|word| KeyAlgorithm::parse(&word).ok_or("not a kind of key"))
}

/// Identity, enrollment and authorization for clustered servers.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Answer in JSON; errors too
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the main job: three server processes on loopback, and every attack refused
    Demo(DemoArgs),
    /// Run a member of a cluster
    Server(ServerArgs),
    /// Show the cluster as one member sees it
    Status(Status),
    /// Make and manage join tokens
    Token(Token),
    /// List, promote, demote, label and evict members
    Node(Node),
    /// Show and change the settings of the whole cluster
    Cluster(Cluster),
    /// Issue, renew and revoke certificates of clients, brokers and admins
    Cert(Cert),
    /// Call a guarded service with a certificate: HTTP, or gRPC with messages in JSON
    Call(Call),
    /// Say who may do what, ask who may, and be told why
    Acl(Acl),
    /// Make authorities and certificates offline, on files
    Security(Security),
    /// Tell why a connection was refused, by the failure id that both ends print
    Explain(Explain),
    /// Judge test data on standard input without a cluster
    Eval(Eval),
    /// Print the completions of a shell
    Completions(Completions),
    /// Print the manual page
    Man(Man),
}

/// How a command line ends before anything is done.
pub(crate) enum Early {
    /// Help or the version was asked for.
    Text(String),
    /// It cannot be used.
    Failure(Failure),
}

/// The whole tree of commands.
pub(crate) fn command() -> Command {
    let mut command = with_values(Cli::command());
    command.build();
    command
}

/// Parses the command line.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Early> {
    let command = with_values(Cli::command());
    let mut names = Vec::new();
    flag_names(&command, &mut names);
    let arguments = joined(arguments, &names);
    let matches = command.try_get_matches_from(arguments);
    matches.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches)).map_err(|error| early(&error))
}

/// Lets every bare flag take `=true` and `=false` as well.
fn with_values(command: Command) -> Command {
    let command = command.mut_args(|arg| if is_flag(&arg) { flag_with_value(arg) } else { arg });
    command.mut_subcommands(with_values)
}

fn is_flag(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

/// A flag that may stand bare. The value needs `=`, so that what follows a bare flag stays an argument of its own.
pub(crate) fn flag_with_value(arg: Arg) -> Arg {
    arg.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value("false")
        .value_name("BOOL")
        .value_parser(ValueParser::bool())
        .hide_possible_values(true)
        .hide_default_value(true)
}

fn flag_names(command: &Command, names: &mut Vec<String>) {
    let flags = command.get_arguments().filter(|arg| arg.is_require_equals_set());
    names.extend(flags.filter_map(Arg::get_long).map(|long| format!("--{long}")));
    command.get_subcommands().for_each(|inner| flag_names(inner, names));
}

/// Turns `--flag true` into `--flag=true` for the flags that may stand bare.
fn joined(arguments: impl IntoIterator<Item = OsString>, flags: &[String]) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    let mut literal = false;
    for argument in arguments {
        let after_flag =
            joined.last().and_then(|last| last.to_str()).is_some_and(|last| flags.iter().any(|f| f == last));
        let word = argument.to_str().filter(|word| ["true", "false"].contains(word) && after_flag && !literal);
        match (word.map(str::to_owned), joined.last_mut()) {
            (Some(word), Some(flag)) => {
                flag.push("=");
                flag.push(word);
            }
            _ => {
                literal |= argument == "--";
                joined.push(argument);
            }
        }
    }
    joined
}

fn early(error: &clap::Error) -> Early {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Early::Text(error.render().to_string());
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Early::Failure(Failure::usage("a command is missing", "countersign --help"));
    }
    Early::Failure(Failure::usage(reason(error), advice(error)))
}

/// The first paragraph of what clap says, without its marks.
fn reason(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let paragraph: Vec<&str> = rendered.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    let text = paragraph.join(" ");
    text.strip_prefix("error: ").unwrap_or(&text).replace('\'', "`")
}

fn advice(error: &clap::Error) -> String {
    let command = command_of(error);
    // The best guess is the last.
    let guess = |kind| match error.get(kind) {
        Some(ContextValue::String(name)) => Some(name),
        Some(ContextValue::Strings(names)) => names.last(),
        _ => None,
    };
    if let Some(name) = guess(ContextKind::SuggestedSubcommand) {
        return format!("{command} {name}");
    }
    match guess(ContextKind::SuggestedArg).or_else(|| guess(ContextKind::SuggestedValue)) {
        Some(name) => format!("write `{name}`, if that was meant"),
        None => format!("{command} --help"),
    }
}

/// The command that the error is about: the words of "Usage: countersign token create [OPTIONS]" up to the first
/// argument.
fn command_of(error: &clap::Error) -> String {
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => String::new(),
    };
    let is_verb = |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
    let words = usage.split_whitespace().skip_while(|word| *word != "countersign");
    let command: Vec<&str> = words.take_while(|word| is_verb(word)).collect();
    if command.is_empty() { "countersign".to_owned() } else { command.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, String> {
        parse(line.split(' ').map(OsString::from)).map_err(|early| match early {
            Early::Text(text) => text,
            Early::Failure(failure) => format!("{failure:?}"),
        })
    }

    #[test]
    fn the_tree_of_commands_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn a_flag_stands_bare_or_takes_its_value_either_way() {
        for (line, expected) in [
            ("countersign node evict --compromised n2", true),
            ("countersign node evict n2 --compromised", true),
            ("countersign node evict --compromised true n2", true),
            ("countersign node evict --compromised=true n2", true),
            ("countersign node evict --compromised false n2", false),
            ("countersign node evict --compromised=false n2", false),
            ("countersign node evict n2", false),
        ] {
            let Verb::Node(Node { verb: NodeVerb::Evict { node, compromised, .. }, .. }) = parsed(line).unwrap().verb
            else {
                panic!("{line}")
            };
            assert_eq!((node.as_str(), compromised), ("n2", expected), "{line}");
        }
        assert!(parsed("countersign --json true status").unwrap().json);
        assert!(parsed("countersign status --json").unwrap().json);
    }

    #[test]
    fn a_mistake_is_told_with_what_to_try() {
        for (line, expected) in [
            ("countersign stauts", "countersign status"),
            ("countersign token creat", "countersign token create"),
            ("countersign token crate", "countersign token create"),
            ("countersign token create --rol voter", "write `--role`, if that was meant"),
            ("countersign", "countersign --help"),
            ("countersign explain", "countersign explain --help"),
            ("countersign node evict", "countersign node evict --help"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(&format!("next: {expected:?}")), "{line}: {error}");
        }
    }
}
