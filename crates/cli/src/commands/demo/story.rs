//! The story: a cluster comes to be, an honest client is served, everybody else is refused.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, ensure};
use countersign_net::DialError;
use serde_json::Value;

use super::authz;
use super::cluster::Cluster;
use super::hostile::{Holder, call_empty_handed, come_empty_handed};
use super::man_in_the_middle::ManInTheMiddle;
use super::revocation::{self, Load};
use super::table::{Seen, Table};

pub(super) async fn tell(cluster: &mut Cluster, table: &mut Table, nodes: u16) -> anyhow::Result<()> {
    let nodes: Vec<String> = (1..=nodes).map(|i| format!("n{i}")).collect();
    let [first, second, .., last] = nodes.as_slice() else { anyhow::bail!("at least three nodes are needed") };
    table.begin();
    let settings =
        [("COUNTERSIGN_PKI_NODE_TTL", revocation::NODE_TTL), ("COUNTERSIGN_TRUST_LEASE_SECS", revocation::LEASE_SECS)];
    cluster.start_with(first, &["--bootstrap", "--cluster-name", "demo"], &settings).await?;
    let status = cluster.until(first, |s| at(s, "/ready") == &Value::Bool(true)).await?;
    let domain = text(&status, "trust_domain")?;
    table.row("bootstrap", "one voter, ready", Seen::holding("1 member", format!("{}, {domain}", members(&status))));

    let mut tokens = Vec::new();
    for node in nodes.iter().skip(1) {
        table.begin();
        let token = one_time_token(cluster, first, node).await?;
        join(cluster, node, &token, &cluster.address(first)?).await?;
        let count = tokens.len() + 2;
        let status = cluster.until(node, |s| all_settled(s, count)).await?;
        table.row("join by a one-time token", "voter, holds the CA key", Seen::new(true, members(&status)));
        tokens.push(token);
    }

    let authority = authority_of(cluster, first)?;
    let client = issue_client(cluster, first, "pay", &authority, &domain).await?;
    table.begin();
    let principal = client.connect(&cluster.client_address(second)?).await?.ask().await?;
    table.row("an enrolled client calls", "served as /client/pay", Seen::holding("/client/pay", principal));
    let load = Load::begin(&client, &cluster.client_address(first)?).await?;
    let before = cluster.must(first, &["status"]).await?;

    attacks(cluster, table, second, &authority, &domain, &client).await?;
    another_nodes_id(cluster, table, second, last, &authority, &domain).await?;
    a_learner_leads(cluster, table, second, &authority, &domain).await?;
    token_attacks(cluster, table, &nodes, &tokens, &authority).await?;
    let shop = issue_client(cluster, first, "shop", &authority, &domain).await?;
    authz::denied(cluster, table, (first, second), (&shop, "client/shop")).await?;
    revocation::renewal(cluster, table, first, &before, load).await?;
    let late = issue_client(cluster, first, "late", &authority, &domain).await?;
    revocation::paused(cluster, table, (first, second), (&late, "client/late")).await?;
    eviction(cluster, table, first, last, &authority, &domain).await?;
    founder_killed(cluster, table, first, second).await
}

async fn attacks(
    cluster: &Cluster,
    table: &mut Table,
    target: &str,
    authority: &str,
    domain: &str,
    client: &Holder,
) -> anyhow::Result<()> {
    let (address, client_address) = (cluster.address(target)?, cluster.client_address(target)?);
    let outcome = come_empty_handed(&address).await;
    let seen = refusal(cluster, target, "handshake", outcome).await?;
    table.row("no certificate, as a peer", "refused: handshake", seen);
    let outcome = call_empty_handed(&client_address).await;
    let seen = refusal_in_tls(cluster, target, outcome).await?;
    table.row("no certificate, as a client", "refused: handshake", seen);

    let foreign = foreign_client(cluster.root(), authority, domain)?;
    let outcome = foreign.pass_for_a_client(&client_address).await;
    let seen = refusal_in_tls(cluster, target, outcome).await?;
    table.row("a foreign CA's certificate of this name", "refused: handshake", seen);
    let outcome = client.pass_for_a_member(&address).await;
    let seen = refusal(cluster, target, "not-a-node", outcome).await?;
    table.row("a client's certificate, to speak raft", "refused: not-a-node", seen);
    Ok(())
}

