//! Rules as people and tools write them, in files and in JSON. A text that is not understood is refused, never passed
//! over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::action::{Action, ActionSet, UnknownAction};
use super::bounded::{at_most, by_name_at_most};
use super::change::PolicyError;
use super::policy::Policy;
use super::resource::{Kind, NamePattern};
use super::role_expr::RoleExprError;
use super::rule::{
    Effect, PrincipalPattern, PrincipalPatternError, Requirement, Rule, RuleError, RuleId, RuleIdError, canonical,
};
use crate::codec::{self, CodecError};
use crate::limits::{ACTION_WORDS_MAX, REQUIREMENTS_MAX, RULES_MAX, SUPER_USERS_MAX};
use crate::name::NameError;
use crate::time::UnixMillis;

/// One rule. Exactly one of the fields that say what it is about is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleText {
    /// Its name; by default one that follows from what it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `allow` or `deny`; `allow` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// `KIND/NAME`, `KIND/PREFIX*`, `*`, or `role:EXPRESSION`.
    pub principal: String,
    /// Words, or `all`.
    #[serde(deserialize_with = "at_most::<ACTION_WORDS_MAX, _, _>")]
    pub actions: Vec<String>,
    /// `KIND:NAME`: this one. The name may be anything, `*` too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// `KIND:PREFIX`: those that begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_prefix: Option<String>,
    /// `KIND`: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_any: Option<String>,
    /// Short for a `resource` of kind topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Short for a `resource_prefix` of kind topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_prefix: Option<String>,
    /// From this network alone, such as `10.0.0.0/8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The last second in which it counts, since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<u64>,
}

