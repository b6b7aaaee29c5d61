//! A certificate as it was read: the fields that a path is judged by, owned, with the bytes that were signed.
//!
//! Reading is strict and judges nothing: `profile` says whether a path may use it.

use countersign_core::time::Validity;

use crate::der::{DerError, Reader, tag};
use crate::extension::{Extensions, check_name};
use crate::oid;

/// A v3 certificate (RFC 5280 §4.1), well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// The whole certificate, DER.
    pub(crate) der: Vec<u8>,
    /// What the signature covers.
    pub(crate) signed: Vec<u8>,
    /// The content of the signature's AlgorithmIdentifier.
    pub(crate) signature_algorithm: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    /// Two's complement, minimal.
    pub(crate) serial: Vec<u8>,
    /// The DER of the `Name`.
    pub(crate) issuer: Vec<u8>,
    pub(crate) validity: Validity,
    /// The DER of the `Name`.
    pub(crate) subject: Vec<u8>,
    /// The DER `SubjectPublicKeyInfo`.
    pub(crate) spki: Vec<u8>,
    /// The content of the key's AlgorithmIdentifier.
    pub(crate) key_algorithm: Vec<u8>,
    /// The octets of the key's BIT STRING.
    pub(crate) key: Vec<u8>,
    pub(crate) extensions: Extensions,
}

impl Certificate {
    /// Reads exactly one certificate.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, DerError> {
        let mut outer = Reader::new(der);
        let mut certificate = outer.within(tag::SEQUENCE)?;
        outer.finish()?;
        let signed = certificate.expect(tag::SEQUENCE)?;
        let signature_algorithm = certificate.expect(tag::SEQUENCE)?;
        let signature = certificate.bit_octets()?;
        certificate.finish()?;

        let mut fields = Reader::new(signed.content);
        // v3 only: extensions are what a path is judged by.
        let mut version = fields.within(tag::context_constructed(0))?;
        if version.integer()? != [2] {
            return Err(DerError);
        }
        version.finish()?;
        let serial = fields.integer()?;
        // §4.1.1.2: the same as the one outside, which no signature covers.
        if fields.expect(tag::SEQUENCE)?.raw != signature_algorithm.raw {
            return Err(DerError);
        }
        let issuer = fields.expect(tag::SEQUENCE)?;
        check_name(issuer.content)?;
        let mut validity = fields.within(tag::SEQUENCE)?;
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        validity.finish()?;
        let subject = fields.expect(tag::SEQUENCE)?;
        check_name(subject.content)?;
        let spki = fields.expect(tag::SEQUENCE)?;
        // issuerUniqueID and subjectUniqueID are not read: §4.1.2.8 forbids issuing them.
        let mut extensions = fields.within(tag::context_constructed(3))?;
        fields.finish()?;
        let read = Extensions::read(extensions.expect(tag::SEQUENCE)?.raw)?;
        extensions.finish()?;

        let mut key = Reader::new(spki.content);
        let key_algorithm = key.expect(tag::SEQUENCE)?.content;
        let key_octets = key.bit_octets()?;
        key.finish()?;
        Ok(Self {
            der: der.to_vec(),
            signed: signed.raw.to_vec(),
            signature_algorithm: signature_algorithm.content.to_vec(),
            signature: signature.to_vec(),
            serial: serial.to_vec(),
            issuer: issuer.raw.to_vec(),
            validity: Validity { not_before, not_after },
            subject: subject.raw.to_vec(),
            spki: spki.raw.to_vec(),
            key_algorithm: key_algorithm.to_vec(),
            key: key_octets.to_vec(),
            extensions: read,
        })
    }

    /// Issuer and subject are the same name (§6.1).
    pub(crate) fn self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    /// Claims to be signed by its own key: no other authority vouches for it.
    pub(crate) fn self_signed(&self) -> bool {
        let named = self.extensions.authority_key_id.as_ref().and_then(|id| id.value.key_id.as_ref());
        let own = self.extensions.subject_key_id.as_ref().map(|id| &id.value);
        self.self_issued() && (named.is_none() || named == own)
    }

    /// The subject's common names. For people and for mappings that name them: never read as an identity here.
    pub(crate) fn common_names(&self) -> Vec<String> {
        attributes(&self.subject, oid::COMMON_NAME)
    }
}

