//! A learner is asked to administer over HTTPS: it sends the admin on to the leader, who is verified as strictly.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use serde_json::Value;
use support_cluster::{Node, Said, World, run};

/// A leader and a learner, and an admin's certificate of their cluster.
struct Two {
    world: World,
    leader: Node,
    learner: Node,
}

const HTTPS: [&str; 2] = ["--https-addr", "127.0.0.1:0"];

impl Two {
    fn new() -> Self {
        let world = World::new();
        let mut leader = world.node("n1");
        leader.start(&[&["--bootstrap", "--cluster-name", "test"], &HTTPS[..]].concat());
        leader.until_ready();
        let certificates = world.path("certificates");
        leader.ask(&["cert", "issue", "--admin", "ada", "--out", certificates.to_str().unwrap()]).ok();
        let file = world.token_file("n2", &leader.token(&["--role", "learner"]));
        let mut learner = world.node("n2");
        learner.start(&[&["--join-token", &file, "--join-addr", &leader.address()], &HTTPS[..]].concat());
        learner.until_ready();
        learner.until_settled(2);
        Self { world, leader, learner }
    }

    /// The leader comes back with other flags, and the learner follows it again, at this address.
    fn restart_leader(&mut self, flags: &[&str], address: &str) {
        self.leader.stop();
        self.leader.start(flags);
        self.leader.until_ready();
        let at = |status: &Value| status["members"][0]["addresses"][0].as_str().unwrap().starts_with(address);
        self.learner.until(|status| status["ready"] == true && status["raft"]["leader"] == 1 && at(status));
    }

    /// As the admin, over the learner's HTTPS port.
    fn ask_learner(&self, command: &[&str]) -> Said {
        let endpoints: Value =
            serde_json::from_slice(&std::fs::read(self.learner.data.join("endpoints.json")).unwrap()).unwrap();
        let file = |name: &str| self.world.path("certificates").join(name).to_str().unwrap().to_owned();
        let (identity, key, ca) = (file("ada.pem"), file("ada.key"), file("ca.pem"));
        let server = endpoints["https"].as_str().unwrap();
        let flags = ["--server", server, "--identity", &identity, "--identity-key", &key, "--ca", &ca];
        run(&[command, &flags].concat())
    }

    fn tokens(&self) -> usize {
        self.leader.ask(&["token", "list"]).ok().json().as_array().unwrap().len()
    }
}

#[test]
fn a_learner_sends_an_admin_on_to_the_leader() {
    let mut two = Two::new();
    let before = two.tokens();
    let created = two.ask_learner(&["token", "create", "--json"]).ok().json();
    assert!(created["join_addr"] == two.leader.address() && two.tokens() == before + 1, "{created}");
    two.ask_learner(&["token", "revoke", created["id"].as_str().unwrap()]).ok();
    two.ask_learner(&["node", "promote", "n2"]).ok();
    two.ask_learner(&["node", "demote", "n2", "--keep-authority"]).ok();
    let rule = ["--principal", "client/x", "--action", "read", "--topic", "t"];
    let added = two.ask_learner(&[&["acl", "add", "--json"], &rule[..]].concat()).ok().json();
    let generation = added["generation"].to_string();
    two.ask_learner(&["node", "label", "n2", "gpu=true"]).ok();
    let refused = two.learner.ask(&[&["acl", "remove"], &rule[..]].concat());
    assert!(refused.code == 1 && refused.stderr.contains("not a voter"), "{refused:?}");
    // What it can answer, it answers itself; and its socket tells the operator of the host where to go.
    assert_eq!(two.ask_learner(&["status", "--json"]).ok().json()["name"], "n2");
    two.ask_learner(&[&["acl", "check", "--min-generation", &generation], &rule[..]].concat()).ok();
    two.learner.ask(&[&["acl", "explain"], &rule[..]].concat()).ok();
    let refused = two.learner.ask(&["token", "create"]);
    assert!(refused.code == 1 && refused.stderr.contains("not a voter"), "{refused:?}");

    // Where the leader serves no HTTPS there is nowhere to go.
    two.restart_leader(&[], "127.0.0.1:");
    let refused = two.ask_learner(&["token", "create"]);
    assert!(refused.code == 1 && refused.stderr.contains("not a voter"), "{refused:?}");
}

#[test]
fn the_leader_that_a_learner_names_is_verified_as_the_learner_is() {
    let mut two = Two::new();
    // The leader has moved to a host that its certificate does not hold.
    let port = two.leader.address().rsplit_once(':').unwrap().1.to_owned();
    let moved = format!("localhost:{port}");
    two.restart_leader(&[&["--advertise-addr", &moved], &HTTPS[..]].concat(), "localhost:");
    let before = two.tokens();
    let refused = two.ask_learner(&["token", "create"]);
    assert!(refused.code == 3 && refused.stderr.contains("dialed host"), "{refused:?}");
    assert!(refused.stderr.contains("localhost"), "the one that was not believed is named: {refused:?}");
    assert_eq!(two.tokens(), before);
}
