//! Which member to ask: what the flags say, else what the context file remembers, else the one on this host.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::admin_client::https::Remote;
use crate::args::Target;
use crate::config::checked::default_data;
use crate::failure::{Failure, chain};
use crate::files::{NewFile, Readers, read_text, write};

/// How a member is reached.
pub(crate) enum Door {
    /// By its socket.
    Socket { data: PathBuf },
    /// By its HTTPS port.
    Https(Remote),
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { data } => write!(f, "the member in `{}`", data.display()),
            Self::Https(remote) => write!(f, "`{}`", remote.server),
        }
    }
}

/// The context file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity_key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
}

impl Context {
    /// The target that the flags give, over the remembered one.
    fn over(self, remembered: Self) -> Self {
        Self {
            server: self.server.or(remembered.server),
            identity: self.identity.or(remembered.identity),
            identity_key: self.identity_key.or(remembered.identity_key),
            ca: self.ca.or(remembered.ca),
        }
    }
}

/// Finds the member.
pub(crate) fn resolve(target: &Target) -> Result<Door, Failure> {
    let flags = Context {
        server: target.server.clone(),
        identity: target.identity.clone(),
        identity_key: target.identity_key.clone(),
        ca: target.ca.clone(),
    };
    let remote = flags != Context::default();
    if remote && target.data.is_some() {
        return Err(Failure::usage("`--data` and `--server` exclude each other", "name the member by one of them"));
    }
    if target.remember && !remote {
        return Err(Failure::usage(
            "`--remember` has nothing to remember",
            "add --server, --identity, --identity-key and --ca",
        ));
    }
    let here = target.data.clone().or_else(|| std::env::var_os("COUNTERSIGN_DATA").map(PathBuf::from));
    match (remote, here) {
        (false, Some(data)) => Ok(Door::Socket { data }),
        (remote, _) => {
            let file = context_file();
            let remembered = match &file {
                Some(file) => read(file)?,
                None => Context::default(),
            };
            if !remote && remembered.server.is_none() {
                return Ok(Door::Socket { data: default_data() });
            }
            let context = flags.over(remembered);
            let door = open(&context)?;
            if target.remember {
                remember(file.as_deref(), &context)?;
            }
            Ok(Door::Https(door))
        }
    }
}

fn open(context: &Context) -> Result<Remote, Failure> {
    let missing = |flag: &str| {
        let reason = format!("`{flag}` is missing: a member's HTTPS port is used with an admin's certificate");
        Failure::usage(reason, format!("add {flag}; `countersign cert issue --admin NAME` on a member makes the files"))
    };
    let server = context.server.clone().ok_or_else(|| missing("--server"))?;
    let identity = context.identity.as_deref().ok_or_else(|| missing("--identity"))?;
    let key = context.identity_key.as_deref().ok_or_else(|| missing("--identity-key"))?;
    let ca = context.ca.as_deref().ok_or_else(|| missing("--ca"))?;
    Remote::load(&server, identity, key, ca)
}

/// `countersign/context.toml` in the user's configuration directory (XDG Base Directory §2).
fn context_file() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| std::env::home_dir().map(|home| home.join(".config")));
    base.map(|base| base.join("countersign/context.toml"))
}

fn read(file: &Path) -> Result<Context, Failure> {
    if !file.exists() {
        return Ok(Context::default());
    }
    let text = read_text(file, "remove it, or correct it")?;
    toml::from_str(&text).map_err(|error| {
        let reason = format!("context file `{}` cannot be used: {}", file.display(), error.message());
        Failure::usage(reason, "it holds server, identity, identity_key and ca; remove it, or correct it")
    })
}

fn remember(file: Option<&Path>, context: &Context) -> Result<(), Failure> {
    let Some(file) = file else {
        return Err(Failure::usage("there is no home directory to remember in", "set XDG_CONFIG_HOME"));
    };
    let absolute = |path: &Option<PathBuf>| path.as_ref().and_then(|path| std::path::absolute(path).ok());
    let context = Context {
        server: context.server.clone(),
        identity: absolute(&context.identity),
        identity_key: absolute(&context.identity_key),
        ca: absolute(&context.ca),
    };
    let text =
        toml::to_string(&context).map_err(|error| Failure::usage(chain(&error), "use paths that are UTF-8 text"))?;
    write(&NewFile { path: file.to_owned(), content: text.as_bytes(), readers: Readers::Owner }, true)
}
