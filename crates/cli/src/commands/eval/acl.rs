//! `countersign eval acl`: Kafka's rules and questions in our words, decided by the engine that the server runs.
//!
//! Only two things are Kafka's own here: its vocabulary, and that it may allow what no rule at all is about.

use core::net::IpAddr;
use std::collections::BTreeMap;

use countersign_core::authz::{
    Action, ActionSet, Decision, Effect, Kind, NamePattern, Policy, PrincipalPattern, Question, Reason, RoleExpr, Rule,
    RuleId, Subject, decide,
};
use countersign_core::id::Generation;
use countersign_core::time::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A line of the answer.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum AclVerdict {
    Judged { id: Value, verdicts: Vec<Verdict>, rules: Vec<Option<usize>> },
    Unreadable { id: Value, error: String },
}

#[derive(Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Verdict {
    Allowed,
    Denied,
}

/// What a line holds; what else it holds is for people.
#[derive(Deserialize)]
struct Case {
    #[serde(default)]
    super_users: Vec<String>,
    default: Option<String>,
    acls: Vec<Vec<String>>,
    checks: Vec<Vec<Value>>,
    #[serde(default)]
    roles: BTreeMap<String, Vec<String>>,
}

/// Why a line cannot be judged.
#[derive(Debug, thiserror::Error)]
enum CaseError {
    #[error("line is no case: {0}")]
    Shape(#[from] serde_json::Error),
    #[error("{what} `{got}` is unknown: expected {expected}")]
    Word { what: &'static str, got: String, expected: String },
    #[error("host `{0}` is unknown: expected * or an address")]
    Host(String),
    #[error("principal `{0}` is unknown: expected TYPE:NAME")]
    Principal(String),
    #[error("expected {expected}, got {got} elements")]
    Length { expected: &'static str, got: usize },
    #[error("acl {at}: {why}")]
    Acl { at: usize, why: Box<Self> },
    #[error("check {at}: {why}")]
    Check { at: usize, why: Box<Self> },
}

/// A type of resources, and our kind.
#[derive(PartialEq, Eq)]
struct ResourceType {
    word: &'static str,
    kind: &'static str,
}

const TYPES: [ResourceType; 6] = [
    ResourceType { word: "TOPIC", kind: "topic" },
    ResourceType { word: "GROUP", kind: "group" },
    ResourceType { word: "CLUSTER", kind: "cluster" },
    ResourceType { word: "TRANSACTIONAL_ID", kind: "transactional-id" },
    ResourceType { word: "DELEGATION_TOKEN", kind: "delegation-token" },
    ResourceType { word: "USER", kind: "user" },
];

/// What an operation is about: the resource itself, or something of it that has rules of its own, so that altering it
/// allows describing it and nothing else.
const PARTS: [&str; 5] = ["", "-configs", "-idempotent", "-tokens", "-two-phase"];

/// Operations, each with the part that it is about and our action.
const OPERATIONS: [(&str, &str, Action); 13] = [
    ("READ", "", Action::Read),
    ("WRITE", "", Action::Write),
    ("CREATE", "", Action::Create),
    ("DELETE", "", Action::Delete),
    ("ALTER", "", Action::Alter),
    ("DESCRIBE", "", Action::Describe),
    ("CLUSTER_ACTION", "", Action::Administer),
    ("DESCRIBE_CONFIGS", "-configs", Action::Describe),
    ("ALTER_CONFIGS", "-configs", Action::Alter),
    ("IDEMPOTENT_WRITE", "-idempotent", Action::Write),
    ("CREATE_TOKENS", "-tokens", Action::Create),
    ("DESCRIBE_TOKENS", "-tokens", Action::Describe),
    ("TWO_PHASE_COMMIT", "-two-phase", Action::Write),
];

/// Judges one line.
pub(super) fn judge(line: &[u8]) -> AclVerdict {
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => return AclVerdict::Unreadable { id: Value::Null, error: CaseError::from(error).to_string() },
    };
    let id = value.get("id").cloned().unwrap_or_default();
    let judged = serde_json::from_value(value).map_err(CaseError::from).and_then(|case: Case| case.judge());
    match judged {
        Ok(decided) => {
            let (verdicts, rules) = decided.into_iter().unzip();
            AclVerdict::Judged { id, verdicts, rules }
        }
        Err(error) => AclVerdict::Unreadable { id, error: error.to_string() },
    }
}

/// An ACL in our words: a rule for each part of the resource that it is about, and for each of the two ways in which a
/// principal can have a role.
struct Acl {
    resource: &'static ResourceType,
    pattern: NamePattern,
    rules: Vec<Rule>,
}

/// A role's name may be any text; our expressions spell fewer, so that each name has a word of its own.
type RoleWords<'a> = BTreeMap<&'a str, RoleExpr>;

impl Case {
    fn judge(&self) -> Result<Vec<(Verdict, Option<usize>)>, CaseError> {
        let default = match self.default.as_deref() {
            Some("ALLOW") => Effect::Allow,
            Some("DENY") | None => Effect::Deny,
            Some(other) => return Err(unknown("default", other, &["ALLOW", "DENY"])),
        };
        let super_users: Vec<_> = self.super_users.iter().map(|name| exact(name)).collect::<Result<_, _>>()?;
        let words = self.role_words()?;
        let acl = |(at, acl): (usize, &Vec<String>)| {
            read_acl(at, acl, &words).map_err(|why| CaseError::Acl { at, why: Box::new(why) })
        };
        let acls: Vec<Acl> = self.acls.iter().enumerate().map(acl).collect::<Result<_, _>>()?;
        let policy = Policy::of(super_users, acls.iter().flat_map(|acl| acl.rules.iter().cloned()));
        let check = |(at, check): (usize, &Vec<Value>)| {
            let asked = self.read_check(check, &words).map_err(|why| CaseError::Check { at, why: Box::new(why) })?;
            let Decision { effect, reason, .. } = asked.decide(&policy);
            let is_bare = || !acls.iter().any(|acl| asked.resource == acl.resource && acl.pattern.matches(asked.name));
            Ok(match (effect, reason) {
                (Effect::Deny, Reason::NoRule) if default == Effect::Allow && is_bare() => (Verdict::Allowed, None),
                (effect, Reason::Rule(id)) => (effect.into(), index_of(&id)),
                (effect, _) => (effect.into(), None),
            })
        };
        self.checks.iter().enumerate().map(check).collect()
    }

    fn role_words(&self) -> Result<RoleWords<'_>, CaseError> {
        let mut words = RoleWords::new();
        for (number, (name, members)) in self.roles.iter().enumerate() {
            members.iter().try_for_each(|member| exact(member).map(drop))?;
            let word = format!("r{number}").parse().map_err(|_| CaseError::Principal(name.clone()))?;
            words.insert(name, word);
        }
        Ok(words)
    }

    fn read_check<'a>(&self, check: &'a [Value], words: &RoleWords<'_>) -> Result<Asked<'a>, CaseError> {
        let texts: Vec<&str> = check.iter().map_while(Value::as_str).collect();
        let [ptype, pname, host, operation, resource, name, ..] = texts[..] else {
            let expected = "texts [principal type, principal, host, operation, type, name]";
            return Err(CaseError::Length { expected, got: texts.len() });
        };
        let asks = format!("{ptype}:{pname}");
        let held = self.roles.iter().filter(|(_, members)| members.contains(&asks));
        let roles = held.filter_map(|(role, _)| words.get(role.as_str())).map(|expr| expr.role().to_owned()).collect();
        let resource = resource_type(resource)?;
        let (_, part, action) = *one_of("operation", operation, &OPERATIONS, |(word, ..)| word)?;
        Ok(Asked {
            subject: Subject { name: asks, roles, ..Subject::default() },
            action,
            resource,
            kind: resource.kind(part)?,
            name,
            from: address(host)?,
        })
    }
}

/// A check in our words.
struct Asked<'a> {
    subject: Subject,
    action: Action,
    resource: &'static ResourceType,
    kind: Kind,
    name: &'a str,
    from: IpAddr,
}

