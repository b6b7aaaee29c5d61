//! The extensions of a certificate that a verifier acts on, read strictly (RFC 5280 §4.2).
//!
//! Reading is apart from judging: this file finds what is well-formed; `profile` decides whether a path may use it.

use crate::der::{DerError, Reader, tag};
use crate::oid;

/// `BasicConstraints` (§4.2.1.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BasicConstraints {
    pub(crate) ca: bool,
    pub(crate) path_len: Option<u32>,
}

/// `KeyUsage` (§4.2.1.3): bit 0 is the highest of the first octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyUsage(u16);

impl KeyUsage {
    pub(crate) const DIGITAL_SIGNATURE: Self = Self(0x8000);
    pub(crate) const KEY_CERT_SIGN: Self = Self(0x0400);
    pub(crate) const CRL_SIGN: Self = Self(0x0200);

    pub(crate) const fn has(self, bit: Self) -> bool {
        self.0 & bit.0 != 0
    }
}

/// `AuthorityKeyIdentifier` (§4.2.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuthorityKeyId {
    pub(crate) key_id: Option<Vec<u8>>,
    /// Names the issuer's issuer and serial instead, or as well.
    pub(crate) names_issuer: bool,
}

/// `GeneralName` (§4.2.1.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GeneralName {
    /// rfc822Name, ASCII.
    Email(String),
    /// dNSName, ASCII.
    Dns(String),
    /// directoryName: the DER of the `Name`.
    Directory(Vec<u8>),
    /// uniformResourceIdentifier, ASCII.
    Uri(String),
    /// iPAddress: 4 or 16 octets, twice that in a constraint.
    Ip(Vec<u8>),
    /// A kind that this code does not read, by its tag number: otherName, x400Address, ediPartyName, registeredID.
    Unread(u8),
}

/// `NameConstraints` (§4.2.1.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameConstraints {
    pub(crate) permitted: Vec<GeneralName>,
    pub(crate) excluded: Vec<GeneralName>,
}

/// An extension's value, and whether it must be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marked<T> {
    pub(crate) critical: bool,
    pub(crate) value: T,
}

/// What a certificate says in its extensions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    pub(crate) basic_constraints: Option<Marked<BasicConstraints>>,
    pub(crate) key_usage: Option<Marked<KeyUsage>>,
    /// OIDs, encoded.
    pub(crate) extended_key_usage: Option<Marked<Vec<Vec<u8>>>>,
    pub(crate) subject_alt_name: Option<Marked<Vec<GeneralName>>>,
    pub(crate) name_constraints: Option<Marked<NameConstraints>>,
    pub(crate) authority_key_id: Option<Marked<AuthorityKeyId>>,
    pub(crate) subject_key_id: Option<Marked<Vec<u8>>>,
    /// Only whether it is critical: policies are not processed.
    pub(crate) policy_constraints: Option<Marked<()>>,
    pub(crate) authority_info_access: Option<Marked<()>>,
    /// The first critical extension that this build does not act on.
    pub(crate) unknown_critical: Option<Vec<u8>>,
    /// The private extension of an authority.
    pub(crate) cluster: Option<[u8; 16]>,
    /// The private extension of a member's leaf.
    pub(crate) endorsement: Option<[u8; 104]>,
}

impl Extensions {
    /// Reads `Extensions ::= SEQUENCE SIZE (1..MAX) OF Extension`. A second extension of one kind is refused
    /// (§4.2: "A certificate MUST NOT include more than one instance of a particular extension").
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, DerError> {
        let mut outer = Reader::new(bytes);
        let mut list = outer.within(tag::SEQUENCE)?;
        outer.finish()?;
        let mut seen: Vec<&[u8]> = Vec::new();
        let mut read = Self::default();
        if list.is_empty() {
            return Err(DerError);
        }
        while !list.is_empty() {
            let mut extension = list.within(tag::SEQUENCE)?;
            let id = extension.oid()?;
            let critical = extension.default_false()?;
            let value = extension.expect(tag::OCTET_STRING)?.content;
            extension.finish()?;
            if seen.contains(&id) {
                return Err(DerError);
            }
            seen.push(id);
            read.take(id, critical, value)?;
        }
        Ok(read)
    }

