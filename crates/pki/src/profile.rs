//! The rules that a certificate must keep by itself, by its place in a path (RFC 5280 §4; CA/Browser Forum Baseline
//! Requirements §7.1 where they are stricter and make sense without a browser).
//!
//! A rule here never looks at another certificate, except at the issuer's key identifier.

use core::net::Ipv4Addr;

use countersign_core::name::HostName;

use crate::certificate::Certificate;
use crate::constraint;
use crate::der::{DerError, Reader, tag};
use crate::extension::{GeneralName, KeyUsage};
use crate::oid;
use crate::signature;

/// What a leaf is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// The acceptor of a connection.
    Server,
    /// The dialer of a connection.
    Client,
}

impl Usage {
    const fn purpose(self) -> &'static [u8] {
        match self {
            Self::Server => oid::SERVER_AUTH,
            Self::Client => oid::CLIENT_AUTH,
        }
    }
}

/// Which rule a certificate breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// §4.1.2.2.
    #[error("serial number is not a positive number of at most 20 octets")]
    Serial,
    /// §4.1.2.4.
    #[error("issuer name is empty")]
    EmptyIssuer,
    /// §4.1.2.6.
    #[error("subject name of an authority is empty")]
    EmptySubject,
    /// Ed25519, P-256, P-384 and RSA from 2048 bits on are accepted.
    #[error("public key is weak or of a kind that is not accepted")]
    Key,
    /// §4.2.
    #[error("a critical extension is not known")]
    UnknownCritical,
    /// §4.2.1.1, §4.2.1.2, §4.2.2.1.
    #[error("an extension is critical that must not be")]
    MustNotBeCritical,
    /// §4.2.1.9, §4.2.1.10, §4.2.1.11.
    #[error("an extension is not critical that must be")]
    MustBeCritical,
    /// §4.2.1.1.
    #[error("authority key identifier is missing or does not name the issuer's key")]
    AuthorityKeyId,
    /// §4.2.1.2.
    #[error("authority has no subject key identifier")]
    SubjectKeyId,
    /// §4.2.1.3.
    #[error("key usage does not allow what the key is used for")]
    KeyUsage,
    /// §4.2.1.6.
    #[error("a subject alternative name is malformed")]
    SubjectAltName,
    /// §4.2.1.6: critical if and only if the subject is empty.
    #[error("subject alternative names must be critical exactly when the subject is empty")]
    SubjectAltNameCritical,
    /// §4.2.1.9.
    #[error("basic constraints contradict the certificate's place in the chain")]
    BasicConstraints,
    /// A certificate authority in the place of a leaf.
    #[error("certificate of an authority is used as a leaf")]
    LeafIsAuthority,
    /// §4.2.1.10.
    #[error("name constraints are malformed or stand in a leaf")]
    NameConstraints,
    /// §4.2.1.11: policies are not processed, so a required one cannot be found.
    #[error("certificate policies are constrained, which is not supported")]
    PolicyConstraints,
    /// §4.2.1.12.
    #[error("extended key usage is missing or does not allow this use")]
    ExtendedKeyUsage,
}

type Rule = Result<(), ProfileError>;

