//! Chains of certificates that were made elsewhere: a path to a trusted authority, and names that are no principal yet.
//!
//! Nothing of our own profile is read from them, no principal and no endorsement: who the holder is, is for
//! [`crate::mapping`] to say, and which member that is, for the view.

use core::net::IpAddr;

use countersign_core::id::{AuthorityId, ClusterId, KeyId};
use countersign_core::mapped::MappedName;
use countersign_core::name::{Host, HostName};
use countersign_core::principal::{Principal, TrustDomain};
use countersign_core::time::{UnixMillis, Validity};
use rustls::SignatureScheme;
use rustls_pki_types::CertificateDer;

use crate::authority::trust_domain;
use crate::certificate::Certificate;
use crate::extension::GeneralName;
use crate::mapping::Rules;
use crate::profile::Usage;
use crate::verify::{
    Believed, Bundle, BundleError, ChainError, VerifiedChain, believe, find_path, ip, of_path, pinned_bundle,
    read_chain, serves,
};

/// What a mapping rule may look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateNames {
    /// URI names, as written.
    pub uris: Vec<String>,
    /// DNS names in lower case, wildcards among them.
    pub dns: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
    /// The common name, if the subject has exactly one: of several, none is meant more than another.
    pub common_name: Option<String>,
}

/// A chain that leads to a trusted authority, whose holder is no principal yet.
///
/// As [`VerifiedChain`], it proves nothing about the other end until that has shown that it holds the leaf's key.
#[derive(Debug, Clone)]
pub struct ForeignChain {
    leaf: Certificate,
    names: CertificateNames,
    authority: AuthorityId,
    cluster: Option<ClusterId>,
    validity: Validity,
}

/// A signature by a leaf's key, as TLS would make it (RFC 8446 §4.2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafSignature {
    /// The scheme's number.
    pub scheme: u16,
    /// The signature.
    pub bytes: Vec<u8>,
}

/// The schemes that a leaf's key may sign with, best first.
pub(crate) const SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
];

/// The leaf's key did not sign this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("certificate's key did not sign the request")]
pub struct LeafSignatureError;

/// Verifies a chain as [`crate::verify::verify_chain`] does, but reads nothing of ours from it.
pub fn verify_foreign_chain(
    bundle: &Bundle,
    chain: &[CertificateDer<'_>],
    usage: Usage,
    now: Option<UnixMillis>,
) -> Result<ForeignChain, ChainError> {
    let presented = read_chain(chain)?;
    let (leaf, path) = find_path(bundle, &presented, usage, now)?;
    let (authority, cluster, validity) = of_path(&path);
    Ok(ForeignChain { leaf: leaf.clone(), names: certificate_names(leaf), authority, cluster, validity })
}

/// For a joiner: trusts the presented certificate that has this id alone, and verifies the chain down to a leaf that
/// the rules map to a node. Validity and trust domain are not judged: the joiner's clock may be wrong, and it knows no
/// domain.
pub fn pinned_foreign_chain(
    pin: AuthorityId,
    chain: &[CertificateDer<'_>],
    rules: &Rules,
) -> Result<(Bundle, ForeignChain), ChainError> {
    let bundle = pinned_bundle(pin, chain)?;
    let foreign = verify_foreign_chain(&bundle, chain, Usage::Server, None)?;
    match rules.map(&foreign.names, None)? {
        MappedName::Node(_) => Ok((bundle, foreign)),
        MappedName::Broker(_) | MappedName::Client(_) | MappedName::Admin(_) => Err(ChainError::Role),
    }
}

impl ForeignChain {
    /// What a mapping rule may look at.
    pub const fn names(&self) -> &CertificateNames {
        &self.names
    }

    /// The leaf's key.
    pub fn key(&self) -> KeyId {
        KeyId::of_spki(&self.leaf.spki)
    }

    /// The leaf's key, DER `SubjectPublicKeyInfo`.
    pub fn leaf_spki(&self) -> &[u8] {
        &self.leaf.spki
    }

    /// The authority that the path ends at.
    pub const fn authority(&self) -> AuthorityId {
        self.authority
    }

    /// When the whole path is valid.
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// Where the holder may be reached. A wildcard is no such place.
    pub fn hosts(&self) -> Vec<Host> {
        let dns = self.names.dns.iter().filter_map(|name| HostName::parse(name).ok()).map(Host::Dns);
        dns.chain(self.names.ips.iter().copied().map(Host::Ip)).collect()
    }

    /// The chain as that of `principal`, which a rule and the view made of its names.
    pub fn believe(&self, principal: Principal, usage: Usage) -> Result<VerifiedChain, ChainError> {
        let hosts = if serves(&principal.role) { self.hosts() } else { Vec::new() };
        let Self { leaf, authority, cluster, validity, .. } = self;
        let (authority, cluster, validity) = (*authority, *cluster, *validity);
        believe(Believed { leaf, principal, authority, cluster, validity, hosts, endorsement: None }, usage)
    }

    /// Whether the leaf's key signed `message`.
    pub fn verify_signature(&self, message: &[u8], signature: &LeafSignature) -> Result<(), LeafSignatureError> {
        let scheme = SignatureScheme::from(signature.scheme);
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        let (_, candidates) = algorithms
            .mapping
            .iter()
            .find(|(known, _)| *known == scheme && SCHEMES.contains(known))
            .ok_or(LeafSignatureError)?;
        let fits = candidates.iter().find(|a| a.public_key_alg_id().as_ref() == self.leaf.key_algorithm);
        let verified = fits.ok_or(LeafSignatureError)?.verify_signature(&self.leaf.key, message, &signature.bytes);
        verified.map_err(|_| LeafSignatureError)
    }
}

/// What an authority's certificate says, whatever its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignAuthority {
    /// The trust domain, if it names one.
    pub trust_domain: Option<TrustDomain>,
    /// When it is valid.
    pub validity: Validity,
}

impl ForeignAuthority {
    /// Reads an authority's certificate, DER, which must be one that may be trusted.
    pub fn read(der: &[u8]) -> Result<Self, BundleError> {
        Bundle::new([der])?;
        let read = Certificate::parse(der)?;
        Ok(Self { trust_domain: trust_domain(&read), validity: read.validity })
    }
}

/// The names in a certificate (DER). For one's own certificate: a peer's certificate is judged elsewhere.
///
/// # Errors
/// It is no certificate.
pub fn names_of(certificate: &[u8]) -> Result<CertificateNames, ChainError> {
    Ok(certificate_names(&Certificate::parse(certificate)?))
}

fn certificate_names(leaf: &Certificate) -> CertificateNames {
    let common_names = leaf.common_names();
    let common_name = if common_names.len() == 1 { common_names.into_iter().next() } else { None };
    let mut names = CertificateNames { uris: Vec::new(), dns: Vec::new(), ips: Vec::new(), common_name };
    for name in leaf.extensions.subject_alt_name.as_ref().map_or(&[][..], |names| &names.value) {
        match name {
            GeneralName::Uri(uri) => names.uris.push(uri.clone()),
            GeneralName::Dns(name) => names.dns.push(name.to_ascii_lowercase()),
            GeneralName::Ip(octets) => names.ips.extend(ip(octets)),
            GeneralName::Email(_) | GeneralName::Directory(_) | GeneralName::Unread(_) => {}
        }
    }
    names
}