/// A member, with a certificate of its own, speaks raft in the name of another one.
async fn another_nodes_id(
    cluster: &Cluster,
    table: &mut Table,
    target: &str,
    traitor: &str,
    authority: &str,
    domain: &str,
) -> anyhow::Result<()> {
    let term = |status: &Value| at(status, "/raft/term").as_u64();
    let before = term(&cluster.must(target, &["status"]).await?);
    let traitor = holder_of(cluster, traitor, authority, domain)?;
    table.begin();
    let told = traitor.ask_for_a_vote_as(1, &cluster.address(target)?).await?;
    let after = term(&cluster.must(target, &["status"]).await?);
    let seen = match told {
        Ok(()) => Seen::new(false, "heard"),
        Err(refusal) => Seen::new(before == after, format!("{refusal}; the term stays {}", after.unwrap_or_default())),
    };
    table.row("a member asks for votes as another node", "refused, same term", seen);
    Ok(())
}

/// A learner, with a certificate of its own, claims to lead: Raft itself would obey.
async fn a_learner_leads(
    cluster: &mut Cluster,
    table: &mut Table,
    sponsor: &str,
    authority: &str,
    domain: &str,
) -> anyhow::Result<()> {
    let flags = ["token", "create", "--role", "learner"];
    let token = text(&cluster.must(sponsor, &flags).await?, "token")?;
    join(cluster, "learner", &token, &cluster.address(sponsor)?).await?;
    let status = cluster.until("learner", |s| at(s, "/ready") == &Value::Bool(true)).await?;
    let number = at(&status, "/node").as_u64().context("no number")?;
    let before = at(&cluster.must(sponsor, &["status"]).await?, "/raft/term").as_u64();
    let learner = holder_of(cluster, "learner", authority, domain)?;
    table.begin();
    let told = learner.claim_to_lead_as(number, &cluster.address(sponsor)?).await?;
    let after = at(&cluster.must(sponsor, &["status"]).await?, "/raft/term").as_u64();
    let seen = match told {
        Ok(()) => Seen::new(false, "obeyed"),
        Err(refusal) => Seen::new(before == after, format!("{refusal}; the term stays {}", after.unwrap_or_default())),
    };
    table.row("a learner claims to lead", "refused, same term", seen);
    cluster.must(sponsor, &["node", "evict", "learner"]).await?;
    cluster.kill("learner")
}

/// The thief of a whole machine: the node's own certificate and key.
fn holder_of(cluster: &Cluster, node: &str, authority: &str, domain: &str) -> anyhow::Result<Holder> {
    let data = cluster.data(node);
    let read = |name: &str| std::fs::read_to_string(data.join(name)).with_context(|| format!("cannot read {name}"));
    // Once it is renewed, key and certificate are in one file.
    match read("keys/renewed-leaf.pem") {
        Ok(both) => Holder::new(&both, &both, authority, domain),
        Err(_) => Holder::new(&read("leaf.pem")?, &read("keys/leaf.key")?, authority, domain),
    }
}

async fn token_attacks(
    cluster: &mut Cluster,
    table: &mut Table,
    nodes: &[String],
    tokens: &[String],
    authority: &str,
) -> anyhow::Result<()> {
    let (Some(first), Some(used_up)) = (nodes.first(), tokens.first()) else { anyhow::bail!("no token was used") };
    let address = cluster.address(first)?;
    table.begin();
    let outcome = join(cluster, "thief", used_up, &address).await;
    table.row("a used-up token", "refused: no uses left", refused_join("no uses left", outcome));

    let middle = ManInTheMiddle::listen(authority).await?;
    let token = one_time_token(cluster, first, "victim").await?;
    table.begin();
    let outcome = join(cluster, "victim", &token, &middle.address.clone()).await;
    let refused = refused_join("certificate", outcome);
    let told = middle.told();
    let seen = Seen::new(refused.agrees && told == 0, format!("{told} bytes told; {}", refused.text));
    table.row("a man in the middle appends the real CA", "refused, 0 bytes told", seen);

    table.begin();
    let wrong = if token.chars().nth(9) == Some('a') { "b" } else { "a" };
    let mistyped: String =
        token.char_indices().map(|(i, c)| if i == 9 { wrong.to_owned() } else { c.to_string() }).collect();
    let outcome = join(cluster, "typo", &mistyped, "127.0.0.1:1").await;
    table.row("a mistyped token", "refused before any network", refused_join("mistyped", outcome));
    Ok(())
}