fn require(holds: bool, otherwise: ProfileError) -> Rule {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// A leaf: not an authority, may sign handshakes, and made for this use.
pub(crate) fn check_leaf(leaf: &Certificate, usage: Usage) -> Rule {
    check_serial(leaf)?;
    check_any(leaf)?;
    check_issued(leaf)?;
    let extensions = &leaf.extensions;
    if extensions.basic_constraints.as_ref().is_some_and(|basic| basic.value.ca) {
        return Err(ProfileError::LeafIsAuthority);
    }
    require(extensions.name_constraints.is_none(), ProfileError::NameConstraints)?;
    if let Some(key_usage) = &extensions.key_usage {
        // TLS 1.3 signs; §4.2.1.9 forbids keyCertSign beside CA:FALSE, and a leaf signs no revocation lists.
        let bits = key_usage.value;
        let fits = bits.has(KeyUsage::DIGITAL_SIGNATURE)
            && !bits.has(KeyUsage::KEY_CERT_SIGN)
            && !bits.has(KeyUsage::CRL_SIGN);
        require(fits, ProfileError::KeyUsage)?;
    }
    let purposes = extensions.extended_key_usage.as_ref().ok_or(ProfileError::ExtendedKeyUsage)?;
    require(!purposes.critical, ProfileError::MustNotBeCritical)?;
    let any = purposes.value.iter().any(|purpose| purpose == oid::ANY_EXTENDED_KEY_USAGE);
    require(!any && purposes.value.iter().any(|p| p == usage.purpose()), ProfileError::ExtendedKeyUsage)
}

/// An authority that a peer presented.
pub(crate) fn check_intermediate(authority: &Certificate, usage: Usage) -> Rule {
    check_serial(authority)?;
    check_any(authority)?;
    check_issued(authority)?;
    check_authority(authority)?;
    check_purpose(authority, usage)
}

/// A trusted authority must still be one that RFC 5280 would let be issued. Its serial number is not checked: no
/// verifier looks a trusted certificate up by it, and well-known roots have the number zero.
pub(crate) fn check_anchor(anchor: &Certificate, usage: Usage) -> Rule {
    check_any(anchor)?;
    check_authority(anchor)?;
    let extensions = &anchor.extensions;
    match &extensions.authority_key_id {
        None => {} // for `check_self_signed`
        Some(id) if anchor.self_issued() => {
            let own = extensions.subject_key_id.as_ref().map(|own| &own.value);
            require(!id.value.names_issuer && id.value.key_id.as_ref() == own, ProfileError::AuthorityKeyId)?;
        }
        Some(id) => require(id.value.key_id.is_some(), ProfileError::AuthorityKeyId)?,
    }
    if anchor.self_issued() {
        return require(extensions.extended_key_usage.is_none(), ProfileError::ExtendedKeyUsage);
    }
    check_purpose(anchor, usage)
}

/// "where a CA distributes its public key in the form of a "self-signed" certificate, the authority key identifier MAY
/// be omitted" (§4.2.1.1). Apart from [`check_anchor`], since it costs a signature.
pub(crate) fn check_self_signed(anchor: &Certificate) -> Rule {
    let named = anchor.extensions.authority_key_id.is_some();
    require(named || signature::verify(anchor, anchor).is_ok(), ProfileError::AuthorityKeyId)
}

/// What a certificate must be for an authority of ours to sign with it, for either use.
pub(crate) fn check_signer(authority: &Certificate) -> Rule {
    check_anchor(authority, Usage::Server)?;
    check_anchor(authority, Usage::Client)?;
    check_self_signed(authority)
}

/// The issuer's key must be the one that the certificate names: authorities of one name are told apart by it.
pub(crate) fn check_key_ids(certificate: &Certificate, issuer: &Certificate) -> Rule {
    let named = certificate.extensions.authority_key_id.as_ref().and_then(|id| id.value.key_id.as_ref());
    let own = issuer.extensions.subject_key_id.as_ref().map(|id| &id.value);
    require(named.is_some() && named == own, ProfileError::AuthorityKeyId)
}

fn check_serial(certificate: &Certificate) -> Rule {
    let serial = &certificate.serial;
    let positive = serial.first().is_some_and(|first| first & 0x80 == 0) && serial.iter().any(|&octet| octet != 0);
    require(positive && serial.len() <= 20, ProfileError::Serial)
}

fn check_any(certificate: &Certificate) -> Rule {
    let extensions = &certificate.extensions;
    require(!empty_name(&certificate.issuer), ProfileError::EmptyIssuer)?;
    require(accepted_key(certificate).unwrap_or(false), ProfileError::Key)?;
    require(extensions.unknown_critical.is_none(), ProfileError::UnknownCritical)?;
    let must_not = extensions.authority_key_id.as_ref().is_some_and(|e| e.critical)
        || extensions.subject_key_id.as_ref().is_some_and(|e| e.critical)
        || extensions.authority_info_access.as_ref().is_some_and(|e| e.critical);
    require(!must_not, ProfileError::MustNotBeCritical)?;
    if let Some(policies) = &extensions.policy_constraints {
        require(policies.critical, ProfileError::MustBeCritical)?;
        return Err(ProfileError::PolicyConstraints);
    }
    if let Some(basic) = &extensions.basic_constraints {
        require(basic.value.ca || basic.value.path_len.is_none(), ProfileError::BasicConstraints)?;
    }
    let empty_subject = empty_name(&certificate.subject);
    let Some(names) = &extensions.subject_alt_name else {
        return require(!empty_subject, ProfileError::EmptySubject);
    };
    require(names.critical == empty_subject, ProfileError::SubjectAltNameCritical)?;
    require(names.value.iter().all(well_formed), ProfileError::SubjectAltName)
}

/// Not self-signed: the issuer's key must be named by its identifier.
fn check_issued(certificate: &Certificate) -> Rule {
    let id = certificate.extensions.authority_key_id.as_ref();
    require(id.is_some_and(|id| id.value.key_id.is_some()), ProfileError::AuthorityKeyId)
}

fn check_authority(authority: &Certificate) -> Rule {
    let extensions = &authority.extensions;
    require(!empty_name(&authority.subject), ProfileError::EmptySubject)?;
    let basic = extensions.basic_constraints.as_ref().ok_or(ProfileError::BasicConstraints)?;
    require(basic.critical, ProfileError::MustBeCritical)?;
    require(basic.value.ca, ProfileError::BasicConstraints)?;
    let usage = extensions.key_usage.as_ref().ok_or(ProfileError::KeyUsage)?;
    require(usage.value.has(KeyUsage::KEY_CERT_SIGN), ProfileError::KeyUsage)?;
    require(extensions.subject_key_id.is_some(), ProfileError::SubjectKeyId)?;
    if let Some(constraints) = &extensions.name_constraints {
        require(constraints.critical, ProfileError::MustBeCritical)?;
        require(constraint::well_formed(&constraints.value), ProfileError::NameConstraints)?;
    }
    Ok(())
}

/// Purposes in an authority's certificate bound those of the leaves below it.
fn check_purpose(authority: &Certificate, usage: Usage) -> Rule {
    let Some(purposes) = &authority.extensions.extended_key_usage else { return Ok(()) };
    require(purposes.value.iter().any(|p| p == usage.purpose()), ProfileError::ExtendedKeyUsage)
}

/// `SEQUENCE {}`.
fn empty_name(name: &[u8]) -> bool {
    name == [tag::SEQUENCE, 0]
}

pub(crate) const P256: &[u8] =
    &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
pub(crate) const P384: &[u8] =
    &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
pub(crate) const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
pub(crate) const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 0x05, 0x00];

