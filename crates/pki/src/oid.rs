//! Object identifiers, as the content bytes of their DER encoding.

/// `1.2.840.113556.1.8000.2554.33331.64971.21853.20115.40750.2201816.6875629`: the arc of the two private extensions.
/// Below `1.2.840.113556.1.8000.2554` any UUID that was drawn at random may be used without registration (Microsoft,
/// "Obtaining a Root OID from a Script"); ours is 8233fdcb-555d-4e93-9f2e-2198d868e9ed, in parts of 16, 16, 16, 16, 16,
/// 24 and 24 bits. Every component is below 2^24: a larger one shuts out all programs in Go (golang/go#58821).
pub(crate) const PRIVATE_ARC: [u64; 14] =
    [1, 2, 840, 113_556, 1, 8_000, 2_554, 33_331, 64_971, 21_853, 20_115, 40_750, 2_201_816, 6_875_629];
/// Below the arc: the cluster id in an authority's certificate, an OCTET STRING of 16 bytes.
pub(crate) const CLUSTER_LEAF: u64 = 1;
/// Below the arc: the endorsement in a member's leaf, an OCTET STRING of identity key (32), renewal number (8, big
/// endian) and signature (64).
pub(crate) const ENDORSEMENT_LEAF: u64 = 2;

/// The extension that names the cluster, encoded.
pub(crate) const CLUSTER: &[u8] = &[
    0x2a, 0x86, 0x48, 0x86, 0xf7, 0x14, 0x01, 0xbe, 0x40, 0x93, 0x7a, 0x82, 0x84, 0x33, 0x83, 0xfb, 0x4b, 0x81, 0xaa,
    0x5d, 0x81, 0x9d, 0x13, 0x82, 0xbe, 0x2e, 0x81, 0x86, 0xb1, 0x58, 0x83, 0xa3, 0xd3, 0x6d, 0x01,
];
/// The extension that carries the endorsement, encoded.
pub(crate) const ENDORSEMENT: &[u8] = &[
    0x2a, 0x86, 0x48, 0x86, 0xf7, 0x14, 0x01, 0xbe, 0x40, 0x93, 0x7a, 0x82, 0x84, 0x33, 0x83, 0xfb, 0x4b, 0x81, 0xaa,
    0x5d, 0x81, 0x9d, 0x13, 0x82, 0xbe, 0x2e, 0x81, 0x86, 0xb1, 0x58, 0x83, 0xa3, 0xd3, 0x6d, 0x02,
];

/// `id-at-commonName` (RFC 5280 §A.1).
pub(crate) const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// `emailAddress` (RFC 2985 §5.2.1), read in subjects where email constraints apply (RFC 5280 §4.2.1.10).
pub(crate) const EMAIL_ADDRESS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01];

/// `id-ce-subjectKeyIdentifier`.
pub(crate) const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];
/// `id-ce-keyUsage`.
pub(crate) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
/// `id-ce-subjectAltName`.
pub(crate) const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// `id-ce-basicConstraints`.
pub(crate) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// `id-ce-nameConstraints`.
pub(crate) const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x1e];
/// `id-ce-certificatePolicies`.
pub(crate) const CERTIFICATE_POLICIES: &[u8] = &[0x55, 0x1d, 0x20];
/// `id-ce-authorityKeyIdentifier`.
pub(crate) const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
/// `id-ce-policyConstraints`.
pub(crate) const POLICY_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x24];
/// `id-ce-extKeyUsage`.
pub(crate) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// `id-pe-authorityInfoAccess`.
pub(crate) const AUTHORITY_INFO_ACCESS: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x01, 0x01];

/// `anyExtendedKeyUsage`.
pub(crate) const ANY_EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
/// `id-kp-serverAuth`.
pub(crate) const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
/// `id-kp-clientAuth`.
pub(crate) const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

#[cfg(test)]
mod tests {
    use super::*;

    /// X.690 §8.19.
    fn encoded(arc: &[u64], leaf: u64) -> Vec<u8> {
        let [first, second, rest @ ..] = arc else { panic!("an arc has two components at least") };
        let mut bytes = vec![(first * 40 + second) as u8];
        for component in rest.iter().chain([&leaf]) {
            let digits = (0..9).rev().map(|place| (component >> (7 * place)) as u8 & 0x7f);
            let mut digits = digits.skip_while(|digit| *digit == 0).peekable();
            if digits.peek().is_none() {
                bytes.push(0);
            }
            while let Some(digit) = digits.next() {
                bytes.push(digit | if digits.peek().is_some() { 0x80 } else { 0 });
            }
        }
        bytes
    }

    #[test]
    fn encoded_arcs_are_those_that_are_written() {
        assert_eq!(CLUSTER, encoded(&PRIVATE_ARC, CLUSTER_LEAF));
        assert_eq!(ENDORSEMENT, encoded(&PRIVATE_ARC, ENDORSEMENT_LEAF));
        assert!(PRIVATE_ARC.iter().all(|component| *component < 1 << 24));
    }
}
