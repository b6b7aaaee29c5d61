//! Reads the layers of the configuration and puts one over the other. An unknown key is an error that names the nearest
//! known one; a secret never appears in an error.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::config::schema::{KEYS, Key, SWITCHED, VARIABLE_PREFIX, find, is_section, nearest};
use crate::config::value::{Setting, Source, Value, ValueError, in_file};
use crate::secret_arg::SecretArg;

/// Bytes of a configuration file.
const FILE_LEN_MAX: u64 = 1024 * 1024;

/// Why the configuration cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    /// The file cannot be read.
    #[error("configuration `{}` cannot be read", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The file is too long.
    #[error("configuration `{}` holds more than {FILE_LEN_MAX} bytes", path.display())]
    TooLong { path: PathBuf },
    /// The file is not TOML. The line is named and not shown: it may hold a secret.
    #[error("configuration `{}` is not TOML at line {line}: {reason}", path.display())]
    Toml { path: PathBuf, line: usize, reason: String },
    /// An unknown key.
    #[error("`{name}` in {place} is not a setting")]
    Unknown { name: String, place: String, nearest: Option<String> },
    /// A section's name with something else in it.
    #[error("`{name}` in {place} is a section, expected `[{name}]`")]
    Section { name: String, place: String },
    /// A value that does not fit.
    #[error("{written} in {place}: {reason}")]
    Value {
        written: String,
        place: String,
        #[source]
        reason: ValueError,
    },
    /// A variable that is not text.
    #[error("variable `{name}` is not UTF-8 text")]
    NotText { name: String },
}

impl LayerError {
    /// What to try next.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Io { .. } => "check the path given with --config".to_owned(),
            Self::Unknown { nearest: Some(nearest), .. } => format!("write `{nearest}`, if that was meant"),
            Self::Section { name, .. } => format!("write its keys below a line `[{name}]`"),
            Self::TooLong { .. }
            | Self::Toml { .. }
            | Self::Unknown { .. }
            | Self::Value { .. }
            | Self::NotText { .. } => "correct it, and look at the result with `countersign server --check`".to_owned(),
        }
    }
}

/// Settings by the place of their keys.
pub(crate) type Layer = BTreeMap<&'static str, Setting>;

/// Reads a file.
pub(crate) fn of_file(path: &Path) -> Result<Layer, LayerError> {
    let io = |source| LayerError::Io { path: path.to_owned(), source };
    if fs::metadata(path).map_err(io)?.len() > FILE_LEN_MAX {
        return Err(LayerError::TooLong { path: path.to_owned() });
    }
    let text = fs::read_to_string(path).map_err(io)?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        LayerError::Toml {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            reason: error.message().to_owned(),
        }
    })?;
    let mut layer = Layer::new();
    walk(&table, "", path, &mut layer)?;
    Ok(layer)
}

fn walk(table: &toml::Table, section: &str, path: &Path, layer: &mut Layer) -> Result<(), LayerError> {
    for (name, value) in table {
        let full = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
        let place = || format!("`{}`", path.display());
        match (find(&full), value) {
            (Some(key), _) => {
                let value = Value::of_toml(key, value).map_err(|reason| LayerError::Value {
                    written: in_file(key),
                    place: place(),
                    reason,
                })?;
                layer.insert(key.path, Setting { key, value, source: Source::File(path.to_owned()) });
            }
            (None, toml::Value::Table(inner)) if is_section(&full) => walk(inner, &full, path, layer)?,
            (None, _) if is_section(&full) => return Err(LayerError::Section { name: full, place: place() }),
            (None, _) => {
                let nearest = nearest_in_file(&full, matches!(value, toml::Value::Table(_)));
                return Err(LayerError::Unknown { name: full, place: place(), nearest });
            }
        }
    }
    Ok(())
}

fn nearest_in_file(full: &str, is_table: bool) -> Option<String> {
    let sections = KEYS.iter().map(|key| key.section().to_owned()).filter(|section| !section.is_empty());
    if is_table {
        return nearest(full, sections).map(|(_, name)| format!("[{name}]"));
    }
    // A key is more often mistyped than put into another section.
    let section = full.rsplit_once('.').map_or("", |(section, _)| section);
    let siblings = KEYS.iter().filter(|key| key.section() == section).map(|key| key.path.to_owned());
    let all = KEYS.iter().map(|key| key.path.to_owned());
    let close = nearest(full, siblings).filter(|(edits, _)| *edits <= 4);
    close.or_else(|| nearest(full, all)).map(|(_, name)| name)
}

