//! Judges x509-limbo documents (<https://x509-limbo.com>) with the same path search that the cluster uses, so that its
//! strictness can be measured from outside.
//!
//! The rule that a cluster certificate names exactly one principal is left out: it comes on top, in [`crate::verify`].

use core::net::IpAddr;

use countersign_core::time::UnixMillis;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::certificate::Certificate;
use crate::der::DerError;
use crate::path::{PathError, PathOptions, verify_path};
use crate::peer_name::{PeerName, names_peer};
use crate::profile::{ProfileError, Usage};

/// Intermediates that a path may have where the case names no depth.
const INTERMEDIATES_MAX: usize = 8;

/// The document is not one of x509-limbo.
#[derive(Debug, thiserror::Error)]
#[error("not an x509-limbo document")]
pub struct LimboError(#[from] serde_json::Error);

/// What became of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A path was found, and the leaf names the peer.
    Accept,
    /// No path, or another peer.
    Reject,
    /// The case is about a feature that the profile does not offer.
    Skip,
}

/// The verdict on one case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimboVerdict {
    /// The case.
    pub id: String,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, for people; empty when accepted.
    pub reason: String,
}

#[derive(Deserialize)]
struct Document {
    testcases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    #[serde(default)]
    conflicts_with: Vec<String>,
    #[serde(default)]
    features: Vec<String>,
    validation_kind: Kind,
    trusted_certs: Vec<String>,
    untrusted_intermediates: Vec<String>,
    peer_certificate: String,
    validation_time: Option<String>,
    #[serde(default)]
    signature_algorithms: Vec<String>,
    #[serde(default)]
    key_usage: Vec<String>,
    #[serde(default)]
    extended_key_usage: Vec<String>,
    expected_result: Option<Expected>,
    expected_peer_name: Option<Peer>,
    #[serde(default)]
    expected_peer_names: Vec<Peer>,
    max_chain_depth: Option<usize>,
    #[serde(default)]
    crls: Vec<String>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "UPPERCASE")]
enum Kind {
    Server,
    Client,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "UPPERCASE")]
enum Expected {
    Success,
    Failure,
}

#[derive(Deserialize)]
struct Peer {
    kind: String,
    value: String,
}

/// Why a case is not accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("certificate of the peer is malformed")]
    Malformed(#[from] DerError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("certificate does not name the expected peer")]
    PeerName,
    #[error("expected peer name or time is malformed")]
    Expectation,
}

/// Judges every case of a document; `now` is the time for those that name none.
pub fn evaluate(json: &[u8], now: UnixMillis) -> Result<Vec<LimboVerdict>, LimboError> {
    let document: Document = serde_json::from_slice(json)?;
    Ok(document.testcases.iter().map(|case| verdict(case, now)).collect())
}

fn verdict(case: &Case, now: UnixMillis) -> LimboVerdict {
    let (verdict, reason) = match not_offered(case) {
        Some(feature) => (Verdict::Skip, feature.to_owned()),
        None => match judge(case, now) {
            Ok(()) => accepted(case),
            Err(refusal) => match stricter(case, &refusal) {
                Some(rule) => (Verdict::Skip, rule.to_owned()),
                None => (Verdict::Reject, refusal.to_string()),
            },
        },
    };
    LimboVerdict { id: case.id.clone(), verdict, reason }
}

/// Features that the profile has no counterpart for, whatever the certificates.
fn not_offered(case: &Case) -> Option<&'static str> {
    if !case.crls.is_empty() {
        return Some("certificate revocation lists are not offered: revocation is by key, in the replicated state");
    }
    if !case.signature_algorithms.is_empty() {
        return Some("choosing signature algorithms per verification is not offered");
    }
    if case.key_usage.iter().any(|usage| usage != "digitalSignature") {
        return Some("key usages other than digitalSignature are not offered");
    }
    if case.extended_key_usage.iter().any(|usage| usage != "serverAuth" && usage != "clientAuth") {
        return Some("key purposes other than serverAuth and clientAuth are not offered");
    }
    None
}

fn accepted(case: &Case) -> (Verdict, String) {
    if case.features.iter().any(|feature| feature == "pedantic-public-suffix-wildcard") {
        return (Verdict::Skip, "a list of public suffixes is not offered".to_owned());
    }
    (Verdict::Accept, String::new())
}

/// Where the suite itself asks for both answers, or leaves a rule optional, the profile keeps the stricter one.
fn stricter(case: &Case, refusal: &Refusal) -> Option<&'static str> {
    let policies = matches!(refusal, Refusal::Path(PathError::Profile(ProfileError::PolicyConstraints)));
    if policies && case.features.iter().any(|feature| feature.contains("polic")) {
        return Some("certificate policies are not offered");
    }
    if case.expected_result != Some(Expected::Success) {
        return None;
    }
    if matches!(refusal, Refusal::Path(PathError::Profile(ProfileError::LeafIsAuthority))) {
        return Some("certificate of an authority as a leaf is not offered: conflicts with the stricter rule");
    }
    (!case.conflicts_with.is_empty()).then_some("conflicts with the stricter rule")
}

