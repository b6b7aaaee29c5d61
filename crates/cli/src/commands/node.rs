//! `countersign node`: members, and how they come to vote, to learn, to leave.

use countersign_api::admin::{MemberStatus, NodeChanged, NodeHosts, NodeHostsChange, NodeQuarantined, NodeRemove};
use countersign_core::name::{Host, Name};

use crate::admin_client::AdminClient;
use crate::args::{HostEdit, Node, NodeVerb, Target};
use crate::commands::enforcement::{Change, complete, enforced, waiting};
use crate::commands::label;
use crate::commands::status::members;
use crate::failure::Failure;
use crate::output::{Output, now_millis, now_secs};

pub(super) async fn run(args: Node, output: Output) -> Result<(), Failure> {
    let client = || AdminClient::to(&args.target);
    let path = |node: &str, action: &str| node_path(node).map(|path| format!("{path}/{action}"));
    let (done, changed): (_, NodeChanged) = match args.verb {
        NodeVerb::List => {
            let list: Vec<MemberStatus> = client()?.get("/v1/nodes").await?;
            return output.show(&list, |text| members(text, &list, now_secs()));
        }
        NodeVerb::Label { principal, edits, wait } => {
            return label::run(&args.target, &principal, &edits, wait, output).await;
        }
        NodeVerb::Hosts { node, edit, host } => return hosts(&args.target, &node, edit, &host, output).await,
        NodeVerb::Quarantine { node, lift } => return quarantine(&args.target, &node, lift, output).await,
        NodeVerb::Promote { node } => {
            let path = path(&node, "promote")?;
            ("is promoted", client()?.post(&path, &serde_json::json!({})).await?)
        }
        NodeVerb::Demote { node, keep_authority } => {
            let body = NodeRemove { compromised: false, keep_authority };
            let path = path(&node, "demote")?;
            ("is demoted", client()?.post(&path, &body).await?)
        }
        NodeVerb::Evict { node, compromised, keep_authority } => {
            let body = NodeRemove { compromised, keep_authority };
            let path = path(&node, "evict")?;
            let client = client()?;
            ("is evicted", waiting(&client, client.post_patiently(&path, &body), Change::Refusal, output).await?)
        }
    };
    output.show(&changed, |text| {
        text.line(&format!("{} ({}) {done}, generation {}", changed.name, changed.node, changed.generation));
        if let Some(enforcement) = &changed.enforcement {
            enforced(text, enforcement, Change::Refusal, now_millis());
        }
        if !changed.tokens_revoked.is_empty() {
            text.line(&format!("tokens revoked: {}", changed.tokens_revoked.join(", ")));
        }
    })?;
    changed.enforcement.map_or(Ok(()), |enforcement| complete(&changed.name, &enforcement, Change::Refusal))
}

/// Adds a host to a member's certificates, or takes it away.
async fn hosts(target: &Target, node: &str, edit: HostEdit, host: &Host, output: Output) -> Result<(), Failure> {
    let path = format!("{}/hosts", node_path(node)?);
    let host = vec![host.to_string()];
    let change = match edit {
        HostEdit::Add => NodeHostsChange { add: host, remove: vec![] },
        HostEdit::Remove => NodeHostsChange { add: vec![], remove: host },
    };
    let changed: NodeHosts = AdminClient::to(target)?.post(&path, &change).await?;
    output.show(&changed, |text| {
        let NodeHosts { node, name, generation, hosts, unproved } = &changed;
        text.line(&format!("{name} ({node}), generation {generation}; its next certificate holds:"));
        text.table(&["HOST", "PROVED BY"], hosts.iter().map(|of| vec![of.host.clone(), of.proof.clone()]));
        if !unproved.is_empty() {
            text.line(&format!("advertised and not proved: {}", unproved.join(", ")));
        }
    })
}

/// Of the member on this host alone: it needs no cluster, and no other member hears of it.
async fn quarantine(target: &Target, node: &str, lift: bool, output: Output) -> Result<(), Failure> {
    let path = format!("{}/quarantine", node_path(node)?);
    if let Some(server) = &target.server {
        let reason = format!("`--server {server}`: a quarantine is of the member on its own host alone");
        return Err(Failure::usage(
            reason,
            "run it on each voter's host, with --data if its directory is not the usual",
        ));
    }
    let client = AdminClient::to(target)?;
    let done: NodeQuarantined =
        if lift { client.delete_to(&path).await? } else { client.post(&path, &serde_json::json!({})).await? };
    output.show(&done, |text| {
        let NodeQuarantined { node, name, connections_closed, .. } = &done;
        text.line(&if lift {
            format!("{name} ({node}) is let in again by this member")
        } else {
            format!(
                "{name} ({node}) is refused by this member alone, connections closed: {connections_closed}; do the \
                 same on the other voters, then evict it"
            )
        });
    })
}

/// A name or a number; anything else never becomes part of a path.
pub(super) fn node_path(node: &str) -> Result<String, Failure> {
    let name = Name::parse(node).map_err(|reason| {
        Failure::usage(format!("`{node}` is no name and no number of a node: {reason}"), "countersign node list")
    })?;
    Ok(format!("/v1/nodes/{name}"))
}
