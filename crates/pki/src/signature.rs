//! Signatures on certificates, through webpki's algorithm table: an algorithm counts only for a key of its own kind,
//! and both identifiers must match byte for byte (RFC 5280 §4.1.1.2).

use rustls_pki_types::SignatureVerificationAlgorithm;
use webpki::aws_lc_rs as algorithm;

use crate::certificate::Certificate;

/// A signature that does not verify, or a key or algorithm that is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("signature does not verify")]
pub(crate) struct BadSignature;

/// SHA-1, P-521 and keys with explicit curves are absent on purpose.
static ACCEPTED: [&dyn SignatureVerificationAlgorithm; 11] = [
    algorithm::ED25519,
    algorithm::ECDSA_P256_SHA256,
    algorithm::ECDSA_P256_SHA384,
    algorithm::ECDSA_P384_SHA256,
    algorithm::ECDSA_P384_SHA384,
    algorithm::RSA_PKCS1_2048_8192_SHA256,
    algorithm::RSA_PKCS1_2048_8192_SHA384,
    algorithm::RSA_PKCS1_2048_8192_SHA512,
    algorithm::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithm::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithm::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// Checks that `issuer`'s key signed `certificate`.
pub(crate) fn verify(certificate: &Certificate, issuer: &Certificate) -> Result<(), BadSignature> {
    let accepted = ACCEPTED.into_iter().find(|accepted| {
        accepted.signature_alg_id().as_ref() == certificate.signature_algorithm
            && accepted.public_key_alg_id().as_ref() == issuer.key_algorithm
    });
    accepted
        .ok_or(BadSignature)?
        .verify_signature(&issuer.key, &certificate.signed, &certificate.signature)
        .map_err(|_| BadSignature)
}
