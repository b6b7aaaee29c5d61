//! Which names and addresses the certificates of real processes hold. Each node has a network of its own, and names of
//! its own in its `/etc/hosts`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support_cluster;

use std::path::Path;

use countersign_core::time::UnixMillis;
use countersign_pki::pem::certificates_from_pem;
use countersign_pki::verify::{Bundle, Usage, verify_chain};
use serde_json::Value;
use support_cluster::partition::Wires;
use support_cluster::{Node, SHORT_LEASE, World, authority_pem, chain_pem};

/// The hosts of the certificate that a node shows now, in order.
fn certified(data: &Path) -> Vec<String> {
    let pem = chain_pem(data);
    let bundle = Bundle::new(certificates_from_pem(&authority_pem(data)).unwrap().iter().map(AsRef::as_ref)).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let chain = certificates_from_pem(&pem).unwrap();
    let verified = verify_chain(&bundle, &chain, Usage::Server, Some(UnixMillis::from_secs(now))).unwrap();
    let mut hosts: Vec<String> = verified.hosts().iter().map(ToString::to_string).collect();
    hosts.sort();
    hosts
}

/// A cluster of one voter, on a wire with three more nodes.
struct Net {
    world: World,
    wires: Wires,
    founder: Node,
}

impl Net {
    /// None where this machine forbids namespaces.
    fn founded() -> Option<Self> {
        let (world, wires) = (World::new(), Wires::lay(4)?);
        wires.names(&[
            ("n2.example", wires.address(2)),
            ("two.example", wires.address(2)),
            ("database.example", wires.address(3)),
            ("local.example", "127.0.0.1".to_owned()),
            // A name that several hosts share.
            ("shared.example", wires.address(2)),
            ("shared.example", wires.address(3)),
        ]);
        let mut founder = world.node("n1");
        founder.namespace = Some(wires.namespace(1));
        let advertised = format!("{}:7001", wires.address(1));
        let flags = ["--bootstrap", "--cluster-addr", "0.0.0.0:7001", "--advertise-addr", &advertised];
        founder.start_with(&flags, &SHORT_LEASE);
        founder.until_ready();
        Some(Self { world, wires, founder })
    }

    /// Has node `number` join through `sponsor` and waits until the founder knows it.
    fn join(&self, number: u8, sponsor: &str, token: &[&str], advertised: &[&str]) -> Node {
        let mut node = self.world.node(&format!("n{number}"));
        node.namespace = Some(self.wires.namespace(number));
        let token = self.founder.token(&[["--role", "learner"].as_slice(), token].concat());
        let flag = self.world.token_file(&node.name, &token);
        node.start_with(&flags(&["--join-token", &flag, "--join-addr", sponsor], advertised), &SHORT_LEASE);
        node.until_ready();
        node
    }

    /// What the founder says of a node once `reached`.
    fn until(&self, name: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let of = |status: &Value| status["members"].as_array().unwrap().iter().find(|m| m["name"] == name).cloned();
        let status = self.founder.until(|status| of(status).is_some_and(|member| reached(&member)));
        of(&status).unwrap()
    }

    fn at(&self, node: u8) -> String {
        format!("{}:7001", self.wires.address(node))
    }
}