fn judge(case: &Case, now: UnixMillis) -> Result<(), Refusal> {
    let now = match &case.validation_time {
        Some(text) => rfc3339(text).ok_or(Refusal::Expectation)?,
        None => now,
    };
    let usages = usages(case);
    let leaf = parse(&case.peer_certificate)?;
    // An unreadable certificate cannot be part of a path, and must not keep others from being one.
    let readable = |texts: &[String]| texts.iter().filter_map(|text| parse(text).ok()).collect::<Vec<_>>();
    let (anchors, intermediates) = (readable(&case.trusted_certs), readable(&case.untrusted_intermediates));
    for usage in usages {
        let intermediates_max = case.max_chain_depth.unwrap_or(INTERMEDIATES_MAX);
        verify_path(&anchors, &intermediates, &leaf, PathOptions { usage, now: Some(now), intermediates_max })?;
    }
    for peer in case.expected_peer_name.iter().chain(&case.expected_peer_names) {
        let wanted = peer_name(peer).ok_or(Refusal::Expectation)?;
        if !names_peer(&leaf, &wanted) {
            return Err(Refusal::PeerName);
        }
    }
    Ok(())
}

fn usages(case: &Case) -> Vec<Usage> {
    if case.extended_key_usage.is_empty() {
        return vec![if case.validation_kind == Kind::Server { Usage::Server } else { Usage::Client }];
    }
    let usage = |purpose: &String| if purpose == "serverAuth" { Usage::Server } else { Usage::Client };
    case.extended_key_usage.iter().map(usage).collect()
}

fn parse(pem: &str) -> Result<Certificate, DerError> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| DerError)?;
    Certificate::parse(&der)
}

fn peer_name(peer: &Peer) -> Option<PeerName> {
    match peer.kind.as_str() {
        // Some suites carry addresses under the wrong kind.
        "DNS" => Some(peer.value.parse().map_or_else(|_| PeerName::Dns(peer.value.clone()), PeerName::Ip)),
        "IP" => peer.value.parse::<IpAddr>().ok().map(PeerName::Ip),
        "RFC822" => Some(PeerName::Email(peer.value.clone())),
        _ => None,
    }
}

/// Whole seconds of `YYYY-MM-DDThh:mm:ss[.fff](Z|±hh:mm)` (RFC 3339); a fraction is cut off, as certificates know none.
fn rfc3339(text: &str) -> Option<UnixMillis> {
    let (date, rest) = text.split_at_checked(19)?;
    let zone = rest.strip_prefix('.').map_or(rest, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    let compact: String = date.chars().filter(char::is_ascii_digit).collect();
    if date
        .char_indices()
        .any(|(at, c)| !c.is_ascii_digit() && !matches!((at, c), (4 | 7, '-') | (10, 'T') | (13 | 16, ':')))
    {
        return None;
    }
    let local = i64::try_from(crate::der::civil_seconds(&compact).ok()?).ok()?;
    let ahead = match zone.split_at_checked(1)? {
        ("Z", "") => 0,
        (sign @ ("+" | "-"), offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let secs =
                hours.parse::<u32>().ok()?.checked_mul(60)?.checked_add(minutes.parse().ok()?)?.checked_mul(60)?;
            if sign == "+" { i64::from(secs) } else { -i64::from(secs) }
        }
        _ => return None,
    };
    u64::try_from(local.checked_sub(ahead)?).ok().map(UnixMillis::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_cases_are_read_with_zone_and_without_fraction() {
        for (text, expected) in [
            ("1970-01-01T00:00:03+00:00", Some(3)),
            ("2024-03-01T00:00:00.999+00:00", Some(1_709_251_200)),
            ("2024-03-01T01:30:00+01:30", Some(1_709_251_200)),
            ("2024-02-29T22:30:00-01:30", Some(1_709_251_200)),
            ("2024-03-01T00:00:00Z", Some(1_709_251_200)),
            ("2024-03-01T00:00:00", None),
            ("2024-03-01 00:00:00Z", None),
            ("2024-13-01T00:00:00Z", None),
            ("1969-12-31T23:59:59Z", Some(0)),
            ("", None),
        ] {
            assert_eq!(rfc3339(text).map(UnixMillis::secs), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for json in [&b""[..], b"{}", b"[]", b"{\"testcases\":[{}]}"] {
            assert!(evaluate(json, UnixMillis(0)).is_err());
        }
    }
}