impl Asked<'_> {
    fn decide(&self, policy: &Policy) -> Decision {
        let Self { subject, action, kind, name, from, .. } = self;
        let now = UnixMillis::default();
        let question = Question { subject, action: *action, kind, name, from: Some(*from), now };
        decide(policy, Generation::default(), &question)
    }
}

fn read_acl(at: usize, acl: &[String], words: &RoleWords<'_>) -> Result<Acl, CaseError> {
    let [resource, name, pattern, principal, host, operation, effect] = acl else {
        let expected = "[type, name, pattern, principal, host, operation, effect]";
        return Err(CaseError::Length { expected, got: acl.len() });
    };
    let resource = resource_type(resource)?;
    let pattern = match (pattern.as_str(), name.as_str()) {
        ("LITERAL", "*") | ("PREFIXED", "") => NamePattern::Any,
        ("LITERAL", name) => NamePattern::Exact(name.into()),
        // Also an asterisk: names that begin with one, and no others.
        ("PREFIXED", name) => NamePattern::Prefix(name.into()),
        (other, _) => return Err(unknown("pattern", other, &["LITERAL", "PREFIXED"])),
    };
    let effect = match effect.as_str() {
        "ALLOW" => Effect::Allow,
        "DENY" => Effect::Deny,
        other => return Err(unknown("effect", other, &["ALLOW", "DENY"])),
    };
    let network = if host == "*" { None } else { Some(address(host)?.into()) };
    let about: Vec<(Kind, ActionSet)> = if operation == "ALL" {
        PARTS.iter().map(|part| Ok((resource.kind(part)?, ActionSet::ALL))).collect::<Result<_, CaseError>>()?
    } else {
        let (_, part, action) = *one_of("operation", operation, &OPERATIONS, |(word, ..)| word)?;
        vec![(resource.kind(part)?, action.into())]
    };
    let principals = match principal.as_str() {
        "User:*" => vec![PrincipalPattern::Any],
        name => {
            let held = name.strip_prefix("Role:").and_then(|role| words.get(role)).cloned();
            [exact(name)?].into_iter().chain(held.map(PrincipalPattern::Role)).collect()
        }
    };
    let mut rules = Vec::new();
    for ((kind, actions), principal) in about.iter().flat_map(|about| principals.iter().map(move |one| (about, one))) {
        rules.push(Rule {
            id: rule_id(at, rules.len())?,
            effect,
            principal: principal.clone(),
            actions: *actions,
            kind: kind.clone(),
            pattern: pattern.clone(),
            network,
            not_after: None,
        });
    }
    Ok(Acl { resource, pattern, rules })
}

