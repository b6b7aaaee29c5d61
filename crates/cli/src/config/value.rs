//! One setting: a value of its key's kind, and where it was said. Read from TOML or from text.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::config::schema::{Key, Kind};
use crate::duration::{DurationError, parse_secs, rendered};
use crate::secret_arg::SecretArg;

/// A value.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Text(String),
    Path(PathBuf),
    Secret(SecretArg),
    Flag(bool),
    Number(u64),
    Secs(u64),
    List(Vec<String>),
    Table(BTreeMap<String, Vec<String>>),
}

/// Why a value does not fit its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    /// Another kind of value.
    #[error("expected {expected}")]
    Kind {
        /// What the key holds.
        expected: &'static str,
    },
    /// No span of time.
    #[error(transparent)]
    Span(#[from] DurationError),
    /// None of the allowed words.
    #[error("expected one of {}", .allowed.join(", "))]
    Word {
        /// The allowed ones.
        allowed: &'static [&'static str],
    },
    /// Nothing at all.
    #[error("is empty")]
    Empty,
}

const fn expected(kind: Kind) -> ValueError {
    ValueError::Kind {
        expected: match kind {
            Kind::Text | Kind::Word(_) | Kind::Path | Kind::Secret => "a text",
            Kind::Flag => "true or false",
            Kind::Number => "a whole number",
            Kind::Span => "a span of time, such as \"24h\"",
            Kind::List => "a text or a list of texts",
            Kind::Table => "a table of names with lists of texts",
        },
    }
}

impl Value {
    /// From a file's value.
    pub(crate) fn of_toml(key: &Key, value: &toml::Value) -> Result<Self, ValueError> {
        let wrong = || expected(key.kind);
        match (key.kind, value) {
            (Kind::Flag, toml::Value::Boolean(flag)) => Ok(Self::Flag(*flag)),
            (Kind::Number, toml::Value::Integer(number)) => {
                u64::try_from(*number).map(Self::Number).map_err(|_| wrong())
            }
            (Kind::List, toml::Value::Array(_)) => texts(value).map(Self::List).ok_or_else(wrong),
            (Kind::Table, toml::Value::Table(table)) => {
                let entries = table.iter().map(|(name, value)| Some((name.clone(), texts(value)?)));
                entries.collect::<Option<_>>().map(Self::Table).ok_or_else(wrong)
            }
            (Kind::Flag | Kind::Number | Kind::Table, _) => Err(wrong()),
            (_, toml::Value::String(text)) => Self::of_text(key, text),
            _ => Err(wrong()),
        }
    }

    /// From the text of a flag or a variable.
    pub(crate) fn of_text(key: &Key, text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Err(ValueError::Empty);
        }
        match key.kind {
            Kind::Text => Ok(Self::Text(text.to_owned())),
            Kind::Path => Ok(Self::Path(expand_home(text))),
            Kind::Secret => match SecretArg::parse(text) {
                secret if secret.is_empty() => Err(ValueError::Empty),
                secret => Ok(Self::Secret(secret)),
            },
            Kind::Word(allowed) if allowed.contains(&text) => Ok(Self::Text(text.to_owned())),
            Kind::Word(allowed) => Err(ValueError::Word { allowed }),
            Kind::Flag => text.parse().map(Self::Flag).map_err(|_| expected(key.kind)),
            Kind::Number => text.parse().map(Self::Number).map_err(|_| expected(key.kind)),
            Kind::Span => Ok(Self::Secs(parse_secs(text)?)),
            Kind::List => Ok(Self::List(text.split(',').map(|part| part.trim().to_owned()).collect())),
            Kind::Table => {
                let table: Option<toml::Table> = toml::from_str(&format!("value = {text}")).ok();
                let value = table.as_ref().and_then(|table| table.get("value")).ok_or_else(|| expected(key.kind))?;
                Self::of_toml(key, value)
            }
        }
    }

    /// As TOML; a secret only as where it is.
    pub(crate) fn to_toml(&self) -> toml::Value {
        match self {
            Self::Text(text) => toml::Value::String(text.clone()),
            Self::Path(path) => toml::Value::String(path.display().to_string()),
            Self::Secret(SecretArg::File(path)) => toml::Value::String(format!("@{}", path.display())),
            Self::Secret(SecretArg::Stdin) => toml::Value::String("-".to_owned()),
            Self::Secret(SecretArg::Literal(_)) => toml::Value::String("(not shown)".to_owned()),
            Self::Flag(flag) => toml::Value::Boolean(*flag),
            Self::Number(number) => {
                i64::try_from(*number).map_or_else(|_| toml::Value::String(number.to_string()), toml::Value::Integer)
            }
            Self::Secs(secs) => toml::Value::String(rendered(*secs)),
            Self::List(list) => list_toml(list),
            Self::Table(table) => {
                toml::Value::Table(table.iter().map(|(name, list)| (name.clone(), list_toml(list))).collect())
            }
        }
    }
}

