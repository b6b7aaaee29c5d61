//! The glue to rustls: one verifier per handshake, which asks a decision of ours about the presented chain and keeps
//! the answer for the handshake's owner.
//!
//! Outward there is one coarse error for every reason: TLS alerts differ by variant and QUIC puts the text on the wire.
//! The precise reason is in the outcome. Possession of the key (CertificateVerify, RFC 8446 §4.4.3) is always checked
//! by the provider, whatever the decision remembers. An outcome means nothing until the handshake has ended.

use std::sync::Arc;

use countersign_core::locked::Locked;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::config::provider;

type Decision<T, E> = dyn Fn(&[CertificateDer<'_>]) -> Result<T, E> + Send + Sync;

/// Decides on the chain of one handshake, leaf first.
pub(crate) struct ChainVerifier<T, E> {
    decide: Box<Decision<T, E>>,
    /// Whether a client without a certificate is refused. No meaning for servers, which always show one.
    mandatory: bool,
    outcome: Locked<Option<Result<T, E>>>,
}

impl<T: Send + 'static, E: Send + 'static> ChainVerifier<T, E> {
    pub(crate) fn new(decide: impl Fn(&[CertificateDer<'_>]) -> Result<T, E> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { decide: Box::new(decide), mandatory: true, outcome: Locked::new(None) })
    }

    /// As [`ChainVerifier::new`], but a client may come without a certificate. One that it shows must pass.
    pub(crate) fn optional(
        decide: impl Fn(&[CertificateDer<'_>]) -> Result<T, E> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { decide: Box::new(decide), mandatory: false, outcome: Locked::new(None) })
    }

    /// The decision; none if no chain was presented. To be asked once the handshake has ended, well or not.
    pub(crate) fn take_outcome(&self) -> Option<Result<T, E>> {
        self.outcome.lock().take()
    }

    fn verify(&self, end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
        let chain: Vec<CertificateDer<'_>> =
            core::iter::once(end_entity).chain(intermediates).map(|c| CertificateDer::from(c.as_ref())).collect();
        let outcome = (self.decide)(&chain);
        let accepted = outcome.is_ok();
        *self.outcome.lock() = Some(outcome);
        if accepted { Ok(()) } else { Err(refused()) }
    }
}

/// The one error that a peer sees.
const fn refused() -> Error {
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

fn verify_possession(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature(message, certificate, signature, &provider().signature_verification_algorithms)
        .map_err(|_| refused())
}

/// TLS 1.2 is not compiled in and not offered; this is the second lock on that door.
const fn tls12_refused() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled)
}

fn schemes() -> Vec<SignatureScheme> {
    provider().signature_verification_algorithms.supported_schemes()
}

impl<T, E> core::fmt::Debug for ChainVerifier<T, E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ChainVerifier")
    }
}

impl<T: Send + 'static, E: Send + 'static> ServerCertVerifier for ChainVerifier<T, E> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // The server name carries the attempt id, not an identity.
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_possession(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl<T: Send + 'static, E: Send + 'static> ClientCertVerifier for ChainVerifier<T, E> {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// None: an unauthenticated caller must not learn which authorities are trusted here.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_refused())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_possession(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