    fn take(&mut self, id: &[u8], critical: bool, bytes: &[u8]) -> Result<(), DerError> {
        let mut reader = Reader::new(bytes);
        match id {
            oid::BASIC_CONSTRAINTS => self.basic_constraints = mark(critical, basic_constraints(&mut reader)?),
            oid::KEY_USAGE => self.key_usage = mark(critical, key_usage(&mut reader)?),
            oid::EXTENDED_KEY_USAGE => self.extended_key_usage = mark(critical, key_purposes(&mut reader)?),
            oid::SUBJECT_ALT_NAME => self.subject_alt_name = mark(critical, general_names(&mut reader)?),
            oid::NAME_CONSTRAINTS => self.name_constraints = mark(critical, name_constraints(&mut reader)?),
            oid::AUTHORITY_KEY_ID => self.authority_key_id = mark(critical, authority_key_id(&mut reader)?),
            oid::SUBJECT_KEY_ID => {
                self.subject_key_id = mark(critical, reader.expect(tag::OCTET_STRING)?.content.to_vec());
            }
            oid::POLICY_CONSTRAINTS => {
                reader.expect(tag::SEQUENCE)?;
                self.policy_constraints = mark(critical, ());
            }
            oid::AUTHORITY_INFO_ACCESS => {
                access_descriptions(&mut reader)?;
                self.authority_info_access = mark(critical, ());
            }
            oid::CERTIFICATE_POLICIES => {
                // Understood in that no policy is ever required here: a critical one changes nothing.
                reader.expect(tag::SEQUENCE)?;
            }
            oid::CLUSTER => self.cluster = Some(fixed(&mut reader)?),
            oid::ENDORSEMENT => self.endorsement = Some(fixed(&mut reader)?),
            _ => {
                if critical && self.unknown_critical.is_none() {
                    self.unknown_critical = Some(id.to_vec());
                }
                return Ok(());
            }
        }
        reader.finish()
    }
}

#[expect(clippy::unnecessary_wraps, reason = "fits the fields it is assigned to")]
const fn mark<T>(critical: bool, value: T) -> Option<Marked<T>> {
    Some(Marked { critical, value })
}

fn basic_constraints(reader: &mut Reader<'_>) -> Result<BasicConstraints, DerError> {
    let mut fields = reader.within(tag::SEQUENCE)?;
    let ca = fields.default_false()?;
    let path_len = if fields.is_empty() { None } else { Some(small_number(fields.integer()?)?) };
    fields.finish()?;
    Ok(BasicConstraints { ca, path_len })
}

fn small_number(integer: &[u8]) -> Result<u32, DerError> {
    if integer.first().is_none_or(|first| first & 0x80 != 0) || integer.len() > 4 {
        return Err(DerError);
    }
    Ok(integer.iter().fold(0, |n, &octet| (n << 8) | u32::from(octet)))
}

/// A usage without any bit breaks §4.2.1.3, and allows nothing: it is read, and refused wherever a bit is needed.
fn key_usage(reader: &mut Reader<'_>) -> Result<KeyUsage, DerError> {
    let (unused, bits) = match *reader.expect(tag::BIT_STRING)?.content {
        [0] => (0, 0),
        [unused, first] if unused < 8 => (unused + 8, u16::from_be_bytes([first, 0])),
        [unused, first, second] if unused < 8 => (unused, u16::from_be_bytes([first, second])),
        _ => return Err(DerError),
    };
    // X.690 §11.2.1: unused bits are zero.
    if u32::from(bits) & ((1_u32 << unused) - 1) == 0 { Ok(KeyUsage(bits)) } else { Err(DerError) }
}

fn key_purposes(reader: &mut Reader<'_>) -> Result<Vec<Vec<u8>>, DerError> {
    let purposes = reader.within(tag::SEQUENCE)?.each(|purpose| purpose.oid().map(<[u8]>::to_vec))?;
    if purposes.is_empty() { Err(DerError) } else { Ok(purposes) }
}

fn general_names(reader: &mut Reader<'_>) -> Result<Vec<GeneralName>, DerError> {
    let names = reader.within(tag::SEQUENCE)?.each(general_name)?;
    if names.is_empty() { Err(DerError) } else { Ok(names) }
}