/// Each key in one spelling: points are uncompressed, curves named, so that a key has one id.
fn accepted_key(certificate: &Certificate) -> Result<bool, DerError> {
    let key = certificate.key.as_slice();
    Ok(match certificate.key_algorithm.as_slice() {
        ED25519 => key.len() == 32,
        P256 => key.len() == 65 && key.first() == Some(&4),
        P384 => key.len() == 97 && key.first() == Some(&4),
        RSA => {
            let mut numbers = Reader::new(key).within(tag::SEQUENCE)?;
            let bits = modulus_bits(numbers.integer()?);
            let exponent = numbers.integer()?;
            numbers.finish()?;
            let odd = exponent.last().is_some_and(|last| last & 1 == 1);
            (2048..=8192).contains(&bits) && bits.is_multiple_of(8) && odd && exponent != [1]
        }
        _ => false,
    })
}

/// The length of a positive number; 0 for a negative one.
fn modulus_bits(integer: &[u8]) -> usize {
    match integer {
        [0, rest @ ..] => rest.len() * 8,
        [first, rest @ ..] if first & 0x80 == 0 => (8 - first.leading_zeros() as usize) + rest.len() * 8,
        _ => 0,
    }
}

fn well_formed(name: &GeneralName) -> bool {
    match name {
        GeneralName::Email(address) => is_mailbox(address),
        GeneralName::Dns(name) => {
            // A wildcard stands for one whole leftmost label, above at least two others (RFC 6125 §6.4.3).
            match name.strip_prefix("*.") {
                Some(base) => is_dns_name(base) && base.contains('.'),
                None => is_dns_name(name),
            }
        }
        GeneralName::Ip(octets) => matches!(octets.len(), 4 | 16),
        // "The name MUST NOT be a relative URI".
        GeneralName::Uri(uri) => uri.split_once(':').is_some_and(|(scheme, rest)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
                && !rest.is_empty()
        }),
        GeneralName::Directory(_) | GeneralName::Unread(_) => true,
    }
}

/// The preferred syntax of RFC 1034 §3.5 as changed by RFC 1123 §2.1: an address is no name, and a text that ends in a
/// number is none either.
pub(crate) fn is_dns_name(name: &str) -> bool {
    let numeric_end = name.rsplit_once('.').is_some_and(|(_, last)| last.bytes().all(|b| b.is_ascii_digit()));
    !numeric_end && name.parse::<Ipv4Addr>().is_err() && HostName::parse(&name.to_ascii_lowercase()).is_ok()
}

/// `Local-part@Domain` (RFC 5321 §4.1.2), without quoting.
pub(crate) fn is_mailbox(address: &str) -> bool {
    let Some((local, domain)) = address.split_once('@') else { return false };
    let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b);
    !local.is_empty() && local.bytes().all(atom) && is_dns_name(domain)
}