fn list_toml(list: &[String]) -> toml::Value {
    toml::Value::Array(list.iter().cloned().map(toml::Value::String).collect())
}

/// One text, or a list of them.
#[allow(clippy::wildcard_enum_match_arm, reason = "kinds of value are those of TOML")]
fn texts(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Array(list) => list.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

fn expand_home(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    }
}

/// Where a setting was said, in rising precedence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    File(PathBuf),
    Credential(PathBuf),
    Variable(String),
    Flag(&'static str),
}

/// A value and where it was said.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) key: &'static Key,
    pub(crate) value: Value,
    pub(crate) source: Source,
}

impl Setting {
    /// The key as its author wrote it: `--flag`, `VARIABLE` or `[section] key`.
    pub(crate) fn written(&self) -> String {
        match &self.source {
            Source::Flag(flag) => format!("`--{flag}`"),
            Source::Variable(name) => format!("`{name}`"),
            Source::File(_) | Source::Credential(_) => in_file(self.key),
        }
    }
}

/// A key as the file has it: `[section] key`.
pub(crate) fn in_file(key: &Key) -> String {
    match key.section() {
        "" => format!("`{}`", key.name()),
        section => format!("`[{section}] {}`", key.name()),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Credential(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => write!(f, "--{flag}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::find;

    #[test]
    fn values_are_of_their_key_s_kind_whether_from_a_file_or_from_text() {
        for (path, toml, text) in [
            ("bootstrap", "true", "true"),
            ("trust.lease_secs", "10", "10"),
            ("pki.node_ttl", "\"1d\"", "24h"),
            ("advertise_addr", "[\"a:1\", \"b:2\"]", "a:1, b:2"),
            ("certificates", "\"shared\"", "shared"),
            ("cluster.authentication.required_capabilities", "{ a = [\"x\"] }", "{ a = \"x\" }"),
        ] {
            let key = find(path).unwrap();
            let table: toml::Table = toml::from_str(&format!("v = {toml}")).unwrap();
            let of_file = Value::of_toml(key, &table["v"]).unwrap().to_toml();
            assert_eq!(of_file, Value::of_text(key, text).unwrap().to_toml(), "{path}");
            assert_eq!(of_file, table["v"], "{path}");
        }
    }

    #[test]
    fn values_of_another_kind_are_refused() {
        for (path, toml) in [
            ("bootstrap", "\"true\""),
            ("bootstrap", "1"),
            ("trust.lease_secs", "-1"),
            ("trust.lease_secs", "1.5"),
            ("trust.lease_secs", "\"10\""),
            ("pki.node_ttl", "24"),
            ("pki.node_ttl", "\"24\""),
            ("data", "true"),
            ("data", "\"\""),
            ("certificates", "\"all\""),
            ("advertise_addr", "[1]"),
            ("cluster.auth.shared_secret", "\"\""),
            ("cluster.auth.shared_secret", "\"  \""),
            ("cluster.auth.shared_secret", "\"@\""),
            ("cluster.authentication.required_capabilities", "[\"x\"]"),
            ("cluster.authentication.required_capabilities", "{ a = 1 }"),
        ] {
            let table: toml::Table = toml::from_str(&format!("v = {toml}")).unwrap();
            assert!(Value::of_toml(find(path).unwrap(), &table["v"]).is_err(), "{path} = {toml}");
        }
    }
}
