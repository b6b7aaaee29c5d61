//! Name constraints (RFC 5280 §4.2.1.10): which names an authority may certify, applied to a whole path.
//!
//! An undecidable name counts as outside: a form that is not understood, or a wildcard that might stand for an excluded
//! name (CVE-2025-61727). Comparisons are counted, since names and constraints multiply (CVE-2018-16875 and kin).

use core::mem::discriminant;

use crate::certificate::{Certificate, attributes};
use crate::der::{DerError, Reader, tag};
use crate::extension::{GeneralName, NameConstraints};
use crate::oid;
use crate::path::PathError;
use crate::profile::{is_dns_name, is_mailbox};

/// Comparisons left to one search.
#[derive(Debug)]
pub(crate) struct Budget(u32);

impl Budget {
    pub(crate) const fn new() -> Self {
        Self(100_000)
    }

    fn spend(&mut self) -> Result<(), PathError> {
        self.0 = self.0.checked_sub(1).ok_or(PathError::Budget)?;
        Ok(())
    }
}

/// Checks every name on a path, leaf first and trusted authority last, against every authority above it.
pub(crate) fn check(chain: &[&Certificate], budget: &mut Budget) -> Result<(), PathError> {
    for (place, authority) in chain.iter().enumerate() {
        let Some(constraints) = &authority.extensions.name_constraints else { continue };
        for (below, certificate) in chain.iter().take(place).enumerate() {
            // "Name constraints are not applied to self-issued certificates (unless the certificate is the final".
            if below > 0 && certificate.self_issued() {
                continue;
            }
            for name in names_of(certificate) {
                check_name(&constraints.value, &name, budget)?;
            }
        }
    }
    Ok(())
}

fn names_of(certificate: &Certificate) -> Vec<GeneralName> {
    let mut names = certificate.extensions.subject_alt_name.as_ref().map_or_else(Vec::new, |names| names.value.clone());
    // "When […] the subject alternative name extension is not present": then addresses in the subject count.
    if !names.iter().any(|name| matches!(name, GeneralName::Email(_))) {
        names.extend(attributes(&certificate.subject, oid::EMAIL_ADDRESS).into_iter().map(GeneralName::Email));
    }
    // "to the subject field […] (when the certificate includes a non-empty subject field)".
    if certificate.subject != [tag::SEQUENCE, 0] {
        names.push(GeneralName::Directory(certificate.subject.clone()));
    }
    names
}

fn check_name(constraints: &NameConstraints, name: &GeneralName, budget: &mut Budget) -> Result<(), PathError> {
    for base in constraints.excluded.iter().filter(|base| same_form(base, name)) {
        budget.spend()?;
        if excludes(base, name) {
            return Err(PathError::NameConstraint);
        }
    }
    let mut constrained = false;
    for base in constraints.permitted.iter().filter(|base| same_form(base, name)) {
        budget.spend()?;
        constrained = true;
        if permits(base, name) {
            return Ok(());
        }
    }
    if constrained { Err(PathError::NameConstraint) } else { Ok(()) }
}

fn same_form(base: &GeneralName, name: &GeneralName) -> bool {
    if let (GeneralName::Unread(a), GeneralName::Unread(b)) = (base, name) {
        return a == b;
    }
    discriminant(base) == discriminant(name)
}

/// Whether every host that `name` may stand for lies within `base`.
fn permits(base: &GeneralName, name: &GeneralName) -> bool {
    if let (GeneralName::Dns(base), GeneralName::Dns(name)) = (base, name) {
        return within(base, name.strip_prefix("*.").unwrap_or(name));
    }
    matches(base, name).unwrap_or(false)
}

/// Whether some host that `name` may stand for lies within `base`.
fn excludes(base: &GeneralName, name: &GeneralName) -> bool {
    if let (GeneralName::Dns(base), GeneralName::Dns(name)) = (base, name) {
        return match name.strip_prefix("*.") {
            Some(suffix) => within(base, suffix) || within(suffix, base),
            None => within(base, name),
        };
    }
    matches(base, name).unwrap_or(true)
}

