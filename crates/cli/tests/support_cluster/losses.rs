//! Parts of a data directory that are lost or older than they were, and what a node says of it.

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::client::Client;
use super::{Node, PATIENCE, pause};

/// Copies the directory as it is now. Files before directories: a record of confirmations is not newer than that.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let mut entries: Vec<_> = fs::read_dir(from).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(|entry| entry.file_type().unwrap().is_dir());
    for entry in entries {
        let (target, kind) = (to.join(entry.file_name()), entry.file_type().unwrap());
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
}

pub fn replace(node: &Node, by: &Path) {
    fs::remove_dir_all(&node.data).unwrap();
    copy(by, &node.data);
}

/// Waits until the process of `node` has ended by itself; returns its exit code.
pub fn ended(node: &mut Node) -> i32 {
    let begun = Instant::now();
    loop {
        if let Some(status) = node.ended() {
            node.kill();
            return status.code().unwrap_or(-1);
        }
        assert!(begun.elapsed() < PATIENCE, "{} goes on:\n{}", node.name, node.log());
        pause();
    }
}

/// Starts a node that must not come up, and returns what it said.
pub fn refused(node: &mut Node, flags: &[&str]) -> (i32, String) {
    let before = node.log().len();
    node.start(flags);
    let code = ended(node);
    (code, node.log()[before..].to_owned())
}

/// The node refuses to start and prints the one command that brings it back.
pub fn assert_lost(node: &mut Node, way: &str) {
    let (code, said) = refused(node, &[]);
    let command = format!("try: countersign server --return-as-learner --data {}", node.data.display());
    assert!(code == 3 && said.contains(&command), "{way}: {code} {said}");
    assert!(!said.contains("discard") && !said.contains("empty the directory"), "{way}: {said}");
}

/// Ready members agree on everything that ever changed, and none of them accepts a revoked client.
pub fn assert_agreed(nodes: &[&Node], revoked: &Client) {
    let newest = nodes.iter().map(|node| node.until_ready()["changes"]["count"].as_u64().unwrap()).max().unwrap();
    let caught_up = |status: &Value| status["ready"] == true && status["changes"]["count"].as_u64() >= Some(newest);
    let seen: Vec<(u64, Value)> = nodes
        .iter()
        .map(|node| node.until(caught_up))
        .map(|status| (status["changes"]["count"].as_u64().unwrap(), status["changes"]["head"].clone()))
        .collect();
    for (count, head) in &seen {
        assert!(seen.iter().all(|(other, theirs)| other != count || theirs == head), "{seen:?}");
    }
    for node in nodes {
        assert!(revoked.connect(&node.client_address()).is_err(), "{} accepts a revoked client", node.name);
    }
}

/// Until the node is back as a learner, as each of `nodes` sees it; then it is promoted, and votes again.
pub fn until_back(nodes: &[&Node], back: &str) {
    let is = |status: &Value, role: &str| {
        let members = status["members"].as_array().unwrap();
        status["ready"] == true
            && members.iter().any(|m| m["name"] == back && m["role"] == role && m["converged"] == true)
    };
    for node in nodes {
        node.until(|status| is(status, "learner"));
    }
    nodes[0].ask(&["node", "promote", back]).ok();
    for node in nodes {
        node.until(|status| is(status, "voter"));
    }
}