async fn eviction(
    cluster: &Cluster,
    table: &mut Table,
    first: &str,
    evicted: &str,
    authority: &str,
    domain: &str,
) -> anyhow::Result<()> {
    let address = cluster.client_address(first)?;
    let thief = holder_of(cluster, evicted, authority, domain)?;
    let mut open = thief.connect(&address).await?;
    ensure!(open.ask().await.is_ok(), "a member is not served");
    table.begin();
    let done = cluster.must(first, &["node", "evict", evicted, "--keep-authority"]).await?;
    table.row("evict a node", "a receipt of every member", revocation::receipts(&done));
    let seen = match open.ask().await {
        Ok(principal) => Seen::new(false, format!("still served as {principal}")),
        Err(status) => Seen::new(true, format!("cut: {}", status.message())),
    };
    table.row("the evicted node, on its open connection", "cut", seen);
    let seen = match thief.connect(&address).await?.ask().await {
        Ok(principal) => Seen::new(false, format!("served as {principal}")),
        Err(status) => Seen::holding("failure", status.message().to_owned()),
    };
    table.row("the evicted node, on a new connection", "refused, with a failure id", seen);
    Ok(())
}

async fn founder_killed(cluster: &mut Cluster, table: &mut Table, first: &str, second: &str) -> anyhow::Result<()> {
    table.begin();
    cluster.kill(first)?;
    cluster.start(first, &[]).await?;
    let again = cluster.until(first, |s| at(s, "/ready") == &Value::Bool(true)).await?;
    // At least: certificates go on renewing meanwhile, each in a generation of its own.
    let generation = |status: &Value| at(status, "/generation").as_u64();
    let caught_up = |s: &Value| at(s, "/ready") == &Value::Bool(true) && generation(s) >= generation(&again);
    let other = cluster.until(second, caught_up).await?;
    let same = at(&other, "/cluster_id") == at(&again, "/cluster_id") && at(&other, "/members").is_array();
    table.row("the founder is killed and starts again", "whole again", Seen::new(same, members(&again)));
    Ok(())
}

/// What both ends know of a refusal: the dialer's error, and the acceptor's record under the same failure id.
async fn refusal(
    cluster: &Cluster,
    target: &str,
    word: &str,
    outcome: Result<(), Box<DialError>>,
) -> anyhow::Result<Seen> {
    let error = match outcome {
        Ok(()) => return Ok(Seen::new(false, "let in")),
        Err(error) => error,
    };
    let id = error.failure_id.context("the attempt has no id")?.to_string();
    let answer = cluster.ask(target, &["explain", &id]).await?;
    let reason = at(&answer.json, "/reason").as_str().unwrap_or("not on record there").to_owned();
    let agrees = answer.code == 0 && reason.contains(word);
    Ok(Seen::new(agrees, format!("{reason}, failure id {id} on both ends")))
}

/// A client port refused a caller within TLS, which knows no id: the member's record is found by the caller's address.
async fn refusal_in_tls(cluster: &Cluster, target: &str, outcome: Result<(), String>) -> anyhow::Result<Seen> {
    let Err(told) = outcome else { return Ok(Seen::new(false, "let in")) };
    let answer = cluster.ask(target, &["explain", "--source", "127.0.0.1", "--since", "10s"]).await?;
    let newest = answer.json.as_array().and_then(|refusals| refusals.last()).unwrap_or(&Value::Null);
    let reason = at(newest, "/reason").as_str().unwrap_or("not on record there");
    let agrees = reason == "handshake" && at(newest, "/protocol") == "client";
    Ok(Seen::new(agrees, format!("{reason}; told: {told}")))
}

