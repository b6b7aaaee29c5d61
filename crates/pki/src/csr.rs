//! Certificate signing requests (RFC 2986): they carry a public key, and nothing else in them is believed.
//!
//! What a requester writes beside the key (subject, names, CA flag, usages) never reaches a certificate
//! (CVE-2022-36103, CVE-2022-40716): names and role come from the join token's record.

use countersign_core::id::KeyId;
use countersign_core::limits::CSR_LEN_MAX;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;

use crate::der::{DerError, Reader, tag};
use crate::key::{KeyAlgorithm, KeyError, KeyPair, SubjectKey};
use crate::pem::PemError;

/// Writes a request as PEM (RFC 7468 §7).
pub fn csr_pem(der: &[u8]) -> String {
    crate::pem::encode("CERTIFICATE REQUEST", der).to_string()
}

/// Reads the first request of a PEM text.
pub fn csr_from_pem(text: &str) -> Result<Vec<u8>, PemError> {
    let request = CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).map_err(|_| PemError)?;
    Ok(request.to_vec())
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Too large.
    #[error("certificate request is {got} bytes long, at most {CSR_LEN_MAX} are allowed")]
    TooLong {
        /// Bytes given.
        got: usize,
    },
    /// Not a certificate request.
    #[error("malformed certificate request")]
    Malformed(#[from] DerError),
    /// Not the kind of key that certificates here carry.
    #[error("certificate request holds no strong Ed25519 or P-256 key")]
    Key,
    /// Not signed by its own key, so that possession is not proven.
    #[error("certificate request is not signed by its own key")]
    Signature,
    /// The request could not be made.
    #[error(transparent)]
    Create(KeyError),
}

/// The public key of a request whose holder signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsrKey {
    /// DER `SubjectPublicKeyInfo`, in its one spelling.
    pub spki: Vec<u8>,
    /// Its id.
    pub id: KeyId,
}

/// Makes a request for `key`: empty subject, no attributes.
pub fn create_csr(key: &KeyPair) -> Result<Vec<u8>, CsrError> {
    let params = {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
    };
    let csr = params.serialize_request(key).map_err(|_| CsrError::Create(KeyError::Sign))?;
    Ok(csr.der().to_vec())
}

/// Reads the public key of a request and checks that its holder signed it.
pub fn parse_csr(der: &[u8]) -> Result<CsrKey, CsrError> {
    if der.len() > CSR_LEN_MAX {
        return Err(CsrError::TooLong { got: der.len() });
    }
    let mut outer = Reader::new(der);
    let mut request = outer.within(tag::SEQUENCE)?;
    outer.finish()?;
    let info = request.expect(tag::SEQUENCE)?;
    let algorithm = request.expect(tag::SEQUENCE)?.content;
    let signature = request.bit_octets()?;
    request.finish()?;

    let mut fields = Reader::new(info.content);
    if fields.integer()? != [0] {
        return Err(CsrError::Malformed(DerError));
    }
    fields.expect(tag::SEQUENCE)?; // subject: not believed
    let spki = fields.expect(tag::SEQUENCE)?.raw;
    fields.optional(tag::context_constructed(0))?; // attributes: not believed
    fields.finish()?;

    let key = SubjectKey::parse(spki).map_err(|_| CsrError::Key)?;
    if algorithm != signature_algorithm(key.algorithm()) {
        return Err(CsrError::Signature);
    }
    key.verify(info.raw, signature).map_err(|_| CsrError::Signature)?;
    Ok(CsrKey { spki: key.spki(), id: key.id() })
}

/// The content of the AlgorithmIdentifier: id-Ed25519 (RFC 8410 §3), ecdsa-with-SHA256 (RFC 5758 §3.2).
const fn signature_algorithm(algorithm: KeyAlgorithm) -> &'static [u8] {
    match algorithm {
        KeyAlgorithm::Ed25519 => &[0x06, 0x03, 0x2b, 0x65, 0x70],
        KeyAlgorithm::P256 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
    }
}
