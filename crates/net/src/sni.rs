//! The attempt id in the server name: TLS alerts carry no id, the ClientHello's server name does. So a dialer draws the
//! id and sends it there, and both ends print the same one even when the handshake itself fails.
//!
//! The name is `<attempt-id>.<peer>.<trust-domain>`. Nothing but the id is read from it: it selects nothing and proves
//! nothing.

use countersign_core::id::FailureId;
use countersign_core::name::Host;
use countersign_core::principal::TrustDomain;
use rustls_pki_types::{DnsName, ServerName};

use crate::dial_error::DialCause;

/// What a joiner dials: it does not know the trust domain yet.
const ENROLL: &str = "enroll.internal";

/// The server name of one attempt to reach `peer`, a node's number or `service`.
pub(crate) fn server_name(attempt: FailureId, peer: &str, domain: &TrustDomain) -> ServerName<'static> {
    // A trust domain may be longer than a DNS name or end in a digit; the id still has to travel.
    let long = DnsName::try_from(format!("{attempt}.{peer}.{domain}"));
    long.map_or_else(|_| enroll_name(attempt), ServerName::DnsName)
}

/// The server name of one attempt to enroll.
pub(crate) fn enroll_name(attempt: FailureId) -> ServerName<'static> {
    match DnsName::try_from(format!("{attempt}.{ENROLL}")) {
        Ok(name) => ServerName::DnsName(name),
        // Unreachable: sixteen hex digits and a constant are a DNS name. An address sends no server name at all.
        Err(_) => ServerName::IpAddress(core::net::Ipv4Addr::LOCALHOST.into()),
    }
}

/// The server name of a stock client: the host that it dials. An address sends none (RFC 6066 section 3).
pub(crate) fn host_name(host: &Host) -> Result<ServerName<'static>, DialCause> {
    ServerName::try_from(host.to_string()).map_err(|_| DialCause::Host)
}

/// The attempt id in a server name: its first label, exactly sixteen lower-case hex digits with another label behind
/// it. Any other text comes from an unauthenticated caller and is dropped, so that it never reaches a log.
pub(crate) fn attempt_id(server_name: &str) -> Option<FailureId> {
    let (label, rest) = server_name.split_once('.')?;
    let canonical = label.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if canonical && !rest.is_empty() { FailureId::parse(label) } else { None }
}

/// A new id, drawn from the operating system.
pub(crate) fn draw() -> FailureId {
    let mut id = [0; 8];
    // Without randomness there are no keys either and the handshake fails by itself; the id is only a name.
    let _ = getrandom::fill(&mut id);
    FailureId(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: FailureId = FailureId([0xab, 0, 1, 2, 3, 4, 5, 0xff]);

    fn text(name: &ServerName<'_>) -> String {
        name.to_str().into_owned()
    }

    #[test]
    fn the_id_travels_in_every_name() {
        let domain = TrustDomain::parse("east-1a2b3c4d.internal").unwrap();
        let name = text(&server_name(ID, "3", &domain));
        assert_eq!(name, "ab000102030405ff.3.east-1a2b3c4d.internal");
        assert_eq!(attempt_id(&name), Some(ID));
        assert_eq!(text(&enroll_name(ID)), "ab000102030405ff.enroll.internal");
        assert_eq!(attempt_id(&text(&enroll_name(ID))), Some(ID));
        for awkward in ["a".repeat(255), "example.1".to_owned()] {
            let domain = TrustDomain::parse(&awkward).unwrap();
            assert_eq!(attempt_id(&text(&server_name(ID, "3", &domain))), Some(ID), "{awkward}");
        }
    }

    #[test]
    fn other_text_is_no_attempt_id() {
        for bad in [
            "",
            "ab000102030405ff",
            "ab000102030405ff.",
            "AB000102030405FF.x",
            "ab000102030405f.x",
            "ab000102030405ff0.x",
            "ab00010203040\n5f.x",
            "${jndi:ldap://x}.y",
            "x.ab000102030405ff.y",
        ] {
            assert_eq!(attempt_id(bad), None, "{bad:?}");
        }
    }
}
