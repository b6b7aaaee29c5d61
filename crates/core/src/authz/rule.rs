//! A rule, its text, and the reasons why one cannot count.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::action::ActionSet;
use super::resource::{Kind, NamePattern};
use super::role_expr::{RoleExpr, RoleExprError};
use super::subject::Subject;
use crate::limits::{RESOURCE_NAME_LEN_MAX, RULE_ID_LEN_MAX, SPIFFE_ID_LEN_MAX};
use crate::principal::{PrincipalError, Role};
use crate::time::UnixMillis;

/// The outcome of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It may be done.
    Allow,
    /// It may not. Wins over any number of allows.
    Deny,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// The name of a rule, by which decisions refer to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleId(Arc<str>);

/// A text that cannot name a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot name a rule: letters, digits, `-`, `_` and `.`, from 1 to {RULE_ID_LEN_MAX} of them")]
pub struct RuleIdError(pub String);

impl RuleId {
    /// Checks and takes the text.
    pub fn parse(text: &str) -> Result<Self, RuleIdError> {
        let spelled = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let fits = !text.is_empty() && text.len() <= RULE_ID_LEN_MAX && text.bytes().all(spelled);
        if fits { Ok(Self(text.into())) } else { Err(RuleIdError(text.chars().take(RULE_ID_LEN_MAX).collect())) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RuleId {
    type Error = RuleIdError;

    fn try_from(text: String) -> Result<Self, RuleIdError> {
        Self::parse(&text)
    }
}

impl From<RuleId> for String {
    fn from(id: RuleId) -> Self {
        String::from(&*id.0)
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The principals that a rule is about. Ordered: any, then exact names, then prefixes, then roles.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PrincipalPattern {
    /// Every identified principal.
    Any,
    /// The principal of this name, such as `client/pay`.
    Exact(Arc<str>),
    /// The principals whose names begin so, such as `client/` or `client/pay-`. Never empty.
    Prefix(Arc<str>),
    /// The principals that hold a role, and attributes.
    Role(RoleExpr),
}

/// Why a text names no principals for a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalPatternError {
    /// No principal could have that name.
    #[error("`{text}` is no principal: {reason}; expected KIND/NAME, KIND/PREFIX*, `*`, or role:EXPRESSION")]
    Principal {
        /// The text given.
        text: String,
        /// Why not.
        reason: PrincipalError,
    },
    /// The asterisk stands elsewhere than at the end.
    #[error("`{0}`: an asterisk can only end a principal, or be all of it")]
    Asterisk(String),
    /// The prefix is not one of a kind of principal.
    #[error("`{0}`: a prefix begins with node/, broker/, client/ or admin/")]
    Prefix(String),
    /// The expression does not parse.
    #[error("`role:{text}`: {reason}")]
    Role {
        /// The text given.
        text: String,
        /// Why not.
        reason: RoleExprError,
    },
}

impl PrincipalPattern {
    /// Whether it is about `subject`.
    pub fn matches(&self, subject: &Subject) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => **name == *subject.name,
            Self::Prefix(prefix) => subject.name.starts_with(&**prefix),
            Self::Role(expr) => expr.matches(subject),
        }
    }

    /// Whether it is surely about each principal that `other` is about.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Prefix(a), Self::Exact(b) | Self::Prefix(b)) => b.starts_with(&**a),
            (Self::Role(a), Self::Role(b)) => a.covers(b),
            (Self::Exact(_) | Self::Prefix(_) | Self::Role(_), _) => false,
        }
    }

    /// Whether its text says this and nothing else. An exact name that ends in an asterisk would come back from a file
    /// as a prefix, and the name `*` as everybody.
    pub fn is_spelled(&self) -> bool {
        self.to_string().parse().as_ref() == Ok(self)
    }
}

impl FromStr for PrincipalPattern {
    type Err = PrincipalPatternError;

