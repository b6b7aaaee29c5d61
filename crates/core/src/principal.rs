//! Who: SPIFFE ids, and the four kinds of principal that a cluster knows.
//!
//! Parsed once, at the edge. What does not parse never becomes a path, a log field or a map key.
//! Source: SPIFFE-ID §2 (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>).

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::limits::{SPIFFE_ID_LEN_MAX, TRUST_DOMAIN_LEN_MAX};
use crate::name::{HostName, Name, NameError};

/// Why a text is no SPIFFE id, or not one of a principal of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalError {
    /// Nothing was given.
    #[error("cannot be empty")]
    Empty,
    /// Longer than [`SPIFFE_ID_LEN_MAX`].
    #[error("is {got} bytes long, at most {SPIFFE_ID_LEN_MAX} are allowed")]
    TooLong {
        /// Bytes given.
        got: usize,
    },
    /// Does not begin with `spiffe://`.
    #[error("scheme is missing or invalid")]
    Scheme,
    /// No trust domain.
    #[error("trust domain is missing")]
    NoTrustDomain,
    /// A trust domain longer than [`TRUST_DOMAIN_LEN_MAX`].
    #[error("trust domain is {got} bytes long, at most {TRUST_DOMAIN_LEN_MAX} are allowed")]
    TrustDomainTooLong {
        /// Bytes given.
        got: usize,
    },
    /// A character that a trust domain may not hold.
    #[error("trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores")]
    TrustDomainCharacter,
    /// `//` within the path.
    #[error("path cannot contain empty segments")]
    EmptySegment,
    /// `.` or `..` as a segment.
    #[error("path cannot contain dot segments")]
    DotSegment,
    /// A character that a path segment may not hold.
    #[error("path segment characters are limited to letters, numbers, dots, dashes, and underscores")]
    PathCharacter,
    /// `/` at the end.
    #[error("path cannot have a trailing slash")]
    TrailingSlash,
    /// A valid SPIFFE id whose path is not `/node/…`, `/broker/…`, `/client/…` or `/admin/…`.
    #[error("is not a node, broker, client or admin")]
    Kind,
    /// The node id in the path is not a positive decimal number in its shortest form.
    #[error("node id is not a positive number")]
    NodeNumber,
    /// The name in the path breaks the rules for names.
    #[error("{0}")]
    Name(#[from] NameError),
}

/// A trust domain: the namespace that all principals of a cluster share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Parses the characters of SPIFFE-ID §2.1, at most [`TRUST_DOMAIN_LEN_MAX`] of them.
    pub fn parse(text: &str) -> Result<Self, PrincipalError> {
        if text.len() > TRUST_DOMAIN_LEN_MAX {
            return Err(PrincipalError::TrustDomainTooLong { got: text.len() });
        }
        check_trust_domain(text)?;
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = PrincipalError;
    fn try_from(text: String) -> Result<Self, PrincipalError> {
        Self::parse(&text)
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Any SPIFFE id, of ours or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    trust_domain: String,
    path: String,
}

impl SpiffeId {
    /// Parses the syntax of a SPIFFE id as SPIFFE-ID §2 has it: no percent-encoding, no port, no query, no fragment.
    /// Lengths are not judged here: the specification says what must be supported, not what must be refused.
    pub fn parse(text: &str) -> Result<Self, PrincipalError> {
        if text.is_empty() {
            return Err(PrincipalError::Empty);
        }
        let rest = text.strip_prefix("spiffe://").ok_or(PrincipalError::Scheme)?;
        let (domain, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        check_trust_domain(domain)?;
        check_path(path)?;
        Ok(Self { trust_domain: domain.to_owned(), path: path.to_owned() })
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The path: empty, or beginning with a slash.
    pub fn path(&self) -> &str {
        &self.path
    }
}

fn check_trust_domain(text: &str) -> Result<(), PrincipalError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    match text {
        "" => Err(PrincipalError::NoTrustDomain),
        _ if text.bytes().all(allowed) => Ok(()),
        _ => Err(PrincipalError::TrustDomainCharacter),
    }
}

fn check_path(path: &str) -> Result<(), PrincipalError> {
    let Some(segments) = path.strip_prefix('/') else {
        return Ok(()); // empty: `check_path` is given nothing else without a slash
    };
    let mut segments = segments.split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "" if segments.peek().is_none() => return Err(PrincipalError::TrailingSlash),
            "" => return Err(PrincipalError::EmptySegment),
            "." | ".." => return Err(PrincipalError::DotSegment),
            _ => {}
        }
        if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return Err(PrincipalError::PathCharacter);
        }
    }
    Ok(())
}

