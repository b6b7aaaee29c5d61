//! Who the holder of a certificate made elsewhere is: a kind and a name, as an operator's rule makes them of the
//! certificate's names.
//!
//! A node has no number here. Which member a mapped node is, is for the view to say: only `Bootstrap` and `Admit` bind
//! a mapped name to a member, so that no certificate authority elsewhere can make a member by a name alone.

use core::fmt;

use crate::name::{HostName, Name};
use crate::principal::PrincipalError;

/// A principal by name, apart from its trust domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MappedName {
    /// A node, such as `node/n1` or `node/n1.example.org`.
    Node(HostName),
    /// A broker that is no member.
    Broker(HostName),
    /// A client.
    Client(Name),
    /// A person or a tool that administers.
    Admin(Name),
}

impl MappedName {
    /// Parses what `Display` writes: a kind, a slash and a name.
    pub fn parse(text: &str) -> Result<Self, PrincipalError> {
        let (kind, name) = text.split_once('/').ok_or(PrincipalError::Kind)?;
        match kind {
            "node" => Ok(Self::Node(HostName::parse(name)?)),
            "broker" => Ok(Self::Broker(HostName::parse(name)?)),
            "client" => Ok(Self::Client(Name::parse(name)?)),
            "admin" => Ok(Self::Admin(Name::parse(name)?)),
            _ => Err(PrincipalError::Kind),
        }
    }
}

impl fmt::Display for MappedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Broker(host) => write!(f, "broker/{host}"),
            Self::Client(name) => write!(f, "client/{name}"),
            Self::Admin(name) => write!(f, "admin/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_name_is_a_kind_and_a_name_and_nothing_else() {
        for text in ["node/n1", "node/n1.example.org", "broker/b1.example.org", "client/pay", "admin/root"] {
            assert_eq!(MappedName::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "node",
            "node/",
            "/n1",
            "root/n1",
            "Node/n1",
            "node/N1",
            "node/7",
            "node/a/b",
            "node/*.example.org",
            "client/a.b",
        ] {
            assert!(MappedName::parse(text).is_err(), "{text}");
        }
    }
}
