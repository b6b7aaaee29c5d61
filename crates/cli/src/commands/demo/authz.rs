//! Rules: a client is denied one service everywhere, on the connection that it has, and is told no more than that. The
//! operator is told by which rule.

use serde_json::Value;

use super::cluster::Cluster;
use super::hostile::Holder;
use super::revocation::enforced;
use super::story::at;
use super::table::{Seen, Table};

/// The service that the server has beside its own.
const CALL: &str = "service:countersign.v1.Whoami/Whoami";

pub(super) async fn denied(
    cluster: &Cluster,
    table: &mut Table,
    (asked, serving): (&str, &str),
    (client, name): (&Holder, &str),
) -> anyhow::Result<()> {
    let rule = ["--principal", name, "--action", "write", "--resource", CALL];
    let mut open = client.connect(&cluster.client_address(serving)?).await?;
    open.ask().await.map_err(|status| anyhow::anyhow!("not served before it is denied: {status}"))?;
    table.begin();
    let denied = cluster.must(asked, &[&["acl", "add", "--deny", "--wait"], &rule[..]].concat()).await?;
    table.row("deny a client one service", "every member says so", enforced(&denied));
    let seen = match open.ask().await {
        Ok(principal) => Seen::new(false, format!("still served as {principal}")),
        Err(status) => Seen::holding("denied", status.message().to_owned()),
    };
    table.row("the client without a grant, on its open connection", "denied", seen);
    table.begin();
    let why = cluster.ask(serving, &[&["acl", "check"], &rule[..]].concat()).await?;
    let reason = at(&why.json, "/reason").as_str().unwrap_or_default();
    let agrees = why.code == 1 && at(&why.json, "/allowed") == &Value::Bool(false);
    let text = format!("exit code {}, {reason}, generation {}", why.code, at(&why.json, "/generation"));
    table.row("the operator asks why", "DENY, by which rule", Seen::new(agrees, text));
    table.begin();
    cluster.must(asked, &[&["acl", "remove", "--deny", "--wait"], &rule[..]].concat()).await?;
    let seen = match open.ask().await {
        Ok(principal) => Seen::holding(name, principal),
        Err(status) => Seen::new(false, format!("denied: {}", status.message())),
    };
    table.row("the rule is removed", "served again", seen);
    Ok(())
}
