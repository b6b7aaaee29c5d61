//! What the network believes of a presented chain: who, by which key, under which authority, and until when.
//!
//! Trust comes from the [`Bundle`] alone. A certificate is never trusted for being presented, and the common name is
//! never read as an identity.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use countersign_core::id::{AuthorityId, ClusterId, KeyId};
use countersign_core::key::{Endorsement, PublicKey};
use countersign_core::limits::{AUTHORITIES_MAX, CERTIFICATE_LEN_MAX, CHAIN_LEN_MAX};
use countersign_core::name::{Host, HostName};
use countersign_core::peer::{CertificateClaims, CertificateProof, Proof};
use countersign_core::principal::{Principal, PrincipalError, Role};
use countersign_core::time::{UnixMillis, Validity};
use rustls_pki_types::CertificateDer;

use crate::certificate::Certificate;
use crate::der::DerError;
use crate::extension::GeneralName;
use crate::mapping::Unmapped;
pub use crate::path::PathError;
use crate::path::{Path, PathOptions, verify_path};
use crate::profile;
pub use crate::profile::{ProfileError, Usage};

/// Why a set of authorities cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Too many.
    #[error("{got} authorities, at most {AUTHORITIES_MAX} are allowed")]
    TooMany {
        /// How many were given.
        got: usize,
    },
    /// An oversized certificate.
    #[error("authority certificate is {got} bytes long, at most {CERTIFICATE_LEN_MAX} are allowed")]
    TooLong {
        /// Bytes given.
        got: usize,
    },
    /// Not a certificate.
    #[error("authority certificate is malformed")]
    Malformed(#[from] DerError),
    /// Not a certificate that may be trusted.
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

/// The authorities that are trusted now.
#[derive(Debug, Clone)]
pub struct Bundle {
    ids: Vec<AuthorityId>,
    anchors: Vec<Certificate>,
}

impl Bundle {
    /// Trusts these authorities, each given as its DER certificate. None at all is allowed: the bundle then trusts no
    /// certificate.
    pub fn new<'a>(authorities: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, BundleError> {
        let mut bundle = Self { ids: Vec::new(), anchors: Vec::new() };
        for der in authorities {
            if der.len() > CERTIFICATE_LEN_MAX {
                return Err(BundleError::TooLong { got: der.len() });
            }
            let anchor = Certificate::parse(der)?;
            profile::check_signer(&anchor)?;
            let id = AuthorityId::of_certificate(der);
            if !bundle.contains(&id) {
                bundle.ids.push(id);
                bundle.anchors.push(anchor);
            }
        }
        if bundle.ids.len() > AUTHORITIES_MAX {
            return Err(BundleError::TooMany { got: bundle.ids.len() });
        }
        Ok(bundle)
    }

    /// The trusted authorities.
    pub fn ids(&self) -> impl Iterator<Item = AuthorityId> {
        self.ids.iter().copied()
    }

    /// Whether this authority is trusted.
    pub fn contains(&self, id: &AuthorityId) -> bool {
        self.ids.contains(id)
    }
}

