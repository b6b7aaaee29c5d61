//! An authority: a CA certificate and its key, and the certificates it issues.
//!
//! A certificate is made from the request's record alone, never from a CSR's contents. The same request gives the same
//! bytes on every holder of the authority's key: serial and times are arguments, and signatures are deterministic.

use core::time::Duration;

use countersign_core::id::{AuthorityId, ClusterId};
use countersign_core::key::Endorsement;
use countersign_core::name::Host;
use countersign_core::principal::{Principal, Role, TrustDomain};
use countersign_core::time::{UnixMillis, Validity};
use countersign_core::trust::view::AuthorityKey;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use crate::certificate::Certificate;
use crate::der::{DerError, short_octet_string};
use crate::extension::GeneralName;
use crate::key::{KeyError, KeyPair, SubjectKey};
use crate::oid::{CLUSTER_LEAF, ENDORSEMENT_LEAF, PRIVATE_ARC};
use crate::profile::{self, ProfileError, Usage};

/// 9999-12-31T23:59:59Z, the last moment that a certificate can name (RFC 5280 §4.1.2.5).
const LAST_SECOND: u64 = 253_402_300_799;

/// Why an authority cannot be made or used, or a certificate not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A serial number of zero (RFC 5280 §4.1.2.2).
    #[error("serial number is zero")]
    Serial,
    /// The end lies before the beginning, or beyond the year 9999.
    #[error("validity is empty or ends after the year 9999")]
    Validity,
    /// The public key cannot go into a certificate.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The authority's certificate cannot be read.
    #[error("authority certificate is malformed")]
    Malformed(#[from] DerError),
    /// The certificate is of another key.
    #[error("authority certificate and key do not belong together")]
    Mismatch,
    /// The certificate may not sign others, or no verifier would accept what it signs.
    #[error("authority certificate is not one of a usable certificate authority")]
    NotAnAuthority(#[source] ProfileError),
    /// The other authority's certificate names no trust domain.
    #[error("authority certificate names no trust domain")]
    NoTrustDomain,
    /// The certificate asked for breaks the rules that every verifier applies.
    #[error("certificate would be refused")]
    Profile(#[source] ProfileError),
    /// Only nodes and brokers are reached by host.
    #[error("certificates of clients and admins carry no host names")]
    HostsNotAllowed,
    /// Only members' leaf keys are endorsed.
    #[error("only the certificate of a node carries an endorsement")]
    EndorsementNotAllowed,
    /// The authority's subject does not survive being copied into the issuer field.
    #[error("authority's subject name cannot be reproduced as an issuer name")]
    IssuerName,
    /// The certificate could not be encoded or signed.
    #[error("certificate could not be built")]
    Build(#[from] rcgen::Error),
}

/// What an authority's certificate says.
#[derive(Debug, Clone)]
pub struct AuthorityParts<'a> {
    /// For people: shown by tools, never compared.
    pub common_name: &'a str,
    /// The namespace that it issues in.
    pub trust_domain: &'a TrustDomain,
    /// The cluster that it belongs to; none for one that serves several.
    pub cluster: Option<ClusterId>,
    /// 16 random bytes.
    pub serial: [u8; 16],
    /// When it is valid.
    pub validity: Validity,
}

/// What a certificate is issued for.
#[derive(Debug, Clone)]
pub struct LeafRequest<'a> {
    /// Who: the one URI SAN.
    pub principal: &'a Principal,
    /// For people: shown by tools, never read as an identity.
    pub common_name: &'a str,
    /// Where it is reached. Nodes and brokers only.
    pub hosts: &'a [Host],
    /// The key, DER `SubjectPublicKeyInfo`.
    pub spki: &'a [u8],
    /// 16 random bytes.
    pub serial: [u8; 16],
    /// When it is valid.
    pub validity: Validity,
    /// The identity key's word for the leaf key. Nodes only.
    pub endorsement: Option<&'a Endorsement>,
}

/// What can be read back from an authority's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityInfo {
    /// The cluster, if it names one.
    pub cluster: Option<ClusterId>,
    /// The trust domain, if it names one.
    pub trust_domain: Option<TrustDomain>,
    /// When it is valid.
    pub validity: Validity,
    /// Its public key.
    pub key: AuthorityKey,
    /// Its name for people; empty if there is none.
    pub common_name: String,
}

