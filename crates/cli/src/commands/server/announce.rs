//! What a server says once it is up: who and where it is, and after a bootstrap how others join.
//!
//! The token itself is shown on a terminal only; elsewhere, the path of its file.

use std::path::{Path, PathBuf};

use countersign::datadir::{file, read_own_secret};
use countersign::{Member, Started};
use serde::Serialize;

use super::word;
use crate::failure::{Failure, chain};
use crate::output::{Output, print, printable};

/// A server that is up.
#[derive(Serialize)]
struct Ready {
    event: &'static str,
    started: &'static str,
    node: u64,
    name: String,
    role: Option<String>,
    cluster: String,
    cluster_id: String,
    trust_domain: String,
    cluster_addr: Option<String>,
    advertise: Vec<String>,
    client_addr: Option<String>,
    https_addr: Option<String>,
    /// SHA-256 of the authority's certificate.
    authority: Option<String>,
    token_file: Option<PathBuf>,
    join_command: Option<String>,
}

/// Tells that the member is up.
pub(super) fn announce(member: &Member, started: Started, data: &Path, output: Output) -> Result<(), Failure> {
    let ready = ready(member, started, data);
    if output.json {
        let json = serde_json::to_string(&ready).unwrap_or_default();
        return print(&format!("{json}\n"));
    }
    print_lines(&lines(&ready, started))?;
    if let (Some(path), Some(address)) = (&ready.token_file, ready.advertise.first()) {
        if output.terminal {
            print_token(path, address)?;
        }
        print_lines(&hints(&ready))?;
    }
    Ok(())
}

fn print_lines(lines: &[String]) -> Result<(), Failure> {
    print(&lines.iter().map(|line| format!("{}\n", printable(line))).collect::<String>())
}

fn ready(member: &Member, started: Started, data: &Path) -> Ready {
    let view = member.view();
    let this = view.members.get(&member.node());
    let advertise: Vec<String> =
        this.map(|this| this.addresses.iter().map(ToString::to_string).collect()).unwrap_or_default();
    let token_file = Some(data.join(file::CLUSTER_TOKEN)).filter(|path| started == Started::Founded && path.exists());
    let join_command = token_file.as_ref().zip(advertise.first()).map(|(path, address)| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        format!("countersign server --join-token @{} --join-addr {address}", quoted(&path))
    });
    Ready {
        event: "ready",
        started: word(started),
        node: member.node().0,
        name: member.name().to_string(),
        role: this.map(|this| this.suffrage.to_string()),
        cluster: view.name.to_string(),
        cluster_id: view.cluster.to_string(),
        trust_domain: view.trust_domain.to_string(),
        cluster_addr: member.cluster_addr().map(|address| address.to_string()),
        advertise,
        client_addr: member.client_addr().map(|address| address.to_string()),
        https_addr: member.https_addr().map(|address| address.to_string()),
        authority: view.active_authority().map(|(id, _)| id.to_string()),
        token_file,
        join_command,
    }
}

fn lines(ready: &Ready, started: Started) -> Vec<String> {
    let listens = ready.cluster_addr.as_deref().unwrap_or("nowhere");
    let (node, name, cluster) = (ready.node, &ready.name, &ready.cluster);
    let mut lines = vec![match started {
        Started::Again => format!("node {node} (`{name}`) of cluster `{cluster}` is up again and listens on {listens}"),
        Started::Founded => format!("cluster `{cluster}` is made: node {node} (`{name}`) listens on {listens}"),
        Started::Returned => format!(
            "node {node} (`{name}`) is back in cluster `{cluster}` as a learner and listens on {listens}; \
             `countersign node promote {name}` gives it its vote"
        ),
        Started::Joined => format!("node {node} (`{name}`) has joined cluster `{cluster}` and listens on {listens}"),
    }];
    if let Some(authority) = &ready.authority {
        lines.push(format!("CA fingerprint (SHA-256): {authority}"));
    }
    if let Some(client) = &ready.client_addr {
        lines.push(format!("clients on {client}"));
    }
    if let Some(https) = &ready.https_addr {
        lines.push(format!("HTTPS on {https}"));
    }
    let Some(command) = &ready.join_command else {
        if started == Started::Founded {
            lines.push(
                "it is alone, on loopback only; to let others join, start an empty --data with --bootstrap".to_owned(),
            );
        }
        return lines;
    };
    lines.push(
        "other nodes join (as learners, unless [cluster.token] says otherwise) with this file copied to their hosts:"
            .to_owned(),
    );
    lines.push(format!("  {command}"));
    lines
}

/// What else to know about joining.
fn hints(ready: &Ready) -> Vec<String> {
    let voter = "a voter joins by a token of `countersign token create`, or later by `countersign node promote`";
    let mut hints = vec![voter.to_owned()];
    let listens = ready.cluster_addr.as_deref().unwrap_or_default();
    if listens.starts_with("127.") || listens.starts_with("[::1]") {
        hints.push(
            "this is loopback, which other hosts do not reach: bind another address with --cluster-addr".to_owned(),
        );
    }
    hints
}

fn print_token(path: &Path, address: &str) -> Result<(), Failure> {
    let unreadable = |why: String| Failure::unreachable(why, "look at the data directory");
    let token = read_own_secret(path).map_err(|error| unreadable(chain(&error)))?;
    let Some(token) = token else { return Ok(()) };
    let token = String::from_utf8_lossy(token.expose()).into_owned();
    let token = zeroize::Zeroizing::new(token);
    print("or, with the token itself:\n  COUNTERSIGN_JOIN_TOKEN=")?;
    print(token.trim())?;
    print(&format!(" countersign server --join-addr {address}\n"))
}

/// A path as a shell reads it back.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '+' | ':' | ',');
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(quoted(Path::new("/var/lib/countersign/cluster-token")), "/var/lib/countersign/cluster-token");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
