//! Certificates made elsewhere: the rules that turn their names into principals.
//!
//! A rule is explicit or absent: no certificate becomes somebody by guessing.

use regex_lite::Regex;

/// The rule that asks for exactly one URI SAN, a SPIFFE id of ours.
const URI: &str = "uri";

/// Why a rule cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MappingError {
    /// Neither `uri` nor `dns:` nor `cn:`.
    #[error("rule `{rule}` does not begin with dns: or cn:, and is not uri")]
    Field { rule: String },
    /// Nothing is made of what is found.
    #[error("rule `{rule}` has no `=KIND/NAME`")]
    Target { rule: String },
    /// Something else than a principal is made.
    #[error("rule `{rule}` makes a `{kind}`, expected node, broker, client or admin")]
    Kind { rule: String, kind: String },
    /// The expression does not compile.
    #[error("rule `{rule}` is not a regular expression: {reason}")]
    Expression { rule: String, reason: String },
    /// The name refers to a group that the expression does not have.
    #[error("rule `{rule}` refers to `${group}`, the expression has {groups} groups")]
    Group { rule: String, group: usize, groups: usize },
}

/// Checks a rule: `uri`, `dns:REGEX=KIND/NAME` or `cn:REGEX=KIND/NAME`.
pub(crate) fn check_rule(text: &str) -> Result<(), MappingError> {
    if text == URI {
        return Ok(());
    }
    let rule = || text.to_owned();
    let body = text.strip_prefix("dns:").or_else(|| text.strip_prefix("cn:"));
    let body = body.ok_or_else(|| MappingError::Field { rule: rule() })?;
    // The last one: an expression may hold others.
    let (expression, target) = body.rsplit_once('=').ok_or_else(|| MappingError::Target { rule: rule() })?;
    let (kind, name) = target.split_once('/').ok_or_else(|| MappingError::Target { rule: rule() })?;
    if !["node", "broker", "client", "admin"].contains(&kind) {
        return Err(MappingError::Kind { rule: rule(), kind: kind.to_owned() });
    }
    if expression.is_empty() || name.is_empty() {
        return Err(MappingError::Target { rule: rule() });
    }
    // As it is applied: to the whole name, never to a part of it.
    let whole = Regex::new(&format!("^(?:{expression})$"))
        .map_err(|error| MappingError::Expression { rule: rule(), reason: error.to_string() })?;
    let groups = whole.captures_len().saturating_sub(1);
    match references(name).find(|group| *group > groups) {
        Some(group) => Err(MappingError::Group { rule: rule(), group, groups }),
        None => Ok(()),
    }
}

/// The numbers after `$` in a template.
fn references(template: &str) -> impl Iterator<Item = usize> {
    template.split('$').skip(1).map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(usize::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_a_field_an_expression_and_a_principal() {
        for rule in [
            "uri",
            r"dns:(.*)\.example\.org=node/$1",
            "cn:(.*)=node/$1",
            "cn:([a-z]+)-([0-9]+)=client/$1-$2",
            "cn:a=b=broker/c",
        ] {
            assert_eq!(check_rule(rule), Ok(()), "{rule}");
        }
    }

    #[test]
    fn other_rules_are_refused() {
        use MappingError as E;
        let rule = |rule: &str| rule.to_owned();
        for (text, expected) in [
            ("", E::Field { rule: rule("") }),
            ("URI", E::Field { rule: rule("URI") }),
            ("email:(.*)=node/$1", E::Field { rule: rule("email:(.*)=node/$1") }),
            ("cn:(.*)", E::Target { rule: rule("cn:(.*)") }),
            ("cn:(.*)=node", E::Target { rule: rule("cn:(.*)=node") }),
            ("cn:(.*)=node/", E::Target { rule: rule("cn:(.*)=node/") }),
            ("cn:=node/a", E::Target { rule: rule("cn:=node/a") }),
            ("cn:(.*)=root/$1", E::Kind { rule: rule("cn:(.*)=root/$1"), kind: "root".to_owned() }),
            ("cn:(.*)=node/$2", E::Group { rule: rule("cn:(.*)=node/$2"), group: 2, groups: 1 }),
            ("cn:.*=node/$1", E::Group { rule: rule("cn:.*=node/$1"), group: 1, groups: 0 }),
        ] {
            assert_eq!(check_rule(text), Err(expected), "{text}");
        }
        assert!(matches!(check_rule("cn:(=node/$1"), Err(E::Expression { .. })));
    }
}