    fn from_str(text: &str) -> Result<Self, PrincipalPatternError> {
        type E = PrincipalPatternError;
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(expr) = text.strip_prefix("role:") {
            let parsed = expr.parse().map_err(|reason| E::Role { text: expr.to_owned(), reason });
            return parsed.map(Self::Role);
        }
        let (name, is_prefix) = text.strip_suffix('*').map_or((text, false), |prefix| (prefix, true));
        if name.contains('*') {
            return Err(E::Asterisk(text.to_owned()));
        }
        if !is_prefix {
            let role = Role::parse(text).map_err(|reason| E::Principal { text: text.to_owned(), reason })?;
            return Ok(Self::Exact(role.to_string().into()));
        }
        let spelled = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        let of_a_kind = ["node/", "broker/", "client/", "admin/"].iter().find_map(|kind| name.strip_prefix(kind));
        match of_a_kind {
            Some(rest) if rest.bytes().all(spelled) => Ok(Self::Prefix(name.into())),
            _ => Err(E::Prefix(text.to_owned())),
        }
    }
}

impl fmt::Display for PrincipalPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Role(expr) => write!(f, "role:{expr}"),
        }
    }
}

/// A network of IPv4 addresses written as IPv6 ones, as IPv4; any other as it is.
pub(super) fn canonical(network: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(mapped) = network else { return network };
    let bits = mapped.prefix_len().checked_sub(MAPPED_BITS);
    let v4 = mapped.addr().to_ipv4_mapped().zip(bits).and_then(|(addr, bits)| Ipv4Net::new(addr, bits).ok());
    v4.map_or(network, IpNet::V4)
}

/// Bytes of a rule besides its texts: their lengths, which pattern is which, effect and actions.
const FIXED_WEIGHT: usize = 14;
/// Bytes of a network, at most.
const NETWORK_WEIGHT: usize = 19;
/// Bytes of a point in time, at most.
const TIME_WEIGHT: usize = 10;

/// One statement of who may, or may not, do what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name.
    pub id: RuleId,
    /// Whether it allows or denies.
    pub effect: Effect,
    /// The principals that it is about.
    pub principal: PrincipalPattern,
    /// The actions that it is about.
    pub actions: ActionSet,
    /// The kind of the things that it is about.
    pub kind: Kind,
    /// The names of these things.
    pub pattern: NamePattern,
    /// The network that a request must come from; any address if none.
    pub network: Option<IpNet>,
    /// The last second in which it counts; always if none.
    pub not_after: Option<UnixMillis>,
}

/// Why a rule cannot count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum RuleError {
    /// No action.
    #[error("names no action")]
    NoAction,
    /// An empty prefix.
    #[error("has an empty prefix: say that it is about any")]
    EmptyPrefix,
    /// A name longer than any that is asked about.
    #[error("has a name of more than {RESOURCE_NAME_LEN_MAX} bytes")]
    NameTooLong,
    /// A principal longer than any.
    #[error("has a principal of more than {SPIFFE_ID_LEN_MAX} bytes")]
    PrincipalTooLong,
    /// A principal that cannot exist, or whose text says something else.
    #[error("is about a principal that cannot exist")]
    Principal,
    /// The address has bits beyond the network's prefix: one network has one spelling.
    #[error("has a network whose address goes on beyond its prefix")]
    Network,
    /// IPv4 addresses written as IPv6 ones (RFC 4291 §2.5.5.2): a caller from there is known by the IPv4 address.
    #[error("has a network of IPv4 addresses written as IPv6: write it as IPv4")]
    MappedNetwork,
}

