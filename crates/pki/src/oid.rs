//! Object identifiers, as the content bytes of their DER encoding.

/// `2.25.1043723682988343766`: the arc of the two private extensions. Under 2.25 any number that somebody drew as a
/// UUID may be used without registration (ITU-T X.667); this one has 63 random bits, so that it fits libraries that
/// hold an arc in 64.
pub(crate) const PRIVATE_ARC: [u64; 3] = [2, 25, 1_043_723_682_988_343_766];
/// Below the arc: the cluster id in an authority's certificate, an OCTET STRING of 16 bytes.
pub(crate) const CLUSTER_LEAF: u64 = 1;
/// Below the arc: the endorsement in a member's leaf, an OCTET STRING of identity key (32), renewal number (8, big
/// endian) and signature (64).
pub(crate) const ENDORSEMENT_LEAF: u64 = 2;

/// The extension that names the cluster, encoded.
pub(crate) const CLUSTER: &[u8] = &[0x69, 0x8e, 0xbe, 0x83, 0xa5, 0x8e, 0xc1, 0xbb, 0x83, 0x56, 0x01];
/// The extension that carries the endorsement, encoded.
pub(crate) const ENDORSEMENT: &[u8] = &[0x69, 0x8e, 0xbe, 0x83, 0xa5, 0x8e, 0xc1, 0xbb, 0x83, 0x56, 0x02];

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