/// Why a chain is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No certificate, or too many.
    #[error("{got} certificates presented, expected 1 to {CHAIN_LEN_MAX}")]
    Length {
        /// How many were presented.
        got: usize,
    },
    /// An oversized certificate.
    #[error("certificate is {got} bytes long, at most {CERTIFICATE_LEN_MAX} are allowed")]
    TooLong {
        /// Bytes presented.
        got: usize,
    },
    /// Not a certificate.
    #[error("certificate is malformed")]
    Malformed(#[from] DerError),
    /// No path to a trusted authority.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The presented authority that was pinned cannot be trusted.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Not exactly one URI among the names, and the verifier must not guess which one is meant.
    #[error("certificate holds {got} URI names, expected exactly one")]
    UriNames {
        /// How many there are.
        got: usize,
    },
    /// The URI names no principal.
    #[error("certificate's URI name is no principal: {0}")]
    Principal(#[from] PrincipalError),
    /// A name of a kind that cluster certificates do not carry: email, directory and others.
    #[error("certificate holds a name that is no URI, DNS name or IP address")]
    NameKind,
    /// A wildcard or malformed host name, or host names of a client or admin.
    #[error("certificate holds host names that it may not hold")]
    Hosts,
    /// A client or admin as a server, or another kind of principal than a node where a node is needed.
    #[error("certificate is not of the kind of principal that is needed here")]
    Role,
    /// A certificate made elsewhere, of which the mapping rules make no principal.
    #[error(transparent)]
    Unmapped(#[from] Unmapped),
    /// The pinned authority is not in the chain that the peer sent.
    #[error("the pinned authority is not in the peer's chain")]
    PinNotInChain,
}

/// A chain that leads to a trusted authority.
///
/// It proves nothing about the other end until TLS has verified the handshake's CertificateVerify under
/// [`VerifiedChain::leaf_spki`]: chains are public, any peer can present one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedChain {
    proof: CertificateProof,
    leaf_spki: Vec<u8>,
    hosts: Vec<Host>,
}

impl VerifiedChain {
    /// What the chain says, to be used only after CertificateVerify has been checked.
    pub fn claims(&self) -> &CertificateClaims {
        self.proof.claims()
    }

    /// The proof that the chain is once CertificateVerify has been checked.
    pub fn proof(&self) -> Proof {
        Proof::Certificate(self.proof.clone())
    }

    /// The leaf's key, DER `SubjectPublicKeyInfo`.
    pub fn leaf_spki(&self) -> &[u8] {
        &self.leaf_spki
    }

    /// Where the leaf's holder may be reached; empty for clients and admins.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }
}

/// Verifies a presented chain: `chain[0]` is the leaf, the rest may help to find a path, in any order.
///
/// With `now` none, validity is not judged (a joiner's clock may be wrong) but still returned in the claims.
pub fn verify_chain(
    bundle: &Bundle,
    chain: &[CertificateDer<'_>],
    usage: Usage,
    now: Option<UnixMillis>,
) -> Result<VerifiedChain, ChainError> {
    let presented = read_chain(chain)?;
    let (leaf, path) = find_path(bundle, &presented, usage, now)?;
    let names = read_names(leaf)?;
    if !serves(&names.principal.role) && !names.hosts.is_empty() {
        return Err(ChainError::Hosts);
    }
    let endorsement = leaf.extensions.endorsement.as_ref().map(read_endorsement);
    let Names { principal, hosts } = names;
    let (authority, cluster, validity) = of_path(&path);
    believe(Believed { leaf, principal, authority, cluster, validity, hosts, endorsement }, usage)
}

pub(crate) fn of_path(path: &Path<'_>) -> (AuthorityId, Option<ClusterId>, Validity) {
    let cluster = path.anchor.extensions.cluster.map(ClusterId);
    (AuthorityId::of_certificate(&path.anchor.der), cluster, path.validity)
}

pub(crate) fn find_path<'a>(
    bundle: &'a Bundle,
    presented: &'a [Certificate],
    usage: Usage,
    now: Option<UnixMillis>,
) -> Result<(&'a Certificate, Path<'a>), ChainError> {
    let (leaf, intermediates) = presented.split_first().ok_or(ChainError::Length { got: 0 })?;
    let options = PathOptions { usage, now, intermediates_max: CHAIN_LEN_MAX };
    Ok((leaf, verify_path(&bundle.anchors, intermediates, leaf, options)?))
}

/// Whose leaf it is, by a path that was found.
pub(crate) struct Believed<'a> {
    pub(crate) leaf: &'a Certificate,
    pub(crate) principal: Principal,
    pub(crate) authority: AuthorityId,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) validity: Validity,
    pub(crate) hosts: Vec<Host>,
    pub(crate) endorsement: Option<Endorsement>,
}

/// The one place where a proof is made of a chain. It holds only once TLS has verified the CertificateVerify.
pub(crate) fn believe(believed: Believed<'_>, usage: Usage) -> Result<VerifiedChain, ChainError> {
    let Believed { leaf, principal, authority, cluster, validity, hosts, endorsement } = believed;
    if usage == Usage::Server && !serves(&principal.role) {
        return Err(ChainError::Role);
    }
    let key = KeyId::of_spki(&leaf.spki);
    let proof =
        CertificateProof::asserted(CertificateClaims { principal, key, authority, cluster, endorsement, validity });
    Ok(VerifiedChain { proof, leaf_spki: leaf.spki.clone(), hosts })
}