impl ResourceType {
    fn kind(&self, part: &str) -> Result<Kind, CaseError> {
        Kind::parse(&format!("{}{part}", self.kind)).map_err(|_| unknown("type", self.word, &[]))
    }
}

fn resource_type(word: &str) -> Result<&'static ResourceType, CaseError> {
    one_of("type", word, &TYPES, |known| known.word)
}

/// The row of a table that begins with a word.
fn one_of<T>(
    what: &'static str,
    word: &str,
    table: &'static [T],
    of: fn(&T) -> &'static str,
) -> Result<&'static T, CaseError> {
    let known = || table.iter().map(of).collect::<Vec<_>>();
    table.iter().find(|row| of(row) == word).ok_or_else(|| unknown(what, word, &known()))
}

fn unknown(what: &'static str, got: &str, expected: &[&str]) -> CaseError {
    CaseError::Word { what, got: got.to_owned(), expected: expected.join(", ") }
}

fn exact(principal: &str) -> Result<PrincipalPattern, CaseError> {
    let (kind, _) = principal.split_once(':').ok_or_else(|| CaseError::Principal(principal.to_owned()))?;
    if kind.is_empty() {
        return Err(CaseError::Principal(principal.to_owned()));
    }
    Ok(PrincipalPattern::Exact(principal.into()))
}

fn address(host: &str) -> Result<IpAddr, CaseError> {
    host.parse().map(|address: IpAddr| address.to_canonical()).map_err(|_| CaseError::Host(host.to_owned()))
}

/// Ids in the order of the ACLs, so that the rule that decides is of the first of those that say so.
fn rule_id(at: usize, number: usize) -> Result<RuleId, CaseError> {
    RuleId::parse(&format!("{at:020}.{number:02}")).map_err(|error| CaseError::Principal(error.0))
}

fn index_of(id: &RuleId) -> Option<usize> {
    id.as_str().split('.').next()?.parse().ok()
}

impl From<Effect> for Verdict {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::Allow => Self::Allowed,
            Effect::Deny => Self::Denied,
        }
    }
}
