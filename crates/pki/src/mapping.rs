//! The rules by which the names of a certificate made elsewhere become a principal: `uri`, `dns:REGEX=KIND/NAME` and
//! `cn:REGEX=KIND/NAME`. The first rule that matches decides.
//!
//! A rule is explicit or absent: a certificate becomes a principal by no guess. A rule matches whole names, never a
//! part. Where it makes two different principals of one certificate, or something that is no principal, the certificate
//! is refused. A missing name matches nothing (CVE-2023-44981: a check that was skipped where a part of the name was
//! missing).

use core::fmt;

use countersign_core::limits::{MAPPING_RULE_LEN_MAX, MAPPING_RULES_MAX};
use countersign_core::mapped::MappedName;
use countersign_core::name::HostName;
use countersign_core::principal::{PrincipalError, SpiffeId, TrustDomain};
use regex_lite::Regex;

use crate::foreign::CertificateNames;

/// What certificates say where nothing else is said: exactly one URI name, a SPIFFE id that names a kind and a name.
pub const RULE_DEFAULT: &str = "uri";

/// Why a rule cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// None at all: then no certificate would be accepted.
    #[error("there is no rule")]
    None,
    /// Too many.
    #[error("{got} rules, at most {MAPPING_RULES_MAX} are allowed")]
    TooMany {
        /// How many were given.
        got: usize,
    },
    /// Too long.
    #[error("rule is {got} bytes long, at most {MAPPING_RULE_LEN_MAX} are allowed")]
    TooLong {
        /// Bytes given.
        got: usize,
    },
    /// It begins with none of `uri`, `dns:` and `cn:`.
    #[error("rule `{rule}` does not begin with dns: or cn:, and is not uri")]
    Field {
        /// The rule.
        rule: String,
    },
    /// The rule makes no principal of the names that it finds.
    #[error("rule `{rule}` has no `=KIND/NAME`")]
    Target {
        /// The rule.
        rule: String,
    },
    /// Something else than a principal is made.
    #[error("rule `{rule}` makes a `{kind}`, expected node, broker, client or admin")]
    Kind {
        /// The rule.
        rule: String,
        /// What it makes.
        kind: String,
    },
    /// The expression does not compile.
    #[error("rule `{rule}` is not a regular expression: {reason}")]
    Expression {
        /// The rule.
        rule: String,
        /// Why not.
        reason: regex_lite::Error,
    },
    /// The name refers to a group that the expression does not have.
    #[error("rule `{rule}` refers to `${group}`, the expression has {groups} groups")]
    Group {
        /// The rule.
        rule: String,
        /// The group.
        group: usize,
        /// How many there are.
        groups: usize,
    },
}

/// Why the rules make no principal of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmapped {
    /// No rule matches.
    #[error("no principal_mapping rule matches the certificate's names{}", would_accept(.accepting.as_ref()))]
    NoRule {
        /// A rule that would.
        accepting: Option<AcceptingRule>,
    },
    /// One rule makes several principals of it, and the verifier must not guess which one is meant.
    #[error("principal_mapping rule `{rule}` makes more than one principal of the certificate's names")]
    Several {
        /// The rule.
        rule: String,
    },
    /// What a rule makes of it is no principal.
    #[error(
        "principal_mapping rule `{rule}` makes `{made}` of the certificate's name, which is no principal: {reason}"
    )]
    NotAPrincipal {
        /// The rule.
        rule: String,
        /// What it makes.
        made: String,
        /// The fault of that.
        reason: PrincipalError,
    },
    /// The URI name is of another trust domain.
    #[error("certificate's URI name is of trust domain `{got}`, this cluster's is `{expected}`")]
    TrustDomain {
        /// The cluster's.
        expected: TrustDomain,
        /// The certificate's.
        got: String,
    },
    /// A node's name that no member is bound to.
    #[error("certificate maps to `node/{name}`, which no member is bound to: join that node with a token")]
    Unbound {
        /// The node's name.
        name: HostName,
    },
}

fn would_accept(rule: Option<&AcceptingRule>) -> String {
    rule.map_or_else(
        || ", and it has none that a rule could".to_owned(),
        |rule| format!("; principal_mapping rule `{rule}` would accept it"),
    )
}

/// A rule that would accept a certificate that was refused, if the operator wants it accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptingRule(String);

impl fmt::Display for AcceptingRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AcceptingRule {
    fn of(names: &CertificateNames) -> Option<Self> {
        let uri = |uri: &String| SpiffeId::parse(uri).is_ok_and(|id| MappedName::parse(path(&id)).is_ok());
        if names.uris.len() == 1 && names.uris.iter().any(uri) {
            return Some(Self(RULE_DEFAULT.to_owned()));
        }
        let host = |name: &&String| HostName::parse(name).is_ok();
        if let Some(name) = names.dns.iter().find(host) {
            // Of several names one is picked by its text: a rule for all would make several principals of them.
            let expression = if names.dns.len() == 1 { ".*".to_owned() } else { regex_lite::escape(name) };
            return Some(Self(format!("dns:({expression})=node/$1")));
        }
        names.common_name.as_ref().filter(host_name).map(|_| Self("cn:(.*)=node/$1".to_owned()))
    }
}

fn host_name(name: &&String) -> bool {
    HostName::parse(name).is_ok()
}