/// The values of one attribute type in a `Name`, those that are text.
pub(crate) fn attributes(name: &[u8], wanted: &[u8]) -> Vec<String> {
    read_attributes(name, wanted).unwrap_or_default()
}

fn read_attributes(name: &[u8], wanted: &[u8]) -> Result<Vec<String>, DerError> {
    let mut found = Vec::new();
    let mut sets = Reader::new(name).within(tag::SEQUENCE)?;
    while !sets.is_empty() {
        let mut set = sets.within(tag::SET)?;
        while !set.is_empty() {
            let mut attribute = set.within(tag::SEQUENCE)?;
            let id = attribute.oid()?;
            let value = attribute.any()?;
            if let Some(text) = text(value.tag, value.content).filter(|_| id == wanted) {
                found.push(text);
            }
        }
    }
    Ok(found)
}

/// UTF8String, PrintableString or IA5String.
fn text(tag: u8, content: &[u8]) -> Option<String> {
    matches!(tag, 0x0c | 0x13 | 0x16).then(|| String::from_utf8(content.to_vec()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use x509_parser::prelude::{FromDer, X509Certificate};

    fn sample() -> Vec<u8> {
        let mut params =
            rcgen::CertificateParams::new(vec!["n1.example.org".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(3));
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn seconds(time: i64) -> u64 {
        u64::try_from(time).unwrap_or(0)
    }

    /// Where both readers accept, they must have read the same: a difference is where attacks live.
    fn agrees(der: &[u8]) -> bool {
        let Ok(ours) = Certificate::parse(der) else { return true };
        let Ok((rest, theirs)) = X509Certificate::from_der(der) else { return true };
        let basic = theirs.basic_constraints().ok().flatten().map(|b| (b.value.ca, b.value.path_len_constraint));
        rest.is_empty()
            && ours.signed == theirs.tbs_certificate.as_ref()
            && ours.signature == theirs.signature_value.data.as_ref()
            && ours.serial == theirs.raw_serial()
            && ours.subject == theirs.subject().as_raw()
            && ours.issuer == theirs.issuer().as_raw()
            && ours.spki == theirs.public_key().raw
            && ours.validity.not_before.secs() == seconds(theirs.validity().not_before.timestamp())
            && ours.validity.not_after.secs() == seconds(theirs.validity().not_after.timestamp())
            && ours.extensions.basic_constraints.as_ref().map(|b| (b.value.ca, b.value.path_len)) == basic
    }

    #[test]
    fn both_readers_read_a_whole_certificate_alike() {
        let der = sample();
        assert!(Certificate::parse(&der).is_ok() && agrees(&der));
    }

    #[test]
    fn a_version_other_than_three_or_a_doubled_extension_is_refused() {
        let der = sample();
        let version = der.windows(5).position(|w| w == [0xa0, 3, 2, 1, 2]).unwrap() + 4;
        for other in [0, 1, 3] {
            let mut changed = der.clone();
            changed[version] = other;
            assert_eq!(Certificate::parse(&changed), Err(DerError));
        }
        // The key usage extension made a second basic constraints.
        let at = der.windows(5).position(|w| w == [0x06, 3, 0x55, 0x1d, 0x0f]).unwrap() + 4;
        let mut doubled = der;
        doubled[at] = 0x0e;
        assert_eq!(Certificate::parse(&doubled), Err(DerError));
    }

    #[test]
    fn the_unsigned_algorithm_must_repeat_the_signed_one() {
        let mut der = sample();
        let outer = der.windows(5).rposition(|w| w == [0x06, 3, 0x2b, 0x65, 0x70]).unwrap() + 4;
        der[outer] = 0x71;
        assert_eq!(Certificate::parse(&der), Err(DerError));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn both_readers_read_a_damaged_certificate_alike(
            at in any::<prop::sample::Index>(),
            to: u8,
            also in any::<prop::sample::Index>(),
            and: u8,
        ) {
            thread_local!(static SAMPLE: Vec<u8> = sample());
            let mut der = SAMPLE.with(Clone::clone);
            let (at, also) = (at.index(der.len()), also.index(der.len()));
            der[at] = to;
            der[also] = and;
            prop_assert!(agrees(&der));
        }
    }
}
