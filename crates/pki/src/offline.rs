//! Making authorities and certificates by hand, as PEM texts: for clusters whose authority is kept offline, and for
//! tests.
//!
//! Serial numbers and times are arguments; only keys are drawn here.

use countersign_core::name::Host;
use countersign_core::principal::Principal;
use countersign_core::time::Validity;

use crate::authority::{Authority, AuthorityParts, IssueError, LeafRequest};
use crate::key::{KeyAlgorithm, KeyError, KeyPair};
use crate::pem::{SecretText, certificate_pem, certificates_from_pem};

/// A certificate and its key, as they go into files.
#[derive(Debug)]
pub struct Made {
    /// One `CERTIFICATE` section.
    pub certificate_pem: String,
    /// One `PRIVATE KEY` section. To be written for its owner's eyes only.
    pub key_pem: SecretText,
}

/// Why an authority's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not exactly one certificate.
    #[error("authority file holds {got} certificates, expected exactly one")]
    Certificates {
        /// How many there are.
        got: usize,
    },
    /// Damaged PEM.
    #[error("authority file is not PEM")]
    Pem,
    /// The private key cannot be read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The two do not make an authority.
    #[error(transparent)]
    Authority(#[from] IssueError),
}

/// Makes an authority.
pub fn make_authority(algorithm: KeyAlgorithm, parts: &AuthorityParts<'_>) -> Result<Made, IssueError> {
    let authority = Authority::create(KeyPair::generate(algorithm)?, parts)?;
    made(authority.certificate(), authority.key())
}

/// Reads an authority from its two files.
pub fn load_authority(certificate: &str, key: &str) -> Result<Authority, LoadError> {
    let certificates = certificates_from_pem(certificate).map_err(|_| LoadError::Pem)?;
    let [certificate] = certificates.as_slice() else {
        return Err(LoadError::Certificates { got: certificates.len() });
    };
    Ok(Authority::from_parts(certificate.to_vec(), KeyPair::from_pem(key)?)?)
}

/// What a certificate made by hand is for: a broker, a client or an admin. Nodes enroll, and have an identity key.
#[derive(Debug, Clone)]
pub struct MakeRequest<'a> {
    /// Who.
    pub principal: &'a Principal,
    /// Where it is reached: brokers only.
    pub hosts: &'a [Host],
    /// 16 random bytes.
    pub serial: [u8; 16],
    /// When it is valid.
    pub validity: Validity,
}

/// Draws a key and issues a certificate for it.
pub fn make_certificate(
    authority: &Authority,
    algorithm: KeyAlgorithm,
    request: &MakeRequest<'_>,
) -> Result<Made, IssueError> {
    let key = KeyPair::generate(algorithm)?;
    let role = request.principal.role.to_string();
    let common_name = role.rsplit('/').next().unwrap_or_default();
    let certificate = authority.issue(&LeafRequest {
        principal: request.principal,
        common_name,
        hosts: request.hosts,
        spki: &key.spki(),
        serial: request.serial,
        validity: request.validity,
        endorsement: None,
    })?;
    made(&certificate, &key)
}

fn made(certificate: &[u8], key: &KeyPair) -> Result<Made, IssueError> {
    Ok(Made { certificate_pem: certificate_pem(certificate), key_pem: key.to_pem()? })
}
