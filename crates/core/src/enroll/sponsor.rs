//! The sponsor: what a member checks on a request before it goes to the leader.
//!
//! Only the sponsor sees the connection, so only it can check the exporter; all else is checked again by `apply`.

use super::request::EnrollmentRequest;
use crate::id::KeyId;
use crate::key::SignatureError;
use crate::trust::member::ForeignLeaf;
use crate::trust::view::View;

/// What the sponsor knows of the connection that the request came over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SponsorSide {
    /// SHA-256 of the sponsor's leaf certificate, DER.
    pub leaf: [u8; 32],
    /// The TLS exporter of the connection.
    pub exporter: [u8; 32],
    /// The public key of the CSR, which its own signature verified. Where the certificate was made elsewhere, its
    /// public key, which verified the signature over the request's transcript.
    pub csr_key: KeyId,
    /// What the sponsor itself found in a certificate that was made elsewhere, after verifying its chain.
    pub foreign: Option<ForeignLeaf>,
}

/// Why a sponsor does not pass a request on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SponsorError {
    /// For another cluster.
    #[error("request is for another cluster")]
    Cluster,
    /// Made for another connection or another sponsor: replayed or relayed.
    #[error("request was made for another connection")]
    Relayed,
    /// The CSR's key is not the one that was signed.
    #[error("key of the certificate signing request is not the one that was signed")]
    CsrKey,
    /// The certificate made elsewhere names another key than the signed request.
    #[error("certificate was read differently than the joiner claims: compare principal_mapping on both nodes")]
    Certificate,
    /// The identity key does not vouch for the leaf key.
    #[error("identity key does not vouch for the leaf key")]
    Identity(#[from] SignatureError),
}

/// A request that was made for this connection. Only this is forwarded to the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SponsoredRequest(EnrollmentRequest);

impl SponsoredRequest {
    /// Checks `request` against the connection that it came over.
    pub fn check(request: EnrollmentRequest, side: &SponsorSide, view: &View) -> Result<Self, SponsorError> {
        if request.cluster != view.cluster {
            return Err(SponsorError::Cluster);
        }
        if request.exporter != side.exporter || request.sponsor_leaf != side.leaf {
            return Err(SponsorError::Relayed);
        }
        if request.leaf_key != side.csr_key {
            return Err(SponsorError::CsrKey);
        }
        if request.foreign != side.foreign {
            return Err(SponsorError::Certificate);
        }
        request.verify_identity()?;
        Ok(Self(request))
    }

    /// The request, to be proposed.
    pub fn into_request(self) -> EnrollmentRequest {
        self.0
    }
}