/// A CA certificate and its key.
#[derive(Debug)]
pub struct Authority {
    certificate: Vec<u8>,
    key: KeyPair,
}

impl Authority {
    /// Makes a self-signed authority: CA:TRUE with one intermediate allowed, so that authorities can cross-sign.
    pub fn create(key: KeyPair, parts: &AuthorityParts<'_>) -> Result<Self, IssueError> {
        let mut params = ca_params(parts.common_name, parts.trust_domain, parts.cluster, 1)?;
        // Named even where it is the key's own: a verifier need not check the signature to know it for self-signed.
        params.use_authority_key_identifier_extension = true;
        set_serial(&mut params, parts.serial)?;
        set_validity(&mut params, parts.validity)?;
        let certificate = params.self_signed(&key)?.der().to_vec();
        Self::from_parts(certificate, key)
    }

    /// Takes a certificate and the key that belongs to it.
    pub fn from_parts(certificate: Vec<u8>, key: KeyPair) -> Result<Self, IssueError> {
        let read = Certificate::parse(&certificate)?;
        if read.spki != key.spki() {
            return Err(IssueError::Mismatch);
        }
        profile::check_signer(&read).map_err(IssueError::NotAnAuthority)?;
        Ok(Self { certificate, key })
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Its id.
    pub fn id(&self) -> AuthorityId {
        AuthorityId::of_certificate(&self.certificate)
    }

    /// Its key.
    pub const fn key(&self) -> &KeyPair {
        &self.key
    }

    /// Issues a certificate: one URI SAN, the host SANs if any, and usages by kind of principal.
    pub fn issue(&self, request: &LeafRequest<'_>) -> Result<Vec<u8>, IssueError> {
        let subject = SubjectKey::parse(request.spki)?;
        let serves = matches!(request.principal.role, Role::Node(_) | Role::Broker(_));
        if !serves && !request.hosts.is_empty() {
            return Err(IssueError::HostsNotAllowed);
        }
        let mut params = named(request.common_name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = if serves {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        } else {
            vec![ExtendedKeyUsagePurpose::ClientAuth]
        };
        params.subject_alt_names = vec![SanType::URI(request.principal.to_string().try_into()?)];
        for host in request.hosts {
            params.subject_alt_names.push(match host {
                Host::Ip(ip) => SanType::IpAddress(*ip),
                Host::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
            });
        }
        if let Some(endorsement) = request.endorsement {
            if !matches!(request.principal.role, Role::Node(_)) {
                return Err(IssueError::EndorsementNotAllowed);
            }
            params.custom_extensions.push(private_extension(ENDORSEMENT_LEAF, &endorsement_bytes(endorsement))?);
        }
        set_serial(&mut params, request.serial)?;
        set_validity(&mut params, request.validity)?;
        let certificate = self.sign(&params, &subject)?;
        // Better found out here than by each peer.
        let read = Certificate::parse(&certificate)?;
        profile::check_leaf(&read, Usage::Client).map_err(IssueError::Profile)?;
        Ok(certificate)
    }

    /// Issues a certificate for another authority's key and name, so that a chain of that authority's leaves ends at
    /// this one too. It allows no further authority below it, and keeps the other's cluster and trust domain.
    pub fn cross_sign(&self, other: &[u8], serial: [u8; 16], validity: Validity) -> Result<Vec<u8>, IssueError> {
        let read = Certificate::parse(other)?;
        profile::check_signer(&read).map_err(IssueError::NotAnAuthority)?;
        let info = authority_info(other)?;
        let domain = info.trust_domain.ok_or(IssueError::NoTrustDomain)?;
        let mut params = ca_params(&info.common_name, &domain, info.cluster, 0)?;
        params.use_authority_key_identifier_extension = true;
        // Leaves name the key by this identifier.
        let key_id = read.extensions.subject_key_id.map_or_else(Vec::new, |id| id.value);
        params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(key_id);
        set_serial(&mut params, serial)?;
        set_validity(&mut params, validity)?;
        let certificate = self.sign(&params, &SubjectKey::parse(&read.spki)?)?;
        // A chain links by name, byte for byte.
        if Certificate::parse(&certificate)?.subject == read.subject {
            Ok(certificate)
        } else {
            Err(IssueError::IssuerName)
        }
    }

    fn sign(&self, params: &CertificateParams, subject: &SubjectKey) -> Result<Vec<u8>, IssueError> {
        let der = CertificateDer::from(self.certificate.as_slice());
        let issuer = Issuer::from_ca_cert_der(&der, &self.key)?;
        let certificate = params.signed_by(subject, &issuer)?.der().to_vec();
        // The builder re-encodes the issuer's name; a chain links by name, byte for byte.
        if Certificate::parse(&certificate)?.issuer == Certificate::parse(&self.certificate)?.subject {
            Ok(certificate)
        } else {
            Err(IssueError::IssuerName)
        }
    }
}

/// Reads an authority's certificate, of this system or not.
pub fn authority_info(der: &[u8]) -> Result<AuthorityInfo, IssueError> {
    let read = Certificate::parse(der)?;
    Ok(AuthorityInfo {
        cluster: read.extensions.cluster.map(ClusterId),
        trust_domain: trust_domain(&read),
        validity: read.validity,
        key: SubjectKey::parse(&read.spki)?.authority_key(),
        common_name: read.common_names().into_iter().next().unwrap_or_default(),
    })
}

/// The trust domain that an authority's certificate names.
pub(crate) fn trust_domain(authority: &Certificate) -> Option<TrustDomain> {
    let names = authority.extensions.subject_alt_name.as_ref().map_or(&[][..], |names| &names.value);
    names.iter().find_map(|name| {
        let GeneralName::Uri(uri) = name else { return None };
        uri.strip_prefix("spiffe://").and_then(|domain| TrustDomain::parse(domain).ok())
    })
}

/// A subject of one common name, cut to the length that X.520 allows; without one the subject is empty.
fn named(common_name: &str) -> CertificateParams {
    const COMMON_NAME_CHARS_MAX: usize = 64;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let common_name: String = common_name.chars().take(COMMON_NAME_CHARS_MAX).collect();
    if !common_name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, common_name);
    }
    params
}

