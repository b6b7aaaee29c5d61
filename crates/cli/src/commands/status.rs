//! `countersign status`: the cluster as one member sees it.

use countersign_api::admin::{MemberStatus, PendingMember, Status as StatusAnswer};

use crate::admin_client::AdminClient;
use crate::args::Status;
use crate::failure::Failure;
use crate::output::{Output, Text, at_millis, at_secs, by, labels, now_millis, now_secs, or_dash};

pub(super) async fn run(args: &Status, output: Output) -> Result<(), Failure> {
    let status: StatusAnswer = AdminClient::to(&args.target)?.get("/v1/status").await?;
    output.show(&status, |text| write(text, &status, now_secs()))
}

fn write(text: &mut Text, status: &StatusAnswer, now: u64) {
    let raft = &status.raft;
    let leader = raft.leader.map(|leader| name_of(status, leader));
    text.fields(&[
        ("cluster", format!("{} ({})", status.cluster, status.cluster_id)),
        ("trust domain", status.trust_domain.clone()),
        ("this member", format!("{} ({})", status.name, status.node)),
        ("ready", if status.ready { "yes" } else { "no" }.to_owned()),
        ("leader", or_dash(leader)),
        ("raft", format!("{}, term {}, applied {} of {}", raft.state, raft.term, raft.applied_index, raft.last_index)),
        ("generation", status.generation.to_string()),
        ("changes", format!("{}, head {}", status.changes.count, status.changes.head)),
        (
            "authority",
            format!("{}{}", status.authority.fingerprint, if status.authority.imported { " (imported)" } else { "" }),
        ),
        ("authority expires", at_secs(status.authority.not_after, now)),
        ("certificate expires", at_secs(status.certificate.not_after, now)),
        ("renews", status.certificate.renews_at.map_or_else(|| "-".to_owned(), |at| at_secs(at, now))),
        ("lease", lease(status)),
        ("can issue", if status.can_issue { "yes" } else { "no" }.to_owned()),
        ("keys", status.key_protection.clone()),
        ("connections", status.connections.to_string()),
    ]);
    text.line("");
    members(text, &status.members, now);
    for evicted in &status.evicted {
        text.line(&format!("evicted: {} ({}), generation {}", evicted.name, evicted.node, evicted.generation));
    }
    for pending in &status.waiting_for {
        text.line(&waiting_for(pending, now_millis()));
    }
    for warning in &status.warnings {
        text.line(&format!("warning: {warning}"));
    }
}

fn lease(status: &StatusAnswer) -> String {
    match status.lease_millis_left {
        Some(left) => format!("{}.{} s left of {}", left / 1000, left % 1000 / 100, status.lease_secs),
        None => format!("none of {} s: this member serves no client", status.lease_secs),
    }
}

/// Who keeps a revocation from being in force everywhere, until when, and what to do.
fn waiting_for(pending: &PendingMember, now_millis: u64) -> String {
    let PendingMember { node, name, generation, lease_ends_millis } = pending;
    let serves = if *lease_ends_millis <= now_millis { "it serves no client since" } else { "it may serve until" };
    format!(
        "waiting for: {name} ({node}) does not say that it enforces generation {generation}; {serves} {}; start it, or \
         evict it if it is gone",
        at_millis(*lease_ends_millis, now_millis)
    )
}

fn name_of(status: &StatusAnswer, node: u64) -> String {
    let member = status.members.iter().find(|member| member.node == node);
    member.map_or_else(|| node.to_string(), |member| format!("{} ({node})", member.name))
}

/// The token that admitted a member, and who made it.
fn admitted(member: &MemberStatus) -> String {
    match (&member.admitted_by, &member.token_made) {
        (Some(token), Some(made)) => format!("token {token} of {}", by(made)),
        (Some(token), None) => format!("token {token}"),
        (None, _) => "founder".to_owned(),
    }
}

/// The members as a table.
pub(super) fn members(text: &mut Text, members: &[MemberStatus], now: u64) {
    let header =
        ["NODE", "NAME", "ROLE", "LABELS", "ADDRESSES", "CLIENTS", "CAN ISSUE", "CERTIFICATE EXPIRES", "ADMITTED BY"];
    text.table(
        &header,
        members.iter().map(|member| {
            let changing = if member.converged { "" } else { " (changing)" };
            let this = if member.this { "*" } else { "" };
            vec![
                format!("{}{this}", member.node),
                member.name.clone(),
                format!("{}{changing}", member.role),
                labels(&member.labels),
                member.addresses.join(","),
                or_dash(member.client_address.as_ref()),
                if member.holds_authority { "yes" } else { "no" }.to_owned(),
                at_secs(member.certificate_not_after, now),
                admitted(member),
            ]
        }),
    );
}