fn general_name(reader: &mut Reader<'_>) -> Result<GeneralName, DerError> {
    const EMAIL: u8 = tag::context(1);
    const DNS: u8 = tag::context(2);
    const DIRECTORY: u8 = tag::context_constructed(4);
    const URI: u8 = tag::context(6);
    const IP: u8 = tag::context(7);
    let value = reader.any()?;
    Ok(match value.tag {
        EMAIL => GeneralName::Email(ascii(value.content)?),
        DNS => GeneralName::Dns(ascii(value.content)?),
        URI => GeneralName::Uri(ascii(value.content)?),
        IP => GeneralName::Ip(value.content.to_vec()),
        DIRECTORY => {
            // Name is a CHOICE, so the tag is explicit.
            let mut inner = Reader::new(value.content);
            let name = inner.expect(tag::SEQUENCE)?;
            inner.finish()?;
            check_name(name.content)?;
            GeneralName::Directory(name.raw.to_vec())
        }
        0x88 | 0xa0 | 0xa3 | 0xa5 => GeneralName::Unread(value.tag & 0x1f),
        _ => return Err(DerError),
    })
}

/// IA5String: §4.2.1.6 and §7 have names in other scripts converted to ASCII by the issuer.
fn ascii(content: &[u8]) -> Result<String, DerError> {
    if !content.is_ascii() {
        return Err(DerError);
    }
    String::from_utf8(content.to_vec()).map_err(|_| DerError)
}

/// `RDNSequence`: checks the structure, not the strings.
pub(crate) fn check_name(content: &[u8]) -> Result<(), DerError> {
    let mut names = Reader::new(content);
    while !names.is_empty() {
        let mut set = names.within(tag::SET)?;
        if set.is_empty() {
            return Err(DerError);
        }
        while !set.is_empty() {
            let mut attribute = set.within(tag::SEQUENCE)?;
            attribute.oid()?;
            attribute.any()?;
            attribute.finish()?;
        }
    }
    Ok(())
}

fn name_constraints(reader: &mut Reader<'_>) -> Result<NameConstraints, DerError> {
    let mut fields = reader.within(tag::SEQUENCE)?;
    let permitted = fields.optional(tag::context_constructed(0))?;
    let excluded = fields.optional(tag::context_constructed(1))?;
    fields.finish()?;
    // "issuers MUST NOT issue certificates where name constraints is an empty sequence".
    if permitted.is_none() && excluded.is_none() {
        return Err(DerError);
    }
    let subtrees = |field: Option<crate::der::Value<'_>>| match field {
        None => Ok(Vec::new()),
        Some(value) => {
            let subtrees = Reader::new(value.content).each(subtree)?;
            if subtrees.is_empty() { Err(DerError) } else { Ok(subtrees) }
        }
    };
    Ok(NameConstraints { permitted: subtrees(permitted)?, excluded: subtrees(excluded)? })
}

/// `GeneralSubtree`: "minimum MUST be zero, and maximum MUST be absent", and zero is the default, so only the base.
fn subtree(reader: &mut Reader<'_>) -> Result<GeneralName, DerError> {
    let mut fields = reader.within(tag::SEQUENCE)?;
    let base = general_name(&mut fields)?;
    fields.finish()?;
    Ok(base)
}

fn authority_key_id(reader: &mut Reader<'_>) -> Result<AuthorityKeyId, DerError> {
    let mut fields = reader.within(tag::SEQUENCE)?;
    let key_id = fields.optional(tag::context(0))?.map(|value| value.content.to_vec());
    let issuer = fields.optional(tag::context_constructed(1))?;
    let serial = fields.optional(tag::context(2))?;
    fields.finish()?;
    // "authorityCertIssuer and authorityCertSerialNumber MUST both be present or both be absent".
    if issuer.is_some() != serial.is_some() {
        return Err(DerError);
    }
    Ok(AuthorityKeyId { key_id, names_issuer: issuer.is_some() })
}

fn access_descriptions(reader: &mut Reader<'_>) -> Result<(), DerError> {
    let descriptions = reader.within(tag::SEQUENCE)?.each(|list| {
        let mut description = list.within(tag::SEQUENCE)?;
        description.oid()?;
        general_name(&mut description)?;
        description.finish()
    })?;
    if descriptions.is_empty() { Err(DerError) } else { Ok(()) }
}

fn fixed<const N: usize>(reader: &mut Reader<'_>) -> Result<[u8; N], DerError> {
    reader.expect(tag::OCTET_STRING)?.content.try_into().map_err(|_| DerError)
}
