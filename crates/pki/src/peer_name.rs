//! Whether a leaf is one of the host that was asked for, by the names of the web (RFC 6125, RFC 9525).
//!
//! Members are told apart by their URI name instead; this is for a peer that a caller reaches by host.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::certificate::Certificate;
use crate::extension::GeneralName;
use crate::verify::ip;

/// A name that a leaf is expected to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PeerName {
    /// A DNS name, no wildcard.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// A mailbox.
    Email(String),
}

/// Whether `leaf` holds `wanted` among its subject alternative names. The common name never stands in for one
/// (RFC 9525 §2).
pub(crate) fn names_peer(leaf: &Certificate, wanted: &PeerName) -> bool {
    let names = leaf.extensions.subject_alt_name.as_ref().map_or(&[][..], |names| &names.value);
    let host = matches!(wanted, PeerName::Dns(_) | PeerName::Ip(_));
    if host && leaf.common_names().iter().any(|common| contradicts(common, names)) {
        return false;
    }
    names.iter().any(|name| match (name, wanted) {
        (GeneralName::Dns(pattern), PeerName::Dns(wanted)) => dns_matches(pattern, wanted),
        (GeneralName::Ip(octets), PeerName::Ip(wanted)) => ip(octets) == Some(wanted.to_canonical()),
        (GeneralName::Email(address), PeerName::Email(wanted)) => mailbox_matches(address, wanted),
        (_, PeerName::Dns(_) | PeerName::Ip(_) | PeerName::Email(_)) => false,
    })
}

fn dns_matches(pattern: &str, wanted: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(base) => {
            wanted.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(base))
        }
        None => pattern.eq_ignore_ascii_case(wanted),
    }
}

fn mailbox_matches(address: &str, wanted: &str) -> bool {
    match (address.split_once('@'), wanted.split_once('@')) {
        (Some((local, domain)), Some((wanted_local, wanted_domain))) => {
            local == wanted_local && domain.eq_ignore_ascii_case(wanted_domain)
        }
        _ => false,
    }
}

/// Whether the common name is a second, different word on the host (Baseline Requirements §7.1.4.3: a copy of one of
/// the names, character for character): software that still reads it would see another host than the names say.
fn contradicts(common: &str, names: &[GeneralName]) -> bool {
    if names.iter().any(|name| spelling(name).as_deref() == Some(common)) {
        return false;
    }
    let address = legacy_address(common);
    names.iter().any(|name| match name {
        GeneralName::Ip(octets) => address.is_some() && ip(octets) == address,
        GeneralName::Dns(name) => name.eq_ignore_ascii_case(common) || is_idn(common) || is_sibling(common, name),
        GeneralName::Email(_) | GeneralName::Directory(_) | GeneralName::Uri(_) | GeneralName::Unread(_) => false,
    })
}

/// The one way to write a name as text (RFC 3986 §3.2.2, RFC 5952 §4).
fn spelling(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::Dns(name) => Some(name.clone()),
        GeneralName::Ip(octets) => ip(octets).map(|address| address.to_string()),
        GeneralName::Email(_) | GeneralName::Directory(_) | GeneralName::Uri(_) | GeneralName::Unread(_) => None,
    }
}

/// An address in any notation that some resolver takes: RFC 5952 or not, octal, hexadecimal, or one single number.
fn legacy_address(text: &str) -> Option<IpAddr> {
    if let Ok(v6) = text.parse::<Ipv6Addr>() {
        return Some(IpAddr::V6(v6).to_canonical());
    }
    let parts: Vec<&str> = text.split('.').collect();
    let (last, heads) = parts.split_last()?;
    if heads.len() > 3 {
        return None;
    }
    let mut address: u32 = 0;
    for (place, head) in heads.iter().enumerate() {
        let octet = u8::try_from(legacy_number(head)?).ok()?;
        address |= u32::from(octet) << (24 - 8 * place);
    }
    // The last number fills the remaining bytes.
    let left = 32 - 8 * heads.len() as u32;
    let tail = legacy_number(last).filter(|tail| left == 32 || tail >> left == 0)?;
    Some(IpAddr::V4(Ipv4Addr::from(address | tail)))
}

/// Decimal with or without leading zeros, or hexadecimal.
fn legacy_number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        None => None,
    }
}

/// A name in another script, or encoded from one: its look-alikes cannot be told apart, so only a copy will do.
fn is_idn(common: &str) -> bool {
    let dotted = common.contains('.') && !common.contains(char::is_whitespace);
    dotted && (!common.is_ascii() || common.split('.').any(|label| label.to_ascii_lowercase().starts_with("xn--")))
}

/// Another host of the same domain: `a.example.org` beside `b.example.org`.
fn is_sibling(common: &str, name: &str) -> bool {
    match (common.split_once('.'), name.split_once('.')) {
        (Some((head, domain)), Some((label, of))) => {
            label != "*" && !head.is_empty() && domain.contains('.') && domain.eq_ignore_ascii_case(of)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_exactly_one_leftmost_label() {
        for (pattern, wanted, matches) in [
            ("example.com", "EXAMPLE.com", true),
            ("*.example.com", "foo.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", ".example.com", false),
            ("f*.example.com", "foo.example.com", false),
            ("foo.*.com", "foo.example.com", false),
        ] {
            assert_eq!(dns_matches(pattern, wanted), matches, "{pattern} {wanted}");
        }
    }

    #[test]
    fn a_common_name_that_says_something_else_than_the_names_is_noticed() {
        let dns = |name: &str| GeneralName::Dns(name.to_owned());
        let v4 = GeneralName::Ip(vec![192, 168, 1, 1]);
        let v6 = GeneralName::Ip("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets().to_vec());
        for (common, names, expected) in [
            ("192.168.1.1", vec![v4.clone()], false),
            ("0xC0A80101", vec![v4.clone()], true),
            ("3232235777", vec![v4.clone()], true),
            ("192.168.257", vec![v4.clone()], true),
            ("192.168.001.001", vec![v4.clone()], true),
            ("2001:db8::1", vec![v6.clone()], false),
            ("2001:DB8::1", vec![v6.clone()], true),
            ("2001:0db8:0:0:0:0:0:1", vec![v6], true),
            ("n1", vec![v4.clone()], false),
            ("example.com", vec![v4], false),
            ("example.com", vec![dns("example.com")], false),
            ("Example.com", vec![dns("example.com")], true),
            ("example.com", vec![dns("*.example.com")], false),
            ("a.example.com", vec![dns("*.example.com")], false),
            ("a.example.com", vec![dns("b.example.com")], true),
            ("a.example.com", vec![dns("b.example.com"), dns("a.example.com")], false),
            ("a.example.com", vec![dns("b.example.org")], false),
            ("test-測試.com", vec![dns("xn--test--wg5h0h.com")], true),
            ("xn--nxasmq6b.com", vec![dns("xn--n3h.com")], true),
            ("Example Ltd. of Zürich", vec![dns("example.com")], false),
            ("", vec![dns("example.com")], false),
        ] {
            assert_eq!(contradicts(common, &names), expected, "{common} {names:?}");
        }
    }
}
