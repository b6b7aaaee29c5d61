//! The actions that a caller can take on a resource, and sets of them.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// An action on a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Action {
    /// Get its contents.
    Read,
    /// Put something into it; call it, if it is a service.
    Write,
    /// Make it.
    Create,
    /// Remove it.
    Delete,
    /// Change what it is.
    Alter,
    /// See that it is there, and what it is.
    Describe,
    /// Act on it as part of the machinery that runs it.
    Administer,
}

/// A word that names no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no action: expected read, write, create, delete, alter, describe, administer or all")]
pub struct UnknownAction(pub String);

impl Action {
    /// Every action, in the order of its bit.
    pub const ALL: [Self; 7] =
        [Self::Read, Self::Write, Self::Create, Self::Delete, Self::Alter, Self::Describe, Self::Administer];

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Alter => "alter",
            Self::Describe => "describe",
            Self::Administer => "administer",
        }
    }

    /// Its bit in an [`ActionSet`].
    pub const fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        Self::ALL.into_iter().find(|action| action.word() == text).ok_or_else(|| UnknownAction(text.to_owned()))
    }
}

/// A set of actions, a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct ActionSet(u8);

/// Bits that stand for no action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0:#010b} holds bits of no action")]
pub struct UnknownBits(pub u8);

impl TryFrom<u8> for ActionSet {
    type Error = UnknownBits;

    fn try_from(bits: u8) -> Result<Self, UnknownBits> {
        if bits & !Self::ALL.0 == 0 { Ok(Self(bits)) } else { Err(UnknownBits(bits)) }
    }
}

impl From<ActionSet> for u8 {
    fn from(set: ActionSet) -> Self {
        set.0
    }
}

impl FromIterator<Action> for ActionSet {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        Self(actions.into_iter().fold(0, |bits, action| bits | action.bit()))
    }
}

impl From<Action> for ActionSet {
    fn from(action: Action) -> Self {
        Self(action.bit())
    }
}

impl ActionSet {
    /// None.
    pub const NONE: Self = Self(0);
    /// All.
    pub const ALL: Self = Self(0x7f);
    /// A principal that may do one of these may know that the thing exists.
    const IMPLY_DESCRIBE: Self =
        Self(Action::Read.bit() | Action::Write.bit() | Action::Delete.bit() | Action::Alter.bit());

    /// The bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `action` is among them.
    pub const fn contains(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }

    /// Whether all of `other` are among them.
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Those in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What an allow of these allows: read, write, delete and alter allow describe. A deny implies nothing.
    #[must_use]
    pub const fn allowed(self) -> Self {
        if self.0 & Self::IMPLY_DESCRIBE.0 == 0 { self } else { Self(self.0 | Action::Describe.bit()) }
    }

    /// Its actions, in order.
    pub fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL.into_iter().filter(move |action| self.contains(*action))
    }

    /// Reads words divided by commas; `all` for all of them.
    pub fn parse(text: &str) -> Result<Self, UnknownAction> {
        let word = |word: &str| match word.trim() {
            "all" => Ok(Self::ALL),
            word => word.parse().map(|action: Action| action.into()),
        };
        text.split(',').map(word).try_fold(Self::NONE, |all, set| Ok(all.union(set?)))
    }
}

impl fmt::Display for ActionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL {
            return f.pad("all");
        }
        let words: Vec<&str> = self.iter().map(Action::word).collect();
        f.pad(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allow_of_what_touches_a_thing_allows_seeing_it_and_nothing_else() {
        for action in Action::ALL {
            let expected = match action {
                Action::Read | Action::Write | Action::Delete | Action::Alter | Action::Describe => {
                    ActionSet::from_iter([action, Action::Describe])
                }
                Action::Create | Action::Administer => action.into(),
            };
            assert_eq!(ActionSet::from(action).allowed(), expected, "{action}");
        }
    }

    #[test]
    fn words_and_bits_are_read_back_and_others_refused() {
        for bits in 0..=u8::MAX {
            let Ok(set) = ActionSet::try_from(bits) else {
                assert!(bits > 0x7f, "{bits}");
                continue;
            };
            assert_eq!(u8::from(set), bits);
            if !set.is_empty() {
                assert_eq!(ActionSet::parse(&set.to_string()), Ok(set));
            }
        }
        for text in ["", "rread", "READ", "read,", "read write", "*"] {
            assert!(ActionSet::parse(text).is_err(), "{text}");
        }
        assert_eq!(ActionSet::parse("read, write").unwrap().to_string(), "read,write");
    }
}
