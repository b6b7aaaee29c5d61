//! The flags of `countersign server`, made from the table of configuration keys.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::config::layer::Layer;
use crate::config::schema::{KEYS, Key, Kind};
use crate::config::unavailable::is_unavailable;
use crate::config::value::{Setting, Source, Value, ValueError};

/// The flags as a layer of the configuration.
#[derive(Debug)]
pub(crate) struct ServerArgs {
    /// A configuration file.
    pub(crate) config: Option<PathBuf>,
    /// Only validate and print the configuration.
    pub(crate) check: bool,
    /// The flags, or the first that does not fit.
    pub(crate) flags: Result<Layer, (String, ValueError)>,
}

const AFTER_HELP: &str = concat!(
    "The data directory is /var/lib/countersign for root, else countersign in $XDG_STATE_HOME or ~/.local/state.\n\n",
    "On an empty data directory --bootstrap makes a cluster and --join-token joins one; with neither, one member \
     starts on ",
    "loopback only. On a directory that holds a member the server goes on, and those flags are ignored.\n\n",
    "Every flag is also a key of the --config file (hyphens become underscores) and a variable, such as ",
    "COUNTERSIGN_CLUSTER_ADDR; flags prevail over variables, variables over the file. A secret may be @FILE, - for ",
    "standard input, a file in $CREDENTIALS_DIRECTORY, or a variable; other users of the host can read an argument.",
);

impl Args for ServerArgs {
    fn augment_args(command: Command) -> Command {
        let command = command
            .arg(
                Arg::new("config")
                    .long("config")
                    .value_name("FILE")
                    .env("COUNTERSIGN_CONFIG")
                    .hide_env(true)
                    .help("Read settings from this TOML file"),
            )
            .arg(
                Arg::new("check")
                    .long("check")
                    .action(ArgAction::SetTrue)
                    .help("Validate the configuration, print what holds and where it was said, and start nothing"),
            )
            .after_help(AFTER_HELP);
        KEYS.iter().filter_map(argument).fold(command, Command::arg)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn argument(key: &'static Key) -> Option<Arg> {
    let flag = key.flag?;
    let (value, help) = key.help;
    let mut help = help.to_owned();
    if is_unavailable(key.path) {
        help.push_str(" (not in this version)");
    }
    if let Some(default) = key.default {
        help.push_str(&format!(" [default: {default}]"));
    }
    let arg = Arg::new(key.path).long(flag).value_name(value).help(help);
    let arg = match key.section() {
        "" => arg,
        "cluster.inter_broker_tls" => arg.help_heading("Certificates made elsewhere"),
        _ => arg.help_heading("Pre-shared key"),
    };
    Some(match key.kind {
        // Not `SetTrue`: an absent flag must not hide what the file says.
        Kind::Flag => arg.action(ArgAction::Set).num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::List => arg.action(ArgAction::Append),
        Kind::Text | Kind::Word(_) | Kind::Path | Kind::Secret | Kind::Number | Kind::Span | Kind::Table => arg,
    })
}

impl FromArgMatches for ServerArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let text = |name: &str| matches.get_one::<String>(name);
        Ok(Self { config: text("config").map(PathBuf::from), check: matches.get_flag("check"), flags: flags(matches) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn flags(matches: &ArgMatches) -> Result<Layer, (String, ValueError)> {
    let mut layer = Layer::new();
    for key in KEYS {
        let Some(flag) = key.flag else { continue };
        let Some(values) = matches.get_many::<String>(key.path) else { continue };
        let text = values.map(String::as_str).collect::<Vec<_>>().join(",");
        let value = Value::of_text(key, &text).map_err(|reason| (format!("`--{flag}`"), reason))?;
        layer.insert(key.path, Setting { key, value, source: Source::Flag(flag) });
    }
    Ok(layer)
}