/// None if it cannot be decided.
fn matches(base: &GeneralName, name: &GeneralName) -> Option<bool> {
    match (base, name) {
        (GeneralName::Ip(base), GeneralName::Ip(name)) => Some(in_network(base, name)),
        (GeneralName::Email(base), GeneralName::Email(name)) => mailbox_within(base, name),
        (GeneralName::Uri(base), GeneralName::Uri(name)) => uri_host(name).map(|host| host_within(base, host)),
        (GeneralName::Directory(base), GeneralName::Directory(name)) => directory_within(base, name).ok(),
        (
            GeneralName::Email(_)
            | GeneralName::Dns(_)
            | GeneralName::Directory(_)
            | GeneralName::Uri(_)
            | GeneralName::Ip(_)
            | GeneralName::Unread(_),
            _,
        ) => None,
    }
}

/// "Any DNS name that can be constructed by simply adding zero or more labels to the left-hand side of the name".
fn within(base: &str, name: &str) -> bool {
    if base.is_empty() || base.eq_ignore_ascii_case(name) {
        return true;
    }
    name.len()
        .checked_sub(base.len())
        .and_then(|at| name.split_at_checked(at))
        .is_some_and(|(head, tail)| head.ends_with('.') && tail.eq_ignore_ascii_case(base))
}

/// Address and mask follow each other in the base.
fn in_network(base: &[u8], address: &[u8]) -> bool {
    let Some((network, mask)) = base.split_at_checked(address.len()) else { return false };
    mask.len() == address.len() && network.iter().zip(mask).zip(address).all(|((n, m), a)| n & m == a & m)
}

/// A mailbox, a host, or with a leading dot a domain without its head. The part before `@` is compared exactly.
fn mailbox_within(base: &str, name: &str) -> Option<bool> {
    let (local, domain) = name.split_once('@')?;
    Some(match base.split_once('@') {
        Some((base_local, base_domain)) => base_local == local && base_domain.eq_ignore_ascii_case(domain),
        None => host_within(base, domain),
    })
}

/// A host, or with a leading dot the domain below it.
fn host_within(base: &str, host: &str) -> bool {
    match base.strip_prefix('.') {
        Some(domain) => within(domain, host) && !domain.eq_ignore_ascii_case(host),
        None => base.eq_ignore_ascii_case(host),
    }
}

/// The host of `scheme://[user@]host[:port][/…]`; none if there is no authority part, or an address in it.
fn uri_host(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    let address = host.is_empty() || host.starts_with('[') || host.parse::<core::net::Ipv4Addr>().is_ok();
    (!address).then_some(host)
}

/// The base's relative names are the first of the name's.
fn directory_within(base: &[u8], name: &[u8]) -> Result<bool, DerError> {
    let (base, name) = (relative_names(base)?, relative_names(name)?);
    let same = |a: &Vec<Attribute<'_>>, b: &Vec<Attribute<'_>>| a.len() == b.len() && a.iter().all(|x| b.contains(x));
    Ok(base.len() <= name.len() && base.iter().zip(&name).all(|(a, b)| same(a, b)))
}

#[derive(PartialEq, Eq)]
enum AttributeValue<'a> {
    /// Text, compared without regard to case, spacing or the kind of string (RFC 5280 §7.1).
    Text(String),
    Other(&'a [u8]),
}

type Attribute<'a> = (&'a [u8], AttributeValue<'a>);

fn relative_names(name: &[u8]) -> Result<Vec<Vec<Attribute<'_>>>, DerError> {
    Reader::new(name).within(tag::SEQUENCE)?.each(|sets| {
        sets.within(tag::SET)?.each(|set| {
            let mut attribute = set.within(tag::SEQUENCE)?;
            let id = attribute.oid()?;
            let value = attribute.any()?;
            let text = matches!(value.tag, 0x0c | 0x13 | 0x16).then(|| core::str::from_utf8(value.content).ok());
            Ok::<_, DerError>((
                id,
                match text.flatten() {
                    Some(text) => {
                        AttributeValue::Text(text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase())
                    }
                    None => AttributeValue::Other(value.raw),
                },
            ))
        })
    })
}

