//! For clients: the next certificate, over a connection that the one in use opened.

use std::sync::Arc;

use countersign_api::cluster::RenewRequest;
use countersign_api::cluster::certificates_client::CertificatesClient;
use countersign_core::name::Address;
use countersign_net::{Credential, CredentialError, DialError, ServiceClient, Unverified};
use countersign_pki::csr::{CsrError, create_csr};
use countersign_pki::key::KeyPair;

use countersign_node::channel_over;

/// Why a client's certificate was not renewed. The one in use is as good as it was.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The member was not reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The certificate request cannot be made.
    #[error("certificate request cannot be made")]
    Csr(#[from] CsrError),
    /// The member did not renew it.
    #[error("the member answered: {}", .0.message())]
    Member(#[source] Box<tonic::Status>),
    /// The certificate is not of our key.
    #[error("the certificate in the answer does not fit our key")]
    Credential(#[from] CredentialError),
    /// The certificate is not this client's, or not under the authorities that it trusts.
    #[error("the certificate in the answer cannot be used")]
    Unverified(#[from] Unverified),
}

/// A renewed certificate.
#[derive(Debug)]
pub struct RenewedCertificate {
    /// The chain, DER, leaf first, the authority last: to be stored with its key.
    pub chain: Vec<Vec<u8>>,
    /// The same client, with the new certificate.
    pub client: ServiceClient,
}

/// Renews the certificate of `client` for `key`, a new one, at the voter that is reached at `address`. The certificate
/// in use goes on until its end.
///
/// Errors: whatever fails, nothing was changed at this end.
pub async fn renew_certificate(
    client: &ServiceClient,
    address: &Address,
    key: &KeyPair,
) -> Result<RenewedCertificate, RenewError> {
    let stream = client.dial(address).await?;
    let endpoint = tonic::transport::Endpoint::from_static("http://cluster");
    let mut certificates = CertificatesClient::new(channel_over(&endpoint, stream));
    let asked = RenewRequest { csr: create_csr(key)?.into() };
    let reply = certificates.renew(asked).await.map_err(|status| RenewError::Member(Box::new(status)))?.into_inner();
    let chain: Vec<Vec<u8>> = reply.chain.iter().map(|der| der.to_vec()).collect();
    let client = client.renewed(Arc::new(Credential::new(chain.iter().cloned(), key)?))?;
    Ok(RenewedCertificate { chain, client })
}
