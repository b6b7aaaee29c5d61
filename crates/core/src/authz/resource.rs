//! What something is done to: a kind and a name. A name may be anything, `*` too; a pattern is never a name.

use core::fmt;
use core::str::FromStr;
use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::{Name, NameError};

/// What sort of thing a resource is: one DNS label. Services that ask for permits add kinds of their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Kind(Cow<'static, str>);

impl Kind {
    /// A topic of the broker.
    pub const TOPIC: Self = Self(Cow::Borrowed("topic"));
    /// A group of consumers.
    pub const GROUP: Self = Self(Cow::Borrowed("group"));
    /// A gRPC method, `package.Service/Method`, or an HTTP route.
    pub const SERVICE: Self = Self(Cow::Borrowed("service"));
    /// A sort of task.
    pub const TASK: Self = Self(Cow::Borrowed("task"));
    /// The cluster as a whole, by its name.
    pub const CLUSTER: Self = Self(Cow::Borrowed("cluster"));
    /// A join token, by its id.
    pub const TOKEN: Self = Self(Cow::Borrowed("token"));
    /// A member, by its name.
    pub const MEMBER: Self = Self(Cow::Borrowed("member"));
    /// A certificate of a broker, client or admin, by that principal.
    pub const CERTIFICATE: Self = Self(Cow::Borrowed("certificate"));
    /// An authority, by its id.
    pub const AUTHORITY: Self = Self(Cow::Borrowed("authority"));
    /// The rules themselves. A principal that may read them may decide by them: a broker outside the cluster needs
    /// that.
    pub const POLICY: Self = Self(Cow::Borrowed("policy"));

    /// The kinds that this system knows by itself.
    pub const KNOWN: [Self; 10] = [
        Self::TOPIC,
        Self::GROUP,
        Self::SERVICE,
        Self::TASK,
        Self::CLUSTER,
        Self::TOKEN,
        Self::MEMBER,
        Self::CERTIFICATE,
        Self::AUTHORITY,
        Self::POLICY,
    ];

    /// Checks and takes the label, as `FromStr` does.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match Self::KNOWN.into_iter().find(|kind| kind.as_str() == text) {
            Some(known) => Ok(known),
            None => Ok(Self(Cow::Owned(String::from(Name::parse(text)?)))),
        }
    }

    /// The label.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Kind {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Kind {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> Self {
        kind.0.into_owned()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Which names of a kind a rule is about. Ordered: any, then exact names, then prefixes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NamePattern {
    /// All of them.
    Any,
    /// This one.
    Exact(Arc<str>),
    /// Those that begin so. Never empty: that would be another spelling of any.
    Prefix(Arc<str>),
}

impl NamePattern {
    /// Whether it is about `name`.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => **exact == *name,
            Self::Prefix(prefix) => name.starts_with(&**prefix),
        }
    }

    /// Whether it is about every name that `other` is about.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Prefix(a), Self::Exact(b) | Self::Prefix(b)) => b.starts_with(&**a),
            (Self::Exact(_) | Self::Prefix(_), Self::Any) | (Self::Exact(_), Self::Prefix(_)) => false,
        }
    }

    /// Its text; empty for any.
    pub fn text(&self) -> &str {
        match self {
            Self::Any => "",
            Self::Exact(text) | Self::Prefix(text) => text,
        }
    }
}

/// As people read it: a prefix ends in an ellipsis, since an asterisk may be part of a name.
impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("(any)"),
            Self::Exact(name) => write!(f, "`{name}`"),
            Self::Prefix(prefix) => write!(f, "`{prefix}`…"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asterisk_is_a_name_like_any_other() {
        let star = NamePattern::Exact("*".into());
        assert!(star.matches("*") && !star.matches("a") && !star.matches("**"));
        let stars = NamePattern::Prefix("*".into());
        assert!(stars.matches("*") && stars.matches("*a") && !stars.matches("a*"));
    }

    #[test]
    fn what_covers_a_pattern_matches_all_that_it_matches() {
        let texts = ["", "a", "b", "ab", "abc", "*", "*a"];
        let pattern = |text: &str| {
            let prefix = (!text.is_empty()).then(|| NamePattern::Prefix(text.into()));
            [Some(NamePattern::Any), Some(NamePattern::Exact(text.into())), prefix].into_iter().flatten()
        };
        let patterns: Vec<_> = texts.into_iter().flat_map(pattern).collect();
        for a in &patterns {
            for b in &patterns {
                if a.covers(b) {
                    assert!(texts.iter().all(|name| a.matches(name) || !b.matches(name)), "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn a_kind_is_a_label() {
        assert_eq!(Kind::parse("topic").unwrap(), Kind::TOPIC);
        assert_eq!(Kind::parse("my-kind").unwrap().as_str(), "my-kind");
        for text in ["", "Topic", "a:b", "a/b", "*", "-a"] {
            assert!(Kind::parse(text).is_err(), "{text}");
        }
    }
}