/// Whether every constraint has the syntax that §4.2.1.10 gives it.
pub(crate) fn well_formed(constraints: &NameConstraints) -> bool {
    constraints.permitted.iter().chain(&constraints.excluded).all(|base| match base {
        // No wildcard and no leading dot: those are for URIs.
        GeneralName::Dns(name) => name.is_empty() || is_dns_name(name),
        GeneralName::Ip(octets) => is_network(octets),
        GeneralName::Email(base) => is_mailbox(base) || is_dns_name(base.strip_prefix('.').unwrap_or(base)),
        GeneralName::Uri(base) => is_uri_host(base.strip_prefix('.').unwrap_or(base)),
        GeneralName::Directory(_) | GeneralName::Unread(_) => true,
    })
}

/// A trust domain may hold underscores, a DNS name may not (SPIFFE-ID §2.1).
fn is_uri_host(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// Address and mask of one length, the mask without holes (RFC 4632 §3.1).
fn is_network(octets: &[u8]) -> bool {
    if !matches!(octets.len(), 8 | 32) {
        return false;
    }
    let Some((_, mask)) = octets.split_at_checked(octets.len() / 2) else { return false };
    let ones: u32 = mask.iter().take_while(|&&octet| octet == 0xff).count() as u32 * 8;
    let mut rest = mask.iter().skip_while(|&&octet| octet == 0xff);
    let edge = rest.next().copied().unwrap_or(0);
    ones <= 128 && edge.leading_ones() + edge.trailing_zeros() >= 8 && rest.all(|&octet| octet == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(name: &str) -> GeneralName {
        GeneralName::Dns(name.to_owned())
    }
    fn email(name: &str) -> GeneralName {
        GeneralName::Email(name.to_owned())
    }
    fn uri(name: &str) -> GeneralName {
        GeneralName::Uri(name.to_owned())
    }
    fn ip(octets: &[u8]) -> GeneralName {
        GeneralName::Ip(octets.to_vec())
    }
    /// A `Name` of single attributes: type (the last octet below id-at), string tag, text.
    fn directory(attributes: &[(u8, u8, &str)]) -> GeneralName {
        let wrap = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
        let attribute = |(kind, string, text): &(u8, u8, &str)| {
            let pair = [wrap(tag::OID, &[0x55, 0x04, *kind]), wrap(*string, text.as_bytes())].concat();
            wrap(tag::SET, &wrap(tag::SEQUENCE, &pair))
        };
        GeneralName::Directory(wrap(tag::SEQUENCE, &attributes.iter().flat_map(attribute).collect::<Vec<_>>()))
    }

    const UTF8: u8 = 0x0c;
    const PRINTABLE: u8 = 0x13;

    #[test]
    fn each_form_of_name_is_within_or_outside() {
        let (org, cn) = (10, 3);
        for (base, name, within) in [
            (dns("example.com"), dns("example.com"), true),
            (dns("example.com"), dns("a.b.EXAMPLE.com"), true),
            (dns("example.com"), dns("notexample.com"), false),
            (dns("a.example.com"), dns("example.com"), false),
            (dns(""), dns("anything.org"), true),
            (ip(&[192, 0, 2, 0, 255, 255, 255, 0]), ip(&[192, 0, 2, 7]), true),
            (ip(&[192, 0, 2, 0, 255, 255, 255, 0]), ip(&[192, 0, 3, 7]), false),
            (ip(&[0; 32]), ip(&[192, 0, 3, 7]), false), // ::/0 holds no IPv4 address
            (ip(&[0; 32]), ip(&[9; 16]), true),
            (email("a@example.com"), email("a@EXAMPLE.com"), true),
            (email("a@example.com"), email("A@example.com"), false),
            (email("example.com"), email("a@example.com"), true),
            (email("example.com"), email("a@host.example.com"), false),
            (email(".example.com"), email("a@host.example.com"), true),
            (email(".example.com"), email("a@example.com"), false),
            (uri("td.internal"), uri("spiffe://td.internal/node/1"), true),
            (uri("td.internal"), uri("spiffe://other.internal/node/1"), false),
            (uri("td.internal"), uri("spiffe://td.internal.evil.org/node/1"), false),
            (uri("td.internal"), uri("spiffe://other.internal/td.internal"), false),
            (uri("td.internal"), uri("https://td.internal@evil.org/"), false),
            (uri("evil.org"), uri("https://td.internal@evil.org/"), true),
            (uri(".example.com"), uri("https://a.example.com:8443/"), true),
            (uri(".example.com"), uri("https://example.com/"), false),
            (directory(&[(org, UTF8, "X")]), directory(&[(org, UTF8, "X"), (cn, UTF8, "n1")]), true),
            (directory(&[(org, UTF8, "X  corp ")]), directory(&[(org, PRINTABLE, "x Corp")]), true),
            (directory(&[(org, UTF8, "X")]), directory(&[(org, UTF8, "Y")]), false),
            (directory(&[(org, UTF8, "X")]), directory(&[(cn, UTF8, "X")]), false),
            (directory(&[(org, UTF8, "X"), (cn, UTF8, "n1")]), directory(&[(org, UTF8, "X")]), false),
            (directory(&[]), directory(&[(org, UTF8, "X")]), true),
        ] {
            assert_eq!(permits(&base, &name), within, "{base:?} {name:?}");
            assert_eq!(excludes(&base, &name), within, "{base:?} {name:?}");
        }
    }

    #[test]
    fn a_wildcard_is_permitted_as_a_whole_and_excluded_for_a_part() {
        for (base, permitted, excluded) in [
            ("example.com", true, true),
            ("com", true, true),
            ("bar.example.com", false, true), // CVE-2025-61727
            ("other.com", false, false),
        ] {
            assert_eq!(permits(&dns(base), &dns("*.example.com")), permitted, "{base}");
            assert_eq!(excludes(&dns(base), &dns("*.example.com")), excluded, "{base}");
        }
    }

    #[test]
    fn what_cannot_be_decided_is_outside_both_ways() {
        for (base, name) in [
            (uri("td.internal"), uri("urn:uuid:0")),
            (uri("td.internal"), uri("spiffe:///node/1")),
            (uri("10.0.0.1"), uri("https://10.0.0.1/")),
            (GeneralName::Unread(0), GeneralName::Unread(0)),
        ] {
            assert!(!permits(&base, &name) && excludes(&base, &name), "{base:?} {name:?}");
        }
        assert!(!same_form(&GeneralName::Unread(0), &GeneralName::Unread(8)));
        assert!(!same_form(&dns("a"), &uri("a")));
    }

    #[test]
    fn malformed_constraints_are_recognized() {
        let of = |base: GeneralName| well_formed(&NameConstraints { permitted: vec![base], excluded: Vec::new() });
        for good in [
            dns("example.com"),
            dns(""),
            ip(&[10, 0, 0, 0, 255, 0, 0, 0]),
            ip(&[10, 0, 0, 0, 255, 128, 0, 0]),
            ip(&[0; 8]),
            ip(&[255; 8]),
            ip(&[255; 32]),
            email("a@b.example"),
            email(".b.example"),
            uri(".td_1.internal"),
        ] {
            assert!(of(good.clone()), "{good:?}");
        }
        for bad in [
            dns(".example.com"),
            dns("*.example.com"),
            dns("exa mple.com"),
            dns("10.0.0.0"),
            ip(&[10, 0, 0, 0]),
            ip(&[10, 0, 0, 0, 255, 0, 255, 0]),
            ip(&[10, 0, 0, 0, 254, 255, 0, 0]),
            ip(&[10, 0, 0, 0, 255, 0b1010_0000, 0, 0]),
            ip(&[0; 16]),
            email("a@b@c"),
            email("@b"),
            email(""),
            uri(""),
            uri("https://td"),
        ] {
            assert!(!of(bad.clone()), "{bad:?}");
        }
    }

    #[test]
    fn comparisons_are_bounded() {
        let constraints = NameConstraints { permitted: Vec::new(), excluded: vec![dns("example.com"); 1000] };
        let mut budget = Budget::new();
        for _ in 0..100 {
            assert_eq!(check_name(&constraints, &dns("a.org"), &mut budget), Ok(()));
        }
        assert_eq!(check_name(&constraints, &dns("a.org"), &mut budget), Err(PathError::Budget));
    }
}