/// What a principal is, apart from its trust domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// A member of the cluster: `/node/<id>`.
    Node(NodeId),
    /// A broker that is no member: `/broker/<host>`.
    Broker(HostName),
    /// A client: `/client/<name>`.
    Client(Name),
    /// A person or a tool that administers: `/admin/<name>`.
    Admin(Name),
}

impl fmt::Display for Role {
    /// Writes the path without its leading slash, such as `node/3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node/{id}"),
            Self::Broker(host) => write!(f, "broker/{host}"),
            Self::Client(name) => write!(f, "client/{name}"),
            Self::Admin(name) => write!(f, "admin/{name}"),
        }
    }
}

impl Role {
    /// Parses what `Display` writes: a kind, a slash and a name.
    pub fn parse(text: &str) -> Result<Self, PrincipalError> {
        let (kind, name) = text.split_once('/').ok_or(PrincipalError::Kind)?;
        match kind {
            "node" => parse_node_id(name).map(Self::Node),
            "broker" => Ok(Self::Broker(HostName::parse(name)?)),
            "client" => Ok(Self::Client(Name::parse(name)?)),
            "admin" => Ok(Self::Admin(Name::parse(name)?)),
            _ => Err(PrincipalError::Kind),
        }
    }

    /// The node's number, if this is a node.
    pub const fn node_id(&self) -> Option<NodeId> {
        match self {
            Self::Node(id) => Some(*id),
            Self::Broker(_) | Self::Client(_) | Self::Admin(_) => None,
        }
    }
}

/// Who: a role within a trust domain. Shown and carried in certificates as `spiffe://<trust-domain>/<role>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// The namespace.
    pub trust_domain: TrustDomain,
    /// Who within it.
    pub role: Role,
}

impl Principal {
    /// Parses a SPIFFE id that names a principal of ours.
    pub fn parse(text: &str) -> Result<Self, PrincipalError> {
        if text.len() > SPIFFE_ID_LEN_MAX {
            return Err(PrincipalError::TooLong { got: text.len() });
        }
        let id = SpiffeId::parse(text)?;
        let path = id.path().strip_prefix('/').ok_or(PrincipalError::Kind)?;
        Ok(Self { trust_domain: TrustDomain::parse(&id.trust_domain)?, role: Role::parse(path)? })
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.trust_domain, self.role)
    }
}

/// One number has one spelling: no sign, no leading zero, so that two ids never name one node.
fn parse_node_id(text: &str) -> Result<NodeId, PrincipalError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    let number = if digits { text.parse().ok() } else { None };
    number.map(NodeId).ok_or(PrincipalError::NodeNumber)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_round_trip() {
        for text in [
            "spiffe://east-1a2b3c4d.internal/node/1",
            "spiffe://td/broker/b1.example.org",
            "spiffe://td/client/pay-1",
            "spiffe://td/admin/root",
        ] {
            assert_eq!(Principal::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_second_spelling_of_a_principal_is_refused() {
        use PrincipalError as E;
        for (text, expected) in [
            ("spiffe://td/node/01", E::NodeNumber),
            ("spiffe://td/node/0", E::NodeNumber),
            ("spiffe://td/node/-1", E::NodeNumber),
            ("spiffe://td/node/18446744073709551616", E::NodeNumber),
            ("spiffe://td/node/1/", E::TrailingSlash),
            ("spiffe://td/node", E::Kind),
            ("spiffe://td/", E::TrailingSlash),
            ("spiffe://td", E::Kind),
            ("spiffe://td/Node/1", E::Kind),
            ("spiffe://td/robot/1", E::Kind),
            ("spiffe://td/client/a/b", E::Name(NameError::Character { got: '/' })),
            ("spiffe://td/client/A", E::Name(NameError::Character { got: 'A' })),
        ] {
            assert_eq!(Principal::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_principal_is_at_most_2048_bytes_and_its_domain_255() {
        let id = |domain: usize| format!("spiffe://{}/node/1", "a".repeat(domain));
        assert!(Principal::parse(&id(255)).is_ok());
        assert_eq!(Principal::parse(&id(256)), Err(PrincipalError::TrustDomainTooLong { got: 256 }));
        assert_eq!(Principal::parse(&id(2033)), Err(PrincipalError::TooLong { got: 2049 }));
        assert_eq!(Principal::parse(&id(2032)), Err(PrincipalError::TrustDomainTooLong { got: 2032 }));
    }
}