impl Rule {
    /// Whether it can count. Asked wherever one comes from outside, and again when it is applied.
    pub fn check(&self) -> Result<(), RuleError> {
        if self.actions.is_empty() {
            return Err(RuleError::NoAction);
        }
        if self.pattern.text().len() > RESOURCE_NAME_LEN_MAX {
            return Err(RuleError::NameTooLong);
        }
        let principal = match &self.principal {
            PrincipalPattern::Exact(text) | PrincipalPattern::Prefix(text) => text.len(),
            PrincipalPattern::Any | PrincipalPattern::Role(_) => 1,
        };
        if principal > SPIFFE_ID_LEN_MAX {
            return Err(RuleError::PrincipalTooLong);
        }
        if matches!(&self.pattern, NamePattern::Prefix(text) if text.is_empty())
            || matches!(&self.principal, PrincipalPattern::Prefix(_)) && principal == 0
        {
            return Err(RuleError::EmptyPrefix);
        }
        if !self.principal.is_spelled() {
            return Err(RuleError::Principal);
        }
        match self.network {
            Some(network) if network.trunc() != network => Err(RuleError::Network),
            // No address would be in it, and a deny would deny no request.
            Some(network) if canonical(network) != network => Err(RuleError::MappedNetwork),
            Some(_) | None => Ok(()),
        }
    }

    /// The actions that it decides: an allow of some implies more, a deny does not.
    pub const fn decides(&self) -> ActionSet {
        match self.effect {
            Effect::Allow => self.actions.allowed(),
            Effect::Deny => self.actions,
        }
    }

    /// Bytes that it takes in a snapshot, about.
    pub fn weight(&self) -> usize {
        let principal = match &self.principal {
            PrincipalPattern::Any => 0,
            PrincipalPattern::Exact(text) | PrincipalPattern::Prefix(text) => text.len(),
            PrincipalPattern::Role(expr) => expr.to_string().len(),
        };
        let texts = self.id.as_str().len() + principal + self.kind.as_str().len() + self.pattern.text().len();
        let network = self.network.map_or(0, |_| NETWORK_WEIGHT);
        texts + FIXED_WEIGHT + network + self.not_after.map_or(0, |_| TIME_WEIGHT)
    }

    /// Whether it depends on where a request comes from, or on the time.
    pub const fn is_conditional(&self) -> bool {
        self.network.is_some() || self.not_after.is_some()
    }

    /// Whether its conditions hold. An unknown address counts against the request. A rule for a network then allows
    /// nothing, and denies as if the address were in the network.
    pub fn holds(&self, from: Option<IpAddr>, now: UnixMillis) -> bool {
        let there = match (self.network, from) {
            (None, _) => true,
            (Some(network), Some(from)) => network.contains(&from.to_canonical()),
            (Some(_), None) => self.effect == Effect::Deny,
        };
        there && self.not_after.is_none_or(|last| now.secs() <= last.secs())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { effect, principal, actions, kind, pattern, .. } = self;
        write!(f, "{effect} {principal} {actions} {kind} {pattern}")?;
        if let Some(network) = self.network {
            write!(f, " from {network}")?;
        }
        self.not_after.map_or(Ok(()), |last| write!(f, " until {}", last.secs()))
    }
}

/// A task that only holders of one of these roles may run, whatever other rules say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The task.
    pub task: String,
    /// One of these.
    pub any_of: Vec<RoleExpr>,
}