fn ca_params(
    common_name: &str,
    trust_domain: &TrustDomain,
    cluster: Option<ClusterId>,
    path_len: u8,
) -> Result<CertificateParams, IssueError> {
    let mut params = named(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_len));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into()?)];
    if let Some(cluster) = cluster {
        params.custom_extensions.push(private_extension(CLUSTER_LEAF, &cluster.0)?);
    }
    Ok(params)
}

fn endorsement_bytes(endorsement: &Endorsement) -> Vec<u8> {
    [endorsement.identity.0.as_slice(), &endorsement.renewal.to_be_bytes(), &endorsement.signature].concat()
}

fn private_extension(leaf: u64, content: &[u8]) -> Result<CustomExtension, IssueError> {
    let content = short_octet_string(content).ok_or(DerError)?;
    let oid: Vec<u64> = PRIVATE_ARC.into_iter().chain([leaf]).collect();
    Ok(CustomExtension::from_oid_content(&oid, content))
}

/// The top bit is cleared, so that the number is positive in 16 octets; of random bytes that leaves 127 bits.
fn set_serial(params: &mut CertificateParams, serial: [u8; 16]) -> Result<(), IssueError> {
    let [first, rest @ ..] = serial;
    let serial: Vec<u8> = [first & 0x7f].into_iter().chain(rest).collect();
    if serial.iter().all(|&octet| octet == 0) {
        return Err(IssueError::Serial);
    }
    params.serial_number = Some(SerialNumber::from(serial));
    Ok(())
}

fn set_validity(params: &mut CertificateParams, validity: Validity) -> Result<(), IssueError> {
    let (from, to) = (validity.not_before.secs(), validity.not_after.secs());
    if from > to || to > LAST_SECOND {
        return Err(IssueError::Validity);
    }
    let at = |secs: u64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(secs);
    (params.not_before, params.not_after) = (at(from), at(to));
    Ok(())
}

/// The validity from `now` on, begun earlier by the bound on clock skew, so that a peer whose clock is behind accepts
/// it at once.
pub const fn backdated(now: UnixMillis, ttl_secs: u64) -> Validity {
    Validity { not_before: now.minus_secs(countersign_core::limits::SKEW_SECS), not_after: now.plus_secs(ttl_secs) }
}
