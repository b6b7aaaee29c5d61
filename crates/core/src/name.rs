//! Names and addresses, checked at the edge (CVE-2021-41803: a hostile name reached a template; CVE-2019-3552 and kin:
//! a path).

use core::fmt;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::limits::{DNS_NAME_LEN_MAX, NAME_LEN_MAX};

/// Why a text is no name or address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("name is empty")]
    Empty,
    /// Too long.
    #[error("name is {got} bytes long, at most {max} are allowed")]
    TooLong {
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A character outside lower-case letters, digits and hyphen (and the dot, in a host name).
    #[error("name holds {got:?}, allowed are a-z, 0-9 and `-`")]
    Character {
        /// The first such character.
        got: char,
    },
    /// A label that is empty, or begins or ends with a hyphen.
    #[error("name has a label that is empty or begins or ends with `-`")]
    Label,
    /// A name that resolvers read as an IP address: its last label is a number.
    #[error("name ends in a number: resolvers would read it as an IP address")]
    Numeric,
    /// An address without a port, or with one that is no number from 1 to 65535.
    #[error("address has no port: expected HOST:PORT")]
    Port,
}

fn check_label(text: &str) -> Result<(), NameError> {
    if text.len() > NAME_LEN_MAX {
        return Err(NameError::TooLong { got: text.len(), max: NAME_LEN_MAX });
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if let Some(got) = text.chars().find(|&c| !allowed(c)) {
        return Err(NameError::Character { got });
    }
    if text.is_empty() || text.starts_with('-') || text.ends_with('-') {
        return Err(NameError::Label);
    }
    Ok(())
}

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $parse:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and takes the text.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                $parse(text)?;
                Ok(Self(text.to_owned()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl core::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_text! {
    /// The name of a node, client or admin: one DNS label, lower case.
    Name, check_name
}
checked_text! {
    /// A DNS name, lower case, without a trailing dot.
    HostName, check_host_name
}

fn check_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() { Err(NameError::Empty) } else { check_label(text) }
}

fn check_host_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > DNS_NAME_LEN_MAX {
        return Err(NameError::TooLong { got: text.len(), max: DNS_NAME_LEN_MAX });
    }
    text.split('.').try_for_each(check_label)?;
    // `127.1`, `0x7f.1` and `2130706433` are IP addresses to many resolvers (WHATWG URL §3.5, "ends in a number").
    let last = text.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if hexadecimal || last.bytes().all(|b| b.is_ascii_digit()) { Err(NameError::Numeric) } else { Ok(()) }
}

/// Where a host is: an IP address or a DNS name. What a certificate's SAN holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Host {
    /// An IP address; IPv4-mapped IPv6 is kept as IPv4, so that one host has one spelling.
    Ip(IpAddr),
    /// A DNS name.
    Dns(HostName),
}

impl Host {
    /// Parses an IP address (IPv6 with or without brackets) or a DNS name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(ip) => Ok(Self::Ip(ip.to_canonical())),
            Err(_) => HostName::parse(text).map(Self::Dns),
        }
    }

    /// Whether this is the host itself: 127.0.0.0/8, `::1` or `localhost`.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Ip(ip) => ip.is_loopback(),
            Self::Dns(name) => name.as_str() == "localhost",
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Dns(name) => name.fmt(f),
        }
    }
}

/// An advertised address: `host:port`, IPv6 in brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// The host.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
}

impl Address {
    /// Parses `host:port`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (host, port) = text.rsplit_once(':').ok_or(NameError::Port)?;
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = if digits { port.parse().unwrap_or(0) } else { 0 };
        // `::1` would split into `:` and `1`: an IPv6 address needs its brackets.
        if port == 0 || (host.contains(':') && !host.starts_with('[')) {
            return Err(NameError::Port);
        }
        Ok(Self { host: Host::parse(host)?, port })
    }
}

impl TryFrom<String> for Address {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl core::str::FromStr for Address {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            host @ (Host::Ip(IpAddr::V4(_)) | Host::Dns(_)) => write!(f, "{host}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_node_names_are_refused() {
        for bad in [
            "",
            "a'b",
            "a\"b",
            "1 or 1=1",
            "a\0b",
            "..",
            "a/b",
            "a\\b",
            "../../etc",
            "A",
            "nöde",
            "аdmin",
            "a_b",
            "-a",
            "a-",
            "a b",
            "a\n",
            "${x}",
            "%2e",
            "node.1",
        ] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_is_at_most_63_bytes_and_a_host_name_253() {
        assert!(Name::parse(&"a".repeat(63)).is_ok());
        assert_eq!(Name::parse(&"a".repeat(64)), Err(NameError::TooLong { got: 64, max: 63 }));
        let host = |n: usize| format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(n));
        assert!(HostName::parse(&host(61)).is_ok());
        assert_eq!(HostName::parse(&host(62)), Err(NameError::TooLong { got: 254, max: 253 }));
    }

    #[test]
    fn a_host_name_that_a_resolver_reads_as_an_address_is_refused() {
        for bad in ["127.1", "010.0.0.1", "0x7f.1", "2130706433", "n1.0x", "n1.example.7"] {
            assert_eq!(HostName::parse(bad), Err(NameError::Numeric), "{bad}");
        }
        for good in ["7.example.org", "n1.x7", "0x7g", "n1"] {
            assert!(HostName::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn addresses_parse_with_ports_and_brackets() {
        for (text, shown) in [
            ("127.0.0.1:7001", "127.0.0.1:7001"),
            ("[::1]:7001", "[::1]:7001"),
            ("[::ffff:10.0.0.1]:1", "10.0.0.1:1"),
            ("n1.example.org:65535", "n1.example.org:65535"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
        for bad in ["", "n1", "n1:", "n1:0", "n1:65536", "n1:+1", "::1:1", ":1", "n1.:1", "a b:1", "[::1:1"] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
    }
}