impl Requirement {
    /// Whether `subject` meets it.
    pub fn is_met(&self, subject: &Subject) -> bool {
        self.any_of.iter().any(|expr| expr.matches(subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_have_one_spelling_and_are_read_back() {
        for text in
            ["*", "client/pay", "client/*", "client/pay-*", "node/3", "broker/b1.example", "admin/*", "role:W[a=1]"]
        {
            assert_eq!(text.parse::<PrincipalPattern>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "pay",
            "client",
            "client/",
            "client/A",
            "cli*",
            "**",
            "client/*pay",
            "client/p*y*",
            "node/0",
            "node/x",
            "role:",
            "role:*",
            "role:W[",
            "client/pay*\n",
            "/client/pay",
            "spiffe://td/client/pay",
            "Client/*",
        ] {
            assert!(text.parse::<PrincipalPattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_rule_has_bounds() {
        let rule = |pattern, actions| Rule {
            id: RuleId::parse("r").unwrap(),
            effect: Effect::Allow,
            principal: PrincipalPattern::Any,
            actions,
            kind: Kind::TOPIC,
            pattern,
            network: None,
            not_after: None,
        };
        let named = |len: usize| NamePattern::Exact("a".repeat(len).into());
        assert_eq!(rule(named(RESOURCE_NAME_LEN_MAX), ActionSet::ALL).check(), Ok(()));
        let long = rule(named(RESOURCE_NAME_LEN_MAX + 1), ActionSet::ALL).check();
        assert_eq!(long, Err(RuleError::NameTooLong));
        assert_eq!(rule(NamePattern::Prefix("".into()), ActionSet::ALL).check(), Err(RuleError::EmptyPrefix));
        assert_eq!(rule(NamePattern::Exact("".into()), ActionSet::ALL).check(), Ok(()));
        assert_eq!(rule(NamePattern::Any, ActionSet::NONE).check(), Err(RuleError::NoAction));
        let from = |network: &str| {
            let network = Some(network.parse().unwrap());
            Rule { network, ..rule(NamePattern::Any, ActionSet::ALL) }.check()
        };
        assert_eq!(from("10.0.0.1/8"), Err(RuleError::Network));
        assert_eq!(from("::ffff:10.0.0.0/104"), Err(RuleError::MappedNetwork));
        assert_eq!(
            (from("10.0.0.0/8"), from("::/0"), from("::/95"), from("2001:db8::/32")),
            (Ok(()), Ok(()), Ok(()), Ok(()))
        );
        let id = |len: usize| RuleId::parse(&"a".repeat(len));
        assert!(id(RULE_ID_LEN_MAX).is_ok() && id(RULE_ID_LEN_MAX + 1).is_err() && id(0).is_err());
    }

    #[test]
    fn a_name_that_reads_as_a_pattern_is_refused_in_a_rule() {
        let exact = |text: &str| PrincipalPattern::Exact(text.into());
        let prefix = |text: &str| PrincipalPattern::Prefix(text.into());
        for principal in ["*", "client/pay*", "role:W", "client/", "pay", "", "node/01"]
            .map(exact)
            .into_iter()
            .chain(["", "c", "*", "client/*", "client/p*", "role:"].map(prefix))
        {
            let rule = Rule {
                id: RuleId::parse("r").unwrap(),
                effect: Effect::Allow,
                principal,
                actions: ActionSet::ALL,
                kind: Kind::TOPIC,
                pattern: NamePattern::Any,
                network: None,
                not_after: None,
            };
            assert!(matches!(rule.check(), Err(RuleError::Principal | RuleError::EmptyPrefix)), "{:?}", rule.principal);
        }
    }

    #[test]
    fn what_cannot_be_told_counts_against_the_request() {
        let network: Option<IpNet> = Some("10.0.0.0/8".parse().unwrap());
        let holds = |effect, from: Option<&str>| {
            let rule = Rule {
                id: RuleId::parse("r").unwrap(),
                effect,
                principal: PrincipalPattern::Any,
                actions: ActionSet::ALL,
                kind: Kind::TOPIC,
                pattern: NamePattern::Any,
                network,
                not_after: None,
            };
            rule.holds(from.map(|ip| ip.parse().unwrap()), UnixMillis(0))
        };
        assert!(!holds(Effect::Allow, None) && holds(Effect::Deny, None));
        for (from, within) in [
            ("10.255.255.255", true),
            ("::ffff:10.0.0.1", true),
            ("9.255.255.255", false),
            ("11.0.0.0", false),
            ("::a00:1", false),
        ] {
            assert_eq!((holds(Effect::Allow, Some(from)), holds(Effect::Deny, Some(from))), (within, within), "{from}");
        }
    }
}