fn flags<'a>(first: &[&'a str], advertised: &[&'a str]) -> Vec<&'a str> {
    let advertised = advertised.iter().flat_map(|address| ["--advertise-addr", *address]);
    first.iter().copied().chain(["--cluster-addr", "0.0.0.0:7001"]).chain(advertised).collect()
}

fn list(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn learner_is_certified_for_what_a_voter_finds_and_nothing_else() {
    let Some(net) = Net::founded() else { return };
    let (own, database) = (net.wires.address(2), net.wires.address(3));
    let advertised = [
        format!("{own}:7001"),
        "n2.example:7001".to_owned(),
        // The address and the name of another host, a name that another host shares, one of this host alone, and none.
        format!("{database}:7001"),
        "database.example:7001".to_owned(),
        "shared.example:7001".to_owned(),
        "local.example:7001".to_owned(),
        "nowhere.example:7001".to_owned(),
        "169.254.169.254:80".to_owned(),
    ];
    let advertised: Vec<&str> = advertised.iter().map(String::as_str).collect();
    let node = net.join(2, &net.at(1), &[], &advertised);
    let mut expected = vec![own.as_str(), "n2.example"];
    expected.sort_unstable();
    assert_eq!(certified(&node.data), expected);
    let member = net.until("n2", |_| true);
    assert_eq!(list(&member["hosts"]), expected);
    let mut unproved = list(&member["unproved"]);
    unproved.sort_unstable();
    let mut others =
        [database.as_str(), "database.example", "shared.example", "local.example", "nowhere.example"].to_vec();
    others.push("169.254.169.254");
    others.sort_unstable();
    assert_eq!(unproved, others);
    // Said to the operator, with a command that works.
    let warnings = net.founder.status()["warnings"].to_string();
    assert!(warnings.contains("certificates of n2 do not hold"), "{warnings}");
    let first = list(&member["unproved"])[0].to_owned();
    assert!(warnings.contains(&format!("try: `countersign node hosts n2 add {first}`")), "{warnings}");
    net.founder.ask(&["node", "hosts", "n2", "add", "database.example"]).ok();
    node.until(|_| certified(&node.data).contains(&"database.example".to_owned()));
}

#[test]
fn learner_that_sponsors_proves_nothing_and_the_leader_looks_itself() {
    let Some(net) = Net::founded() else { return };
    let two = net.at(2);
    let _sponsor = net.join(2, &net.at(1), &[], &[&two]);
    let (own, named) = (net.at(3), "database.example:7001");
    let node = net.join(3, &two, &[], &[&own, named, "n2.example:7001"]);
    let mut expected = vec![net.wires.address(3), "database.example".to_owned()];
    expected.sort_unstable();
    assert_eq!(certified(&node.data), expected, "what the leader found, through a sponsor that is a learner");
}

#[test]
fn joiner_with_the_name_of_a_broker_or_of_all_is_refused() {
    let Some(net) = Net::founded() else { return };
    let out = net.world.path("broker");
    let out = out.to_str().unwrap();
    net.founder.ask(&["cert", "issue", "--broker", "n2.example", "--out", out]).ok();
    net.founder.ask(&["cluster", "set", "client_names=two.example"]).ok();
    for (name, why) in [("n2.example:7001", "broker/n2.example"), ("two.example:7001", "client_names")] {
        let token = net.founder.token(&["--role", "learner", "--host", name.split(':').next().unwrap()]);
        let mut node = net.world.node("n2");
        node.namespace = Some(net.wires.namespace(2));
        let flag = net.world.token_file("n2", &token);
        node.start_with(&flags(&["--join-token", &flag, "--join-addr", &net.at(1)], &[name]), &SHORT_LEASE);
        let log = node.until_ended();
        assert!(log.contains(why) && log.contains("try: "), "{log}");
    }
    assert_eq!(net.founder.status()["members"].as_array().unwrap().len(), 1);
}

#[test]
fn member_that_moved_is_certified_once_it_is_found() {
    let Some(net) = Net::founded() else { return };
    let own = net.at(2);
    let mut node = net.join(2, &net.at(1), &[], &[&own]);
    assert_eq!(certified(&node.data), [net.wires.address(2)]);
    assert!(node.stop().success());
    // Where it is, under another name; and where it is not.
    node.start_with(&flags(&[], &["two.example:7001", "database.example:7001"]), &SHORT_LEASE);
    let member = net.until("n2", |m| list(&m["hosts"]) == ["two.example"]);
    assert_eq!(list(&member["unproved"]), ["database.example"]);
    assert_eq!(list(&member["addresses"]), ["two.example:7001", "database.example:7001"]);
    node.until(|_| certified(&node.data) == ["two.example"]);
    net.founder
        .until(|s| s["raft"]["learners"].as_array().unwrap().len() == 1 && s["waiting_for"] == serde_json::json!([]));
}

#[test]
fn token_names_what_no_voter_can_reach() {
    let Some(net) = Net::founded() else { return };
    let (own, aside) = (net.at(2), format!("{}:7001", net.wires.aside(2)));
    let node = net.join(2, &net.at(1), &["--host", &net.wires.aside(2), "--host", "unused.example"], &[&own, &aside]);
    let mut expected = vec![net.wires.address(2), net.wires.aside(2)];
    expected.sort_unstable();
    assert_eq!(certified(&node.data), expected);
    assert_eq!(list(&net.until("n2", |_| true)["unproved"]), [""; 0]);
}

#[test]
fn shared_names_reach_every_certificate_soon() {
    let world = World::new();
    let nodes = world.voters(2);
    let set = |value: &str| nodes[0].ask(&["cluster", "set", &format!("client_names={value}")]);
    let settings = set("lb.example,10.9.9.9").ok().json();
    assert_eq!(settings["client_names"], serde_json::json!(["10.9.9.9", "lb.example"]));
    for node in &nodes {
        node.until(|_| certified(&node.data) == ["10.9.9.9", "127.0.0.1", "lb.example"]);
    }
    // Shown where it is asked, once all have renewed.
    nodes[1].until(|_| nodes[1].ask(&["cluster", "show"]).ok().json()["renewing"] == serde_json::json!([]));
    for (value, why) in [("A.example", "A.example"), ("lb.example:443", "lb.example:443")] {
        let said = set(value);
        assert!(said.code == 2 && said.stderr.contains(why), "{said:?}");
    }
    nodes[0].ask(&["node", "hosts", "n2", "add", "own.example"]).ok();
    let said = set("own.example");
    assert!(said.code == 1 && said.stderr.contains("node/2") && said.stderr.contains("try"), "{said:?}");
    set("").ok();
    nodes[1].until(|_| certified(&nodes[1].data) == ["127.0.0.1", "own.example"]);
    nodes[0].ask(&["node", "hosts", "n2", "remove", "own.example"]).ok();
    nodes[1].until(|_| certified(&nodes[1].data) == ["127.0.0.1"]);
    nodes[0].until_settled(2);
}
