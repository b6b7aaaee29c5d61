//! A certificate of no authority: for the HTTPS port, where browsers refuse the cluster's Ed25519 leaves. People compare its
//! fingerprint; nothing in a cluster ever trusts it.

use countersign_core::name::Host;
use countersign_core::time::Validity;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};

use crate::authority::{IssueError, set_serial, set_validity};
use crate::key::KeyPair;

/// A self-signed server certificate for these hosts, DER.
pub fn self_signed_server(
    key: &KeyPair,
    common_name: &str,
    hosts: &[Host],
    serial: [u8; 16],
    validity: Validity,
) -> Result<Vec<u8>, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for host in hosts {
        params.subject_alt_names.push(match host {
            Host::Ip(ip) => SanType::IpAddress(*ip),
            Host::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    set_serial(&mut params, serial)?;
    set_validity(&mut params, validity)?;
    Ok(params.self_signed(key)?.der().to_vec())
}