fn refused_join(word: &str, outcome: anyhow::Result<()>) -> Seen {
    match outcome {
        Ok(()) => Seen::new(false, "admitted"),
        Err(error) => Seen::holding(word, format!("{error:#}")),
    }
}

async fn one_time_token(cluster: &Cluster, sponsor: &str, node: &str) -> anyhow::Result<String> {
    let created = cluster.must(sponsor, &["token", "create", "--ttl", "10m", "--uses", "1", "--name", node]).await?;
    text(&created, "token")
}

async fn join(cluster: &mut Cluster, node: &str, token: &str, sponsor: &str) -> anyhow::Result<()> {
    let file = cluster.root().join(format!("{node}.token"));
    let mut written = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
    written.write_all(token.as_bytes())?;
    let from_file = format!("@{}", file.display());
    cluster.start(node, &["--join-token", &from_file, "--join-addr", sponsor]).await
}

async fn issue_client(
    cluster: &Cluster,
    node: &str,
    name: &str,
    authority: &str,
    domain: &str,
) -> anyhow::Result<Holder> {
    let out = cluster.root().join("certificates");
    let flag = out.display().to_string();
    cluster.must(node, &["cert", "issue", "--client", name, "--out", &flag]).await?;
    let read = |file: String| std::fs::read_to_string(out.join(file)).context("certificate was not written");
    Holder::new(&read(format!("{name}.pem"))?, &read(format!("{name}.key"))?, authority, domain)
}

/// A client certificate of the same name and trust domain, from an authority of the attacker's own.
fn foreign_client(root: &Path, real_authority: &str, domain: &str) -> anyhow::Result<Holder> {
    let out = root.join("foreign");
    let flag = out.display().to_string();
    for command in [
        vec!["security", "ca", "create", "--trust-domain", domain, "--out", &flag],
        vec![
            "security",
            "certs",
            "create-client",
            "--principal",
            "pay",
            "--trust-domain",
            domain,
            "--ca",
            &flag,
            "--out",
            &flag,
        ],
    ] {
        let done = std::process::Command::new(std::env::current_exe()?).args(&command).output()?;
        ensure!(
            done.status.success(),
            "`countersign {}`: {}",
            command.join(" "),
            String::from_utf8_lossy(&done.stderr)
        );
    }
    let read = |file: &str| std::fs::read_to_string(out.join(file)).context("certificate was not written");
    Holder::new(&read("pay.pem")?, &read("pay.key")?, real_authority, domain)
}

/// The authority's certificate: the last of a node's chain.
fn authority_of(cluster: &Cluster, node: &str) -> anyhow::Result<String> {
    let read = |name: &str| std::fs::read_to_string(cluster.data(node).join(name));
    let chain = read("leaf.pem").or_else(|_| read("keys/renewed-leaf.pem"))?;
    let at = chain.rfind("-----BEGIN CERTIFICATE-----").context("no chain")?;
    Ok(chain.get(at..).unwrap_or_default().to_owned())
}

/// A field that may be absent.
pub(super) fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

fn all_settled(status: &Value, count: usize) -> bool {
    let members = at(status, "/members").as_array().map_or(&[][..], Vec::as_slice);
    at(status, "/ready") == &Value::Bool(true)
        && members.len() == count
        && members
            .iter()
            .all(|m| at(m, "/converged") == &Value::Bool(true) && at(m, "/holds_authority") == &Value::Bool(true))
}

fn members(status: &Value) -> String {
    let count = at(status, "/members").as_array().map_or(0, Vec::len);
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} member{plural}, generation {}, term {}", at(status, "/generation"), at(status, "/raft/term"))
}

fn text(value: &Value, field: &str) -> anyhow::Result<String> {
    value.get(field).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("no `{field}` in the answer"))
}
