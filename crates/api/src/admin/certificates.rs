//! Certificates of brokers, clients and admins.

use serde::{Deserialize, Serialize};

use super::{Enforcement, IssuedInfo};

/// A certificate to be issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// `client/<name>`, `broker/<host>` or `admin/<name>`.
    pub role: String,
    /// Seconds that it lives; as long as the member that is asked usually makes them, if it is left out.
    #[serde(default)]
    pub ttl_secs: Option<u64>,
    /// A certificate signing request, PEM; only its public key is believed.
    pub csr: String,
}

/// An issued certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateIssued {
    /// Whose.
    pub principal: String,
    /// The chain, PEM, leaf first.
    pub chain: String,
    /// The authority, PEM: what to trust.
    pub authority: String,
    /// Last moment of validity: seconds since the Unix epoch.
    pub not_after: u64,
    /// SHA-256 of its key.
    pub key: String,
}

/// A certificate on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateInfo {
    /// Whose.
    pub principal: String,
    /// SHA-256 of its key.
    pub key: String,
    /// Last moment of validity: seconds since the Unix epoch.
    pub not_after: u64,
    /// Whether its key was revoked.
    pub revoked: bool,
    /// How it came to be.
    pub issued: IssuedInfo,
}

/// A revocation of a key, or of all keys of a principal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRevoked {
    /// The principal, a SPIFFE id; none if the key is on no record.
    pub principal: Option<String>,
    /// The key that was named, SHA-256; none if all of the principal's were.
    pub key: Option<String>,
    /// How many keys on record it refuses; none if that was so before.
    pub keys: u64,
    /// Where it is refused by now.
    pub enforcement: Enforcement,
}
