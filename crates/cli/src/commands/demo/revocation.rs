//! What happens over time: certificates that renew under load, a member that was paused, and what an eviction returns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::cluster::Cluster;
use super::hostile::{Holder, Whoami};
use super::story::at;
use super::table::{Seen, Table};

/// Seconds that node certificates live in the demo: renewal is seen while it runs.
pub(super) const NODE_TTL: &str = "20s";
/// Seconds that leases last: a pause beyond it is short.
pub(super) const LEASE_SECS: &str = "3";
/// Longer than a lease, and than the time that is added to it for clocks that run apart.
const PAUSE: Duration = Duration::from_millis(3_500);

/// A client that calls all the time, on connections of its own.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    failed: JoinHandle<Vec<String>>,
}

impl Load {
    pub(super) async fn begin(client: &Holder, address: &str) -> anyhow::Result<Self> {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut open = client.connect(address).await?;
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&served));
        let failed = tokio::spawn(async move {
            let mut failed = Vec::new();
            while !stopped.load(Ordering::Relaxed) && failed.len() < 10 {
                match open.ask().await {
                    Ok(_) => drop(count.fetch_add(1, Ordering::Relaxed)),
                    Err(status) => failed.push(status.message().to_owned()),
                }
                // why: a steady load, not the most that is possible
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            failed
        });
        Ok(Self { stop, served, failed })
    }

    async fn end(self) -> anyhow::Result<(u64, Vec<String>)> {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.failed.await?;
        Ok((self.served.load(Ordering::Relaxed), failed))
    }
}

/// Every node's certificate is renewed since the beginning, and the load has not noticed.
pub(super) async fn renewal(
    cluster: &Cluster,
    table: &mut Table,
    node: &str,
    before: &Value,
    load: Load,
) -> anyhow::Result<()> {
    table.begin();
    let ends = |status: &Value| -> Vec<(Value, u64)> {
        let members = at(status, "/members").as_array().cloned().unwrap_or_default();
        let end = |m: &Value| (at(m, "/name").clone(), at(m, "/certificate_not_after").as_u64().unwrap_or(0));
        members.iter().map(end).collect()
    };
    let before = ends(before);
    let renewed = |status: &Value| {
        let now = ends(status);
        before.iter().all(|(name, was)| now.iter().any(|(n, is)| n == name && is > was))
    };
    cluster.until(node, renewed).await?;
    let (served, failed) = load.end().await?;
    let text =
        format!("{} certificates renewed, {served} calls served, {} failed {failed:?}", before.len(), failed.len());
    table.row(
        "certificates renew under load",
        "renewed, no call failed",
        Seen::new(failed.is_empty() && served > 0, text),
    );
    Ok(())
}

/// A member is stopped for longer than a lease; meanwhile a client is revoked, and its request waits at the member's
/// socket.
pub(super) async fn paused(
    cluster: &Cluster,
    table: &mut Table,
    (asked, paused): (&str, &str),
    late: (&Holder, &str),
) -> anyhow::Result<()> {
    let (client, name) = late;
    let mut open: Whoami = client.connect(&cluster.client_address(paused)?).await?;
    open.ask().await.map_err(|status| anyhow::anyhow!("not served before it is revoked: {status}"))?;
    table.begin();
    cluster.pause(paused).await?;
    let waiting = tokio::spawn(async move { open.ask().await });
    let revoked = cluster.must(asked, &["cert", "revoke", name]).await?;
    let states = standing(&revoked);
    let lapsed = states.iter().any(|(node, state)| node == paused && state == "lapsed");
    let complete = at(&revoked, "/enforcement/complete") == &Value::Bool(true);
    let text = states.iter().map(|(node, state)| format!("{node} {state}")).collect::<Vec<_>>().join(", ");
    table.row("revoke a client while a node is paused", "waits for its lease", Seen::new(lapsed && complete, text));
    // why: it is paused for longer than its lease, whatever the revocation took
    tokio::time::sleep(PAUSE).await;
    cluster.resume(paused)?;
    let answer = waiting.await.context("the caller ended")?;
    let seen = match answer {
        Ok(principal) => Seen::new(false, format!("served {principal}")),
        Err(status) => Seen::new(true, format!("denied: {}", status.message())),
    };
    table.row("it resumes with the client's request queued", "denied", seen);
    cluster.until(paused, |status| at(status, "/ready") == &Value::Bool(true)).await?;
    Ok(())
}

/// Each member's name, and how far it is with a revocation.
fn standing(changed: &Value) -> Vec<(String, String)> {
    let members = at(changed, "/enforcement/members").as_array().cloned().unwrap_or_default();
    let word = |m: &Value, field: &str| at(m, field).as_str().unwrap_or_default().to_owned();
    members.iter().map(|m| (word(m, "/name"), word(m, "/state"))).collect()
}

/// Whether every member says that it enforces a change of rules.
pub(super) fn enforced(changed: &Value) -> Seen {
    let states = standing(changed);
    // An evicted node is no member any more: the report names it, and no answer is asked of it.
    let all = states.iter().all(|(_, state)| state == "enforced" || state == "evicted");
    let complete = at(changed, "/enforcement/complete") == &Value::Bool(true);
    let text = states.iter().map(|(node, state)| format!("{node} {state}")).collect::<Vec<_>>().join(", ");
    Seen::new(all && complete && !states.is_empty(), text)
}

/// What an eviction returned: the signed word of each member that is left.
pub(super) fn receipts(changed: &Value) -> Seen {
    let members = at(changed, "/enforcement/members").as_array().cloned().unwrap_or_default();
    let signed = members.iter().filter(|m| at(m, "/receipt/signature").is_string()).count();
    let closed: u64 = members.iter().filter_map(|m| at(m, "/receipt/connections_closed").as_u64()).sum();
    let enforced = members.iter().filter(|m| at(m, "/state") == "enforced").count();
    let complete = at(changed, "/enforcement/complete") == &Value::Bool(true);
    let text = format!("{signed} receipts, {closed} connections closed");
    Seen::new(complete && signed > 1 && signed == enforced && closed > 0, text)
}
