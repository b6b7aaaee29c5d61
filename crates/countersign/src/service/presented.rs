//! What a stranger presents beside its request: a CSR where the cluster issues certificates, else its own certificate.
//!
//! Here alone a certificate that was made elsewhere is read for an admission: the sponsor verifies its chain, maps it by its
//! own rules, and has seen its key sign the request. The stranger's claim must be the same, or nothing is forwarded.

use bytes::Bytes;
use countersign_core::enroll::EnrollmentRequest;
use countersign_core::id::KeyId;
use countersign_core::limits::CSR_LEN_MAX;
use countersign_core::mapped::MappedName;
use countersign_core::time::UnixMillis;
use countersign_core::trust::member::ForeignLeaf;
use countersign_net::Trust;
use countersign_pki::csr::{CsrError, parse_csr};
use countersign_pki::foreign::{LeafSignature, LeafSignatureError, verify_foreign_chain};
use countersign_pki::mapping::{Rules, Unmapped};
use countersign_pki::verify::{ChainError, Usage};

/// Why what was presented is not accepted. For this end's log; the stranger learns that it was not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PresentedError {
    #[error("certificate signing request has {got} bytes, at most {CSR_LEN_MAX} are allowed")]
    Long { got: usize },
    #[error("certificate signing request is malformed")]
    Csr(#[from] CsrError),
    #[error("certificate is not accepted: {0}")]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Unmapped(#[from] Unmapped),
    #[error("certificate maps to `{0}`, which is no node")]
    NotANode(MappedName),
    #[error(transparent)]
    Signature(#[from] LeafSignatureError),
}

/// The key that the stranger showed to hold.
#[derive(Debug)]
pub(crate) struct Presented {
    pub(crate) key: KeyId,
    pub(crate) spki: Vec<u8>,
    pub(crate) foreign: Option<ForeignLeaf>,
}

impl Presented {
    pub(crate) fn of_csr(csr: &[u8]) -> Result<Self, PresentedError> {
        if csr.len() > CSR_LEN_MAX {
            return Err(PresentedError::Long { got: csr.len() });
        }
        let csr = parse_csr(csr)?;
        Ok(Self { key: csr.id, spki: csr.spki, foreign: None })
    }

    pub(crate) fn of_certificate(
        trust: &Trust,
        rules: &Rules,
        now: UnixMillis,
        chain: &[Bytes],
        request: &EnrollmentRequest,
        signature: &LeafSignature,
    ) -> Result<Self, PresentedError> {
        let chain: Vec<_> = chain.iter().map(|der| der.as_ref().into()).collect();
        // A node dials and is dialed.
        verify_foreign_chain(&trust.bundle, &chain, Usage::Client, Some(now))?;
        let chain = verify_foreign_chain(&trust.bundle, &chain, Usage::Server, Some(now))?;
        chain.verify_signature(request.transcript().as_bytes(), signature)?;
        let mapped = match rules.map(chain.names(), Some(&trust.view.trust_domain))? {
            MappedName::Node(name) => name,
            other => return Err(PresentedError::NotANode(other)),
        };
        let foreign = Some(ForeignLeaf { mapped, validity: chain.validity() });
        Ok(Self { key: chain.key(), spki: chain.leaf_spki().to_vec(), foreign })
    }
}
