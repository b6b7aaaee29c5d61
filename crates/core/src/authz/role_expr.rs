//! Expressions over roles and attributes, such as `Worker[gpu=true]`.

use core::fmt;
use core::str::FromStr;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::subject::Subject;
use crate::limits::{ATTRIBUTE_LEN_MAX, ATTRIBUTES_MAX};

/// Why a text is no expression; columns count bytes from one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleExprError {
    /// A word is missing, or holds what no word holds.
    #[error("column {column}: expected {expected}, a word of letters, digits, `-`, `_` and `.`")]
    Word {
        /// Where.
        column: usize,
        /// The form expected there.
        expected: &'static str,
    },
    /// Something else stands where a mark should.
    #[error("column {column}: expected {expected}")]
    Mark {
        /// Where.
        column: usize,
        /// The form expected there.
        expected: &'static str,
    },
    /// A word is too long.
    #[error("column {column}: a word of {got} bytes, at most {ATTRIBUTE_LEN_MAX} are allowed")]
    TooLong {
        /// Where it begins.
        column: usize,
        /// Its bytes.
        got: usize,
    },
    /// One attribute is named twice.
    #[error("attribute `{0}` is named twice")]
    Twice(String),
    /// Too many attributes.
    #[error("at most {ATTRIBUTES_MAX} attributes can be named")]
    TooMany,
}

/// A role, and attributes that its holder must have: `Worker`, `Worker[gpu=true]`, `Worker[gpu=true,zone=eu]`. A
/// principal that lacks an attribute does not match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoleExpr {
    role: String,
    attributes: BTreeMap<String, String>,
}

/// Whether the text may be a role, an attribute's name or its value: what an expression can spell.
pub fn is_word(text: &str) -> bool {
    let spelled = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= ATTRIBUTE_LEN_MAX && text.bytes().all(spelled)
}

impl RoleExpr {
    /// The role that is needed.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The attributes that are needed.
    pub const fn attributes(&self) -> &BTreeMap<String, String> {
        &self.attributes
    }

    /// Whether `subject` has the role and each attribute.
    pub fn matches(&self, subject: &Subject) -> bool {
        subject.roles.contains(&self.role) && self.is_met_by(&subject.attributes)
    }

    /// Whether it matches every principal that `other` matches.
    pub fn covers(&self, other: &Self) -> bool {
        self.role == other.role && self.is_met_by(&other.attributes)
    }

    /// Whether each attribute that is needed is among these, with its value.
    pub(super) fn is_met_by(&self, held: &BTreeMap<String, String>) -> bool {
        self.attributes.iter().all(|(name, value)| held.get(name) == Some(value))
    }
}

impl FromStr for RoleExpr {
    type Err = RoleExprError;

    fn from_str(text: &str) -> Result<Self, RoleExprError> {
        let mut rest = Rest { text, at: 0 };
        let role = rest.word("a role")?;
        let mut attributes = BTreeMap::new();
        if rest.take('[') {
            loop {
                let name = rest.word("an attribute's name")?;
                rest.expect('=', "`=` and a value")?;
                let value = rest.word("an attribute's value")?;
                if attributes.insert(name.clone(), value).is_some() {
                    return Err(RoleExprError::Twice(name));
                }
                if attributes.len() > ATTRIBUTES_MAX {
                    return Err(RoleExprError::TooMany);
                }
                if !rest.take(',') {
                    break;
                }
            }
            rest.expect(']', "`,` or `]`")?;
        }
        match rest.left() {
            "" => Ok(Self { role, attributes }),
            _ => Err(RoleExprError::Mark { column: rest.at + 1, expected: "`[`, or nothing more" }),
        }
    }
}

struct Rest<'a> {
    text: &'a str,
    at: usize,
}

impl Rest<'_> {
    fn left(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, mark: char) -> bool {
        let found = self.left().starts_with(mark);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, mark: char, expected: &'static str) -> Result<(), RoleExprError> {
        if self.take(mark) { Ok(()) } else { Err(RoleExprError::Mark { column: self.at + 1, expected }) }
    }

    fn word(&mut self, expected: &'static str) -> Result<String, RoleExprError> {
        let left = self.left();
        let len = left.find(['[', ']', ',', '=']).unwrap_or(left.len());
        let word = left.get(..len).unwrap_or_default().to_owned();
        if len > ATTRIBUTE_LEN_MAX {
            return Err(RoleExprError::TooLong { column: self.at + 1, got: len });
        }
        if !is_word(&word) {
            return Err(RoleExprError::Word { column: self.at + 1, expected });
        }
        self.at += len;
        Ok(word)
    }
}

impl fmt::Display for RoleExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.role)?;
        let mut mark = '[';
        for (name, value) in &self.attributes {
            write!(f, "{mark}{name}={value}")?;
            mark = ',';
        }
        if self.attributes.is_empty() { Ok(()) } else { f.write_str("]") }
    }
}

impl TryFrom<String> for RoleExpr {
    type Error = RoleExprError;

    fn try_from(text: String) -> Result<Self, RoleExprError> {
        text.parse()
    }
}

impl From<RoleExpr> for String {
    fn from(expr: RoleExpr) -> Self {
        expr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read_and_written_back() {
        for text in ["Worker", "Worker[gpu=true]", "Worker[gpu=true,zone=eu-1]", "a_b.c-d"] {
            assert_eq!(text.parse::<RoleExpr>().unwrap().to_string(), text);
        }
        assert_eq!("W[b=1,a=2]".parse::<RoleExpr>().unwrap().to_string(), "W[a=2,b=1]");
    }

    #[test]
    fn what_is_no_expression_says_where() {
        for (text, column) in [
            ("", 1),
            ("*", 1),
            ("[gpu=true]", 1),
            ("Worker[", 8),
            ("Worker[]", 8),
            ("Worker[gpu]", 11),
            ("Worker[gpu=]", 12),
            ("Worker[gpu=true", 16),
            ("Worker[gpu=true]x", 17),
            ("Worker[gpu=true,]", 17),
            ("Worker[gpu=a b]", 12),
            ("Worker [gpu=true]", 1),
            ("Worker=x", 7),
        ] {
            let error = text.parse::<RoleExpr>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("column {column}:")), "{text}: {error}");
        }
        assert_eq!("W[a=1,a=1]".parse::<RoleExpr>(), Err(RoleExprError::Twice("a".to_owned())));
    }

    #[test]
    fn words_and_attributes_are_bounded() {
        let word = |len: usize| "a".repeat(len);
        assert!(word(ATTRIBUTE_LEN_MAX).parse::<RoleExpr>().is_ok());
        let past = word(ATTRIBUTE_LEN_MAX + 1).parse::<RoleExpr>();
        assert_eq!(past, Err(RoleExprError::TooLong { column: 1, got: ATTRIBUTE_LEN_MAX + 1 }));
        let named = |n: usize| (0..n).map(|i| format!("a{i}=1")).collect::<Vec<_>>().join(",");
        assert!(format!("W[{}]", named(ATTRIBUTES_MAX)).parse::<RoleExpr>().is_ok());
        assert_eq!(format!("W[{}]", named(ATTRIBUTES_MAX + 1)).parse::<RoleExpr>(), Err(RoleExprError::TooMany));
    }
}