/// All rules, and what else a policy holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyText {
    /// The principals that may do everything.
    #[serde(default, deserialize_with = "at_most::<SUPER_USERS_MAX, _, _>")]
    pub super_users: Vec<String>,
    /// By task: expressions, of which the principal that runs it must meet one.
    #[serde(default, deserialize_with = "by_name_at_most::<REQUIREMENTS_MAX, _>")]
    pub required_capabilities: BTreeMap<String, Vec<String>>,
    /// The rules.
    #[serde(default, deserialize_with = "at_most::<RULES_MAX, _, _>")]
    pub rule: Vec<RuleText>,
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleTextError {
    /// Its id.
    #[error("id: {0}")]
    Id(#[from] RuleIdError),
    /// Its principal.
    #[error("principal: {0}")]
    Principal(#[from] PrincipalPatternError),
    /// Its actions.
    #[error("actions: {0}")]
    Action(#[from] UnknownAction),
    /// Nothing says what it is about, or more than one thing does.
    #[error("expected exactly one of resource, resource_prefix, resource_any, topic and topic_prefix, got {got}")]
    Resource {
        /// How many are given.
        got: usize,
    },
    /// A resource without its kind.
    #[error("{field}: `{text}` has no kind: expected KIND:NAME, such as topic:payments")]
    NoKind {
        /// Which field.
        field: &'static str,
        /// The text given.
        text: String,
    },
    /// A kind that is no label.
    #[error("{field}: kind `{kind}`: {why}")]
    Kind {
        /// Which field.
        field: &'static str,
        /// The kind given.
        kind: String,
        /// Why not.
        why: NameError,
    },
    /// No network.
    #[error("network: `{0}` is no network: expected ADDRESS/BITS, such as 10.0.0.0/8 or 2001:db8::/32, or one address")]
    Network(String),
    /// It cannot count.
    #[error("rule {0}")]
    Rule(#[from] RuleError),
    /// It cannot be encoded.
    #[error("rule cannot be encoded")]
    Codec(#[from] CodecError),
}

/// Why a text is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyTextError {
    /// A rule.
    #[error("rule {}: {why}", at + 1)]
    Rule {
        /// Which, from zero.
        at: usize,
        /// Why not.
        why: RuleTextError,
    },
    /// Two rules have one id.
    #[error("rule {}: id `{id}` is that of rule {} too", at + 1, first + 1)]
    Twice {
        /// Which, from zero.
        at: usize,
        /// The one before it.
        first: usize,
        /// The id.
        id: RuleId,
    },
    /// A super-user.
    #[error("super_users: {0}")]
    SuperUser(PrincipalPatternError),
    /// An expression of a required capability.
    #[error("required_capabilities: task `{task}`: `{text}`: {why}")]
    Expression {
        /// The task.
        task: String,
        /// The text given.
        text: String,
        /// Why not.
        why: RoleExprError,
    },
    /// Something else.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl RuleText {
    /// The rule that it says.
    pub fn rule(&self) -> Result<Rule, RuleTextError> {
        let network = self.network.as_deref().map(parse_network).transpose()?;
        let mut words = self.actions.iter().map(|word| ActionSet::parse(word));
        let actions = words.try_fold(ActionSet::NONE, |all, set| Ok::<_, UnknownAction>(all.union(set?)))?;
        let (kind, pattern) = self.about()?;
        let mut rule = Rule {
            id: RuleId::parse("unnamed")?,
            effect: self.effect.unwrap_or(Effect::Allow),
            principal: self.principal.parse()?,
            actions,
            kind,
            pattern,
            network,
            not_after: self.not_after.map(UnixMillis::from_secs),
        };
        rule.id = match &self.id {
            Some(id) => RuleId::parse(id)?,
            None => digest_id(&rule)?,
        };
        rule.check()?;
        Ok(rule)
    }

    fn about(&self) -> Result<(Kind, NamePattern), RuleTextError> {
        let exact = |text: &str| NamePattern::Exact(text.into());
        let prefix = |text: &str| NamePattern::Prefix(text.into());
        let given = [
            self.resource.as_deref().map(|text| split("resource", text).map(|(kind, name)| (kind, exact(name)))),
            self.resource_prefix
                .as_deref()
                .map(|text| split("resource_prefix", text).map(|(kind, name)| (kind, prefix(name)))),
            self.resource_any
                .as_deref()
                .map(|text| parse_kind("resource_any", text).map(|kind| (kind, NamePattern::Any))),
            self.topic.as_deref().map(|text| Ok((Kind::TOPIC, exact(text)))),
            self.topic_prefix.as_deref().map(|text| Ok((Kind::TOPIC, prefix(text)))),
        ];
        let mut given: Vec<_> = given.into_iter().flatten().collect();
        match (given.len(), given.pop()) {
            (1, Some(about)) => about,
            (got, _) => Err(RuleTextError::Resource { got }),
        }
    }

    /// The text of a rule.
    pub fn of(rule: &Rule) -> Self {
        let named = |name: &str| Some(format!("{}:{name}", rule.kind));
        let text = Self {
            id: Some(rule.id.to_string()),
            effect: Some(rule.effect),
            principal: rule.principal.to_string(),
            actions: match rule.actions {
                ActionSet::ALL => vec!["all".to_owned()],
                some => some.iter().map(Action::word).map(str::to_owned).collect(),
            },
            network: rule.network.map(|network| network.to_string()),
            not_after: rule.not_after.map(UnixMillis::secs),
            ..Self::default()
        };
        match &rule.pattern {
            NamePattern::Any => Self { resource_any: Some(rule.kind.to_string()), ..text },
            NamePattern::Exact(name) => Self { resource: named(name), ..text },
            NamePattern::Prefix(prefix) => Self { resource_prefix: named(prefix), ..text },
        }
    }
}

/// Reads `KIND:NAME`. A kind holds no colon, so the first one ends it.
pub fn split<'a>(field: &'static str, text: &'a str) -> Result<(Kind, &'a str), RuleTextError> {
    let (kind, name) = text.split_once(':').ok_or_else(|| RuleTextError::NoKind { field, text: text.to_owned() })?;
    Ok((parse_kind(field, kind)?, name))
}

fn parse_kind(field: &'static str, kind: &str) -> Result<Kind, RuleTextError> {
    Kind::parse(kind).map_err(|why| RuleTextError::Kind { field, kind: kind.to_owned(), why })
}

/// A network, or one address. IPv4 written as IPv6 is IPv4, as the addresses are that requests come from.
fn parse_network(text: &str) -> Result<ipnet::IpNet, RuleTextError> {
    let one = || text.parse::<core::net::IpAddr>().map(ipnet::IpNet::from);
    text.parse().or_else(|_| one()).map(canonical).map_err(|_| RuleTextError::Network(text.to_owned()))
}

/// The id of a rule that was given none: equal rules have equal ones, so that adding one twice adds it once.
fn digest_id(rule: &Rule) -> Result<RuleId, RuleTextError> {
    let mut hasher = blake3::Hasher::new_derive_key("countersign v1 rule id");
    hasher.update(&codec::encode(rule)?);
    let mut id = [0; 8];
    hasher.finalize_xof().fill(&mut id);
    Ok(RuleId::parse(&format!("r-{}", data_encoding::HEXLOWER.encode(&id)))?)
}

impl PolicyText {
    /// The policy that it says.
    pub fn policy(&self) -> Result<Policy, PolicyTextError> {
        let mut places = BTreeMap::new();
        let mut rules = Vec::with_capacity(self.rule.len());
        for (at, text) in self.rule.iter().enumerate() {
            let rule = text.rule().map_err(|why| PolicyTextError::Rule { at, why })?;
            if let Some(first) = places.insert(rule.id.clone(), at) {
                return Err(PolicyTextError::Twice { at, first, id: rule.id });
            }
            rules.push(rule);
        }
        let super_users: Result<BTreeSet<PrincipalPattern>, _> = self.super_users.iter().map(|t| t.parse()).collect();
        let mut policy = Policy::of(super_users.map_err(PolicyTextError::SuperUser)?, rules);
        policy.set_requirements(super::change::checked(&parse_requirements(&self.required_capabilities)?)?);
        policy.check()?;
        Ok(policy)
    }

    /// The text of a policy.
    pub fn of(policy: &Policy) -> Self {
        let expressions = |r: &Requirement| r.any_of.iter().map(ToString::to_string).collect();
        let required = policy.requirements().iter();
        Self {
            super_users: policy.super_users().iter().map(ToString::to_string).collect(),
            required_capabilities: required.map(|(task, r)| (task.clone(), expressions(r))).collect(),
            rule: policy.rules().map(|rule: &Arc<Rule>| RuleText::of(rule)).collect(),
        }
    }
}

/// Expressions by task, as configuration and policy files write them.
pub fn parse_requirements(text: &BTreeMap<String, Vec<String>>) -> Result<Vec<Requirement>, PolicyTextError> {
    let of_task = |(task, texts): (&String, &Vec<String>)| {
        let expression = |text: &String| {
            let failed = |why| PolicyTextError::Expression { task: task.clone(), text: text.clone(), why };
            text.parse().map_err(failed)
        };
        let any_of: Result<Vec<_>, _> = texts.iter().map(expression).collect();
        Ok(Requirement { task: task.clone(), any_of: any_of? })
    };
    text.iter().map(of_task).collect()
}