pub(crate) const fn serves(role: &Role) -> bool {
    matches!(role, Role::Node(_) | Role::Broker(_))
}

/// For a joiner, whose only trust is a pin: takes the presented certificate that has this id, trusts it alone, and
/// verifies the chain down to a leaf that must be a node's. Validity is not judged: a joiner's clock may be wrong.
pub fn pinned_chain(pin: AuthorityId, chain: &[CertificateDer<'_>]) -> Result<(Bundle, VerifiedChain), ChainError> {
    let bundle = pinned_bundle(pin, chain)?;
    let verified = verify_chain(&bundle, chain, Usage::Server, None)?;
    match verified.claims().principal.role {
        Role::Node(_) => Ok((bundle, verified)),
        Role::Broker(_) | Role::Client(_) | Role::Admin(_) => Err(ChainError::Role),
    }
}

/// The presented authority that was pinned, as the only one that is trusted.
pub(crate) fn pinned_bundle(pin: AuthorityId, chain: &[CertificateDer<'_>]) -> Result<Bundle, ChainError> {
    if chain.len() > CHAIN_LEN_MAX {
        return Err(ChainError::Length { got: chain.len() });
    }
    let pinned = chain.iter().find(|der| AuthorityId::of_certificate(der) == pin).ok_or(ChainError::PinNotInChain)?;
    Ok(Bundle::new([pinned.as_ref()])?)
}

/// The validity that a certificate (DER) states. For one's own certificate: a peer's certificate is judged elsewhere.
pub fn validity_of(certificate: &[u8]) -> Result<Validity, ChainError> {
    Ok(Certificate::parse(certificate)?.validity)
}

pub(crate) fn read_chain(chain: &[CertificateDer<'_>]) -> Result<Vec<Certificate>, ChainError> {
    if chain.is_empty() || chain.len() > CHAIN_LEN_MAX {
        return Err(ChainError::Length { got: chain.len() });
    }
    let read = |der: &CertificateDer<'_>| {
        if der.len() > CERTIFICATE_LEN_MAX {
            return Err(ChainError::TooLong { got: der.len() });
        }
        Ok(Certificate::parse(der)?)
    };
    chain.iter().map(read).collect()
}

struct Names {
    principal: Principal,
    hosts: Vec<Host>,
}

fn read_names(leaf: &Certificate) -> Result<Names, ChainError> {
    let names = leaf.extensions.subject_alt_name.as_ref().map_or(&[][..], |names| &names.value);
    let mut uris = Vec::new();
    let mut hosts = Vec::new();
    for name in names {
        match name {
            GeneralName::Uri(uri) => uris.push(uri),
            GeneralName::Dns(name) => {
                let name = HostName::parse(&name.to_ascii_lowercase()).map_err(|_| ChainError::Hosts)?;
                hosts.push(Host::Dns(name));
            }
            GeneralName::Ip(octets) => hosts.push(Host::Ip(ip(octets).ok_or(ChainError::Hosts)?)),
            GeneralName::Email(_) | GeneralName::Directory(_) | GeneralName::Unread(_) => {
                return Err(ChainError::NameKind);
            }
        }
    }
    let [uri] = uris.as_slice() else { return Err(ChainError::UriNames { got: uris.len() }) };
    Ok(Names { principal: Principal::parse(uri)?, hosts })
}

/// An IPv4 address in IPv6 clothes is taken as what it is, so that one host has one spelling.
pub(crate) fn ip(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Some(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    let v6 = <[u8; 16]>::try_from(octets).ok()?;
    Some(IpAddr::V6(Ipv6Addr::from(v6)).to_canonical())
}

fn read_endorsement(bytes: &[u8; 104]) -> Endorsement {
    let (mut identity, mut renewal, mut signature) = ([0; 32], [0; 8], [0; 64]);
    for (to, from) in identity.iter_mut().chain(&mut renewal).chain(&mut signature).zip(bytes) {
        *to = *from;
    }
    Endorsement { identity: PublicKey(identity), renewal: u64::from_be_bytes(renewal), signature }
}
