//! A policy file: read as a whole or refused as a whole, with the line of the first mistake.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use countersign_core::authz::PrincipalPattern;
use countersign_core::authz::text::{PolicyText, PolicyTextError, RuleText};
use countersign_core::limits::POLICY_BODY_LEN_MAX;
use serde::Deserialize;
use toml::Spanned;

use crate::config::schema::nearest;
use crate::failure::{Failure, chain};

/// A policy as it is written, with the places of its parts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    super_users: Vec<Spanned<String>>,
    #[serde(default)]
    required_capabilities: BTreeMap<String, Vec<Spanned<String>>>,
    #[serde(default)]
    rule: Vec<Spanned<RuleText>>,
}

/// A mistake and its place.
#[derive(Debug)]
struct Mistake {
    at: usize,
    reason: String,
    next: String,
}

/// Reads and judges a file.
pub(super) fn read(path: &Path) -> Result<PolicyText, Failure> {
    let rendered = path.display();
    let failed = |error: std::io::Error| {
        Failure::usage(format!("policy `{rendered}` cannot be read: {}", chain(&error)), "check the path")
    };
    let len = std::fs::metadata(path).map_err(failed)?.len();
    if len > POLICY_BODY_LEN_MAX as u64 {
        let reason = format!("policy `{rendered}` holds more than {POLICY_BODY_LEN_MAX} bytes");
        return Err(Failure::usage(reason, "join rules by prefixes or roles"));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    parsed(&text).map_err(|Mistake { at, reason, next }| {
        Failure::usage(format!("policy `{rendered}`, line {}: {reason}", line(&text, at)), next)
    })
}

fn parsed(text: &str) -> Result<PolicyText, Mistake> {
    let File { super_users, required_capabilities, rule } = toml::from_str(text).map_err(|error| of_toml(&error))?;
    let super_places: Vec<_> = super_users.iter().map(Spanned::span).collect();
    let rule_places: Vec<_> = rule.iter().map(Spanned::span).collect();
    let values = |list: &[Spanned<String>]| list.iter().map(|text| text.as_ref().clone()).collect();
    let policy = PolicyText {
        super_users: values(&super_users),
        required_capabilities: required_capabilities.iter().map(|(task, list)| (task.clone(), values(list))).collect(),
        rule: rule.into_iter().map(Spanned::into_inner).collect(),
    };
    let start = |places: &[Range<usize>], at: usize| places.get(at).map_or(0, |place| place.start);
    policy.policy().map_err(|error| {
        let at = match &error {
            PolicyTextError::Rule { at, .. } | PolicyTextError::Twice { at, .. } => start(&rule_places, *at),
            PolicyTextError::SuperUser(_) => {
                let wrong = |name: &String| name.parse::<PrincipalPattern>().is_err();
                start(&super_places, policy.super_users.iter().position(wrong).unwrap_or_default())
            }
            PolicyTextError::Expression { task, text, .. } => {
                let list = required_capabilities.get(task).map(Vec::as_slice).unwrap_or_default();
                list.iter().find(|item| item.as_ref() == text).map_or(0, |item| item.span().start)
            }
            PolicyTextError::Policy(_) => 0,
        };
        Mistake { at, reason: error.to_string(), next: "correct it: nothing was changed".to_owned() }
    })?;
    Ok(policy)
}

/// Where TOML or the names of its keys went wrong.
fn of_toml(error: &toml::de::Error) -> Mistake {
    let at = error.span().map_or(0, |span| span.start);
    let reason = error.message().lines().collect::<Vec<_>>().join(" ");
    // "unknown field `topc`, expected one of `id`, `effect`, …"
    let mut quoted = reason.split('`').skip(1).step_by(2).map(str::to_owned);
    let unknown = reason.starts_with("unknown field").then(|| quoted.next()).flatten();
    let next = match unknown.and_then(|unknown| nearest(&unknown, quoted)) {
        Some((_, name)) => format!("write `{name}`, if that was meant; nothing was changed"),
        None => "correct it: nothing was changed".to_owned(),
    };
    Mistake { at, reason, next }
}

/// The number of the line that a place is on.
fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line, reason and advice.
    fn mistake(text: &str) -> (usize, String, String) {
        let Mistake { at, reason, next } = parsed(text).unwrap_err();
        (line(text, at), reason, next)
    }

    const RULE: &str = "[[rule]]\nprincipal = 'client/pay'\nactions = ['read']\ntopic = 'a'\n";

    #[test]
    fn each_mistake_is_told_with_its_line_and_its_reason() {
        for (text, at, expected) in [
            ("super_users = ['admin/*'\n[[rule]]\n".to_owned(), 2, ""),
            (format!("{RULE}\n[[rule]]\nprincipal = 'client/*'\n"), 6, "missing field `actions`"),
            (format!("{RULE}topc = 'x'\n"), 5, "unknown field `topc`"),
            (format!("{RULE}network = 'here'\n"), 1, "rule 1: network: `here`"),
            (
                format!("{RULE}\n# a comment\n[[rule]]\nprincipal = 'pay'\nactions = ['all']\ntopic = ''\n"),
                7,
                "rule 2:",
            ),
            (format!("{RULE}\n[[rule]]\nprincipal = '*'\nactions = ['rread']\ntopic = ''\n"), 6, "`rread`"),
            (format!("{RULE}\n{RULE}"), 6, "is that of rule 1 too"),
            (format!("{RULE}resource = 'topic:a'\n"), 1, "exactly one of"),
            ("super_users = [\n 'admin/*',\n '*pay',\n]\n".to_owned(), 3, "`*pay`"),
            ("[required_capabilities]\nrun = ['A', 'W[']\n".to_owned(), 2, "column 3"),
            ("super_users = 1\n".to_owned(), 1, "invalid type"),
            ("rules = 1\n".to_owned(), 1, "unknown field `rules`"),
        ] {
            let (line, reason, next) = mistake(&text);
            assert!(line == at && reason.contains(expected), "line {line}, {reason}\n{text}");
            assert!(next.contains("nothing was changed"), "{next}");
        }
        assert!(mistake(&format!("{RULE}topc = 'x'\n")).2.contains("`topic`"));
        assert!(mistake("rules = 1\n").2.contains("`rule`"));
    }

    #[test]
    fn what_is_written_of_a_policy_is_read_as_the_same() {
        let text = format!("super_users = ['admin/*']\n[required_capabilities]\nrun = ['W[gpu=true]']\n{RULE}");
        let policy = parsed(&text).unwrap().policy().unwrap();
        let written = toml::to_string(&PolicyText::of(&policy)).unwrap();
        assert_eq!(parsed(&written).unwrap().policy().unwrap().rules().count(), 1);
        assert_eq!(PolicyText::of(&parsed(&written).unwrap().policy().unwrap()), PolicyText::of(&policy));
        assert!(parsed("").unwrap().policy().unwrap().is_empty());
    }
}