fn path(id: &SpiffeId) -> &str {
    id.path().strip_prefix('/').unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Dns,
    CommonName,
}

#[derive(Debug, Clone)]
enum Rule {
    Uri,
    Names(NameRule),
}

#[derive(Debug, Clone)]
struct NameRule {
    text: String,
    field: Field,
    expression: Regex,
    target: String,
}

/// Rules in their order.
#[derive(Debug, Clone)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Parses rules, of which there is at least one.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, RuleError> {
        if texts.is_empty() {
            return Err(RuleError::None);
        }
        if texts.len() > MAPPING_RULES_MAX {
            return Err(RuleError::TooMany { got: texts.len() });
        }
        texts.iter().map(|text| parse_rule(text.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Who the holder of these names is. `domain` is the cluster's; without it, as for one that joins and does not know
    /// it yet, a SPIFFE id of any trust domain will do.
    pub fn map(&self, names: &CertificateNames, domain: Option<&TrustDomain>) -> Result<MappedName, Unmapped> {
        for rule in &self.0 {
            let found = match rule {
                Rule::Uri => map_uri(names, domain)?,
                Rule::Names(rule) => rule.map(names)?,
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Err(Unmapped::NoRule { accepting: AcceptingRule::of(names) })
    }
}

/// Exactly one URI name (X509-SVID §2), a SPIFFE id whose path is a kind and a name. One of another form matches
/// nothing.
fn map_uri(names: &CertificateNames, domain: Option<&TrustDomain>) -> Result<Option<MappedName>, Unmapped> {
    let uri = match names.uris.as_slice() {
        [] => return Ok(None),
        [uri] => uri,
        _ => return Err(Unmapped::Several { rule: RULE_DEFAULT.to_owned() }),
    };
    let Ok(id) = SpiffeId::parse(uri) else { return Ok(None) };
    let Ok(mapped) = MappedName::parse(path(&id)) else { return Ok(None) };
    match domain {
        Some(expected) if id.trust_domain() != expected.as_str() => {
            Err(Unmapped::TrustDomain { expected: expected.clone(), got: id.trust_domain().to_owned() })
        }
        _ => Ok(Some(mapped)),
    }
}

impl NameRule {
    fn map(&self, names: &CertificateNames) -> Result<Option<MappedName>, Unmapped> {
        let candidates = match self.field {
            Field::Dns => names.dns.as_slice(),
            Field::CommonName => names.common_name.as_slice(),
        };
        let mut found: Option<MappedName> = None;
        for name in candidates {
            let Some(made) = self.apply(name) else { continue };
            let mapped = MappedName::parse(&made).map_err(|reason| Unmapped::NotAPrincipal {
                rule: self.text.clone(),
                made,
                reason,
            })?;
            match &found {
                Some(other) if *other != mapped => return Err(Unmapped::Several { rule: self.text.clone() }),
                _ => found = Some(mapped),
            }
        }
        Ok(found)
    }

    /// The target with its references filled in, if the expression matches the whole name.
    fn apply(&self, name: &str) -> Option<String> {
        let captures = self.expression.captures(name)?;
        let mut parts = self.target.split('$');
        let mut made = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (group, rest) = reference(part);
            made.push_str(captures.get(group?).map_or("", |group| group.as_str()));
            made.push_str(rest);
        }
        Some(made)
    }
}

/// The number at the beginning, and what follows it.
fn reference(part: &str) -> (Option<usize>, &str) {
    let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
    let (digits, rest) = part.split_at(end);
    (digits.parse().ok(), rest)
}

fn parse_rule(text: &str) -> Result<Rule, RuleError> {
    if text.len() > MAPPING_RULE_LEN_MAX {
        return Err(RuleError::TooLong { got: text.len() });
    }
    if text == RULE_DEFAULT {
        return Ok(Rule::Uri);
    }
    let rule = || text.to_owned();
    let (field, body) = match (text.strip_prefix("dns:"), text.strip_prefix("cn:")) {
        (Some(body), _) => (Field::Dns, body),
        (_, Some(body)) => (Field::CommonName, body),
        (None, None) => return Err(RuleError::Field { rule: rule() }),
    };
    // The last one: an expression may hold others.
    let (expression, target) = body.rsplit_once('=').ok_or_else(|| RuleError::Target { rule: rule() })?;
    let (kind, name) = target.split_once('/').ok_or_else(|| RuleError::Target { rule: rule() })?;
    if !["node", "broker", "client", "admin"].contains(&kind) {
        return Err(RuleError::Kind { rule: rule(), kind: kind.to_owned() });
    }
    if expression.is_empty() || name.is_empty() {
        return Err(RuleError::Target { rule: rule() });
    }
    // Compiled by itself first: one with an unbalanced `)` could leave the group that holds it to the whole name.
    let compile =
        |expression: &str| Regex::new(expression).map_err(|reason| RuleError::Expression { rule: rule(), reason });
    compile(expression)?;
    let expression = compile(&format!("^(?:{expression})$"))?;
    let groups = expression.captures_len().saturating_sub(1);
    for part in name.split('$').skip(1) {
        let group = reference(part).0.unwrap_or(usize::MAX);
        if group > groups {
            return Err(RuleError::Group { rule: rule(), group, groups });
        }
    }
    Ok(Rule::Names(NameRule { text: rule(), field, expression, target: target.to_owned() }))
}

#[cfg(test)]
mod tests;