/// Reads the variables.
pub(crate) fn of_environment(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Layer, LayerError> {
    let mut layer = Layer::new();
    for (name, value) in variables {
        let Ok(name) = name.into_string() else { continue };
        if !name.starts_with(VARIABLE_PREFIX) {
            continue;
        }
        let Some(key) = KEYS.iter().find(|key| key.variable() == name) else {
            refuse_mistyped(&name)?;
            continue;
        };
        let Ok(text) = value.into_string() else { return Err(LayerError::NotText { name }) };
        // Set to nothing is how a variable is taken away in many places; a secret must not vanish that way.
        if text.is_empty() && key.credential().is_none() {
            continue;
        }
        let value = Value::of_text(key, &text).map_err(|reason| LayerError::Value {
            written: format!("`{name}`"),
            place: "the environment".to_owned(),
            reason,
        })?;
        layer.insert(key.path, Setting { key, value, source: Source::Variable(name) });
    }
    Ok(layer)
}

/// A variable that is nearly one of ours, or in one of our sections, is mistyped. Others may be meant for other
/// programs: tests, scripts, and the addresses that Kubernetes sets for services named `countersign` or
/// `countersign-trust`.
fn refuse_mistyped(name: &str) -> Result<(), LayerError> {
    let rest = name.strip_prefix(VARIABLE_PREFIX).unwrap_or_default();
    if rest.split('_').any(|part| part == "SERVICE" || part == "PORT") {
        return Ok(());
    }
    let section = |key: &Key| format!("{}_", key.section().replace('.', "_").to_uppercase());
    let within = KEYS.iter().any(|key| !key.section().is_empty() && rest.starts_with(&section(key)));
    match nearest(name, KEYS.iter().map(Key::variable)) {
        Some((edits, nearest)) if within || edits <= 2 => Err(LayerError::Unknown {
            name: name.to_owned(),
            place: "the environment".to_owned(),
            nearest: Some(nearest),
        }),
        _ => Ok(()),
    }
}

/// Finds secrets in the directory that systemd gives to a service (systemd.exec(5), `LoadCredential=`).
pub(crate) fn of_credentials(directory: Option<&Path>) -> Layer {
    let mut layer = Layer::new();
    for key in KEYS {
        let path = directory.zip(key.credential()).map(|(directory, name)| directory.join(name));
        if let Some(path) = path.filter(|path| path.is_file()) {
            let value = Value::Secret(SecretArg::File(path.clone()));
            layer.insert(key.path, Setting { key, value, source: Source::Credential(path) });
        }
    }
    layer
}

/// One over the other, the later over the earlier. What stands in a section that is off is left out.
pub(crate) fn merged(layers: impl IntoIterator<Item = Layer>) -> Layer {
    let mut merged: Layer = layers.into_iter().flatten().collect();
    for section in SWITCHED {
        let enabled = merged.get(format!("{section}.enabled").as_str());
        if matches!(enabled, Some(Setting { value: Value::Flag(false), .. })) {
            merged.retain(|_, setting| setting.key.section() != section);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Layer, LayerError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        fs::write(&path, text).unwrap();
        of_file(&path)
    }

    fn nearest_of(result: Result<Layer, LayerError>) -> String {
        match result.unwrap_err() {
            LayerError::Unknown { nearest, .. } => nearest.unwrap(),
            other => panic!("{other}"),
        }
    }

    fn variables(pairs: &[(&str, &str)]) -> Result<Layer, LayerError> {
        of_environment(pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    #[test]
    fn an_unknown_key_names_the_nearest_one() {
        for (text, expected) in [
            ("clutser_addr = 'a'", "cluster_addr"),
            ("[cluster.auth]\nsharedsecret = 'x'", "cluster.auth.shared_secret"),
            ("[trust]\nlease_sec = 10", "trust.lease_secs"),
            ("[network.tsl]\nenabled = true", "[network.tls]"),
            ("[cluster.inter_broker_tls]\ncertificate = 'x'", "cluster.inter_broker_tls.cert"),
            ("lease_secs = 10", "trust.lease_secs"),
        ] {
            assert_eq!(nearest_of(file(text)), expected, "{text}");
        }
        assert_eq!(nearest_of(variables(&[("COUNTERSIGN_TRUST_LEASE_SEC", "1")])), "COUNTERSIGN_TRUST_LEASE_SECS");
        assert_eq!(nearest_of(variables(&[("COUNTERSIGN_JOIN_TOKN", "1")])), "COUNTERSIGN_JOIN_TOKEN");
    }

    #[test]
    fn variables_of_others_are_left_alone() {
        for name in [
            "COUNTERSIGN_SUITES",
            "COUNTERSIGN_SERVICE_HOST",
            "COUNTERSIGN_PORT",
            "COUNTERSIGN_PORT_7100_TCP_ADDR",
            "COUNTERSIGN_CLUSTER_PORT_7100_TCP",
            "COUNTERSIGN_TRUST_SERVICE_HOST",
            "COUNTERSIGN_TRUST_PORT_7100_TCP_PROTO",
            "PATH",
        ] {
            assert!(variables(&[(name, "tcp://10.0.0.1:7100")]).unwrap().is_empty(), "{name}");
        }
    }

    #[test]
    fn a_file_that_is_not_toml_is_named_by_line_and_its_secrets_are_not_shown() {
        let error = file("data = '/x'\nshared_secret = 'hunter2\n").unwrap_err();
        assert!(matches!(error, LayerError::Toml { line: 2, .. }), "{error:?}");
        let rendered = format!("{error} {error:?}");
        assert!(!rendered.contains("hunter2"), "{rendered}");
        let error = file("[cluster.auth]\nshared_secret = ['hunter2']").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn later_layers_prevail_and_a_section_that_is_off_is_left_out() {
        let low = file("data = '/a'\nname = 'low'\n[cluster.auth]\nenabled = true\nshared_secret = 'x'").unwrap();
        let high = variables(&[("COUNTERSIGN_NAME", "high"), ("COUNTERSIGN_CLUSTER_AUTH_ENABLED", "false")]).unwrap();
        let merged = merged([low, high]);
        assert_eq!(merged.keys().copied().collect::<Vec<_>>(), ["data", "name"]);
        assert!(matches!(&merged["name"].source, Source::Variable(name) if name == "COUNTERSIGN_NAME"));
    }

    #[test]
    fn secrets_are_found_in_the_credentials_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("join-token"), "x").unwrap();
        fs::write(dir.path().join("unrelated"), "x").unwrap();
        assert_eq!(of_credentials(Some(dir.path())).keys().copied().collect::<Vec<_>>(), ["join_token"]);
        assert!(of_credentials(None).is_empty());
    }
}
