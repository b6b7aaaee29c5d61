//! The effective configuration: what holds, and where each setting was said. Secrets only as where they are.

use serde::Serialize;

use crate::config::checked::{ServerConfig, Settings};
use crate::config::clients::clients_shut_out;
use crate::config::schema::{KEYS, Key, SWITCHED};
use crate::config::value::Value;

/// What `server --check` says.
#[derive(Serialize)]
pub(crate) struct Effective {
    config: toml::Table,
    sources: toml::Table,
    notes: Vec<String>,
}

/// Collects what holds.
pub(crate) fn effective(settings: &Settings, config: &ServerConfig) -> Effective {
    let mut effective = Effective { config: toml::Table::new(), sources: toml::Table::new(), notes: Vec::new() };
    for key in KEYS {
        let Some((value, source)) = holding(settings, config, key) else { continue };
        insert(&mut effective.config, key.path, value);
        effective.sources.insert(key.path.to_owned(), toml::Value::String(source));
    }
    let refused = config.unavailable.iter().map(|written| format!("{written} is not available in this version"));
    effective.notes.extend(refused);
    for setting in settings.0.values().filter(|setting| setting.key.path != "data") {
        let Value::Path(path) = &setting.value else { continue };
        if let Err(error) = std::fs::metadata(path) {
            effective.notes.push(format!("{} is `{}`: {error}", setting.written(), path.display()));
        }
    }
    effective.notes.extend(clients_shut_out(config));
    effective
}

fn holding(settings: &Settings, config: &ServerConfig, key: &Key) -> Option<(toml::Value, String)> {
    if let Some(setting) = settings.find(key.path) {
        return Some((setting.value.to_toml(), setting.source.to_string()));
    }
    let off = SWITCHED.contains(&key.section()) && !settings.flag(&format!("{}.enabled", key.section()));
    let value = match (key.path, key.default) {
        ("data", _) => toml::Value::String(config.data.display().to_string()),
        (_, Some(default)) if !off => Value::of_text(key, default).ok()?.to_toml(),
        _ => return None,
    };
    Some((value, "default".to_owned()))
}

fn insert(table: &mut toml::Table, path: &str, value: toml::Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if let toml::Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

impl Effective {
    /// As a configuration file, each line with its source.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut section = "";
        for key in KEYS {
            let Some(toml::Value::String(source)) = self.sources.get(key.path) else { continue };
            if key.section() != section {
                section = key.section();
                lines.push(String::new());
                lines.push(format!("[{section}]"));
            }
            let value = key.path.split('.').try_fold(None, |table: Option<&toml::Value>, name| match table {
                None => self.config.get(name).map(Some),
                Some(value) => value.get(name).map(Some),
            });
            let value = value.flatten().map(ToString::to_string).unwrap_or_default();
            lines.push(format!("{} = {value} # {source}", key.name()));
        }
        lines
    }

    /// Adds what the operator should know, if there is something.
    pub(crate) fn note(&mut self, note: Option<String>) {
        self.notes.extend(note);
    }

    /// What the operator should know.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }
}
