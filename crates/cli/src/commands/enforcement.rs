//! How a revocation came into force, member by member.

use countersign_api::admin::{EnforcedBy, Enforcement};

use crate::output::Text;

/// Writes a line for each member, and what to do if some are still awaited.
pub(super) fn enforced(text: &mut Text, enforcement: &Enforcement) {
    let header = ["MEMBER", "STATE", "CONNECTIONS CLOSED", "SIGNED"];
    text.table(&header, enforcement.members.iter().map(row));
    if !enforcement.complete {
        text.line(
            "the revocation is committed, but not in force everywhere yet: `countersign status` says who is awaited",
        );
    }
}

fn row(member: &EnforcedBy) -> Vec<String> {
    let state = match (member.state.as_str(), member.lease_ends_millis) {
        ("enforced", _) | (_, None) => member.state.clone(),
        ("lapsed", _) => "did not answer; its lease has run out, it serves nobody".to_owned(),
        (_, Some(at)) => format!("did not answer; its lease ends at {at} ms since the epoch"),
    };
    let closed = member.receipt.as_ref().map(|receipt| receipt.connections_closed.to_string());
    let signature = member.receipt.as_ref().map(|receipt| &receipt.signature).or(member.absence_signature.as_ref());
    let signed = signature.map(|hex| format!("{}…", hex.get(..16).unwrap_or(hex)));
    vec![member.name.clone(), state, closed.unwrap_or_else(|| "-".to_owned()), signed.unwrap_or_else(|| "-".to_owned())]
}
